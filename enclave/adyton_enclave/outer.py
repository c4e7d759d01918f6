# SPDX-License-Identifier: Apache-2.0
"""The outer side of the gateway: plain ASGI answers and problem documents (RFC 9457) that the host may read.

Whatever is answered here is about the envelope. Nothing that was inside a sealed message may enter it.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

from adyton_enclave.log import Happening, note
from adyton_protocol.media import MAX_TENANT_CHARS, PROBLEM_BUSY, PROBLEM_JSON, TENANT_HEADER

# ASGI's own types are untyped mappings.
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_TENANT_FIELD: Final = TENANT_HEADER.encode("ascii")
_TENANT: Final = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_TENANT_CHARS}}}")

NO_STORE: Final = (b"cache-control", b"no-store")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A refusal before decapsulation.

    Attributes:
        status: HTTP status.
        kind: Problem type; a URI of the protocol, or ``about:blank``.
        detail: One sentence; never about the content of a sealed message.
        headers: Further outer headers.
        error_type: Where ``aci/1`` section 10 names one, the type of the error as OpenAI's API writes it, beside the
            members of RFC 9457.
    """

    status: int
    kind: str
    detail: str
    headers: tuple[tuple[bytes, bytes], ...] = ()
    error_type: str | None = None

    async def send(self, send: Send) -> None:
        """Answer with this problem."""
        document: dict[str, object] = {"type": self.kind, "status": self.status, "detail": self.detail}
        if self.error_type is not None:
            document["error"] = {"message": self.detail, "type": self.error_type, "code": None, "param": None}
        await answer(
            send, self.status, PROBLEM_JSON, json.dumps(document).encode("ascii"), headers=self.headers
        )


BUSY: Final = Problem(
    status=503,
    kind=PROBLEM_BUSY,
    detail="too many exchanges at once",
    headers=((b"retry-after", b"1"),),
)


class HungUp(Exception):
    """The peer closed the connection."""


class TooLarge(Exception):
    """A request exceeds the limit."""


async def answer_until_hang_up(answering: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Answer a request that was read to its end, until it is answered or the peer closes the connection.

    SECURITY: an answer that fails stays without its end, so the client sees truncation, and no text of the error
    reaches the host.
    """
    tasks = (asyncio.create_task(answering), asyncio.create_task(_hang_up(receive)))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        # Cancelling closes the answer's generators, and those free the sequences behind them.
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    if isinstance(results[0], Exception):
        note(Happening.INTERNAL_ERROR, error=results[0])


async def _hang_up(receive: Receive) -> None:
    """Return when the peer closes the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def answer(
    send: Send, status: int, content_type: str, body: bytes, *, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> None:
    """Send one whole plain answer."""
    fields = [
        (b"content-type", content_type.encode("ascii")),
        (b"content-length", str(len(body)).encode("ascii")),
        NO_STORE,
        *headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


def header(scope: Scope, name: bytes) -> str:
    """The value of an outer request header, or an empty string; lower-case ``name``."""
    for field, value in scope["headers"]:
        if field == name:
            return bytes(value).decode("latin-1")
    return ""


def media_type(scope: Scope) -> str:
    """The outer content type without parameters, in lower case."""
    return header(scope, b"content-type").partition(";")[0].strip().lower()


def tenant(scope: Scope) -> str:
    """The host's tag of who shares a turn (attacker-controlled); empty when there is none or it is malformed."""
    tag = header(scope, _TENANT_FIELD)
    return tag if _TENANT.fullmatch(tag) else ""
