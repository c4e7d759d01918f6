# SPDX-License-Identifier: Apache-2.0
"""Receipts: built in the enclave, verified by anybody, matched to their exchange by those who know its secret."""

import base64
import json
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
from aci_vectors import EXCHANGE, UPSTREAM, rejected, rejection_code
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey
from wire_examples import (
    ENC,
    MODEL,
    RECEIPT_KEY,
    REQUEST_BODY,
    RESPONSE_BODY,
    SECRET,
    SERVED_AT,
    Signer,
    builder,
    keyset,
    receipt,
)

from adyton_protocol import bhttp
from adyton_protocol.digests import Digest, commitment_matches, jcs, opening_key, sha256_hex
from adyton_protocol.errors import LocalProtocolError, ReceiptError
from adyton_protocol.keyset import PublicKeyEntry
from adyton_protocol.receipt import (
    MAX_RECEIPT_BYTES,
    RECEIPT_HEADER,
    REQUEST_BODY_LABEL,
    RESPONSE_BODY_LABEL,
    Receipt,
    check_exchange,
    check_opening,
    openings,
    parse_receipt,
    parse_receipt_header,
    receipt_from_json,
    verify_receipt,
    verify_receipt_signature,
)

CANONICAL = receipt().to_bytes()
EXPECTED: dict[str, bytes] = {
    "enc": ENC, "receipt_secret": SECRET, "request_body": REQUEST_BODY, "response_body": RESPONSE_BODY,
}  # fmt: skip


def signed(document: Any) -> Receipt:
    """Sign a document with the example's key, as an enclave with other rules would."""
    unsigned = {name: value for name, value in document.items() if name != "signature"}
    return receipt_from_json(unsigned | {"signature": Signer().sign(jcs(unsigned)).hex()})


def accepted(data: bytes) -> None:
    """Do everything that a client does with a delivered receipt."""
    check_exchange(verify_receipt(parse_receipt(data), keyset()), **EXPECTED)


def test_the_published_receipt_verifies() -> None:
    """The specification's receipt parses, has the published signing bytes, and verifies under its key."""
    vector = UPSTREAM["receipt"]
    published = parse_receipt(vector["jcs"].encode())
    assert published.to_json() == vector["document"]
    assert published.signing_bytes() == vector["signing_bytes"].encode()
    assert sha256_hex(published.signing_bytes()) == "sha256:" + vector["signing_sha256"]
    assert published.signature.hex() == vector["signature"]
    verify_receipt_signature(published, bytes.fromhex(UPSTREAM["receipt_public_key"]))
    assert [event.type for event in published.events] == [
        "request.received", "request.forwarded", "upstream.verified", "response.returned",
    ]  # fmt: skip


def test_our_example_stays_what_it_is_on_the_wire() -> None:
    """The builder reproduces the vector byte for byte, and a client accepts it."""
    assert receipt().to_json() == EXCHANGE["receipt"]
    assert receipt().signing_bytes().decode() == EXCHANGE["receipt_signing_bytes"]
    assert receipt().header_value() == EXCHANGE["receipt_header"]
    assert openings(SECRET, [REQUEST_BODY_LABEL, RESPONSE_BODY_LABEL]) == EXCHANGE["openings"]
    accepted(CANONICAL)


def test_every_event_is_there_in_order() -> None:
    """The log reads as the exchange went."""
    parsed = parse_receipt(CANONICAL)
    assert [event.type for event in parsed.events] == [
        "request.received", "model.identity", "generation.finished", "response.returned",
    ]  # fmt: skip
    assert parsed.events_of("model.identity")[0].fields == {"name": MODEL.name, "identity": MODEL.identity}
    assert parsed.events[-1].fields["streamed"] is False
    with pytest.raises(TypeError):
        parsed.events[0].fields["enc_sha256"] = ""  # type: ignore[index]


