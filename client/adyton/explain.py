# SPDX-License-Identifier: Apache-2.0
"""A search as text: the votes as bars, the tree of steps with its scores, what it cost.

SECURITY: candidates are words of a model, which anybody may have steered. Every piece of them that is shown stands in
one line of bounded width without control characters (:func:`~adyton.terminal.one_line`), and what we say about them
stands in columns that they do not reach. So no candidate can draw a vote, a tree or a verdict of its own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from adyton.terminal import one_line
from adyton_protocol.selection.candidate import Candidate, Method, Selection

_BAR_COLUMNS: Final = 28
_ANSWER_COLUMNS: Final = 28
_STEP_COLUMNS: Final = 72
MAX_TREE_LINES: Final = 120
MAX_VOTES: Final = 20

_WEIGHED_BY: Final[dict[Method, str]] = {
    "single": "one candidate",
    "majority": "each candidate has one vote",
    "weighted": "each vote counts as much as the scorer trusts its steps",
    "best-of-n": "the scorer's best candidate wins",
    "bom": "among the frequent answers, the scorer's best",
    "rpc": "each answer by the generator's own probability, unlikely paths left out",
    "pairwise": "the scorer compares candidates two at a time",
}


def vote_lines(selection: Selection, *, method: Method, n_candidates: int) -> Iterator[str]:
    """The vote table: each class of equal answers with a bar, its weight and its candidates.

    Args:
        selection: What was chosen.
        method: The rule.
        n_candidates: How many candidates there were.
    """
    yield f"vote of {counted(n_candidates, 'candidate')}: {_WEIGHED_BY[method]} (* chosen)"
    most = max((vote.weight for vote in selection.votes), default=0.0)
    for vote in selection.votes[:MAX_VOTES]:
        share = vote.weight / most if most > 0.0 else 0.0
        bar = "#" * round(_BAR_COLUMNS * min(1.0, max(0.0, share)))
        mark = "*" if set(vote.members) & set(selection.winners) else " "
        members = counted(len(vote.members), "candidate")
        yield (
            f"{mark} {vote.weight:8.3g} {bar:<{_BAR_COLUMNS}} {members:<15} "
            f"{one_line(vote.shown, _ANSWER_COLUMNS)}"
        )
    if len(selection.votes) > MAX_VOTES:
        yield f"  and {counted(len(selection.votes) - MAX_VOTES, 'further answer')}"
    if selection.abstained:
        yield f"  {counted(len(selection.abstained), 'candidate')} without an answer, or cut off: no vote"


def counted(number: int, noun: str) -> str:
    """``1 candidate``, ``1,204 candidates``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def flops(number: float) -> str:
    """A count of floating-point operations that a person can read."""
    for size, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if number >= size:
            return f"{number / size:.3g} {unit}FLOP"
    return f"{number:.0f} FLOP"


# --- The tree ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Node:
    """Candidates that are the same up to and with one step.

    Attributes:
        step: The text of that step.
        score: What the scorer thinks of everything up to here.
        members: Candidates that pass through, ascending.
        ends: Those that end here.
        children: Each next step, in the order of its first candidate.
    """

    step: str = ""
    score: float | None = None
    members: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    children: dict[tuple[str, float | None], "_Node"] = field(default_factory=dict)


def scored_steps(candidate: Candidate) -> list[tuple[str, float | None]]:
    """The lines of a candidate, each with its score where lines are what was scored."""
    lines = [line for line in candidate.text.split("\n") if line.strip()]
    scores: list[float | None] = list(candidate.scores)
    if len(scores) == len(lines) - 1 and not candidate.complete:
        scores.append(None)  # A step that was cut off has no score.
    return list(zip(lines, scores if len(scores) == len(lines) else [None] * len(lines), strict=True))


def tree_lines(candidates: Sequence[Candidate], selection: Selection) -> Iterator[str]:
    """The candidates as a tree of steps: what they share stands once, the winner comes first.

    A line has ``*`` if the winner passes through it, the score of everything up to its step, and the step; where
    candidates end, ``=>`` and their answer.
    """
    root = _Node()
    for index, candidate in enumerate(candidates):
        node = root
        node.members.append(index)
        for step, score in scored_steps(candidate):
            node = node.children.setdefault((step, score), _Node(step=step, score=score))
            node.members.append(index)
        node.ends.append(index)
    yield "tree of steps, each with the score of all up to it (* chosen):"
    lines = _draw(root, _Fates(candidates, selection))
    yield from islice(lines, MAX_TREE_LINES)
    if next(lines, None) is not None:
        yield "  the rest is left out; --json has every candidate"


class _Fates:
    """What became of the candidates."""

    def __init__(self, candidates: Sequence[Candidate], selection: Selection) -> None:
        self._winners = set(selection.winners)
        self._complete = [candidate.complete for candidate in candidates]
        self._answers = {
            index: one_line(vote.shown, _ANSWER_COLUMNS) for vote in selection.votes for index in vote.members
        }

    def wins(self, members: Sequence[int]) -> bool:
        """Whether one of them was chosen."""
        return not self._winners.isdisjoint(members)

    def of(self, ends: Sequence[int]) -> str:
        """The answer of candidates that end alike."""
        times = f" ({len(ends)} times)" if len(ends) > 1 else ""
        if not any(self._complete[index] for index in ends):
            return f"given up{times}"
        return f"{self._answers.get(ends[0], 'no answer')}{times}"

    def order(self, node: _Node) -> list[_Node]:
        """Its children: the winner's first, then what most candidates share, then the earliest."""
        return sorted(
            node.children.values(),
            key=lambda child: (not self.wins(child.members), -len(child.members), child.members[0]),
        )


def _draw(root: _Node, fates: _Fates) -> Iterator[str]:
    """Depth first, without recursion: a candidate may have more steps than Python has stack.

    A step with one continuation stays on its indentation; only a fork opens a new one.
    """
    waiting = _below(root, "", fates)
    while waiting:
        node, head, rest = waiting.pop()
        mark = "*" if fates.wins(node.members) else " "
        score = "" if node.score is None else f"{node.score:.2f}"
        yield f"{mark} {head}{score:<4}  {one_line(node.step, _STEP_COLUMNS)}"
        if node.ends:
            chosen = "*" if fates.wins(node.ends) else " "
            yield f"{chosen} {rest}  =>  {fates.of(node.ends)}"
        waiting += _below(node, rest, fates)


def _below(node: _Node, indent: str, fates: _Fates) -> list[tuple[_Node, str, str]]:
    """What to draw below a node, the first at the end: nodes with what stands before them and before theirs."""
    children = fates.order(node)
    if len(children) < 2:  # noqa: PLR2004 - two make a fork.
        return [(child, indent, indent) for child in children]
    *others, last = children
    forked = [(child, f"{indent}|- ", f"{indent}|  ") for child in others]
    return [(last, f"{indent}`- ", f"{indent}   "), *reversed(forked)]
