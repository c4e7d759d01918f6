# SPDX-License-Identifier: Apache-2.0
"""An appliance in memory, behind the client's real transport interface: relay, gateway and API in one object.

It seals, opens, attests and signs with the real protocol and a simulated PKI of its own. Everything that the
client sends is recorded before it is looked at, and a test may replace or cut whatever is sent back.
"""

import asyncio
import contextlib
import http.server
import inspect
import json
import secrets
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Self

import httpx
from cryptography.hazmat.primitives.serialization import Encoding
from nacl.signing import SigningKey
from search_answers import report_of, search_events

from adyton import AsyncClient, Client, Simulation
from adyton.edge import wall_clock_s
from adyton_attestation.policy import AppraisalPolicy, EnrolledPlatform, Identity, TcbPolicy
from adyton_attestation.simulation.collateral import EndorsementSpec, build_endorsements
from adyton_attestation.simulation.pki import SimulatedPki, create_pki
from adyton_attestation.simulation.quoting import EnclaveReportSpec, build_sgx_quote
from adyton_protocol import bhttp, media
from adyton_protocol.digests import sha256_hex
from adyton_protocol.errors import KeyConfigMismatch, OpenError
from adyton_protocol.hpke import KemPrivateKey
from adyton_protocol.key_config import KeyConfig
from adyton_protocol.keyset import Keyset, KeysetExtension, ModelIdentity, PublicKeyEntry
from adyton_protocol.ohttp import RequestOpener
from adyton_protocol.receipt import RECEIPT_HEADER, SCALING_RUN, Receipt, ReceiptBuilder
from adyton_protocol.report import AttestationReport, TeeType
from adyton_protocol.scaling_replay import search_event
from adyton_protocol.scaling_transcript import Transcript
from adyton_protocol.sse import comment_of, receipt_comment
from adyton_protocol.suite import Kem

URL = "http://appliance.test:8470"
MR_ENCLAVE = bytes(range(32))
MODEL = ModelIdentity(name="tiny", identity=sha256_hex(b"tiny weights"))
CONFIGURATION = sha256_hex(b"configuration")
DONE = b"data: [DONE]\n\n"
QUESTION = "canary-7f3a: how much is six times seven?"
WORDS = ("The answer", " is", " 42.")


@cache
def pki() -> SimulatedPki:
    """One simulated PKI for the whole test run; making keys is slow."""
    return create_pki(wall_clock_s())


@cache
def endorsements() -> bytes:
    """Collateral for it."""
    return build_endorsements(pki(), EndorsementSpec(issued_s=wall_clock_s() - 60))


def policy() -> AppraisalPolicy:
    """The policy that accepts the memory appliance."""
    return AppraisalPolicy(
        name="memory appliance",
        identity=Identity(mr_enclaves=frozenset({MR_ENCLAVE})),
        tcb=TcbPolicy(),
        platforms=(
            EnrolledPlatform(
                ppid=pki().platform.ppid,
                platform_instance_id=pki().platform.ppid,
                custodian="tests",
                place="memory",
            ),
        ),
        configurations=frozenset({CONFIGURATION}),
        models=((MODEL.name, frozenset({MODEL.identity})),),
    )


def simulation() -> Simulation:
    """What a client needs to accept the memory appliance."""
    root = pki().root.certificate.public_bytes(Encoding.DER)
    return Simulation(root_der=root, policy=policy())


class Signer:
    """An Ed25519 receipt key."""

    def __init__(self, key_id: str) -> None:
        self.key_id = key_id
        self.key = SigningKey.generate()

    def sign(self, message: bytes, /) -> bytes:
        """Sign."""
        return self.key.sign(message).signature


