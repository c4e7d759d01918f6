# SPDX-License-Identifier: Apache-2.0
"""``rpc``: votes by probability, with and without pruning."""

import math

import pytest
import slow_selection as slow
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from adyton_protocol.answers import AnswerRule
from adyton_protocol.selection import weibull
from adyton_protocol.selection.candidate import Candidate, SelectionRule
from adyton_protocol.selection.choose import select
from adyton_protocol.selection.rpc import MIN_VOTES

STATED = AnswerRule(extract="the-answer-is")
RULE = SelectionRule(method="rpc", k=9, answer=STATED)
LOGS = st.lists(st.integers(-384, 0).map(lambda n: n / 64), min_size=2, max_size=24)
UNSETTLED = (-94.0, -167.0, -170.0, -42.0, -76.0, -338.0, 0.0, -21.0, -48.0, -104.0, -237.0, -85.0)
"""Logarithms to which no mixture is fitted within the rounds there are."""


def saying(answer: int, logprob: float, way: object = "") -> Candidate:
    """A candidate with an answer, found in some way."""
    return Candidate(text=f"{way}\nThe answer is: {answer}", n_tokens=5, logprob=logprob)


FIELDS = st.lists(
    st.builds(saying, st.integers(0, 3), st.integers(-384, 0).map(lambda n: n / 64), st.integers(0, 2)),
    min_size=1,
    max_size=20,
)  # fmt: skip


def weights(candidates: list[Candidate]) -> dict[str, float]:
    """What each answer weighs."""
    return {vote.key: vote.weight for vote in select(candidates, RULE).votes}


@settings(max_examples=60)
@given(FIELDS)
def test_votes_are_those_of_the_slow_code(candidates: list[Candidate]) -> None:
    """Fitted to the probabilities instead of their logarithms, by bisection instead of Newton: the same weights."""
    logs = [candidate.logprob - max(c.logprob for c in candidates) for candidate in candidates]
    probabilities = [math.exp(y) for y in logs]
    pruned: set[int] = set()
    if len(candidates) >= MIN_VOTES:
        high = slow.posterior_high(probabilities, rounds=40)
        # What is decided by the last digit of a fit may be decided otherwise by another one.
        assume(high is not None and all(abs(posterior - 0.5) > 0.01 for posterior in high))
        assert high is not None
        mean = sum(probabilities) / len(probabilities)
        assume(all(abs(p / mean - 1) > 1e-9 for p in probabilities))
        pruned = {index for index, p in enumerate(probabilities) if high[index] < 0.5 and p < mean}
    expected = slow.consistent_probability(candidates, slow.groups(candidates, RULE), pruned)
    assert weights(candidates) == pytest.approx(expected, rel=1e-9, abs=0.0)


@settings(max_examples=60)
@given(LOGS)
def test_the_fit_is_that_of_the_slow_code(logs: list[float]) -> None:
    """Posteriors agree wherever both settle."""
    found = weibull.posterior_high(logs)
    expected = slow.posterior_high([math.exp(y) for y in logs], rounds=40)
    assume(found is not None and expected is not None)
    assert found is not None
    assert expected is not None
    assert found == pytest.approx(expected, abs=2e-2)


@settings(max_examples=100)
@given(
    st.lists(
        st.sampled_from([0.0, -1e-300, -1.0, -745.0, -1e6, -1e12]) | st.floats(-1e12, 0.0),
        min_size=2,
        max_size=12,
    )
)
@example([0.0] * 9)
@example([0.0] * 8 + [-1e12])
@example([-1e12] * 8 + [0.0])
@example([0.0, -1.0] * 5)
def test_no_number_leads_to_none(logs: list[float]) -> None:
    """Equal, extreme and mixed data end in probabilities, or in no fit."""
    found = weibull.posterior_high(logs)
    assert found is None or all(0.0 <= posterior <= 1.0 for posterior in found)


@given(LOGS, st.integers(-1000, 1000))
def test_a_common_factor_changes_nothing(logs: list[float], shift: int) -> None:
    """Longer problems with less probable answers throughout give the same choice."""
    rounded = [round(y * 4) / 4 for y in logs]
    candidates = [saying(place % 3, y - 1000.0, place) for place, y in enumerate(rounded)]
    moved = [saying(place % 3, y - 1000.0 + min(shift, 0), place) for place, y in enumerate(rounded)]
    assert select(candidates, RULE).winners == select(moved, RULE).winners
    assert weights(candidates) == weights(moved)


def test_the_same_text_counts_once() -> None:
    """Nine samples of one text are one path; two other texts of the same answer weigh more together."""
    field = [saying(7, -1.0)] * 4 + [saying(8, -1.3, "a"), saying(8, -1.3, "b")]
    assert len(field) < MIN_VOTES
    assert weights(field) == pytest.approx({"number:8": 2 * math.exp(-0.3), "number:7": 1.0})
    again = [*field, saying(7, -1.0)]
    assert weights(again) == weights(field)


def test_long_texts_do_not_underflow() -> None:
    """Answers of a thousand tokens have probabilities that no double holds, and still weigh against one another."""
    field = [saying(7, -2000.0, "a"), saying(8, -2000.5, "b"), saying(8, -2000.25, "c")]
    assert weights(field) == pytest.approx({"number:8": math.exp(-0.5) + math.exp(-0.25), "number:7": 1.0})


def test_it_is_the_probability_of_the_whole_text() -> None:
    """Twice the tokens with twice the surprise is less probable, though as probable per token."""
    short = Candidate(text="The answer is: 7", n_tokens=10, logprob=-5.0)
    long = Candidate(text="Well, the answer is: 8", n_tokens=20, logprob=-10.0)
    assert weights([long, short]) == pytest.approx({"number:7": 1.0, "number:8": math.exp(-5.0)})


def test_improbable_texts_are_pruned() -> None:
    """Many improbable ways to an answer are not summed up against a few probable ones."""
    high = [saying(7, -2.0 - place / 10, place) for place in range(6)]
    low = [saying(8, -9.0 - place / 10, place) for place in range(10)]
    assert weights([*high, *low])["number:8"] == 0.0
    assert weights([*high, *low])["number:7"] > 1.0


@pytest.mark.parametrize("n", range(1, MIN_VOTES))
def test_few_votes_are_not_pruned(n: int) -> None:
    """A mixture of five parameters is not fitted to less than eight data."""
    field = [saying(place, -3.0 * place, place) for place in range(n)]
    assert all(weight > 0.0 for weight in weights(field).values())


def test_a_fit_that_does_not_settle_prunes_nothing() -> None:
    """Data without two components: the sum over all texts is what remains."""
    assert weibull.posterior_high(UNSETTLED) is None
    field = [saying(place % 2, y, place) for place, y in enumerate(UNSETTLED)]
    assert weights(field) == pytest.approx(
        slow.consistent_probability(field, slow.groups(field, RULE), set())
    )


@given(FIELDS)
def test_the_most_probable_text_is_never_pruned(candidates: list[Candidate]) -> None:
    """So something is always left, and the winner has a weight."""
    found = select(candidates, RULE)
    best = max(range(len(candidates)), key=lambda index: candidates[index].logprob)
    key = slow.answer_key(candidates[best], RULE)
    assert weights(candidates)[str(key)] >= 1.0
    assert found.votes[0].weight >= 1.0
