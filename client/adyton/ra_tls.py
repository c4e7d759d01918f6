# SPDX-License-Identifier: Apache-2.0
"""The second channel: ordinary HTTP over TLS that ends in the enclave, with httpx, synchronous and asynchronous.

What has to hold before a byte of a request is written:

1. The appliance is attested as for the sealed channel: a fresh challenge, all checks, a keyset.
2. The connection is TLS 1.3 without resumption, and the peer has proven to hold its certificate's key.
3. That key is listed in the attested keyset (``tls_public_keys``), so that the challenge's quote speaks for it.
4. The certificate's own evidence passes the same policy, and is about the same enclave on the same machine.

The check is made at the end of the handshake, inside the TLS objects that httpx uses; a refusal closes the connection.
A connection is used as long as the appraisal that it was checked under is current, and no longer.

SECURITY: this is key binding plus a challenge, and no more. Whoever has the enclave's TLS key until it is rotated can
be in the middle; evidence about the very connection would need an exporter, which Python's ``ssl`` does not have. The
host sees less of the framing here and more of the sizes; requests are not padded. Answers are receipted as ever: the
end of each is shown once its receipt has been checked (:mod:`adyton.plain_exchange`), and kept beside the others.
"""

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final, TypeAlias

import httpx

from adyton.address import INNER_AUTHORITY, Address
from adyton.edge import Clock
from adyton.plain_exchange import PlainExchange, names_another_keyset
from adyton.session import Attested, Session
from adyton.transport import OUTER_LIMITS, AsyncDriver, Driver, Link
from adyton_attestation.ra_tls import CertificateAppraisal
from adyton_protocol.errors import AppraisalError, ConfigError

PeerCheck: TypeAlias = Callable[[bytes], None]
"""Takes the peer's certificate, DER and attacker-controlled, and raises unless it may have the request."""

_NO_CERTIFICATE: Final = b""


class UnlistedKey(AppraisalError):
    """The peer's key is not in the attested keyset. It may be of the next epoch, so attesting again may help."""

    def __init__(self) -> None:
        """Take no argument: what the peer's key is, is nobody's business."""
        super().__init__(
            "tls-key-listed", expected="a TLS key that the attested keyset lists", actual="another key"
        )


def check_peer(session: Session, attested: Attested, der: bytes, *, now_s: int) -> CertificateAppraisal:
    """Decide whether the holder of a certificate's key may have a request.

    Args:
        session: With the verifier and the marks.
        attested: The appraisal that the request is sent under.
        der: Attacker-controlled certificate.
        now_s: Unix time.

    Raises:
        AttestationError: It may not; nothing was sent.
    """
    appraisal = session.check_certificate(der, attested, now_s=now_s)
    listed = {entry.spki_sha256 for entry in attested.verdict.keyset.tls_public_keys}
    # SECURITY: without this the certificate alone would do, which is not fresh and says nothing of the models.
    if appraisal.spki_sha256 not in listed:
        raise UnlistedKey
    theirs = appraisal.report
    if _enclave_of(attested) != (theirs.mr_enclave, theirs.mr_signer, appraisal.claims.ppid):
        raise AppraisalError(
            "tls-same-enclave",
            expected="a certificate of the enclave that was attested",
            actual="one of another",
        )
    return appraisal


def _enclave_of(attested: Attested) -> tuple[bytes, bytes, bytes]:
    report = attested.verdict.quote.report
    return report.mr_enclave, report.mr_signer, attested.verdict.claims.ppid


def check_successor(before: Attested, after: Attested) -> Attested:
    """Demand that an answer is signed by the enclave that was asked, after it has rotated its keys.

    Raises:
        AppraisalError: The host has another one attest now.
    """
    # SECURITY: both are acceptable, and only one of them has seen the request.
    if _enclave_of(before) != _enclave_of(after):
        raise AppraisalError(
            "tls-same-enclave",
            expected="keys of the enclave that was asked",
            actual="those of another",
        )
    return after


