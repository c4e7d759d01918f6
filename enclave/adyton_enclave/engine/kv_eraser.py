# SPDX-License-Identifier: Apache-2.0
"""Overwrites chosen KV cells with zeros, through llama.cpp's public interface for sequence states.

llama.cpp offers no way to clear single cells. It can restore the state of one sequence, which puts given numbers into
the lowest free cells. So a state of all zeros, as long as there are free cells to clear, clears exactly them and holds
them for the sequence that it was restored for.

The state's layout (``llama_kv_cache::state_write``, llama.cpp as vendored by llama-cpp-python 0.3.36; native byte
order): magic u32, sequence i32, streams u32, cells u32; for each cell: position i32, count u32, sequence i32; then
transposed u32, layers u32; then for each layer its keys and afterwards for each layer its values: 12 bytes about the
type, and as many rows as cells. It is learnt from one computed cell and proven by a round trip, so that a llama.cpp
with another layout is an error at start and never a cell that was not cleared.
"""

import struct
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from adyton_protocol.errors import ConfigError, EngineStopped

_MAX_STATE_BYTES: Final = 4 << 20
_HEAD: Final = struct.Struct("=IiII")
_CELL: Final = struct.Struct("=iIi")
_LAYERS: Final = struct.Struct("=II")
_ROWS: Final = struct.Struct("=iII")
"""Type, and either the bytes of a row as u64 (little end first) or the two factors of it when transposed."""


class Erasable(Protocol):
    """What clearing needs of a context."""

    n_cells: int

    def probe(self, seq_id: int) -> None:
        """Compute some token as the first of a sequence, so that it has one cell."""

    def read_state(self, seq_id: int) -> npt.NDArray[np.uint8]:
        """The cells of one sequence with their numbers."""
        ...

    def write_state(self, seq_id: int, state: npt.NDArray[np.uint8]) -> bool:
        """Give a sequence new cells with these numbers, the lowest that are free; true if that worked."""
        ...

    def hand_over(self, seq_id: int, heir: int) -> None:
        """Give all cells of a sequence to another."""

    def scrub(self) -> None:
        """Forget everything and overwrite it."""


class CellEraser:
    """Zeros for the cells of one context. Owned by the loop thread."""

    def __init__(self, context: Erasable, seq_id: int) -> None:
        """Learn the layout from one computed cell.

        Args:
            context: Must be empty, and is again afterwards.
            seq_id: A sequence id that holds no cell but while this class works.

        Raises:
            ConfigError: The cache of this model has a layout that this class does not know.
        """
        self._context = context
        self._seq_id = seq_id
        context.probe(seq_id)
        self._sample = context.read_state(seq_id).tobytes()
        self._parts = _parts(self._sample)
        cell_bytes = _CELL.size + sum(size for _, size in self._parts)
        self.n_most = max(1, min(context.n_cells, _MAX_STATE_BYTES // cell_bytes))
        self._bytes = bytearray(len(self._sample) + (self.n_most - 1) * cell_bytes)
        self._state = np.frombuffer(self._bytes, dtype=np.uint8)
        context.scrub()
        self.clear(1, seq_id)
        written = context.read_state(seq_id)
        if len(written) != len(self._sample) or written.tobytes() != self._written(1).tobytes():
            raise ConfigError("the KV cache of this model cannot be cleared cell by cell")
        self._forget(1)
        context.scrub()

    def clear(self, n_cells: int, heir: int) -> None:
        """Overwrite the lowest ``n_cells`` free cells with zeros, and give them to ``heir`` to hold.

        Raises:
            EngineStopped: llama.cpp refused; the state of the cache is unknown.
        """
        while n_cells:
            count = min(n_cells, self.n_most)
            done = self._context.write_state(self._seq_id, self._written(count))
            self._forget(count)
            if not done:
                raise EngineStopped("llama.cpp could not overwrite KV cells")
            if heir != self._seq_id:
                self._context.hand_over(self._seq_id, heir)
            n_cells -= count

    def _written(self, n_cells: int) -> npt.NDArray[np.uint8]:
        """The buffer as a state of this many cells, all zero; :meth:`_forget` makes it zeros again."""
        sample, state = self._sample, self._bytes
        magic, seq_id, streams, _ = _HEAD.unpack_from(sample)
        _HEAD.pack_into(state, 0, magic, seq_id, streams, n_cells)
        at = _HEAD.size
        cells = np.frombuffer(state, dtype=np.int32, count=3 * n_cells, offset=at)
        cells[1::3] = 1
        cells[2::3] = seq_id
        at += _CELL.size * n_cells
        state[at : at + _LAYERS.size] = sample[_HEAD.size + _CELL.size :][: _LAYERS.size]
        at += _LAYERS.size
        for head, size in self._parts:
            state[at : at + _ROWS.size] = head
            at += _ROWS.size + size * n_cells
        return self._state[:at]

    def _forget(self, n_cells: int) -> None:
        at = _HEAD.size + _CELL.size * n_cells + _LAYERS.size
        self._state[:at] = 0
        for _, size in self._parts:
            self._state[at : at + _ROWS.size] = 0
            at += _ROWS.size + size * n_cells


def _parts(state: bytes) -> list[tuple[bytes, int]]:
    """Head and bytes per cell of each layer's keys and values, in order.

    Raises:
        ConfigError: The state of one cell does not look as described above.
    """
    unknown = ConfigError("the KV cache of this model cannot be cleared cell by cell")
    at = _HEAD.size + _CELL.size
    if len(state) < at + _LAYERS.size or _HEAD.unpack_from(state)[2:] != (1, 1):
        raise unknown
    transposed, n_layers = _LAYERS.unpack_from(state, at)
    at += _LAYERS.size
    parts: list[tuple[bytes, int]] = []
    while at + _ROWS.size <= len(state):
        head = state[at : at + _ROWS.size]
        _, low, high = _ROWS.unpack(head)
        size = low * high if transposed and len(parts) >= n_layers else low
        parts.append((head, size))
        at += _ROWS.size + size
    if at != len(state) or len(parts) != 2 * n_layers:
        raise unknown
    return parts
