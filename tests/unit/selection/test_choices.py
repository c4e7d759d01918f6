# SPDX-License-Identifier: Apache-2.0
"""Every method of choosing, against a slow and obvious one, on candidates of every kind."""

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import slow_selection as slow
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from adyton_protocol.answers import AnswerRule
from adyton_protocol.errors import LocalProtocolError
from adyton_protocol.selection import pairwise
from adyton_protocol.selection.aggregate import AGGREGATES
from adyton_protocol.selection.bom import ALPHA, MIN_VOTES
from adyton_protocol.selection.candidate import METHODS, Candidate, Method, Selection, SelectionRule
from adyton_protocol.selection.choose import select

STATED = AnswerRule(extract="the-answer-is")
TEXTS = st.sampled_from(
    [
        "The answer is: 7", "3 + 4 = 7\nThe answer is: 7", "The answer is: 7.0", "The answer is: 14/2",
        "The answer is: 8", "2 * 4 = 8\nThe answer is: 8", "The answer is: 9", "The answer is: -1",
        "", "I cannot say.", "The answer is:", "The answer is: \n", "answer",
    ]
)  # fmt: skip
SCORES = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]) | st.floats(0.0, 1.0)
LOGPROBS = st.sampled_from([0.0, -1.0, -2.5, -700.0, -1e6]) | st.floats(-60.0, 0.0)
CANDIDATES = st.builds(
    Candidate,
    text=TEXTS,
    n_tokens=st.integers(0, 50),
    logprob=LOGPROBS,
    scores=st.lists(SCORES, max_size=3).map(tuple),
    complete=st.sampled_from([True, True, True, False]),
)
FIELDS = st.lists(CANDIDATES, min_size=1, max_size=12)
RULES = st.builds(
    SelectionRule,
    method=st.sampled_from(METHODS),
    aggregate=st.sampled_from(AGGREGATES),
    k=st.integers(1, 6),
    answer=st.just(STATED),
)
EXACT: tuple[Method, ...] = ("single", "majority", "weighted", "best-of-n", "bom")


def saying(answer: object, reward: float | None = None, *, logprob: float = -1.0, way: str = "") -> Candidate:
    """A candidate with an answer, and a score if it has one."""
    return Candidate(
        text=f"{way}\nThe answer is: {answer}",
        n_tokens=5,
        logprob=logprob,
        scores=() if reward is None else (reward,),
    )


def winner_keys(candidates: list[Candidate], method: Method, k: int = 1) -> list[str]:
    """The answers of the winners."""
    rule = SelectionRule(method=method, k=k, answer=STATED)
    keys = [slow.answer_key(candidates[index], rule) for index in select(candidates, rule).winners]
    return [key for key in keys if key is not None]


def table(selection: Selection) -> list[tuple[str, list[int], float]]:
    """Votes as the slow code writes them."""
    return [(vote.key, list(vote.members), vote.weight) for vote in selection.votes]


@settings(max_examples=400)
@given(FIELDS, RULES)
def test_every_choice_is_that_of_the_slow_code(candidates: list[Candidate], rule: SelectionRule) -> None:
    """Winners, classes, weights to the last bit, and abstentions: ties, empty texts and cut-off ones included."""
    assume(rule.method in EXACT)
    found, expected = select(candidates, rule), slow.choose(candidates, rule)
    assert list(found.winners) == expected.winners
    assert table(found) == expected.votes
    assert list(found.abstained) == expected.abstained


@settings(max_examples=300)
@given(FIELDS, RULES)
def test_what_holds_for_every_choice(candidates: list[Candidate], rule: SelectionRule) -> None:
    """Winners of different classes, in the order of the votes; each candidate in one class or abstaining; no NaN."""
    found = select(candidates, rule)
    listed = sorted(index for vote in found.votes for index in vote.members)
    assert sorted([*listed, *found.abstained]) == list(range(len(candidates)))
    assert all(list(vote.members) == sorted(vote.members) for vote in found.votes)
    assert all(0.0 <= vote.weight <= len(candidates) for vote in found.votes)
    assert all(vote.key == slow.answer_key(candidates[i], rule) for vote in found.votes for i in vote.members)
    assert 1 <= len(found.winners) <= rule.k
    if found.votes and rule.method != "single":
        assert len(found.winners) == min(rule.k, len(found.votes))
        for winner, vote in zip(found.winners, found.votes, strict=False):
            assert winner in vote.members
    if rule.method != "bom":
        ranks = [(-vote.weight, vote.members[0]) for vote in found.votes]
        assert ranks == sorted(ranks)


