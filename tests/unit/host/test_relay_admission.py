# SPDX-License-Identifier: Apache-2.0
"""What the relay refuses, and how it says so."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.host.fakes import KEY_ID, SEALED, Call, FakeEnclave, running_host

from adyton_host.config import RelayLimits
from adyton_host.problems import Refusal
from adyton_host.relay import challenge_of, media_type_of
from adyton_host.routing import NOT_READY, RoutingTable, parse_readiness
from adyton_host.upload import declared_bytes
from adyton_protocol import media

NONCE = "ab" * 32


def problem_type(response: httpx.Response) -> str:
    """The type of a well-formed problem document."""
    assert response.headers["content-type"] == media.PROBLEM_JSON
    assert response.json()["status"] == response.status_code
    return response.json()["type"]


async def test_a_declared_oversize_body_is_refused_unread() -> None:
    """The enclave never hears of it."""
    enclave = FakeEnclave()
    async with running_host(enclave, limits=RelayLimits(max_request_bytes=1000)) as host:
        response = await host.seal(SEALED + bytes(1000))
    assert response.status_code == 413
    assert problem_type(response) == media.PROBLEM_TOO_LARGE
    assert enclave.calls == []


async def test_an_undeclared_oversize_body_is_cut_off() -> None:
    """A body without a length is refused as soon as it exceeds the limit."""

    async def script(call: Call) -> None:
        await call.read_body()

    async def upload() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield SEALED

    async with running_host(FakeEnclave(script), limits=RelayLimits(max_request_bytes=1000)) as host:
        response = await host.seal(upload())
        assert response.status_code == 413
        assert problem_type(response) == media.PROBLEM_TOO_LARGE


async def test_a_body_of_exactly_the_limit_passes() -> None:
    """The limit itself is allowed."""
    async with running_host(FakeEnclave(), limits=RelayLimits(max_request_bytes=1000)) as host:
        assert (await host.seal(bytes([KEY_ID]) + bytes(999))).status_code == 200


async def test_one_exchange_too_many_is_refused_and_the_next_one_served() -> None:
    """Admission refuses at once, says when to come back, and frees the place at the end of an exchange."""
    release, asked = asyncio.Event(), asyncio.Event()

    async def script(call: Call) -> None:
        body = await call.read_body()
        asked.set()
        await release.wait()
        await call.start()
        await call.part(body)
        await call.end()

    async with running_host(FakeEnclave(script), limits=RelayLimits(max_in_flight=1)) as host:
        first = asyncio.create_task(host.seal())
        await asked.wait()
        assert host.sample("adyton_host_in_flight") == 1
        refused = await host.seal()
        assert refused.status_code == 429
        assert problem_type(refused) == media.PROBLEM_BUSY
        assert refused.headers["retry-after"] == "1"
        release.set()
        assert (await first).status_code == 200
        assert (await host.seal()).status_code == 200


async def test_an_unknown_key_id_asks_the_client_to_attest_again() -> None:
    """RFC 9458 section 7.3: the problem type is the one at which clients reseal."""
    enclave = FakeEnclave()
    async with running_host(enclave) as host:
        response = await host.seal(bytes([99]) + SEALED)
    assert response.status_code == 422
    assert problem_type(response) == media.PROBLEM_OHTTP_KEY
    assert enclave.calls == []


async def test_a_key_id_learnt_since_the_last_refresh_is_found() -> None:
    """A rotation does not lead to a refusal: a miss asks the enclaves again."""
    enclave = FakeEnclave()
    async with running_host(enclave) as host:
        enclave.key_ids = [99, KEY_ID]
        assert (await host.seal(bytes([99]) + SEALED)).status_code == 200


async def test_the_enclave_is_picked_by_key_id() -> None:
    """With two enclaves, each gets what was sealed to it."""
    left, right = FakeEnclave(key_ids=[1]), FakeEnclave(key_ids=[2])
    async with running_host(left, right) as host:
        assert (await host.seal(b"\x02" + SEALED)).status_code == 200
        assert (len(left.calls), len(right.calls)) == (0, 1)


async def test_a_dead_enclave_gives_503_and_a_new_one_is_found() -> None:
    """Unreachable, not ready and absent enclaves all end in the same typed refusal, with Retry-After."""
    enclave = FakeEnclave()
    async with running_host(enclave) as host:
        port = urlsplit(enclave.base_url).port
        assert port is not None
        await enclave.close()
        for _ in range(2):  # once with a stale table, once with a fresh one
            response = await host.seal()
            assert response.status_code == 503
            assert problem_type(response) == media.PROBLEM_UNAVAILABLE
            assert response.headers["retry-after"] == "1"
        assert (await host.client.get("/readyz")).status_code == 503
        await enclave.open(port)
        assert (await host.seal()).status_code == 200


async def test_an_enclave_that_is_not_ready_gets_nothing() -> None:
    """Sealed bytes go only to enclaves that attest."""
    enclave = FakeEnclave(ready=False)
    async with running_host(enclave) as host:
        assert (await host.seal()).status_code == 503
        assert (await host.client.get(media.GATEWAY_PATH)).status_code == 503
    assert enclave.calls == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("GET", "/v1/models"),
        ("POST", "/"),
        ("PUT", "/anything"),
        ("POST", media.ATTESTATION_PATH),
        ("POST", "/healthz"),
    ],
)
async def test_plaintext_is_refused_with_its_body_unread(method: str, path: str) -> None:
    """The refusal comes while the body is still in the client's hands, and tells what to do instead."""
    enclave = FakeEnclave()
    async with running_host(enclave) as host:
        url = urlsplit(host.base_url)
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n"
        writer.write(f"{head}Content-Type: application/json\r\n\r\n".encode())
        async with asyncio.timeout(5):
            answer = await reader.readuntil(b"\r\n\r\n")
            body = json.loads(await reader.read(10_000))
        writer.close()
        await writer.wait_closed()
        assert b" 400 " in answer.split(b"\r\n")[0]
        assert host.sample("adyton_host_body_bytes_total", direction="received") == 0
    assert body["type"] == media.PROBLEM_PLAINTEXT
    assert "pip install" in body["detail"]
    assert "from adyton import Client" in body["detail"]
    assert enclave.calls == []


