# SPDX-License-Identifier: Apache-2.0
"""Endorsements, certificates, marks and roots: what can be read is read exactly, the rest is a typed error."""

import contextlib
import hashlib
import json
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from adyton_attestation.certificates import p256_key, parse_chain, signature_holds, trust_anchor
from adyton_attestation.endorsements import parse_endorsements
from adyton_attestation.marks import NO_MARKS, HighWaterMarks
from adyton_attestation.roots import INTEL_SGX_ROOT_DER, INTEL_SGX_ROOT_SHA256
from adyton_attestation.simulation.pki import FMSPC, SGX_EXTENSION_OID, utc
from adyton_protocol.errors import ConfigError, EndorsementError

NOW_S = 1_790_000_000

# What cryptography says about odd certificates is not ours to say; the odd ones are refused for better reasons.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Attribute's length:UserWarning"),
    pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning"),
]


def reads_or_refuses(data: bytes) -> None:
    """Parse; any error but the one promised escapes and fails the test."""
    with contextlib.suppress(EndorsementError):
        parse_endorsements(data)


@given(st.binary(max_size=2000))
def test_arbitrary_bytes_raise_nothing_but_endorsement_error(data: bytes) -> None:
    """Whatever the relay serves as endorsements ends in EndorsementError at worst."""
    reads_or_refuses(data)


_COLLATERAL: list[dict[str, str]] = []


@given(data=st.data())
def test_mangled_collateral_raises_nothing_but_endorsement_error(lab: Any, data: st.DataObject) -> None:
    """Nearly right collateral reaches every reader: certificates, CRLs, dates, signatures."""
    if not _COLLATERAL:
        _COLLATERAL.append(json.loads(lab.collateral()))
    document = dict(_COLLATERAL[0])
    member = data.draw(st.sampled_from(sorted(document)))
    text = list(document[member])
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(text) - 1))
        text[position] = data.draw(st.sampled_from([*'0123456789abcdefABCZ+/=\n-"{}:', "\x00", "é"]))
    reads_or_refuses(json.dumps(document | {member: "".join(text)}).encode())


