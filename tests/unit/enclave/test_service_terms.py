# SPDX-License-Identifier: Apache-2.0
"""How a request is served: its tier, its deadline, and with whom it shares cached prefixes."""

import pytest
from unit.enclave.harness import CHAT, Enclave, FakeEngine, Inner, Sealed, call

from adyton_enclave.engine import GenerationRequest
from adyton_protocol import media
from adyton_protocol.errors import DeadlineExceeded

SALT = "0123456789abcdef"
SALTED = CHAT | {"cache_salt": SALT}


async def _asked(enclave: Enclave, body: object, **options: object) -> GenerationRequest:
    inner = await enclave.ask(body, **options)
    assert inner.status == 200, inner.body
    return enclave.engine.generations[-1].request


@pytest.mark.parametrize(
    ("tier", "priority", "named"),
    [("flex", "low", "flex"), ("auto", "normal", "default"), ("default", "normal", "default")],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_tier_is_served_and_named(tier: str, priority: str, named: str, stream: bool) -> None:
    """Flex gives way to everybody else; the answer says which tier it got."""
    enclave = Enclave()
    inner = await enclave.ask(CHAT | {"service_tier": tier, "stream": stream})
    assert enclave.engine.generations[0].request.priority == priority
    for part in inner.data() if stream else [inner.json()]:
        assert part == "[DONE]" or part["service_tier"] == named


async def test_without_a_tier_none_is_named() -> None:
    """As in OpenAI's answers."""
    enclave = Enclave()
    inner = await enclave.ask(CHAT)
    assert "service_tier" not in inner.json()
    assert enclave.engine.generations[0].request.priority == "normal"


async def test_a_deadline_is_the_callers_within_the_operators() -> None:
    """Neither can be passed."""
    enclave = Enclave("[limits]\nrequest_timeout_s = 20")
    assert (await _asked(enclave, CHAT)).timeout_s == 20
    assert (await _asked(enclave, CHAT | {"deadline_ms": 1500})).timeout_s == 1.5
    assert (await _asked(enclave, CHAT | {"deadline_ms": 60_000})).timeout_s == 20


async def test_a_passed_deadline_says_so() -> None:
    """A status and a code of its own, before and within a stream."""
    enclave = Enclave(
        engine=FakeEngine(lambda _request: [DeadlineExceeded("the request's time limit passed")])
    )
    inner = await enclave.ask(CHAT | {"deadline_ms": 1})
    assert (inner.status, inner.error()["code"]) == (504, "deadline_exceeded")
    streamed = await enclave.ask(CHAT | {"deadline_ms": 1, "stream": True})
    assert streamed.data()[-1]["error"]["code"] == "deadline_exceeded"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("service_tier", "priority"),
        ("service_tier", 1),
        ("deadline_ms", 0),
        ("deadline_ms", 1.5),
        ("deadline_ms", 10**9),
        ("cache_salt", "x" * 15),
        ("cache_salt", "x" * 257),
        ("cache_salt", ["x" * 16]),
    ],
)
async def test_wrong_terms_are_refused_by_name(field: str, value: object) -> None:
    """Nothing is served on other terms than were asked for."""
    inner = await Enclave().ask(CHAT | {field: value})
    assert (inner.status, inner.error()["param"]) == (400, field)


async def _tagged(enclave: Enclave, sealed: Sealed, tag: str) -> Inner:
    headers = {"content-type": sealed.media_type, media.TENANT_HEADER: tag}
    return sealed.open(
        await call(enclave.gateway, "POST", media.GATEWAY_PATH, body=[sealed.bytes], headers=headers)
    )


async def test_a_namespace_is_the_salt_in_this_epoch() -> None:
    """Equal salts share, other salts do not, no salt has none; the host's tag and the model's name take no part."""
    enclave = Enclave()
    mine = (await _asked(enclave, SALTED)).cache_namespace
    assert mine is not None
    assert len(mine) == 32
    assert SALT.encode() not in mine
    assert (await _asked(enclave, SALTED | {"stream": True})).cache_namespace == mine
    assert (await _asked(enclave, CHAT | {"cache_salt": SALT + "x"})).cache_namespace != mine
    assert (await _asked(enclave, CHAT)).cache_namespace is None
    for tag in ("one", "two"):
        await _tagged(enclave, enclave.seal(SALTED), tag)
        assert enclave.engine.generations[-1].request.cache_namespace == mine
    assert (await _asked(Enclave(), SALTED)).cache_namespace != mine


async def test_a_namespace_dies_with_its_epoch() -> None:
    """The next epoch gives another one; when the keys are gone, the engine is told to give up what was kept."""
    enclave = Enclave()
    mine = (await _asked(enclave, SALTED)).cache_namespace
    early = enclave.seal(SALTED)
    epoch = enclave.ring.current()
    enclave.clock.advance(enclave.configuration.epoch_s + 1)
    assert (await _asked(enclave, SALTED)).cache_namespace != mine
    # A request sealed to the previous keys finds what its own epoch kept.
    early.open(await enclave.post(early.bytes, early.media_type))
    assert enclave.engine.generations[-1].request.cache_namespace == mine
    assert enclave.engine.forgotten == set()
    enclave.clock.advance(enclave.configuration.overlap_s + 1)
    enclave.ring.current()
    assert enclave.engine.forgotten == {mine}
    assert epoch.namespaces.derive(SALT) is None


async def test_a_namespace_dies_when_its_epoch_is_cut_short() -> None:
    """A key whose replay memory is full twice over takes what was kept with it."""
    enclave = Enclave()
    mine = (await _asked(enclave, SALTED)).cache_namespace
    enclave.ring.rotate()
    assert enclave.engine.forgotten == set()
    enclave.ring.rotate()
    assert enclave.engine.forgotten == {mine}


async def test_the_salt_is_shown_nowhere() -> None:
    """Not in what is logged of a request, and not in the receipt, which says nothing of caching at all."""
    enclave = Enclave()
    sealed = enclave.seal(SALTED)
    inner = sealed.open(await enclave.post(sealed.bytes, sealed.media_type))
    request = enclave.engine.generations[0].request
    assert SALT not in repr(request)
    assert str(request.cache_namespace) not in repr(request)
    receipt = sealed.check_receipt(inner, enclave.keyset).receipt
    assert b"cache" not in receipt.to_bytes()
