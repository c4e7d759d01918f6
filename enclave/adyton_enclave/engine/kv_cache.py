# SPDX-License-Identifier: Apache-2.0
"""Keeps every sequence's KV cells in the order of its tokens, because answers depend on it.

Attention sums over cells in the order of their indices, and floating point sums depend on the order. llama.cpp
puts new tokens into the lowest free cells, so as soon as a finished neighbour leaves a hole, a sequence goes on
*below* its own past, and its logits differ from those it gets alone. They differ little, but a replay that is
compared bit for bit does not know "little".

So no hole is ever left while anybody runs: cells of a finished sequence are handed to a *plug*, a sequence id
that never computes. New tokens then always go above everything else. When the garbage under the plug grows,
the cache is compacted: the plug is dropped, and the state of the whole context is written out and read back,
which llama.cpp does in the order of cells and without holes, shared cells staying shared. When nobody runs,
dropping the plug is enough.

No sequence can attend to cells under the plug. Their numbers are overwritten by the next compaction, which
llama.cpp begins by zeroing the buffers, or by the scrub soon after the last sequence has ended.
"""

from adyton_enclave.engine.kv_budget import KvBudget
from adyton_enclave.engine.llama import LlamaContext

MIN_GARBAGE_CELLS = 1024
"""Garbage below this is not worth a compaction. Masked cells cost little, but they are looked at."""


class OrderedKvCache:
    """The KV memory of one context. Owned by the loop thread."""

    def __init__(self, context: LlamaContext, budget: KvBudget, plug_id: int) -> None:
        """Start empty; ``plug_id`` is a sequence id that the scheduler never hands out."""
        self._context = context
        self._budget = budget
        self._plug_id = plug_id
        self._placed = 0

    @property
    def garbage(self) -> int:
        """Cells that are occupied but that no sequence sees."""
        return self._placed - self._budget.used

    def copy(self, source: int, target: int, length: int) -> None:
        """Let ``target`` share the first ``length`` cells of ``source``."""
        self._context.copy(source, target, length)

    def remove(self, seq_id: int) -> None:
        """Take a sequence's cells away from it, at once and for good. Nobody else can see them either."""
        self._context.hand_over(seq_id, self._plug_id)

    def truncate(self, seq_id: int, length: int) -> None:
        """Take all but the first ``length`` cells away from a sequence."""
        self._context.hand_over(seq_id, self._plug_id, length)

    def prepare(self, count: int) -> None:
        """Make sure that the next ``count`` tokens fit above everything that is occupied."""
        if not self._budget.used:
            self.reset()
        elif self.garbage and (
            self._placed + count > self._budget.total
            or self.garbage > max(MIN_GARBAGE_CELLS, self._budget.used)
        ):
            self._context.remove(self._plug_id)
            self._context.compact()
            self._placed = self._budget.used

    def placed(self, count: int) -> None:
        """Book ``count`` tokens that were computed."""
        self._placed += count

    def reset(self) -> None:
        """Drop all garbage. Only while no sequence holds a cell."""
        self._context.remove(self._plug_id)
        self._placed = 0
