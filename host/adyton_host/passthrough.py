# SPDX-License-Identifier: Apache-2.0
"""The second channel's way through the host: TCP in, TCP out, bytes unseen.

TLS ends in the enclave, so there is nothing to read here. A connection is tied to a ready enclave's port for its whole
life; both directions are pumped, a part at a time, and nothing is kept. What the host can still do is count, limit and
cut: connections at a time, silence, age, and how long one part may stay untaken. A cut is all that it can do to a
request, and the client's TLS notices.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

from adyton_host.config import PassthroughLimits
from adyton_host.logs import log

_PART_BYTES: Final = 64 * 1024
_BACKLOG: Final = 512


class _Activity:
    """When a byte last passed, in either direction."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.started_s = clock()
        self.last_s = self.started_s

    def note(self) -> None:
        self.last_s = self._clock()

    def left_s(self, limits: PassthroughLimits) -> float:
        """Seconds until the connection has been silent, or there, for too long."""
        now_s = self._clock()
        return min(self.last_s + limits.idle_s, self.started_s + limits.max_age_s) - now_s


class Passthrough:
    """Passes TCP connections to whatever enclave is ready."""

    def __init__(
        self,
        target: Callable[[], tuple[str, int] | None],
        limits: PassthroughLimits,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Serve nothing yet.

        Args:
            target: Address of the port of a ready enclave, or None while there is none.
            limits: See there.
            clock: Monotonic seconds.
        """
        self._target = target
        self._limits = limits
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._tasks)

    @contextlib.asynccontextmanager
    async def serving(self, listener: socket.socket) -> AsyncIterator[None]:
        """Serve on a bound socket inside the block; open connections are cut at its end."""
        server = await asyncio.start_server(self._accept, sock=listener, backlog=_BACKLOG, limit=_PART_BYTES)
        try:
            yield
        finally:
            server.close()
            tasks = tuple(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= self._limits.max_connections:
            log("passthrough-refused")
            writer.transport.abort()
            return
        task = asyncio.create_task(self._pass(reader, writer))
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            # Also when it was cancelled before it had begun.
            self._tasks.discard(task)
            writer.transport.abort()

        task.add_done_callback(ended)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = self._target()
        if target is None:
            log("passthrough-unavailable")
            return
        activity = _Activity(self._clock)
        try:
            async with asyncio.timeout(self._limits.connect_s):
                inner_reader, inner_writer = await asyncio.open_connection(*target, limit=_PART_BYTES)
        except OSError:
            log("passthrough-unavailable")
            return
        for side in (writer, inner_writer):
            # A part is on its way before the next one is read; so nothing is left to lose when a side is done.
            side.transport.set_write_buffer_limits(high=0)
        pumps = [
            asyncio.create_task(self._pump(reader, inner_writer, activity)),
            asyncio.create_task(self._pump(inner_reader, writer, activity)),
        ]
        watch = asyncio.create_task(self._watch(activity))
        try:
            await asyncio.wait((*pumps, watch), return_when=asyncio.FIRST_COMPLETED)
            # A side that has said all it wants to say may still be answered.
            if not watch.done():
                await asyncio.wait(
                    (asyncio.gather(*pumps, return_exceptions=True), watch),
                    return_when=asyncio.FIRST_COMPLETED,
                )
        finally:
            for task in (*pumps, watch):
                task.cancel()
            # Before anything is waited for, because waiting may be cancelled.
            inner_writer.transport.abort()
            sent, received, _ = await asyncio.gather(*pumps, watch, return_exceptions=True)
            log(
                "passthrough-ended",
                request_bytes=sent if isinstance(sent, int) else None,
                response_bytes=received if isinstance(received, int) else None,
                seconds=round(self._clock() - activity.started_s, 3),
            )

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, activity: _Activity
    ) -> int:
        passed = 0
        try:
            while part := await reader.read(_PART_BYTES):
                activity.note()
                passed += len(part)
                writer.write(part)
                async with asyncio.timeout(self._limits.write_s):
                    await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
        except (OSError, TimeoutError):
            # Half of a connection is of no use to TLS; the other half must not wait for it.
            writer.transport.abort()
        return passed

    async def _watch(self, activity: _Activity) -> None:
        """Return when the connection has been silent, or there, for too long."""
        while (left_s := activity.left_s(self._limits)) > 0:  # noqa: ASYNC110 -- it waits for time to pass
            await asyncio.sleep(left_s)
