# SPDX-License-Identifier: Apache-2.0
"""Has the kernel back llama.cpp's new buffers with pages shortly before llama.cpp writes to them, on another thread.

llama.cpp fills its buffers from one thread, and more than half of that thread's time goes into page faults, one for
each 4 KiB. ``madvise(MADV_POPULATE_WRITE)`` makes the same pages in bulk, beside it. Which buffers are meant is found
in ``/proc/self/maps``: anonymous memory that was not there when the model was opened. Nothing depends on this: where
the kernel cannot do it (before Linux 5.14, or under Gramine), pages come by faults as always. It changes no content,
so that buffers may be freed meanwhile.

It stays a little ahead of what was read, and no more: while llama.cpp has a large tensor in a temporary buffer, the
rest of the weights must not be resident yet, or peak memory would be higher than without.
"""

import ctypes
import re
import threading
from pathlib import Path
from typing import Final

_MADV_POPULATE_WRITE: Final = 23
_STEP_BYTES: Final = 4 * 1024 * 1024
_SHARE_AHEAD: Final = 32
"""It is ahead by at most this part of the model."""
_SMALLEST_BYTES: Final = 32 * 1024 * 1024
"""Smaller mappings are not worth looking at; they may be anything."""

_ANONYMOUS: Final = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) rw-p 00000000 00:00 0\s*$", re.MULTILINE)


class Prefault:
    """Remembers what memory there is, and later populates what is new."""

    def __init__(self, limit_bytes: int) -> None:
        """Look at the memory now.

        Args:
            limit_bytes: Size of the model; no more is populated.
        """
        self._left_bytes = limit_bytes
        self._before = _anonymous_memory()
        self._permits = threading.Semaphore(max(1, limit_bytes // _SHARE_AHEAD // _STEP_BYTES))
        self._read_bytes = 0
        self._stopping = False
        self._thread: threading.Thread | None = None

    def note_read(self, count: int) -> None:
        """Tell that llama.cpp gets so many bytes of tensors. At the first time its buffers are there, and empty."""
        if self._thread is None:
            self._start()
        self._read_bytes += count
        steps, self._read_bytes = divmod(self._read_bytes, _STEP_BYTES)
        if steps:
            self._permits.release(steps)

    def close(self) -> None:
        """Stop after the step at hand. Idempotent."""
        self._stopping = True
        self._permits.release()
        if self._thread is not None:
            self._thread.join()

    def _start(self) -> None:
        new = []
        for start, end in _anonymous_memory().items():
            known = self._before.get(start, start)
            if end - known >= _SMALLEST_BYTES:
                new.append((known, end))
        self._thread = threading.Thread(
            target=self._populate, args=(new,), name="adyton-prefault", daemon=True
        )
        self._thread.start()

    def _populate(self, ranges: list[tuple[int, int]]) -> None:
        madvise = ctypes.CDLL(None).madvise
        madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        for start, end in ranges:
            for begin in range(start, end, _STEP_BYTES):
                self._permits.acquire()
                count = min(_STEP_BYTES, end - begin)
                self._left_bytes -= count
                if self._stopping or self._left_bytes < 0 or madvise(begin, count, _MADV_POPULATE_WRITE) != 0:
                    return


def _anonymous_memory() -> dict[int, int]:
    """Begin and end of every private, writable, anonymous mapping; none where it cannot be read."""
    try:
        maps = Path("/proc/self/maps").read_text(encoding="ascii", errors="replace")
    except OSError:
        return {}
    return {int(start, 16): int(end, 16) for start, end in _ANONYMOUS.findall(maps)}