def test_no_hash_of_a_text_stands_in_a_receipt() -> None:
    """Whoever holds a receipt cannot test guesses of prompt or answer."""
    for text in (REQUEST_BODY, RESPONSE_BODY, b"hi"):
        assert sha256_hex(text).removeprefix("sha256:").encode() not in CANONICAL


@pytest.mark.parametrize(
    ("name", "document"), rejected("receipt"), ids=[name for name, _ in rejected("receipt")]
)
def test_each_malformed_receipt_is_refused(name: str, document: Any) -> None:
    """Each vector violates one rule of the wire format, and is refused with the specified code."""
    with pytest.raises(ReceiptError) as caught:
        receipt_from_json(document)
    assert caught.value.code == rejection_code("receipt")


def test_every_single_bit_counts() -> None:
    """Flipping any one bit of a delivered receipt gets it refused."""
    for position in range(len(CANONICAL)):
        for bit in (0, 3, 7):
            data = bytearray(CANONICAL)
            data[position] ^= 1 << bit
            with pytest.raises(ReceiptError):
                accepted(bytes(data))


@given(st.integers(0, len(CANONICAL)), st.integers(0, 40), st.binary(max_size=40))
def test_every_edit_is_refused(start: int, length: int, inserted: bytes) -> None:
    """Replacing, inserting or deleting any bytes gets the receipt refused, unless nothing changed."""
    data = CANONICAL[:start] + inserted + CANONICAL[start + length :]
    if data == CANONICAL:
        accepted(data)
    else:
        with pytest.raises(ReceiptError):
            accepted(data)


def test_another_encoding_is_refused_where_bytes_count_and_read_where_values_do() -> None:
    """White space is an edit of a delivered receipt, but a receipt inside a saved file has no bytes of its own."""
    pretty = json.dumps(EXCHANGE["receipt"], indent=2).encode()
    with pytest.raises(ReceiptError):
        parse_receipt(pretty)
    check_exchange(verify_receipt(receipt_from_json(json.loads(pretty)), keyset()), **EXPECTED)


@given(st.binary(max_size=100))
def test_any_bytes_are_refused(data: bytes) -> None:
    """No input makes the parsers fail otherwise."""
    with pytest.raises(ReceiptError):
        parse_receipt(data)
    with pytest.raises(ReceiptError):
        parse_receipt_header(data.decode("latin-1"))


@pytest.mark.parametrize("change", ["=", "A", "+", " ", "\n", "\u00e4"])
def test_the_header_has_one_spelling(change: str) -> None:
    """Unpadded base64url of the canonical form, and nothing around it."""
    value = receipt().header_value()
    assert parse_receipt_header(value) == receipt()
    for wrong in (value + change, change + value, value[:-1] + change * 2, ""):
        with pytest.raises(ReceiptError):
            parse_receipt_header(wrong)


def test_unused_bits_of_the_header_are_no_hiding_place() -> None:
    """base64 decoders ignore trailing bits; we do not."""
    with_padding = next(
        value
        for length in range(3)
        if len(value := builder_receipt("x" * (length + 1)).header_value()) % 4 in {2, 3}
    )
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = with_padding[:-1] + alphabet[alphabet.index(with_padding[-1]) + 1]
    padding = "=" * (-len(twin) % 4)
    assert base64.urlsafe_b64decode(twin + padding) == base64.urlsafe_b64decode(with_padding + padding)
    with pytest.raises(ReceiptError):
        parse_receipt_header(twin)


def builder_receipt(receipt_id: str) -> Receipt:
    """A minimal receipt of a given id."""
    return builder(receipt_id=receipt_id).sign(Signer(), served_at=SERVED_AT, streamed=True)


@pytest.mark.parametrize("member", ["receipt_id", "model", "endpoint", "method", "chat_id", "key_id"])
def test_the_signature_covers_every_member(member: str) -> None:
    """A receipt whose claims were exchanged under the signature is refused."""
    changed = receipt_from_json(
        EXCHANGE["receipt"] | {member: "receipt-1" if member != "key_id" else "receipt-2"}
    )
    with pytest.raises(ReceiptError):
        verify_receipt(changed, keyset())


