# SPDX-License-Identifier: Apache-2.0
"""What the host knows about one exchange: its kind, its sizes, its times. Never what it carried.

:class:`Observer` wraps the whole application, counts the bytes that pass, and hands the finished
:class:`Exchange` to whoever logs and meters. It looks at lengths only.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adyton_host.problems import Outcome, Problem

_SCOPE_KEY: Final = "adyton_host.exchange"
_REQUEST_ID_BYTES: Final = 8
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RouteName(StrEnum):
    """Every route, under a name of ours: paths and query strings of clients never reach logs or labels."""

    GATEWAY = "gateway"
    KEYS = "keys"
    ATTESTATION = "attestation"
    ENDORSEMENTS = "endorsements"
    RELEASES = "releases"
    HEALTH = "health"
    READY = "ready"
    METRICS = "metrics"
    OTHER = "other"


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One HTTP exchange with a client.

    Attributes:
        request_id: Random, made here; a client's own ids are not taken over.
        method: A standard method name or ``OTHER``.
        route: Which of our routes served it.
        outcome: How it ended.
        status: Status sent, 0 when none was.
        received_bytes: Body bytes taken from the client.
        sent_bytes: Body bytes given to the client.
        complete: Whether the answer was ended properly.
        started_s: Monotonic clock at the start.
        first_byte_s: Seconds from the start to the first body byte of the answer, or None.
        duration_s: Seconds from start to end, set at the end.
    """

    request_id: str = field(default_factory=lambda: secrets.token_hex(_REQUEST_ID_BYTES))
    method: str = "OTHER"
    route: RouteName = RouteName.OTHER
    outcome: Outcome = Outcome.OK
    status: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0
    complete: bool = False
    started_s: float = 0.0
    first_byte_s: float | None = None
    duration_s: float = 0.0


def exchange_of(scope: Scope) -> Exchange:
    """The exchange that :class:`Observer` attached to this scope."""
    exchange: Exchange = scope[_SCOPE_KEY]
    return exchange


async def answer_problem(problem: Problem, scope: Scope, send: Send) -> None:
    """Answer with a problem document and count it."""
    exchange_of(scope).outcome = problem.outcome
    await send({"type": "http.response.start", "status": problem.status, "headers": problem.headers()})
    await send({"type": "http.response.body", "body": problem.body()})


class Observer:
    """ASGI middleware that attaches an :class:`Exchange`, measures it, and reports it once."""

    def __init__(
        self,
        app: ASGIApp,
        report: Callable[[Exchange], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Wrap ``app``; ``report`` is called once for each HTTP exchange, after its end."""
        self._app = app
        self._report = report
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        exchange = Exchange(method=method if method in _METHODS else "OTHER", started_s=self._clock())
        scope[_SCOPE_KEY] = exchange

        async def counted_receive() -> Message:
            message = await receive()
            exchange.received_bytes += len(message.get("body", b""))
            return message

        async def counted_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                headers = [*message.get("headers", []), (b"x-request-id", exchange.request_id.encode())]
                message = {**message, "headers": headers}
            else:
                size = len(message.get("body", b""))
                if size and exchange.first_byte_s is None:
                    exchange.first_byte_s = self._clock() - exchange.started_s
                exchange.sent_bytes += size
                exchange.complete = exchange.complete or not message.get("more_body", False)
            await send(message)

        try:
            await self._app(scope, counted_receive, counted_send)
        except Exception:
            exchange.outcome = Outcome.INTERNAL
            raise
        finally:
            exchange.duration_s = self._clock() - exchange.started_s
            self._report(exchange)