def ra_tls_context(check: PeerCheck) -> ssl.SSLContext:
    """Make a TLS context that hands every peer's certificate to ``check`` before anything can be written to it.

    Not a default context, which would honour ``SSLKEYLOGFILE``; no names are checked, because nobody vouches for any.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # SECURITY: the chain is not verified because there is none. `check` decides, in do_handshake below.
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # A resumed session would come without a certificate, and so past the check.
    context.options |= ssl.OP_NO_TICKET

    class CheckedSocket(ssl.SSLSocket):
        """What blocking clients write to."""

        def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - the library's signature
            super().do_handshake(block)
            try:
                check(self.getpeercert(binary_form=True) or _NO_CERTIFICATE)
            except BaseException:
                self.close()
                raise

    class CheckedObject(ssl.SSLObject):
        """What asynchronous clients write through."""

        def do_handshake(self) -> None:
            super().do_handshake()
            check(self.getpeercert(binary_form=True) or _NO_CERTIFICATE)

    context.sslsocket_class = CheckedSocket
    context.sslobject_class = CheckedObject
    return context


class _Lane:
    """The connections that were checked under one appraisal; closed once it is replaced and none is in use."""

    def __init__(self, attested: Attested, context: ssl.SSLContext) -> None:
        self.attested = attested
        self.context = context
        self.in_use = 0
        self.retired = False


def _check(session: Session, attested: Attested, clock: Clock) -> PeerCheck:
    def check(der: bytes) -> None:
        check_peer(session, attested, der, now_s=clock())

    return check


def _outward(request: httpx.Request, address: Address) -> httpx.Request:
    """The caller's request as it goes to the enclave.

    Raises:
        LocalProtocolError: It is for another origin.
    """
    url = httpx.URL(f"{address.base_url}{address.inner_path(request.url)}")
    # The address only finds the host, as on the sealed channel.
    headers = [(b"host", INNER_AUTHORITY.encode("ascii"))]
    headers += [(name, value) for name, value in request.headers.raw if name.lower() != b"host"]
    return httpx.Request(
        request.method, url, headers=headers, stream=request.stream, extensions=request.extensions
    )


def _exchange(
    link: Link, attested: Attested, request: httpx.Request, response: httpx.Response
) -> PlainExchange:
    return PlainExchange(
        attested,
        method=request.method,
        content=request.content,
        status=response.status_code,
        headers=response.headers.raw,
        on_receipt=link.ledger.add,
    )


def tls_address(base_url: str) -> Address:
    """Check the address of the second channel.

    Raises:
        ConfigError: It is not the bare https address of an appliance.
    """
    address = Address.parse(base_url)
    if address.origin[0] != "https":
        raise ConfigError("the address of the RA-TLS channel must begin with https://")
    return address


# --- Synchronous --------------------------------------------------------------------------------------------------


class RaTlsTransport(httpx.BaseTransport):
    """Give it to any ``httpx.Client``; requests go to nobody but the attested enclave. Safe for several threads."""

    def __init__(self, driver: Driver, address: Address) -> None:
        """Connect to nothing yet.

        Args:
            driver: Attests, by way of the host's ordinary address.
            address: Where the host passes TLS through to the enclave.
        """
        self._driver = driver
        self._address = address
        self._lock = threading.Lock()
        self._lane: tuple[_Lane, httpx.HTTPTransport] | None = None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Carry one request.

        Raises:
            AttestationError: The appliance, or whoever answered the connection, is not accepted; nothing was sent.
        """
        request.read()
        outward = _outward(request, self._address)
        attested = self._driver.attest()
        try:
            return self._send(attested, request, outward)
        except UnlistedKey:
            # Nothing was sent. The enclave may have rotated its keys since; only a new quote proves it.
            self._driver.link.session.expire(attested)
            return self._send(self._driver.attest(), request, outward)

    def _send(self, attested: Attested, request: httpx.Request, outward: httpx.Request) -> httpx.Response:
        lane, transport = self._enter(attested)
        try:
            response = transport.handle_request(outward)
        except BaseException:
            self._leave(lane, transport)
            raise
        assert isinstance(response.stream, httpx.SyncByteStream)  # noqa: S101 - what this transport returns
        try:
            signing = self._signing(attested, response)
            exchange = _exchange(self._driver.link, signing, request, response)
        except BaseException:
            response.stream.close()
            self._leave(lane, transport)
            raise
        stream = _Held(response.stream, exchange, lambda: self._leave(lane, transport))
        return httpx.Response(
            response.status_code,
            headers=response.headers,
            stream=stream,
            request=request,
            extensions=response.extensions,
        )

    def _signing(self, attested: Attested, response: httpx.Response) -> Attested:
        """The appraisal of the keyset that an answer is signed under: this one, or after a rotation the next."""
        if not names_another_keyset(response.headers.raw, attested):
            return attested
        self._driver.link.session.expire(attested)
        return check_successor(attested, self._driver.attest())

    def _enter(self, attested: Attested) -> tuple[_Lane, httpx.HTTPTransport]:
        with self._lock:
            if self._lane is None or self._lane[0].attested is not attested:
                self._retire()
                link = self._driver.link
                context = ra_tls_context(_check(link.session, attested, link.clock))
                transport = httpx.HTTPTransport(verify=context, trust_env=False, limits=OUTER_LIMITS)
                self._lane = _Lane(attested, context), transport
            self._lane[0].in_use += 1
            return self._lane

    def _retire(self) -> None:
        if self._lane is not None:
            lane, transport = self._lane
            lane.retired, self._lane = True, None
            if not lane.in_use:
                transport.close()

    def _leave(self, lane: _Lane, transport: httpx.HTTPTransport) -> None:
        with self._lock:
            lane.in_use -= 1
            last = lane.retired and not lane.in_use
        if last:
            transport.close()

    def close(self) -> None:
        """Close the connections that are not in use; the others close with their answers."""
        with self._lock:
            self._retire()


