# SPDX-License-Identifier: Apache-2.0
"""A client's request body as it arrives: bounded in size and in time, and never held as a whole."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from starlette.types import Receive, Scope

from adyton_host import problems
from adyton_host.problems import Refusal

_MAX_DIGITS: Final = 20
"""More digits than any 64-bit length has; the body itself is counted anyway."""


class ClientGone(Exception):
    """The client closed its connection; nobody is left to answer."""


def declared_bytes(scope: Scope) -> int | None:
    """The request's ``Content-Length`` (attacker-controlled), or None when absent or not a number."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() and len(value) <= _MAX_DIGITS else None
    return None


class Upload:
    """The body of one request.

    It is consumed once: :meth:`key_id` first, then :meth:`parts`. :meth:`wait_gone` may run beside them.
    """

    def __init__(self, scope: Scope, receive: Receive, *, max_bytes: int, idle_s: float) -> None:
        """Refuse a body that announces itself as too large before any of it is read.

        Raises:
            Refusal: ``Content-Length`` exceeds ``max_bytes``.
        """
        self._receive = receive
        self._max_bytes = max_bytes
        self._idle_s = idle_s
        self._seen_bytes = 0
        self._first = b""
        self._last_read = False
        self._ended = asyncio.Event()
        if (declared_bytes(scope) or 0) > max_bytes:
            raise Refusal(problems.too_large(max_bytes))

    async def key_id(self) -> int:
        """The first byte, by which the enclave is picked (RFC 9458 section 4.1).

        Raises:
            Refusal: The body is empty, too large or stalls.
            ClientGone: The client hung up.
        """
        while not self._first and not self._last_read:
            self._first = await self._next_part()
        if not self._first:
            raise Refusal(problems.malformed("A sealed request has at least a key id; this body is empty."))
        return self._first[0]

    async def parts(self) -> AsyncIterator[bytes]:
        """Every part of the body, as it arrives.

        Raises:
            Refusal: The body is too large or stalls.
            ClientGone: The client hung up.
        """
        if self._first:
            yield self._first
            self._first = b""
        while not self._last_read:
            part = await self._next_part()
            if part:
                yield part

    async def wait_gone(self) -> None:
        """Return once the body is complete and the client has closed its connection."""
        await self._ended.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def skip(self) -> None:
        """Treat the body as complete; what may still arrive is discarded by :meth:`wait_gone`."""
        self._last_read = True
        self._ended.set()

    async def _next_part(self) -> bytes:
        try:
            async with asyncio.timeout(self._idle_s):
                message = await self._receive()
        except TimeoutError as error:
            raise Refusal(problems.upload_timeout(self._idle_s)) from error
        if message["type"] == "http.disconnect":
            raise ClientGone
        part: bytes = message.get("body", b"")
        if not message.get("more_body", False):
            self.skip()
        self._seen_bytes += len(part)
        if self._seen_bytes > self._max_bytes:
            raise Refusal(problems.too_large(self._max_bytes))
        return part