@given(FIELDS, RULES, st.integers(1, 8))
def test_fewer_winners_are_the_first_of_more(
    candidates: list[Candidate], rule: SelectionRule, k: int
) -> None:
    """How many answers are wanted changes nothing else."""
    few, many = select(candidates, replace(rule, k=k)), select(candidates, replace(rule, k=k + 1))
    assert many.winners[: len(few.winners)] == few.winners
    assert (few.votes, few.abstained) == (many.votes, many.abstained)


@given(FIELDS, RULES, st.randoms(use_true_random=False))
def test_the_order_of_candidates_decides_ties_only(
    candidates: list[Candidate], rule: SelectionRule, chance: Any
) -> None:
    """Shuffled, the classes weigh the same; but for ``single`` and the seats of a tournament."""
    assume(rule.method not in {"single", "pairwise"})
    order = list(range(len(candidates)))
    chance.shuffle(order)
    found = select(candidates, rule)
    shuffled = select([candidates[index] for index in order], rule)
    assert {vote.key: vote.weight for vote in found.votes} == {
        vote.key: vote.weight for vote in shuffled.votes
    }
    assert {vote.key: set(vote.members) for vote in found.votes} == {
        vote.key: {order[place] for place in vote.members} for vote in shuffled.votes
    }


@given(FIELDS, RULES, TEXTS, LOGPROBS)
def test_who_abstains_changes_no_vote(
    candidates: list[Candidate], rule: SelectionRule, text: str, logprob: float
) -> None:
    """A cut-off candidate behind the others leaves every class as it was, whatever it says and is thought of it."""
    assume(slow.groups(candidates, rule))
    cut_off = Candidate(text=text, n_tokens=9, logprob=logprob, scores=(1.0,), complete=False)
    with_it, without = select([*candidates, cut_off], rule), select(candidates, rule)
    assert (with_it.winners, with_it.votes) == (without.winners, without.votes)


@pytest.mark.parametrize("method", METHODS)
@given(candidate=CANDIDATES, k=st.integers(1, 3))
def test_one_candidate_is_chosen(method: Method, candidate: Candidate, k: int) -> None:
    """Even one that is empty, cut off or has no score."""
    assert select([candidate], SelectionRule(method=method, k=k, answer=STATED)).winners == (0,)


@pytest.mark.parametrize("method", [method for method in METHODS if method != "single"])
@pytest.mark.parametrize(
    ("scores", "complete", "winner"),
    [
        ((None, None, None), (True, True, True), 0),
        ((None, None, None), (False, True, True), 1),
        ((None, None, None), (False, False, False), 0),
        ((0.2, 0.9, 0.9), (True, True, True), 1),
        ((0.9, 0.2, 0.3), (False, True, True), 2),
        ((None, 0.0, None), (True, True, True), 1),
        ((0.1, 0.2, None), (False, False, False), 1),
        ((1.0, None, None), (False, True, True), 1),
    ],
)
def test_without_any_answer_there_is_still_a_choice(
    method: Method, scores: tuple[float | None, ...], complete: tuple[bool, ...], winner: int
) -> None:
    """The best complete one by score; without scores the first complete one; if none is complete, of all."""
    candidates = [
        Candidate(text="?", n_tokens=1, logprob=-1.0, scores=() if score is None else (score,), complete=is_complete)
        for score, is_complete in zip(scores, complete, strict=True)
    ]  # fmt: skip
    found = select(candidates, SelectionRule(method=method, k=3, answer=STATED))
    assert found == Selection(winners=(winner,), votes=(), abstained=(0, 1, 2))


def test_no_candidate_is_no_choice() -> None:
    """An empty search has no answer to give."""
    with pytest.raises(LocalProtocolError):
        select([], SelectionRule(method="majority"))


