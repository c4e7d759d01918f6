# SPDX-License-Identifier: Apache-2.0
"""``bom``: Best-of-Majority (arXiv 2510.03199): the best-rewarded of those answers that are frequent enough.

The paper keeps answers with a frequency of at least alpha, where the right alpha depends on how rarely the generator
finds the right answer, which nobody knows. Here alpha is a sixteenth of the votes, and at least two votes: with fewer
than 32 candidates a sixteenth alone would be one vote, the filter would let everything pass, and the method would
silently be best-of-n. Where no answer has so many, the most frequent ones are kept, however few votes they have.

An answer's reward is the mean of its candidates', which does not grow with the number of tries as the greatest does.
"""

import math
from typing import Final

from adyton_protocol.selection import majority
from adyton_protocol.selection.ballot import Ballot, Standing

ALPHA: Final = 1 / 16
"""Frequency among the votes from which an answer is kept."""
MIN_VOTES: Final = 2
"""Votes that an answer needs whatever ``ALPHA`` says."""


def rank(ballot: Ballot) -> tuple[Standing, ...]:
    """Kept answers by reward; then, should ``k`` ask for more, the others by votes and reward, with weight 0.

    A majority vote where nothing is scored.
    """
    if not ballot.rewards:
        return majority.rank(ballot)
    most = max(map(len, ballot.classes))
    needed = min(most, max(MIN_VOTES, math.ceil(ALPHA * ballot.n_votes)))
    kept: list[tuple[float, Standing]] = []
    others: list[tuple[int, float, Standing]] = []
    for members in ballot.classes:
        reward = math.fsum(ballot.rewards[index] for index in members) / len(members)
        best = ballot.best_by_reward(members)
        if len(members) >= needed:
            kept.append((reward, Standing(members=members, weight=reward, best=best)))
        else:
            others.append((len(members), reward, Standing(members=members, weight=0.0, best=best)))
    # Classes come in the order of their first candidates, and sorting is stable: ties stay with the earliest.
    kept.sort(key=lambda each: -each[0])
    others.sort(key=lambda each: (-each[0], -each[1]))
    return tuple(each[-1] for each in kept) + tuple(each[-1] for each in others)