def test_replacing_attributes_of_the_object_changes_nothing() -> None:
    """What is verified and handed on is the signed document, not what was made of the object since."""
    verified = verify_receipt(replace(receipt(), served_at=1, model="other"), keyset())
    assert verified.receipt == receipt()


def test_unknown_events_and_members_are_kept_under_the_signature() -> None:
    """A newer enclave's receipt verifies here, and its additions cannot be changed either."""
    document = deepcopy(EXCHANGE["receipt"])
    document["event_log"].insert(1, {"type": "future.event", "value": {"deep": [1, None]}})
    document["extra"] = "kept"
    newer = signed(document)
    check_exchange(verify_receipt(newer, keyset()), **EXPECTED)
    assert newer.to_json()["extra"] == "kept"
    with pytest.raises(ReceiptError):
        verify_receipt(receipt_from_json(newer.to_json() | {"extra": "changed"}), keyset())


def test_the_key_must_be_listed_for_this_use() -> None:
    """A key of another role, of another algorithm or of another keyset signs nothing."""
    key = keyset().receipt_signing_keys[0]
    other = PublicKeyEntry.ed25519("receipt-1", SigningKey(b"\x09" * 32).verify_key.encode())
    foreign = PublicKeyEntry(key_id="receipt-1", algo="ecdsa-secp256k1", public_key=key.public_key)
    for keys in ((), (other,), (foreign,), (replace(key, key_id="receipt-2"),)):
        listing = keyset(receipt_signing_keys=keys)
        again = signed(EXCHANGE["receipt"] | {"workload_keyset_digest": listing.digest()})
        with pytest.raises(ReceiptError):
            verify_receipt(again, listing)


def test_a_receipt_of_another_keyset_is_refused() -> None:
    """The same key in another epoch's keyset does not carry over."""
    with pytest.raises(ReceiptError):
        verify_receipt(receipt(), keyset(not_after=1_800_000_001))


def test_a_receipt_served_after_expiry_is_refused() -> None:
    """An enclave that still signs with an expired key has failed to rotate; the last second counts as in time."""
    for served_at, fits in ((1_800_000_000, True), (1_800_000_001, False)):
        late = builder().sign(Signer(), served_at=served_at, streamed=False)
        if fits:
            verify_receipt(late, keyset())
        else:
            with pytest.raises(ReceiptError):
                verify_receipt(late, keyset())


@pytest.mark.parametrize(
    "fields",
    [{"name": "other", "identity": MODEL.identity}, {"name": MODEL.name, "identity": sha256_hex(b"swapped")},
     {"name": MODEL.name}, {"identity": MODEL.identity}, {"name": 1, "identity": MODEL.identity}],
)  # fmt: skip
def test_a_model_that_was_not_attested_is_refused(fields: dict[str, Any]) -> None:
    """A receipt can only name models that the quote bound, by name and digest together."""
    building = builder()
    building.event("model.identity", fields)
    with pytest.raises(ReceiptError):
        verify_receipt(building.sign(Signer(), served_at=SERVED_AT, streamed=False), keyset())


@pytest.mark.parametrize("argument", sorted(EXPECTED))
def test_a_receipt_of_another_exchange_is_refused(argument: str) -> None:
    """Request, response, encapsulation and secret each bind the receipt to one exchange."""
    verified = verify_receipt(receipt(), keyset())
    other = bytes(32) if argument == "receipt_secret" else EXPECTED[argument] + b" "
    with pytest.raises(ReceiptError):
        check_exchange(verified, **(EXPECTED | {argument: other}))


@pytest.mark.parametrize("type_", ["request.received", "response.returned"])
@pytest.mark.parametrize("count", [0, 2])
def test_the_body_events_stand_exactly_once(type_: str, count: int) -> None:
    """With two of them a reader would have to choose which one to believe."""
    document = deepcopy(EXCHANGE["receipt"])
    log = document["event_log"]
    event = next(event for event in log if event["type"] == type_)
    first = [{"type": "request.received"}] if type_ == "request.received" and count == 0 else []
    document["event_log"] = first + [event] * (count - 1) + [
        other for other in log if count or other is not event
    ]  # fmt: skip
    with pytest.raises(ReceiptError):
        check_exchange(verify_receipt(signed(document), keyset()), **EXPECTED)


