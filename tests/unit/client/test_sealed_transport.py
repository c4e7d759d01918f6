# SPDX-License-Identifier: Apache-2.0
"""The transports: attest first, seal, stream, and never show an incomplete answer as a complete one."""

import json
from dataclasses import replace

import httpx
import pytest
from memory_appliance import (
    DONE,
    QUESTION,
    URL,
    WORDS,
    Epoch,
    Face,
    MemoryAppliance,
    Pieces,
    Sent,
    delta_events,
    policy,
    problem,
    simulation,
)

from adyton import Client, Simulation
from adyton_attestation.policy import Identity
from adyton_protocol import media
from adyton_protocol.errors import (
    AdytonError,
    AppraisalError,
    AttestationError,
    ConfigError,
    FreshnessError,
    KeyConfigMismatch,
    LocalProtocolError,
    OpenError,
    ProtocolError,
    RelayRefused,
    RemoteProtocolError,
    ReplayedRequest,
    TransportError,
    TruncatedMessage,
)

EVENTS = tuple(delta_events(WORDS))


def test_a_streamed_answer_arrives_event_by_event_and_complete(face: Face, memory: MemoryAppliance) -> None:
    """Each event is passed on as it comes, padding and receipt removed, the end marker last."""
    got = face.connect(memory).ask()
    assert got.status == 200
    assert got.pieces == [*EVENTS, DONE]


def test_a_unary_answer_arrives_complete(face: Face, memory: MemoryAppliance) -> None:
    """A whole answer keeps its bytes."""
    got = face.connect(memory).ask(stream=False)
    assert json.loads(got.body)["choices"][0]["message"]["content"] == "".join(WORDS)


def test_evidence_is_fetched_and_appraised_before_any_byte_of_a_request(
    face: Face, memory: MemoryAppliance
) -> None:
    """The gateway is first contacted after report and endorsements were fetched."""
    face.connect(memory).ask()
    assert memory.paths() == [media.ATTESTATION_PATH, media.ENDORSEMENTS_PATH, media.GATEWAY_PATH]


def test_nothing_is_sent_when_the_appraisal_fails(face: Face, memory: MemoryAppliance) -> None:
    """A wrong measurement stops the request before it is sealed; the refusal says which check failed."""
    other = replace(policy(), identity=Identity(mr_enclaves=frozenset({b"\xff" * 32})))
    wrong = Simulation(root_der=simulation().root_der, policy=other)
    with pytest.raises(AppraisalError) as caught:
        face.connect(memory, simulation=wrong).ask()
    assert caught.value.check == "enclave-identity"
    assert memory.gateway_posts == []


def test_simulated_evidence_is_refused_by_default(face: Face, memory: MemoryAppliance) -> None:
    """A client for real appliances refuses simulated evidence before it sends anything."""
    with pytest.raises(AppraisalError) as caught:
        face.connect(memory, simulation=None, policy=policy()).ask()
    assert caught.value.check == "evidence-type"
    assert memory.gateway_posts == []


def test_a_client_for_simulation_refuses_evidence_that_calls_itself_real(
    face: Face, memory: MemoryAppliance
) -> None:
    """The choice works both ways: a simulated quote labelled ``sgx`` is accepted by nobody."""
    memory.tee_type = "sgx"
    with pytest.raises(AttestationError):
        face.connect(memory).ask()
    with pytest.raises(AttestationError):
        face.connect(memory, simulation=None, policy=policy()).ask()
    assert memory.gateway_posts == []


def test_neither_policy_nor_simulation_is_no_client(face: Face, memory: MemoryAppliance) -> None:
    """There is no default trust, and no choosing both."""
    with pytest.raises(ConfigError, match="no appraisal policy"):
        face.connect(memory, simulation=None)
    with pytest.raises(ConfigError, match="not both"):
        face.connect(memory, policy=policy())
    assert memory.sent == []


