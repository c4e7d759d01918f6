# SPDX-License-Identifier: Apache-2.0
"""The relay: sealed bytes to the enclave, sealed bytes back, each part as soon as it arrives.

Rules of this file:

1. Nothing is kept. A part of a body is handed on before the next one is asked for.
2. Only the media type and the body cross, in both directions. No other header of a client reaches the
   enclave, none of the enclave's reaches a client. Beside them the enclave gets two fields of our own making: a tag,
   by which it takes turns between tenants, and for a report the one encoding that we chose from what the client
   accepts.
3. Before the first byte of an answer every failure is a problem document. After it the connection is cut
   without its proper end, so that the client sees truncation; the sealed end marker is the client's proof.
4. A client that hangs up closes the enclave's connection at once.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import httpx
from starlette.types import Receive, Scope, Send

from adyton_host import problems
from adyton_host.admission import Gate
from adyton_host.config import RelayLimits
from adyton_host.exchange import Exchange, RouteName, answer_problem, exchange_of
from adyton_host.problems import Outcome, Refusal
from adyton_host.routing import RoutingTable
from adyton_host.tenants import TenantTags
from adyton_host.upload import ClientGone, Upload
from adyton_protocol import media

_SEALED_REQUESTS: Final = frozenset({media.OHTTP_REQUEST, media.OHTTP_CHUNKED_REQUEST})
_HTTP_OK: Final = 200
_WAIT: Final = frozenset({429, 503})
_CHALLENGE_HEX_CHARS: Final = 64
_HEX: Final = frozenset("0123456789abcdefABCDEF")
_STREAMING_HEADERS: Final = (
    (b"cache-control", b"no-store"),
    (b"incremental", b"?1"),  # RFC 10036: intermediaries must not hold parts of this body back
    (b"x-accel-buffering", b"no"),  # the same, in nginx's words
)


def enclave_client(limits: RelayLimits) -> httpx.AsyncClient:
    """The HTTP client that faces enclaves: loopback only, no proxies, no redirects, no environment."""
    return httpx.AsyncClient(
        trust_env=False,
        follow_redirects=False,
        verify=False,  # noqa: S501 -- plain HTTP on loopback; TLS here would protect nothing from this host
        timeout=httpx.Timeout(
            connect=limits.connect_s, write=limits.enclave_write_s, read=limits.enclave_idle_s, pool=None
        ),
        # Idle connections are dropped long before the enclave would drop them, so none is found dead.
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=32, keepalive_expiry=1.0),
    )


def media_type_of(scope: Scope) -> str:
    """The request's media type (attacker-controlled), lower-case and without parameters."""
    for name, value in scope["headers"]:
        if name == b"content-type":
            return bytes(value).partition(b";")[0].strip().lower().decode("latin-1")
    return ""


def encoding_of(scope: Scope) -> str:
    """The encoding of a report that suits the ``Accept`` fields of a request (attacker-controlled).

    Raises:
        Refusal: None does.
    """
    accepted = [bytes(value) for name, value in scope["headers"] if name == b"accept"]
    chosen = media.evidence_type(b",".join(accepted).decode("latin-1"))
    if chosen is None:
        raise Refusal(problems.not_acceptable())
    return chosen


def challenge_of(scope: Scope) -> str | None:
    """The ``nonce`` of an attestation request, or None when there is none.

    Raises:
        Refusal: The query is anything but one nonce of 32 bytes in hexadecimal.
    """
    query = bytes(scope.get("query_string", b"")).decode("latin-1")
    if not query:
        return None
    name, _, value = query.partition("=")
    if name != "nonce" or len(value) != _CHALLENGE_HEX_CHARS or not _HEX.issuperset(value):
        raise Refusal(problems.malformed("The only parameter is `nonce`: 64 hexadecimal digits."))
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """One request to an enclave."""

    method: str
    base_url: str
    target: str
    media_type: str | None
    content: AsyncIterator[bytes] | None
    tenant: str | None = None
    accept: str | None = None

    def request(self) -> httpx.Request:
        # SECURITY: built bare, not by the client, so that the headers are these and httpx's Host and framing.
        headers = {} if self.media_type is None else {"content-type": self.media_type}
        if self.tenant is not None:
            headers[media.TENANT_HEADER] = self.tenant
        if self.accept is not None:
            headers["accept"] = self.accept
        return httpx.Request(self.method, self.base_url + self.target, headers=headers, content=self.content)


