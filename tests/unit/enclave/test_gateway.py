# SPDX-License-Identifier: Apache-2.0
"""The enclave's edge: what is refused in the clear, what is sealed, and what cannot be done twice."""

import asyncio
import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.enclave.harness import CHAT, Enclave, Outer, call

from adyton_protocol import bhttp, media
from adyton_protocol.cmw_evidence import parse_evidence
from adyton_protocol.errors import ProtocolError
from adyton_protocol.key_config import parse_key_configs
from adyton_protocol.ohttp import RequestSealer
from adyton_protocol.report import parse_report

GATEWAY = media.GATEWAY_PATH
STREAM = CHAT | {"stream": True}


@pytest.fixture
def enclave() -> Enclave:
    """An enclave over a scripted engine."""
    return Enclave()


@pytest.mark.parametrize("which", [0, 1], ids=["x-wing", "x25519"])
@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "plain"])
async def test_a_sealed_request_gets_a_sealed_answer(enclave: Enclave, which: int, chunked: bool) -> None:
    """Both keys and both framings work, and the answer's receipt covers exactly this exchange."""
    sealed = enclave.seal(CHAT, which=which, chunked=chunked)
    outer = await enclave.post(sealed.bytes, sealed.media_type)
    inner = sealed.open(outer)
    assert inner.status == 200
    assert inner.json()["choices"][0]["message"]["content"] == "one two three"
    verified = sealed.check_receipt(inner, enclave.keyset)
    assert [event.type for event in verified.receipt.events] == [
        "request.received",
        "model.identity",
        "generation.finished",
        "response.returned",
    ]
    assert outer.headers["cache-control"] == "no-store"


async def test_the_request_may_come_in_any_pieces(enclave: Enclave) -> None:
    """One byte at a time is as good as all at once."""
    sealed = enclave.seal(CHAT)
    outer = await enclave.post(
        [sealed.bytes[at : at + 1] for at in range(len(sealed.bytes))], sealed.media_type
    )
    assert sealed.open(outer).status == 200


async def test_a_plain_request_never_gets_a_chunked_answer(enclave: Enclave) -> None:
    """A whole request that asks for a stream gets the collected events as one sealed message."""
    sealed = enclave.seal(STREAM, chunked=False)
    outer = await enclave.post(sealed.bytes, sealed.media_type)
    assert outer.headers["content-type"] == media.OHTTP_RESPONSE
    inner = sealed.open(outer)
    assert inner.data()[-1] == "[DONE]"
    sealed.check_receipt(inner, enclave.keyset)


async def test_the_final_chunk_is_empty_and_a_write_of_its_own(enclave: Enclave) -> None:
    """A real peer fails when the final chunk arrives in two reads: one length byte and one tag, alone."""
    sealed = enclave.seal(STREAM)
    outer = await enclave.post(sealed.bytes, sealed.media_type)
    assert len(outer.parts[-1]) == 1 + 16
    assert outer.ended
    assert sealed.open(outer).data()[-1] == "[DONE]"


async def test_a_replay_is_refused_and_not_executed(enclave: Enclave) -> None:
    """The same sealed bytes are accepted once; the second time the engine hears nothing of them."""
    sealed = enclave.seal(CHAT)
    assert (await enclave.post(sealed.bytes, sealed.media_type)).status == 200
    again = await enclave.post(sealed.bytes, sealed.media_type)
    assert again.status == 409
    assert again.problem() == media.PROBLEM_REPLAY
    assert len(enclave.engine.generations) == 1


async def test_a_replay_is_refused_while_the_first_is_still_running(enclave: Enclave) -> None:
    """The memory is written before any work, not after it."""
    enclave.engine.stepped = True
    sealed = enclave.seal(STREAM)
    first = asyncio.create_task(enclave.post(sealed.bytes, sealed.media_type))
    await enclave.engine.submitted.wait()
    assert (await enclave.post(sealed.bytes, sealed.media_type)).status == 409
    first.cancel()


async def test_a_replay_across_the_end_of_an_epoch_is_refused(enclave: Enclave) -> None:
    """A rotation does not empty the memory of the key before, as long as that key opens requests."""
    sealed = enclave.seal(CHAT)
    await enclave.post(sealed.bytes, sealed.media_type)
    enclave.clock.advance(901)
    assert (await enclave.post(sealed.bytes, sealed.media_type)).status == 409


