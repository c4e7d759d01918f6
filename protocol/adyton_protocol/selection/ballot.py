# SPDX-License-Identifier: Apache-2.0
"""Candidates with their votes: what every method of choosing begins with."""

from collections.abc import Sequence
from dataclasses import dataclass

from adyton_protocol.answers import Answer, classes, read_answer
from adyton_protocol.selection.aggregate import aggregate
from adyton_protocol.selection.candidate import Candidate, SelectionRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Ballot:
    """Who votes for what.

    Attributes:
        candidates: All, in the order of their making.
        answers: Of each; None where it has no vote.
        rewards: Of each, its scores aggregated; 0 for one without scores. Empty when none of the voters has scores.
        classes: Indices of the candidates of each class, ascending; classes in the order of their first ones.
    """

    candidates: Sequence[Candidate]
    answers: tuple[Answer | None, ...]
    rewards: tuple[float, ...]
    classes: tuple[tuple[int, ...], ...]

    @property
    def n_votes(self) -> int:
        """How many candidates vote."""
        return sum(map(len, self.classes))

    def best_by_reward(self, members: Sequence[int]) -> int:
        """The candidate with the greatest reward; the earliest where several have it, or where nobody has any."""
        return max(members, key=lambda index: self.rewards[index]) if self.rewards else members[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a method thinks of one class.

    Attributes:
        members: Indices of its candidates.
        weight: See :class:`~adyton_protocol.selection.candidate.Vote`.
        best: Index of the member that speaks for it.
    """

    members: tuple[int, ...]
    weight: float
    best: int


def count(candidates: Sequence[Candidate], rule: SelectionRule) -> Ballot:
    """Read the answers, once each, and group equal ones."""
    answers = tuple(
        read_answer(candidate.text, rule.answer) if candidate.complete else None for candidate in candidates
    )
    scored = any(
        candidate.scores for candidate, answer in zip(candidates, answers, strict=True) if answer is not None
    )
    return Ballot(
        candidates=candidates,
        answers=answers,
        rewards=tuple(reward(candidate, rule) for candidate in candidates) if scored else (),
        classes=tuple(each.members for each in classes(answers)),
    )


def reward(candidate: Candidate, rule: SelectionRule) -> float:
    """One score of a candidate: 0 without scores."""
    return aggregate(candidate.scores, rule.aggregate) if candidate.scores else 0.0


def by_weight(standings: Sequence[Standing]) -> tuple[Standing, ...]:
    """Heaviest first; ties to the class whose first candidate is the earliest."""
    return tuple(sorted(standings, key=lambda standing: (-standing.weight, standing.members[0])))
