# SPDX-License-Identifier: Apache-2.0
"""A long prompt slows running streams down by a bounded factor, and is not starved by them."""

from hypothesis import given
from hypothesis import strategies as st

from adyton_enclave.engine.prefill_share import FIRST_TOKENS, MIN_TOKENS, SLOWDOWN, PrefillShare

_COSTS = st.floats(1e-6, 1e-2)


@given(base_s=_COSTS, token_s=_COSTS, decoding=st.integers(1, 32), most=st.integers(MIN_TOKENS, 2048))
def test_a_mixed_step_takes_a_bounded_multiple_of_a_plain_one(
    base_s: float, token_s: float, decoding: int, most: int
) -> None:
    """On a machine with these costs, whatever they are, once it has been watched."""
    share = PrefillShare(most)
    plain_s = base_s + decoding * token_s
    for _ in range(60):
        share.observe(decoding, 0, plain_s)
        tokens = share.tokens(decoding)
        share.observe(decoding, tokens, plain_s + tokens * token_s)
    tokens = share.tokens(decoding)
    assert MIN_TOKENS <= tokens <= most
    within = plain_s + tokens * token_s <= SLOWDOWN * plain_s * 1.001
    assert within or tokens == MIN_TOKENS
    # Nothing affordable is held back.
    assert tokens == most or plain_s + (tokens + 2) * token_s > SLOWDOWN * plain_s * 0.999


def test_before_anything_is_known_the_share_is_modest() -> None:
    """And stays within what the operator allows."""
    assert PrefillShare(512).tokens(3) == FIRST_TOKENS
    assert PrefillShare(20).tokens(3) == 20


def test_an_operator_can_fix_the_share() -> None:
    """Then nothing that is measured moves it."""
    share = PrefillShare(100, fixed=True)
    share.observe(1, 0, 1e-6)
    share.observe(0, 512, 100.0)
    assert share.tokens(1) == 100


def test_the_share_follows_the_machine() -> None:
    """When prefill becomes dearer the share shrinks, and it recovers."""
    share = PrefillShare(512)
    share.observe(4, 0, 0.01)
    share.observe(0, 256, 0.0256)
    generous = share.tokens(4)
    for _ in range(30):
        share.observe(0, 256, 0.256)
    assert share.tokens(4) < generous / 5
    for _ in range(30):
        share.observe(0, 256, 0.0256)
    assert share.tokens(4) >= generous * 0.95
