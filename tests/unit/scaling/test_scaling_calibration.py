# SPDX-License-Identifier: Apache-2.0
"""The `[[scaling]]` tables of an adapter: a closed set of keys, bounded, and a typed error for everything else."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton_enclave.scaling.calibration import MAX_POINTS, MEASURED, Point, ScalingCalibration
from adyton_enclave.scaling.plan import STOP_KINDS
from adyton_enclave.scoring import parse_adapter
from adyton_models.golden import with_scaling
from adyton_protocol.digests import Digest
from adyton_protocol.errors import AdapterError, ConfigError

CONVENTION = (Path(__file__).parents[3] / "models" / "adapters" / "adyton-words-scorer.toml").read_bytes()
SHIPPED = (Path(__file__).parents[3] / "models" / "shipped" / "adyton-words-likelihood.toml").read_bytes()
DIGEST = "sha256:" + "0" * 64
POINT = (
    '{ strategy = "rebase", n = 8, stop = "none", accuracy = 0.5, policy_tokens = 600.0, total_flops = 1e9, '
    "most_policy_tokens = 900.0, most_total_flops = 2e9 }"
)
TABLE = f'\n[[scaling]]\ngenerator = "{DIGEST}"\nn_problems = 100\npoints = [{POINT}]\n'


def _parse(table: str) -> tuple[ScalingCalibration, ...]:
    return parse_adapter(CONVENTION + table.encode()).scaling


def test_a_calibration_is_read_as_it_stands() -> None:
    """Every figure arrives, and the digest of the adapter covers it."""
    (found,) = _parse(TABLE)
    assert found.generator == DIGEST
    assert found.points == (
        Point(
            strategy="rebase",
            n=8,
            stop="none",
            accuracy=0.5,
            policy_tokens=600.0,
            total_flops=1e9,
            most_policy_tokens=900.0,
            most_total_flops=2e9,
        ),
    )
    other = TABLE.replace("accuracy = 0.5", "accuracy = 0.6")
    digests = {parse_adapter(CONVENTION + table.encode()).digest for table in ("", TABLE, other)}
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        (DIGEST, "sha256:0", "generator must be"),
        ("n_problems = 100", "n_problems = 0", "n_problems must be"),
        ("n_problems = 100", "n_problems = 100\nextra = 1", "extra is not a key"),
        ('strategy = "rebase"', 'strategy = "auto"', "strategy must be one of"),
        ('strategy = "rebase"', 'strategy = "mcts"', "strategy must be one of"),
        ('stop = "none"', 'stop = "soon"', "stop must be one of"),
        ("n = 8", "n = 0", "n must be a whole number"),
        ("accuracy = 0.5", "accuracy = 1.5", "accuracy must be"),
        ("accuracy = 0.5", "accuracy = nan", "accuracy must be"),
        ("total_flops = 1e9", "total_flops = inf", "total_flops must be"),
        ("total_flops = 1e9", "total_flops = -1", "total_flops must be"),
        ("total_flops = 1e9, ", "", "total_flops is missing"),
        (f"points = [{POINT}]", "points = []", "points must be given at least once"),
        (f"points = [{POINT}]", f"points = [{POINT}, {POINT}]", "must not give the same"),
        (f"points = [{POINT}]", "points = [" + (POINT + ", ") * (MAX_POINTS + 1) + "]", "at most"),
        (TABLE, TABLE + TABLE, "generator is given twice"),
    ],
)
def test_a_faulty_calibration_is_refused(before: str, after: str, problem: str) -> None:
    """Each fault is a typed error that names the key and none of the values."""
    assert before in TABLE
    with pytest.raises(AdapterError, match=problem):
        _parse(TABLE.replace(before, after))


@given(st.text(max_size=200))
def test_no_text_there_does_anything_but_parse_or_raise(text: str) -> None:
    """Whatever stands in the table, the outcome is a calibration or an AdapterError."""
    with contextlib.suppress(AdapterError):
        _parse(TABLE + text)


_POINTS = st.builds(
    Point,
    strategy=st.sampled_from(MEASURED),
    n=st.integers(1, 64),
    stop=st.sampled_from(STOP_KINDS),
    accuracy=st.floats(0, 1).map(lambda value: round(value, 4)),
    policy_tokens=st.integers(0, 10**6).map(float),
    total_flops=st.floats(0, 1e20).map(lambda value: float(f"{value:.4g}")),
    most_policy_tokens=st.integers(0, 10**6).map(float),
    most_total_flops=st.floats(0, 1e20).map(lambda value: float(f"{value:.4g}")),
)


@given(st.lists(_POINTS, min_size=1, max_size=6, unique_by=lambda each: (each.strategy, each.n, each.stop)))
def test_what_is_written_is_what_is_read(points: list[Point]) -> None:
    """An adapter that gets a calibration has it, and is otherwise what it was, golden vectors included."""
    made = ScalingCalibration(generator=Digest(DIGEST), n_problems=7, points=tuple(points))
    before = parse_adapter(SHIPPED)
    once = with_scaling(SHIPPED, made)
    assert parse_adapter(once).scaling == (made,)
    assert parse_adapter(once).golden == before.golden
    other = ScalingCalibration(generator=Digest("sha256:" + "f" * 64), n_problems=9, points=tuple(points))
    assert parse_adapter(with_scaling(once, other)).scaling == (made, other)
    assert with_scaling(once, made) == once


def test_what_is_no_adapter_gets_no_calibration() -> None:
    """The file is checked before anything is written."""
    made = ScalingCalibration(generator=Digest(DIGEST), n_problems=7, points=_parse(TABLE)[0].points)
    with pytest.raises(ConfigError):
        with_scaling(b"version = 1", made)
