# SPDX-License-Identifier: Apache-2.0
"""What was measured about searches with one generator and one scorer: accuracy against cost, strategy by strategy.

``adyton-models calibrate --scaling`` measures it and writes it into the scorer's adapter file, as ``[[scaling]]``. It
decides what ``auto`` does, so it can change an answer; the adapter's digest, with this in it, is part of the scorer's
identity.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from adyton_enclave.scaling.plan import EXPERIMENTAL, STOP_KINDS, STRATEGIES, StopKind, Strategy
from adyton_enclave.toml_table import Table
from adyton_protocol.digests import DIGEST_PATTERN, Digest

MAX_GENERATORS: Final = 16
MAX_POINTS: Final = 256
MAX_N: Final = 1024
_MOST: Final = 1e30
MEASURED: Final[tuple[Strategy, ...]] = tuple(
    strategy for strategy in STRATEGIES if strategy not in EXPERIMENTAL | {"auto", "refine"}
)
"""The strategies that may be calibrated. ``auto`` stands for one of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One strategy at one width.

    Attributes:
        strategy: See :data:`MEASURED`.
        n: Candidates, or width of the tree.
        stop: When the vote ends early.
        accuracy: Share of the problems that it solved.
        policy_tokens: Generated for a problem, on average.
        total_flops: Spent on a problem by generator and scorer, on average.
        most_policy_tokens: With which nine problems of ten were done.
        most_total_flops: Likewise.
    """

    strategy: Strategy
    n: int
    stop: StopKind
    accuracy: float
    policy_tokens: float
    total_flops: float
    most_policy_tokens: float
    most_total_flops: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingCalibration:
    """All that was measured with one generator.

    Attributes:
        generator: Content digest of the generator (``model_identity``).
        n_problems: How many problems the figures rest on.
        answer_auc: Chance that the scorer puts a right answer above a wrong one to the same problem; None when nobody
            knows. What counts is whether a search is better for it, which the points say.
        points: In the order of the file, at least one; each strategy, width and stopping rule once.
    """

    generator: Digest
    n_problems: int
    answer_auc: float | None = None
    points: tuple[Point, ...]


def calibration_for(
    calibrations: Sequence[ScalingCalibration], generator: Digest
) -> ScalingCalibration | None:
    """What was measured with the generator of this content digest; figures of another one say nothing."""
    return next((each for each in calibrations if each.generator == generator), None)


def read_scaling(tables: Sequence[Table]) -> tuple[ScalingCalibration, ...]:
    """Read the ``[[scaling]]`` tables of an adapter (attacker-controlled until its digest was checked).

    Raises:
        ConfigError: The tables' own kind of it: something is unknown, missing, out of range, or given twice.
    """
    if len(tables) > MAX_GENERATORS:
        raise tables[0].fail("generator", f"may differ {MAX_GENERATORS} times at most")
    found: dict[Digest, ScalingCalibration] = {}
    for table in tables:
        generator = table.text("generator")
        if not DIGEST_PATTERN.fullmatch(generator):
            raise table.fail("generator", "must be sha256: and 64 lower-case hexadecimal digits")
        if generator in found:
            raise table.fail("generator", "is given twice")
        found[Digest(generator)] = ScalingCalibration(
            generator=Digest(generator),
            n_problems=table.whole("n_problems"),
            answer_auc=_number(table, "answer_auc", 1.0) if table.has("answer_auc") else None,
            points=_points(table),
        )
        table.finish()
    return tuple(found.values())


def _points(parent: Table) -> tuple[Point, ...]:
    tables = parent.tables("points")
    if len(tables) > MAX_POINTS:
        raise parent.fail("points", f"must have at most {MAX_POINTS} items")
    points = [_point(table) for table in tables]
    if len({(point.strategy, point.n, point.stop) for point in points}) < len(points):
        raise parent.fail("points", "must not give the same strategy, width and stopping rule twice")
    return tuple(points)


def _point(table: Table) -> Point:
    point = Point(
        strategy=table.choice("strategy", MEASURED),
        n=table.whole("n", high=MAX_N),
        stop=table.choice("stop", STOP_KINDS, "none"),
        accuracy=_number(table, "accuracy", 1.0),
        policy_tokens=_number(table, "policy_tokens", _MOST),
        total_flops=_number(table, "total_flops", _MOST),
        most_policy_tokens=_number(table, "most_policy_tokens", _MOST),
        most_total_flops=_number(table, "most_total_flops", _MOST),
    )
    table.finish()
    return point


def _number(table: Table, key: str, high: float) -> float:
    value = table.real(key, low=0.0, high=high)
    if not math.isfinite(value):
        raise table.fail(key, "must be a number")
    return value