def test_a_report_for_another_challenge_is_refused(face: Face, memory: MemoryAppliance) -> None:
    """A recorded report does not answer a fresh challenge."""

    def replay(appliance: MemoryAppliance, sent: Sent) -> httpx.Response | None:
        stale = appliance.report("00" * 32)
        return httpx.Response(200, content=stale) if media.ATTESTATION_PATH in sent.path else None

    memory.intercept = replay
    with pytest.raises(FreshnessError):
        face.connect(memory).ask()
    assert memory.gateway_posts == []


def test_every_attestation_has_its_own_challenge(face: Face, memory: MemoryAppliance) -> None:
    """No two challenges are alike."""
    face.connect(memory)
    for _ in range(3):
        face.verify()
    nonces = {sent.path for sent in memory.sent if media.ATTESTATION_PATH in sent.path}
    assert len(nonces) == 3


def test_one_attestation_serves_many_requests(face: Face, memory: MemoryAppliance) -> None:
    """The attested keys are pinned until they run out."""
    face.connect(memory)
    for _ in range(3):
        face.ask()
    assert memory.paths().count(media.ATTESTATION_PATH) == 1


def test_keys_are_attested_anew_before_they_run_out(face: Face) -> None:
    """A request near the end of the keys' life attests first."""
    now = [2_000_000_000]
    memory = MemoryAppliance(life_s=900)
    start = memory.clock()
    memory.clock = lambda: start + now[0]
    now[0] = 0
    face.connect(memory, clock=lambda: start + now[0])
    face.ask()
    now[0] = 860
    face.ask()
    assert memory.paths().count(media.ATTESTATION_PATH) == 1
    now[0] = 871
    memory.rotate()
    face.ask()
    assert memory.paths().count(media.ATTESTATION_PATH) == 2


def test_the_wire_carries_nothing_of_the_request(face: Face, memory: MemoryAppliance) -> None:
    """Neither question nor path nor model name is in anything that the host sees."""
    face.connect(memory, api_key="host-key").ask()
    for sent in memory.sent:
        everything = (sent.path + repr(sent.headers)).encode() + sent.body
        for secret in (QUESTION.encode(), b"canary", b"completions", b"tiny"):
            assert secret not in everything
    assert memory.gateway_posts[0].headers["authorization"] == "Bearer host-key"
    assert all(name != b"authorization" for name, _ in memory.inner[0].headers)


def test_sealed_requests_have_the_size_of_a_bucket(face: Face, memory: MemoryAppliance) -> None:
    """Requests of different length look alike."""
    face.connect(memory)
    for content in ("a", "a" * 120):
        face.send("POST", "/v1/chat/completions", {"model": "tiny", "stream": True, "messages": [content]})
    assert len({len(sent.body) for sent in memory.gateway_posts}) == 1


def test_a_cut_at_every_chunk_boundary_raises(face: Face, memory: MemoryAppliance) -> None:
    """Wherever the stream is cut between chunks, the caller gets an error and never the end marker."""
    face.connect(memory)
    for kept in range(len(EVENTS) + 4):
        memory.deliver = lambda chunks, kept=kept: list(chunks[:kept])
        with pytest.raises(TruncatedMessage):
            face.ask()
        assert DONE not in face.seen


def test_a_cut_at_every_byte_raises(memory: MemoryAppliance) -> None:
    """The same holds for a cut anywhere inside a chunk."""
    whole: list[bytes] = []

    def remember(chunks: list[bytes]) -> list[bytes | Exception]:
        whole[:] = [b"".join(chunks)]
        return list(chunks)

    memory.deliver = remember
    face = Face(asynchronous=False).connect(memory)
    face.ask()
    length = len(whole[0])
    for kept in range(0, length, 7):
        memory.deliver = lambda chunks, kept=kept: [b"".join(chunks)[:kept]]
        with pytest.raises(ProtocolError):
            face.ask()
        assert DONE not in face.seen


