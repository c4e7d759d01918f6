# SPDX-License-Identifier: Apache-2.0
"""``weighted``: a vote in which each candidate counts as much as its reward."""

import math

from adyton_protocol.selection import majority
from adyton_protocol.selection.ballot import Ballot, Standing, by_weight


def rank(ballot: Ballot) -> tuple[Standing, ...]:
    """The sum of rewards of each class. A candidate without scores weighs nothing; if none has any, all weigh 1."""
    if not ballot.rewards:
        return majority.rank(ballot)
    return by_weight(
        [
            Standing(
                members=members,
                weight=math.fsum(ballot.rewards[index] for index in members),
                best=ballot.best_by_reward(members),
            )
            for members in ballot.classes
        ]
    )
