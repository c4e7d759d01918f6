# SPDX-License-Identifier: Apache-2.0
"""The choice: from candidates and a rule to winners, votes and abstentions."""

from collections.abc import Callable, Sequence
from typing import Final

from adyton_protocol.errors import LocalProtocolError
from adyton_protocol.selection import best_of_n, bom, majority, pairwise, rpc, single, weighted
from adyton_protocol.selection.ballot import Ballot, Standing, count, reward
from adyton_protocol.selection.candidate import Candidate, Method, Selection, SelectionRule, Vote

_METHODS: Final[dict[Method, Callable[[Ballot], tuple[Standing, ...]]]] = {
    "single": single.rank,
    "majority": majority.rank,
    "weighted": weighted.rank,
    "best-of-n": best_of_n.rank,
    "bom": bom.rank,
    "rpc": rpc.rank,
    "pairwise": pairwise.rank,
}


def select(candidates: Sequence[Candidate], rule: SelectionRule) -> Selection:
    """Choose among candidates.

    A candidate that was cut off, or whose answer cannot be read, abstains. Should all abstain, one candidate is chosen
    without votes: of the complete ones, or of all if there is none, that with the greatest reward, or the first if none
    has scores. ``single`` chooses the first candidate even if it abstains.

    Args:
        candidates: At least one, in the order of their making, which decides every tie.
        rule: How to choose.

    Raises:
        LocalProtocolError: There are no candidates.
    """
    if not candidates:
        raise LocalProtocolError("a selection needs a candidate")
    ballot = count(candidates, rule)
    ranked = _METHODS[rule.method](ballot) if ballot.classes else ()
    if rule.method == "single":
        winners: tuple[int, ...] = (0,)
    elif ranked:
        winners = tuple(standing.best for standing in ranked[: rule.k])
    else:
        winners = (_without_votes(candidates, rule),)
    return Selection(
        winners=winners,
        votes=tuple(_vote(standing, ballot) for standing in ranked),
        abstained=tuple(index for index, answer in enumerate(ballot.answers) if answer is None),
    )


def _vote(standing: Standing, ballot: Ballot) -> Vote:
    answer = ballot.answers[standing.best]
    if answer is None:
        raise LocalProtocolError("a candidate without an answer speaks for no class")
    return Vote(key=answer.key, shown=answer.shown, members=standing.members, weight=standing.weight)


def _without_votes(candidates: Sequence[Candidate], rule: SelectionRule) -> int:
    """The candidate to give when nobody's answer can be read."""
    return max(
        range(len(candidates)),
        key=lambda index: (
            candidates[index].complete,
            bool(candidates[index].scores),
            reward(candidates[index], rule),
        ),
    )
