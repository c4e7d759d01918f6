# SPDX-License-Identifier: Apache-2.0
"""Exact book-keeping of KV cells, shared prefixes included.

A unified KV cache has a fixed number of cells; a cell may belong to several sequences after
``llama_memory_seq_cp``. The books are a tree of runs of cells: a sequence's lease is a leaf, the path to the
root is its prefix. A fork splits the run at the fork point and hangs a new leaf below it; a release walks up
while nobody else hangs on. So forks of forks (tree search) cost what they cost in llama.cpp, no more.

This module knows no tokens and no llama.cpp; it only counts.
"""

from collections.abc import Iterable, Iterator

from adyton_protocol.errors import OutOfMemory


class _Run:
    """Consecutive cells with the same holders: one per live child or lease."""

    __slots__ = ("cells", "holders", "parent")

    def __init__(self, parent: "_Run | None", cells: int) -> None:
        self.parent = parent
        self.cells = cells
        self.holders = 1


class KvBudget:
    """The cells of one context."""

    __slots__ = ("total", "used")

    def __init__(self, total: int) -> None:
        """Start with all ``total`` cells free."""
        self.total = total
        self.used = 0

    @property
    def free(self) -> int:
        """Cells that nobody holds."""
        return self.total - self.used

    def lease(self) -> "KvLease":
        """Open an empty lease."""
        return KvLease(self, _Run(None, 0), 0)

    def __repr__(self) -> str:
        return f"KvBudget(used={self.used}, total={self.total})"


class KvLease:
    """The cells of one sequence, in order of position."""

    __slots__ = ("_budget", "_leaf", "length")

    def __init__(self, budget: KvBudget, leaf: _Run, length: int) -> None:
        """Use :meth:`KvBudget.lease` or :meth:`fork`."""
        self._budget = budget
        self._leaf: _Run | None = leaf
        self.length = length

    def grow(self, cells: int) -> None:
        """Take ``cells`` more at the end.

        Raises:
            OutOfMemory: The budget does not have them; nothing changed.
        """
        if cells > self._budget.free:
            raise OutOfMemory("the KV cache is full")
        leaf = self._live_leaf()
        if leaf.holders > 1:
            # Our own leaf became the shared prefix of a fork: continue on a run of our own below it.
            leaf = self._leaf = _Run(leaf, 0)
        leaf.cells += cells
        self.length += cells
        self._budget.used += cells

    def fork(self, length: int) -> "KvLease":
        """Open a lease that shares the first ``length`` cells; costs nothing until it grows."""
        if not 0 <= length <= self.length:
            raise ValueError("a fork shares a prefix of what is there")
        run: _Run | None = self._live_leaf()
        excess = self.length - length
        while run is not None and excess >= run.cells and excess:
            excess -= run.cells
            run = run.parent
        if run is None or length == 0:
            return self._budget.lease()
        if excess:
            head = _Run(run.parent, run.cells - excess)
            # The split run keeps its holders; its new parent is held by it alone, plus the fork below.
            run.parent = head
            run.cells = excess
            run = head
        run.holders += 1
        return KvLease(self._budget, _Run(run, 0), length)

    def truncate(self, length: int) -> None:
        """Give back what lies beyond the first ``length`` cells, as far as nobody else holds it."""
        head = self.fork(length)
        self.release()
        self._leaf, self.length = head._leaf, length  # noqa: SLF001  # another lease

    @property
    def exclusive(self) -> int:
        """Cells that a release would give back."""
        cells, run = 0, self._leaf
        while run is not None and run.holders == 1:
            cells += run.cells
            run = run.parent
        return cells

    def runs(self) -> Iterator[_Run]:
        """The runs of cells that this lease holds, from its end to its beginning."""
        run = self._leaf
        while run is not None:
            yield run
            run = run.parent

    def release(self) -> None:
        """Give everything back that nobody else holds. Idempotent."""
        run = self._leaf
        self._leaf = None
        self.length = 0
        while run is not None:
            run.holders -= 1
            if run.holders:
                return
            self._budget.used -= run.cells
            run = run.parent

    def _live_leaf(self) -> _Run:
        if self._leaf is None:
            raise ValueError("the lease was released")
        return self._leaf


def held_cells(leases: Iterable[KvLease]) -> int:
    """Cells of all these leases together, shared ones counted once."""
    return sum(run.cells for run in {run for lease in leases for run in lease.runs()})
