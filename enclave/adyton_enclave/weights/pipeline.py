# SPDX-License-Identifier: Apache-2.0
"""Reads tensors block by block, ahead of whoever wants them, and hashes every chunk on the way.

A block is a few chunks of one tensor. Threads read (and open) and hash blocks, all of which releases the interpreter's
lock, while llama.cpp copies and repacks the block before. At most :data:`MAX_BLOCKS` exist at a time, wanted or not,
so that the weights are in memory once and not twice.

Which tensor comes next is llama.cpp's choice. It treats all layers alike, so what followed a tensor in one layer
follows it in the next; :class:`_Order` learns that while the first ones are read. A wrong guess costs a block's work.

SECURITY: a digest is recorded before its block is given out, and blocks are in the enclave's own memory: what was
hashed is what is used.
"""

import itertools
import re
from collections import OrderedDict, deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Final

from adyton_protocol.gguf_canonical import Placement
from adyton_protocol.random_access import RandomAccess
from adyton_protocol.weights_tree import CHUNK_BYTES, WeightsTree, chunk_digest

BLOCK_BYTES: Final = 2 * CHUNK_BYTES
MAX_BLOCKS: Final = 4
"""One in use, the others finished or in the making."""

_NUMBER: Final = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a tensor: its number among the placements, and its own within the tensor."""

    placement: int
    index: int


@dataclass(frozen=True, slots=True)
class _Load:
    """A block in the making, and the buffer that it fills."""

    block: Block
    buffer: bytearray
    future: "Future[memoryview]"

    def result(self) -> memoryview:
        """The block, as soon as it is there; or why it will not be."""
        return self.future.result()


class _Order:
    """Guesses which tensor is read after which."""

    def __init__(self, placements: Sequence[Placement]) -> None:
        self._names = [placement.tensor.name for placement in placements]
        self._numbers = {name: number for number, name in enumerate(self._names)}
        in_files = sorted(
            range(len(placements)), key=lambda n: (placements[n].source, placements[n].source_offset)
        )
        self._in_files = dict(itertools.pairwise(in_files))
        self._learnt: dict[str, tuple[str, int]] = {}
        self._last: int | None = None

    def note(self, number: int) -> None:
        """Learn that a tensor is being read now."""
        last, self._last = self._last, number
        if last is None or last == number:
            return
        (before, layer), (after, next_layer) = (_shape_of(self._names[n]) for n in (last, number))
        self._learnt[before] = (after, next_layer - layer)

    def after(self, number: int) -> int | None:
        """The tensor that is likely to follow."""
        shape, layer = _shape_of(self._names[number])
        if shape in self._learnt:
            following, step = self._learnt[shape]
            return self._numbers.get(following.replace("#", str(layer + step), 1))
        return self._in_files.get(number)


def _shape_of(name: str) -> tuple[str, int]:
    """A name without the number of its layer, and that number; 0 where there is none."""
    found = _NUMBER.search(name)
    if found is None:
        return name, 0
    return name[: found.start()] + "#" + name[found.end() :], int(found[0])


class Pipeline:
    """Blocks of verified tensor data. :meth:`get` is for one thread."""

    def __init__(
        self,
        placements: Sequence[Placement],
        sources: Sequence[RandomAccess],
        tree: WeightsTree,
        *,
        threads: int,
    ) -> None:
        """Start the threads; nothing is read yet.

        Args:
            placements: Where each tensor's data is.
            sources: The files, by the numbers that placements use.
            tree: Takes the digests.
            threads: How many may read and hash at a time.
        """
        self._placements = placements
        self._sources = sources
        self._tree = tree
        self._order = _Order(placements)
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="adyton-weights")
        self._ahead: OrderedDict[Block, _Load] = OrderedDict()
        self._free: deque[bytearray] = deque()
        self._made: list[bytearray] = []
        self._current: _Load | None = None

    def get(self, block: Block) -> memoryview:
        """The bytes of a block, valid until the next call.

        Raises:
            ModelFileError: They cannot be read or opened, or are not what they were before.
        """
        if self._current is not None:
            if self._current.block == block:
                return self._current.result()
            self._free.append(self._current.buffer)
            self._current = None
        if block.index == 0:
            self._order.note(block.placement)
        load = self._ahead.pop(block, None)
        if load is None:
            self._make_room()
            load = self._start(block)
        self._current = load
        self._read_ahead(block)
        return load.result()

    def close(self) -> None:
        """Stop the threads and overwrite every buffer, because what they held may have been sealed. Idempotent."""
        for load in self._ahead.values():
            load.future.cancel()
        self._executor.shutdown(wait=True)
        self._ahead.clear()
        self._current = None
        self._free.clear()
        for buffer in self._made:
            buffer[:] = bytes(len(buffer))
        self._made.clear()

    def _read_ahead(self, block: Block) -> None:
        """Begin with what is likely to follow, as far as there is room."""
        following = block
        for _ in range(MAX_BLOCKS - 1):
            successor = self._after(following)
            if successor is None or len(self._ahead) >= MAX_BLOCKS - 1:
                return
            following = successor
            if following not in self._ahead and following != block:
                self._ahead[following] = self._start(following)

    def _after(self, block: Block) -> Block | None:
        if (block.index + 1) * BLOCK_BYTES < self._placements[block.placement].size_bytes:
            return Block(block.placement, block.index + 1)
        number = self._order.after(block.placement)
        # What was read before is hardly wanted again; and if it is, it is read when it is.
        if number is None or self._tree.leaf(self._placements[number].tensor.name, 0) is not None:
            return None
        return Block(number, 0)

    def _make_room(self) -> None:
        """Give up what was guessed wrongly, oldest first, so that another block can be made."""
        while len(self._ahead) >= MAX_BLOCKS - 1:
            _, load = self._ahead.popitem(last=False)
            if not load.future.cancel():
                wait([load.future])
            self._free.append(load.buffer)

    def _start(self, block: Block) -> _Load:
        if self._free:
            buffer = self._free.popleft()
        else:
            buffer = bytearray(BLOCK_BYTES)
            self._made.append(buffer)
        return _Load(block, buffer, self._executor.submit(self._load, block, buffer))

    def _load(self, block: Block, buffer: bytearray) -> memoryview:
        """Body of a thread: read and hash one block."""
        placement = self._placements[block.placement]
        begin = block.index * BLOCK_BYTES
        view = memoryview(buffer)[: min(BLOCK_BYTES, placement.size_bytes - begin)]
        source = self._sources[placement.source]
        for at in range(0, len(view), CHUNK_BYTES):
            chunk = view[at : at + CHUNK_BYTES]
            source.read_into(placement.source_offset + begin + at, chunk)
            # At once, while the chunk is still in the processor's cache.
            digest = chunk_digest(chunk)
            self._tree.record(placement.tensor.name, (begin + at) // CHUNK_BYTES, digest)
        return view
