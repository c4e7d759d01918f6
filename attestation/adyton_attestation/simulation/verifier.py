# SPDX-License-Identifier: Apache-2.0
"""The verifier and the result type of the simulated trust domain.

The same checks as for real evidence, under a root that the caller names, which must be a simulated one. Nothing
here inherits from the real types, and every use warns: a :class:`SimulatedResult` proves that the machinery works,
and nothing about who can read the prompts.
"""

from dataclasses import dataclass, field
from typing import Literal

from adyton_attestation.appraisal import Terms, appraise_report
from adyton_attestation.certificates import trust_anchor
from adyton_attestation.checks import Check
from adyton_attestation.dcap import DcapClaims
from adyton_attestation.endorsements import Endorsements
from adyton_attestation.marks import NO_MARKS, HighWaterMarks
from adyton_attestation.policy import AppraisalPolicy, EnrolledPlatform
from adyton_attestation.quote import SgxQuoteV3
from adyton_attestation.ra_tls import CertificateAppraisal, appraise_certificate
from adyton_attestation.release_statement import ReleaseStatement
from adyton_attestation.result import SealedChannel, channel_to, result_json
from adyton_attestation.simulation.warning import warn_simulated
from adyton_attestation.verifier import as_sgx
from adyton_protocol.digests import Digest
from adyton_protocol.errors import ConfigError
from adyton_protocol.keyset import Keyset
from adyton_protocol.report import AttestationReport
from adyton_protocol.strict_json import JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedResult:
    """Simulated evidence was accepted. Attributes as of ``AttestationResult``, which this is not."""

    checks: tuple[Check, ...]
    report: AttestationReport
    keyset: Keyset
    policy_digest: Digest
    policy_name: str
    appraised_at_s: int
    claims: DcapClaims
    quote: SgxQuoteV3
    platform: EnrolledPlatform | None
    marks: HighWaterMarks
    releases: tuple[ReleaseStatement, ...]
    tee_type: Literal["simulated"] = field(default="simulated", init=False)

    def open_channel(self) -> SealedChannel:
        """Return a channel that protects against everybody but whoever runs the simulated enclave; warns."""
        warn_simulated()
        return channel_to(self.keyset)

    def to_json(self) -> JsonObject:
        """Return the machine-readable record."""
        return {"tee_type": self.tee_type, "trust_domain": "simulated", **result_json(self)}


class SimulatedVerifier:
    """Appraises evidence of one simulated installation under one policy."""

    def __init__(self, policy: AppraisalPolicy, root_der: bytes) -> None:
        """Take the policy and the installation's root certificate (DER).

        Raises:
            ConfigError: The root is not a simulated one.
            EndorsementError: It is no root certificate.
        """
        anchor = trust_anchor(root_der)
        # SECURITY: the real root must never vouch through the type that nobody may trust, nor the other way round.
        if anchor.vendor != "Simulated":
            raise ConfigError("the simulated verifier accepts simulated roots only")
        self._policy = policy
        self._policy_digest = policy.digest()
        self._anchor = anchor

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
    ) -> SimulatedResult:
        """Appraise simulated evidence; warns. Arguments and errors as of ``Verifier.appraise``.

        Raises:
            AttestationError: A check failed; ``check`` names it and ``checks`` has every verdict.
        """
        warn_simulated()
        terms = Terms(policy=self._policy, anchor=self._anchor, marks=marks, now_s=now_s, releases=releases)
        accepted = appraise_report(report, endorsements, terms, tee_type="simulated", challenge=challenge)
        return SimulatedResult(
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
        """Appraise an RA-TLS certificate of the simulation; warns. As ``Verifier.appraise_certificate``.

        Raises:
            AttestationError: A check failed; ``check`` names it and ``checks`` has every verdict.
        """
        warn_simulated()
        terms = Terms(policy=self._policy, anchor=self._anchor, marks=marks, now_s=now_s, releases=releases)
        return appraise_certificate(der, endorsements, terms)
