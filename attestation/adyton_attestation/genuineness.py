# SPDX-License-Identifier: Apache-2.0
"""Checks 5 to 12: is the evidence genuine, and are the endorsements?

Every signature that matters is verified twice, by two libraries that share no code: here with ``cryptography``,
one signature per check, so that a refusal names the one that failed; then as a whole by ``dcap-qvl``, which also
matches the platform against the TCB levels. Either one refusing is enough.
"""

import hashlib
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import Certificate

from adyton_attestation import guard
from adyton_attestation.certificates import TrustAnchor, common_name, p256_key, signature_holds
from adyton_attestation.checks import CheckName, Ledger, Refusal
from adyton_attestation.dcap import DcapClaims, verify_quote
from adyton_attestation.endorsements import Endorsements
from adyton_attestation.quote import Quote
from adyton_attestation.times import format_time

_PCE_ID_BYTES: Final = 2


def check_genuineness(
    ledger: Ledger, raw: bytes, quote: Quote, endorsements: Endorsements, *, anchor: TrustAnchor, now_s: int
) -> tuple[DcapClaims, str] | None:
    """Make checks 5 to 12.

    Args:
        ledger: Records the verdicts.
        raw: The quote, as received.
        quote: The same, parsed.
        endorsements: The endorsements.
        anchor: The pinned root.
        now_s: Unix time.

    Returns:
        The verified claims with the name of the PCK CA, or None when something failed.
    """
    ledger.run(CheckName.ENDORSEMENTS_FORMAT, lambda: _check_format(endorsements))
    signers = ledger.run(CheckName.SIGNING_CHAINS, lambda: guard.check_signing_chains(endorsements, anchor))
    chain = ledger.run(CheckName.PCK_CHAIN, lambda: guard.check_pck_chain(quote, endorsements, anchor))
    ledger.run(CheckName.ENDORSEMENTS_CURRENT, lambda: _check_current(endorsements, chain or (), now_s))
    ledger.run(CheckName.ENDORSEMENT_SIGNATURES, lambda: _check_endorsement_signatures(endorsements))
    if chain is None:
        ledger.skip("needs a PCK chain", CheckName.NOT_REVOKED, CheckName.QUOTE_SIGNATURES)
    else:
        ledger.run(CheckName.NOT_REVOKED, lambda: _check_not_revoked(endorsements, chain, anchor))
        ledger.run(CheckName.QUOTE_SIGNATURES, lambda: _check_quote_signatures(quote, chain[0]))
    if chain is None or signers is None:
        # Claims over documents that nobody with the right role has signed would read as if they meant something.
        ledger.skip("needs chains of the right roles", CheckName.DCAP_VERIFICATION)
        return None
    claims = ledger.run(
        CheckName.DCAP_VERIFICATION,
        # SECURITY: the canonical bytes, not the padded ones, so that both libraries judge the same input.
        lambda: verify_quote(raw[: quote.size_bytes], endorsements, root_der=anchor.der, now_s=now_s),
    )
    return None if claims is None else (claims, common_name(chain[1]))


def _check_format(endorsements: Endorsements) -> tuple[str, None]:
    # Parts that cannot be read never become an `Endorsements`, so that little is left to check here.
    pce_id = endorsements.tcb_info.pce_id
    if len(pce_id) != _PCE_ID_BYTES:
        raise Refusal("TCB info with a PCE id of two bytes", f"one of {len(pce_id)}")
    return "TCB info, QE identity, both CRLs and their chains can be read", None


def validity_periods(
    endorsements: Endorsements, chain: tuple[Certificate, ...]
) -> tuple[tuple[str, int, int], ...]:
    """List everything that ends by itself: each endorsement and certificate with its first and last second.

    Args:
        endorsements: Attacker-controlled, and so are the names.
        chain: The PCK chain out of the quote, leaf first; empty if it is not known.
    """
    # The root is the last certificate of each chain.
    windows = [
        (item.name, item.issued_s, item.next_update_s)
        for item in (
            endorsements.tcb_info,
            endorsements.qe_identity,
            endorsements.root_crl,
            endorsements.pck_crl,
        )
    ]
    signers = (*endorsements.tcb_info.chain, *endorsements.qe_identity.chain)
    windows += [
        (
            common_name(certificate),
            int(certificate.not_valid_before_utc.timestamp()),
            int(certificate.not_valid_after_utc.timestamp()),
        )
        for certificate in (*chain, *signers)
    ]
    return tuple(windows)


def _check_current(
    endorsements: Endorsements, chain: tuple[Certificate, ...], now_s: int
) -> tuple[str, None]:
    windows = validity_periods(endorsements, chain)
    for name, first_s, last_s in windows:
        if not first_s <= now_s <= last_s:
            raise Refusal(
                f"{name} valid at {format_time(now_s)}",
                f"one from {format_time(first_s)} to {format_time(last_s)}",
            )
    first_end = min(last_s for _, _, last_s in windows)
    return f"all current; the first expires at {format_time(first_end)}", None


def _check_endorsement_signatures(endorsements: Endorsements) -> tuple[str, None]:
    for document in (endorsements.tcb_info, endorsements.qe_identity):
        key = document.chain[0].public_key()
        if not signature_holds(key, document.signature, document.text.encode("utf-8")):
            raise Refusal(f"{document.name} signed by its signing certificate", "another signature")
    return "TCB info and QE identity are signed by their signing certificates", None


def _check_not_revoked(
    endorsements: Endorsements, chain: tuple[Certificate, ...], anchor: TrustAnchor
) -> tuple[str, None]:
    leaf, ca, _ = chain
    _check_crl_issuer(endorsements.root_crl.crl, anchor.certificate, "root CRL")
    _check_crl_issuer(endorsements.pck_crl.crl, ca, "PCK CRL")
    if endorsements.pck_crl.lists(leaf):
        raise Refusal("a PCK certificate in force", "a revoked one")
    signers = (endorsements.tcb_info.chain[0], endorsements.qe_identity.chain[0])
    for certificate in (ca, anchor.certificate, *signers):
        if endorsements.root_crl.lists(certificate):
            raise Refusal(f"{common_name(certificate)!r} in force", "it revoked")
    numbers = f"root CRL {endorsements.root_crl.number} and PCK CRL {endorsements.pck_crl.number}"
    return f"nothing revoked by {numbers}", None


def _check_crl_issuer(crl: x509.CertificateRevocationList, issuer: Certificate, what: str) -> None:
    key = issuer.public_key()
    signed = isinstance(key, ec.EllipticCurvePublicKey) and crl.is_signature_valid(key)
    if crl.issuer != issuer.subject or not signed:
        raise Refusal(f"a {what} signed by {common_name(issuer)!r}", "another one")


def _check_quote_signatures(quote: Quote, pck: Certificate) -> tuple[str, None]:
    section = quote.signature
    if not signature_holds(pck.public_key(), section.qe_report_signature, section.qe_report_bytes):
        raise Refusal("a QE report signed by the platform's PCK key", "another signature")
    binding = hashlib.sha256(section.attestation_key + section.qe_auth_data).digest() + bytes(32)
    if section.qe_report.report_data != binding:
        raise Refusal("an attestation key bound by the QE report", "another key")
    if not signature_holds(p256_key(section.attestation_key), section.signature, quote.signed):
        raise Refusal("a report signed by the attestation key", "another signature")
    return "PCK key, QE report, attestation key and report hang together", None
