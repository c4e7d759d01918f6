# SPDX-License-Identifier: Apache-2.0
"""``pairwise``: a knockout in which the scorer's log-odds decide each match (Bradley and Terry 1952).

Two candidates with rewards a and b meet; the first wins with the probability ``sigmoid(logit a - logit b)``. Nothing
is drawn: what a class weighs is the probability that one of its candidates wins the whole tournament. So an answer
counts for more the oftener it was given, and a reward that is a little higher counts only a little. But it takes the
scorer at its word: 0.99 against 0.9 is odds of eleven to one, so one candidate that fools the scorer wins here too.
"""

import math
from collections.abc import Mapping
from typing import Final

from adyton_protocol.selection import majority
from adyton_protocol.selection.ballot import Ballot, Standing, by_weight

_EVEN: Final = 0.5


def rank(ballot: Ballot) -> tuple[Standing, ...]:
    """The chance of each class to win; a majority vote where nothing is scored."""
    if not ballot.rewards:
        return majority.rank(ballot)
    chances = knockout({index: ballot.rewards[index] for members in ballot.classes for index in members})
    return by_weight(
        [
            Standing(
                members=members,
                weight=math.fsum(chances[index] for index in members),
                best=ballot.best_by_reward(members),
            )
            for members in ballot.classes
        ]
    )


def beats(a: float, b: float) -> float:
    """Probability that a candidate with reward ``a`` beats one with ``b``.

    ``sigmoid(logit a - logit b)`` without its logarithms, so that 0 and 1 are rewards like any other.
    """
    for_a, for_b = a * (1.0 - b), b * (1.0 - a)
    return for_a / (for_a + for_b) if for_a + for_b > 0.0 else _EVEN


def knockout(rewards: Mapping[int, float]) -> dict[int, float]:
    """Chance of each candidate to win a tournament of neighbours, winners against winners.

    Args:
        rewards: Of the candidates, at least one, each from 0 to 1. Who is left over in a round goes on without a match.
    """
    sides: list[dict[int, float]] = [{index: 1.0} for index in sorted(rewards)]
    while len(sides) > 1:
        pairs = zip(sides[::2], sides[1::2], strict=False)
        left_over = sides[-1:] if len(sides) % 2 else []
        sides = [_meet(a, b, rewards) | _meet(b, a, rewards) for a, b in pairs] + left_over
    return sides[0]


def _meet(
    side: Mapping[int, float], other: Mapping[int, float], rewards: Mapping[int, float]
) -> dict[int, float]:
    """Chances of those of ``side`` to come out of the match of two sides, each given by who may stand for it."""
    return {
        index: chance
        * math.fsum(met * beats(rewards[index], rewards[opponent]) for opponent, met in other.items())
        for index, chance in side.items()
    }
