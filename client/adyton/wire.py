# SPDX-License-Identifier: Apache-2.0
"""The outer HTTP connection to the untrusted host, synchronous and asynchronous.

A wire carries out the I/O effects of :mod:`adyton.flow` for one call. It uses bare httpx transports instead
of clients, so that there is no cookie, no redirect, no ``~/.netrc``, no proxy from the environment and no
decompression between the sealed bytes and the socket: all of that would be state or behaviour that the host
could steer.
"""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Final

import httpx

from adyton.address import Address
from adyton.flow import Hangup, OuterHead, Read, Send
from adyton_protocol.errors import AdytonError, LocalProtocolError, TransportError, TruncatedMessage

USER_AGENT: Final = "adyton"
"""The same for every client and version: the host need not know more."""

IO_ERRORS: Final = (httpx.HTTPError, httpx.StreamError, OSError)
"""How outer transports fail; bare ``OSError`` for those that do not map the errors of sockets and TLS."""

Timeouts = dict[str, float | None]
"""httpx's ``timeout`` request extension: connect, read, write, pool, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialer:
    """What all outer requests of a client have in common.

    Attributes:
        address: Where the host listens.
        api_key: Credential for the host, sent in the outer ``Authorization``; the enclave never sees it.
    """

    address: Address
    api_key: str | None

    def request(self, effect: Send, timeouts: Timeouts) -> httpx.Request:
        """Build the outer request."""
        headers = [*effect.headers, ("user-agent", USER_AGENT)]
        if self.api_key is not None:
            headers.append(("authorization", f"Bearer {self.api_key}"))
        return httpx.Request(
            effect.method,
            f"{self.address.base_url}{effect.path}",
            headers=headers,
            content=effect.content,
            extensions={"timeout": timeouts},
        )

    def failure(self, error: Exception, *, answering: bool) -> AdytonError:
        """Say in our terms what went wrong with the connection; the caller chains the original."""
        where = self.address.base_url
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return TransportError(
                f"nothing answers at {where}; check the address, and that the appliance runs (adyton-host up)"
            )
        if isinstance(error, httpx.TimeoutException):
            return TransportError(f"{where} did not answer in time ({type(error).__name__})")
        if answering:
            return TruncatedMessage("the connection broke before the authenticated end of the answer")
        return TransportError(f"the connection to {where} failed ({type(error).__name__})")


def _head(response: httpx.Response) -> OuterHead:
    return OuterHead(
        status=response.status_code,
        content_type=response.headers.get("content-type", ""),
        retry_after=response.headers.get("retry-after"),
    )


class Wire:
    """Carries out the effects of one call, blocking."""

    def __init__(self, outer: httpx.BaseTransport, dialer: Dialer, timeouts: Timeouts) -> None:
        self._outer = outer
        self._dialer = dialer
        self._timeouts = timeouts
        self._response: httpx.Response | None = None
        self._body: Iterator[bytes] = iter(())

    def perform(self, effect: Send | Read | Hangup) -> OuterHead | bytes | None:
        """Carry out one effect.

        Raises:
            TransportError: The connection failed before an answer began.
            TruncatedMessage: The connection failed while an answer was being read.
        """
        match effect:
            case Send():
                return self._send(effect)
            case Read():
                return self.read()
            case Hangup():
                self.close()
                return None

    def _send(self, effect: Send) -> OuterHead:
        self.close()
        try:
            response = self._outer.handle_request(self._dialer.request(effect, self._timeouts))
        except IO_ERRORS as error:
            raise self._dialer.failure(error, answering=False) from error
        if not isinstance(response.stream, httpx.SyncByteStream):
            raise LocalProtocolError("a synchronous client needs a synchronous outer transport")
        self._response, self._body = response, iter(response.stream)
        return _head(response)

    def read(self) -> bytes | None:
        """Return the next bytes of the body, None at its end."""
        try:
            return next(self._body, None)
        except IO_ERRORS as error:
            raise self._dialer.failure(error, answering=True) from error

    def close(self) -> None:
        """Hang up; idempotent."""
        response, self._response, self._body = self._response, None, iter(())
        if response is not None:
            response.close()


class AsyncWire:
    """Carries out the effects of one call on an event loop."""

    def __init__(self, outer: httpx.AsyncBaseTransport, dialer: Dialer, timeouts: Timeouts) -> None:
        self._outer = outer
        self._dialer = dialer
        self._timeouts = timeouts
        self._response: httpx.Response | None = None
        self._body: AsyncIterator[bytes] | None = None

    async def perform(self, effect: Send | Read | Hangup) -> OuterHead | bytes | None:
        """Carry out one effect; see :meth:`Wire.perform`."""
        match effect:
            case Send():
                return await self._send(effect)
            case Read():
                return await self.read()
            case Hangup():
                await self.aclose()
                return None

    async def _send(self, effect: Send) -> OuterHead:
        await self.aclose()
        try:
            response = await self._outer.handle_async_request(self._dialer.request(effect, self._timeouts))
        except IO_ERRORS as error:
            raise self._dialer.failure(error, answering=False) from error
        if not isinstance(response.stream, httpx.AsyncByteStream):
            raise LocalProtocolError("an asynchronous client needs an asynchronous outer transport")
        self._response, self._body = response, aiter(response.stream)
        return _head(response)

    async def read(self) -> bytes | None:
        """Return the next bytes of the body, None at its end."""
        try:
            return None if self._body is None else await anext(self._body, None)
        except IO_ERRORS as error:
            raise self._dialer.failure(error, answering=True) from error

    async def aclose(self) -> None:
        """Hang up; idempotent."""
        response, self._response, self._body = self._response, None, None
        if response is not None:
            await response.aclose()
