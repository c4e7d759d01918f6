# SPDX-License-Identifier: Apache-2.0
r"""Rows for a process scorer: a problem with a tree of solutions, a tag asked for behind every line.

A path of the tree reads `<s><|user|> PROBLEM<|assistant|> line\\n<step> line\\n<step> ...`, what the scorer is shown
when it serves. Paths share what they have in common: a problem is read once however many lines, right and wrong, are
judged on it. Each token sees its own path alone, at the positions the path gives it, so that a row computes what its
paths would compute one by one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random  # noqa: TID251 - reproducible data, no secret

import torch
from torch import Tensor

from adyton_models.tasks.checker import label_steps
from adyton_models.tasks.facts import Facts
from adyton_models.tokenizer import PADDING, STEP, Tokenizer
from adyton_models.training.corruptions import corrupt, named_by, right_lines
from adyton_models.training.data import Row
from adyton_models.training.sampled import lines_of

UNKNOWN = -1
"""A token without a target."""


@dataclass(slots=True, kw_only=True)
class Node:
    """A line behind its parent's; `good` is whether it and all before it are right."""

    line: str
    good: float
    """1 or 0; between them where the label is a share of rollouts."""
    children: list["Node"] = field(default_factory=list)

    def child(self, line: str, good: float) -> "Node":
        """The child with this line, made when there is none."""
        for node in self.children:
            if node.line == line:
                return node
        self.children.append(Node(line=line, good=good))
        return self.children[-1]


def add_solution(root: Node, facts: Facts, text: str, *, beyond: int = 0) -> None:
    """Add a solution up to its first wrong line, and `beyond` lines more."""
    node, left = root, beyond
    for line, good in zip(lines_of(text), label_steps(facts, text), strict=True):
        if node.good == 0:
            left -= 1
            if left < 0:
                return
        node = node.child(line, float(good))


def add_labelled(root: Node, text: str, labels: Sequence[float]) -> None:
    """Add a whole solution whose lines are labelled already, one by one."""
    node = root
    for line, label in zip(lines_of(text), labels, strict=True):
        node = node.child(line, label)


def add_corruptions(root: Node, facts: Facts, rng: Random, share: float) -> None:
    """Beside each right line, with probability `share`, add a wrong one."""
    waiting: list[tuple[Node, tuple[str, ...]]] = [(root, ())]
    while waiting:
        node, before = waiting.pop()
        for child in list(node.children):
            if child.good < 1:
                continue
            waiting.append((child, (*before, child.line)))
            wrong = corrupt(rng, facts, child.line, before) if rng.random() < share else None
            if wrong is not None:
                node.child(wrong, 0.0)


@dataclass(slots=True, kw_only=True)
class TreeRow:
    """One problem with its tree, token by token in an order in which parents come before children."""

    token_ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    """Which line of the tree a token belongs to; 0 is the problem."""
    ancestors: list[tuple[int, ...]] = field(default_factory=list)
    """For each line, the lines it sees, itself included."""
    following: list[int] = field(default_factory=list)
    """The token that follows on the right path, or UNKNOWN."""
    tags: list[float] = field(default_factory=list)
    """Behind each line: whether all is right so far; UNKNOWN elsewhere."""
    flags: list[float] = field(default_factory=list)
    """For each token of a solution: whether all is right up to it; UNKNOWN in the problem."""
    faults: list[float] = field(default_factory=list)
    """For each token up to the first wrong one: whether it is right itself; UNKNOWN behind it and in the problem."""

    def add(
        self, segment: int, ids: Sequence[int], start: int, flags: Sequence[float], *, learn: bool
    ) -> None:
        """Append the tokens of one line (or of the problem)."""
        self.token_ids += ids
        self.positions += range(start, start + len(ids))
        self.segments += [segment] * len(ids)
        self.following += [*ids[1:], UNKNOWN] if learn else [UNKNOWN] * len(ids)
        self.tags += [UNKNOWN] * len(ids)
        self.flags += flags
        turn = next((at for at, flag in enumerate(flags) if flag == 0), len(flags) - 1)
        self.faults += [*flags[: turn + 1], *[float(UNKNOWN)] * (len(flags) - turn - 1)]


class FaultFinder:
    """Says with which token a wrong line leaves every right one."""

    def __init__(self, facts: Facts, tokenizer: Tokenizer) -> None:
        self._facts, self._tokenizer = facts, tokenizer
        self._ids: dict[str, list[int]] = {}

    def _encoded(self, line: str) -> list[int]:
        if line not in self._ids:
            self._ids[line] = self._tokenizer.encode_known(f" {line}\n")
        return self._ids[line]

    def first_fault(self, line: str, stated: frozenset[str]) -> int:
        """Index of the first wrong token of `line` behind lines about `stated`."""
        mine = self._encoded(line)
        return max(
            next(
                (
                    at
                    for at, pair in enumerate(zip(mine, self._encoded(other), strict=False))
                    if pair[0] != pair[1]
                ),
                0,
            )
            for other in right_lines(self._facts, stated)
        )


