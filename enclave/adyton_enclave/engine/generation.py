# SPDX-License-Identifier: Apache-2.0
"""Where the loop thread hands events to asyncio.

The loop thread collects a step's events in mailboxes and makes one ``call_soon_threadsafe`` per event loop and
step. A :class:`Generation` is the caller's end. When the caller cancels, stops iterating or lets go of it, the
engine frees the request's sequences within one step.
"""

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable

from adyton_enclave.engine.request import Event, GenerationRequest, Usage
from adyton_protocol.errors import Cancelled, EngineError


class Mailbox:
    """Events of one request on their way to one event loop. The loop thread holds this, not the Generation.

    ``post``, ``fail`` and ``close`` are for the loop thread; ``receive`` and everything on the asyncio side
    runs in ``loop``. ``cancelled`` is written by one side and read by the other, and only ever becomes true.
    """

    __slots__ = (
        "_closing",
        "_failure",
        "_failure_out",
        "_outgoing",
        "_received",
        "_waiter",
        "cancelled",
        "ended",
        "loop",
        "usage",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, usage: Usage) -> None:
        """Start empty."""
        self.loop = loop
        self.usage = usage
        self.cancelled = False
        self.ended = False
        self._closing = False
        self._failure_out: EngineError | None = None
        self._outgoing: list[Event] = []
        self._received: deque[Event] = deque()
        self._failure: EngineError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def post(self, event: Event) -> None:
        """Queue an event for the next delivery."""
        self._outgoing.append(event)

    def close(self, failure: EngineError | None = None) -> None:
        """Queue the end, after which nothing is posted; the first end counts."""
        if not self._closing:
            self._closing = True
            self._failure_out = failure

    def collect(self, usage: Usage) -> Callable[[], None]:
        """Take everything queued; return what the event loop has to run."""
        events, self._outgoing = self._outgoing, []
        ends, failure = self._closing, self._failure_out

        def receive() -> None:
            self._received.extend(events)
            self.usage = usage
            if ends and not self.ended:
                self.ended = True
                self._failure = failure
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)

        return receive

    async def next(self) -> Event | None:
        """The next event, or None at the end. Raises what ended the request early."""
        while not self._received:
            if self._failure is not None:
                raise self._failure
            if self.ended:
                return None
            if self.cancelled:
                raise Cancelled("the request was cancelled")
            self._waiter = self.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._received.popleft()

    def wake(self) -> None:
        """Let a waiting reader look again. Runs in ``loop``."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def deliver(receivers: Iterable[Callable[[], None]]) -> None:
    """Run a step's deliveries of one event loop, in that loop."""
    for receive in receivers:
        receive()


class Generation:
    """A running request. ``async for`` yields its events; all choices interleave.

    Iterate once. Errors of the engine are raised from the iteration.
    """

    def __init__(self, request: GenerationRequest, mailbox: Mailbox, notify: Callable[[], None]) -> None:
        """Only :meth:`Engine.submit` makes these; ``notify`` wakes the loop thread."""
        self.request = request
        self._mailbox = mailbox
        self._notify = notify
        self._finalizer = weakref.finalize(self, _abandon, mailbox, notify)
        self._finalizer.atexit = False

    @property
    def usage(self) -> Usage:
        """Tokens so far; final when the iteration ends."""
        return self._mailbox.usage

    def cancel(self) -> None:
        """Stop the work within one step. Idempotent, harmless after the end; from the event loop's thread."""
        _abandon(self._mailbox, self._notify)
        self._mailbox.wake()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._iterate()

    async def _iterate(self) -> AsyncGenerator[Event]:
        try:
            while (event := await self._mailbox.next()) is not None:
                yield event
        finally:
            # Reached on the end, on a raise, when the caller's task is cancelled and when it breaks off.
            self.cancel()


def _abandon(mailbox: Mailbox, notify: Callable[[], None]) -> None:
    if not mailbox.cancelled and not mailbox.ended:
        mailbox.cancelled = True
        notify()
