# SPDX-License-Identifier: Apache-2.0
"""``auto``: which strategy to run, how wide, and when to stop. A pure function of the plan and of what was measured.

The yardstick is the majority vote among ``plan.n`` candidates. Without a budget of the caller's, ``auto`` looks for the
most accurate search that generates at most :data:`SHARE` of the tokens of that vote and costs no more FLOPs, scorer
included, and takes the cheapest of those that are about as accurate. With a budget, that is the bound instead.

1. Whatever was measured as less accurate than the majority vote that the bounds allow is never chosen. So a scorer
   that does not earn its cost is not used, and the answer comes from a majority vote.
2. If nothing is as accurate within :data:`SHARE`, it is the cheapest that is as accurate: at worst that vote itself.
3. If nothing was measured with this generator, it is a majority vote that stops as soon as it is decided: nothing then
   says that a scorer knows better.
4. With ``pad_to_budget`` no vote stops early, because what is saved would be spent anyway.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from adyton_enclave.scaling.calibration import Point, ScalingCalibration
from adyton_enclave.scaling.plan import NEEDS_SCORER, Budget, Plan, StopKind, Strategy
from adyton_protocol.selection.candidate import METHODS, Method

SHARE: Final = 0.4
"""Of the tokens of the yardstick, what ``auto`` generates at most where something as accurate was measured there."""
ABOUT: Final = 0.005
"""Accuracies this near to each other are not worth paying for; well inside the noise of a calibration."""
UNCALIBRATED_STOP: Final[StopKind] = "beta"


def choose(plan: Plan, calibration: ScalingCalibration | None, *, scores: bool) -> Plan:
    """The plan that ``auto`` stands for; another plan is returned as it is.

    Args:
        plan: What was asked for. ``n`` bounds the width.
        calibration: What was measured with the generator at hand; None where nobody did.
        scores: Whether there is a scorer.

    Returns:
        The same plan with strategy, width, method of selection and stopping rule decided; never ``auto``.
    """
    if plan.strategy != "auto":
        return plan
    usable = [point for point in _points(calibration) if _usable(point, plan, scores=scores)]
    point = _choose(usable, plan.budget)
    if point is None:
        stop: StopKind = "none" if plan.pad_to_budget else UNCALIBRATED_STOP
        return _with(plan, "majority", plan.n, stop)
    return _with(plan, point.strategy, point.n, point.stop)


def _points(calibration: ScalingCalibration | None) -> Sequence[Point]:
    return () if calibration is None else calibration.points


def _usable(point: Point, plan: Plan, *, scores: bool) -> bool:
    return (
        point.n <= plan.n
        and (scores or point.strategy not in NEEDS_SCORER)
        and (point.stop == "none" or not plan.pad_to_budget)
    )


def _choose(usable: Sequence[Point], budget: Budget) -> Point | None:
    """The best point; None where no majority vote was measured to compare with."""
    votes = [point for point in usable if point.strategy == "majority" and point.stop == "none"]
    if not votes:
        return None
    if budget.policy_tokens is not None or budget.total_flops is not None:
        affordable = [point for point in usable if _fits(point, budget)]
        if not affordable:
            # The budget will cut it off; the least cut one loses least.
            return min(usable, key=_cost)
        votes = [point for point in affordable if point.strategy == "majority"]
        bar = max((point.accuracy for point in votes), default=0.0)
        return _cheapest_of_best([point for point in affordable if point.accuracy >= bar])
    yardstick = max(votes, key=lambda point: point.n)
    as_good = [point for point in usable if point.accuracy >= yardstick.accuracy]
    within = [
        point
        for point in as_good
        if point.policy_tokens <= SHARE * yardstick.policy_tokens
        and point.total_flops <= yardstick.total_flops
    ]
    return _cheapest_of_best(within) if within else min(as_good, key=_cost)


def _cheapest_of_best(points: Sequence[Point]) -> Point:
    best = max(point.accuracy for point in points)
    return min((point for point in points if point.accuracy >= best - ABOUT), key=_cost)


def _fits(point: Point, budget: Budget) -> bool:
    """Whether nine questions of ten are done within a budget."""
    tokens = budget.policy_tokens is None or point.most_policy_tokens <= budget.policy_tokens
    return tokens and (budget.total_flops is None or point.most_total_flops <= budget.total_flops)


def _cost(point: Point) -> tuple[float, float]:
    return point.total_flops, point.policy_tokens


def _with(plan: Plan, strategy: Strategy, n: int, stop: StopKind) -> Plan:
    return replace(
        plan,
        strategy=strategy,
        n=n,
        rule=replace(plan.rule, method=method_of(strategy)),
        stop=replace(plan.stop, kind=stop),
    )


def method_of(strategy: Strategy) -> Method:
    """How a strategy chooses in the end: searches over trees by a weighted vote."""
    # Of attempts that learn from one another only the best was ever meant to be kept.
    if strategy == "refine":
        return "best-of-n"
    return next((method for method in METHODS if method == strategy), "weighted")