async def test_plaintext_at_the_gateway_is_refused() -> None:
    """Only the two sealed media types are taken."""
    async with running_host(FakeEnclave()) as host:
        response = await host.client.post(media.GATEWAY_PATH, json={"messages": []})
    assert response.status_code == 415
    assert problem_type(response) == media.PROBLEM_PLAINTEXT


async def test_an_empty_sealed_request_is_malformed() -> None:
    """Without a key id there is nowhere to send it."""
    async with running_host(FakeEnclave()) as host:
        response = await host.seal(b"")
    assert response.status_code == 400
    assert problem_type(response) == media.PROBLEM_MALFORMED


async def test_a_stalled_body_is_given_up() -> None:
    """A client that stops sending does not hold a place for ever."""

    async def upload() -> AsyncIterator[bytes]:
        yield b""
        await asyncio.Event().wait()

    limits = RelayLimits(upload_idle_s=0.05)
    async with running_host(FakeEnclave(), limits=limits) as host:
        url = urlsplit(host.base_url)
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        head = f"POST {media.GATEWAY_PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n"
        writer.write(f"{head}Content-Type: {media.OHTTP_REQUEST}\r\n\r\n".encode())
        async with asyncio.timeout(5):
            assert b" 408 " in await reader.readline()
        writer.close()
        await writer.wait_closed()


async def test_unknown_paths_are_not_found() -> None:
    """A read of an unknown path is no API call."""
    async with running_host(FakeEnclave()) as host:
        response = await host.client.get("/favicon.ico")
    assert response.status_code == 404
    assert problem_type(response) == "about:blank"


async def test_the_nonce_passes_and_nothing_else_does() -> None:
    """An attestation request carries one challenge of 32 bytes; other queries never reach the enclave."""
    enclave = FakeEnclave()
    async with running_host(enclave) as host:
        assert (await host.client.get(media.ATTESTATION_PATH, params={"nonce": NONCE})).status_code == 200
        assert (await host.client.get(media.ATTESTATION_PATH)).status_code == 200
        for query in (f"nonce={NONCE}&x=1", "nonce=abc", f"other={NONCE}", f"nonce={'g' * 64}"):
            response = await host.client.get(f"{media.ATTESTATION_PATH}?{query}")
            assert response.status_code == 400
    assert [call.request_line for call in enclave.calls] == [
        f"GET {media.ATTESTATION_PATH}?nonce={NONCE} HTTP/1.1",
        f"GET {media.ATTESTATION_PATH} HTTP/1.1",
    ]


async def test_the_encoding_of_a_report_is_one_of_three() -> None:
    """What a client accepts becomes one media type of ours; its own words never reach the enclave."""
    enclave = FakeEnclave()
    async with running_host(enclave) as host:
        for accept in ("application/cmw+cbor;canary=1, text/html", "*/*"):
            response = await host.client.get(media.ATTESTATION_PATH, headers={"accept": accept})
            assert response.status_code == 200
        refused = await host.client.get(media.ATTESTATION_PATH, headers={"accept": "text/html"})
        assert (refused.status_code, problem_type(refused)) == (406, media.PROBLEM_NOT_ACCEPTABLE)
    assert [call.headers["accept"] for call in enclave.calls] == [media.CMW_CBOR, media.REPORT_JSON]


