# SPDX-License-Identifier: Apache-2.0
"""The same engine and the same API without attestation, sealing, padding or relay: the peer to measure against.

Reads ``./enclave.toml`` like the enclave and serves plain HTTP on the port that it names. For benchmarks only;
the enclave's own entry point cannot be made to do this.
"""

import asyncio
import os
import sys
import time
from pathlib import Path

import uvicorn

from adyton_enclave.config import load_configuration
from adyton_enclave.exchange import ExchangeFacts, InnerRequest
from adyton_enclave.keys import ReceiptSigner
from adyton_enclave.outer import Receive, Scope, Send
from adyton_enclave.server import SWITCH_S, Surroundings, make_api, make_engine
from adyton_protocol.digests import sha256_hex


class PlainServer:
    """Hands each HTTP request to the API as if it had just been opened."""

    def __init__(self) -> None:
        self.configuration = load_configuration(Path())
        self.engine = make_engine(self.configuration)
        surroundings = Surroundings(
            monotonic=time.monotonic,
            wall_s=lambda: int(time.time()),  # noqa: TID251 - the edge
            entropy=os.urandom,
        )
        self.engine.start()
        self.api = make_api(self.configuration, self.engine, surroundings)
        self.signer = ReceiptSigner()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request in the clear."""
        if scope["path"] == "/readyz":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"ready"})
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        request = InnerRequest(
            method=scope["method"],
            path=scope["path"],
            headers={"content-type": "application/json"},
            body=body,
        )
        facts = ExchangeFacts(
            enc=os.urandom(32),
            receipt_secret=os.urandom(32),
            keyset_digest=sha256_hex(b"no keyset"),
            signer=self.signer,
            accepted_at=int(time.time()),  # noqa: TID251 - the edge
        )
        response = await self.api(request, facts)
        headers = [(name.encode(), value.encode()) for name, value in response.headers]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        if isinstance(response.body, bytes):
            await send({"type": "http.response.body", "body": response.body})
            return
        async for events in response.body:
            await send({"type": "http.response.body", "body": events, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def main() -> None:
    """Serve until interrupted."""
    sys.setswitchinterval(SWITCH_S)
    plain = PlainServer()
    config = uvicorn.Config(
        plain, host="127.0.0.1", port=plain.configuration.listen_port, http="h11", loop="asyncio",
        lifespan="off", log_level="error", access_log=False,
    )  # fmt: skip
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    asyncio.run(main())
