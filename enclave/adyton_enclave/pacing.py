# SPDX-License-Identifier: Apache-2.0
"""Streams under a privacy profile: event groups in, the contents of sealed chunks out.

Filler is SSE comments only, so that every client ignores it and no committed byte changes. Closing the returned
generator closes the stream behind it.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

from adyton_enclave.privacy import FRAME_BYTES, TICK_S, Profile, end_tick, padded_chunk_bytes
from adyton_protocol.sse import MIN_COMMENT_BYTES, comment_of

_BUFFERED_FRAMES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Pacer:
    """The clock of profile ``cadence``.

    Attributes:
        monotonic: Seconds by a clock that never goes back.
        sleep: Waits for a number of seconds.
    """

    monotonic: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def until_tick(self, start_s: float, tick: int) -> None:
        """Wait until the given tick after ``start_s``; at once when it is past."""
        await self.sleep(max(0.0, start_s + tick * TICK_S - self.monotonic()))

    async def until_end(self, start_s: float) -> None:
        """Wait for the end of the bucket in which the time since ``start_s`` lies."""
        ticks = int((self.monotonic() - start_s) / TICK_S) + 1
        await self.until_tick(start_s, end_tick(ticks))


def pad_chunk(events: bytes) -> bytes:
    """Whole event groups, padded with a comment to the size that profile ``size`` prescribes."""
    gap = padded_chunk_bytes(len(events)) - len(events)
    if 0 < gap < MIN_COMMENT_BYTES:
        gap = padded_chunk_bytes(len(events) + MIN_COMMENT_BYTES) - len(events)
    return events + comment_of(gap)


async def shaped(
    events: AsyncGenerator[bytes, None], profile: Profile, pacer: Pacer, *, start_s: float
) -> AsyncGenerator[bytes, None]:
    """Turn event groups into chunk contents.

    Args:
        events: Whole event groups.
        profile: What to hide.
        pacer: The clock.
        start_s: When the exchange was accepted; ticks count from there.
    """
    chunks = events
    if profile is Profile.CADENCE:
        chunks = _frames(events, pacer, start_s)
    elif profile is Profile.SIZE:
        chunks = _padded(events)
    async with contextlib.aclosing(chunks):
        async for chunk in chunks:
            yield chunk


async def _padded(events: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with contextlib.aclosing(events):
        async for event in events:
            yield pad_chunk(event)


class _FrameBuffer:
    """Event groups that wait for their frame."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._drained = asyncio.Event()

    def __len__(self) -> int:
        return len(self._data)

    async def put(self, event: bytes) -> None:
        """Add an event group; wait while there is more than a few frames' worth."""
        self._data += event
        while len(self._data) > _BUFFERED_FRAMES * FRAME_BYTES:
            self._drained.clear()
            await self._drained.wait()

    def take(self) -> bytes:
        """The next frame. It may end inside an event group; filler only ever follows whole ones."""
        gap = FRAME_BYTES - len(self._data)
        if gap > 0:
            # A gap too small for a comment takes the head of one, whose rest begins the next frame.
            self._data += comment_of(gap if gap >= MIN_COMMENT_BYTES else gap + MIN_COMMENT_BYTES)
        frame = bytes(self._data[:FRAME_BYTES])
        del self._data[:FRAME_BYTES]
        self._drained.set()
        return frame


async def _frames(
    events: AsyncGenerator[bytes, None], pacer: Pacer, start_s: float
) -> AsyncGenerator[bytes, None]:
    buffer = _FrameBuffer()

    async def fill() -> None:
        async with contextlib.aclosing(events):
            async for event in events:
                await buffer.put(event)

    filling = asyncio.create_task(fill())
    tick = 0
    last: int | None = None
    try:
        while last is None or tick < last:
            await pacer.until_tick(start_s, tick)
            yield buffer.take()
            tick += 1
            if last is None and filling.done() and not buffer:
                filling.result()
                last = end_tick(tick)
    finally:
        filling.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await filling
