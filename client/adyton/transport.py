# SPDX-License-Identifier: Apache-2.0
"""httpx transports that carry every request sealed to an attested enclave.

They attest first, pin the attested keys until these run out, seal, stream, and raise unless the answer is
complete and its receipt checks. All decisions are made in :mod:`adyton.flow` and :mod:`adyton.exchange`; the
two transports only perform I/O for them.

Errors are those of :mod:`adyton_protocol.errors`. None of them is an ``httpx.HTTPError``, on purpose:
libraries on top, the openai SDK among them, wrap and retry httpx's errors and let others through as they are.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Final

import httpx

from adyton.edge import ChallengeSource, Clock
from adyton.exchange import InnerRequest
from adyton.flow import Attest, Effect, Endorse, Flow, Hangup, Opened, OuterHead, Read, Send, T, attest, send
from adyton.receipts import ReceiptLedger
from adyton.session import Attested, Session
from adyton.wire import AsyncWire, Dialer, Timeouts, Wire
from adyton_attestation.sources.supply import EndorsementSupply, Supplied
from adyton_protocol.errors import LocalProtocolError

ATTESTATION_TIMEOUT_S: Final = 20.0
"""Limit on each step of fetching evidence; a quote may take a second on real hardware."""


DEFAULT_TIMEOUT: Final = httpx.Timeout(600.0, connect=5.0)
"""A long answer may pause; an appliance that is not there should be noticed at once. Seconds."""

OUTER_LIMITS: Final = httpx.Limits(max_connections=256, max_keepalive_connections=32, keepalive_expiry=2.0)
"""Idle connections are dropped before usual servers drop them (5 s), so that no request meets a closing one."""


class Link:
    """One client's shared state: session, receipts, clock. Holds no connection."""

    def __init__(
        self,
        dialer: Dialer,
        session: Session,
        *,
        clock: Clock,
        challenges: ChallengeSource,
        endorsements: EndorsementSupply | None = None,
    ) -> None:
        self.dialer = dialer
        self.session = session
        self.ledger = ReceiptLedger()
        self.clock = clock
        self._challenges = challenges
        self._endorsements = endorsements

    def attest(self) -> Flow[Attested]:
        """Start an attestation with a fresh challenge."""
        return attest(
            self.session,
            challenge=self._challenges(),
            now_s=self.clock(),
            elsewhere=self._endorsements is not None,
        )

    def endorse(self, effect: Endorse) -> Supplied:
        """Ask the source of one's own for endorsements; blocks, for as long as a minute when the source is away.

        Raises:
            EndorsementsUnavailable: They could not be had.
            AttestationError: The quote does not say what it needs.
        """
        if self._endorsements is None:
            raise LocalProtocolError("this client has no source of endorsements of its own")
        return self._endorsements.for_quote(effect.quote, self.clock())

    def send(self, request: httpx.Request, content: bytes) -> Flow[Opened]:
        """Start a sealed exchange for a caller's request whose body has been read.

        Raises:
            LocalProtocolError: The request is for another origin.
        """
        inner = InnerRequest(
            method=request.method,
            path=self.dialer.address.inner_path(request.url),
            headers=tuple(request.headers.raw),
            content=content,
        )
        return send(self.session, inner, self.ledger)


def _timeouts(request: httpx.Request) -> Timeouts:
    given: Timeouts = request.extensions.get("timeout", {})
    return given


def _attestation_timeouts() -> Timeouts:
    return httpx.Timeout(ATTESTATION_TIMEOUT_S).as_dict()


def _response(
    request: httpx.Request, opened: Opened, stream: httpx.SyncByteStream | httpx.AsyncByteStream
) -> httpx.Response:
    head = opened.head
    return httpx.Response(head.status, headers=list(head.headers), stream=stream, request=request)


# --- Synchronous --------------------------------------------------------------------------------------


class Driver:
    """Runs flows on a synchronous outer transport; safe to use from several threads."""

    def __init__(self, link: Link, outer: httpx.BaseTransport) -> None:
        self.link = link
        self._outer = outer
        self._attesting = threading.Lock()

    def wire(self, timeouts: Timeouts) -> Wire:
        """Make the wire of one call."""
        return Wire(self._outer, self.link.dialer, timeouts)

    def attest(self, *, anew: bool = False) -> Attested:
        """Return the current appraisal, or make one; concurrent callers share one attestation."""
        current = None if anew else self.link.session.current(self.link.clock())
        if current is not None:
            return current
        with self._attesting:
            current = None if anew else self.link.session.current(self.link.clock())
            if current is not None:
                return current
            wire = self.wire(_attestation_timeouts())
            try:
                return self.run(self.link.attest(), wire)
            finally:
                wire.close()

    def run(self, flow: Flow[T], wire: Wire) -> T:
        """Perform a flow's effects until it returns."""
        try:
            effect = next(flow)
            while True:
                effect = flow.send(self._perform(effect, wire))
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _perform(self, effect: Effect, wire: Wire) -> Attested | Supplied | OuterHead | bytes | None:
        match effect:
            case Attest():
                return self.attest()
            case Endorse():
                return self.link.endorse(effect)
            case Send() | Read() | Hangup():
                return wire.perform(effect)


