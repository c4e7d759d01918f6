# SPDX-License-Identifier: Apache-2.0
"""What `auto` stands for, against a slow way to find the same, and the properties that it promises."""

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton_enclave.scaling.auto import ABOUT, SHARE, choose
from adyton_enclave.scaling.calibration import MEASURED, Point, ScalingCalibration, calibration_for
from adyton_enclave.scaling.plan import NEEDS_SCORER, STOP_KINDS, Budget, Plan
from adyton_protocol.digests import Digest
from adyton_protocol.selection.candidate import SelectionRule

_GENERATOR = Digest("sha256:" + "1" * 64)
_WIDTHS = (1, 2, 4, 8, 16)


def _point(strategy: str, n: int, accuracy: float, tokens: float, flops: float, stop: str = "none") -> Point:
    return Point(
        strategy=next(each for each in MEASURED if each == strategy),
        n=n,
        stop=next(each for each in STOP_KINDS if each == stop),
        accuracy=accuracy,
        policy_tokens=tokens,
        total_flops=flops,
        most_policy_tokens=1.5 * tokens,
        most_total_flops=1.5 * flops,
    )


def _calibration(*points: Point) -> ScalingCalibration:
    return ScalingCalibration(generator=_GENERATOR, n_problems=100, points=points)


def _plan(n: int = 16, budget: Budget | None = None, *, pad: bool = False) -> Plan:
    return Plan(
        strategy="auto",
        n=n,
        rule=SelectionRule(method="majority"),
        budget=budget or Budget(),
        pad_to_budget=pad,
    )


@st.composite
def _calibrations(draw: st.DrawFn) -> ScalingCalibration:
    cells = draw(
        st.lists(
            st.sampled_from(list(product(MEASURED, _WIDTHS, STOP_KINDS))),
            unique=True,
            min_size=1,
            max_size=12,
        )
    )
    share = st.integers(0, 20).map(lambda each: each / 20)
    cost = st.integers(1, 40).map(float)
    return _calibration(
        *(_point(strategy, n, draw(share), draw(cost), draw(cost), stop) for strategy, n, stop in cells)
    )


_BUDGETS = st.builds(
    Budget,
    policy_tokens=st.none() | st.integers(1, 80),
    total_flops=st.none() | st.integers(1, 80).map(float),
)
_PLANS = st.builds(_plan, n=st.sampled_from(_WIDTHS), budget=_BUDGETS, pad=st.booleans())


def _slowly(plan: Plan, calibration: ScalingCalibration, *, scores: bool) -> Point | None:
    """The same by looking at every point again for every question about it."""

    def usable(point: Point) -> bool:
        if point.n > plan.n or (point.stop != "none" and plan.pad_to_budget):
            return False
        return scores or point.strategy not in NEEDS_SCORER

    def fits(point: Point) -> bool:
        tokens, flops = plan.budget.policy_tokens, plan.budget.total_flops
        if tokens is not None and point.most_policy_tokens > tokens:
            return False
        return flops is None or point.most_total_flops <= flops

    def cheapest(points: list[Point]) -> Point:
        found = points[0]
        for point in points:
            if point.total_flops < found.total_flops or (
                point.total_flops == found.total_flops and point.policy_tokens < found.policy_tokens
            ):
                found = point
        return found

    def best(points: list[Point]) -> Point:
        return cheapest([p for p in points if all(p.accuracy >= other.accuracy - ABOUT for other in points)])

    points = [point for point in calibration.points if usable(point)]
    majorities = [point for point in points if point.strategy == "majority" and point.stop == "none"]
    if not majorities:
        return None
    bounded = plan.budget.policy_tokens is not None or plan.budget.total_flops is not None
    if bounded:
        if not any(fits(point) for point in points):
            return cheapest(points)
        bars = [point.accuracy for point in points if fits(point) and point.strategy == "majority"]
        return best([p for p in points if fits(p) and all(p.accuracy >= bar for bar in bars)])
    (yardstick,) = (m for m in majorities if all(m.n >= other.n for other in majorities))
    good = [point for point in points if point.accuracy >= yardstick.accuracy]
    saving = [
        point
        for point in good
        if point.policy_tokens <= SHARE * yardstick.policy_tokens
        and point.total_flops <= yardstick.total_flops
    ]
    return best(saving) if saving else cheapest(good)


@given(_PLANS, _calibrations(), st.booleans())
def test_it_is_what_a_slow_search_through_all_points_finds(
    plan: Plan, calibration: ScalingCalibration, scores: bool
) -> None:
    """Strategy, width and stopping rule are those of the point that a plain reading of the rules picks."""
    chosen = choose(plan, calibration, scores=scores)
    expected = _slowly(plan, calibration, scores=scores)
    if expected is None:
        assert (chosen.strategy, chosen.n) == ("majority", plan.n)
    else:
        assert (chosen.strategy, chosen.n, chosen.stop.kind) == (expected.strategy, expected.n, expected.stop)


