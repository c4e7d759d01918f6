# SPDX-License-Identifier: Apache-2.0
"""``majority``: the answer that most candidates give (self-consistency, Wang et al. 2022)."""

from adyton_protocol.selection.ballot import Ballot, Standing, by_weight


def rank(ballot: Ballot) -> tuple[Standing, ...]:
    """One vote each. Scores, if there are any, decide only which candidate speaks for its class."""
    return by_weight(
        [
            Standing(members=members, weight=float(len(members)), best=ballot.best_by_reward(members))
            for members in ballot.classes
        ]
    )
