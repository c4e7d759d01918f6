# SPDX-License-Identifier: Apache-2.0
"""What the scorer has read: each step once, however many lines say it.

Sampled answers begin alike, and the children of one node often say the same. A score depends on the problem and on the
steps alone, so whoever says the same has the same scores; the scorer reads a tree of distinct steps, in which a line is
a place. Which steps are read, and so what they cost, follows from what the lines say and not from who came first.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from itertools import takewhile
from typing import Self

from adyton_enclave.scoring.scorer import ScoringBranch
from adyton_protocol.errors import ContextOverflow

Steps = tuple[str, ...]


class Reading:
    """A place in the tree of what was read. It is pruned when no line stands there and nothing goes on from it.

    Attributes:
        steps: Those that were read since the place before, at least one except at the root.
    """

    def __init__(self, branch: ScoringBranch, parent: "Reading | None" = None, steps: Steps = ()) -> None:
        """Stand at the end of a branch that has read these steps; nobody holds it yet."""
        self.steps = steps
        self._branch = branch
        self._parent = None if parent is None else parent.hold()
        self._children: dict[Steps, Reading] = {}
        self._n_holders = 0

    @property
    def scores(self) -> tuple[float, ...]:
        """Of all steps up to here."""
        return self._branch.scores

    def hold(self) -> Self:
        """Keep the place until :meth:`release`."""
        self._n_holders += 1
        return self

    def release(self) -> None:
        """Give it up, and with it the places before it that nobody holds otherwise."""
        at: Reading | None = self
        while at is not None:
            at = at.let_go()

    def let_go(self) -> "Reading | None":
        """Count one holder less; the place before, if this one is gone and so holds it no longer.

        For :meth:`release`, which else would go as deep as a text is long.
        """
        self._n_holders -= 1
        if self._n_holders:
            return None
        self._branch.prune()
        if self._parent is not None:
            self._parent.forget(self)
        return self._parent

    def forget(self, child: "Reading") -> None:
        """Let nobody find this child any more."""
        self._children.pop(child.steps, None)

    def n_tokens(self, steps: Steps) -> int:
        """What the scorer would read of steps that go on from here."""
        return self._branch.n_tokens(*steps)

    def locate(self, steps: Steps) -> "tuple[Reading, Steps]":
        """The furthest place that is there on the way of these steps, and the steps that follow it."""
        at = self
        while (child := at.find(steps)) is not None:
            at, steps = child, steps[len(child.steps) :]
        return at, steps

    def find(self, steps: Steps) -> "Reading | None":
        """A child on the way of who goes on with these steps."""
        return next((child for own, child in self._children.items() if steps[: len(own)] == own), None)

    async def read(self, steps: Steps) -> "Reading":
        """Read steps that nobody has read here; the new place is held once.

        Raises:
            ContextOverflow: They do not fit; nothing changed.
            EngineError: What else went wrong.
        """
        (branch,) = self._branch.fork()
        child = Reading(branch, self, steps).hold()
        try:
            await branch.extend(*steps)
        except BaseException:
            child.release()
            raise
        self._children[steps] = child
        return child


def affordable(wanted: Sequence[tuple[Reading, Steps]], n_tokens: int) -> list[bool]:
    """Whose steps can be read with so many tokens; who comes first in ``wanted`` is served first.

    Args:
        wanted: As for :func:`read_on`.
        n_tokens: Most that the scorer may read.
    """
    served: list[bool] = []
    # The places that there will be, by number, and how they are reached. Time and memory are linear in the texts.
    coming: dict[tuple[int, str], int] = {}
    for reading, steps in wanted:
        at, rest = reading.locate(steps)
        place, known = id(at), 0
        while known < len(rest) and (place, rest[known]) in coming:
            place = coming[place, rest[known]]
            known += 1
        price = at.n_tokens(rest) - at.n_tokens(rest[:known])
        served.append(price <= n_tokens)
        if served[-1]:
            n_tokens -= price
            for step in rest[known:]:
                place = coming.setdefault((place, step), -len(coming) - 1)
    return served


async def read_on(wanted: Sequence[tuple[Reading, Steps]]) -> list[Reading | None]:
    """Read what lines say beyond the place where they stand, all at once.

    Args:
        wanted: For each line its place and the steps that follow, possibly none.

    Returns:
        For each line its new place, held once for it; None where the scorer has no room for its steps.

    Raises:
        EngineError: What went wrong; everything has stopped, and no place is held.
    """
    ends: list[Reading | None] = [None] * len(wanted)
    groups: dict[int, tuple[Reading, list[tuple[int, Steps]]]] = {}
    for index, (reading, steps) in enumerate(wanted):
        at, rest = reading.locate(steps)
        groups.setdefault(id(at), (at, []))[1].append((index, rest))
    try:
        await together([_grow(reading, lines, ends) for reading, lines in groups.values()])
    except BaseException:
        for end in ends:
            if end is not None:
                end.release()
        raise
    return ends


async def _grow(at: Reading, lines: Sequence[tuple[int, Steps]], ends: list[Reading | None]) -> None:
    """Go on from one place with all who stand there and say what nobody has said there before."""
    groups: dict[str, list[tuple[int, Steps]]] = {}
    for index, steps in lines:
        if steps:
            groups.setdefault(steps[0], []).append((index, steps))
        else:
            ends[index] = at.hold()
    await together([_follow(at, group, ends) for group in groups.values()])


async def _follow(at: Reading, lines: Sequence[tuple[int, Steps]], ends: list[Reading | None]) -> None:
    """Read the steps that some lines have in common, then go on."""
    common = _common([steps for _, steps in lines])
    try:
        child = await at.read(common)
    except ContextOverflow:
        return
    try:
        await _grow(child, [(index, steps[len(common) :]) for index, steps in lines], ends)
    finally:
        child.release()


def _common(texts: Sequence[Steps]) -> Steps:
    """The steps with which all begin."""
    alike = takewhile(lambda level: len(set(level)) == 1, zip(*texts, strict=False))
    return tuple(level[0] for level in alike)


async def together(work: Sequence[Coroutine[None, None, None]]) -> None:
    """Run all at once; when one fails, the others are cancelled and its error is raised."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
