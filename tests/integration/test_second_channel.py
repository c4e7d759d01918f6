# SPDX-License-Identifier: Apache-2.0
"""The second channel of a running appliance: TLS that ends in the enclave, the host in between."""

import asyncio
import base64
import hashlib
import json
import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from adyton.edge import fresh_challenge
from adyton.receipts import ReceiptRecord
from adyton_attestation.ra_tls import parse_certificate
from adyton_protocol.receipt import check_exchange, parse_receipt_header, verify_receipt
from adyton_protocol.report import parse_report
from appliance import Appliance
from tiny_appliance import TINY, running_tiny

CHAT = {"model": TINY, "messages": [{"role": "user", "content": "canary-9c1d"}], "temperature": 0}


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """With both channels open."""
    with running_tiny(tmp_path_factory.mktemp("second"), "--ra-tls-port", "0") as running:
        yield running


def tls_url(appliance: Appliance) -> str:
    """Where the second channel is."""
    assert appliance.ra_tls_url is not None
    assert appliance.ra_tls_url.startswith("https://127.0.0.1:")
    return appliance.ra_tls_url


def exchange_of(response: httpx.Response) -> tuple[bytes, bytes]:
    """Exchange id and receipt secret, as the answer's header has them."""
    parts = response.headers["adyton-exchange"].split(".")
    exchange_id, secret = (base64.urlsafe_b64decode(part + "=") for part in parts)
    return exchange_id, secret


def test_a_whole_answer_and_its_receipt(appliance: Appliance) -> None:
    """Ordinary HTTP, an ordinary answer, and a receipt that covers exactly this exchange."""
    with appliance.client() as client, client.ra_tls(tls_url(appliance)) as http:
        assert [model["id"] for model in http.get("/v1/models").json()["data"]] == [TINY]
        response = http.post("/v1/chat/completions", json=CHAT)
        keyset = client.attest().verdict.keyset
    assert response.status_code == 200
    assert response.headers["x-aci-version"] == "aci/1"
    assert response.headers["x-aci-keyset-digest"] == keyset.digest()
    exchange_id, secret = exchange_of(response)
    check_exchange(
        verify_receipt(parse_receipt_header(response.headers["adyton-receipt"]), keyset),
        enc=exchange_id,
        receipt_secret=secret,
        request_body=response.request.content,
        response_body=response.content,
    )


def test_both_channels_give_the_same_answer(appliance: Appliance) -> None:
    """It is the same engine behind the same API."""
    with appliance.client() as client, client.ra_tls(tls_url(appliance)) as http:
        sealed = client.http().post("/v1/chat/completions", json=CHAT).json()
        plain = http.post("/v1/chat/completions", json=CHAT).json()
    assert sealed["choices"] == plain["choices"]


def test_a_stream_comes_as_it_is_made(appliance: Appliance) -> None:
    """Events and the end; the receipt among them was checked, and is kept."""

    async def run() -> tuple[httpx.Headers, bytes, ReceiptRecord | None]:
        async with (
            appliance.async_client() as client,
            client.ra_tls(tls_url(appliance)) as http,
            http.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}) as response,
        ):
            body = await response.aread()
            return response.headers, body, client.last_receipt

    headers, body, record = asyncio.run(run())
    assert headers["content-type"].startswith("text/event-stream")
    assert body.endswith(b"data: [DONE]\n\n")
    assert not any(line.startswith(b":") for line in body.splitlines())
    assert record is not None
    assert record.verified.keyset.digest() == headers["x-aci-keyset-digest"]


def test_the_certificate_is_what_the_keyset_lists_and_attestation_answers_there_too(
    appliance: Appliance,
) -> None:
    """A challenge through the very connection is answered with a keyset that lists the connection's key."""
    url = urlsplit(tls_url(appliance))
    assert url.hostname is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    challenge = fresh_challenge()
    with (
        socket.create_connection((url.hostname, url.port or 0), timeout=10) as raw,
        context.wrap_socket(raw) as tls,
    ):
        assert tls.version() == "TLSv1.3"
        evidence = parse_certificate(tls.getpeercert(binary_form=True) or b"")
        request = (
            f"GET /v1/aci/attestation?nonce={challenge} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        )
        tls.sendall(request.encode())
        answer = b"".join(iter(lambda: tls.recv(65536), b""))
        assert tls.session is None or not tls.session.has_ticket, "there is nothing to resume"
    report = parse_report(answer.partition(b"\r\n\r\n")[2])
    listed = [entry.spki_sha256 for entry in report.keyset.tls_public_keys]
    assert hashlib.sha256(evidence.spki).hexdigest() in listed
    assert report.nonce == challenge
    assert evidence.legacy_quote is not None


def test_the_host_neither_sees_nor_logs_what_passes(appliance: Appliance) -> None:
    """Its log knows how much went through, and of what it was nothing."""
    with appliance.client() as client, client.ra_tls(tls_url(appliance)) as http:
        assert http.post("/v1/chat/completions", json=CHAT).status_code == 200
    log = (appliance.state_dir / "relay.log").read_text()
    assert "canary" not in log
    lines = [json.loads(line) for line in log.splitlines()]
    ended = [line for line in lines if line["event"] == "passthrough-ended"]
    assert ended
    assert all(line["request_bytes"] > 0 < line["response_bytes"] for line in ended)


def test_an_unknown_path_is_answered_by_the_enclave(appliance: Appliance) -> None:
    """Errors are the API's own, inside TLS."""
    with appliance.client() as client, client.ra_tls(tls_url(appliance)) as http:
        response = http.get("/nothing")
    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")


def test_plain_http_is_no_use_there(appliance: Appliance) -> None:
    """A request in the clear reaches the enclave's TLS, which hangs up; the host has not read it either."""
    with pytest.raises(httpx.HTTPError):
        httpx.get(tls_url(appliance).replace("https:", "http:"), timeout=5)
