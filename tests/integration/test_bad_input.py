# SPDX-License-Identifier: Apache-2.0
"""Bad input and bad luck, against the real appliance: a typed error within a second, and the next request works."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from adyton import Client
from adyton_protocol.errors import AdytonError, TransportError, TruncatedMessage
from adyton_protocol.media import GATEWAY_PATH, MAX_REQUEST_BYTES, OHTTP_CHUNKED_REQUEST
from appliance import Appliance, running

ROOT = Path(__file__).resolve().parents[2]
WITHIN_S = 1.0
PROBLEM = json.loads((ROOT / "docs" / "examples" / "demo_problem.json").read_text())
MESSAGES = [{"role": "user", "content": PROBLEM["question"]}]
# The longest answers that the shipped model's context allows, none of which ends early.
LONG = {
    "messages": MESSAGES,
    "max_tokens": 700,
    "temperature": 2.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "seed": 7,
}


@pytest.fixture
def client(appliance: Appliance) -> Iterator[Client]:
    """A client that has attested already, so that times below are the request's own."""
    with appliance.client() as made:
        made.verify()
        yield made


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Demand that the block takes no longer."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


def works(client: Client) -> None:
    """The next request is served."""
    answer = client.openai().chat.completions.create(model="default", messages=MESSAGES, max_tokens=8)  # type: ignore[arg-type]
    assert answer.choices[0].message.content is not None


BAD_BODIES = {
    "unknown model": ({"model": "no-such-model", "messages": MESSAGES}, 404, "model"),
    "messages missing": ({}, 400, "messages"),
    "messages of a wrong type": ({"messages": "hello"}, 400, "messages"),
    "content of a wrong type": ({"messages": [{"role": "user", "content": 7}]}, 400, "messages"),
    "unknown role": ({"messages": [{"role": "wizard", "content": "x"}]}, 400, "messages"),
    "temperature of a wrong type": ({"messages": MESSAGES, "temperature": "warm"}, 400, "temperature"),
    "temperature out of range": ({"messages": MESSAGES, "temperature": -1}, 400, "temperature"),
    "n out of range": ({"messages": MESSAGES, "n": 0}, 400, "n"),
    "too many choices": ({"messages": MESSAGES, "n": 100000}, 400, "n"),
    "unknown field": ({"messages": MESSAGES, "temprature": 1}, 400, "temprature"),
    "unsupported field": ({"messages": MESSAGES, "tools": [{"type": "function"}]}, 400, "tools"),
    "prompt too long": ({"messages": [{"role": "user", "content": "seven " * 5000}]}, 400, None),
    "prompt of megabytes": (
        {"messages": [{"role": "user", "content": "seven " * (7 << 17)}]},
        400,
        "messages",
    ),
    "answer too long": ({"messages": MESSAGES, "max_tokens": 10**6}, 400, None),
}


@pytest.mark.parametrize("case", BAD_BODIES)
def test_a_bad_body_is_a_sealed_typed_error(client: Client, case: str) -> None:
    """Every bad field gets OpenAI's error shape with the field's name, sealed, within a second."""
    body, status, param = BAD_BODIES[case]
    with client.http() as http, within(WITHIN_S):
        answer = http.post("/v1/chat/completions", json=body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["message"]
    assert error["type"]
    if param:
        assert error["param"].split(".")[0].split("[")[0] == param
    works(client)


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"\xff\xfe", b'{"messages": 1, "messages": 2}', b"nul", b"[" * 5000]
)
def test_a_body_that_is_no_json_object_is_a_sealed_typed_error(client: Client, raw: bytes) -> None:
    """Malformed JSON is a 400 inside the seal, whatever the bytes."""
    with client.http() as http, within(WITHIN_S):
        answer = http.post("/v1/chat/completions", content=raw, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    works(client)


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v1/nothing", 404), ("DELETE", "/v1/models", 405)]
)
def test_unknown_routes_are_sealed_errors(client: Client, method: str, path: str, status: int) -> None:
    """An unknown path or method is answered inside the seal; the host learns of neither."""
    with client.http() as http:
        assert http.request(method, path).status_code == status
    works(client)


