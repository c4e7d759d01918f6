# SPDX-License-Identifier: Apache-2.0
"""Wakes an event loop from the engine's thread without giving the interpreter lock away.

``call_soon_threadsafe`` writes to a socket, and Python lets go of its lock for that. The event loop, woken, would
take the lock and keep it for as long as it has events to serve, while the model waits to begin its next step.
Here the byte is written with the lock held: the loop wakes up, waits for the lock, and gets it when the engine's
thread enters llama.cpp. So a step's answers are sealed and sent while the next step computes.
"""

import asyncio
import contextlib
import ctypes
import os
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

Receivers = Sequence[Callable[[], None]]

_READ_BYTES: Final = 4096
# PyDLL, unlike CDLL, keeps the interpreter lock during a call. The descriptor does not block.
_write: Any = ctypes.PyDLL(None).write
_write.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t]
_write.restype = ctypes.c_ssize_t


class Doorbell:
    """The way into one event loop. Made and closed in that loop; rung by one other thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Listen in ``loop``."""
        self.loop = loop
        self._waiting: deque[Receivers] = deque()
        self._rung = False
        self._inside, self._outside = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        loop.add_reader(self._inside, self._answer)

    @property
    def alive(self) -> bool:
        """False when the loop was closed, so that nobody will ever answer."""
        return not self.loop.is_closed()

    def ring(self, receivers: Receivers) -> None:
        """Have the loop call all of ``receivers`` soon, in order. From the one other thread."""
        self._waiting.append(receivers)
        if not self._rung:
            # Before the write: the loop clears it before it looks, so that no ring is lost.
            self._rung = True
            _write(self._outside, b"\0", 1)

    def close(self) -> None:
        """Stop listening. Idempotent; from the loop's own thread, or when the loop is closed."""
        if self._inside < 0:
            return
        if self.alive:
            self.loop.remove_reader(self._inside)
            self._serve()
        os.close(self._inside)
        os.close(self._outside)
        self._inside = self._outside = -1

    def _answer(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._inside, _READ_BYTES)
        self._rung = False
        self._serve()

    def _serve(self) -> None:
        while self._waiting:
            for receive in self._waiting.popleft():
                receive()
