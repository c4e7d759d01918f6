# SPDX-License-Identifier: Apache-2.0
"""What RA-TLS certificates carry, as Gramine writes them: evidence that binds a TLS key and nothing else.

A certificate has two extensions, each with a quote of its own:

::

    1.2.840.113741.1337.6 (legacy)      the raw quote; report_data = SHA-256(SPKI) || 32 zero bytes
    2.23.133.5.4.9 (TCG DICE)           60000([quote, claims]); report_data = SHA-256(claims) || 32 zero bytes
    claims                              {"pubkey-hash": bstr .cbor [1, SHA-256(SPKI)]}

SPKI is the SubjectPublicKeyInfo of the certificate in DER, 1 is SHA-256 in IANA's registry of named hashes, 60000 the
CBOR tag of a TEE quote. The claims are demanded whole: this one claim, once, in this encoding. Gramine's own verifier
accepts claims without it.

SECURITY: quotes over TLS keys and quotes over keysets stay apart by what is hashed: a SubjectPublicKeyInfo begins with
0x30, claims with 0xa1, a statement (``statement``) with ``{"keyset_digest"``. No function takes report data or claims
from outside, and none must be added; whoever could choose them could have the enclave vouch for a key of his.
"""

import base64
import hashlib
import re
from typing import Final

from adyton_protocol import cbor
from adyton_protocol.errors import LocalProtocolError, MalformedEvidence, ReceiptError
from adyton_protocol.report import MAX_QUOTE_BYTES
from adyton_protocol.statement import REPORT_DATA_BYTES
from adyton_protocol.suite import RECEIPT_SECRET_BYTES

LEGACY_QUOTE_OID: Final = "1.2.840.113741.1337.6"
TAGGED_EVIDENCE_OID: Final = "2.23.133.5.4.9"
TEE_QUOTE_TAG: Final = 60_000
MAX_CERTIFICATE_BYTES: Final = 64 * 1024
"""Largest certificate that a client looks at; TLS itself carries about 100 KiB."""

EXCHANGE_HEADER: Final = "adyton-exchange"
"""Header of every answer inside TLS: exchange id and receipt secret, in unpadded base64url with a dot between them."""
EXCHANGE_ID_BYTES: Final = 32

_EXCHANGE: Final = re.compile(rb"([A-Za-z0-9_-]{43})\.([A-Za-z0-9_-]{43})")
_PUBKEY_HASH: Final = "pubkey-hash"
_SHA_256: Final = 1
_DER_SEQUENCE: Final = 0x30
_MAX_SPKI_BYTES: Final = 1024


def exchange_header(exchange_id: bytes, receipt_secret: bytes) -> bytes:
    """Return the value of the header :data:`EXCHANGE_HEADER`.

    Args:
        exchange_id: ``EXCHANGE_ID_BYTES`` fresh bytes.
        receipt_secret: ``RECEIPT_SECRET_BYTES`` fresh bytes.

    Raises:
        LocalProtocolError: Not that many bytes.
    """
    if (len(exchange_id), len(receipt_secret)) != (EXCHANGE_ID_BYTES, RECEIPT_SECRET_BYTES):
        raise LocalProtocolError("an exchange has an id and a secret of 32 bytes each")
    return b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (exchange_id, receipt_secret))


def parse_exchange_header(value: bytes) -> tuple[bytes, bytes]:
    """Return exchange id and receipt secret, of the value of the header :data:`EXCHANGE_HEADER`.

    Args:
        value: From whoever holds the peer's key.

    Raises:
        ReceiptError: Not of this one form.
    """
    found = _EXCHANGE.fullmatch(value)
    if found is None:
        raise ReceiptError(f"the header {EXCHANGE_HEADER} is malformed")
    exchange_id, secret = (base64.urlsafe_b64decode(part + b"=") for part in found.groups())
    if exchange_header(exchange_id, secret) != value:
        raise ReceiptError(f"the header {EXCHANGE_HEADER} is not in its one form")
    return exchange_id, secret


