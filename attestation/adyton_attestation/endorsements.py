# SPDX-License-Identifier: Apache-2.0
"""Endorsements: Intel's signed statements about platforms, as data. Fetched by others, believed by nobody yet.

The JSON is that of dcap-qvl's ``QuoteCollateralV3``: PEM chains and signed documents as strings, CRLs and
signatures in hexadecimal. Parsing checks that every part can be read; whether a part is genuine, current or about
the platform at hand is the appraisal's question.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self

from cryptography import x509

from adyton_attestation.certificates import UNREADABLE, parse_chain
from adyton_protocol.errors import EndorsementError
from adyton_protocol.media import MAX_ENDORSEMENTS_BYTES
from adyton_protocol.strict_json import Members, parse_json

_MAX_CHARS: Final = 512 * 1024
_SIGNATURE_BYTES: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedDocument:
    """TCB info or QE identity.

    Attributes:
        name: For messages.
        text: The exact signed JSON.
        signature: 64 bytes r || s.
        chain: Certificates of the signer, leaf first.
        chain_pem: The same as PEM.
        issued_s: ``issueDate`` as Unix time.
        next_update_s: ``nextUpdate`` as Unix time.
        evaluation_number: ``tcbEvaluationDataNumber``.
        pce_id: ``pceId`` of TCB info, 2 bytes; empty in a QE identity.
    """

    name: str
    text: str
    signature: bytes
    chain: tuple[x509.Certificate, ...]
    chain_pem: str
    issued_s: int
    next_update_s: int
    evaluation_number: int
    pce_id: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationList:
    """A certificate revocation list.

    Attributes:
        name: For messages.
        crl: Parsed.
        der: The exact bytes.
        number: CRL number.
        issued_s: ``thisUpdate`` as Unix time.
        next_update_s: ``nextUpdate`` as Unix time.
    """

    name: str
    crl: x509.CertificateRevocationList
    der: bytes
    number: int
    issued_s: int
    next_update_s: int

    def lists(self, certificate: x509.Certificate) -> bool:
        """Whether the certificate's serial number is on the list."""
        return self.crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Endorsements:
    """Everything needed to appraise a quote offline.

    Attributes:
        tcb_info: What Intel says about TCB levels of the platform's family.
        qe_identity: What Intel says about the quoting enclave.
        root_crl: CRL of the root.
        pck_crl: CRL of the PCK certificate's CA.
        pck_crl_issuer_chain: PEM, as received; the issuer is taken from the quote's own chain instead.
        pck_chain: A PCK chain beside the quote, leaf first, or None. Never used; it must equal the quote's own.
    """

    tcb_info: SignedDocument
    qe_identity: SignedDocument
    root_crl: RevocationList
    pck_crl: RevocationList
    pck_crl_issuer_chain: str
    pck_chain: tuple[x509.Certificate, ...] | None

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Parse attacker-controlled ``QuoteCollateralV3`` JSON.

        Raises:
            EndorsementError: A part is missing or cannot be read.
        """
        value = parse_json(
            data, max_bytes=MAX_ENDORSEMENTS_BYTES, what="endorsements", error=EndorsementError
        )
        members = Members(value, "endorsements", EndorsementError)
        pck_chain = members.optional_text("pck_certificate_chain", max_chars=_MAX_CHARS)
        return cls(
            tcb_info=_document(members, "tcb_info"),
            qe_identity=_document(members, "qe_identity"),
            root_crl=_revocation_list(members, "root_ca_crl"),
            pck_crl=_revocation_list(members, "pck_crl"),
            pck_crl_issuer_chain=members.text("pck_crl_issuer_chain", max_chars=_MAX_CHARS),
            pck_chain=None if pck_chain is None else parse_chain(_ascii(pck_chain), "pck_certificate_chain"),
        )


def parse_endorsements(data: bytes) -> Endorsements:
    """Parse attacker-controlled ``QuoteCollateralV3`` JSON.

    Raises:
        EndorsementError: A part is missing or cannot be read.
    """
    return Endorsements.from_json(data)


def _document(members: Members, name: str) -> SignedDocument:
    text = members.text(name, max_chars=_MAX_CHARS)
    chain_pem = members.text(f"{name}_issuer_chain", max_chars=_MAX_CHARS)
    signature = _hex(members, f"{name}_signature")
    if len(signature) != _SIGNATURE_BYTES:
        members.refuse(f"{name}_signature", "not 64 bytes")
    try:
        body: object = json.loads(text)
    except (ValueError, RecursionError) as cause:
        raise EndorsementError(f"{name}: not JSON") from cause
    fields = Members(body, name, EndorsementError)
    pce_id = fields.text("pceId", max_chars=4) if name == "tcb_info" else ""
    return SignedDocument(
        name=name,
        text=text,
        signature=signature,
        chain=parse_chain(_ascii(chain_pem), f"{name}_issuer_chain"),
        chain_pem=chain_pem,
        issued_s=_time(fields, "issueDate"),
        next_update_s=_time(fields, "nextUpdate"),
        evaluation_number=fields.integer("tcbEvaluationDataNumber", minimum=0, maximum=2**32 - 1),
        pce_id=_unhex(pce_id, f"{name}.pceId"),
    )


def _revocation_list(members: Members, name: str) -> RevocationList:
    der = _hex(members, name)
    try:
        crl = x509.load_der_x509_crl(der)
        next_update = crl.next_update_utc
        number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        issued_s = int(crl.last_update_utc.timestamp())
        # Entries are decoded lazily; a malformed one is an error here and nowhere later.
        _ = (crl.issuer, crl.signature_hash_algorithm, [entry.serial_number for entry in crl])
    except (x509.ExtensionNotFound, *UNREADABLE) as cause:
        raise EndorsementError(f"{name}: not a numbered DER revocation list") from cause
    if next_update is None:
        raise EndorsementError(f"{name}: never expires")
    return RevocationList(
        name=name,
        crl=crl,
        der=der,
        number=number,
        issued_s=issued_s,
        next_update_s=int(next_update.timestamp()),
    )


def _ascii(text: str) -> bytes:
    return text.encode("utf-8")


def _hex(members: Members, name: str) -> bytes:
    return _unhex(members.text(name, max_chars=_MAX_CHARS), name)


def _unhex(text: str, what: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as cause:
        raise EndorsementError(f"{what}: not hexadecimal") from cause


def _time(members: Members, name: str) -> int:
    text = members.text(name, max_chars=40)
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            members.refuse(name, "a time without a zone")
        return int(moment.timestamp())
    except (ValueError, OverflowError) as cause:
        raise EndorsementError(f"{name}: not an RFC 3339 time") from cause
