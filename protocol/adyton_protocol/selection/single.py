# SPDX-License-Identifier: Apache-2.0
"""``single``: the first candidate, whatever it says."""

from adyton_protocol.selection.ballot import Ballot, Standing, by_weight


def rank(ballot: Ballot) -> tuple[Standing, ...]:
    """The first candidate's class has all the weight."""
    return by_weight(
        [
            Standing(members=members, weight=1.0 if members[0] == 0 else 0.0, best=members[0])
            for members in ballot.classes
        ]
    )
