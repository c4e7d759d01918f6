# SPDX-License-Identifier: Apache-2.0
"""When a vote is decided: pure functions of the votes so far.

Candidates come in windows, in the order of their making, and the vote is looked at after each complete window.
Whichever candidates of the next window happen to be there already change nothing.

* ``esc`` (Li et al. 2024): all of the last window give one answer, and that answer leads.
* ``beta`` and ``dirichlet`` (Aggarwal et al. 2023): the posterior of :mod:`adyton_protocol.selection.posterior`.

No correction is made for looking many times, and ``p`` is the probability at one look. Of two answers that are equally
common, one passes 0.95 at some look before the 64th candidate in 35 of 100 questions with a window of 5, and in 48 with
a window of 1. What this costs is smaller, because a vote of 64 can be wrong there too: where the right answer has 60 %
of the votes, the stopped vote is wrong in 7.0 of 100 questions and the full one in 5.4; at 70 % it is 0.4 and 0.0.
Whoever cannot pay that takes a greater ``p``: 0.99 makes it 5.5 at 60 %. (Computed exactly; see the tests.)
"""

from collections.abc import Sequence

from adyton_protocol.selection import majority, weighted
from adyton_protocol.selection.ballot import Ballot, count
from adyton_protocol.selection.bounds import StopRule
from adyton_protocol.selection.candidate import Candidate, SelectionRule
from adyton_protocol.selection.posterior import ahead_of_all, ahead_of_runner_up


def decided(candidates: Sequence[Candidate], rule: SelectionRule, stop: StopRule) -> bool:
    """Whether no further candidate needs to be made.

    For ``weighted`` each vote counts as much as its reward, and candidates of little reward decide nothing soon. For
    every other method each candidate counts 1.

    Args:
        candidates: Those so far, in the order of their making. What goes beyond the last complete window is not
            looked at.
        rule: How the answer will be chosen.
        stop: When to stop.
    """
    n_seen = len(candidates) - len(candidates) % stop.window
    if stop.kind == "none" or n_seen == 0:
        return False
    ballot = count(candidates[:n_seen], rule)
    if not ballot.classes:
        return False
    standings = weighted.rank(ballot) if rule.method == "weighted" else majority.rank(ballot)
    if stop.kind == "esc":
        return _unanimous(ballot, stop.window) and n_seen - 1 in standings[0].members
    votes = [standing.weight for standing in standings]
    return confidence(votes, stop) > stop.p


def confidence(votes: Sequence[float], stop: StopRule) -> float:
    """Probability that the first answer is the commonest.

    Args:
        votes: Heaviest first, at least one.
        stop: ``dirichlet`` compares with all others; every other kind with the runner-up.
    """
    if stop.kind == "dirichlet":
        return ahead_of_all(votes)
    return ahead_of_runner_up(votes[0], votes[1] if len(votes) > 1 else 0.0)


def _unanimous(ballot: Ballot, window: int) -> bool:
    """Whether the last ``window`` candidates all vote for one answer."""
    last = [None if answer is None else answer.key for answer in ballot.answers[-window:]]
    return last[0] is not None and all(key == last[0] for key in last)
