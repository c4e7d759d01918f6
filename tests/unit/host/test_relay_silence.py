# SPDX-License-Identifier: Apache-2.0
"""What does not cross the relay, and what the host does not say about it."""

import io
import json
import logging

from unit.host.fakes import SEALED, Call, FakeEnclave, running_host

from adyton_host import logs
from adyton_host.endorsements import Refreshed
from adyton_host.exchange import RouteName
from adyton_host.metrics import STATUS_CLASSES, status_class
from adyton_host.problems import Outcome
from adyton_protocol import media

CANARY = "canary-7f3a9c"


async def test_only_the_media_type_crosses_to_the_enclave() -> None:
    """The enclave sees Host, framing, content type and the host's tag; no credential, cookie or id of the client."""
    enclave = FakeEnclave()
    async with running_host(enclave) as host:
        await host.seal(
            SEALED,
            **{
                "content-type": "Message/OHTTP-chunked-req; x=" + CANARY,
                "authorization": "Bearer " + CANARY,
                "cookie": CANARY,
                "x-forwarded-for": CANARY,
                "x-request-id": CANARY,
                "user-agent": CANARY,
                "accept": CANARY,
                "priority": CANARY,
                media.TENANT_HEADER: CANARY,
            },
        )
    call = enclave.calls[0]
    assert set(call.headers) == {"host", "content-type", "transfer-encoding", media.TENANT_HEADER}
    assert call.headers["content-type"] == media.OHTTP_CHUNKED_REQUEST
    assert call.request_line == f"POST {media.GATEWAY_PATH} HTTP/1.1"
    assert CANARY.encode() not in call.head + call.body


async def test_fetches_carry_no_header_of_the_client() -> None:
    """Key configurations and reports are fetched with a bare request."""
    enclave = FakeEnclave()
    async with running_host(enclave) as host:
        await host.client.get(media.GATEWAY_PATH, headers={"authorization": CANARY, "cookie": CANARY})
    assert set(enclave.calls[0].headers) == {"host"}


async def test_only_the_media_type_crosses_to_the_client() -> None:
    """No other header of the enclave reaches a client; the host adds its own, which forbid buffering."""

    async def script(call: Call) -> None:
        await call.read_body()
        await call.start(
            200, "Content-Type: message/ohttp-chunked-res", f"Set-Cookie: {CANARY}", f"Server: {CANARY}",
            f"X-Tokens: {CANARY}",
        )  # fmt: skip
        await call.part(b"x")
        await call.end()

    async with running_host(FakeEnclave(script)) as host:
        response = await host.seal()
    framing = {"transfer-encoding"}
    ours = {"cache-control", "incremental", "x-accel-buffering", "x-request-id"}
    assert set(response.headers) == {"content-type"} | framing | ours
    assert response.headers["incremental"] == "?1"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["content-type"] == media.OHTTP_CHUNKED_RESPONSE
    assert CANARY not in str(response.headers)


async def test_the_status_of_the_enclave_crosses() -> None:
    """A refusal of the enclave, such as a replayed request, reaches the client with its document."""

    async def script(call: Call) -> None:
        await call.read_body()
        await call.start(409, "Content-Type: application/problem+json")
        await call.part(b'{"type": "urn:adyton:problem:replayed-request"}')
        await call.end()

    async with running_host(FakeEnclave(script)) as host:
        response = await host.seal()
    assert response.status_code == 409
    assert response.json()["type"] == media.PROBLEM_REPLAY


async def test_labels_are_closed_and_free_of_content() -> None:
    """Whatever clients send, every label value of every series is one of ours."""
    async with running_host(FakeEnclave()) as host:
        await host.seal()
        await host.client.get(f"/{CANARY}?{CANARY}={CANARY}", headers={"user-agent": CANARY})
        await host.client.request(CANARY, f"/v1/{CANARY}")
        await host.client.post(media.GATEWAY_PATH, content=CANARY)
        await host.client.get(f"{media.ATTESTATION_PATH}?nonce={CANARY}")
        exposition = (await host.client.get("/metrics")).text
        allowed = {
            "route": {route.value for route in RouteName},
            "outcome": {outcome.value for outcome in Outcome},
            "status_class": set(STATUS_CLASSES),
            "direction": {"received", "sent"},
            "refreshed": {refreshed.value for refreshed in Refreshed},
        }
        for metric in host.metrics.registry.collect():
            for sample in metric.samples:
                for label, value in sample.labels.items():
                    assert label == "le" or value in allowed[label]
        assert host.sample(
            "adyton_host_requests_total", route="gateway", outcome="ok", status_class="2xx"
        ) == 1  # fmt: skip
    assert CANARY not in exposition
    assert "adyton_host_enclaves_ready 1.0" in exposition


def test_every_status_has_one_of_the_five_classes() -> None:
    """Out-of-range statuses do not make new series."""
    assert {status_class(status) for status in range(-100, 1200)} == set(STATUS_CLASSES)


async def test_log_lines_hold_sizes_and_times_and_no_text_of_clients() -> None:
    """Paths, queries, headers and bodies of clients are in no line, also when something fails."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logs.configure(handler)
    try:
        async with running_host(FakeEnclave()) as host:
            await host.seal(SEALED + CANARY.encode())
            await host.client.get(f"/{CANARY}?{CANARY}={CANARY}")
            await host.client.post(f"/v1/{CANARY}", content=CANARY)
            await host.client.get(f"{media.ATTESTATION_PATH}?nonce={CANARY}")
            await host.client.get(f"{media.ATTESTATION_PATH}?nonce={'ab' * 32}")
    finally:
        logs.LOGGER.handlers = []
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    exchanges = [line for line in lines if line["event"] == "exchange"]
    assert [line["route"] for line in exchanges] == [
        "gateway",
        "other",
        "other",
        "attestation",
        "attestation",
    ]
    assert exchanges[0]["received_bytes"] == len(SEALED) + len(CANARY)
    assert CANARY not in stream.getvalue()
    assert "ab" * 32 not in stream.getvalue()


def test_an_exception_is_logged_without_its_message() -> None:
    """The message of an exception may quote a client; its class and place are enough."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonFormatter())
    logger = logging.getLogger("test.silence")
    logger.addHandler(handler)
    logger.propagate = False
    try:
        int(CANARY)
    except ValueError:
        logger.exception("it failed with %s", CANARY)
    finally:
        logger.removeHandler(handler)
    line = json.loads(stream.getvalue())
    assert line["exception"] == "ValueError"
    assert line["event"] == "it failed with %s"
    assert CANARY not in stream.getvalue()
