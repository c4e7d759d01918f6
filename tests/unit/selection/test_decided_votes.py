# SPDX-License-Identifier: Apache-2.0
"""When a vote is decided, and the functions of analysis behind it."""

import math
from collections.abc import Callable
from decimal import Decimal, localcontext

import numpy as np
import pytest
import slow_selection as slow
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from adyton_protocol.answers import AnswerRule
from adyton_protocol.errors import LocalProtocolError
from adyton_protocol.selection.arithmetic import exp, log, log_gamma
from adyton_protocol.selection.bounds import Budget, StopRule
from adyton_protocol.selection.candidate import Candidate, SelectionRule
from adyton_protocol.selection.posterior import (
    ahead_of_all,
    ahead_of_runner_up,
    incomplete_beta,
    incomplete_gamma,
)
from adyton_protocol.selection.stopping import decided

STATED = AnswerRule(extract="the-answer-is")
MAJORITY = SelectionRule(method="majority", answer=STATED)


def voters(answers: str, rewards: float | None = None) -> list[Candidate]:
    """A candidate for each letter; a dot abstains."""
    return [
        Candidate(
            text="?" if answer == "." else f"The answer is: {ord(answer)}",
            n_tokens=1,
            logprob=-1.0,
            scores=() if rewards is None else (rewards,),
        )
        for answer in answers
    ]


def sure(leader: int, runner_up: int) -> float:
    """``P(x > 1/2)`` for ``x ~ Beta(1 + leader, 1 + runner_up)``, exactly: a tail of a binomial distribution."""
    n = leader + runner_up + 1
    return sum(math.comb(n, k) for k in range(leader + 1)) / 2**n


def integral(density: Callable[[float], float], end: float) -> float:
    """From 0 to ``end``, by the midpoint rule, twenty thousand times."""
    n = 20_000
    return math.fsum(density((place + 0.5) * end / n) for place in range(n)) * end / n


# --- Arithmetic -------------------------------------------------------------------------------------------


@given(st.floats(-707.0, 709.0))
def test_exp_is_near_the_truth(x: float) -> None:
    """Within two units in the last place, far beyond what any choice needs."""
    with localcontext() as context:
        context.prec = 60
        assert abs(Decimal(exp(x)) - Decimal(x).exp()) <= 2 * Decimal(math.ulp(exp(x)))


@given(st.floats(5e-324, 1e308) | st.floats(0.5, 2.0))
def test_log_is_near_the_truth(x: float) -> None:
    """Within three units in the last place."""
    with localcontext() as context:
        context.prec = 60
        assert abs(Decimal(log(x)) - Decimal(x).ln()) <= 3 * Decimal(math.ulp(log(x)))


@given(st.floats(0.01, 1e6))
def test_log_gamma_is_near_the_truth(x: float) -> None:
    """To twelve digits, or what is left of them near its zeros."""
    assert log_gamma(x) == pytest.approx(math.lgamma(x), rel=1e-12, abs=1e-13)


@pytest.mark.parametrize(
    ("function", "x", "bits"),
    [
        (exp, -0.1, "0x1.cf46d99d52b3ap-1"), (exp, -20.25, "0x1.b93de1e27ca3bp-30"),
        (exp, 1.0, "0x1.5bf0a8b14576ap+1"), (log, 0.1, "-0x1.26bb1bbb55515p+1"), (log, 3.0, "0x1.193ea7aad030bp+0"),
        (log_gamma, 0.5, "0x1.250d048e7a1b0p-1"), (log_gamma, 33.25, "0x1.49b78a41c7794p+6"),
    ],
)  # fmt: skip
def test_the_same_bits_everywhere(function: Callable[[float], float], x: float, bits: str) -> None:
    """No C library has a say: a receipt is replayed on another machine, years later."""
    assert function(x).hex() == bits


def test_the_ends_of_exp() -> None:
    """Too small is 0, too great is infinite; both far outside of what is ever exponentiated."""
    assert exp(-708.1) == exp(-math.inf) == 0.0
    assert exp(709.1) == math.inf
    assert exp(0.0) == 1.0
    assert exp(-708.0) > 0.0


# --- Posteriors -------------------------------------------------------------------------------------------


@given(st.integers(0, 300), st.integers(0, 300))
def test_of_two_answers_the_binomial_tail_is_exact(leader: int, runner_up: int) -> None:
    """For whole votes the incomplete beta function is a sum of binomial coefficients."""
    assert ahead_of_runner_up(leader, runner_up) == pytest.approx(
        sure(leader, runner_up), rel=1e-9, abs=1e-14
    )