def test_the_sdk_raises_its_own_typed_errors(client: Client) -> None:
    """Through the OpenAI SDK a sealed 400 is BadRequestError and a sealed 404 is NotFoundError."""
    sdk = client.openai()
    with pytest.raises(openai.NotFoundError):
        sdk.chat.completions.create(model="no-such-model", messages=MESSAGES)  # type: ignore[arg-type]
    with pytest.raises(openai.BadRequestError):
        sdk.chat.completions.create(model="default", messages=MESSAGES, max_tokens=10**6)  # type: ignore[arg-type]
    works(client)


def test_an_oversize_request_is_refused(client: Client) -> None:
    """A request beyond the size limit fails with a typed error that names the limit; nothing is executed."""
    body = {"messages": [{"role": "user", "content": "x" * (MAX_REQUEST_BYTES + 1)}]}
    with client.http() as http, pytest.raises(AdytonError):
        http.post("/v1/chat/completions", json=body)
    works(client)


@pytest.mark.parametrize("body", [b"", b"\x00", b"\xff" * 10, bytes(7) + bytes(1120), b"A" * 70000])
def test_malformed_sealed_bytes_are_refused(appliance: Appliance, client: Client, body: bytes) -> None:
    """Bytes that are no sealed request get a problem document within a second, and hurt nobody."""
    with within(WITHIN_S):
        answer = httpx.post(
            appliance.url + GATEWAY_PATH, content=body, headers={"content-type": OHTTP_CHUNKED_REQUEST}
        )
    assert answer.status_code in {400, 422}
    assert answer.headers["content-type"] == "application/problem+json"
    works(client)


def test_a_killed_enclave_in_mid_answer_raises(own_appliance: Appliance) -> None:
    """When the enclave dies in mid-answer the caller gets a typed error within a second, then a new enclave."""
    with own_appliance.client() as client:
        client.verify()
        with (
            client.http() as http,
            http.stream("POST", "/v1/chat/completions", json=LONG | {"stream": True}) as answer,
        ):
            lines = answer.iter_lines()
            assert next(lines)
            own_appliance.enclave.kill()
            with within(WITHIN_S), pytest.raises((TruncatedMessage, TransportError)):
                for _ in lines:
                    pass
        deadline = time.monotonic() + 20
        while True:
            try:
                works(client)
            except (AdytonError, openai.APIError):
                if time.monotonic() > deadline:
                    raise
            else:
                break


def test_a_full_queue_is_a_429_with_advice(tmp_path: Path) -> None:
    """More work than the queue holds is refused with 429 and Retry-After, within a second; then all is well."""
    limits = tmp_path / "limits.toml"
    limits.write_text("[limits]\nmax_sequences = 2\nmax_queue = 2\nmax_candidates = 2\n")
    refused: list[tuple[float, str | None]] = []
    with running(tmp_path, "--enclave-config", str(limits)) as appliance, appliance.client() as client:
        client.verify()

        def work() -> None:
            with client.http() as http:
                started = time.monotonic()
                answer = http.post("/v1/chat/completions", json=LONG | {"n": 2}, timeout=60)
                if answer.status_code == 429:
                    refused.append((time.monotonic() - started, answer.headers.get("retry-after")))

        threads = [threading.Thread(target=work) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert refused
        assert all(advice and int(advice) > 0 for _, advice in refused)
        assert min(seconds for seconds, _ in refused) < WITHIN_S
        works(client)


def test_a_client_that_hangs_up_frees_its_place(client: Client) -> None:
    """Hanging up cancels the generation: many abandoned long answers delay nobody."""
    for _ in range(20):
        with (
            client.http() as http,
            http.stream("POST", "/v1/chat/completions", json=LONG | {"stream": True, "n": 4}) as answer,
        ):
            next(answer.iter_lines())
    with within(WITHIN_S * 3):
        works(client)
