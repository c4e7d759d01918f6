# SPDX-License-Identifier: Apache-2.0
"""An enclave in the test's own process: the real gateway, keys and API over a scripted engine, driven through ASGI."""

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scripted_answers import ScriptedTree, answers

from adyton_enclave.config import Configuration, parse_configuration
from adyton_enclave.engine import (
    Constraint,
    EmbeddingRequest,
    Embeddings,
    Event,
    Finished,
    GenerationRequest,
    SamplingParams,
    TextDelta,
    Usage,
)
from adyton_enclave.engine.dialect import Dialect
from adyton_enclave.gateway import Gateway
from adyton_enclave.keys import KeyRing
from adyton_enclave.server import Surroundings, make_desk, make_gateway, make_ring
from adyton_protocol import bhttp, media
from adyton_protocol.digests import Digest
from adyton_protocol.errors import EngineError, InvalidRequest
from adyton_protocol.key_config import KeyConfig, parse_key_configs
from adyton_protocol.ohttp import RequestSealer
from adyton_protocol.padding import bucket
from adyton_protocol.receipt import (
    VerifiedReceipt,
    check_exchange,
    parse_receipt,
    parse_receipt_header,
    verify_receipt,
)
from adyton_protocol.sse import SseSplitter, find_receipt, is_comment

CONFIG = """
version = 1
attester = "gramine"
{extra}
[[model]]
name = "fake"
path = "fake.gguf"
content = "{digest}"
weights = "{digest}"
n_ctx = 256
license = "CC0-1.0"
{model_extra}
[model.sampling]
temperature = 0.5
max_tokens = 40
"""


def configuration(extra: str = "", model_extra: str = "") -> Configuration:
    """A valid configuration, with more members on request, of the file and of its one model."""
    text = CONFIG.format(extra=extra, model_extra=model_extra, digest="sha256:" + "a" * 64)
    return parse_configuration(text.encode())


IDENTITY = Digest("sha256:" + "1" * 64)
JUDGE = Digest("sha256:" + "2" * 64)
"""Identity of the scorer of :data:`JUDGE_MODEL`."""
JUDGE_MODEL = f"""[[model]]
name = "judge"
role = "scorer"
path = "judge.gguf"
content = "{"sha256:" + "b" * 64}"
weights = "{"sha256:" + "c" * 64}"
adapter = "judge.toml"
adapter_digest = "{"sha256:" + "d" * 64}"
n_ctx = 256
"""
CONTENT = Digest("sha256:" + "c" * 64)


