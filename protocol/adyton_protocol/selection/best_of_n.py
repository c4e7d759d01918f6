# SPDX-License-Identifier: Apache-2.0
"""``best-of-n``: the candidate with the greatest reward.

The more candidates, the likelier it is that the scorer is wrong about the one that it likes best: accuracy turns down
as n grows. ``weighted`` and ``bom`` do not suffer from that.
"""

from adyton_protocol.selection import majority
from adyton_protocol.selection.ballot import Ballot, Standing, by_weight


def rank(ballot: Ballot) -> tuple[Standing, ...]:
    """The greatest reward of each class; a majority vote where nothing is scored."""
    if not ballot.rewards:
        return majority.rank(ballot)
    best = [ballot.best_by_reward(members) for members in ballot.classes]
    return by_weight(
        [
            Standing(members=members, weight=ballot.rewards[index], best=index)
            for members, index in zip(ballot.classes, best, strict=True)
        ]
    )
