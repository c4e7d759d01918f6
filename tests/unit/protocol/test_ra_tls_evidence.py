# SPDX-License-Identifier: Apache-2.0
"""What an RA-TLS certificate carries, byte for byte as Gramine writes it, and nothing else."""

import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from adyton_protocol import cbor
from adyton_protocol.digests import sha256_hex
from adyton_protocol.errors import LocalProtocolError, MalformedEvidence, ReceiptError
from adyton_protocol.ra_tls import (
    claims_report_data,
    exchange_header,
    parse_exchange_header,
    parse_tagged_evidence,
    public_key_claims,
    public_key_report_data,
    tagged_evidence,
)
from adyton_protocol.report import MAX_QUOTE_BYTES
from adyton_protocol.statement import Statement

SPKI = (
    ec.derive_private_key(7, ec.SECP256R1())
    .public_key()
    .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
)
OTHER = (
    ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
    .public_key()
    .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
)
QUOTE = b"a quote of more than twenty-three bytes"
HASH = hashlib.sha256(SPKI).digest()
ENTRY = b"\x82\x01\x58\x20" + HASH


def evidence(claims: bytes, quote: bytes = QUOTE) -> bytes:
    """Tagged evidence with any claims."""
    return cbor.encode(cbor.Tagged(60_000, [quote, claims]))


def test_the_bytes_are_those_that_gramine_writes() -> None:
    """A map of one text key to a byte string that is itself CBOR: an array of 1 and the hash."""
    claims = b"\xa1\x6bpubkey-hash\x58\x24" + ENTRY
    assert public_key_claims(SPKI) == claims
    written = tagged_evidence(QUOTE, SPKI)
    assert written == b"\xd9\xea\x60\x82\x58\x27" + QUOTE + b"\x58\x33" + claims
    assert parse_tagged_evidence(written, SPKI) == QUOTE
    assert claims_report_data(SPKI) == hashlib.sha256(claims).digest() + bytes(32)
    assert public_key_report_data(SPKI) == HASH + bytes(32)


@pytest.mark.parametrize(
    "claims",
    [
        b"\xa0",
        b"",
        b"\x80",
        cbor.encode({"nonce": b"x"}),
        cbor.encode({"pubkey-hash": ENTRY, "nonce": b"x"}),
        b"\xa2" + 2 * (b"\x6bpubkey-hash\x58\x24" + ENTRY),
        b"\xa2\x6bpubkey-hash\x58\x24" + ENTRY + b"\x78\x0bpubkey-hash\x58\x24" + ENTRY,
        b"\xbf\x6bpubkey-hash\x58\x24" + ENTRY + b"\xff",
        cbor.encode({"pubkey-hash": [1, HASH]}),
        cbor.encode({"pubkey-hash": cbor.encode([7, hashlib.sha384(SPKI).digest()])}),
        cbor.encode({"pubkey-hash": cbor.encode([1, HASH[:31]])}),
        cbor.encode({"pubkey-hash": cbor.encode([1, HASH, HASH])}),
        cbor.encode({"pubkey-hash": b"\x82\x18\x01\x58\x20" + HASH}),
        cbor.encode({"PUBKEY-HASH": ENTRY}),
        public_key_claims(SPKI) + b"\x00",
        public_key_claims(OTHER),
    ],
)
def test_the_hash_of_the_key_is_demanded_exactly_once(claims: bytes) -> None:
    """Missing, beside another claim, twice, in another encoding, by another hash, about another key."""
    with pytest.raises(MalformedEvidence):
        parse_tagged_evidence(evidence(claims), SPKI)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        cbor.encode([QUOTE, public_key_claims(SPKI)]),
        cbor.encode(cbor.Tagged(60_001, [QUOTE, public_key_claims(SPKI)])),
        cbor.encode(cbor.Tagged(60_000, [QUOTE])),
        cbor.encode(cbor.Tagged(60_000, [QUOTE, public_key_claims(SPKI), b""])),
        cbor.encode(cbor.Tagged(60_000, ["quote", public_key_claims(SPKI)])),
        cbor.encode(cbor.Tagged(60_000, QUOTE)),
        evidence(public_key_claims(SPKI), b""),
        evidence(public_key_claims(SPKI), bytes(MAX_QUOTE_BYTES)) + b"\x00",
        evidence(public_key_claims(SPKI)) + b"\x00",
    ],
)
def test_what_is_no_tagged_evidence_is_refused(value: bytes) -> None:
    """Another tag, another shape, another type, more or less."""
    with pytest.raises(MalformedEvidence):
        parse_tagged_evidence(value, SPKI)


@given(st.binary(max_size=120) | st.binary(max_size=60).map(evidence))
def test_any_bytes_are_refused(value: bytes) -> None:
    """No input makes the reader fail otherwise, and none is accepted by chance."""
    with pytest.raises(MalformedEvidence):
        parse_tagged_evidence(value, SPKI)


@given(
    st.binary(min_size=1, max_size=200),
    st.binary(max_size=8),
    st.none() | st.binary(min_size=32, max_size=32),
)
def test_a_quote_is_good_for_one_use(key: bytes, keyset: bytes, nonce: bytes | None) -> None:
    """What is hashed for a keyset, for a key and for claims about a key begins with different bytes, always."""
    spki = b"\x30" + key
    statement = Statement(
        keyset_digest=sha256_hex(keyset), nonce=None if nonce is None else nonce.hex()
    ).to_bytes()
    assert {statement[:1], spki[:1], public_key_claims(spki)[:1]} == {b"{", b"\x30", b"\xa1"}
    assert (
        len({hashlib.sha256(statement).digest(), claims_report_data(spki), public_key_report_data(spki)}) == 3
    )


@pytest.mark.parametrize("spki", [b"", b"{", b'{"keyset_digest":"sha256:', b"\xa1", b"\x30" + bytes(1024)])
@pytest.mark.parametrize("use", [claims_report_data, public_key_claims, public_key_report_data])
def test_what_could_be_another_preimage_is_not_hashed_as_a_key(spki: bytes, use: Any) -> None:
    """Nobody gets a quote over a statement, or over claims, by calling it a public key."""
    with pytest.raises(LocalProtocolError):
        use(spki)


@pytest.mark.parametrize("quote", [b"", bytes(MAX_QUOTE_BYTES + 1)])
def test_what_the_reader_refuses_is_not_written(quote: bytes) -> None:
    """A quote has a size."""
    with pytest.raises(LocalProtocolError):
        tagged_evidence(quote, SPKI)


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_the_exchange_of_an_answer_comes_back(exchange_id: bytes, secret: bytes) -> None:
    """Id and secret, in one word that has one form."""
    value = exchange_header(exchange_id, secret)
    assert parse_exchange_header(value) == (exchange_id, secret)


@given(
    st.one_of(
        st.binary(max_size=100),
        st.text("AB-_.=", min_size=80, max_size=90).map(str.encode),
        st.sampled_from([b"A" * 42 + b"B." + b"A" * 43, b"A" * 43 + b"." + b"A" * 42 + b"B"]),
    )
)
def test_what_is_no_exchange_is_refused(value: bytes) -> None:
    """Also where base64 would forgive bits that stand for nothing."""
    try:
        parts = parse_exchange_header(value)
    except ReceiptError:
        return
    assert exchange_header(*parts) == value


def test_an_exchange_is_of_its_lengths() -> None:
    """Shorter ones would be weak, and never come from the enclave."""
    with pytest.raises(LocalProtocolError):
        exchange_header(bytes(31), bytes(32))