def test_commitments_must_be_of_their_form() -> None:
    """A bare hash where a commitment belongs is refused, even under a good signature."""
    document = deepcopy(EXCHANGE["receipt"])
    document["event_log"][0]["body_commitment"] = sha256_hex(REQUEST_BODY)
    with pytest.raises(ReceiptError):
        check_exchange(verify_receipt(signed(document), keyset()), **EXPECTED)


@given(st.text(max_size=70))
def test_a_strange_enc_digest_is_refused(text: str) -> None:
    """The digest of enc is compared as it stands, without an exception for odd strings."""
    document = deepcopy(EXCHANGE["receipt"])
    document["event_log"][0]["enc_sha256"] = text
    with pytest.raises(ReceiptError):
        check_exchange(verify_receipt(signed(document), keyset()), **EXPECTED)


def test_a_third_party_checks_one_text_with_one_key() -> None:
    """A disclosed key opens its own commitment, convinces of no other text, and is no key to the other body."""
    verified = verify_receipt(receipt(), keyset())
    keys = {label: bytes.fromhex(key) for label, key in openings(SECRET, [RESPONSE_BODY_LABEL]).items()}
    check_opening(verified, RESPONSE_BODY_LABEL, keys[RESPONSE_BODY_LABEL], RESPONSE_BODY)
    for label, key, data in (
        (RESPONSE_BODY_LABEL, keys[RESPONSE_BODY_LABEL], RESPONSE_BODY + b"x"),
        (REQUEST_BODY_LABEL, keys[RESPONSE_BODY_LABEL], REQUEST_BODY),
        (RESPONSE_BODY_LABEL, opening_key(SECRET, REQUEST_BODY_LABEL), RESPONSE_BODY),
    ):
        with pytest.raises(ReceiptError):
            check_opening(verified, label, key, data)
    for label, key in (("other.label", bytes(32)), (REQUEST_BODY_LABEL, bytes(31))):
        with pytest.raises(LocalProtocolError):
            check_opening(verified, label, key, b"")


def test_candidates_enter_as_commitments() -> None:
    """Reserved events carry commitments under labels of their own, which open one by one."""
    building = builder()
    building.event("scaling.run", {"candidates": [building.commitment("scaling.candidate.0", b"x = 4")]})
    building.event("answer.scored", {"scorer": "prm"})
    building.event("validation.checked", {"replayed": True})
    done = verify_receipt(building.sign(Signer(), served_at=SERVED_AT, streamed=False), keyset()).receipt
    candidates: Any = done.events_of("scaling.run")[0].fields["candidates"]
    assert commitment_matches(candidates[0], opening_key(SECRET, "scaling.candidate.0"), b"x = 4")


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_a_streamed_answer_is_committed_piece_by_piece(pieces: list[bytes]) -> None:
    """However the answer was cut, the receipt is about its bytes."""
    building = builder()
    for piece in pieces:
        building.response_data(piece)
    verified = verify_receipt(building.sign(Signer(), served_at=SERVED_AT, streamed=True), keyset())
    check_exchange(verified, **(EXPECTED | {"response_body": b"".join(pieces)}))
    assert verified.receipt.events[-1].fields["streamed"] is True


def test_the_builder_guards_its_own_events_and_labels() -> None:
    """Callers can neither forge the events that bind the exchange, nor reuse the labels of the bodies."""
    building = builder()
    for type_ in (
        "request.received",
        "response.returned",
        "request.forwarded",
        "upstream.verified",
        "",
        "A.b",
        "a..b",
    ):
        with pytest.raises(LocalProtocolError):
            building.event(type_, {})
    for fields in ({"type": "x"}, {"value": 1.5}, {"value": 2**53}):
        with pytest.raises(LocalProtocolError):
            building.event("x", fields)  # type: ignore[arg-type]
    for label in (REQUEST_BODY_LABEL, RESPONSE_BODY_LABEL, "Bad Label"):
        with pytest.raises(LocalProtocolError):
            building.commitment(label, b"")