def test_a_unary_answer_that_is_cut_raises(face: Face, memory: MemoryAppliance) -> None:
    """A whole answer without its final chunk is no answer."""
    memory.deliver = lambda chunks: list(chunks[:-1])
    with pytest.raises(TruncatedMessage):
        face.connect(memory).ask(stream=False)


@pytest.mark.parametrize("damage", ["swap", "duplicate", "drop", "flip"])
def test_a_reordered_duplicated_dropped_or_altered_chunk_raises(
    face: Face, memory: MemoryAppliance, damage: str
) -> None:
    """Chunks open only once, in order, unaltered."""

    def deliver(chunks: list[bytes]) -> list[bytes | Exception]:
        pieces: list[bytes | Exception] = list(chunks)
        match damage:
            case "swap":
                pieces[1], pieces[2] = pieces[2], pieces[1]
            case "duplicate":
                pieces.insert(2, pieces[1])
            case "drop":
                del pieces[2]
            case "flip":
                pieces[2] = bytes([*chunks[2][:-1], chunks[2][-1] ^ 1])
        return pieces

    memory.deliver = deliver
    with pytest.raises(OpenError):
        face.connect(memory).ask()
    assert DONE not in face.seen


def test_chunks_of_another_answer_do_not_open(face: Face, memory: MemoryAppliance) -> None:
    """A stream spliced from two answers raises, also when it is swapped as a whole."""
    face.connect(memory)
    kept: list[list[bytes]] = []

    def keep(chunks: list[bytes]) -> list[bytes | Exception]:
        kept.append(chunks)
        return list(chunks)

    memory.deliver = keep
    face.ask()
    memory.deliver = lambda chunks: [*chunks[:3], *kept[0][3:]]
    with pytest.raises(OpenError):
        face.ask()
    memory.deliver = lambda _chunks: list(kept[0])
    with pytest.raises(OpenError):
        face.ask()


def test_bytes_after_the_final_chunk_raise(face: Face, memory: MemoryAppliance) -> None:
    """Nothing can be appended."""
    memory.deliver = lambda chunks: [*chunks, b"more"]
    with pytest.raises(OpenError):
        face.connect(memory).ask()


def test_the_way_of_cutting_into_reads_does_not_matter(face: Face, memory: MemoryAppliance) -> None:
    """One byte at a time gives the same answer."""
    memory.deliver = lambda chunks: [bytes([byte]) for byte in b"".join(chunks)]
    assert face.connect(memory).ask().body == b"".join(EVENTS) + DONE


def test_a_connection_that_breaks_in_mid_answer_is_a_truncated_message(
    face: Face, memory: MemoryAppliance
) -> None:
    """A killed enclave ends in the documented error, the cause chained, and the next request works."""
    face.connect(memory)
    for broken in (httpx.RemoteProtocolError("closed"), httpx.ReadError("reset"), ConnectionResetError()):
        memory.deliver = lambda chunks, broken=broken: [*chunks[:2], broken]
        with pytest.raises(TruncatedMessage) as caught:
            face.ask()
        assert caught.value.__cause__ is broken
    memory.deliver = lambda chunks: [*chunks[:2], httpx.ReadTimeout("slow")]
    with pytest.raises(TransportError, match="in time"):
        face.ask()
    memory.deliver = None
    assert face.ask().body.endswith(DONE)


def test_an_appliance_that_is_not_there_is_named(face: Face, memory: MemoryAppliance) -> None:
    """The error names the address and says what to do."""

    def refuse(_appliance: MemoryAppliance, _sent: Sent) -> httpx.Response | None:
        raise httpx.ConnectError("connection refused")

    memory.intercept = refuse
    with pytest.raises(TransportError, match=r"appliance\.test:8470.*adyton-host up") as caught:
        face.connect(memory).ask()
    assert isinstance(caught.value.__cause__, httpx.ConnectError)


