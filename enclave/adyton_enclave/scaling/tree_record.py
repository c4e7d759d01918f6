# SPDX-License-Identifier: Apache-2.0
"""What a tree search has tried, for those who want to see it: every step of every line, with its score."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One step of a tree search.

    Attributes:
        parent: Index of the node before; None for a first step.
        depth: Steps from the beginning, 1 for a first one.
        step: Its text, the delimiter included. Where a search has stopped looking at steps: all that followed.
        score: Of the line from its beginning to here, by the search's aggregate; None when it was not scored.
        n_children: Steps that were tried from here. Without any, and without a candidate, the line was given up.
        candidates: Indices of the candidates that end here: several where lines had parted but got no step further.
    """

    parent: int | None
    depth: int
    step: str = field(repr=False)
    score: float | None
    n_children: int
    candidates: tuple[int, ...]


class TreeRecord:
    """Takes nodes down in the order of their making."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._steps: list[tuple[int | None, str, float | None]] = []

    def add(self, parent: int | None, step: str, score: float | None) -> int:
        """Take a step down; its number."""
        self._steps.append((parent, step, score))
        return len(self._steps) - 1

    def nodes(self, leaves: Sequence[int | None]) -> tuple[Node, ...]:
        """Everything that was taken down.

        Args:
            leaves: For each candidate, the node in which it ends; None for one without a step.
        """
        n_children = [0] * len(self._steps)
        depths: list[int] = []
        for parent, _, _ in self._steps:
            depths.append(1 if parent is None else depths[parent] + 1)
            if parent is not None:
                n_children[parent] += 1
        candidates: list[tuple[int, ...]] = [()] * len(self._steps)
        for index, leaf in enumerate(leaves):
            if leaf is not None:
                candidates[leaf] += (index,)
        return tuple(
            Node(
                parent=parent,
                depth=depths[number],
                step=step,
                score=score,
                n_children=n_children[number],
                candidates=candidates[number],
            )
            for number, (parent, step, score) in enumerate(self._steps)
        )
