# SPDX-License-Identifier: Apache-2.0
"""RA-TLS certificates: is the key at the other end of this TLS connection an enclave's that the policy accepts?

The certificate is no certificate in the sense of a web browser: nobody issued it, its names mean nothing. What counts
is the evidence in it (``adyton_protocol.ra_tls``). Both extensions that are there have to hold:

1. The certificate can be read; its key is on P-256 or P-384, as Gramine's are.
2. The TCG extension is there, and its claims are exactly the hash of the certificate's own key.
3. Its quote is genuine and acceptable, as every quote has to be (``appraisal``), binds those claims, and the
   certificate is in force, and not for longer than the policy allows.
4. If the legacy extension is there, its quote passes the same checks, binds the key itself, and is about the same
   enclave.

SECURITY: this binds a key, no connection and no configuration, and it is not fresh: somebody who had got hold of the
key could use it elsewhere until the certificate ends. A client therefore also demands that the key is listed in a
keyset which an appraised report binds together with its own challenge (``adyton.ra_tls``).
"""

import hashlib
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from adyton_attestation.appraisal import Accepted, Terms, appraise_key_quote
from adyton_attestation.certificates import UNREADABLE
from adyton_attestation.checks import Check
from adyton_attestation.dcap import DcapClaims
from adyton_attestation.endorsements import Endorsements
from adyton_attestation.quote import EnclaveReport, SgxQuoteV3
from adyton_protocol.errors import LocalProtocolError, MalformedEvidence
from adyton_protocol.ra_tls import (
    LEGACY_QUOTE_OID,
    MAX_CERTIFICATE_BYTES,
    TAGGED_EVIDENCE_OID,
    claims_report_data,
    parse_tagged_evidence,
    public_key_report_data,
)
from adyton_protocol.report import MAX_QUOTE_BYTES

_CURVES: Final = frozenset({"secp256r1", "secp384r1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateEvidence:
    """What an RA-TLS certificate carries; nothing in it is trusted yet.

    Attributes:
        spki: Its SubjectPublicKeyInfo, DER.
        quote: The quote of the TCG extension, whose claims are those about this key.
        legacy_quote: The quote of the legacy extension, or None.
        in_force: First and last second of the certificate, Unix time.
    """

    spki: bytes
    quote: bytes
    legacy_quote: bytes | None
    in_force: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateAppraisal:
    """A certificate's evidence was accepted; its key is in an enclave that the policy names.

    Attributes:
        spki_sha256: SHA-256 of the SubjectPublicKeyInfo, as a keyset lists it.
        checks: Every verdict.
        report: The enclave's report.
        claims: What is known of the platform.
    """

    spki_sha256: str
    checks: tuple[Check, ...]
    report: EnclaveReport
    claims: DcapClaims


def parse_certificate(der: bytes) -> CertificateEvidence:
    """Read an RA-TLS certificate.

    Args:
        der: Attacker-controlled bytes.

    Raises:
        MalformedEvidence: Not a certificate, or without the evidence that it must carry.
    """
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise MalformedEvidence(f"certificate: longer than {MAX_CERTIFICATE_BYTES} bytes")
    try:
        certificate = x509.load_der_x509_certificate(der)
        key = certificate.public_key()
        extensions = certificate.extensions
        first_s = int(certificate.not_valid_before_utc.timestamp())
        last_s = int(certificate.not_valid_after_utc.timestamp())
    except UNREADABLE as cause:
        raise MalformedEvidence("certificate: cannot be read, or has an extension twice") from cause
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _CURVES:
        raise MalformedEvidence("certificate: its key is not on P-256 or P-384")
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    tagged = _value(extensions, TAGGED_EVIDENCE_OID)
    if tagged is None:
        raise MalformedEvidence("certificate: carries no evidence")
    legacy = _value(extensions, LEGACY_QUOTE_OID)
    if legacy is not None and not 0 < len(legacy) <= MAX_QUOTE_BYTES:
        raise MalformedEvidence(f"certificate: a quote has 1 to {MAX_QUOTE_BYTES} bytes")
    try:
        quote = parse_tagged_evidence(tagged, spki)
    except LocalProtocolError as cause:
        raise MalformedEvidence("certificate: its key cannot be claimed about") from cause
    return CertificateEvidence(spki=spki, quote=quote, legacy_quote=legacy, in_force=(first_s, last_s))


def appraise_certificate(der: bytes, endorsements: Endorsements, terms: Terms) -> CertificateAppraisal:
    """Appraise the evidence in a certificate; the steps stand in the module's docstring.

    Args:
        der: Attacker-controlled bytes.
        endorsements: Attacker-controlled endorsements.
        terms: Policy, root, marks and time.

    Raises:
        AttestationError: The certificate is not accepted.
    """
    evidence = parse_certificate(der)
    accepted = appraise_key_quote(
        evidence.quote,
        endorsements,
        terms,
        binding=claims_report_data(evidence.spki),
        in_force=evidence.in_force,
    )
    report = _report(accepted)
    if evidence.legacy_quote is not None:
        legacy = appraise_key_quote(
            evidence.legacy_quote,
            endorsements,
            terms,
            binding=public_key_report_data(evidence.spki),
            in_force=evidence.in_force,
        )
        if _enclave(_report(legacy), legacy.claims) != _enclave(report, accepted.claims):
            raise MalformedEvidence("certificate: its two quotes are about different enclaves")
    return CertificateAppraisal(
        spki_sha256=hashlib.sha256(evidence.spki).hexdigest(),
        checks=accepted.checks,
        report=report,
        claims=accepted.claims,
    )


def _value(extensions: x509.Extensions, oid: str) -> bytes | None:
    try:
        found = extensions.get_extension_for_oid(x509.ObjectIdentifier(oid)).value
    except x509.ExtensionNotFound:
        return None
    return found.value if isinstance(found, x509.UnrecognizedExtension) else None


def _report(accepted: Accepted) -> EnclaveReport:
    if not isinstance(accepted.quote, SgxQuoteV3):
        raise MalformedEvidence("certificate: not an SGX quote")
    return accepted.quote.report


def _enclave(report: EnclaveReport, claims: DcapClaims) -> tuple[bytes, bytes, int, int, bytes]:
    return report.mr_enclave, report.mr_signer, report.isv_prod_id, report.isv_svn, claims.ppid
