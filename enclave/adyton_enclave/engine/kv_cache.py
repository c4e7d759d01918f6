# SPDX-License-Identifier: Apache-2.0
"""Keeps every sequence's KV cells in the order of its tokens, because answers depend on it.

Attention sums over cells in the order of their indices, and floating point sums depend on the order. llama.cpp
puts new tokens into the lowest free cells, so as soon as a finished neighbour leaves a hole, a sequence goes on
*below* its own past, and its logits differ from those it gets alone. They differ little, but a replay that is
compared bit for bit does not know "little".

So no hole is ever left while anybody computes: before the next step, cells that were given up are overwritten with
zeros and held by a *plug*, a sequence id that never computes. New tokens then always go above everything else, and
nothing of what was given up outlives the step. When the cells under the plug grow, the cache is compacted: the plug is
dropped, and the state of the whole context is written out and read back, which llama.cpp does in the order of cells
and without holes, shared cells staying shared. When nobody holds a cell, dropping the plug is enough.

No sequence can attend to cells under the plug.
"""

from adyton_enclave.engine.kv_budget import KvBudget
from adyton_enclave.engine.kv_eraser import CellEraser
from adyton_enclave.engine.llama import LlamaContext

MIN_GARBAGE_CELLS = 1024
"""Garbage below this is not worth a compaction. Masked cells cost little, but they are looked at."""


class OrderedKvCache:
    """The KV memory of one context. Owned by the loop thread."""

    def __init__(self, context: LlamaContext, budget: KvBudget, plug_id: int) -> None:
        """Start empty; ``plug_id`` and the next are sequence ids that the scheduler never hands out."""
        self._context = context
        self._budget = budget
        self._plug_id = plug_id
        self._eraser = CellEraser(context, plug_id + 1)
        self._placed = 0
        self._plugged = 0

    @property
    def garbage(self) -> int:
        """Cells that were computed and that no sequence sees any more."""
        return self._placed - self._budget.used

    @property
    def dirty_cells(self) -> int:
        """Cells that were given up and still hold their numbers."""
        return self.garbage - self._plugged

    def copy(self, source: int, target: int, length: int) -> None:
        """Let ``target`` share the first ``length`` cells of ``source``."""
        self._context.copy(source, target, length)

    def remove(self, seq_id: int) -> None:
        """Take a sequence's cells away from it, at once and for good. Nobody else can see them either."""
        self._context.remove(seq_id)

    def erase(self) -> None:
        """Overwrite what was given up since the last time. Books and cells must agree: call it between steps."""
        holes = self.dirty_cells
        if holes:
            self._eraser.clear(holes, self._plug_id)
            self._plugged += holes
        if self._placed and not self._budget.used:
            self._drop_plug()

    def truncate(self, seq_id: int, length: int) -> None:
        """Take all but the first ``length`` cells away from a sequence."""
        self._context.remove(seq_id, length)

    def prepare(self, count: int) -> None:
        """Make sure that the next ``count`` tokens fit above everything that is occupied."""
        self.erase()
        if self.garbage and (
            self._placed + count > self._budget.total
            or self.garbage > max(MIN_GARBAGE_CELLS, self._budget.used)
        ):
            self._drop_plug()
            self._context.compact()

    def placed(self, count: int) -> None:
        """Book ``count`` tokens that were computed."""
        self._placed += count

    def _drop_plug(self) -> None:
        self._context.remove(self._plug_id)
        self._placed = self._budget.used
        self._plugged = 0
