# SPDX-License-Identifier: Apache-2.0
"""The enclave's API over its real engine, in the test's own process and without seals, as an httpx transport."""

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
from tiny_gguf import make_tiny_gguf
from tiny_scorers import golden_adapter, make_scorer

from adyton_enclave.api.app import Api
from adyton_enclave.config import parse_configuration
from adyton_enclave.exchange import INNER_HEADERS, ExchangeFacts, InnerRequest
from adyton_enclave.keys import ReceiptSigner
from adyton_enclave.server import Surroundings, load_scorers, make_api, make_engine
from adyton_protocol.digests import sha256_hex
from tiny_appliance import TINY, TINY_MAX_TOKENS

INNER_URL = "https://adyton.invalid"
N_CTX = 768


class OpenTransport(httpx.BaseTransport):
    """Hands each request to the API as the gateway does once it has opened one."""

    def __init__(self, api: Api, runner: asyncio.Runner) -> None:
        self._api = api
        self._runner = runner
        self._signer = ReceiptSigner()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        return self._runner.run(self._answer(request))

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        inner = InnerRequest(
            method=request.method,
            path=request.url.raw_path.decode("ascii"),
            headers={name: value for name, value in request.headers.items() if name in INNER_HEADERS},
            body=request.read(),
        )
        facts = ExchangeFacts(
            enc=os.urandom(32),
            receipt_secret=os.urandom(32),
            keyset_digest=sha256_hex(b"no keyset"),
            signer=self._signer,
            accepted_at=1_800_000_000,
        )
        answer = await self._api(inner, facts)
        body = answer.body
        if not isinstance(body, bytes):
            body = b"".join([events async for events in body])
        return httpx.Response(answer.status, headers=list(answer.headers), stream=httpx.ByteStream(body))


@contextlib.contextmanager
def open_api(directory: Path) -> Iterator[httpx.Client]:
    """Run the engine with the tiny model and a tiny scorer until the block ends."""
    model = make_tiny_gguf(directory / "tiny.gguf", n_ctx=N_CTX)
    scorer = make_scorer(directory, "skywork")
    files = scorer.files(golden_adapter(scorer, directory / "adapter.toml"))
    configuration = parse_configuration(
        f"""version = 1
attester = "gramine"
[[model]]
name = "{TINY}"
path = "{model.path}"
content = "{model.pin.content}"
weights = "{model.pin.weights}"
n_ctx = {N_CTX}
embeddings = true
scorer = "{scorer.name}"
[model.sampling]
max_tokens = {TINY_MAX_TOKENS}
[[model]]
name = "{scorer.name}"
role = "scorer"
path = "{scorer.path}"
content = "{scorer.spec().pin.content}"
weights = "{scorer.spec().pin.weights}"
adapter = "{files.adapter}"
adapter_digest = "{files.adapter_digest}"
head = "{files.head}"
head_digest = "{files.head_digest}"
n_ctx = {N_CTX}
""".encode()
    )
    surroundings = Surroundings(monotonic=time.monotonic, wall_s=lambda: 1_800_000_000, entropy=os.urandom)
    engine = make_engine(configuration)
    engine.start()
    try:
        with asyncio.Runner() as runner:
            scorers = runner.run(load_scorers(configuration, engine))
            transport = OpenTransport(make_api(configuration, engine, surroundings, scorers), runner)
            with httpx.Client(transport=transport, base_url=INNER_URL) as http:
                yield http
    finally:
        engine.stop()
