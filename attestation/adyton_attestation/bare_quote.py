# SPDX-License-Identifier: Apache-2.0
"""A bare quote, SGX or TDX, appraised offline under Intel's root or one that the caller brings; it opens no channel.

SECURITY: apart from :mod:`adyton_attestation.verifier` on purpose. Nothing here knows keysets, sealing or results that
lead to a channel, so that nothing that was found of a bare quote can be mistaken for an appraised enclave.
"""

from dataclasses import dataclass

from adyton_attestation.appraisal import Terms, appraise_raw_quote
from adyton_attestation.certificates import trust_anchor
from adyton_attestation.checks import Check
from adyton_attestation.dcap import DcapClaims
from adyton_attestation.endorsements import Endorsements
from adyton_attestation.marks import NO_MARKS, HighWaterMarks
from adyton_attestation.policy import RAW_QUOTE_POLICY, AppraisalPolicy
from adyton_attestation.quote import Quote
from adyton_attestation.roots import INTEL_SGX_ROOT_DER
from adyton_protocol.digests import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteAppraisal:
    """A bare quote was accepted. It binds whatever its report data says, to nobody in particular.

    Attributes:
        checks: Every verdict; the checks of keys are skipped.
        quote: The quote, parsed.
        claims: What is known of the platform.
        policy_digest: Digest of the policy that was applied.
        policy_name: Its name.
        root_sha256: SHA-256 of the root certificate.
        simulated: Whether the root is a simulated one.
        marks: High-water marks to pass to the next appraisal.
    """

    checks: tuple[Check, ...]
    quote: Quote
    claims: DcapClaims
    policy_digest: Digest
    policy_name: str
    root_sha256: str
    simulated: bool
    marks: HighWaterMarks


def appraise_quote(
    quote: bytes,
    endorsements: Endorsements,
    policy: AppraisalPolicy = RAW_QUOTE_POLICY,
    *,
    now_s: int,
    root_der: bytes | None = None,
    marks: HighWaterMarks = NO_MARKS,
    releases: bytes | None = None,
) -> QuoteAppraisal:
    """Appraise a bare quote, SGX or TDX, offline.

    Args:
        quote: Attacker-controlled bytes.
        endorsements: Attacker-controlled endorsements.
        policy: By default everything but the comparison with reference values.
        now_s: Unix time to appraise at.
        root_der: A root of the caller's choice instead of Intel's. When its subject begins with ``Simulated``,
            the names below it must be the simulated ones, else Intel's.
        marks: High-water marks of earlier appraisals.
        releases: Attacker-controlled release file, for a policy that names signers of releases.

    Raises:
        AttestationError: A check failed; ``check`` names it and ``checks`` has every verdict.
    """
    anchor = trust_anchor(INTEL_SGX_ROOT_DER if root_der is None else root_der)
    accepted = appraise_raw_quote(
        quote, endorsements, Terms(policy=policy, anchor=anchor, marks=marks, now_s=now_s, releases=releases)
    )
    return QuoteAppraisal(
        checks=accepted.checks,
        quote=accepted.quote,
        claims=accepted.claims,
        policy_digest=policy.digest(),
        policy_name=policy.name,
        root_sha256=anchor.sha256,
        simulated=anchor.vendor == "Simulated",
        marks=accepted.marks,
    )
