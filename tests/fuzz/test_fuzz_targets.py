# SPDX-License-Identifier: Apache-2.0
"""Near-genuine input ends in a typed error, soon, and is never accepted; `make fuzz` goes further with atheris."""

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz_mutations import mutated
from fuzz_targets import LIMIT_S, TARGETS, Accepted, Hang, Target, real_targets, timed
from real_samples import NotAvailable


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_genuine_input_passes_its_target(target: Target) -> None:
    """A target that refused what is genuine would find nothing."""
    genuine, *others = target.seeds()
    target.run(genuine)
    for seed in others:
        timed(target, seed)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
@given(data=st.data())
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
def test_input_near_the_genuine_one_never_crashes_hangs_or_passes(
    target: Target, data: st.DataObject
) -> None:
    """Whatever is bent, the outcome is a typed error within the time limit, or the genuine thing."""
    timed(target, data.draw(mutated(target.seeds(), text=target.text)))


@pytest.mark.network
@pytest.mark.parametrize("index", [0, 1], ids=["version-4", "version-5"])
@given(data=st.data())
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
def test_no_changed_real_quote_passes(index: int, data: st.DataObject) -> None:
    """The same for quotes of Intel's platforms, at the time of their collateral."""
    try:
        target = real_targets()[index]
    except NotAvailable as reason:
        pytest.skip(f"real quotes are not available: {reason}")
    timed(target, data.draw(mutated(target.seeds(), text=False)))


def test_a_target_notices_what_must_not_be() -> None:
    """Acceptance, another error and a hang are all failures."""

    def accepts(_: bytes) -> None:
        raise Accepted("for the test")

    def spins(_: bytes) -> None:
        begun_s = time.thread_time()
        while time.thread_time() - begun_s <= LIMIT_S:
            pass

    with pytest.raises(Accepted):
        timed(Target(name="accepts", run=accepts), b"")
    with pytest.raises(Hang):
        timed(Target(name="spins", run=spins), b"")
