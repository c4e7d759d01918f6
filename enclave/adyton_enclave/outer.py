# SPDX-License-Identifier: Apache-2.0
"""The outer side of the gateway: plain ASGI answers and problem documents (RFC 9457) that the host may read.

Whatever is answered here is about the envelope. Nothing that was inside a sealed message may enter it.
"""

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

from adyton_protocol.media import MAX_TENANT_CHARS, PROBLEM_JSON, TENANT_HEADER

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
