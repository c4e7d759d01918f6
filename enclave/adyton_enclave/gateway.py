# SPDX-License-Identifier: Apache-2.0
"""The gateway (RFC 9458): sealed bytes in, sealed bytes out, as a bare ASGI application.

The peer is the untrusted host, so this is the enclave's edge. Steps of one exchange:

1. Check the envelope: method, media type, announced size. Refusals are problem documents in the clear.
2. Read the sealed request to its authenticated end, within size and time limits. Nothing acts on a part of it.
3. On the first chunk that opens, remember ``enc``; a replay is refused before any work.
4. Parse the inner request. From here on every answer is sealed inside an outer 200.
5. Hand it to the API, shape the answer by its privacy profile, seal it chunk by chunk.
6. Finish with the authenticated empty chunk. If the caller hangs up, stop the work behind the answer at once.

SECURITY: outer headers, addresses and paths choose none of the inner request's, and nothing inner is copied out. The
host's tag of a tenant reaches the queue, which may serve a request sooner or later for it, and nothing else.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Final

from adyton_enclave.evidence import EvidenceDesk
from adyton_enclave.exchange import INNER_HEADERS, Application, ExchangeFacts, InnerRequest, InnerResponse
from adyton_enclave.keys import Admission, KeyEpoch, KeyRing
from adyton_enclave.outer import (
    BUSY,
    NO_STORE,
    HungUp,
    Problem,
    Receive,
    Scope,
    Send,
    TooLarge,
    answer,
    answer_until_hang_up,
    header,
    media_type,
    tenant,
)
from adyton_enclave.pacing import Pacer, shaped
from adyton_enclave.privacy import Profile
from adyton_protocol import bhttp, media
from adyton_protocol.errors import KeyConfigMismatch, ProtocolError, ReplayedRequest
from adyton_protocol.ohttp import RequestOpener, ResponseSealer
from adyton_protocol.padding import bucket

_MALFORMED: Final = Problem(
    status=400, kind=media.PROBLEM_MALFORMED, detail="the sealed request cannot be decapsulated"
)
_UNKNOWN_KEY: Final = Problem(
    status=422, kind=media.PROBLEM_OHTTP_KEY, detail="sealed to a key that is not held here; attest again"
)
_REPLAYED: Final = Problem(
    status=409, kind=media.PROBLEM_REPLAY, detail="this sealed request was accepted before"
)
_TOO_LARGE: Final = Problem(
    status=413, kind=media.PROBLEM_TOO_LARGE, detail="the sealed request exceeds the size limit"
)
_TOO_SLOW: Final = Problem(status=408, kind="about:blank", detail="the sealed request did not arrive in time")
_NOT_SEALED: Final = Problem(
    status=415,
    kind=media.PROBLEM_PLAINTEXT,
    detail=f"only {media.OHTTP_REQUEST} and {media.OHTTP_CHUNKED_REQUEST} are accepted",
)
_NO_SUCH_PATH: Final = Problem(status=404, kind="about:blank", detail="no such path")


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """What the gateway is told once; sizes in bytes, times in seconds.

    Attributes:
        waiting: Names of models whose keys are missing; the host is told, so that it can say what to do next.
    """

    authorities: frozenset[str]
    max_request_bytes: int
    max_exchanges: int
    receive_timeout_s: float
    error_profile: Profile
    waiting: Callable[[], tuple[str, ...]] = tuple


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """A sealed request, read to its authenticated end."""

    opener: RequestOpener
    epoch: KeyEpoch
    plaintext: bytes
    chunked: bool
    accepted_s: float
    accepted_at: int
    tenant: str


class Gateway:
    """Dispatches outer requests and carries out sealed exchanges."""

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        ring: KeyRing,
        desk: EvidenceDesk,
        application: Application,
        pacer: Pacer,
        wall_s: Callable[[], int],
        entropy: Callable[[int], bytes],
    ) -> None:
        """Connect the parts.

        Args:
            settings: See there.
            ring: The keys.
            desk: Answers attestation requests.
            application: The API.
            pacer: The clock of profile ``cadence``.
            wall_s: Unix seconds, for receipts.
            entropy: Source of random bytes for response nonces.
        """
        self._settings = settings
        self._ring = ring
        self._desk = desk
        self._application = application
        self._pacer = pacer
        self._wall_s = wall_s
        self._entropy = entropy
        self._exchanges = 0

    @property
    def application(self) -> Application:
        """The API behind it, which the second channel shares."""
        return self._application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one outer request."""
        match scope["path"], scope["method"]:
            case media.GATEWAY_PATH, "POST":
                await self._admit(scope, receive, send)
            case media.GATEWAY_PATH, "GET":
                await answer(send, 200, media.OHTTP_KEYS, self._ring.current().key_configs)
            case media.GATEWAY_PATH, _:
                await _wrong_method(send, b"GET, POST")
            case media.ATTESTATION_PATH, "GET":
                await self._desk.serve(scope, send)
            case "/readyz", "GET":
                await self._ready(send)
            case ((media.ATTESTATION_PATH | "/readyz"), _):
                await _wrong_method(send, b"GET")
            case _:
                await _NO_SUCH_PATH.send(send)

    async def _ready(self, send: Send) -> None:
        """Tell the host what it needs for routing; all of it is public."""
        epoch = self._ring.current()
        document: dict[str, object] = {
            "ready": True,
            "key_ids": self._ring.live_key_ids(),
            "not_after": epoch.keyset.not_after,
        }
        if waiting := self._settings.waiting():
            document["waiting_for_keys"] = waiting
        await answer(send, 200, "application/json", json.dumps(document).encode("ascii"))

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._exchanges >= self._settings.max_exchanges:
            await BUSY.send(send)
            return
        self._exchanges += 1
        try:
            await self._exchange(scope, receive, send)
        finally:
            self._exchanges -= 1

    async def _exchange(self, scope: Scope, receive: Receive, send: Send) -> None:
        opened = await self._open(scope, receive, send)
        if opened is None:
            return
        await answer_until_hang_up(self._respond(opened, send), receive)

    # --- Request -------------------------------------------------------------------------------------

    async def _open(self, scope: Scope, receive: Receive, send: Send) -> _Opened | None:
        """Steps 1 to 3, or a problem document and None."""
        match media_type(scope):
            case media.OHTTP_CHUNKED_REQUEST:
                chunked = True
            case media.OHTTP_REQUEST:
                chunked = False
            case _:
                await _NOT_SEALED.send(send)
                return None
        problem: Problem
        try:
            async with asyncio.timeout(self._settings.receive_timeout_s):
                return await self._read(scope, receive, chunked=chunked)
        except HungUp:
            return None
        except TimeoutError:
            problem = _TOO_SLOW
        except TooLarge:
            problem = _TOO_LARGE
        except KeyConfigMismatch:
            problem = _UNKNOWN_KEY
        except ReplayedRequest:
            problem = _REPLAYED
        except ProtocolError:
            # SECURITY: one answer for every other cause, so that nobody learns how far decapsulation went.
            problem = _MALFORMED
        await problem.send(send)
        return None

    async def _read(self, scope: Scope, receive: Receive, *, chunked: bool) -> _Opened:
        admission = Admission(self._ring)
        limit = self._settings.max_request_bytes
        if _announced_bytes(scope) > limit:
            raise TooLarge
        opener = RequestOpener(admission.lookup, chunked=chunked, max_bytes=limit)
        plaintext = bytearray()
        epoch: KeyEpoch | None = None
        received = 0
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise HungUp
            body: bytes = message.get("body", b"")
            received += len(body)
            if received > limit:
                raise TooLarge
            plaintext += opener.push(body)
            if epoch is None and plaintext:
                epoch = admission.accept(opener.enc)
            more = message.get("more_body", False)
        plaintext += opener.finish()
        if epoch is None:
            epoch = admission.accept(opener.enc)
        return _Opened(
            opener=opener,
            epoch=epoch,
            plaintext=bytes(plaintext),
            chunked=chunked,
            accepted_s=self._pacer.monotonic(),
            accepted_at=self._wall_s(),
            tenant=tenant(scope),
        )

    async def _dispatch(self, opened: _Opened) -> InnerResponse:
        """Step 4 and the API's part of step 5; whatever comes back is sealed."""
        try:
            request = bhttp.parse_request(opened.plaintext)
        except ProtocolError:
            return self._inner_refusal(400, "the inner request is not a Binary HTTP message")
        headers = {name.decode("ascii"): value.decode("latin-1") for name, value in request.headers}
        authority = (request.authority or headers.get("host", "")).lower()
        if authority not in self._settings.authorities:
            return self._inner_refusal(421, "the inner request was meant for another authority")
        inner = InnerRequest(
            method=request.method,
            path=request.path,
            headers={name: value for name, value in headers.items() if name in INNER_HEADERS},
            body=request.content,
        )
        facts = ExchangeFacts(
            enc=opened.opener.enc,
            receipt_secret=opened.opener.export_receipt_secret(),
            keyset_digest=opened.epoch.keyset.digest(),
            signer=opened.epoch.signer,
            accepted_at=opened.accepted_at,
            tenant=opened.tenant,
            namespaces=opened.epoch.namespaces,
        )
        return await self._application(inner, facts)

    def _inner_refusal(self, status: int, message: str) -> InnerResponse:
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
        return InnerResponse(
            status=status,
            headers=(("content-type", "application/json"),),
            body=json.dumps({"error": error}).encode("ascii"),
            profile=self._settings.error_profile,
        )

    # --- Response ------------------------------------------------------------------------------------

    async def _respond(self, opened: _Opened, send: Send) -> None:
        response = await self._dispatch(opened)
        nonce = self._entropy(opened.opener.response_nonce_bytes)
        sealer = opened.opener.response_sealer(nonce)
        if isinstance(response.body, bytes):
            await self._send_whole(opened, response, response.body, sealer, send)
            return
        async with contextlib.aclosing(response.body) as events:
            if opened.chunked:
                await self._send_stream(opened, response, events, sealer, send)
            else:
                # A whole request has a whole answer, whatever it asked for; a foreign client would not
                # understand anything else.
                body = b"".join([event async for event in events])
                await self._send_whole(opened, response, body, sealer, send)

    async def _send_whole(
        self, opened: _Opened, response: InnerResponse, body: bytes, sealer: ResponseSealer, send: Send
    ) -> None:
        if response.profile is Profile.CADENCE:
            await self._pacer.until_end(opened.accepted_s)
        message = bhttp.encode_response(
            bhttp.Response(status=response.status, headers=_fields(response), content=body),
            pad_to=0 if response.profile is Profile.OFF else bucket,
        )
        await _begin(send, chunked=opened.chunked)
        sealed = sealer.push(message)
        if sealed:
            await send({"type": "http.response.body", "body": sealed, "more_body": True})
        await send({"type": "http.response.body", "body": sealer.finish(), "more_body": False})

    async def _send_stream(
        self,
        opened: _Opened,
        response: InnerResponse,
        events: AsyncGenerator[bytes, None],
        sealer: ResponseSealer,
        send: Send,
    ) -> None:
        writer = bhttp.ResponseWriter()
        pending = writer.head(response.status, _fields(response))
        await _begin(send, chunked=True)
        chunks = shaped(events, response.profile, self._pacer, start_s=opened.accepted_s)
        async with contextlib.aclosing(chunks):
            async for chunk in chunks:
                sealed = sealer.push(pending + writer.content(chunk))
                pending = b""
                # Waits while the connection's buffers are full, and with it the work behind the stream.
                await send({"type": "http.response.body", "body": sealed, "more_body": True})
        sealed = sealer.push(pending + writer.finish())
        await send({"type": "http.response.body", "body": sealed, "more_body": True})
        # Empty and in a write of its own: a real peer fails on a final chunk that arrives in two reads.
        await send({"type": "http.response.body", "body": sealer.finish(), "more_body": False})


def _announced_bytes(scope: Scope) -> int:
    """What the host says about the size; only ever used to refuse early."""
    announced = header(scope, b"content-length")
    return int(announced) if announced.isdecimal() and announced.isascii() else 0


async def _begin(send: Send, *, chunked: bool) -> None:
    content_type = media.OHTTP_CHUNKED_RESPONSE if chunked else media.OHTTP_RESPONSE
    headers = [(b"content-type", content_type.encode("ascii")), NO_STORE]
    if chunked:
        headers.append((b"incremental", b"?1"))
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def _wrong_method(send: Send, allow: bytes) -> None:
    problem = Problem(status=405, kind="about:blank", detail="wrong method", headers=((b"allow", allow),))
    await problem.send(send)


def _fields(response: InnerResponse) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((name.encode("ascii"), value.encode("latin-1")) for name, value in response.headers)