@pytest.mark.parametrize(
    "changes",
    [
        {"logprob": math.nan}, {"logprob": math.inf}, {"logprob": -math.inf}, {"logprob": 0.1},
        {"scores": (math.nan,)}, {"scores": (0.5, math.nan)}, {"scores": (-0.1,)}, {"scores": (1.1,)},
        {"scores": (math.inf,)}, {"n_tokens": -1},
    ],
)  # fmt: skip
def test_no_candidate_has_a_number_that_cannot_be_compared(changes: dict[str, Any]) -> None:
    """NaN and the infinities never reach a choice."""
    with pytest.raises(LocalProtocolError):
        Candidate(**({"text": "", "n_tokens": 0, "logprob": -1.0} | changes))


@pytest.mark.parametrize("changes", [{"method": "auto"}, {"aggregate": "max"}, {"k": 0}])
def test_a_rule_says_how_to_choose(changes: dict[str, Any]) -> None:
    """Unknown methods and aggregates and an empty choice are refused where the rule is made."""
    with pytest.raises(LocalProtocolError):
        SelectionRule(**({"method": "majority"} | changes))


@pytest.mark.parametrize("method", ["weighted", "best-of-n", "bom", "pairwise"])
@given(candidates=FIELDS, k=st.integers(1, 4))
def test_without_scores_it_is_a_majority_vote(method: Method, candidates: list[Candidate], k: int) -> None:
    """A scorer that could say nothing decides nothing."""
    unscored = [replace(candidate, scores=()) for candidate in candidates]
    rule = SelectionRule(method=method, k=k, answer=STATED)
    assert select(unscored, rule) == select(unscored, replace(rule, method="majority"))


def test_weights_that_differ_in_the_last_bit_differ() -> None:
    """Sums are exact until they are rounded once: 0.1 ten times is as much as 1, and a bit less is less."""
    tenths = [saying(7, 0.1)] * 10
    assert winner_keys([saying(8, 1.0), *tenths], "weighted") == ["number:8"]
    assert winner_keys([*tenths, saying(8, 1.0)], "weighted") == ["number:7"]
    assert winner_keys([*tenths, saying(8, math.nextafter(1.0, 0.0))], "weighted") == ["number:7"]
    assert winner_keys([*tenths[:9], saying(7, 0.1 - 1e-15), saying(8, 1.0)], "weighted") == ["number:8"]


# --- Best-of-Majority -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [4, 8, 15, 16, 17, 31, 32, 64])
def test_best_of_majority_is_not_best_of_n(n: int) -> None:
    """One candidate that fools the scorer wins ``best-of-n`` at any width, and ``bom`` at none."""
    field = [saying(1, 1.0), *[saying(7, 0.6)] * (n // 2), *[saying(8, 0.5)] * (n - 1 - n // 2)]
    assert winner_keys(field, "best-of-n") == ["number:1"]
    assert winner_keys(field, "bom") == ["number:7"]


def accuracy(method: Method, n: int, n_problems: int = 100) -> float:
    """Share of right answers where a scorer mostly knows, and is now and then sure of something wrong."""
    chance = np.random.default_rng(n)
    right = 0
    for _ in range(n_problems):
        field: list[Candidate] = []
        for _ in range(n):
            answer = int(chance.choice([0, 1, 2, chance.integers(3, 400)], p=[0.4, 0.2, 0.1, 0.3]))
            fooled = answer >= 3 and chance.random() < 0.3
            mean = 0.98 if fooled else 0.7 if answer == 0 else 0.45
            field.append(saying(answer, min(1.0, max(0.0, float(chance.normal(mean, 0.08))))))
        right += winner_keys(field, method) == ["number:0"]
    return right / n_problems


def test_best_of_n_turns_down_where_best_of_majority_does_not() -> None:
    """With a scorer that can be fooled, more candidates make one method worse and the other better."""
    best = {n: accuracy("best-of-n", n) for n in (4, 32)}
    majority = {n: accuracy("bom", n) for n in (4, 32)}
    assert best[32] < best[4] - 0.1
    assert majority[32] > majority[4] + 0.1
    assert majority[32] > 0.95


def test_best_of_majority_prefers_reward_to_frequency() -> None:
    """Among those that are frequent enough, votes do not count any more."""
    field = [*[saying(7, 0.5)] * 10, *[saying(8, 0.6)] * 2]
    assert winner_keys(field, "majority") == ["number:7"]
    assert winner_keys(field, "bom") == ["number:8"]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9), st.lists(SCORES, min_size=9, max_size=9))
