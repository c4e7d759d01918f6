# SPDX-License-Identifier: Apache-2.0
"""Is a set of endorsements what was asked for, and genuine? Asked before it is kept, so that rubbish replaces nothing.

No part of an appraisal: that makes all of these checks again, and more, on whatever it is given. Here they keep apart
two faults that would look alike later. A source that serves another family's endorsements, forged ones or expired ones
has a fault of its own; the platform has none.
"""

import json
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from adyton_attestation import guard
from adyton_attestation.certificates import (
    TrustAnchor,
    common_name,
    der_of,
    is_ca,
    issued_by,
    parse_chain,
    signature_holds,
)
from adyton_attestation.checks import Refusal
from adyton_attestation.endorsements import (
    Endorsements,
    RevocationList,
    SignedDocument,
    parse_endorsements,
)
from adyton_attestation.sources.family import FMSPC_BYTES, PckCa, PlatformFamily, Tee, pck_ca
from adyton_protocol.errors import EndorsementError
from adyton_protocol.strict_json import Members

_MAX_TEXT: Final = 64
_CA_CHAIN_CERTIFICATES: Final = 2
_TEES: Final[dict[str, Tee]] = {"SGX": "sgx", "TDX": "tdx"}
_QE_IDS: Final[dict[Tee, str]] = {"sgx": "QE", "tdx": "TD_QE"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """From when to when one part holds, Unix time, ends included."""

    name: str
    first_s: int
    last_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VettedSet:
    """One set of endorsements that is genuine and about one family.

    Attributes:
        family: What it is about.
        data: The set, as ``QuoteCollateralV3`` JSON.
        endorsements: The same, parsed.
        spans: From when to when the documents, the lists and the certificates of their signers hold.
    """

    family: PlatformFamily
    data: bytes
    endorsements: Endorsements
    spans: tuple[Span, ...]

    @property
    def evaluation_number(self) -> int:
        """The lower tcbEvaluationDataNumber of TCB info and QE identity."""
        return min(
            self.endorsements.tcb_info.evaluation_number, self.endorsements.qe_identity.evaluation_number
        )

    @property
    def issued_s(self) -> int:
        """When the oldest part was issued that a policy's age cap counts from: all but the root's list."""
        parts = (self.endorsements.tcb_info, self.endorsements.qe_identity, self.endorsements.pck_crl)
        return min(part.issued_s for part in parts)

    @property
    def first_to_expire(self) -> Span:
        """The part that stops to hold first."""
        return min(self.spans, key=lambda span: span.last_s)

    def not_holding_at(self, now_s: int) -> Span | None:
        """Return a part that does not hold at a time, or None when all do."""
        return next((span for span in self.spans if not span.first_s <= now_s <= span.last_s), None)

    def holds_at(self, now_s: int) -> bool:
        """Whether every part holds at a time."""
        return self.not_holding_at(now_s) is None

    def older_than(self, other: "VettedSet") -> bool:
        """Whether some part of this set is behind the same part of another one, by number."""
        return any(mine < theirs for mine, theirs in zip(self.numbers, other.numbers, strict=True))

    @property
    def numbers(self) -> tuple[int, int, int, int]:
        """Evaluation numbers of TCB info and QE identity, CRL numbers of root and PCK CA; they only rise."""
        known = self.endorsements
        return (
            known.tcb_info.evaluation_number,
            known.qe_identity.evaluation_number,
            known.root_crl.number,
            known.pck_crl.number,
        )


def vet(data: bytes, anchor: TrustAnchor, family: PlatformFamily | None = None) -> VettedSet:
    """Check that attacker-controlled bytes are genuine endorsements of one family.

    Args:
        data: ``QuoteCollateralV3`` JSON.
        anchor: The root below which they must stand.
        family: What they must be about; None takes any family.

    Raises:
        EndorsementError: They are not. Whether they have expired is not asked here.
    """
    endorsements = parse_endorsements(data)
    try:
        # SECURITY: what is kept replaces what was kept before, so nobody but the vendor may be able to make it.
        guard.check_signing_chains(endorsements, anchor)
        _check_signatures(endorsements)
        issuer = _crl_issuer(endorsements, anchor)
        _check_crl(endorsements.root_crl, anchor.certificate)
        _check_crl(endorsements.pck_crl, issuer)
    except Refusal as refusal:
        raise EndorsementError(str(refusal)) from refusal
    found = _family(endorsements, pck_ca(issuer))
    if family is not None and found != family:
        raise EndorsementError(f"endorsements of {found.label} instead of {family.label}")
    signers = {
        der_of(certificate): certificate
        for certificate in (*endorsements.tcb_info.chain, *endorsements.qe_identity.chain, issuer)
    }
    return VettedSet(
        family=found,
        data=data,
        endorsements=endorsements,
        spans=(
            *(
                Span(name=part.name, first_s=part.issued_s, last_s=part.next_update_s)
                for part in (
                    endorsements.tcb_info,
                    endorsements.qe_identity,
                    endorsements.root_crl,
                    endorsements.pck_crl,
                )
            ),
            *(_span(certificate) for certificate in signers.values()),
        ),
    )


def _span(certificate: x509.Certificate) -> Span:
    return Span(
        name=common_name(certificate),
        first_s=int(certificate.not_valid_before_utc.timestamp()),
        last_s=int(certificate.not_valid_after_utc.timestamp()),
    )


def _check_signatures(endorsements: Endorsements) -> None:
    for document in (endorsements.tcb_info, endorsements.qe_identity):
        key = document.chain[0].public_key()
        if not signature_holds(key, document.signature, document.text.encode("utf-8")):
            raise Refusal(f"{document.name} signed by its signing certificate", "another signature")


def _crl_issuer(endorsements: Endorsements, anchor: TrustAnchor) -> x509.Certificate:
    chain = parse_chain(endorsements.pck_crl_issuer_chain.encode("utf-8"), "pck_crl_issuer_chain")
    if len(chain) != _CA_CHAIN_CERTIFICATES or der_of(chain[1]) != anchor.der:
        raise Refusal("a PCK CA and the pinned root behind the PCK CRL", "another chain")
    issuer = chain[0]
    if not common_name(issuer).startswith(f"{anchor.vendor} ") or not is_ca(issuer):
        raise Refusal("a PCK CA behind the PCK CRL", repr(common_name(issuer)))
    if not issued_by(issuer, anchor.certificate):
        raise Refusal("a PCK CA issued by the root", "one that is not")
    return issuer


def _check_crl(found: RevocationList, issuer: x509.Certificate) -> None:
    key = issuer.public_key()
    signed = isinstance(key, ec.EllipticCurvePublicKey) and found.crl.is_signature_valid(key)
    if found.crl.issuer != issuer.subject or not signed:
        raise Refusal(f"a {found.name} signed by {common_name(issuer)!r}", "another one")


def _family(endorsements: Endorsements, ca: PckCa) -> PlatformFamily:
    tcb_info, qe_identity = _members(endorsements.tcb_info), _members(endorsements.qe_identity)
    tee = _TEES.get(tcb_info.text("id", max_chars=_MAX_TEXT))
    if tee is None:
        raise EndorsementError("tcb_info.id: neither SGX nor TDX")
    if qe_identity.text("id", max_chars=_MAX_TEXT) != _QE_IDS[tee]:
        raise EndorsementError("qe_identity.id: of another TEE than the TCB info")
    text = tcb_info.text("fmspc", max_chars=2 * FMSPC_BYTES)
    try:
        fmspc = bytes.fromhex(text)
    except ValueError as cause:
        raise EndorsementError("tcb_info.fmspc: not hexadecimal") from cause
    if len(fmspc) != FMSPC_BYTES:
        raise EndorsementError(f"tcb_info.fmspc: not {FMSPC_BYTES} bytes")
    return PlatformFamily(tee=tee, fmspc=fmspc, ca=ca)


def _members(document: SignedDocument) -> Members:
    value: object = json.loads(document.text)
    return Members(value, document.name, EndorsementError)
