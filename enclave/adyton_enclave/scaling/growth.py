# SPDX-License-Identifier: Apache-2.0
"""What REBASE, beam search and DVTS have in common: all lines of a tree grow by one step, then some give way to others.

At every depth the finished lines leave the tree and take their part of its width with them; they are not cloned, as
the reference codes do, which would give them several votes. The width that remains, as many as there are unfinished
lines, is given to these anew. A line goes on as its own first child, so that only the others are forks: they share
its KV cells, and whatever is given up frees its own before anything new is computed.

Two lines that happen to say the same stay two: each goes on with draws of its own, as two samples would, and a merger
would save no token, because everything after the common text is drawn for each anew. That the text is judged once is
the business of :mod:`adyton_enclave.scaling.reading`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from adyton_enclave.scaling.line import Line
from adyton_enclave.scaling.search import Outcome, Search
from adyton_enclave.scaling.tree_record import TreeRecord
from adyton_protocol.errors import LocalProtocolError
from adyton_protocol.selection.aggregate import aggregate

MAX_DEPTH: Final = 40
"""Steps after which nothing is redistributed any more: lines that are left go on to their ends."""

Allocation = Callable[[Sequence[float], Sequence[int], Sequence[int]], Sequence[int]]
"""From the rewards of unfinished lines, the tree of each, and the width that each tree has left, to how many lines each
line becomes; those of a tree add up to its width."""


@dataclass(slots=True, eq=False)
class Tip:
    """A line that grows.

    Attributes:
        line: It.
        tree: Index of its tree.
        node: Where it stands in the record; None before its first step.
        n_recorded: Characters of its text that are in the record.
        n_scores: Scores that it had then.
    """

    line: Line
    tree: int = 0
    node: int | None = None
    n_recorded: int = 0
    n_scores: int = 0

    def fork(self, n: int) -> list["Tip"]:
        """Make ``n`` that begin like this one."""
        lines = self.line.fork(n) if n else []
        return [replace(self, line=line) for line in lines]

    def record(self, search: Search, record: TreeRecord) -> None:
        """Take down what the line says beyond what is in the record, if anything."""
        text, n_scores = self.line.text, len(self.line.scores)
        if len(text) > self.n_recorded:
            score = reward(search, self.line) if n_scores > self.n_scores else None
            self.node = record.add(self.node, text[self.n_recorded :], score)
        # A stop string may have taken back a part of an earlier step.
        self.n_recorded, self.n_scores = len(text), n_scores


def reward(search: Search, line: Line) -> float | None:
    """The score of a line by the search's aggregate; None without a step, or if it is too long for the scorer."""
    return aggregate(line.scores, search.plan.rule.aggregate) if line.scores else None


def outcome(search: Search, record: TreeRecord, tips: Sequence[Tip], open_lines: Sequence[Line]) -> Outcome:
    """Choose among tips, in the order in which they are given.

    Args:
        search: Of which this is the end.
        record: All steps of it.
        tips: The candidates.
        open_lines: On which the search would have gone on, had it been able to.
    """
    chosen = search.outcome([tip.line for tip in tips], search.stop_reason(open_lines))
    return replace(chosen, nodes=record.nodes([tip.node for tip in tips]))


def check_scorer(search: Search) -> None:
    """Raise LocalProtocolError without a scorer: whoever parses a request refuses it before."""
    if not search.scores:
        raise LocalProtocolError("a tree search needs a scorer")


async def grow(search: Search, widths: Sequence[int], allocate: Allocation) -> Outcome:
    """Grow trees side by side until all lines have ended or the budget is spent.

    Args:
        search: Within which.
        widths: Of each tree: with so many first steps it begins.
        allocate: Gives what width is left to the unfinished lines.

    Returns:
        Finished lines in the order of their ends, then unfinished ones; lines that were given up are no candidates.
    """
    check_scorer(search)
    record = TreeRecord()
    trees = [tree for tree, width in enumerate(widths) for _ in range(width)]
    growing = [Tip(line, tree) for line, tree in zip(search.root.fork(len(trees)), trees, strict=True)]
    search.root.drop()
    finished: list[Tip] = []
    for depth in range(1, MAX_DEPTH + 1):
        extend = search.advance if depth < MAX_DEPTH else search.finish
        await extend([tip.line for tip in growing])
        for tip in growing:
            tip.record(search, record)
        ended, growing = _parted(growing)
        finished += ended
        if not growing or search.ledger.exhausted:
            break
        for tip in ended:
            tip.line.drop()
        growing = _redistributed(search, growing, len(widths), allocate)
    return outcome(search, record, [*finished, *growing], [tip.line for tip in growing])


def _parted(tips: Sequence[Tip]) -> tuple[list[Tip], list[Tip]]:
    """Those whose lines have ended, and the others."""
    return [tip for tip in tips if tip.line.ended], [tip for tip in tips if not tip.line.ended]


def _redistributed(search: Search, tips: Sequence[Tip], n_trees: int, allocate: Allocation) -> list[Tip]:
    """The trees with their widths given out anew: as many lines as there are unfinished ones."""
    trees = [tip.tree for tip in tips]
    # A line without a score promises nothing.
    rewards = [reward(search, tip.line) or 0.0 for tip in tips]
    counts = allocate(rewards, trees, [trees.count(tree) for tree in range(n_trees)])
    for tip, count in zip(tips, counts, strict=True):
        if not count:
            tip.line.drop()
    return [
        heir for tip, count in zip(tips, counts, strict=True) if count for heir in (tip, *tip.fork(count - 1))
    ]