class FakeClock:
    """Time that moves when it is told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.wall = 1_800_000_000

    def advance(self, seconds: float) -> None:
        self.now_s += seconds
        self.wall += int(seconds)

    def surroundings(self) -> Surroundings:
        return Surroundings(monotonic=lambda: self.now_s, wall_s=lambda: self.wall, entropy=os.urandom)


@dataclass
class FakeModel:
    """A vocabulary of bytes."""

    name: str = "fake"
    identity: Digest = IDENTITY
    content: Digest = CONTENT
    n_params: int = 1000
    n_ctx: int = 256
    n_vocab: int = 256
    generates: bool = True
    embedding_width: int = 4
    why_inexact: str | None = None
    dialect: Dialect = field(default_factory=lambda: Dialect(control_ids={}))
    defaults: SamplingParams = field(default_factory=lambda: SamplingParams(temperature=0.5))

    def tokenize(self, text: str) -> list[int]:
        return list(text.encode())

    def detokenize(self, token_ids: Sequence[int]) -> bytes:
        return bytes(token_ids)

    def spell(self, token_ids: Sequence[int]) -> str:
        return bytes(token_ids).decode("utf-8", "replace")

    async def compile_grammar(self, lark: str, *, param: str) -> Constraint:
        raise InvalidRequest("the scripted model follows no grammar", param=param)

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        tools: Sequence[Mapping[str, object]] | None = None,
        options: Mapping[str, object] | None = None,
    ) -> list[int]:
        if messages[-1]["role"] != "user":
            raise InvalidRequest("the last message must be the user's", param="messages")
        return list("".join(f"<{message['role']}>{message['content']}" for message in messages).encode())


class FakeGeneration:
    """Yields scripted events, perhaps waiting for the test before each."""

    def __init__(self, request: GenerationRequest, events: Sequence[Event | Exception]) -> None:
        self.request = request
        self.cancelled = False
        self.step: asyncio.Semaphore | None = None
        self._events = events
        self._completion_tokens = 0

    @property
    def usage(self) -> Usage:
        return Usage(
            prompt_tokens=len(self.request.prompt_token_ids), completion_tokens=self._completion_tokens
        )

    def cancel(self) -> None:
        self.cancelled = True

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[Event]:
        for event in self._events:
            if self.step is not None:
                await self.step.acquire()
            if isinstance(event, Exception):
                raise event
            if isinstance(event, TextDelta):
                self._completion_tokens += 1
            yield event


def words(request: GenerationRequest) -> list[Event | Exception]:
    """What the scripted engine says: three words for each choice."""
    usage = Usage(prompt_tokens=len(request.prompt_token_ids), completion_tokens=3)
    events: list[Event | Exception] = []
    for text in ("one ", "two ", "three"):
        events += [TextDelta(index=index, text=text) for index in range(request.n)]
    events += [Finished(index=index, finish_reason="stop", usage=usage) for index in range(request.n)]
    return events


class FakeEngine:
    """Fits the API's engine port."""

    def __init__(self, script: Callable[[GenerationRequest], Sequence[Event | Exception]] = words) -> None:
        self.models = {"fake": FakeModel()}
        self.says = answers("The answer is: 1")
        self.trees: list[ScriptedTree] = []
        self.failed = False
        self.script = script
        self.stepped = False
        self.refusal: EngineError | None = None
        self.generations: list[FakeGeneration] = []
        self.submitted = asyncio.Event()
        self.forgotten: set[bytes] = set()
        self.embedded: list[EmbeddingRequest] = []

    def forget_namespaces(self, namespaces: AbstractSet[bytes]) -> None:
        self.forgotten |= namespaces

    def submit(self, request: GenerationRequest) -> FakeGeneration:
        if self.refusal is not None:
            raise self.refusal
        generation = FakeGeneration(request, self.script(request))
        if self.stepped:
            generation.step = asyncio.Semaphore(0)
        self.generations.append(generation)
        self.submitted.set()
        return generation

    def open_tree(self, request: GenerationRequest) -> Any:
        """A tree whose branches say what ``says`` says."""
        if self.refusal is not None:
            raise self.refusal
        tree = ScriptedTree(request, self.says)
        if self.stepped:
            tree.step = asyncio.Semaphore(0)
        self.trees.append(tree)
        self.submitted.set()
        return tree

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Vectors that follow from a text's length and first token."""
        if self.refusal is not None:
            raise self.refusal
        self.embedded.append(request)
        vectors = tuple(np.array([len(one), 2, one[0], 0], dtype=np.float32) for one in request.inputs)
        usage = Usage(prompt_tokens=request.n_tokens, completion_tokens=0)
        return Embeddings(vectors=vectors, usage=usage)


class FakeAttester:
    """Gives report data back as its quote."""

    tee_type = "simulated"

    def quote(self, report_data: bytes) -> bytes:
        return b"quote over " + report_data


@dataclass
class Outer:
    """What the host sees of an answer."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    parts: list[bytes] = field(default_factory=list)
    ended: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)

    def problem(self) -> str:
        assert self.headers["content-type"] == media.PROBLEM_JSON
        return str(json.loads(self.body)["type"])


async def call(
    app: Any,
    method: str,
    path: str,
    *,
    body: Sequence[bytes] = (b"",),
    headers: Mapping[str, str] | None = None,
    query: bytes = b"",
    hang_up: asyncio.Event | None = None,
    on_part: Callable[[Outer], None] | None = None,
) -> Outer:
    """Drive an ASGI application through one request, as the server would."""
    outer = Outer()
    parts = list(body)
    done = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if parts:
            part = parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(parts)}
        await (done if hang_up is None else hang_up).wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            outer.status = message["status"]
            outer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            outer.parts.append(message.get("body", b""))
            outer.ended = not message.get("more_body", False)
            if on_part is not None:
                on_part(outer)
            # A real server writes to a socket here.
            await asyncio.sleep(0)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query,
        "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
    }
    await app(scope, receive, send)
    done.set()
    return outer


@dataclass
class Inner:
    """An opened answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def error(self) -> Any:
        return self.json()["error"]

    def groups(self) -> list[bytes]:
        splitter = SseSplitter()
        groups = splitter.push(self.body)
        assert splitter.finish() == b""
        return groups

    def data(self) -> list[Any]:
        """Decoded events without comments; ``[DONE]`` as a string."""
        texts = [group.removeprefix(b"data: ").strip() for group in self.groups() if not is_comment(group)]
        return ["[DONE]" if text == b"[DONE]" else json.loads(text) for text in texts]