def public_key_report_data(spki: bytes) -> bytes:
    """Return the report data of the legacy extension.

    Args:
        spki: The certificate's SubjectPublicKeyInfo, DER.

    Raises:
        LocalProtocolError: It is none.
    """
    return hashlib.sha256(_spki(spki)).digest().ljust(REPORT_DATA_BYTES, b"\x00")


def public_key_claims(spki: bytes) -> bytes:
    """Return the claims about a public key: the one claim that there is.

    Args:
        spki: The certificate's SubjectPublicKeyInfo, DER.

    Raises:
        LocalProtocolError: It is none.
    """
    entry: cbor.CborValue = [_SHA_256, hashlib.sha256(_spki(spki)).digest()]
    return cbor.encode({_PUBKEY_HASH: cbor.encode(entry)})


def claims_report_data(spki: bytes) -> bytes:
    """Return the report data of the tagged evidence.

    Args:
        spki: The certificate's SubjectPublicKeyInfo, DER.

    Raises:
        LocalProtocolError: It is none.
    """
    return hashlib.sha256(public_key_claims(spki)).digest().ljust(REPORT_DATA_BYTES, b"\x00")


def tagged_evidence(quote: bytes, spki: bytes) -> bytes:
    """Return the value of the TCG extension.

    Args:
        quote: A quote over :func:`claims_report_data` of the same key.
        spki: The certificate's SubjectPublicKeyInfo, DER.

    Raises:
        LocalProtocolError: The quote is empty or too long, or the key is none.
    """
    if not 0 < len(quote) <= MAX_QUOTE_BYTES:
        raise LocalProtocolError(f"a quote has 1 to {MAX_QUOTE_BYTES} bytes")
    return cbor.encode(cbor.Tagged(TEE_QUOTE_TAG, [quote, public_key_claims(spki)]))


def parse_tagged_evidence(value: bytes, spki: bytes) -> bytes:
    """Take the quote out of the TCG extension, if its claims are exactly those about this key.

    That the quote binds the claims is for the appraisal to check, against :func:`claims_report_data`.

    Args:
        value: The extension's value; attacker-controlled.
        spki: The certificate's own SubjectPublicKeyInfo, DER; attacker-controlled.

    Raises:
        MalformedEvidence: Not tagged evidence, or its claims are missing, more, twice there, or about another key.
    """
    evidence = cbor.decode(
        value, max_bytes=MAX_CERTIFICATE_BYTES, what="tagged evidence", error=MalformedEvidence
    )
    if not isinstance(evidence, cbor.Tagged) or evidence.tag != TEE_QUOTE_TAG:
        raise MalformedEvidence("tagged evidence: not a TEE quote")
    match evidence.value:
        case [bytes() as quote, bytes() as claims]:
            pass
        case _:
            raise MalformedEvidence("tagged evidence: not a quote and its claims")
    if not 0 < len(quote) <= MAX_QUOTE_BYTES:
        raise MalformedEvidence(f"tagged evidence: a quote has 1 to {MAX_QUOTE_BYTES} bytes")
    _check_claims(claims, spki)
    return quote


def _check_claims(claims: bytes, spki: bytes) -> None:
    found = cbor.decode(claims, max_bytes=1024, what="claims", error=MalformedEvidence)
    if not isinstance(found, dict) or _PUBKEY_HASH not in found:
        raise MalformedEvidence("claims: the hash of the public key is missing")
    # SECURITY: compared whole. Claims that also say something else, or say it twice or otherwise, are not ours.
    if claims != public_key_claims(spki):
        raise MalformedEvidence("claims: not exactly the hash of this certificate's public key")


def _spki(spki: bytes) -> bytes:
    # SECURITY: what begins otherwise could be the preimage of another kind of report data.
    if not 0 < len(spki) <= _MAX_SPKI_BYTES or spki[0] != _DER_SEQUENCE:
        raise LocalProtocolError("not a SubjectPublicKeyInfo")
    return spki