class _Held(httpx.SyncByteStream):
    """An answer that holds its lane until it is closed, and whose end is shown once it is proven."""

    def __init__(
        self, stream: httpx.SyncByteStream, exchange: PlainExchange, leave: Callable[[], None]
    ) -> None:
        self._stream = stream
        self._exchange = exchange
        self._leave: Callable[[], None] | None = leave

    def __iter__(self) -> Iterator[bytes]:
        for part in self._stream:
            if content := self._exchange.push(part):
                yield content
        if end := self._exchange.finish():
            yield end

    def close(self) -> None:
        leave, self._leave = self._leave, None
        if leave is not None:
            self._stream.close()
            leave()


# --- Asynchronous -------------------------------------------------------------------------------------------------


class AsyncRaTlsTransport(httpx.AsyncBaseTransport):
    """The twin of :class:`RaTlsTransport`, for one asyncio event loop."""

    def __init__(self, driver: AsyncDriver, address: Address) -> None:
        """Connect to nothing yet; arguments as of :class:`RaTlsTransport`."""
        self._driver = driver
        self._address = address
        self._lane: tuple[_Lane, httpx.AsyncHTTPTransport] | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Carry one request; see :meth:`RaTlsTransport.handle_request`."""
        await request.aread()
        outward = _outward(request, self._address)
        attested = await self._driver.attest()
        try:
            return await self._send(attested, request, outward)
        except UnlistedKey:
            self._driver.link.session.expire(attested)
            return await self._send(await self._driver.attest(), request, outward)

    async def _send(
        self, attested: Attested, request: httpx.Request, outward: httpx.Request
    ) -> httpx.Response:
        lane, transport = await self._enter(attested)
        try:
            response = await transport.handle_async_request(outward)
        except BaseException:
            await self._leave(lane, transport)
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101 - what this transport returns
        try:
            signing = await self._signing(attested, response)
            exchange = _exchange(self._driver.link, signing, request, response)
        except BaseException:
            await response.stream.aclose()
            await self._leave(lane, transport)
            raise
        return httpx.Response(
            response.status_code,
            headers=response.headers,
            stream=_AsyncHeld(response.stream, exchange, self, lane, transport),
            request=request,
            extensions=response.extensions,
        )

    async def _signing(self, attested: Attested, response: httpx.Response) -> Attested:
        """See :meth:`RaTlsTransport._signing`."""
        if not names_another_keyset(response.headers.raw, attested):
            return attested
        self._driver.link.session.expire(attested)
        return check_successor(attested, await self._driver.attest())

    async def _enter(self, attested: Attested) -> tuple[_Lane, httpx.AsyncHTTPTransport]:
        if self._lane is None or self._lane[0].attested is not attested:
            link = self._driver.link
            context = ra_tls_context(_check(link.session, attested, link.clock))
            transport = httpx.AsyncHTTPTransport(verify=context, trust_env=False, limits=OUTER_LIMITS)
            before, self._lane = self._lane, (_Lane(attested, context), transport)
            entered = self._lane
            entered[0].in_use += 1
            await self._retire(before)
            return entered
        self._lane[0].in_use += 1
        return self._lane

    async def _retire(self, before: tuple[_Lane, httpx.AsyncHTTPTransport] | None) -> None:
        if before is not None:
            lane, transport = before
            lane.retired = True
            if not lane.in_use:
                await transport.aclose()

    async def _leave(self, lane: _Lane, transport: httpx.AsyncHTTPTransport) -> None:
        lane.in_use -= 1
        if lane.retired and not lane.in_use:
            await asyncio.shield(transport.aclose())

    async def aclose(self) -> None:
        """Close the connections that are not in use; the others close with their answers."""
        before, self._lane = self._lane, None
        await self._retire(before)


class _AsyncHeld(httpx.AsyncByteStream):
    """The twin of :class:`_Held`."""

    def __init__(
        self,
        stream: httpx.AsyncByteStream,
        exchange: PlainExchange,
        owner: AsyncRaTlsTransport,
        lane: _Lane,
        transport: httpx.AsyncHTTPTransport,
    ) -> None:
        self._stream = stream
        self._exchange = exchange
        self._owner = owner
        self._place: tuple[_Lane, httpx.AsyncHTTPTransport] | None = (lane, transport)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._stream:
            if content := self._exchange.push(part):
                yield content
        if end := self._exchange.finish():
            yield end

    async def aclose(self) -> None:
        place, self._place = self._place, None
        if place is not None:
            await self._stream.aclose()
            await self._owner._leave(*place)  # noqa: SLF001 - the transport and its answers are one thing