class Epoch:
    """One keyset with its private halves."""

    def __init__(self, number: int, *, life_s: int, now_s: int) -> None:
        self.private = KemPrivateKey.generate(Kem.X25519)
        self.config = KeyConfig.of(number % 256, self.private)
        self.signer = Signer(f"receipt-{number}")
        self.keyset = Keyset(
            subject=None,
            not_after=now_s + life_s,
            receipt_signing_keys=(
                PublicKeyEntry.ed25519(self.signer.key_id, self.signer.key.verify_key.encode()),
            ),
            e2ee_public_keys=(PublicKeyEntry.ohttp(f"ohttp-{number}", [self.config]),),
            extension=KeysetExtension(
                epoch=number, previous_keyset_digest=None, configuration_digest=CONFIGURATION, models=(MODEL,)
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One outer request, as the host sees it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Pieces(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A response body that arrives in given pieces; an exception among them is raised in its place."""

    def __init__(self, pieces: list[bytes | Exception]) -> None:
        self.pieces = pieces
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece

    def close(self) -> None:
        """Note that the client hung up."""
        self.closed = True

    async def aclose(self) -> None:
        """Note that the client hung up."""
        self.closed = True


@dataclass(slots=True)
class MemoryAppliance:
    """See the module. Knobs are plain attributes; set them before the request that they are for."""

    tee_type: TeeType = "simulated"
    life_s: int = 900
    clock: Callable[[], int] = wall_clock_s
    sent: list[Sent] = field(default_factory=list)
    inner: list[bhttp.Request] = field(default_factory=list)
    bodies: list[Pieces] = field(default_factory=list)
    epochs: list[Epoch] = field(default_factory=list)
    rotations: int = 0
    sign: Callable[["MemoryAppliance", ReceiptBuilder], Receipt] | None = None
    deliver: Callable[[list[bytes]], list[bytes | Exception]] | None = None
    intercept: Callable[["MemoryAppliance", Sent], httpx.Response | None] | None = None
    events: tuple[bytes, ...] | None = None
    end: bytes = DONE
    with_receipt: bool = True
    search: Transcript | None = None
    search_report: dict[str, Any] | None = None
    returned: str | None = None
    scores: dict[str, Any] | None = None
    last_receipt: Receipt | None = None

    def __post_init__(self) -> None:
        self.rotate()

    def rotate(self, *, forget: bool = True) -> None:
        """Start the next key epoch; ``forget`` drops the keys of the one before."""
        if forget:
            self.epochs.clear()
        self.rotations += 1
        self.epochs.append(Epoch(self.rotations, life_s=self.life_s, now_s=self.clock()))

    @property
    def epoch(self) -> Epoch:
        """The current epoch."""
        return self.epochs[-1]

    @property
    def transport(self) -> httpx.MockTransport:
        """What a client, synchronous or not, takes as its way to the host."""
        return httpx.MockTransport(self.handle)

    def paths(self) -> list[str]:
        """The outer paths that were asked for, in order, without queries."""
        return [sent.path.partition("?")[0] for sent in self.sent]

    @property
    def gateway_posts(self) -> list[Sent]:
        """The sealed requests that arrived."""
        return [sent for sent in self.sent if sent.method == "POST"]

    # --- The host's side ------------------------------------------------------------------------------

    def handle(self, request: httpx.Request) -> httpx.Response:
        """Record, then answer."""
        sent = Sent(
            method=request.method,
            path=request.url.raw_path.decode(),
            headers={name.lower(): value for name, value in request.headers.items()},
            body=request.read(),
        )
        self.sent.append(sent)
        if self.intercept is not None and (answer := self.intercept(self, sent)) is not None:
            return answer
        path, _, query = sent.path.partition("?")
        if path == media.ATTESTATION_PATH:
            return httpx.Response(200, content=self.report(query.removeprefix("nonce=")))
        if path == media.ENDORSEMENTS_PATH:
            return httpx.Response(200, content=endorsements())
        if path == media.GATEWAY_PATH and sent.method == "POST":
            return self.gateway(sent.body)
        return problem(404, "about:blank", "no such path")

    def report(self, challenge: str) -> bytes:
        """Quote the current keyset and the challenge."""
        unquoted = AttestationReport(
            tee_type=self.tee_type, quote=b"\0", keyset=self.epoch.keyset, nonce=challenge
        )
        spec = EnclaveReportSpec(
            mr_enclave=MR_ENCLAVE, report_data=unquoted.report_data(), cpu_svn=pki().platform.cpu_svn
        )
        return AttestationReport(
            tee_type=self.tee_type,
            quote=build_sgx_quote(pki(), spec),
            keyset=self.epoch.keyset,
            nonce=challenge,
        ).to_bytes()

    # --- The enclave's side ---------------------------------------------------------------------------

    def gateway(self, sealed: bytes) -> httpx.Response:
        """Open, answer, seal."""
        keys = {epoch.config.key_id: epoch.private for epoch in self.epochs}
        opener = RequestOpener(keys.get, chunked=True, max_bytes=media.MAX_REQUEST_BYTES)
        try:
            plaintext = opener.push(sealed) + opener.finish()
        except KeyConfigMismatch:
            return problem(422, media.PROBLEM_OHTTP_KEY, "unknown key")
        except OpenError:
            return problem(400, media.PROBLEM_MALFORMED, "the sealed request cannot be decapsulated")
        request = bhttp.parse_request(plaintext)
        self.inner.append(request)
        builder = ReceiptBuilder(
            receipt_id="rcpt-" + secrets.token_hex(8),
            keyset_digest=self.epoch.keyset.digest(),
            receipt_secret=opener.export_receipt_secret(),
            enc=opener.enc,
            request_body=request.content,
            endpoint=request.path,
            model=MODEL.name,
        )
        sealer = opener.response_sealer(secrets.token_bytes(32))
        chunks = [sealer.push(part) for part in self.answer(request, builder)] + [sealer.finish()]
        pieces = Pieces(list(chunks) if self.deliver is None else self.deliver(chunks))
        self.bodies.append(pieces)
        headers = {"content-type": media.OHTTP_CHUNKED_RESPONSE}
        return httpx.Response(200, headers=headers, stream=pieces)

    def answer(self, request: bhttp.Request, builder: ReceiptBuilder) -> list[bytes]:
        """The plaintexts of the response's chunks."""
        if request.method == "GET":
            body = json.dumps({"object": "list", "data": [{"id": MODEL.name, "object": "model"}]}).encode()
            return [self.whole(200, body, ())]
        asked = json.loads(request.content)
        if request.path == "/v1/score":
            return [self.score(builder)]
        if asked.get("model") != MODEL.name:
            error = {"message": "no such model", "type": "invalid_request_error", "param": "model"}
            body = json.dumps({"error": error | {"code": "model_not_found"}}).encode()
            return [self.whole(404, body, ())]
        builder.model_identity(name=MODEL.name, identity=MODEL.identity)
        more: dict[str, object] = {}
        events = tuple(delta_events(WORDS)) if self.events is None else self.events
        texts = ["".join(WORDS)]
        if self.search is not None and "scaling" in asked:
            builder.event(SCALING_RUN, search_event(self.search, builder.commitment))
            whole = asked["scaling"].get("return") == "all"
            report = report_of(self.search, whole=whole) if self.search_report is None else self.search_report
            events = tuple(search_events(self.search, report))
            texts = [self.search.candidates[index].text for index in report["choices"]]
            texts = texts if self.returned is None else [self.returned]
            more = {"x_report": report}
        if asked.get("stream"):
            return self.stream(builder, events)
        body = json.dumps(completion(*texts) | more).encode()
        builder.response_data(body)
        receipt = self.finish(builder)
        headers = ((RECEIPT_HEADER.encode(), receipt.header_value().encode()),) if self.with_receipt else ()
        return [self.whole(200, body, headers)]

    def score(self, builder: ReceiptBuilder) -> bytes:
        """What the scorer says, or that there is none."""
        if self.scores is None:
            error = {"message": "nobody judges this model", "code": "model_unsuitable", "param": "model"}
            return self.whole(400, json.dumps({"error": error}).encode(), ())
        body = json.dumps(self.scores).encode()
        builder.response_data(body)
        receipt = self.finish(builder).header_value().encode()
        return self.whole(200, body, ((RECEIPT_HEADER.encode(), receipt),))

    def whole(self, status: int, body: bytes, headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
        """A unary answer."""
        fields = ((b"content-type", b"application/json"), *headers)
        return bhttp.encode_response(bhttp.Response(status=status, headers=fields, content=body), pad_to=1024)

    def stream(self, builder: ReceiptBuilder, events: tuple[bytes, ...]) -> list[bytes]:
        """A streamed answer: one chunk for each event, a padding comment in each, the receipt before the end."""
        writer = bhttp.ResponseWriter()
        for event in events:
            builder.response_data(event)
        parts = [writer.head(200, ((b"content-type", b"text/event-stream"),))]
        parts += [writer.content(event + comment_of(16)) for event in events]
        end = self.end
        if self.with_receipt:
            end = receipt_comment(self.finish(builder).to_bytes()) + end
        return [*parts, *([writer.content(end)] if end else []), writer.finish()]

    def finish(self, builder: ReceiptBuilder) -> Receipt:
        """Sign the receipt, or whatever the test wants signed."""
        if self.sign is not None:
            return self.sign(self, builder)
        builder.generation_finished(finish_reasons=["stop"], usage={"completion_tokens": 3})
        self.last_receipt = builder.sign(self.epoch.signer, served_at=self.clock(), streamed=True)
        return self.last_receipt


def completion(*texts: str) -> dict[str, object]:
    """A chat completion with a choice for each text."""
    choices = [
        {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        for index, text in enumerate(texts)
    ]
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": MODEL.name,
        "choices": choices,
        "usage": {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4},
    }  # fmt: skip


def delta_events(words: tuple[str, ...]) -> Iterator[bytes]:
    """The data events of a streamed completion."""
    for index, word in enumerate(words):
        last = index == len(words) - 1
        choice = {"index": 0, "delta": {"content": word}, "finish_reason": "stop" if last else None}
        chunk = {
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL.name,
            "choices": [choice],
        }  # fmt: skip
        yield b"data: " + json.dumps(chunk).encode() + b"\n\n"


def problem(status: int, kind: str, detail: str, **headers: str) -> httpx.Response:
    """A problem document of host or gateway."""
    content = json.dumps({"type": kind, "status": status, "detail": detail}).encode()
    return httpx.Response(status, headers={"content-type": media.PROBLEM_JSON, **headers}, content=content)


# --- On a socket ------------------------------------------------------------------------------------------


def write_simulation(directory: Path) -> None:
    """Write the installation directory that ``Simulation.from_dir`` reads."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "root.pem").write_text(pki().root.pem())
    (directory / "policy.toml").write_text(policy().to_toml())


@contextlib.contextmanager
def serving(appliance: MemoryAppliance) -> Iterator[str]:
    """Serve the appliance over HTTP on a free loopback port; yields its base URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            url = f"{URL}{self.path}"
            answer = appliance.handle(
                httpx.Request(self.command, url, headers=dict(self.headers), content=body)
            )
            self.send_response(answer.status_code)
            for name in ("content-type", "retry-after"):
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            try:
                assert isinstance(answer.stream, httpx.SyncByteStream)
                for piece in answer.stream:
                    if piece:
                        self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                self.wfile.write(b"0\r\n\r\n")
            except ConnectionAbortedError:
                # Stands for an enclave that died: the host cuts the connection.
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True

        do_GET = do_POST = _serve  # noqa: N815 - the library's names.

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


# --- Both clients behind one face -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Got:
    """What a caller got before the end, or before the error."""

    status: int
    pieces: list[bytes]

    @property
    def body(self) -> bytes:
        """All of it."""
        return b"".join(self.pieces)


@dataclass(slots=True)
class Face:
    """The synchronous or the asynchronous client, as one thing to test."""

    asynchronous: bool
    options: dict[str, Any] = field(default_factory=dict)
    seen: list[bytes] = field(default_factory=list)
    client: Client | AsyncClient | None = None

    def connect(self, appliance: MemoryAppliance, **options: Any) -> Self:
        """Make the client; simulation is chosen unless ``options`` say otherwise."""
        made = {
            "simulation": simulation(),
            "transport": appliance.transport,
            "clock": appliance.clock,
        } | options
        self.client = AsyncClient(URL, **made) if self.asynchronous else Client(URL, **made)
        return self

    def send(self, method: str, path: str, body: object = None) -> Got:
        """Send a request through the sealed HTTP client; ``seen`` keeps what arrived before an error."""
        self.seen = []
        content = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"content-type": "application/json"}
        if isinstance(self.client, AsyncClient):
            return asyncio.run(self._send_async(self.client, method, path, content, headers))
        assert isinstance(self.client, Client)
        with self.client.http().stream(method, path, content=content, headers=headers) as response:
            for piece in response.iter_raw():
                self.seen.append(piece)
            return Got(status=response.status_code, pieces=self.seen)

    async def _send_async(
        self, client: AsyncClient, method: str, path: str, content: bytes | None, headers: dict[str, str]
    ) -> Got:
        async with client.http().stream(method, path, content=content, headers=headers) as response:
            async for piece in response.aiter_raw():
                self.seen.append(piece)
            return Got(status=response.status_code, pieces=self.seen)

    def ask(self, *, stream: bool = True, model: str = MODEL.name) -> Got:
        """Send a chat completion request."""
        messages = [{"role": "user", "content": QUESTION}]
        return self.send(
            "POST", "/v1/chat/completions", {"model": model, "stream": stream, "messages": messages}
        )

    def verify(self) -> Any:
        """Attest anew."""
        assert self.client is not None
        outcome = self.client.verify()
        return asyncio.run(outcome) if inspect.isawaitable(outcome) else outcome