def test_the_largest_receipt_fits_into_the_header_of_an_answer() -> None:
    """A receipt that can be signed can be delivered; one byte more is refused at the signer's side."""
    base = len(builder_receipt("r").to_bytes())

    def padded(length: int) -> Receipt:
        building = builder(receipt_id="r")
        building.event("x", {"text": "y" * (length - base - len('{"text":"","type":"x"},'))})
        return building.sign(Signer(), served_at=SERVED_AT, streamed=True)

    largest = padded(MAX_RECEIPT_BYTES)
    assert len(largest.to_bytes()) == MAX_RECEIPT_BYTES
    field = (RECEIPT_HEADER.encode(), largest.header_value().encode())
    answer = bhttp.encode_response(bhttp.Response(status=200, headers=(field,), content=b""))
    assert parse_receipt_header(bhttp.parse_response(answer).headers[0][1].decode()) == largest
    with pytest.raises(LocalProtocolError):
        padded(MAX_RECEIPT_BYTES + 1)


def test_events_are_recorded_as_they_were() -> None:
    """Changing an object after it was recorded does not change the log."""
    building = builder()
    usage = {"prompt_tokens": 1}
    building.generation_finished(finish_reasons=["stop"], usage=usage)
    usage["prompt_tokens"] = 0
    done = building.sign(Signer(), served_at=SERVED_AT, streamed=False)
    assert done.events[1].fields["usage"] == {"prompt_tokens": 1}


def test_a_receipt_is_signed_once() -> None:
    """After signing nothing can be added, and no second version of the same receipt can come to be."""
    building = builder()
    building.sign(Signer(), served_at=SERVED_AT, streamed=False)
    for late in (
        lambda: building.event("x", {}), lambda: building.response_data(b""),
        lambda: building.sign(Signer(), served_at=SERVED_AT, streamed=False),
    ):  # fmt: skip
        with pytest.raises(LocalProtocolError):
            late()


@pytest.mark.parametrize(
    "changes", [{"receipt_id": "../x"}, {"receipt_id": ""}, {"endpoint": ""}, {"method": "a\nb"}, {"model": "\u00e4"},
                {"keyset_digest": Digest("x")}, {"receipt_secret": bytes(31)}]
)  # fmt: skip
def test_what_the_parser_refuses_cannot_be_built(changes: dict[str, Any]) -> None:
    """The enclave finds its own mistakes before a client does."""
    with pytest.raises(LocalProtocolError):
        builder(**changes).sign(Signer(), served_at=SERVED_AT, streamed=False)


def test_a_signature_of_another_scalar_is_refused() -> None:
    """Ed25519 with S + L is the same signature to a careless verifier; here it is none."""
    order = 2**252 + 27742317777372353535851937790883648493
    signature = receipt().signature
    scalar = int.from_bytes(signature[32:], "little") + order
    twin = signature[:32] + scalar.to_bytes(32, "little")
    with pytest.raises(ReceiptError):
        verify_receipt(receipt_from_json(EXCHANGE["receipt"] | {"signature": twin.hex()}), keyset())


def test_a_key_of_small_order_signs_nothing() -> None:
    """The neutral element as public key would accept one signature for every document."""
    neutral = (1).to_bytes(32, "little")
    forged = replace(receipt(), signature=neutral + bytes(32))
    for key in (neutral, bytes(32), b"short"):
        with pytest.raises(ReceiptError):
            verify_receipt_signature(forged, key)


def test_the_example_key_is_the_published_one() -> None:
    """Our vectors use the seed of the specification's vectors."""
    assert RECEIPT_KEY.verify_key.encode().hex() == UPSTREAM["receipt_public_key"]
