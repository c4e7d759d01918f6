# SPDX-License-Identifier: Apache-2.0
"""The API over TLS that ends in the enclave: the second channel (``docs/protocol.md``, section 10).

The same application as behind the gateway, in ordinary HTTP. What sealing gave is made here instead:

- a receipt secret and an exchange id, drawn for each request and told to the caller in a header of the answer, so that
  its receipt can be checked in the same way;
- replay protection: TLS has it, and there is neither resumption nor early data;
- profile ``size``: streams get the same comments; whole answers a header that fills them up to the protocol's buckets.
  Requests cannot be padded here.

Attestation is answered here as well, so that a client may challenge through this very connection.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Final

from adyton_enclave.evidence import EvidenceDesk
from adyton_enclave.exchange import INNER_HEADERS, Application, ExchangeFacts, InnerRequest, InnerResponse
from adyton_enclave.keys import KeyEpoch, KeyRing
from adyton_enclave.log import Happening, note
from adyton_enclave.outer import (
    BUSY,
    NO_STORE,
    HungUp,
    Problem,
    Receive,
    Scope,
    Send,
    TooLarge,
    answer_until_hang_up,
)
from adyton_enclave.pacing import Pacer, shaped
from adyton_enclave.privacy import Profile
from adyton_protocol import media
from adyton_protocol.padding import bucket
from adyton_protocol.ra_tls import EXCHANGE_HEADER, EXCHANGE_ID_BYTES, exchange_header
from adyton_protocol.report import API_VERSION
from adyton_protocol.suite import RECEIPT_SECRET_BYTES

PADDING_HEADER: Final = b"adyton-padding"

_TOO_LARGE: Final = Problem(
    status=413, kind=media.PROBLEM_TOO_LARGE, detail="the request exceeds the size limit"
)
_TOO_SLOW: Final = Problem(status=408, kind="about:blank", detail="the request did not arrive in time")


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFrontSettings:
    """What the front is told once; sizes in bytes, times in seconds."""

    max_request_bytes: int
    max_exchanges: int
    receive_timeout_s: float


class TlsFront:
    """The ASGI application of the second channel."""

    def __init__(
        self,
        settings: TlsFrontSettings,
        *,
        ring: KeyRing,
        desk: EvidenceDesk,
        application: Application,
        pacer: Pacer,
        wall_s: Callable[[], int],
        entropy: Callable[[int], bytes],
    ) -> None:
        """Connect the parts; arguments as of the gateway."""
        self._settings = settings
        self._ring = ring
        self._desk = desk
        self._application = application
        self._pacer = pacer
        self._wall_s = wall_s
        self._entropy = entropy
        self._exchanges = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Returning without a complete answer cuts the connection."""
        if scope["type"] != "http":
            return
        try:
            if scope["path"] == media.ATTESTATION_PATH and scope["method"] == "GET":
                await self._desk.serve(scope, send)
            elif self._exchanges >= self._settings.max_exchanges:
                await BUSY.send(send)
            else:
                self._exchanges += 1
                try:
                    await self._exchange(scope, receive, send)
                finally:
                    self._exchanges -= 1
        except Exception as error:  # noqa: BLE001 - the server would log the text of the exception
            note(Happening.INTERNAL_ERROR, error=error)

    async def _exchange(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = await self._open(scope, receive, send)
        if request is None:
            return
        await answer_until_hang_up(self._respond(request, send), receive)

    async def _open(self, scope: Scope, receive: Receive, send: Send) -> InnerRequest | None:
        """Read a request to its end, or answer with a problem document and return None."""
        problem = _TOO_SLOW
        try:
            async with asyncio.timeout(self._settings.receive_timeout_s):
                body = await self._read(receive)
        except HungUp:
            return None
        except TimeoutError:
            pass
        except TooLarge:
            problem = _TOO_LARGE
        else:
            query = scope["query_string"].decode("latin-1")
            headers = {
                name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
            }
            return InnerRequest(
                method=scope["method"],
                path=f"{scope['path']}?{query}" if query else scope["path"],
                headers={name: value for name, value in headers.items() if name in INNER_HEADERS},
                body=body,
            )
        await problem.send(send)
        return None

    async def _read(self, receive: Receive) -> bytes:
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise HungUp
            body += message.get("body", b"")
            if len(body) > self._settings.max_request_bytes:
                raise TooLarge
            more = message.get("more_body", False)
        return bytes(body)

    async def _respond(self, request: InnerRequest, send: Send) -> None:
        accepted_s = self._pacer.monotonic()
        # Of the moment: an epoch that ends meanwhile has still attested the key that signs.
        epoch = self._ring.current()
        exchange_id, secret = self._entropy(EXCHANGE_ID_BYTES), self._entropy(RECEIPT_SECRET_BYTES)
        facts = ExchangeFacts(
            enc=exchange_id,
            receipt_secret=secret,
            keyset_digest=epoch.keyset.digest(),
            signer=epoch.signer,
            accepted_at=self._wall_s(),
            namespaces=epoch.namespaces,
        )
        response = await self._application(request, facts)
        headers = _headers(response, epoch, exchange_id, secret)
        if isinstance(response.body, bytes):
            if response.profile is Profile.CADENCE:
                await self._pacer.until_end(accepted_s)
            await _send_whole(response, response.body, headers, send)
            return
        async with contextlib.aclosing(response.body) as events:
            await self._send_stream(response, events, headers, send, start_s=accepted_s)

    async def _send_stream(
        self,
        response: InnerResponse,
        events: AsyncGenerator[bytes, None],
        headers: list[tuple[bytes, bytes]],
        send: Send,
        *,
        start_s: float,
    ) -> None:
        chunks = shaped(events, response.profile, self._pacer, start_s=start_s)
        begun = False
        async with contextlib.aclosing(chunks):
            async for chunk in chunks:
                if not begun:
                    await send({"type": "http.response.start", "status": response.status, "headers": headers})
                    begun = True
                # Waits while the connection's buffers are full, and with it the work behind the stream.
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        if not begun:
            await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _headers(
    response: InnerResponse, epoch: KeyEpoch, exchange_id: bytes, secret: bytes
) -> list[tuple[bytes, bytes]]:
    return [
        *((name.encode("ascii"), value.encode("latin-1")) for name, value in response.headers),
        NO_STORE,
        # aci/1 section 5.2; hints, as there.
        (b"x-aci-version", API_VERSION.encode("ascii")),
        (b"x-aci-keyset-digest", epoch.keyset.digest().encode("ascii")),
        (EXCHANGE_HEADER.encode("ascii"), exchange_header(exchange_id, secret)),
    ]


async def _send_whole(
    response: InnerResponse, body: bytes, headers: list[tuple[bytes, bytes]], send: Send
) -> None:
    headers = [*headers, (b"content-length", str(len(body)).encode("ascii"))]
    if response.profile is not Profile.OFF:
        plain = len(body) + sum(len(name) + len(value) + 4 for name, value in headers)
        fixed = plain + len(PADDING_HEADER) + 4
        headers.append((PADDING_HEADER, b"0" * (bucket(fixed) - fixed)))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
