# SPDX-License-Identifier: Apache-2.0
"""Digests, canonical JSON and commitments."""

import hashlib
import hmac

import pytest
from aci_vectors import UPSTREAM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given
from hypothesis import strategies as st

from adyton_protocol.digests import (
    Commitment,
    as_digest,
    commit,
    commitment_matches,
    digest_bytes,
    jcs,
    opening_key,
    sha256_hex,
)
from adyton_protocol.errors import LocalProtocolError

SECRETS = st.binary(min_size=32, max_size=32)
LABELS = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)


@pytest.mark.parametrize("vector", UPSTREAM["bodies"])
def test_body_digests_are_those_of_the_specification(vector: dict[str, str]) -> None:
    """sha256_hex reproduces the published digests."""
    assert sha256_hex(vector["body"].encode()) == vector["digest"]


def test_a_session_digests_to_the_published_id() -> None:
    """A direct service has no sessions, but whoever audits an aggregator with our digests finds its ids."""
    session = UPSTREAM["session"]
    assert jcs(session["document"]) == session["jcs"].encode()
    assert sha256_hex(jcs(session["document"])) == "sha256:" + session["session_id"]
    assert sha256_hex(session["evidence"].encode()) == session["document"]["evidence"]["digest"]


def test_a_digest_round_trips_and_nothing_else_passes_for_one() -> None:
    """Exact prefix, exact length, lower case, no trailing line end."""
    digest = sha256_hex(b"x")
    assert digest_bytes(as_digest(digest)) == hashlib.sha256(b"x").digest()
    for wrong in (digest.upper(), digest[:-1], digest + "\n", digest[7:], "sha512:" + digest[7:], ""):
        with pytest.raises(LocalProtocolError):
            as_digest(wrong)


def test_canonical_json_sorts_by_utf_16_and_writes_numbers_as_ecmascript_does() -> None:
    """The example of RFC 8785 section 3.2.3, and its number form."""
    assert jcs({"\u20ac": 1, "\r": 2, "\U0001f600": 3, "\ufb33": 4, "1": [1e21, 0.5, -0.0, True, None]}) == (
        b'{"\\r":2,"1":[1e+21,0.5,0,true,null],"\xe2\x82\xac":1,"\xf0\x9f\x98\x80":3,"\xef\xac\xb3":4}'
    )


@pytest.mark.parametrize(
    "value", [float("nan"), 2**53, b"x", {1: 1}, {"\ud800": 1}, "\ud800", {"a": object()}]
)
def test_what_has_no_canonical_form_is_our_error(value: object) -> None:
    """NaN, unsafe integers, foreign types and lone surrogates raise a typed error."""
    with pytest.raises(LocalProtocolError):
        jcs(value)


def test_an_endless_value_is_our_error() -> None:
    """A value that holds itself ends in the same typed error."""
    value: list[object] = []
    value.append(value)
    with pytest.raises(LocalProtocolError):
        jcs(value)


@given(SECRETS, LABELS, st.binary(max_size=300))
def test_a_commitment_is_hmac_under_an_expanded_key(secret: bytes, label: str, data: bytes) -> None:
    """An independent HKDF-Expand and HMAC give the same value."""
    info = b"adyton commitment v1\x00" + label.encode()
    key = HKDFExpand(algorithm=SHA256(), length=32, info=info).derive(secret)
    assert opening_key(secret, label) == key
    assert commit(secret, label, data) == "hmac-sha256:" + hmac.new(key, data, "sha256").hexdigest()


@given(SECRETS, st.lists(st.binary(max_size=50), max_size=6))
def test_pieces_commit_like_the_whole(secret: bytes, pieces: list[bytes]) -> None:
    """However a stream is cut, its commitment is that of its bytes, and may be read on the way."""
    commitment = Commitment(secret, "response.body")
    for piece in pieces:
        commitment.update(piece)
        commitment.value()
    assert commitment.value() == commit(secret, "response.body", b"".join(pieces))


@given(SECRETS, st.binary(max_size=50), st.binary(max_size=50))
def test_a_disclosed_key_opens_its_own_label_and_text_only(secret: bytes, data: bytes, other: bytes) -> None:
    """The third party is convinced of exactly one text; another label's key opens nothing."""
    commitment = commit(secret, "request.body", data)
    key = opening_key(secret, "request.body")
    assert commitment_matches(commitment, key, data)
    assert commitment_matches(commitment, key, other) == (other == data)
    assert not commitment_matches(commitment, opening_key(secret, "response.body"), data)


@given(st.text(max_size=90))
def test_no_string_but_the_commitment_matches(text: str) -> None:
    """Malformed commitments are refused without an exception, surrogates included."""
    assert not commitment_matches(text, bytes(32), b"data")
    assert not commitment_matches("\ud800", bytes(32), b"data")


@pytest.mark.parametrize(("secret", "label"), [(bytes(31), "a"), (bytes(33), "a"), (bytes(32), ""),
                                               (bytes(32), "A"), (bytes(32), "a" * 65), (bytes(32), "a\n"),
                                               (bytes(32), "\u00e4"), (bytes(32), ".a")])  # fmt: skip
def test_secrets_and_labels_have_their_exact_form(secret: bytes, label: str) -> None:
    """A wrong length or a strange label is a mistake of ours and raises."""
    with pytest.raises(LocalProtocolError):
        commit(secret, label, b"")


def test_an_opening_key_has_its_exact_length() -> None:
    """HMAC pads keys with zeros, so a key of another length could open the same commitment twice."""
    key = opening_key(bytes(32), "a")
    with pytest.raises(LocalProtocolError):
        commitment_matches(commit(bytes(32), "a", b""), key + b"\x00", b"")