async def test_the_previous_epoch_opens_requests_and_then_no_more(enclave: Enclave) -> None:
    """Sealed before a rotation: served during the overlap, refused with the key problem after it."""
    early, late = enclave.seal(CHAT), enclave.seal(CHAT)
    keyset = enclave.keyset
    enclave.clock.advance(901)
    assert enclave.keyset != keyset
    inner = early.open(await enclave.post(early.bytes, early.media_type))
    # Signed by the key that its own client has attested.
    early.check_receipt(inner, keyset)
    enclave.clock.advance(300)
    refused = await enclave.post(late.bytes, late.media_type)
    assert refused.status == 422
    assert refused.problem() == media.PROBLEM_OHTTP_KEY
    assert len(enclave.engine.generations) == 1


async def test_a_rotation_in_the_middle_of_a_stream_loses_nothing(enclave: Enclave) -> None:
    """A stream outlives its key, twice over; end marker and receipt included."""
    enclave.engine.stepped = True
    sealed = enclave.seal(STREAM)
    keyset = enclave.keyset
    running = asyncio.create_task(enclave.post(sealed.bytes, sealed.media_type))
    await enclave.engine.submitted.wait()
    step = enclave.engine.generations[0].step
    assert step is not None
    for _ in range(8):
        enclave.clock.advance(901)
        enclave.ring.current()
        step.release()
        await asyncio.sleep(0)
    inner = sealed.open(await running)
    text = "".join(
        event["choices"][0]["delta"].get("content", "") for event in inner.data() if event != "[DONE]"
    )
    assert text == "one two three"
    sealed.check_receipt(inner, keyset)


async def test_an_unknown_key_is_named_as_such(enclave: Enclave) -> None:
    """The client learns that it has to attest again, which is the one thing it can act on."""
    sealed = enclave.seal(CHAT)
    ids = enclave.ring.live_key_ids()
    free = next(key_id for key_id in range(256) if key_id not in ids)
    for changed in (bytes([free]) + sealed.bytes[1:], sealed.bytes[:5] + b"\xff\xff" + sealed.bytes[7:]):
        outer = await enclave.post(changed, sealed.media_type)
        assert (outer.status, outer.problem()) == (422, media.PROBLEM_OHTTP_KEY)


@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "plain"])
async def test_every_damage_gets_the_same_answer(enclave: Enclave, chunked: bool) -> None:
    """Truncation, a flipped bit and noise are one problem with one body, and execute nothing."""
    bodies = set()
    for damage in (
        lambda data: data[:-1],
        lambda data: data[:100],
        lambda data: data[:3],
        lambda _data: b"",
        lambda data: data + b"\x00",
        lambda data: _flip(data, 40),
        lambda data: _flip(data, 7 + 1120 + 40),
        lambda data: _flip(data, len(data) - 1),
    ):
        sealed = enclave.seal(CHAT, chunked=chunked)
        outer = await enclave.post(damage(sealed.bytes), sealed.media_type)
        assert outer.status == 400
        bodies.add(outer.body)
    assert len(bodies) == 1
    assert not enclave.engine.generations


def _flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


async def test_damaged_noise_does_not_fill_the_replay_memory(enclave: Enclave) -> None:
    """Only what opened is remembered, so that nobody fills the memory without sealing a request."""
    sealed = enclave.seal(CHAT)
    for at in range(7, 60):
        changed = sealed.bytes[:at] + bytes([sealed.bytes[at] ^ 1]) + sealed.bytes[at + 1 :]
        await enclave.post(changed, sealed.media_type)
    assert not enclave.ring.current().seen
    assert (await enclave.post(sealed.bytes, sealed.media_type)).status == 200


@settings(max_examples=100)
@given(data=st.binary(max_size=3000), chunked=st.booleans())
async def test_no_bytes_break_the_gateway(data: bytes, chunked: bool) -> None:
    """Whatever arrives, the answer is a problem document with a 4xx status."""
    enclave = Enclave()
    kind = media.OHTTP_CHUNKED_REQUEST if chunked else media.OHTTP_REQUEST
    outer = await enclave.post(data, kind)
    assert outer.status in {400, 422}
    assert outer.headers["content-type"] == media.PROBLEM_JSON


async def test_an_announced_oversize_is_refused_before_reading() -> None:
    """A request that says it is too large is refused without waiting for it."""
    enclave = Enclave("[limits]\nmax_request_bytes = 4096")
    headers = {"content-type": media.OHTTP_REQUEST, "content-length": "4097"}
    outer = await call(enclave.gateway, "POST", GATEWAY, body=(), headers=headers)
    assert (outer.status, outer.problem()) == (413, media.PROBLEM_TOO_LARGE)