async def test_endorsements_come_from_the_file_as_it_is_now(tmp_path: Path) -> None:
    """The document is served as it stands; without one the refusal is typed."""
    file = tmp_path / "collateral.json"
    async with running_host(FakeEnclave(), endorsements=file) as host:
        assert (await host.client.get(media.ENDORSEMENTS_PATH)).status_code == 503
        file.write_text('{"a": 1}')
        response = await host.client.get(media.ENDORSEMENTS_PATH)
        assert (response.status_code, response.content) == (200, b'{"a": 1}')
        file.write_bytes(bytes(media.MAX_ENDORSEMENTS_BYTES + 1))
        assert (await host.client.get(media.ENDORSEMENTS_PATH)).status_code == 503


async def test_a_release_file_is_carried_as_it_is(tmp_path: Path) -> None:
    """Whatever it holds, as it is now; the host neither reads nor judges it. Without one: not found."""
    file = tmp_path / "releases.json"
    async with running_host(FakeEnclave(), releases=file) as host:
        missing = await host.client.get(media.RELEASES_PATH)
        assert (missing.status_code, missing.json()["title"]) == (404, "No release file")
        file.write_bytes(b"\xff opaque \x00")
        response = await host.client.get(media.RELEASES_PATH)
        assert (response.status_code, response.content) == (200, b"\xff opaque \x00")
        assert response.headers["cache-control"] == "no-store"
        file.write_bytes(bytes(media.MAX_RELEASES_BYTES + 1))
        assert (await host.client.get(media.RELEASES_PATH)).status_code == 404


async def test_readiness_is_that_of_the_enclaves() -> None:
    """The host is healthy by itself, but ready only while an enclave attests."""
    enclave = FakeEnclave()
    async with running_host(enclave) as host:
        ready = await host.client.get("/readyz")
        assert (ready.status_code, ready.json()["ready"]) == (200, True)
        assert ready.json()["enclaves"][0]["key_ids"] == [KEY_ID]
        enclave.ready = False
        await host.table.refresh()
        assert (await host.client.get("/readyz")).status_code == 503
        assert (await host.client.get("/healthz")).status_code == 200


MEMBERS = st.sampled_from(["ready", "key_ids", "not_after"])
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(MEMBERS, inner),
)


@given(st.binary(max_size=200) | DOCUMENTS.map(lambda document: json.dumps(document).encode()))
def test_any_readiness_document_parses_or_means_not_ready(body: bytes) -> None:
    """No bytes raise, and whatever is ready has key ids of one byte."""
    readiness = parse_readiness(body)
    assert readiness == NOT_READY or all(0 <= key_id <= 255 for key_id in readiness.key_ids)


QUERIES = st.binary(max_size=80) | st.text("0123456789abcdefABCDEF=&%", max_size=80).map(str.encode)


@given(QUERIES | QUERIES.map(lambda query: b"nonce=" + query))
def test_any_query_is_a_challenge_or_refused(query: bytes) -> None:
    """What passes is empty or exactly 32 bytes in hexadecimal, whatever a client sends."""
    try:
        challenge = challenge_of({"query_string": query})
    except Refusal as refusal:
        assert refusal.problem.status == 400  # noqa: PT017 -- refusing is one of two right outcomes
    else:
        assert (challenge is None) == (query == b"")
        assert challenge is None or len(bytes.fromhex(challenge)) == 32


@given(st.lists(st.tuples(st.sampled_from([b"content-type", b"content-length", b"x"]), st.binary())))
def test_any_header_fields_parse(headers: list[tuple[bytes, bytes]]) -> None:
    """Media type and length are read from arbitrary bytes without raising."""
    scope = {"headers": headers}
    assert b";" not in media_type_of(scope).encode()
    assert (declared_bytes(scope) or 0) >= 0


async def test_an_enclave_that_waits_for_keys_is_reached_but_not_ready() -> None:
    """The key has to come through this relay; a load balancer has to look elsewhere meanwhile."""
    document = b'{"ready": true, "key_ids": [7], "not_after": 1, "waiting_for_keys": ["mine"]}'
    readiness = parse_readiness(document)
    assert (readiness.ready, readiness.serving, readiness.waiting) == (True, False, ("mine",))
    table = RoutingTable(httpx.AsyncClient())
    table.add("http://127.0.0.1:1", readiness)
    assert table.holder(7) is not None
    assert (table.ready_count(), table.serving_count(), table.waiting()) == (1, 0, ("mine",))
    table.add("http://127.0.0.1:1", parse_readiness(b'{"ready": true, "key_ids": [7]}'))
    assert (table.serving_count(), table.waiting()) == (1, ())


@pytest.mark.parametrize("waiting", ["1", '"mine"', "[1]", "{}", "null"])
def test_an_unclear_list_of_missing_keys_means_not_ready(waiting: str) -> None:
    """The enclave is trusted with prompts, and its document still read with care."""
    document = f'{{"ready": true, "key_ids": [7], "waiting_for_keys": {waiting}}}'
    assert parse_readiness(document.encode()) == NOT_READY