def post_only(answer: httpx.Response) -> "object":
    """Intercept sealed requests only."""

    def intercept(_appliance: MemoryAppliance, sent: Sent) -> httpx.Response | None:
        return answer if sent.method == "POST" else None

    return intercept


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (problem(409, media.PROBLEM_REPLAY, "seen before"), ReplayedRequest),
        (problem(400, media.PROBLEM_MALFORMED, "no"), RemoteProtocolError),
        (problem(413, media.PROBLEM_TOO_LARGE, "too large"), RelayRefused),
        (problem(429, media.PROBLEM_BUSY, "busy"), RelayRefused),
        (problem(503, media.PROBLEM_UNAVAILABLE, "starting"), RelayRefused),
        (problem(401, "about:blank", "who are you"), RelayRefused),
        (httpx.Response(307, headers={"location": "http://elsewhere/"}), RelayRefused),
        (httpx.Response(502, content=b"bad gateway"), TransportError),
        (httpx.Response(200, json={"choices": []}), RemoteProtocolError),
        (
            httpx.Response(200, headers={"content-type": "text/event-stream"}, content=DONE),
            RemoteProtocolError,
        ),
        (httpx.Response(200, headers={"content-type": media.OHTTP_RESPONSE}), RemoteProtocolError),
        (httpx.Response(206, headers={"content-type": media.OHTTP_CHUNKED_RESPONSE}), RemoteProtocolError),
    ],
    ids=str,
)
def test_an_answer_in_the_clear_is_a_typed_error(
    face: Face, memory: MemoryAppliance, answer: httpx.Response, error: type[AdytonError]
) -> None:
    """Whatever the host says by itself never reaches the caller as an answer; the request is not repeated."""
    memory.intercept = post_only(answer)
    with pytest.raises(error) as caught:
        face.connect(memory).ask()
    assert caught.value.code == error.code
    assert len(memory.gateway_posts) == 1


def test_a_refusal_keeps_status_and_advice(face: Face, memory: MemoryAppliance) -> None:
    """Status, Retry-After and the host's words survive, the words in printable form."""
    detail = "busy\x1b[31m now"
    memory.intercept = post_only(problem(503, media.PROBLEM_BUSY, detail, **{"retry-after": "3"}))
    with pytest.raises(RelayRefused, match=r"busy\[31m now") as caught:
        face.connect(memory).ask()
    assert caught.value.status == 503
    assert caught.value.retry_after_s == 3.0
    assert caught.value.retry_safe


def test_a_rotation_is_followed_by_one_reseal(face: Face, memory: MemoryAppliance) -> None:
    """A key that is gone leads to one new attestation and one new sealed request, and the caller sees neither."""
    face.connect(memory).ask()
    memory.rotate()
    assert face.ask().body.endswith(DONE)
    assert memory.paths().count(media.ATTESTATION_PATH) == 2
    assert len(memory.gateway_posts) == 3
    assert len({sent.body for sent in memory.gateway_posts}) == 3


def test_a_new_key_under_the_old_id_is_a_rotation_too(face: Face, memory: MemoryAppliance) -> None:
    """A restarted enclave may give the id of a lost key to a new one; the request that does not open is resealed."""
    face.connect(memory).ask()
    memory.rotations -= 1
    memory.rotate()
    assert face.ask().body.endswith(DONE)
    assert memory.paths().count(media.ATTESTATION_PATH) == 2
    assert len(memory.gateway_posts) == 3


def test_a_request_is_resealed_at_most_once(face: Face, memory: MemoryAppliance) -> None:
    """When the keys are gone again, the error is raised instead of a third attempt."""

    def always_gone(appliance: MemoryAppliance, sent: Sent) -> httpx.Response | None:
        if sent.method != "POST":
            return None
        appliance.rotate()
        return problem(422, media.PROBLEM_OHTTP_KEY, "unknown key")

    memory.intercept = always_gone
    with pytest.raises(KeyConfigMismatch):
        face.connect(memory).ask()
    assert len(memory.gateway_posts) == 2
    assert memory.paths().count(media.ATTESTATION_PATH) == 2


