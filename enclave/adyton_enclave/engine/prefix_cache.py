# SPDX-License-Identifier: Apache-2.0
"""Keeps the cells of finished sequences, so that the next turn of a conversation computes only what is new.

Nothing is kept and nothing is found without a namespace: 32 bytes that a request carries when its sender asked for
it, and that nobody else can name. What is looked up is the longest beginning that a prompt shares with an entry of
its own namespace; entries of others are not even compared with.

An entry is a sequence id of its own that shares the finished sequence's cells, and so costs no computation and no
copy. The least recently used one goes first: when there are too many, when they hold more cells than the operator
lends them, or as soon as anybody needs the cells to compute. A namespace dies with its key epoch.

The cache knows no llama.cpp. What it gives up is erased like everything that ends.
"""

from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from adyton_enclave.engine.kv_budget import KvLease, held_cells


class CellSharing(Protocol):
    """What the prefix cache does to the KV cache."""

    def copy(self, source: int, target: int, length: int) -> None:
        """Let sequence ``target`` share the first ``length`` cells of ``source``."""

    def remove(self, seq_id: int) -> None:
        """Give up every cell that only this sequence holds."""


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """The cells of some tokens, kept for one namespace."""

    namespace: bytes = field(repr=False)
    token_ids: tuple[int, ...] = field(repr=False)
    seq_id: int
    lease: KvLease


@dataclass(frozen=True, slots=True)
class Hit:
    """``length`` first tokens of a prompt whose cells ``entry`` has; at least one."""

    entry: Entry
    length: int


class PrefixCache:
    """The kept cells of one model. Owned by the loop thread.

    Attributes:
        cells: How many entries hold together, whether or not running sequences share them.
    """

    def __init__(self, memory: CellSharing, seq_ids: Collection[int], max_cells: int) -> None:
        """Start empty.

        Args:
            memory: The KV cache.
            seq_ids: Sequence ids that nobody else uses, one for each entry.
            max_cells: Most cells that entries may hold together; 0 keeps nothing.
        """
        self._memory = memory
        self._free_ids = list(seq_ids)
        self._max_cells = max_cells
        self.cells = 0
        self._entries: OrderedDict[Entry, None] = OrderedDict()
        self._last: tuple[bytes, tuple[int, ...], Hit | None] | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def keep(self, namespace: bytes, token_ids: Sequence[int], seq_id: int, lease: KvLease) -> None:
        """Keep what a sequence has computed.

        Args:
            namespace: Of its request.
            token_ids: The tokens of its cells, in order.
            seq_id: Its sequence id; the sequence may end afterwards.
            lease: Its cells; as many as tokens.
        """
        kept = tuple(token_ids)
        for entry in [entry for entry in self._entries if entry.namespace == namespace]:
            if len(entry.token_ids) >= len(kept):
                if entry.token_ids[: len(kept)] == kept:
                    self._entries.move_to_end(entry)
                    return
            elif kept[: len(entry.token_ids)] == entry.token_ids:
                self._drop(entry)
        if not kept or len(kept) > self._max_cells:
            return
        while self._entries and not self._free_ids:
            self._drop(next(iter(self._entries)))
        if not self._free_ids:
            return
        own = self._free_ids.pop()
        self._memory.copy(seq_id, own, len(kept))
        self._entries[Entry(namespace, kept, own, lease.fork(len(kept)))] = None
        self._changed()
        while self.cells > self._max_cells:
            self._drop(next(iter(self._entries)))

    def find(self, namespace: bytes, token_ids: Sequence[int]) -> Hit | None:
        """The entry of this namespace that begins with most of these tokens, or None."""
        if not self._entries:
            return None
        wanted = tuple(token_ids)
        # The head of the queue asks again in every step until there is room.
        if self._last is not None and self._last[0] == namespace and self._last[1] == wanted:
            return self._last[2]
        best: Hit | None = None
        for entry in self._entries:
            if entry.namespace == namespace:
                length = _common(entry.token_ids, wanted)
                if length > (0 if best is None else best.length):
                    best = Hit(entry, length)
        self._last = (namespace, wanted, best)
        return best

    def used(self, entry: Entry) -> None:
        """A sequence forked from this entry."""
        self._entries.move_to_end(entry)

    def evict(self, but: Entry | None = None) -> bool:
        """Give up the least recently used entry that holds cells of its own; False when there is none.

        Args:
            but: An entry to spare.
        """
        for entry in self._entries:
            if entry is not but and entry.lease.exclusive:
                self._drop(entry)
                return True
        return False

    def forget(self, namespaces: Collection[bytes]) -> None:
        """Give up everything that is kept for these namespaces."""
        for entry in [entry for entry in self._entries if entry.namespace in namespaces]:
            self._drop(entry)

    def _drop(self, entry: Entry) -> None:
        del self._entries[entry]
        self._memory.remove(entry.seq_id)
        entry.lease.release()
        self._free_ids.append(entry.seq_id)
        self._changed()

    def _changed(self) -> None:
        self.cells = held_cells(entry.lease for entry in self._entries)
        self._last = None


def _common(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """With how many equal tokens two sequences begin."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
