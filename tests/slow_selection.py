# SPDX-License-Identifier: Apache-2.0
"""Choosing among candidates, written to be obvious and slow: what the fast code is compared with.

Classes are found by comparing every pair, sums are exact fractions, tournaments are played out in every possible way,
shares are searched for among all that are possible, and the mixture is fitted to the probabilities themselves by
bisection. Nothing is imported from what is tested but the data classes, the aggregate, and the reading of answers.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from adyton_protocol.answers import read_answer
from adyton_protocol.selection.candidate import Candidate, SelectionRule


@dataclass
class Group:
    """A class of equal answers: its candidates, its weight, who speaks for it; and whether ``bom`` keeps it."""

    key: str
    members: list[int]
    weight: float = 0.0
    best: int = -1
    kept: bool = True


def total(numbers: Sequence[float]) -> float:
    """The exact sum, rounded once."""
    return float(sum(map(Fraction, numbers), Fraction(0)))


def reward(candidate: Candidate, rule: SelectionRule) -> float:
    """One score of a candidate."""
    scores = list(candidate.scores)
    if not scores:
        return 0.0
    if rule.aggregate == "last":
        return scores[len(scores) - 1]
    if rule.aggregate == "min":
        return min(scores)
    if rule.aggregate == "mean":
        return total(scores) / len(scores)
    product = 1.0
    for score in scores:
        product *= score
    return product


def answer_key(candidate: Candidate, rule: SelectionRule) -> str | None:
    """What a candidate votes for."""
    answer = read_answer(candidate.text, rule.answer)
    return answer.key if answer is not None and candidate.complete else None


def groups(candidates: Sequence[Candidate], rule: SelectionRule) -> list[Group]:
    """Classes, by comparing each candidate with the first of every class so far."""
    found: list[Group] = []
    for index, candidate in enumerate(candidates):
        key = answer_key(candidate, rule)
        if key is None:
            continue
        for group in found:
            if group.key == key:
                group.members.append(index)
                break
        else:
            found.append(Group(key=key, members=[index]))
    return found


def first_best(indices: Sequence[int], values: Sequence[float]) -> int:
    """Index of the greatest value; the earliest of several."""
    best = indices[0]
    for index in indices:
        if values[index] > values[best]:
            best = index
    return best


def order(found: list[Group]) -> list[Group]:
    """Heaviest first, by taking the heaviest away again and again; the earliest of several."""
    left, ordered = list(found), []
    while left:
        heaviest = left[0]
        for group in left:
            if group.weight > heaviest.weight:
                heaviest = group
        left.remove(heaviest)
        ordered.append(heaviest)
    return ordered


@dataclass
class Choice:
    """What the slow code chooses."""

    winners: list[int]
    votes: list[tuple[str, list[int], float]]
    abstained: list[int]


def choose(candidates: Sequence[Candidate], rule: SelectionRule) -> Choice:
    """The slow ``select``, for every method but ``rpc`` and ``pairwise``, whose weights are compared by themselves."""
    found = groups(candidates, rule)
    rewards = [reward(candidate, rule) for candidate in candidates]
    voters = [index for group in found for index in group.members]
    method = rule.method
    if method not in {"single", "majority"} and not any(candidates[index].scores for index in voters):
        method = "majority"
    for group in found:
        scored = any(candidates[index].scores for index in voters) and method != "single"
        group.best = first_best(group.members, rewards) if scored else group.members[0]
        of_members = [rewards[index] for index in group.members]
        if method == "majority":
            group.weight = float(len(group.members))
        elif method == "weighted":
            group.weight = total(of_members)
        elif method == "best-of-n":
            group.weight = max(of_members)
        elif method == "single":
            group.weight = 1.0 if 0 in group.members else 0.0
    ordered = majority_of_the_best(found, rewards) if method == "bom" else order(found)
    abstained = [index for index in range(len(candidates)) if index not in voters]
    return Choice(
        winners=winners(candidates, rule, ordered, rewards),
        votes=[(group.key, group.members, group.weight) for group in ordered],
        abstained=abstained,
    )


def winners(
    candidates: Sequence[Candidate], rule: SelectionRule, ordered: list[Group], rewards: list[float]
) -> list[int]:
    """Who is given back."""
    if rule.method == "single":
        return [0]
    if ordered:
        return [group.best for group in ordered][: rule.k]
    pool = [index for index, candidate in enumerate(candidates) if candidate.complete]
    pool = pool or list(range(len(candidates)))
    scored = [index for index in pool if candidates[index].scores]
    return [first_best(scored, rewards)] if scored else [pool[0]]


def majority_of_the_best(found: list[Group], rewards: list[float]) -> list[Group]:
    """Best-of-Majority: who has two votes and a sixteenth of them, or as many as anybody; of these by mean reward."""
    if not found:
        return []
    n_votes = sum(len(group.members) for group in found)
    most = max(len(group.members) for group in found)
    for group in found:
        enough = len(group.members) >= 2 and 16 * len(group.members) >= n_votes
        group.kept = enough or (len(group.members) == most and not (most >= 2 and 16 * most >= n_votes))
        group.weight = total([rewards[index] for index in group.members]) / len(group.members)
    kept = order([group for group in found if group.kept])
    dropped: list[Group] = []
    for votes in range(most, 0, -1):
        dropped += order([group for group in found if not group.kept and len(group.members) == votes])
    for group in dropped:
        group.weight = 0.0
    return kept + dropped


# --- Knockout ------------------------------------------------------------------------------------------


def knockout(rewards: dict[int, float]) -> dict[int, Fraction]:
    """Chances to win, by playing the tournament in every way in which it can go."""
    chances = dict.fromkeys(rewards, Fraction(0))
    for winner, chance in tournaments(sorted(rewards), rewards):
        chances[winner] += chance
    return chances


def tournaments(field: list[int], rewards: dict[int, float]) -> Iterator[tuple[int, Fraction]]:
    """Every course of a tournament: who wins it, and how likely that course is."""
    if len(field) == 1:
        yield field[0], Fraction(1)
        return
    pairs = [(field[place], field[place + 1]) for place in range(0, len(field) - 1, 2)]
    rest = [field[-1]] if len(field) % 2 else []
    for outcome in itertools.product((True, False), repeat=len(pairs)):
        chance, through = Fraction(1), []
        for (a, b), a_wins in zip(pairs, outcome, strict=True):
            odds_a = Fraction(rewards[a]) * (1 - Fraction(rewards[b]))
            odds_b = Fraction(rewards[b]) * (1 - Fraction(rewards[a]))
            p = odds_a / (odds_a + odds_b) if odds_a + odds_b else Fraction(1, 2)
            chance *= p if a_wins else 1 - p
            through.append(a if a_wins else b)
        if chance:
            for winner, then in tournaments(through + rest, rewards):
                yield winner, chance * then


# --- Reasoning pruning ---------------------------------------------------------------------------------


def weibull_density(p: float, shape: float, scale: float) -> float:
    """As every textbook has it."""
    return shape / scale * (p / scale) ** (shape - 1) * math.exp(-((p / scale) ** shape))


def weibull_fit(probabilities: list[float], weights: list[float]) -> tuple[float, float]:
    """Shape and scale of greatest likelihood, the shape by bisection."""
    n = sum(weights)
    mean_log = sum(w * math.log(p) for p, w in zip(probabilities, weights, strict=True)) / n
    low, high = 0.01, 100.0
    for _ in range(80):
        shape = (low + high) / 2
        powers = [w * p**shape for p, w in zip(probabilities, weights, strict=True)]
        slope = sum(power * math.log(p) for p, power in zip(probabilities, powers, strict=True)) / sum(powers)
        low, high = (low, shape) if slope - 1 / shape - mean_log > 0 else (shape, high)
    powers = [w * p**low for p, w in zip(probabilities, weights, strict=True)]
    return low, (sum(powers) / n) ** (1 / low)


def posterior_high(probabilities: list[float], rounds: int) -> list[float] | None:
    """Expectation maximisation as it is written down, on the probabilities; None where it ends in no numbers."""
    try:
        return maximise_expectation(probabilities, rounds)
    except (ArithmeticError, ValueError):
        return None


def maximise_expectation(probabilities: list[float], rounds: int) -> list[float] | None:
    """Posteriors of the upper component; None where they have not settled."""
    if min(probabilities) == max(probabilities):
        return [1.0] * len(probabilities)
    middle = sorted(probabilities)[len(probabilities) // 2]
    if middle == min(probabilities):
        middle = min(p for p in probabilities if p > middle)
    high = [0.9 if p >= middle else 0.1 for p in probabilities]
    for _ in range(rounds):
        share = min(max(sum(high) / len(high), 0.2), 0.8)
        upper = weibull_fit(probabilities, high)
        lower = weibull_fit(probabilities, [1 - weight for weight in high])
        ups = [share * weibull_density(p, *upper) for p in probabilities]
        downs = [(1 - share) * weibull_density(p, *lower) for p in probabilities]
        before, high = high, [up / (up + down) for up, down in zip(ups, downs, strict=True)]
        if max(abs(new - old) for new, old in zip(high, before, strict=True)) < 1e-3:
            means = [scale * math.gamma(1 + 1 / shape) for shape, scale in (upper, lower)]
            return high if means[0] >= means[1] else [1 - weight for weight in high]
    return None


def consistent_probability(
    candidates: Sequence[Candidate], found: list[Group], pruned: set[int]
) -> dict[str, float]:
    """Sum over the distinct texts of each class of their probability, relative to the greatest of all."""
    most = max(candidates[index].logprob for group in found for index in group.members)
    weights: dict[str, float] = {}
    for group in found:
        left = [candidates[index] for index in group.members if index not in pruned]
        texts = sorted({candidate.text for candidate in left})
        each = [max(candidate.logprob for candidate in left if candidate.text == text) for text in texts]
        weights[group.key] = sum(math.exp(logprob - most) for logprob in each)
    return weights


# --- Shares --------------------------------------------------------------------------------------------


def fairest(shares: Sequence[float], width: int) -> tuple[int, ...]:
    """Of all ways to hand out ``width`` children, the one nearest to the shares; of several, the earlier get more."""
    best: tuple[Fraction, tuple[int, ...]] | None = None
    for children in itertools.product(range(width + 1), repeat=len(shares)):
        if sum(children) != width:
            continue
        distance = sum((Fraction(share) - n) ** 2 for share, n in zip(shares, children, strict=True))
        if best is None or (distance, tuple(-n for n in children)) < (best[0], tuple(-n for n in best[1])):
            best = Fraction(distance), children
    assert best is not None
    return best[1]