@given(data=st.data())
def test_mangled_certificates_raise_nothing_but_endorsement_error(lab: Any, data: st.DataObject) -> None:
    """Certificates are decoded in full while parsing, so that nothing surfaces later as another error."""
    der = bytearray(lab.pki.pck.der())
    for _ in range(data.draw(st.integers(1, 4))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    with pytest.raises(EndorsementError):
        trust_anchor(bytes(der))


def test_a_chain_has_one_encoding(lab: Any) -> None:
    """Other text, other base64 of the same bytes, blanks and comments: all refused; zero bytes at the end are not."""
    pem = lab.pki.pck_chain_pem()
    assert len(parse_chain(pem.encode(), "chain")) == 3
    assert len(parse_chain(pem.encode() + b"\x00", "chain")) == 3
    first, rest = pem.split("\n", 1)
    bent = [
        "# a comment\n" + pem,
        pem + "trailing text",
        first + " \n" + rest,
        pem.replace("CERTIFICATE", "TRUSTED CERTIFICATE"),
        pem * 2,
        "",
        "\x00",
        pem.replace("\n", ""),
    ]
    for text in bent:
        with pytest.raises(EndorsementError):
            parse_chain(text.encode(), "chain")


def test_unused_bits_of_base64_are_zero(lab: Any) -> None:
    """A second spelling of the same certificate would make a second quote of the same evidence."""
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    bent = 0
    for authority in (lab.pki.root, lab.pki.pck_ca, lab.pki.pck, lab.pki.tcb_signing):
        pem = authority.pem()
        end = pem.find("=")
        if end < 0:
            continue
        other = pem[: end - 1] + digits[digits.index(pem[end - 1]) ^ 1] + pem[end:]
        with pytest.raises(EndorsementError, match="canonical"):
            parse_chain(other.encode(), "chain")
        bent += 1
    assert bent or not any("=" in item.pem() for item in (lab.pki.root, lab.pki.pck_ca))


def test_a_trust_anchor_is_a_self_issued_ca(lab: Any) -> None:
    """Neither a leaf, nor an intermediate, nor garbage can be pinned as a root."""
    assert trust_anchor(lab.pki.root.der()).vendor == "Simulated"
    for der in (lab.pki.pck.der(), lab.pki.pck_ca.der(), lab.pki.tcb_signing.der(), b"", b"\x30"):
        with pytest.raises(EndorsementError):
            trust_anchor(der)


def test_the_embedded_root_is_the_one_that_intel_publishes() -> None:
    """The digest in the source is the digest of the bytes, and the name is Intel's."""
    assert hashlib.sha256(INTEL_SGX_ROOT_DER).hexdigest() == INTEL_SGX_ROOT_SHA256
    anchor = trust_anchor(INTEL_SGX_ROOT_DER)
    assert (anchor.vendor, anchor.sha256) == ("Intel", INTEL_SGX_ROOT_SHA256)


def test_simulated_names_say_so_everywhere(lab: Any) -> None:
    """Every certificate of the simulation is called simulated, and its platform family is none of Intel's."""
    for authority in (lab.pki.root, lab.pki.pck_ca, lab.pki.pck, lab.pki.tcb_signing):
        assert "CN=Simulated SGX" in authority.certificate.subject.rfc4514_string()
        assert "Intel Corporation" not in authority.certificate.subject.rfc4514_string()
    assert FMSPC[0] == 0xAD
    assert [item.oid.dotted_string for item in lab.pki.pck.certificate.extensions].count(
        SGX_EXTENSION_OID
    ) == 1


def test_two_installations_share_no_key(lab: Any) -> None:
    """Keys are made for each installation."""
    authorities = (lab.pki.root, lab.pki.pck_ca, lab.pki.pck, lab.pki.tcb_signing)
    assert len({item.key_pem() for item in authorities}) == 4


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"documents":{"a":-1},"releases":[]}', '{"documents":{"a":"1"},"releases":[]}',
     '{"documents":{"a":1},"releases":[],"more":1}', '{"documents":[],"releases":[]}', '{"documents":{}}',
     '{"evaluation_number":1,"root_crl_number":0,"pck_crl_numbers":{}}',
     json.dumps({"documents": dict.fromkeys(map(str, range(257)), 1), "releases": []}),
     json.dumps({"documents": {"a" * 161: 1}, "releases": []})],
    ids=range(11),
)  # fmt: skip
def test_damaged_marks_are_refused(text: str) -> None:
    """Whoever damages the stored marks does not thereby lower them to nothing."""
    with pytest.raises(ConfigError):
        HighWaterMarks.from_json(text.encode())


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(0, 99))))
def test_marks_only_rise(steps: list[dict[str, int]]) -> None:
    """After any sequence each document's mark is the highest number seen of it, and of no other."""
    marks = NO_MARKS
    for step in steps:
        marks = marks.raised(step)
    for document in "abc":
        assert marks.number(document) == max((step.get(document, 0) for step in steps), default=0)
    assert HighWaterMarks.from_json(json.dumps(marks.to_json()).encode()) == marks


def test_odd_keys_and_signatures_verify_nothing(lab: Any) -> None:
    """Other curves, other key types, points off the curve and signatures of other lengths are all just false."""
    data, signature = b"statement", lab.pki.pck.sign(b"statement")
    key = lab.pki.pck.key.public_key()
    assert signature_holds(key, signature, data)
    assert not signature_holds(key, signature, data + b".")
    assert not signature_holds(key, signature[:-1], data)
    assert not signature_holds(key, bytes(64), data)
    assert not signature_holds(None, signature, data)
    assert not signature_holds(ec.generate_private_key(ec.SECP384R1()).public_key(), signature, data)
    assert p256_key(bytes(64)) is None
    assert p256_key(b"\x01" * 63) is None


def test_a_signature_of_another_length_or_a_time_without_a_zone_is_refused(lab: Any) -> None:
    """What is signed is dated exactly, and by exactly 64 bytes."""
    document = json.loads(lab.collateral())
    bent = [
        {"tcb_info_signature": document["tcb_info_signature"][:-2]},
        {"tcb_info": document["tcb_info"].replace("Z", "", 1)},
        {"tcb_info": document["tcb_info"].replace('"issueDate":"2', '"issueDate":"x2')},
        {"qe_identity": "[]"},
        {"tcb_info_issuer_chain": document["tcb_info_issuer_chain"] * 40},
        {"tcb_info_issuer_chain": "é" + document["tcb_info_issuer_chain"]},
    ]
    for changes in bent:
        with pytest.raises(EndorsementError):
            parse_endorsements(json.dumps(document | changes).encode())


def test_a_revocation_list_must_be_numbered(lab: Any) -> None:
    """A list without a number cannot be compared, and is refused."""
    issuer = lab.pki.root
    plain = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(utc(NOW_S))
        .next_update(utc(NOW_S + 60))
        .sign(issuer.key, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )
    document = json.loads(lab.collateral())
    with pytest.raises(EndorsementError, match="numbered"):
        parse_endorsements(json.dumps(document | {"root_ca_crl": plain.hex()}).encode())
