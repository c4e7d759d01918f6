# SPDX-License-Identifier: Apache-2.0
"""A search as text: the votes as bars, the tree of steps with its scores, what it cost.

SECURITY: candidates are words of a model, which anybody may have steered. Every piece of them that is shown stands in
one line of bounded width without control characters (:func:`~adyton.terminal.one_line`), and what we say about them
stands in columns that they do not reach. So no candidate can draw a vote, a tree or a verdict of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from adyton.search_report import ConfidenceKind, ScoredStep, SearchReport
from adyton.terminal import one_line
from adyton_protocol.selection.candidate import Candidate, Method, Selection

_BAR_COLUMNS: Final = 28
_ANSWER_COLUMNS: Final = 28
_STEP_COLUMNS: Final = 72
_NAME_COLUMNS: Final = 48
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

_CONFIDENCE: Final[dict[ConfidenceKind, str]] = {
    "vote-share": "the answer's share of the vote",
    "score": "the answer's score",
    "none": "nothing to judge by",
}
_ENDS: Final = {
    "complete": "all there",
    "agreed": "ended early: the vote was decided",
    "budget": "ended by the budget",
    "time": "ended by the time limit",
}


def progress_line(progress: Mapping[str, object]) -> str:
    """How far a search is, from the member ``x_progress`` of an event."""
    ended, alive, tokens = (
        value if type(value) is int else 0
        for value in (progress.get(name) for name in ("ended", "alive", "policy_tokens"))
    )
    return f"searching: {ended:,} ended, {alive:,} under way, {counted(tokens, 'token')}"


def search_lines(report: SearchReport) -> Iterator[str]:
    """What was searched, what it cost, why it ended, and how sure it is: a line each."""
    asked = f" ({report.asked} chose it)" if report.asked != report.strategy else ""
    spent = report.spent
    yield (
        f"search: {one_line(report.strategy, _NAME_COLUMNS)} {report.n}{asked}, "
        f"{counted(report.made, 'candidate')}, {_ENDS.get(report.stop_reason, 'ended')}"
    )
    scored, judged = "", ""
    if report.scorer is not None:
        scored, judged = (
            f", {spent.scorer_tokens:,} scored",
            f" and {flops(spent.scorer_flops)} of the scorer",
        )
    yield (
        f"spent: {counted(spent.policy_tokens, 'token')} generated{scored}; "
        f"{flops(spent.policy_flops)} of the generator{judged}; {spent.time_ms / 1000:.2f} s"
    )
    if report.tree is not None:
        widths = " ".join(map(str, report.tree.widths[:MAX_VOTES]))
        yield (
            f"tree: {counted(report.tree.nodes, 'step')}, {counted(report.tree.given_up, 'line')} given up; "
            f"steps at each depth: {widths}"
        )
    confidence = report.confidence
    if confidence.value is not None:
        settled = "" if confidence.settled is None else f"; settled with {confidence.settled:.0%}"
        yield f"confidence: {confidence.value:.0%} is {_CONFIDENCE[confidence.kind]}{settled}"
    if confidence.accuracy is not None:
        problems = counted(confidence.problems, "problem")
        yield f"measured: searches like this were right on {confidence.accuracy:.0%} of {problems}"


def vote_lines(report: SearchReport) -> Iterator[str]:
    """The vote table: each class of equal answers with its weight, a bar, its candidates, and the answer."""
    yield f"vote of {counted(report.made, 'candidate')}: {_WEIGHED_BY[report.method]} (* chosen)"
    most = max((vote.weight for vote in report.votes), default=0.0)
    for vote in report.votes[:MAX_VOTES]:
        share = vote.weight / most if most > 0.0 else 0.0
        bar = "#" * round(_BAR_COLUMNS * min(1.0, max(0.0, share)))
        mark = "*" if report.winner.candidate in vote.candidates else " "
        members = counted(len(vote.candidates), "candidate")
        yield (
            f"{mark} {vote.weight:8.3g} {bar:<{_BAR_COLUMNS}} {members:<15} "
            f"{one_line(vote.answer, _ANSWER_COLUMNS)}"
        )
    if len(report.votes) > MAX_VOTES:
        yield f"  and {counted(len(report.votes) - MAX_VOTES, 'further answer')}"
    if report.abstained:
        yield f"  {counted(report.abstained, 'candidate')} without an answer, or cut off: no vote"


def step_lines(scorer: str, steps: Sequence[tuple[str, ScoredStep]]) -> Iterator[str]:
    """What a scorer thinks of each step of the answer.

    Args:
        scorer: Its name.
        steps: Text and score of each.
    """
    yield f"steps of the answer, as {one_line(scorer, _NAME_COLUMNS)} judges all up to each:"
    for text, step in steps[:MAX_TREE_LINES]:
        verdict = "sound" if step.sound else "doubtful"
        yield f"  {step.score:.2f} {verdict:<8}  {one_line(text, _STEP_COLUMNS)}"
    if len(steps) > MAX_TREE_LINES:
        yield "  the rest is left out; --json has every step"


def winner_steps(report: SearchReport, text: str) -> list[tuple[str, ScoredStep]]:
    """The winner's scored steps with their texts; empty without a scorer.

    Args:
        report: Of the search.
        text: The answer. Where its lines are not what was scored, steps are numbered instead.
    """
    steps, lines = report.winner.steps, _lines(text)
    shown = lines if len(lines) == len(steps) else [f"step {number}" for number in range(1, len(steps) + 1)]
    return list(zip(shown, steps, strict=True))


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
    lines = _lines(candidate.text)
    scores: list[float | None] = list(candidate.scores)
    if len(scores) == len(lines) - 1 and not candidate.complete:
        scores.append(None)  # A step that was cut off has no score.
    return list(zip(lines, scores if len(scores) == len(lines) else [None] * len(lines), strict=True))


def _lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip()]


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
    scored = any(candidate.scores for candidate in candidates)
    yield f"tree of steps{', each with the score of all up to it' if scored else ''} (* chosen):"
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
        score = "-" if node.score is None else f"{node.score:.2f}"
        yield f"{mark} {head}{score:>4}  {one_line(node.step, _STEP_COLUMNS)}"
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
