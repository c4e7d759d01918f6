# SPDX-License-Identifier: Apache-2.0
"""The host's web application: the relay's routes, the operator's routes, and a refusal for all else."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from adyton_host import problems
from adyton_host.exchange import Exchange, Observer, RouteName, answer_problem, exchange_of
from adyton_host.logs import log_exchange
from adyton_host.metrics import Metrics
from adyton_host.relay import AttestationEndpoint, GatewayEndpoint, Relay
from adyton_host.routing import RoutingTable
from adyton_protocol import media

_EXPOSITION: Final = "text/plain; version=0.0.4; charset=utf-8"
_API_PREFIX: Final = "/v1/"
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True, kw_only=True)
class HostParts:
    """What the application is made of.

    Attributes:
        relay: Carries the exchanges.
        table: Which enclave holds which key.
        metrics: Counts them.
        endorsements: File with the endorsement document (``QuoteCollateralV3`` JSON), or None.
        releases: File with signed reference values, opaque to this host, or None.
        simulated: Whether the enclaves are simulated; announced, never decided, here.
    """

    relay: Relay
    table: RoutingTable
    metrics: Metrics
    endorsements: Path | None = None
    releases: Path | None = None
    simulated: bool = False


class RefusePlaintext:
    """Answers whatever no other route serves, without reading its body."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Explain; ``receive`` is never called, so that the body stays out of this process's hands."""
        del receive
        is_api = scope["path"].startswith(_API_PREFIX) or scope["method"] not in _READS
        await answer_problem(problems.plaintext() if is_api else problems.not_found(), scope, send)


def create_app(parts: HostParts) -> FastAPI:
    """Build the application; its lifespan refreshes the routing table in the background."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        refresher = asyncio.create_task(parts.table.run())
        try:
            yield
        finally:
            refresher.cancel()
            await asyncio.gather(refresher, return_exceptions=True)
            await parts.table.close()

    def report(exchange: Exchange) -> None:
        parts.metrics.observe(exchange)
        log_exchange(exchange)

    # No generated documentation: it would need scripts from elsewhere, and the API is not served here.
    app = FastAPI(title="Adyton host", openapi_url=None, lifespan=lifespan)
    app.router.redirect_slashes = False
    app.add_middleware(Observer, report=report)
    parts.metrics.watch(in_flight=lambda: parts.relay.gate.inside, enclaves_ready=parts.table.serving_count)
    _add_operator_routes(app, parts)
    app.router.routes.append(
        Route(media.GATEWAY_PATH, GatewayEndpoint(parts.relay), methods=["GET", "POST"], name="gateway")
    )
    app.router.routes.append(
        Route(media.ATTESTATION_PATH, AttestationEndpoint(parts.relay), methods=["GET"], name="attestation")
    )
    app.router.routes.append(Route("/{path:path}", RefusePlaintext(), name="other"))
    return app


def _add_operator_routes(app: FastAPI, parts: HostParts) -> None:
    @app.get("/healthz")
    async def healthz(request: Request) -> Response:
        exchange_of(request.scope).route = RouteName.HEALTH
        return JSONResponse({"status": "ok"})

    @app.get("/readyz")
    async def readyz(request: Request) -> Response:
        exchange_of(request.scope).route = RouteName.READY
        enclaves = [
            {
                "ready": readiness.ready,
                "key_ids": list(readiness.key_ids),
                "not_after": readiness.not_after,
                "waiting_for_keys": list(readiness.waiting),
            }
            for readiness in parts.table.snapshot().values()
        ]
        ready = parts.table.serving_count() > 0
        return JSONResponse(
            {"ready": ready, "simulated": parts.simulated, "enclaves": enclaves},
            status_code=200 if ready else 503,
        )

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        exchange_of(request.scope).route = RouteName.METRICS
        return Response(parts.metrics.exposition(), media_type=_EXPOSITION)

    @app.get(media.ENDORSEMENTS_PATH)
    async def endorsements(request: Request) -> Response:
        exchange = exchange_of(request.scope)
        exchange.route = RouteName.ENDORSEMENTS
        document = await asyncio.to_thread(_read, parts.endorsements, media.MAX_ENDORSEMENTS_BYTES)
        if document is None:
            problem = problems.unavailable("This host holds no endorsements.", retry_after_s=60)
            exchange.outcome = problem.outcome
            return Response(problem.body(), problem.status, media_type=media.PROBLEM_JSON)
        return Response(document, media_type="application/json", headers={"cache-control": "no-store"})

    @app.get(media.RELEASES_PATH)
    async def releases(request: Request) -> Response:
        exchange = exchange_of(request.scope)
        exchange.route = RouteName.RELEASES
        document = await asyncio.to_thread(_read, parts.releases, media.MAX_RELEASES_BYTES)
        if document is None:
            problem = problems.no_releases()
            exchange.outcome = problem.outcome
            return Response(problem.body(), problem.status, media_type=media.PROBLEM_JSON)
        return Response(document, media_type="application/json", headers={"cache-control": "no-store"})


def _read(path: Path | None, limit_bytes: int) -> bytes | None:
    """Read a document anew each time: it is small, seldom asked for, and refreshed beside us."""
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            document = file.read(limit_bytes + 1)
    except OSError:
        return None
    return document if len(document) <= limit_bytes else None
