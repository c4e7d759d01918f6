# SPDX-License-Identifier: Apache-2.0
"""The workload keyset."""

import json
from copy import deepcopy
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
from aci_vectors import EXCHANGE, UPSTREAM, rejected, rejection_code
from hypothesis import given
from hypothesis import strategies as st
from wire_examples import MODEL, X25519_PUBLIC, keyset

from adyton_protocol.digests import jcs, sha256_hex
from adyton_protocol.errors import LocalProtocolError, MalformedEvidence
from adyton_protocol.key_config import KeyConfig
from adyton_protocol.keyset import PublicKeyEntry, TlsKeyEntry, keyset_digest, parse_keyset
from adyton_protocol.suite import Kem

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)
PATHS = [
    ["not_after"], ["subject"], ["receipt_signing_keys"], ["receipt_signing_keys", 0],
    ["receipt_signing_keys", 0, "algo"], ["receipt_signing_keys", 0, "public_key"], ["e2ee_public_keys"],
    ["e2ee_public_keys", 0, "public_key"], ["tls_public_keys"], ["adyton"], ["adyton", "models"],
    ["adyton", "models", 0], ["adyton", "epoch"], ["adyton", "previous_keyset_digest"], ["new"],
]  # fmt: skip


def test_the_digest_is_that_of_the_specification() -> None:
    """Canonical form and digest of the published keyset agree, from a shuffled encoding too."""
    vector = UPSTREAM["keyset"]
    document = dict(reversed(json.loads(vector["jcs"]).items()))
    assert jcs(document) == vector["jcs"].encode()
    assert keyset_digest(document) == vector["digest"]


def test_our_example_keeps_its_digest() -> None:
    """The canonical form of our keyset is fixed on the wire, and building and parsing agree on it."""
    built, parsed = keyset(), parse_keyset(EXCHANGE["keyset"])
    assert built == parsed
    assert built.to_bytes().decode() == EXCHANGE["keyset_jcs"]
    assert built.digest() == parsed.digest() == EXCHANGE["keyset_digest"]
    assert built.to_json() == EXCHANGE["keyset"]


@pytest.mark.parametrize(
    ("name", "document"), rejected("keyset"), ids=[name for name, _ in rejected("keyset")]
)
def test_each_malformed_keyset_is_refused(name: str, document: Any) -> None:
    """Each vector violates one rule of the wire format, and is refused with the specified code."""
    with pytest.raises(MalformedEvidence) as caught:
        parse_keyset(document)
    assert caught.value.code == rejection_code("keyset")


@given(st.sampled_from(PATHS), VALUES)
def test_any_value_anywhere_is_read_or_refused(path: list[Any], value: object) -> None:
    """A hostile value in any place yields a keyset whose digest covers it, or MalformedEvidence."""
    document = deepcopy(EXCHANGE["keyset"])
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    try:
        parsed = parse_keyset(document)
    except MalformedEvidence:
        return
    assert parsed.digest() == sha256_hex(jcs(document))


@given(VALUES)
def test_any_object_is_read_or_refused(value: object) -> None:
    """No object whatever makes the parser fail otherwise."""
    with pytest.raises(MalformedEvidence):
        parse_keyset(value)


@given(st.dictionaries(st.text(max_size=8), st.integers(0, 9) | st.text(max_size=8), max_size=3))
def test_unknown_members_are_kept_for_the_digest(extra: dict[str, Any]) -> None:
    """A newer service may add members: the digest covers exactly what was received, and so does to_json()."""
    document = extra | EXCHANGE["keyset"]
    document["e2ee_public_keys"] = [{**document["e2ee_public_keys"][0], "note": 1}]
    parsed = parse_keyset(document)
    assert parsed.digest() == keyset_digest(document)
    assert parsed.to_json() == document
    assert parsed != keyset()


def test_a_parsed_keyset_does_not_follow_its_source() -> None:
    """Changing the object that was parsed changes neither digest nor contents."""
    document = deepcopy(EXCHANGE["keyset"])
    parsed = parse_keyset(document)
    document["adyton"]["epoch"] = 5
    parsed.to_json()["not_after"] = 1
    assert parsed == keyset()


def test_a_missing_subject_reads_as_none_and_digests_as_missing() -> None:
    """Absent and null mean the same and are not the same bytes."""
    document = {name: value for name, value in EXCHANGE["keyset"].items() if name != "subject"}
    assert parse_keyset(document).subject is None
    assert parse_keyset(document).digest() != keyset().digest()


def test_key_configurations_come_out_as_they_went_in() -> None:
    """The exact application/ohttp-keys bytes travel; other algorithms are skipped."""
    other = PublicKeyEntry(key_id="x", algo="x25519-aes-256-gcm-hkdf-sha256", public_key="any encoding")
    both = keyset(e2ee_public_keys=(other, *keyset().e2ee_public_keys))
    assert both.key_configs() == (KeyConfig(key_id=7, kem=Kem.X25519, public_key=X25519_PUBLIC),)
    with pytest.raises(MalformedEvidence):
        other.public_bytes()


@pytest.mark.parametrize("count", [0, 2])
def test_there_is_exactly_one_entry_of_key_configurations(count: int) -> None:
    """With none nothing can be sealed, and with two a reader would have to choose."""
    entries = tuple(
        PublicKeyEntry.ohttp(
            f"k{key_id}", [KeyConfig(key_id=key_id, kem=Kem.X25519, public_key=X25519_PUBLIC)]
        )
        for key_id in range(count)
    )
    with pytest.raises(MalformedEvidence):
        keyset(e2ee_public_keys=entries).key_configs()


def test_malformed_key_configurations_are_malformed_evidence() -> None:
    """Bytes inside the keyset count as part of the evidence."""
    entry = PublicKeyEntry(key_id="k", algo="ohttp-chunked", public_key="00ff")
    with pytest.raises(MalformedEvidence):
        keyset(e2ee_public_keys=(entry,)).key_configs()


@pytest.mark.parametrize(
    "changes",
    [
        {"not_after": 0}, {"subject": ""}, {"receipt_signing_keys": keyset().receipt_signing_keys * 2},
        {"tls_public_keys": (TlsKeyEntry(spki_sha256="c0"),)},
        {"extension": replace(keyset().extension, models=(MODEL, MODEL))},
        {"extension": replace(keyset().extension, epoch=-1)},
    ],
)  # fmt: skip
def test_what_the_parser_refuses_cannot_be_built(changes: dict[str, Any]) -> None:
    """The enclave finds its own mistakes before a client does."""
    with pytest.raises(LocalProtocolError):
        keyset(**changes)


def test_tls_keys_may_name_their_domain() -> None:
    """Both forms of the entry survive the wire."""
    entries = (
        TlsKeyEntry(spki_sha256="c0" * 32),
        TlsKeyEntry(spki_sha256="c1" * 32, domain="api.example.com"),
    )
    assert parse_keyset(keyset(tls_public_keys=entries).to_json()).tls_public_keys == entries


def test_a_keyset_cannot_be_changed() -> None:
    """Trust in a keyset is trust in a value; replacing a member computes another digest."""
    with pytest.raises(FrozenInstanceError):
        keyset().not_after = 1  # type: ignore[misc]
    assert replace(keyset(), not_after=1).digest() != keyset().digest()
    assert len({keyset(), keyset()}) == 1