def test_an_answer_needs_its_share_of_the_votes(counts: list[int], rewards: list[float]) -> None:
    """The winner has two votes and a sixteenth of all, unless nobody has."""
    field = [saying(key, rewards[key]) for key, count in enumerate(counts) for _ in range(count)]
    needed = min(max(counts), max(MIN_VOTES, math.ceil(Fraction(ALPHA) * len(field))))
    won = winner_keys(field, "bom")[0]
    assert counts[int(won.removeprefix("number:"))] >= needed


def test_best_of_majority_fills_up_with_the_rest() -> None:
    """Asked for more answers than are kept, it adds the others: more votes first, then more reward, weight 0."""
    field = [
        saying(1, 0.3), saying(2, 0.9), *[saying(3, 0.5)] * 40, *[saying(4, 0.6)] * 4, *[saying(5, 0.95)] * 2,
    ]  # fmt: skip
    rule = SelectionRule(method="bom", k=9, answer=STATED)
    found = select(field, rule)
    assert [vote.key for vote in found.votes] == [f"number:{n}" for n in (4, 3, 5, 2, 1)]
    assert [vote.weight for vote in found.votes][2:] == [0.0] * 3
    assert len(found.winners) == 5


# --- Pairwise ---------------------------------------------------------------------------------------------


@given(st.lists(SCORES, min_size=1, max_size=7))
@example([0.0, 0.0, 1.0])
@example([1.0, 1.0, 1.0])
def test_a_tournament_is_won_as_often_as_by_playing_it(rewards: list[float]) -> None:
    """The chances are those of every course that the tournament can take."""
    field = dict(enumerate(rewards))
    found, expected = pairwise.knockout(field), slow.knockout(field)
    assert found.keys() == expected.keys()
    for index, chance in expected.items():
        assert found[index] == pytest.approx(float(chance), abs=1e-12)
    assert math.fsum(found.values()) == pytest.approx(1.0)


@given(SCORES, SCORES)
def test_a_match_is_decided_by_log_odds(a: float, b: float) -> None:
    """``sigmoid(logit a - logit b)``; even where both are certain; and what one wins the other loses."""
    assert pairwise.beats(a, b) + pairwise.beats(b, a) == pytest.approx(1.0)
    if 1e-6 < a < 1 - 1e-6 and 1e-6 < b < 1 - 1e-6:
        log_odds = math.log(a / (1 - a)) - math.log(b / (1 - b))
        assert pairwise.beats(a, b) == pytest.approx(1 / (1 + math.exp(-log_odds)), rel=1e-6)


@given(FIELDS)
def test_a_class_wins_with_any_of_its_candidates(candidates: list[Candidate]) -> None:
    """What a class weighs is the sum of the chances of its candidates."""
    rule = SelectionRule(method="pairwise", answer=STATED)
    found = slow.groups(candidates, rule)
    voters = sorted(index for group in found for index in group.members)
    assume(len(voters) <= 7 and any(candidates[index].scores for index in voters))
    chances = slow.knockout({index: slow.reward(candidates[index], rule) for index in voters})
    weights = {vote.key: vote.weight for vote in select(candidates, rule).votes}
    for group in found:
        assert weights[group.key] == pytest.approx(
            float(sum(chances[index] for index in group.members)), abs=1e-12
        )


def test_a_little_more_reward_counts_a_little() -> None:
    """Three that are almost as good outvote the best one, as they would not in ``best-of-n``."""
    field = [saying(1, 0.9), *[saying(7, 0.88)] * 3]
    assert winner_keys(field, "best-of-n") == ["number:1"]
    assert winner_keys(field, "pairwise") == ["number:7"]
    assert winner_keys([saying(1, 0.999), *[saying(7, 0.5)] * 3], "pairwise") == ["number:1"]
