# SPDX-License-Identifier: Apache-2.0
"""Receipts: every answer has one, it is about this very exchange, and it is signed by an attested key."""

import json

import pytest
from memory_appliance import (
    DONE,
    MODEL,
    WORDS,
    Face,
    MemoryAppliance,
    Signer,
    delta_events,
    policy,
    simulation,
)

from adyton.receipts import KEPT_RECEIPTS, ReportFile, parse_receipt_file
from adyton_attestation.simulation import SimulatedVerifier
from adyton_protocol.digests import sha256_hex
from adyton_protocol.errors import ConfigError, ReceiptError, RemoteProtocolError
from adyton_protocol.receipt import Receipt, ReceiptBuilder, verify_receipt
from adyton_protocol.sse import receipt_comment

EVENTS = tuple(delta_events(WORDS))


@pytest.mark.parametrize("stream", [True, False])
def test_every_answer_leaves_a_checked_receipt_with_its_evidence(
    face: Face, memory: MemoryAppliance, *, stream: bool
) -> None:
    """The record names model and key, and carries the evidence with which somebody else can check it."""
    face.connect(memory).ask(stream=stream)
    assert face.client is not None
    record = face.client.last_receipt
    assert record is not None
    assert record.receipt == memory.last_receipt
    assert [event.type for event in record.receipt.events] == [
        "request.received", "model.identity", "generation.finished", "response.returned",
    ]  # fmt: skip
    evidence = ReportFile.parse(json.dumps(record.report_to_json()).encode())
    endorsements = evidence.parse_endorsements()
    assert endorsements is not None
    assert evidence.challenge is not None
    assert evidence.appraised_at_s is not None
    result = SimulatedVerifier(policy(), simulation().root_der).appraise(
        evidence.parse_report(),
        endorsements,
        challenge=evidence.challenge,
        now_s=evidence.appraised_at_s,
    )
    verify_receipt(parse_receipt_file(json.dumps(record.to_json()).encode()), result.keyset)


def test_only_the_last_receipts_are_kept(memory: MemoryAppliance) -> None:
    """A long-lived client does not grow."""
    face = Face(asynchronous=False).connect(memory)
    for _ in range(KEPT_RECEIPTS + 3):
        face.ask()
    assert face.client is not None
    assert len(face.client.receipts) == KEPT_RECEIPTS
    assert face.client.receipts[-1] is face.client.last_receipt


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_without_a_receipt_is_refused(face: Face, memory: MemoryAppliance, *, stream: bool) -> None:
    """No receipt, no end of the answer."""
    memory.with_receipt = False
    with pytest.raises(ReceiptError, match="without a receipt"):
        face.connect(memory).ask(stream=stream)
    assert DONE not in face.seen


def foreign_key(appliance: MemoryAppliance, builder: ReceiptBuilder) -> Receipt:
    """Signed by a key that is not in the keyset, under a name that is."""
    return builder.sign(Signer(appliance.epoch.signer.key_id), served_at=appliance.clock(), streamed=True)


def unlisted_key(appliance: MemoryAppliance, builder: ReceiptBuilder) -> Receipt:
    """Signed by a key that the keyset does not list."""
    return builder.sign(Signer("nobody"), served_at=appliance.clock(), streamed=True)


def other_answer(appliance: MemoryAppliance, builder: ReceiptBuilder) -> Receipt:
    """About an answer with more in it."""
    builder.response_data(b"data: more\n\n")
    return builder.sign(appliance.epoch.signer, served_at=appliance.clock(), streamed=True)


def other_model(appliance: MemoryAppliance, builder: ReceiptBuilder) -> Receipt:
    """Names a model that the keyset does not list."""
    builder.model_identity(name=MODEL.name, identity=sha256_hex(b"other weights"))
    return builder.sign(appliance.epoch.signer, served_at=appliance.clock(), streamed=True)


def rebuilt(appliance: MemoryAppliance, *, secret: bytes, enc: bytes, body: bytes, events: bytes) -> Receipt:
    """A receipt from scratch, signed by the attested key."""
    builder = ReceiptBuilder(
        receipt_id="rcpt-1",
        keyset_digest=appliance.epoch.keyset.digest(),
        receipt_secret=secret,
        enc=enc,
        request_body=body,
        endpoint="/v1/chat/completions",
    )
    builder.response_data(events)
    return builder.sign(appliance.epoch.signer, served_at=appliance.clock(), streamed=True)


def other_secret(appliance: MemoryAppliance, _builder: ReceiptBuilder) -> Receipt:
    """Committed under a secret that this client does not share."""
    return rebuilt(
        appliance, secret=b"s" * 32, enc=b"e" * 32, body=appliance.inner[-1].content, events=b"".join(EVENTS)
    )


@pytest.mark.parametrize(
    "sign", [foreign_key, unlisted_key, other_answer, other_model, other_secret], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("stream", [True, False])
def test_a_wrong_receipt_is_refused(
    face: Face, memory: MemoryAppliance, sign: object, *, stream: bool
) -> None:
    """Each way in which a receipt can be about something else is an error, and the answer does not end."""
    memory.sign = sign
    with pytest.raises(ReceiptError):
        face.connect(memory).ask(stream=stream)
    assert DONE not in face.seen
    assert face.client is not None
    assert face.client.last_receipt is None


def test_the_receipt_of_another_exchange_is_refused(face: Face, memory: MemoryAppliance) -> None:
    """A genuine receipt of the same client, for the same question and the same answer, does not count twice."""
    face.connect(memory).ask()
    genuine = memory.last_receipt
    assert genuine is not None
    memory.sign = lambda _appliance, _builder: genuine
    with pytest.raises(ReceiptError, match="another"):
        face.ask()


def test_nothing_follows_the_receipt_but_the_end(face: Face, memory: MemoryAppliance) -> None:
    """Words after the receipt would be shown without being signed."""
    memory.end = EVENTS[0] + DONE
    with pytest.raises(RemoteProtocolError, match="after its receipt"):
        face.connect(memory).ask()
    memory.end = DONE + EVENTS[0]
    with pytest.raises(RemoteProtocolError, match="after its end"):
        face.ask()


def test_a_stream_has_one_receipt(face: Face, memory: MemoryAppliance) -> None:
    """A second receipt, or one after the end, is refused."""
    face.connect(memory).ask()
    assert memory.last_receipt is not None
    memory.end = receipt_comment(memory.last_receipt.to_bytes()) + DONE
    with pytest.raises(ReceiptError, match="none may stand"):
        face.ask()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"report": 1}',
        b'{"report": {}, "extra": 1}',
        b'{"report": {}, "appraised_at": "x"}',
        b"\xff",
    ],
)
def test_unusable_report_files_are_config_errors(data: bytes) -> None:
    """A file that is no report file is the caller's problem, not an attack."""
    with pytest.raises(ConfigError):
        ReportFile.parse(data)


def test_unusable_receipt_files_are_typed_errors() -> None:
    """A file that is no receipt file is a ``ConfigError``; one that holds no receipt a ``ReceiptError``."""
    with pytest.raises(ConfigError):
        parse_receipt_file(b"nonsense")
    with pytest.raises(ReceiptError):
        parse_receipt_file(b'{"receipt": {"api_version": "aci/1"}}')