def test_a_host_that_lies_about_a_rotation_gets_no_second_request(
    face: Face, memory: MemoryAppliance
) -> None:
    """Without proof of new keys the claim that the key is gone is not believed."""
    memory.intercept = post_only(problem(422, media.PROBLEM_OHTTP_KEY, "unknown key"))
    with pytest.raises(KeyConfigMismatch):
        face.connect(memory).ask()
    assert len(memory.gateway_posts) == 1


def test_a_rotation_in_mid_stream_loses_nothing(face: Face, memory: MemoryAppliance) -> None:
    """An answer that has begun ends under the keys that it began with."""

    def rotate(chunks: list[bytes]) -> list[bytes | Exception]:
        memory.epochs.append(Epoch(250, life_s=900, now_s=memory.clock()))
        return list(chunks)

    memory.deliver = rotate
    assert face.connect(memory).ask().body.endswith(DONE)


def test_refusals_of_the_enclave_are_ordinary_answers(face: Face, memory: MemoryAppliance) -> None:
    """An error status inside the seal reaches the caller as such."""
    got = face.connect(memory).ask(model="unknown")
    assert got.status == 404
    assert json.loads(got.body)["error"]["code"] == "model_not_found"


def test_requests_for_elsewhere_are_refused(memory: MemoryAppliance) -> None:
    """A sealed client talks to its appliance only, and says so before it sends anything."""
    client = Client(URL, simulation=simulation(), transport=memory.transport)
    with client.http() as http:
        for url in ("https://example.com/v1/models", "http://appliance.test/v1/models"):
            with pytest.raises(LocalProtocolError, match="only talks to"):
                http.get(url)
        assert memory.sent == []
        assert http.get(f"{URL}/v1/models").status_code == 200


def test_no_cookie_and_no_redirect_crosses_the_boundary(memory: MemoryAppliance) -> None:
    """The host cannot mark a client, and nothing of the caller's headers but two enters the seal."""

    def mark(_appliance: MemoryAppliance, sent: Sent) -> httpx.Response | None:
        assert "cookie" not in sent.headers
        return None

    memory.intercept = mark
    client = Client(URL, simulation=simulation(), transport=memory.transport)
    headers = {"x-secret": "1", "authorization": "Bearer mine", "cookie": "a=b"}
    client.http().get("/v1/models", headers=headers)
    assert {name for name, _ in memory.inner[0].headers} <= {b"accept", b"content-type"}
    assert all("mine" not in repr(sent.headers) for sent in memory.sent)


def test_hanging_up_early_closes_the_outer_connection(face: Face, memory: MemoryAppliance) -> None:
    """A caller that stops reading frees the enclave."""
    client = Client(URL, simulation=simulation(), transport=memory.transport)
    body = {"model": "tiny", "stream": True, "messages": []}
    with client.http().stream("POST", "/v1/chat/completions", json=body) as response:
        next(response.iter_raw())
    assert memory.bodies[-1].closed
    assert client.last_receipt is None


def test_an_error_event_ends_a_stream_without_a_receipt(face: Face, memory: MemoryAppliance) -> None:
    """An enclave that fails in mid-answer says so inside the seal; that is no missing receipt."""
    failed = b'data: {"error": {"message": "engine stopped", "code": "engine_stopped"}}\n\n'
    memory.events = (EVENTS[0], failed)
    memory.with_receipt = False
    memory.end = b""
    assert face.connect(memory).ask().body == EVENTS[0] + failed


def test_an_oversize_report_is_refused(face: Face, memory: MemoryAppliance) -> None:
    """The host cannot make a client read without end."""

    def flood(_appliance: MemoryAppliance, sent: Sent) -> httpx.Response | None:
        if media.ATTESTATION_PATH not in sent.path:
            return None
        return httpx.Response(200, stream=Pieces([b"x" * 65_536] * 10_000))

    memory.intercept = flood
    with pytest.raises(RemoteProtocolError, match="larger than"):
        face.connect(memory).ask()