class SealedTransport(httpx.BaseTransport):
    """Give it to any ``httpx.Client``; every request goes sealed."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Carry one request sealed; raises the errors of :mod:`adyton_protocol.errors`."""
        wire = self._driver.wire(_timeouts(request))
        try:
            opened = self._driver.run(self._driver.link.send(request, request.read()), wire)
        except BaseException:
            wire.close()
            raise
        return _response(request, opened, _AnswerStream(wire, opened))


class _AnswerStream(httpx.SyncByteStream):
    """The caller's view of the answer; raises at its end unless the answer was complete and proven."""

    def __init__(self, wire: Wire, opened: Opened) -> None:
        self._wire = wire
        self._exchange = opened.exchange
        self._content = opened.content

    def __iter__(self) -> Iterator[bytes]:
        try:
            if self._content:
                yield self._content
            while not self._exchange.complete:
                if content := self._exchange.receive(self._wire.read()):
                    yield content
        finally:
            self._wire.close()

    def close(self) -> None:
        self._wire.close()


# --- Asynchronous -------------------------------------------------------------------------------------


class AsyncDriver:
    """Runs flows on an asynchronous outer transport; the twin of :class:`Driver`."""

    def __init__(self, link: Link, outer: httpx.AsyncBaseTransport) -> None:
        self.link = link
        self._outer = outer
        self._attesting = asyncio.Lock()

    def wire(self, timeouts: Timeouts) -> AsyncWire:
        """Make the wire of one call."""
        return AsyncWire(self._outer, self.link.dialer, timeouts)

    async def attest(self, *, anew: bool = False) -> Attested:
        """Return the current appraisal, or make one; concurrent callers share one attestation."""
        current = None if anew else self.link.session.current(self.link.clock())
        if current is not None:
            return current
        async with self._attesting:
            current = None if anew else self.link.session.current(self.link.clock())
            if current is not None:
                return current
            wire = self.wire(_attestation_timeouts())
            try:
                return await self.run(self.link.attest(), wire)
            finally:
                await wire.aclose()

    async def run(self, flow: Flow[T], wire: AsyncWire) -> T:
        """Perform a flow's effects until it returns."""
        try:
            effect = next(flow)
            while True:
                effect = flow.send(await self._perform(effect, wire))
        except StopIteration as stop:
            result: T = stop.value
            return result

    async def _perform(
        self, effect: Effect, wire: AsyncWire
    ) -> Attested | Supplied | OuterHead | bytes | None:
        match effect:
            case Attest():
                return await self.attest()
            case Endorse():
                # Blocking I/O, at most once in the life of a key; a thread keeps the loop free meanwhile.
                return await asyncio.to_thread(self.link.endorse, effect)
            case Send() | Read() | Hangup():
                return await wire.perform(effect)


class AsyncSealedTransport(httpx.AsyncBaseTransport):
    """Give it to any ``httpx.AsyncClient``; every request goes sealed."""

    def __init__(self, driver: AsyncDriver) -> None:
        self._driver = driver

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Carry one request sealed; raises the errors of :mod:`adyton_protocol.errors`."""
        wire = self._driver.wire(_timeouts(request))
        try:
            flow = self._driver.link.send(request, await request.aread())
            opened = await self._driver.run(flow, wire)
        except BaseException:
            await wire.aclose()
            raise
        return _response(request, opened, _AsyncAnswerStream(wire, opened))


class _AsyncAnswerStream(httpx.AsyncByteStream):
    """The twin of :class:`_AnswerStream`."""

    def __init__(self, wire: AsyncWire, opened: Opened) -> None:
        self._wire = wire
        self._exchange = opened.exchange
        self._content = opened.content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            if self._content:
                yield self._content
            while not self._exchange.complete:
                if content := self._exchange.receive(await self._wire.read()):
                    yield content
        finally:
            await self._wire.aclose()

    async def aclose(self) -> None:
        await self._wire.aclose()