@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "plain"])
async def test_an_unannounced_oversize_is_refused_at_the_limit(chunked: bool) -> None:
    """Counting bytes does not rest on what was announced."""
    enclave = Enclave("[limits]\nmax_request_bytes = 4096")
    sealed = enclave.seal(CHAT | {"stop": ["x" * 200] * 16, "user": "u" * 1000}, chunked=chunked)
    outer = await enclave.post(
        [sealed.bytes[:2000], sealed.bytes[2000:4000], sealed.bytes[4000:]], sealed.media_type
    )
    assert (outer.status, outer.problem()) == (413, media.PROBLEM_TOO_LARGE)


async def test_other_media_types_are_refused(enclave: Enclave) -> None:
    """A plaintext API call is refused with an explanation and never read as one."""
    outer = await enclave.post(json.dumps(CHAT).encode(), "application/json")
    assert (outer.status, outer.problem()) == (415, media.PROBLEM_PLAINTEXT)
    assert not enclave.engine.generations


async def test_a_chunked_request_under_the_plain_media_type_does_not_open(enclave: Enclave) -> None:
    """The framings are domain-separated; a host cannot turn one into the other."""
    for sealed, other in (
        (enclave.seal(CHAT, chunked=True), media.OHTTP_REQUEST),
        (enclave.seal(CHAT, chunked=False), media.OHTTP_CHUNKED_REQUEST),
    ):
        assert (await enclave.post(sealed.bytes, other)).status == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", GATEWAY, 405),
        ("POST", "/readyz", 405),
        ("POST", media.ATTESTATION_PATH, 405),
        ("GET", "/v1/models", 404),
        ("POST", "/v1/chat/completions", 404),
        ("GET", "/metrics", 404),
        ("GET", "/", 404),
    ],
)
async def test_nothing_else_is_served_in_the_clear(
    enclave: Enclave, method: str, path: str, status: int
) -> None:
    """The outer side has three paths; the API is not among them."""
    outer = await call(enclave.gateway, method, path)
    assert outer.status == status
    assert outer.problem() == "about:blank"


async def test_too_many_exchanges_are_refused() -> None:
    """Beyond the limit requests are turned away at once, and served again when one has ended."""
    enclave = Enclave("[limits]\nmax_exchanges = 1")
    enclave.engine.stepped = True
    first = enclave.seal(STREAM)
    running = asyncio.create_task(enclave.post(first.bytes, first.media_type))
    await enclave.engine.submitted.wait()
    second = enclave.seal(CHAT)
    outer = await enclave.post(second.bytes, second.media_type)
    assert (outer.status, outer.problem()) == (503, media.PROBLEM_BUSY)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    enclave.engine.stepped = False
    # It never reached the keys, so the very same bytes may come again.
    assert (await enclave.post(second.bytes, second.media_type)).status == 200


async def test_hanging_up_cancels_the_generation(enclave: Enclave) -> None:
    """When the connection closes in mid-answer, the engine is told at once and the exchange ends."""
    enclave.engine.stepped = True
    sealed = enclave.seal(STREAM)
    gone = asyncio.Event()
    running = asyncio.create_task(enclave.post(sealed.bytes, sealed.media_type, hang_up=gone))
    await enclave.engine.submitted.wait()
    gone.set()
    outer = await running
    assert enclave.engine.generations[0].cancelled
    assert not outer.ended


