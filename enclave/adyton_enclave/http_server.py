# SPDX-License-Identifier: Apache-2.0
"""How the enclave listens: what its HTTP servers have in common, in the clear and behind TLS."""

import ssl
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import uvicorn

from adyton_enclave.config import Configuration
from adyton_enclave.outer import Receive, Scope, Send

AsgiApplication: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
ContextFactory: TypeAlias = Callable[[uvicorn.Config, Callable[[], ssl.SSLContext]], ssl.SSLContext]

_BACKLOG: Final = 512


def server_config(
    front: AsgiApplication, configuration: Configuration, *, make_context: ContextFactory | None = None
) -> uvicorn.Config:
    """Every option that uvicorn would otherwise take from the environment is given here.

    Args:
        front: What answers.
        configuration: For limits and times.
        make_context: Makes the TLS context; None for a server in the clear.
    """
    limits = configuration.limits
    return uvicorn.Config(
        front,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        interface="asgi3",
        workers=1,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        forwarded_allow_ips=[],
        server_header=False,
        date_header=False,
        backlog=_BACKLOG,
        limit_concurrency=limits.max_connections,
        timeout_keep_alive=limits.keep_alive_s,
        timeout_graceful_shutdown=limits.shutdown_s,
        ssl_context_factory=make_context,
    )