@settings(max_examples=30)
@given(st.floats(1.0, 40.0), st.floats(1.0, 40.0), st.floats(0.0, 1.0))
def test_the_incomplete_beta_function(a: float, b: float, x: float) -> None:
    """Against its own definition as an integral."""
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    expected = integral(
        lambda t: math.exp(front + (a - 1) * math.log(t) + (b - 1) * math.log1p(-t)) if 0 < t < 1 else 0.0, x
    )
    assert incomplete_beta(a, b, x) == pytest.approx(expected, abs=1e-4)
    assert incomplete_beta(a, b, x) + incomplete_beta(b, a, 1.0 - x) == pytest.approx(1.0, abs=1e-12)


@settings(max_examples=30)
@given(st.floats(1.0, 60.0), st.floats(0.0, 150.0))
def test_the_incomplete_gamma_function(a: float, x: float) -> None:
    """Against its own definition as an integral."""
    expected = integral(lambda t: math.exp((a - 1) * math.log(t) - t - math.lgamma(a)) if t > 0 else 0.0, x)
    assert incomplete_gamma(a, x) == pytest.approx(expected, abs=1e-4)


def test_the_ends_of_the_beta_function() -> None:
    """Nothing lies below 0, everything below 1."""
    assert (incomplete_beta(2.0, 3.0, 0.0), incomplete_beta(2.0, 3.0, 1.0)) == (0.0, 1.0)
    assert incomplete_gamma(2.0, 0.0) == 0.0


@settings(max_examples=12)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=6))
def test_ahead_of_all_is_what_sampling_finds(votes: list[int]) -> None:
    """The share of Dirichlet draws in which the first answer has the most; one answer is unseen."""
    draws = np.random.default_rng(7).dirichlet([1 + vote for vote in votes] + [1], 100_000)
    expected = float(np.mean(np.argmax(draws, axis=1) == 0))
    assert ahead_of_all([float(vote) for vote in votes]) == pytest.approx(expected, abs=0.01)


@given(st.integers(0, 40))
def test_with_one_answer_both_posteriors_agree(votes: int) -> None:
    """The runner-up is then the answer that nobody gave yet."""
    assert ahead_of_all([float(votes)]) == pytest.approx(ahead_of_runner_up(votes, 0), abs=1e-4)


# --- Decisions --------------------------------------------------------------------------------------------