async def test_hanging_up_while_sending_executes_nothing(enclave: Enclave) -> None:
    """An upload that breaks off is no request."""
    gone = asyncio.Event()
    gone.set()
    sealed = enclave.seal(CHAT)
    headers = {"content-type": sealed.media_type}
    parts = [sealed.bytes[:1500]]

    async def receive() -> dict[str, object]:
        if parts:
            return {"type": "http.request", "body": parts.pop(), "more_body": True}
        return {"type": "http.disconnect"}

    outer = Outer()

    async def send(message: object) -> None:
        outer.parts.append(b"x")

    scope = {
        "type": "http",
        "method": "POST",
        "path": GATEWAY,
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    await enclave.gateway(scope, receive, send)
    assert not outer.parts
    assert not enclave.engine.generations


async def test_a_foreign_authority_is_refused_inside_the_seal(enclave: Enclave) -> None:
    """A request sealed for another service is not answered, and the host does not learn why."""
    inner = await enclave.ask(CHAT, authority="evil.example")
    assert inner.status == 421
    assert (await enclave.ask(CHAT, authority="OHTTP.invalid")).status == 200


async def test_a_configured_authority_is_answered() -> None:
    """The list is the operator's."""
    enclave = Enclave('authorities = ["127.0.0.1:8470"]')
    assert (await enclave.ask(CHAT, authority="127.0.0.1:8470")).status == 200
    assert (await enclave.ask(CHAT)).status == 421


async def test_outer_headers_influence_nothing(enclave: Enclave) -> None:
    """A host that adds method, path, host or forwarding headers changes no answer."""
    sealed = enclave.seal(method="GET", path="/v1/models")
    headers = {
        "content-type": sealed.media_type,
        "host": "evil.example",
        "x-http-method-override": "DELETE",
        "x-original-url": "/v1/chat/completions",
        "x-forwarded-for": "203.0.113.9",
    }
    outer = await call(enclave.gateway, "POST", GATEWAY, body=[sealed.bytes], headers=headers)
    assert sealed.open(outer).json()["data"][0]["id"] == "fake"


async def test_no_inner_header_gets_out(enclave: Enclave) -> None:
    """Outer headers of an answer are the same whatever is inside."""
    plain = enclave.seal(method="GET", path="/v1/models")
    chat = enclave.seal(CHAT)
    wrong = enclave.seal({"nonsense": 1})
    outers = [await enclave.post(sealed.bytes, sealed.media_type) for sealed in (plain, chat, wrong)]
    assert len({json.dumps(outer.headers) for outer in outers}) == 1
    assert {outer.status for outer in outers} == {200}


async def test_a_message_that_is_no_binary_http_is_a_sealed_error(enclave: Enclave) -> None:
    """What was decapsulated is answered inside the seal, even if it makes no sense."""
    sealer = RequestSealer(enclave.config(), chunked=True)
    data = sealer.push(b"\x07 this is no message") + sealer.finish()
    outer = await enclave.post(data, media.OHTTP_CHUNKED_REQUEST)
    assert outer.status == 200
    opener = sealer.response_opener()
    response = bhttp.parse_response(opener.push(outer.body) + opener.finish())
    assert response.status == 400


@pytest.mark.parametrize(
    "tamper",
    [
        lambda parts, _other: parts[:-1],
        lambda parts, _other: [parts[0], parts[2], parts[1], *parts[3:]],
        lambda parts, _other: [parts[0], parts[1], *parts[1:]],
        lambda parts, other: [parts[0], other[1], *parts[2:]],
        lambda parts, _other: [*parts[:2], parts[-1]],
    ],
    ids=["cut", "reordered", "duplicated", "spliced", "shortened"],
)
async def test_a_tampered_stream_does_not_open(
    enclave: Enclave, tamper: Callable[[list[bytes], list[bytes]], list[bytes]]
) -> None:
    """Whatever a host does to the chunks of an answer, the client's opener raises."""
    sealed, other = enclave.seal(STREAM), enclave.seal(STREAM)
    outer = await enclave.post(sealed.bytes, sealed.media_type)
    foreign = await enclave.post(other.bytes, other.media_type)
    outer.parts = tamper(outer.parts, foreign.parts)
    with pytest.raises(ProtocolError):
        sealed.open(outer)


async def test_the_key_list_is_the_attested_one(enclave: Enclave) -> None:
    """GET gives foreign clients exactly the bytes that the keyset binds, X-Wing first."""
    outer = await call(enclave.gateway, "GET", GATEWAY)
    assert outer.headers["content-type"] == media.OHTTP_KEYS
    assert outer.body == bytes.fromhex(enclave.keyset.e2ee_public_keys[0].public_key)
    kems = [config.kem.name for config in parse_key_configs(outer.body)]
    assert kems == ["X_WING", "X25519"]


async def test_attestation_binds_keyset_and_challenge(enclave: Enclave) -> None:
    """The report carries a quote over the statement of this keyset and this challenge."""
    nonce = "0123456789abcdef" * 4
    outer = await call(enclave.gateway, "GET", media.ATTESTATION_PATH, query=f"nonce={nonce}".encode())
    report = parse_report(outer.body)
    assert report.nonce == nonce
    assert report.quote == b"quote over " + report.report_data()
    assert report.keyset == enclave.keyset
    assert report.keyset.extension.configuration_digest == enclave.configuration.digest


@pytest.mark.parametrize(
    "query",
    [
        "nonce",
        "nonce=",
        "nonce=" + "a" * 63,
        "nonce=" + "A" * 64,
        "nonce=" + "a" * 64 + "&x=1",
        "nonce=" + "a" * 64 + "&nonce=" + "b" * 64,
        "report_data=" + "a" * 128,
        "%ff",
    ],
)
async def test_a_challenge_is_exactly_one_nonce(enclave: Enclave, query: str) -> None:
    """No malformed challenge gets a quote, and nothing else can be smuggled into one."""
    outer = await call(enclave.gateway, "GET", media.ATTESTATION_PATH, query=query.encode())
    assert (outer.status, outer.problem()) == (400, media.PROBLEM_MALFORMED)
    assert json.loads(outer.body)["error"]["type"] == "invalid_request_error"


async def test_without_a_challenge_one_quote_serves_a_whole_epoch() -> None:
    """The unchallenged form is there for caches, costs the platform one quote, and says that it is unchallenged."""
    enclave = Enclave("[limits]\nquote_burst = 1\nquotes_per_minute = 1")
    reports = [
        parse_report((await call(enclave.gateway, "GET", media.ATTESTATION_PATH)).body) for _ in range(5)
    ]
    assert reports[0].nonce is None
    assert reports[0].quote == b"quote over " + reports[0].report_data()
    assert all(report == reports[0] for report in reports)
    enclave.ring.rotate()
    refused = await call(enclave.gateway, "GET", media.ATTESTATION_PATH)
    assert refused.problem() == media.PROBLEM_BUSY, (
        "the next epoch needs a quote of its own, and the limit holds"
    )


@pytest.mark.parametrize("media_type", [media.CMW_JSON, media.CMW_CBOR])
async def test_evidence_is_wrapped_on_request(enclave: Enclave, media_type: str) -> None:
    """The same keyset, challenge and quote, as a collection of conceptual messages."""
    nonce = "0123456789abcdef" * 4
    headers = {"accept": media_type}
    outer = await call(
        enclave.gateway, "GET", media.ATTESTATION_PATH, query=f"nonce={nonce}".encode(), headers=headers
    )
    assert (outer.status, outer.headers["content-type"]) == (200, media_type)
    report = parse_evidence(outer.body).report
    assert (report.nonce, report.keyset) == (nonce, enclave.keyset)
    assert report.quote == b"quote over " + report.report_data()


async def test_an_encoding_that_does_not_exist_is_refused(enclave: Enclave) -> None:
    """Nothing is quoted for somebody who could not read it."""
    headers = {"accept": "application/eat+cwt"}
    outer = await call(enclave.gateway, "GET", media.ATTESTATION_PATH, headers=headers)
    assert (outer.status, outer.problem()) == (406, media.PROBLEM_NOT_ACCEPTABLE)


async def test_challenges_are_rate_limited() -> None:
    """Beyond the burst a challenge is refused with advice, and taken again when time has passed."""
    enclave = Enclave("[limits]\nquote_burst = 2\nquotes_per_minute = 60")
    query = b"nonce=" + b"a" * 64

    async def challenge() -> Outer:
        return await call(enclave.gateway, "GET", media.ATTESTATION_PATH, query=query)

    assert [(await challenge()).status for _ in range(3)] == [200, 200, 429]
    refused = await challenge()
    assert refused.problem() == media.PROBLEM_BUSY
    assert int(refused.headers["retry-after"]) >= 1
    enclave.clock.advance(1)
    assert (await challenge()).status == 200


async def test_readiness_tells_the_live_key_ids(enclave: Enclave) -> None:
    """The host routes by key id: current ones first, the previous ones while they open requests."""
    first = json.loads((await call(enclave.gateway, "GET", "/readyz")).body)
    assert first["ready"] is True
    assert len(first["key_ids"]) == 2
    enclave.clock.advance(901)
    second = json.loads((await call(enclave.gateway, "GET", "/readyz")).body)
    assert second["key_ids"][2:] == first["key_ids"]
    enclave.clock.advance(300)
    third = json.loads((await call(enclave.gateway, "GET", "/readyz")).body)
    assert third["key_ids"] == second["key_ids"][:2]
    assert third["not_after"] == enclave.keyset.not_after
