# SPDX-License-Identifier: Apache-2.0
"""The wrapper around ``dcap-qvl``: signatures and TCB matching in, claims out, no policy.

Always offline, always with the time and the root passed in, never with the library's own policy or fetcher. What
it raises is free text; nothing here or elsewhere branches on that text. The claims keep every fact that the
appraisal needs, typed.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import dcap_qvl

from adyton_attestation.checks import Refusal
from adyton_attestation.endorsements import Endorsements
from adyton_attestation.times import format_time
from adyton_protocol.errors import MalformedEvidence
from adyton_protocol.strict_json import JsonObject, Members

_MAX_TEXT: Final = 256
_U32: Final = 2**32 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DcapClaims:
    """What signature verification and TCB matching established.

    Attributes:
        status: Converged TCB status of platform and quoting enclave.
        qe_status: Status of the quoting enclave alone.
        current_status: For TDX 1.5 and later, status of the current rather than the launch TCB; else None.
        advisory_ids: Advisories against platform and quoting enclave.
        level_status: Status of the platform's TCB level alone.
        tcb_date_s: Date of the platform's TCB level, Unix time.
        qe_tcb_date_s: Date of the quoting enclave's level.
        current_tcb_date_s: Date of the level of ``current_status``, or None.
        evaluation_number: The lower one of TCB info and QE identity.
        root_crl_number: CRL number of the root's CRL.
        pck_crl_number: CRL number of the PCK CA's CRL.
        ppid: Platform provisioning id, 16 bytes.
        platform_instance_id: 16 bytes, or none where the PCK certificate does not name it.
        pce_id: 2 bytes.
        fmspc: 6 bytes.
        earliest_expiration_s: When the first of all endorsements expires, Unix time.
    """

    status: str
    qe_status: str
    current_status: str | None
    advisory_ids: tuple[str, ...]
    level_status: str
    tcb_date_s: int
    qe_tcb_date_s: int
    current_tcb_date_s: int | None
    evaluation_number: int
    root_crl_number: int
    pck_crl_number: int
    ppid: bytes
    platform_instance_id: bytes
    pce_id: bytes
    fmspc: bytes
    earliest_expiration_s: int

    def to_json(self) -> JsonObject:
        """Return what is known of the platform, for records."""
        return {
            "tcb_status": self.status,
            "advisories": list(self.advisory_ids),
            "tcb_date": format_time(self.tcb_date_s),
            "tcb_evaluation_number": self.evaluation_number,
            "ppid": self.ppid.hex(),
            "platform_instance_id": self.platform_instance_id.hex(),
            "fmspc": self.fmspc.hex(),
            "endorsements_expire_at": format_time(self.earliest_expiration_s),
        }

    @property
    def statuses(self) -> tuple[str, ...]:
        """Every status that was found; an appraisal looks at each."""
        return (self.status, self.qe_status, *(() if self.current_status is None else (self.current_status,)))

    def dated_s(self, status: str) -> int:
        """Return the date of the oldest level of a status; the platform's when no single level has it.

        The converged status of a sound platform with an old quoting enclave is the quoting enclave's; its age is, too.
        """
        dates = [
            date_s
            for found, date_s in (
                (self.level_status, self.tcb_date_s),
                (self.qe_status, self.qe_tcb_date_s),
                (self.current_status, self.current_tcb_date_s),
            )
            if found == status and date_s is not None
        ]
        return min(dates, default=self.tcb_date_s)


def verify_quote(
    quote: bytes, endorsements: Endorsements, *, root_der: bytes, now_s: int
) -> tuple[str, DcapClaims]:
    """Verify a quote and match its platform against the TCB levels.

    Args:
        quote: Attacker-controlled bytes.
        endorsements: Attacker-controlled; a PCK chain beside the quote is not passed on.
        root_der: The pinned root.
        now_s: Unix time.

    Returns:
        A sentence for the report, and the claims. They are facts, not a verdict: an out-of-date platform is one.

    Raises:
        Refusal: Anything does not verify, or the platform is revoked.
    """
    try:
        collateral = dcap_qvl.QuoteCollateralV3(
            pck_crl_issuer_chain=endorsements.pck_crl_issuer_chain,
            root_ca_crl=endorsements.root_crl.der,
            pck_crl=endorsements.pck_crl.der,
            tcb_info_issuer_chain=endorsements.tcb_info.chain_pem,
            tcb_info=endorsements.tcb_info.text,
            tcb_info_signature=endorsements.tcb_info.signature,
            qe_identity_issuer_chain=endorsements.qe_identity.chain_pem,
            qe_identity=endorsements.qe_identity.text,
            qe_identity_signature=endorsements.qe_identity.signature,
        )
        # SECURITY: claims_only applies no policy at all; the appraisal that follows is the only judge.
        claims = dcap_qvl.QuoteVerifier(root_der).verify_with_policy(
            quote, collateral, now_s, dcap_qvl.QuotePolicy.claims_only(now_s)
        )
        text: str = claims.to_json()
    except (ValueError, TypeError, OverflowError) as cause:
        raise Refusal(expected="a quote that verifies", actual=f"one that does not: {cause}") from cause
    except BaseException as cause:
        # SECURITY: hostile evidence must end in a refusal, also where it trips the library.
        if type(cause).__name__ != "PanicException":
            raise
        raise Refusal(
            expected="a quote that verifies", actual="one on which the verification broke off"
        ) from None
    parsed = _read(text)
    return f"dcap-qvl verified every signature; the platform is {parsed.status}", parsed


def _read(text: str) -> DcapClaims:
    """Read claims of the pinned library version; a surprise is refused like a bad signature."""
    try:
        return _claims(text)
    except (MalformedEvidence, ValueError) as cause:
        raise Refusal(expected="claims of dcap-qvl 0.7", actual=f"others: {cause}") from cause


def _claims(text: str) -> DcapClaims:
    # Plain JSON will do: the text is the library's own, not the relay's.
    value: object = json.loads(text)
    document = Members(value, "claims", MalformedEvidence)
    tcb, platform, qe = document.object("tcb"), document.object("platform"), document.object("qe")
    pck, level, qe_level = platform.object("pck"), platform.object("tcb_level"), qe.object("tcb_level")
    current = None if platform.raw("current_tcb_level") is None else platform.object("current_tcb_level")
    return DcapClaims(
        status=tcb.text("status", max_chars=_MAX_TEXT),
        qe_status=_status(qe_level),
        current_status=None if current is None else _status(current),
        advisory_ids=tuple(str(item) for item in tcb.array("advisory_ids", max_items=_MAX_TEXT)),
        level_status=_status(level),
        tcb_date_s=platform.integer("tcb_date_tag", minimum=0, maximum=2**53 - 1),
        qe_tcb_date_s=_date(qe_level),
        current_tcb_date_s=None if current is None else _date(current),
        evaluation_number=tcb.integer("eval_data_number", minimum=0, maximum=_U32),
        root_crl_number=platform.integer("root_ca_crl_num", minimum=0, maximum=_U32),
        pck_crl_number=platform.integer("pck_crl_num", minimum=0, maximum=_U32),
        ppid=_octets(pck, "ppid"),
        platform_instance_id=b""
        if pck.raw("platform_instance_id") is None
        else _octets(pck, "platform_instance_id"),
        pce_id=_octets(pck, "pce_id"),
        fmspc=_octets(pck, "fmspc"),
        earliest_expiration_s=document.integer("earliest_expiration_date", minimum=0, maximum=2**53 - 1),
    )


def _status(level: Members) -> str:
    return level.text("tcbStatus", max_chars=_MAX_TEXT)


def _date(level: Members) -> int:
    # The library has read the same date before; a zone is always stated.
    return int(datetime.fromisoformat(level.text("tcbDate", max_chars=_MAX_TEXT)).timestamp())


def _octets(members: Members, name: str) -> bytes:
    items = members.array(name, max_items=64)
    if not all(isinstance(item, int) and not isinstance(item, bool) and 0 <= item <= 255 for item in items):  # noqa: PLR2004 - a byte
        members.refuse(name, "not an array of bytes")
    return bytes(item for item in items if isinstance(item, int))
