# SPDX-License-Identifier: Apache-2.0
"""An enclave that waits for the keys of its models: what it answers, what it takes, when it begins to serve."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
from unit.enclave.harness import CHAT, Enclave, digest_of

from adyton_enclave.exchange import ExchangeFacts, InnerRequest, InnerResponse
from adyton_enclave.key_release import KEY_MEDIA_TYPE, KeyRelease
from adyton_enclave.keys import ReceiptSigner
from adyton_enclave.privacy import Profile
from adyton_enclave.weights.terms import SealedTerms
from adyton_protocol.errors import ConfigError, SealedModelAltered
from adyton_protocol.sealed_model import KEY_BYTES, ModelKey

ONE, TWO = ModelKey(b"\x01" * KEY_BYTES), ModelKey(b"\x02" * KEY_BYTES)
FACTS = ExchangeFacts(
    enc=b"",
    receipt_secret=bytes(32),
    keyset_digest=digest_of("keyset"),
    signer=ReceiptSigner(),
    accepted_at=0,
)


class Served:
    """The API, once models are loaded."""

    async def __call__(self, request: InnerRequest, facts: ExchangeFacts) -> InnerResponse:
        return InnerResponse(status=200, headers=(), body=b"served", profile=Profile.OFF)


class Loader:
    """What loads; fails as often as it is told to."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.given: list[dict[str, bytes]] = []
        self.keys: list[ModelKey] = []
        self.gate, self.begun = asyncio.Event(), asyncio.Event()
        self.gate.set()

    async def __call__(self, keys: Mapping[str, ModelKey]) -> Served:
        self.given.append({name: bytes(key.reveal()) for name, key in keys.items()})
        self.keys += keys.values()
        self.begun.set()
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        return Served()


def waiting_for(loader: Loader, *names: str) -> KeyRelease:
    """Models under the keys ONE, TWO, in this order."""
    keys = dict(zip(names, (ONE, TWO), strict=False))
    return KeyRelease(
        {name: SealedTerms(key_id=key.key_id) for name, key in keys.items()}, loader, Profile.SIZE
    )


async def put(release: KeyRelease, name: str, key: bytes, **changed: Any) -> tuple[int, dict[str, Any]]:
    """Send a key."""
    request = InnerRequest(
        method=changed.get("method", "PUT"),
        path=f"/v1/adyton/models/{name}/key",
        headers={"content-type": changed.get("media_type", KEY_MEDIA_TYPE)},
        body=key,
    )
    response = await release(request, FACTS)
    assert isinstance(response.body, bytes)
    assert response.profile is Profile.SIZE
    return response.status, json.loads(response.body)


async def get(release: KeyRelease, path: str = "/v1/models") -> InnerResponse:
    """Ask for anything else."""
    return await release(InnerRequest(method="GET", path=path, headers={}, body=b""), FACTS)


def code_of(answer: tuple[int, dict[str, Any]]) -> tuple[int, str]:
    """Status and code of a refusal."""
    status, document = answer
    return status, document["error"]["code"]


@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions", "/v1/aci/receipts/x", "/nothing"])
async def test_everything_is_refused_while_a_key_is_missing(path: str) -> None:
    """With 503 and a code of its own; the names of the models are public."""
    release = waiting_for(Loader(), "mine")
    answer = await get(release, path)
    assert isinstance(answer.body, bytes)
    assert code_of((answer.status, json.loads(answer.body))) == (503, "model_key_missing")
    assert release.waiting() == ("mine",)


async def test_the_right_key_loads_and_the_enclave_serves() -> None:
    """The key is wiped then; sending it again changes nothing, and loads nothing."""
    loader = Loader()
    release = waiting_for(loader, "mine")
    assert await put(release, "mine", b"\x01" * KEY_BYTES) == (200, {"model": "mine", "state": "serving"})
    assert loader.given == [{"mine": b"\x01" * KEY_BYTES}]
    assert all(key.reveal() == b"" for key in loader.keys)
    assert release.waiting() == ()
    assert (await get(release)).body == b"served"
    assert (await put(release, "mine", b"\x01" * KEY_BYTES))[0] == 200
    assert len(loader.given) == 1