class Sealed:
    """One request of a client: real sealing, real opening, real receipt check."""

    def __init__(
        self,
        config: KeyConfig,
        body: object = None,
        *,
        method: str = "POST",
        path: str = "/v1/chat/completions",
        chunked: bool = True,
        authority: str = "adyton.invalid",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.body = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        self.chunked = chunked
        self._sealer = RequestSealer(config, chunked=chunked)
        fields = {"content-type": "application/json", **(headers or {})}
        message = bhttp.encode_request(
            bhttp.Request(
                method=method,
                scheme="https",
                authority=authority,
                path=path,
                headers=tuple((name.encode(), value.encode()) for name, value in fields.items()),
                content=self.body,
            ),
            pad_to=bucket,
        )
        self.bytes = self._sealer.push(message) + self._sealer.finish()
        self._opener = self._sealer.response_opener()

    @property
    def media_type(self) -> str:
        return media.OHTTP_CHUNKED_REQUEST if self.chunked else media.OHTTP_REQUEST

    def open(self, outer: Outer) -> Inner:
        """Open the whole sealed answer; raises unless its authenticated end is there."""
        assert outer.status == 200, outer.body
        expected = media.OHTTP_CHUNKED_RESPONSE if self.chunked else media.OHTTP_RESPONSE
        assert outer.headers["content-type"] == expected
        message = self._opener.push(outer.body) + self._opener.finish()
        response = bhttp.parse_response(message)
        headers = {name.decode(): value.decode() for name, value in response.headers}
        return Inner(status=response.status, headers=headers, body=response.content)

    def check_receipt(self, inner: Inner, keyset: Any) -> VerifiedReceipt:
        """Find the receipt and check it as a client does."""
        if inner.headers["content-type"].startswith("text/event-stream"):
            groups = inner.groups()
            (receipt_json,) = [found for group in groups if (found := find_receipt(group)) is not None]
            receipt = parse_receipt(receipt_json)
            seen = b"".join(
                group for group in groups if not is_comment(group) and group != b"data: [DONE]\n\n"
            )
        else:
            receipt = parse_receipt_header(inner.headers["adyton-receipt"])
            seen = inner.body
        verified = verify_receipt(receipt, keyset)
        check_exchange(
            verified,
            enc=self._sealer.enc,
            receipt_secret=self._sealer.export_receipt_secret(),
            request_body=self.body,
            response_body=seen,
        )
        return verified


class Enclave:
    """Everything together."""

    def __init__(
        self,
        extra: str = "",
        engine: FakeEngine | None = None,
        *,
        model_extra: str = "",
        scorers: Mapping[str, Any] | None = None,
    ) -> None:
        self.configuration = configuration(extra, model_extra)
        self.clock = FakeClock()
        self.engine = FakeEngine() if engine is None else engine
        surroundings = self.clock.surroundings()
        self.ring: KeyRing = make_ring(self.configuration, self.engine, surroundings)
        desk = make_desk(self.configuration, FakeAttester(), self.ring, surroundings)  # type: ignore[arg-type]
        self.gateway: Gateway = make_gateway(
            self.configuration, self.engine, self.ring, desk, surroundings, scorers or {}
        )

    @property
    def keyset(self) -> Any:
        return self.ring.current().keyset

    def config(self, which: int = 0) -> KeyConfig:
        """The current X-Wing key, or X25519 with ``which=1``."""
        return parse_key_configs(self.ring.current().key_configs)[which]

    def seal(self, body: object = None, *, which: int = 0, **options: Any) -> Sealed:
        return Sealed(self.config(which), body, **options)

    async def post(self, data: bytes | Sequence[bytes], media_type: str, **options: Any) -> Outer:
        parts = [data] if isinstance(data, bytes) else data
        headers = {"content-type": media_type}
        return await call(self.gateway, "POST", media.GATEWAY_PATH, body=parts, headers=headers, **options)

    async def ask(self, body: object = None, **options: Any) -> Inner:
        """Seal, send, open."""
        sealed = self.seal(body, **options)
        return sealed.open(await self.post(sealed.bytes, sealed.media_type))


def digest_of(text: str) -> Digest:
    """Some digest."""
    return Digest("sha256:" + hashlib.sha256(text.encode()).hexdigest())


CHAT: dict[str, object] = {"model": "fake", "messages": [{"role": "user", "content": "hello"}]}