class Relay:
    """Carries exchanges between clients and enclaves."""

    def __init__(self, client: httpx.AsyncClient, table: RoutingTable, limits: RelayLimits) -> None:
        """Share one enclave-facing client and one routing table among all exchanges."""
        self._client = client
        self._table = table
        self._limits = limits
        self._tags = TenantTags(secrets.token_bytes(32))
        self.gate = Gate(limits.max_in_flight, retry_after_s=limits.retry_after_s)
        self._small_gate = Gate(limits.max_attestations, retry_after_s=limits.retry_after_s)

    async def sealed(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Carry one sealed request and its answer.

        Raises:
            Refusal: Nothing was sent to the client yet, and this is what to tell it.
        """
        media_type = media_type_of(scope)
        if media_type not in _SEALED_REQUESTS:
            raise Refusal(problems.plaintext(415))
        upload = Upload(
            scope, receive, max_bytes=self._limits.max_request_bytes, idle_s=self._limits.upload_idle_s
        )
        with self.gate.enter():
            base_url = await self._holder(await upload.key_id())
            call = _Call(
                method="POST",
                base_url=base_url,
                target=media.GATEWAY_PATH,
                media_type=media_type,
                content=upload.parts(),
                tenant=self._tags.tag(scope),
            )
            await self._carry(call, upload, exchange_of(scope), send)

    async def fetch(
        self, target: str, scope: Scope, receive: Receive, send: Send, *, accept: str | None = None
    ) -> None:
        """Carry a small GET of public material: key configurations or an attestation report.

        Args:
            target: Path and query.
            scope: Of the client's request.
            receive: Of the client's request.
            send: Of the client's request.
            accept: The one media type that the client gets, or None.

        Raises:
            Refusal: As for :meth:`sealed`.
        """
        upload = Upload(scope, receive, max_bytes=0, idle_s=self._limits.upload_idle_s)
        upload.skip()
        with self._small_gate.enter():
            base_url = await self._table.find_any()
            if base_url is None:
                raise Refusal(self._none_ready())
            call = _Call(
                method="GET", base_url=base_url, target=target, media_type=None, content=None, accept=accept
            )
            await self._carry(call, upload, exchange_of(scope), send)

    async def _holder(self, key_id: int) -> str:
        base_url = await self._table.find(key_id)
        if base_url is None:
            raise Refusal(problems.unknown_key() if self._table.ready_count() else self._none_ready())
        return base_url

    def _none_ready(self) -> problems.Problem:
        return problems.unavailable(
            "No enclave attests at the moment; it may be starting. The request was not executed.",
            retry_after_s=self._limits.retry_after_s,
        )

    async def _carry(self, call: _Call, upload: Upload, exchange: Exchange, send: Send) -> None:
        """Run the exchange until it ends or the client has gone."""
        pump = asyncio.create_task(self._pump(call, exchange, send))
        gone = asyncio.create_task(upload.wait_gone())
        try:
            await asyncio.wait((pump, gone), return_when=asyncio.FIRST_COMPLETED)
            # A server also reports a hang-up once the answer is complete; that one is no reason to stop.
            if not pump.done() and not exchange.complete:
                exchange.outcome = Outcome.CLIENT_GONE
                return
            await pump
        except ClientGone:
            exchange.outcome = Outcome.CLIENT_GONE
        finally:
            # Cancelling the pump closes its connection to the enclave, which stops the work there.
            for task in (pump, gone):
                task.cancel()
            await asyncio.gather(pump, gone, return_exceptions=True)

    async def _pump(self, call: _Call, exchange: Exchange, send: Send) -> None:
        response = await self._open(call)
        try:
            parts = response.aiter_raw()
            # Nothing is promised to the client before the enclave has sent the first byte.
            first = await self._first_part(parts, call)
            if response.status_code != _HTTP_OK:
                exchange.outcome = Outcome.ENCLAVE_REFUSED
            headers = _headers(response, self._limits.retry_after_s)
            await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
            await self._hand_on(first, send)
            async for part in parts:
                await self._hand_on(part, send)
            await send({"type": "http.response.body", "body": b""})
        except httpx.TimeoutException:
            exchange.outcome = Outcome.TIMEOUT
        except httpx.HTTPError:
            # Returning without the last body message makes the server cut the connection: truncation.
            exchange.outcome = Outcome.ENCLAVE_DIED
            self._table.mark_down(call.base_url)
        except TimeoutError:
            exchange.outcome = Outcome.CLIENT_GONE
        finally:
            await response.aclose()

    async def _open(self, call: _Call) -> httpx.Response:
        try:
            return await self._client.send(call.request(), stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            self._table.mark_down(call.base_url)
            raise Refusal(self._none_ready()) from error
        except httpx.TimeoutException as error:
            raise Refusal(problems.enclave_silent(self._limits.enclave_idle_s)) from error
        except httpx.HTTPError as error:
            raise Refusal(self._died(call)) from error

    async def _first_part(self, parts: AsyncIterator[bytes], call: _Call) -> bytes:
        try:
            return await anext(parts, b"")
        except httpx.TimeoutException as error:
            raise Refusal(problems.enclave_silent(self._limits.enclave_idle_s)) from error
        except httpx.HTTPError as error:
            raise Refusal(self._died(call)) from error

    def _died(self, call: _Call) -> problems.Problem:
        self._table.mark_down(call.base_url)
        return problems.enclave_died()

    async def _hand_on(self, part: bytes, send: Send) -> None:
        async with asyncio.timeout(self._limits.download_idle_s):
            await send({"type": "http.response.body", "body": part, "more_body": True})


def _headers(response: httpx.Response, retry_after_s: int) -> list[tuple[bytes, bytes]]:
    """Our own fields and the enclave's media type; advice to wait is ours to give, so it is not copied."""
    headers = list(_STREAMING_HEADERS)
    if response.status_code in _WAIT:
        headers.append((b"retry-after", b"%d" % retry_after_s))
    content_type = response.headers.get("content-type")
    if content_type is not None:
        headers.append((b"content-type", content_type.encode("latin-1", "replace")))
    return headers


class GatewayEndpoint:
    """``GET`` and ``POST`` of the gateway path (RFC 9540)."""

    def __init__(self, relay: Relay) -> None:
        """Serve through ``relay``."""
        self._relay = relay

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Carry key configurations for GET, a sealed exchange for POST."""
        exchange = exchange_of(scope)
        try:
            if scope["method"] == "POST":
                exchange.route = RouteName.GATEWAY
                await self._relay.sealed(scope, receive, send)
            else:
                exchange.route = RouteName.KEYS
                await self._relay.fetch(media.GATEWAY_PATH, scope, receive, send)
        except Refusal as refusal:
            await answer_problem(refusal.problem, scope, send)
        except ClientGone:
            exchange.outcome = Outcome.CLIENT_GONE


class AttestationEndpoint:
    """``GET`` of the attestation path; the nonce passes through and the choice of an encoding, nothing else does."""

    def __init__(self, relay: Relay) -> None:
        """Serve through ``relay``."""
        self._relay = relay

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Carry one attestation report."""
        exchange_of(scope).route = RouteName.ATTESTATION
        with contextlib.suppress(ClientGone):
            try:
                challenge = challenge_of(scope)
                query = "" if challenge is None else f"?nonce={challenge}"
                accept = encoding_of(scope)
                await self._relay.fetch(media.ATTESTATION_PATH + query, scope, receive, send, accept=accept)
            except Refusal as refusal:
                await answer_problem(refusal.problem, scope, send)
