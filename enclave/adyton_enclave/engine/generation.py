# SPDX-License-Identifier: Apache-2.0
"""Where the loop thread hands events to asyncio.

The loop thread collects a step's events in mailboxes and rings once per event loop and step. A
:class:`Generation` is the caller's end. When the caller cancels, stops iterating or lets go of it, the engine
frees the request's sequences within one step.

Deltas of a choice that pile up while its reader is busy become one. So a reader that the model outruns has less
to do for each token, and what waits for a reader that never comes is bounded by the text itself.
"""

import asyncio
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Protocol

from adyton_enclave.engine.doorbell import Doorbell
from adyton_enclave.engine.request import Event, GenerationRequest, TextDelta, Usage
from adyton_protocol.errors import Cancelled, EngineError


class Mailbox:
    """Events of one request on their way to one event loop. The loop thread holds this, not the Generation.

    ``post`` and ``close`` are for the loop thread; ``receive`` and everything on the asyncio side runs in the
    caller's event loop. ``cancelled`` is written by one side and read by the other, and only ever becomes true.
    ``urgent`` says that what is queued should not wait for more: a first token, an end.
    """

    __slots__ = (
        "_begun",
        "_closing",
        "_failure",
        "_failure_out",
        "_outgoing",
        "_received",
        "_waiter",
        "bell",
        "cancelled",
        "ended",
        "urgent",
        "usage",
    )

    def __init__(self, bell: Doorbell, usage: Usage) -> None:
        """Start empty; ``bell`` rings in the caller's event loop."""
        self.bell = bell
        self.usage = usage
        self.cancelled = False
        self.ended = False
        self.urgent = False
        self._begun = False
        self._closing = False
        self._failure_out: EngineError | None = None
        self._outgoing: list[Event] = []
        self._received: dict[tuple[int, bool], Event] = {}
        self._failure: EngineError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def post(self, event: Event) -> None:
        """Queue an event for the next delivery."""
        self._outgoing.append(event)
        if not self._begun or not isinstance(event, TextDelta):
            self._begun = self.urgent = True

    def close(self, failure: EngineError | None = None) -> None:
        """Queue the end, after which nothing is posted; the first end counts."""
        if not self._closing:
            self._closing = self.urgent = True
            self._failure_out = failure

    def collect(self, usage: Usage) -> Callable[[], None]:
        """Take everything queued; return what the event loop has to run."""
        events, self._outgoing = self._outgoing, []
        self.urgent = False
        ends, failure = self._closing, self._failure_out

        def receive() -> None:
            for event in events:
                self._keep(event)
            self.usage = usage
            if ends and not self.ended:
                self.ended = True
                self._failure = failure
            self.wake()

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
            self._waiter = self.bell.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._received.pop(next(iter(self._received)))

    def _keep(self, event: Event) -> None:
        """Add an event behind the others, or to the delta of the same choice that nobody has read yet."""
        key = (event.index, isinstance(event, TextDelta))
        waiting = self._received.get(key)
        if isinstance(waiting, TextDelta) and isinstance(event, TextDelta):
            event = TextDelta(
                index=event.index,
                text=waiting.text + event.text,
                logprobs=waiting.logprobs + event.logprobs,
                steps=waiting.steps + event.steps,
            )
        self._received[key] = event

    def wake(self) -> None:
        """Let a waiting reader look again. Runs in the caller's event loop."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Generation:
    """A running request. ``async for`` yields its events; all choices interleave.

    Iterate once. Errors of the engine are raised from the iteration.
    """

    def __init__(self, request: GenerationRequest, mailbox: Mailbox, notify: Callable[[], None]) -> None:
        """Only :meth:`Engine.submit` makes these; ``notify`` wakes the loop thread."""
        self.request = request
        self._mailbox = mailbox
        self._notify = notify
        self._finalizer = weakref.finalize(self, abandon, mailbox, notify)
        self._finalizer.atexit = False

    @property
    def usage(self) -> Usage:
        """Tokens so far; final when the iteration ends."""
        return self._mailbox.usage

    def cancel(self) -> None:
        """Stop the work within one step. Idempotent, harmless after the end; from the event loop's thread."""
        abandon(self._mailbox, self._notify)
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


class Abandonable(Protocol):
    """A mailbox of either kind."""

    cancelled: bool
    ended: bool


def abandon(mailbox: Abandonable, notify: Callable[[], None]) -> None:
    """Have the loop thread free what belongs to a mailbox."""
    if not mailbox.cancelled and not mailbox.ended:
        mailbox.cancelled = True
        notify()