def slow_decided(candidates: list[Candidate], rule: SelectionRule, stop: StopRule) -> bool:
    """As the definitions say, for whole votes."""
    seen = candidates[: stop.window * (len(candidates) // stop.window)]
    keys = [slow.answer_key(candidate, rule) for candidate in seen]
    counts = sorted(
        ((keys.count(key), -keys.index(key), key) for key in set(keys) if key is not None), reverse=True
    )
    if not counts or stop.kind == "none":
        return False
    if stop.kind == "esc":
        return set(keys[-stop.window :]) == {counts[0][2]}
    if stop.kind == "beta":
        return sure(counts[0][0], counts[1][0] if len(counts) > 1 else 0) > stop.p
    return ahead_of_all([float(count) for count, _, _ in counts]) > stop.p


@given(
    st.text("AABC.", max_size=24),
    st.builds(
        StopRule,
        kind=st.sampled_from(["none", "esc", "beta", "dirichlet"]),
        p=st.sampled_from([0.6, 0.9, 0.95, 0.99]),
        window=st.integers(2, 6),
    ),
)
def test_decisions_are_those_of_the_slow_code(answers: str, stop: StopRule) -> None:
    """On any sequence of votes and abstentions."""
    candidates = voters(answers)
    assert decided(candidates, MAJORITY, stop) == slow_decided(candidates, MAJORITY, stop)


@given(
    st.text("AABC.", max_size=24), st.text("AB.", max_size=5), st.sampled_from(["esc", "beta", "dirichlet"])
)
def test_what_is_early_changes_nothing(answers: str, early: str, kind: str) -> None:
    """Candidates beyond the last complete window are not looked at, whichever of them are there already."""
    stop = StopRule(kind=kind, window=6)  # type: ignore[arg-type]
    assume(len(answers) % 6 == 0)
    assert decided(voters(answers + early), MAJORITY, stop) == decided(voters(answers), MAJORITY, stop)


@pytest.mark.parametrize(
    ("kind", "window", "answers", "expected"),
    [
        ("none", 1, "AAAAAAAAAAAA", False), ("esc", 5, "AAAAA", True), ("esc", 5, "AAAA", False),
        ("esc", 5, "AAAA.", False), ("esc", 5, ".....", False), ("esc", 5, "AAAABAAAAA", True),
        ("esc", 5, "AAAAAB", True), ("esc", 2, "BBBBAA", False), ("esc", 2, "BBAA", False), ("esc", 2, "BAAA", True),
        ("beta", 5, "AAAAA", True), ("beta", 5, "AAAAB", False), ("beta", 1, "AAAA", True), ("beta", 1, "AAA", False),
        ("beta", 5, "AAA..", False), ("dirichlet", 5, "AAAAA", True), ("dirichlet", 5, "AAAABAAABC", False),
        ("dirichlet", 5, "AAAAAAAABC", True),
    ],
)  # fmt: skip
def test_decisions_one_by_one(kind: str, window: int, answers: str, expected: bool) -> None:
    """What each rule says of short sequences."""
    assert decided(voters(answers), MAJORITY, StopRule(kind=kind, window=window)) is expected  # type: ignore[arg-type]


def test_a_weighted_vote_is_decided_by_weights() -> None:
    """Five votes of full reward are decided, five of little are not; for other methods each counts 1."""
    weighted = SelectionRule(method="weighted", answer=STATED)
    assert decided(voters("AAAAA", 1.0), weighted, StopRule(kind="beta"))
    assert not decided(voters("AAAAA", 0.1), weighted, StopRule(kind="beta"))
    assert decided(voters("AAAAA", 0.1), MAJORITY, StopRule(kind="beta"))
    assert decided(voters("AAAAA"), weighted, StopRule(kind="beta"))


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "sometimes"},
        {"p": 0.0},
        {"p": 1.0},
        {"p": math.nan},
        {"window": 0},
        {"kind": "esc", "window": 1},
    ],
)
def test_a_stopping_rule_can_be_applied(changes: dict[str, object]) -> None:
    """Anything else is refused where it is made."""
    with pytest.raises(LocalProtocolError):
        StopRule(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes", [{"policy_tokens": -1}, {"total_flops": math.nan}, {"total_flops": math.inf}, {"time_s": -0.1}]
)
def test_a_budget_can_be_compared_with(changes: dict[str, float]) -> None:
    """Anything else is refused where it is made."""
    with pytest.raises(LocalProtocolError):
        Budget(**changes)  # type: ignore[arg-type]


# --- Looking many times -----------------------------------------------------------------------------------


def stopped_votes(share: float, window: int, p: float, n: int = 64) -> tuple[float, float, float]:
    """Of votes between two answers, exactly: stopped before the end; wrong when stopped by the rule; wrong at the end.

    Args:
        share: Of the right answer among the votes.
        window: Votes between two looks.
        p: Of the rule.
        n: Most votes. A draw at the end counts half.
    """
    going, stopped, wrong = {(0, 0): 1.0}, 0.0, 0.0
    for votes in range(1, n + 1):
        after: dict[tuple[int, int], float] = {}
        for (right, other), chance in going.items():
            after[right + 1, other] = after.get((right + 1, other), 0.0) + chance * share
            after[right, other + 1] = after.get((right, other + 1), 0.0) + chance * (1 - share)
        going = {}
        for (right, other), chance in after.items():
            looked = votes < n and votes % window == 0
            if looked and ahead_of_runner_up(max(right, other), min(right, other)) > p:
                stopped += chance
                wrong += chance if other > right else 0.0
            else:
                going[right, other] = chance
    wrong += sum(chance * (0.5 if a == b else float(b > a)) for (a, b), chance in going.items())
    full = sum(
        math.comb(n, a) * share**a * (1 - share) ** (n - a) * (0.5 if 2 * a == n else float(2 * a < n))
        for a in range(n + 1)
    )
    return stopped, wrong, full


@pytest.mark.parametrize(
    ("share", "window", "p", "stopped", "wrong", "full"),
    [
        (0.5, 5, 0.95, 0.350, 0.500, 0.500),
        (0.5, 1, 0.95, 0.477, 0.500, 0.500),
        (0.6, 5, 0.95, 0.653, 0.070, 0.054),
        (0.7, 5, 0.95, 0.968, 0.004, 0.000),
        (0.6, 5, 0.99, 0.289, 0.055, 0.054),
    ],
)
def test_what_many_looks_cost(
    share: float, window: int, p: float, stopped: float, wrong: float, full: float
) -> None:
    """The figures in the documentation of ``stopping``, which makes no correction for them."""
    assert stopped_votes(share, window, p) == pytest.approx((stopped, wrong, full), abs=6e-4)
