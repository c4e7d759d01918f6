# SPDX-License-Identifier: Apache-2.0
"""The RATS verifier for real evidence: Intel's root, and no other.

Which root counts is no argument of :class:`Verifier`: evidence of the simulation cannot pass here whatever the
policy says.
"""

from adyton_attestation.appraisal import Terms, appraise_report
from adyton_attestation.certificates import trust_anchor
from adyton_attestation.endorsements import Endorsements
from adyton_attestation.marks import NO_MARKS, HighWaterMarks
from adyton_attestation.policy import AppraisalPolicy
from adyton_attestation.quote import Quote, SgxQuoteV3
from adyton_attestation.ra_tls import CertificateAppraisal, appraise_certificate
from adyton_attestation.result import AttestationResult
from adyton_attestation.roots import INTEL_SGX_ROOT_DER
from adyton_protocol.errors import MalformedEvidence
from adyton_protocol.report import AttestationReport


class Verifier:
    """Appraises evidence of real SGX enclaves under one policy."""

    def __init__(self, policy: AppraisalPolicy) -> None:
        """Take the policy; the root is Intel's."""
        self._policy = policy
        self._policy_digest = policy.digest()
        self._anchor = trust_anchor(INTEL_SGX_ROOT_DER)

    @property
    def policy(self) -> AppraisalPolicy:
        """The policy."""
        return self._policy

    def appraise(
        self,
        report: AttestationReport,
        endorsements: Endorsements,
        *,
        challenge: str,
        now_s: int,
        marks: HighWaterMarks = NO_MARKS,
        releases: bytes | None = None,
    ) -> AttestationResult:
        """Appraise evidence.

        Args:
            report: Attacker-controlled evidence.
            endorsements: Attacker-controlled endorsements.
            challenge: The nonce that was sent for this report, 64 lower-case hexadecimal digits.
            now_s: Unix time by the relying party's clock.
            marks: High-water marks of earlier appraisals.
            releases: Attacker-controlled release file, for a policy that names signers of releases.

        Raises:
            AttestationError: A check failed; ``check`` names it and ``checks`` has every verdict.
        """
        terms = Terms(policy=self._policy, anchor=self._anchor, marks=marks, now_s=now_s, releases=releases)
        accepted = appraise_report(report, endorsements, terms, tee_type="sgx", challenge=challenge)
        return AttestationResult(
            checks=accepted.checks,
            report=report,
            keyset=report.keyset,
            policy_digest=self._policy_digest,
            policy_name=self._policy.name,
            appraised_at_s=now_s,
            claims=accepted.claims,
            quote=as_sgx(accepted.quote),
            platform=accepted.platform,
            marks=accepted.marks,
            releases=accepted.releases,
        )

    def appraise_certificate(
        self,
        der: bytes,
        endorsements: Endorsements,
        *,
        now_s: int,
        marks: HighWaterMarks = NO_MARKS,
        releases: bytes | None = None,
    ) -> CertificateAppraisal:
        """Appraise the evidence in an RA-TLS certificate.

        Args:
            der: Attacker-controlled certificate.
            endorsements: Attacker-controlled endorsements.
            now_s: Unix time by the relying party's clock.
            marks: High-water marks of earlier appraisals.
            releases: Attacker-controlled release file, for a policy that names signers of releases.

        Raises:
            AttestationError: A check failed; ``check`` names it and ``checks`` has every verdict.
        """
        terms = Terms(policy=self._policy, anchor=self._anchor, marks=marks, now_s=now_s, releases=releases)
        return appraise_certificate(der, endorsements, terms)


def as_sgx(quote: Quote) -> SgxQuoteV3:
    """Return a quote that the appraisal has found to be an SGX quote.

    Raises:
        MalformedEvidence: It is none.
    """
    if not isinstance(quote, SgxQuoteV3):
        raise MalformedEvidence("not an SGX quote")
    return quote