async def test_a_wrong_key_is_refused_before_and_after() -> None:
    """The enclave still waits, or still serves; nothing is loaded with it."""
    loader = Loader()
    release = waiting_for(loader, "mine")
    assert code_of(await put(release, "mine", b"\x07" * KEY_BYTES)) == (403, "sealed_model_key")
    assert release.waiting() == ("mine",)
    assert loader.given == []
    await put(release, "mine", b"\x01" * KEY_BYTES)
    assert code_of(await put(release, "mine", b"\x07" * KEY_BYTES)) == (403, "sealed_model_key")
    assert (await get(release)).body == b"served"


async def test_every_sealed_model_needs_its_key() -> None:
    """The first key waits for the second one."""
    loader = Loader()
    release = waiting_for(loader, "one", "two")
    first = await put(release, "one", b"\x01" * KEY_BYTES)
    assert first == (202, {"model": "one", "state": "waiting", "missing": ["two"]})
    assert loader.given == []
    assert (await put(release, "two", b"\x02" * KEY_BYTES))[0] == 200
    assert set(loader.given[0]) == {"one", "two"}
    assert all(key.reveal() == b"" for key in loader.keys)


async def test_a_model_that_does_not_load_is_an_error_of_its_own_and_all_keys_are_forgotten() -> None:
    """The sender learns why, and the enclave waits for every key again."""
    loader = Loader(SealedModelAltered("a chunk of the sealed model was altered"), ConfigError("n_ctx"))
    release = waiting_for(loader, "one", "two")
    await put(release, "one", b"\x01" * KEY_BYTES)
    refusal = await put(release, "two", b"\x02" * KEY_BYTES)
    assert code_of(refusal) == (422, "sealed_model_altered")
    assert all(key.reveal() == b"" for key in loader.keys)
    assert release.waiting() == ("one", "two")
    assert (await put(release, "two", b"\x02" * KEY_BYTES))[1]["missing"] == ["one"]
    assert code_of(await put(release, "one", b"\x01" * KEY_BYTES)) == (422, "config")
    await put(release, "two", b"\x02" * KEY_BYTES)
    assert (await put(release, "one", b"\x01" * KEY_BYTES))[0] == 200


async def test_what_goes_wrong_unexpectedly_says_nothing() -> None:
    """A failure of ours is a sealed 500 without its text."""
    release = waiting_for(Loader(RuntimeError("secret words")), "mine")
    status, document = await put(release, "mine", b"\x01" * KEY_BYTES)
    assert status == 500
    assert "secret" not in json.dumps(document)
    assert release.waiting() == ("mine",)


@pytest.mark.parametrize(
    ("name", "changed", "expected"),
    [
        ("other", {}, (404, "not_found")),
        ("mine", {"method": "GET"}, (405, "method_not_allowed")),
        ("mine", {"key": b"\x01" * 31}, (400, "invalid_request")),
        ("mine", {"key": b""}, (400, "invalid_request")),
        ("mine", {"media_type": "application/json"}, (400, "invalid_request")),
    ],
)
async def test_what_is_no_key_is_refused(
    name: str, changed: dict[str, Any], expected: tuple[int, str]
) -> None:
    """By its form alone."""
    release = waiting_for(Loader(), "mine")
    key = changed.pop("key", b"\x01" * KEY_BYTES)
    assert code_of(await put(release, name, key, **changed)) == expected
    assert release.waiting() == ("mine",)


async def test_who_hangs_up_does_not_stop_what_others_wait_for() -> None:
    """Two send the key at once, one goes away while the model loads: it is loaded once, and served."""
    loader = Loader()
    loader.gate.clear()
    release = waiting_for(loader, "mine")
    first = asyncio.create_task(put(release, "mine", b"\x01" * KEY_BYTES))
    second = asyncio.create_task(put(release, "mine", b"\x01" * KEY_BYTES))
    await loader.begun.wait()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert (await get(release)).status == 503
    settling = asyncio.create_task(release.settle())
    await asyncio.sleep(0)
    assert not settling.done()
    loader.gate.set()
    assert (await second)[0] == 200
    await settling
    await release.settle()
    assert len(loader.given) == 1


async def test_an_enclave_in_the_clear_takes_no_key() -> None:
    """Without sealed models there is no such path."""
    enclave = Enclave()
    answer = await enclave.ask(
        b"\x01" * KEY_BYTES,
        method="PUT",
        path="/v1/adyton/models/fake/key",
        headers={"content-type": KEY_MEDIA_TYPE},
    )
    assert answer.status == 404
    assert (await enclave.ask(CHAT)).status == 200