@given(_PLANS, _calibrations(), st.booleans())
def test_it_asks_for_no_more_than_the_caller_did(
    plan: Plan, calibration: ScalingCalibration, scores: bool
) -> None:
    """Never wider, never `auto` again, never with a scorer that is not there; budget and answer rule stay."""
    chosen = choose(plan, calibration, scores=scores)
    assert chosen.strategy != "auto"
    assert chosen.n <= plan.n
    assert scores or chosen.strategy not in NEEDS_SCORER
    assert (chosen.budget, chosen.rule.answer, chosen.rule.k) == (plan.budget, plan.rule.answer, plan.rule.k)
    assert chosen.stop.kind == "none" or not plan.pad_to_budget


@given(_PLANS, _calibrations(), st.booleans())
def test_it_is_never_less_accurate_than_the_majority_vote(
    plan: Plan, calibration: ScalingCalibration, scores: bool
) -> None:
    """On calibration data, whatever is chosen without a budget is as accurate as the widest majority vote."""
    free = replace(plan, budget=Budget())
    chosen = choose(free, calibration, scores=scores)
    accuracies = {(point.strategy, point.n, point.stop): point.accuracy for point in calibration.points}
    found = accuracies.get((chosen.strategy, chosen.n, chosen.stop.kind))
    yardstick = max(
        (point for point in calibration.points if point.strategy == "majority" and point.stop == "none"),
        key=lambda point: (point.n <= plan.n, point.n),
        default=None,
    )
    if found is not None and yardstick is not None and yardstick.n <= plan.n:
        assert found >= yardstick.accuracy


def test_the_most_accurate_search_within_the_share_is_taken_and_of_equals_the_cheapest() -> None:
    """A wider search that is hardly better is not paid for, a better one is."""
    calibration = _calibration(
        _point("majority", 16, 0.60, 1000, 10.0),
        _point("rebase", 4, 0.80, 250, 3.0),
        _point("rebase", 8, 0.804, 390, 6.0),
        _point("rebase", 16, 0.90, 900, 9.0),
    )
    chosen = choose(_plan(), calibration, scores=True)
    assert (chosen.strategy, chosen.n, chosen.rule.method) == ("rebase", 4, "weighted")
    better = _calibration(*calibration.points, _point("weighted", 4, 0.82, 300, 4.0))
    assert choose(_plan(), better, scores=True).strategy == "weighted"


def test_a_scorer_that_does_not_earn_its_cost_is_not_used() -> None:
    """With a scorer that adds nothing, or too little for its FLOPs, the answer comes from a majority vote."""
    useless = _calibration(
        _point("majority", 16, 0.60, 1000, 10.0),
        _point("majority", 16, 0.60, 500, 5.0, "beta"),
        _point("weighted", 16, 0.59, 1000, 20.0),
        _point("rebase", 8, 0.59, 300, 9.0),
    )
    chosen = choose(_plan(), useless, scores=True)
    assert (chosen.strategy, chosen.stop.kind) == ("majority", "beta")
    dear = _calibration(useless.points[0], _point("weighted", 4, 0.60, 250, 11.0))
    assert choose(_plan(), dear, scores=True).strategy == "majority"


def test_without_any_measurement_it_is_a_majority_vote_that_stops_when_decided() -> None:
    """Nothing says then that the scorer knows better; and no stopping where effort is padded anyway."""
    chosen = choose(_plan(8), None, scores=True)
    assert (chosen.strategy, chosen.n, chosen.stop.kind) == ("majority", 8, "beta")
    assert choose(_plan(8, pad=True), None, scores=True).stop.kind == "none"
    other = calibration_for((_calibration(_point("rebase", 4, 1.0, 1, 1.0)),), Digest("sha256:" + "2" * 64))
    assert other is None


def test_a_budget_is_used_for_accuracy() -> None:
    """The most accurate search of which nine of ten fit, even where a smaller one would beat the vote."""
    calibration = _calibration(
        _point("majority", 16, 0.60, 1000, 10.0),
        _point("rebase", 4, 0.80, 250, 3.0),
        _point("rebase", 16, 0.90, 900, 9.0),
    )
    assert choose(_plan(budget=Budget(policy_tokens=1350)), calibration, scores=True).n == 16
    assert choose(_plan(budget=Budget(policy_tokens=1349)), calibration, scores=True).n == 4
    assert choose(_plan(budget=Budget(policy_tokens=3)), calibration, scores=True).n == 4


@pytest.mark.parametrize("strategy", ["majority", "rebase"])
def test_a_plan_that_names_its_strategy_is_left_alone(strategy: str) -> None:
    """Only `auto` is replaced."""
    plan = replace(_plan(), strategy="majority" if strategy == "majority" else "rebase")
    assert choose(plan, None, scores=True) is plan