def lay_out(tokenizer: Tokenizer, problem: str, root: Node, facts: Facts | None) -> TreeRow:
    """The row of a problem and its tree; without `facts` the flags stay unknown."""
    row = TreeRow()
    finder = None if facts is None else FaultFinder(facts, tokenizer)
    prompt = tokenizer.prompt(problem)
    row.ancestors.append((0,))
    row.add(0, prompt, 0, [UNKNOWN] * len(prompt), learn=False)
    nobody: frozenset[str] = frozenset()
    waiting = [(root, 0, len(prompt), len(prompt) - 1, nobody)]
    while waiting:
        parent, above, start, last, stated = waiting.pop()
        for child in parent.children:
            ids = [*tokenizer.encode_known(f" {child.line}\n"), tokenizer.ids[STEP]]
            segment = len(row.ancestors)
            row.ancestors.append((*row.ancestors[above], segment))
            flags = [float(UNKNOWN)] * len(ids)
            if finder is not None:
                sound = 0 if parent.good == 0 else len(ids)
                if parent.good > 0 and child.good == 0:
                    sound = finder.first_fault(child.line, stated)
                flags = [1.0] * sound + [0.0] * (len(ids) - sound)
            if child.good > 0 and row.following[last] == UNKNOWN:
                row.following[last] = ids[0]
            row.add(segment, ids, start, flags, learn=child.good > 0)
            if parent.good == 0:
                row.faults[-len(ids) :] = [float(UNKNOWN)] * len(ids)
            if child.good > 0:
                row.following[-2] = UNKNOWN  # `<step>` is asked, not predicted
            row.tags[-1] = child.good
            seen = stated | {named_by(child.line)}
            waiting.append((child, segment, start + len(ids), len(row.token_ids) - 1, seen))
    return row


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeBatch:
    """Rows side by side, padded right: all (rows, tokens), the mask (rows, tokens, tokens)."""

    token_ids: Tensor
    positions: Tensor
    mask: Tensor
    following: Tensor
    tags: Tensor
    flags: Tensor
    faults: Tensor

    def to(self, device: torch.device) -> "TreeBatch":
        """The same on another device."""
        return TreeBatch(**{name: getattr(self, name).to(device) for name in TreeBatch.__slots__})


def row_of_drill(drill: Row) -> TreeRow:
    """A row of bare equations or look-ups: text to learn, nothing to judge."""
    ids = drill.token_ids
    row = TreeRow(ancestors=[(0,)])
    row.add(0, ids, 0, [float(UNKNOWN)] * len(ids), learn=False)
    row.following = [
        following if weight > 0 else UNKNOWN
        for following, weight in zip(ids[1:], drill.weights[1:], strict=True)
    ] + [UNKNOWN]
    return row


def batch_rows(rows: Sequence[TreeRow], tokenizer: Tokenizer) -> TreeBatch:
    """Pad rows to a multiple of 16 tokens and build their masks."""
    longest = -(-max(len(row.token_ids) for row in rows) // 16) * 16

    def padded(values: Sequence[Sequence[float]], empty: float, dtype: torch.dtype) -> Tensor:
        out = torch.full((len(values), longest), empty, dtype=dtype)
        for index, each in enumerate(values):
            out[index, : len(each)] = torch.tensor(each, dtype=dtype)
        return out

    mask = torch.zeros((len(rows), longest, longest), dtype=torch.bool)
    for index, row in enumerate(rows):
        sees = torch.zeros((len(row.ancestors), len(row.ancestors)), dtype=torch.bool)
        for segment, above in enumerate(row.ancestors):
            sees[segment, list(above)] = True
        segments = torch.tensor(row.segments)
        mask[index, : len(segments), : len(segments)] = sees[segments][:, segments]
    mask &= torch.ones((longest, longest), dtype=torch.bool).tril()
    return TreeBatch(
        token_ids=padded([row.token_ids for row in rows], tokenizer.ids[PADDING], torch.long),
        positions=padded([row.positions for row in rows], 0, torch.long),
        mask=mask,
        following=padded([row.following for row in rows], UNKNOWN, torch.long),
        tags=padded([row.tags for row in rows], UNKNOWN, torch.float32),
        flags=padded([row.flags for row in rows], UNKNOWN, torch.float32),
        faults=padded([row.faults for row in rows], UNKNOWN, torch.float32),
    )


__all__ = [
    "FaultFinder",
    "Node",
    "TreeBatch",
    "TreeRow",
    "add_corruptions",
    "add_labelled",
    "add_solution",
    "batch_rows",
    "lay_out",
    "row_of_drill",
]
