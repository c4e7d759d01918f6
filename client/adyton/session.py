# SPDX-License-Identifier: Apache-2.0
"""What a client knows about the appliance: fresh, then attested, then expired.

::

    FRESH ──accept()──> ATTESTED ──keyset runs out, or expire()──> EXPIRED ──accept()──> ATTESTED

No I/O, no clock, no lock: :mod:`adyton.flow` says what to fetch and the drivers in :mod:`adyton.transport`
fetch it, one attestation at a time. A sealing context exists only inside an :class:`Attested`, and an
:class:`Attested` only after an appraisal that passed; there is no other way to a sealed request.
"""

import enum
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

from adyton.marks import KeepMarks, forget
from adyton_attestation.endorsements import Endorsements, parse_endorsements
from adyton_attestation.marks import NO_MARKS, HighWaterMarks
from adyton_attestation.ra_tls import CertificateAppraisal
from adyton_attestation.result import AttestationResult
from adyton_attestation.simulation import SimulatedResult
from adyton_protocol.errors import AttestationError, ConfigError
from adyton_protocol.report import AttestationReport, parse_report

Verdict = AttestationResult | SimulatedResult
"""A passed appraisal. The two types share their attributes and nothing else: neither is a subclass."""

APPLIANCE: Final = "the appliance"
"""Where endorsements come from unless the caller chose another source."""

_MAX_MARGIN_S: Final = 30
"""Attest again this long before the keys run out, so that no request meets a key on its last second."""

_MARGIN_SHARE: Final = 10
"""For short-lived keys, keep a tenth of their life as margin instead."""


class Appraiser(Protocol):
    """What a session needs of ``Verifier`` and ``SimulatedVerifier``."""

    def appraise(
        self,
        report: AttestationReport,
        endorsements: Endorsements,
        *,
        challenge: str,
        now_s: int,
        marks: HighWaterMarks = NO_MARKS,
        releases: bytes | None = None,
    ) -> Verdict:
        """Check the evidence against policy, challenge and time, or raise ``AttestationError``."""
        ...


@runtime_checkable
class CertificateAppraiser(Protocol):
    """What the second channel needs of ``Verifier`` and ``SimulatedVerifier``."""

    def appraise_certificate(
        self,
        der: bytes,
        endorsements: Endorsements,
        *,
        now_s: int,
        marks: HighWaterMarks = NO_MARKS,
        releases: bytes | None = None,
    ) -> CertificateAppraisal:
        """Check the evidence in a certificate against policy and time, or raise ``AttestationError``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseSource:
    """Where signed reference values come from.

    Attributes:
        demanded: Whether the policy names signers of releases.
        file: A release file of the user's own; None takes the one that the appliance carries.
    """

    demanded: bool = False
    file: bytes | None = None

    @property
    def fetched(self) -> bool:
        """Whether the appliance has to be asked."""
        return self.demanded and self.file is None


NO_RELEASES: Final = ReleaseSource()
"""The policy names its reference values itself."""


class SessionState(enum.Enum):
    """Where a session stands."""

    FRESH = "fresh"
    ATTESTED = "attested"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attested:
    """One appraisal that passed, with everything somebody else needs to repeat it later.

    Attributes:
        verdict: The result; its channel makes the sealing contexts.
        challenge: The challenge that the evidence answers.
        report: The attestation report, as received.
        endorsements: The endorsements it was appraised with, as received.
        appraised_at_s: Unix time of the appraisal.
        origin: Where the endorsements came from, in words.
        notice: Why they are not the newest that there may be, or None; in words.
        releases: The release file it was appraised with, as received; None if the policy wants none.
    """

    verdict: Verdict
    challenge: str
    report: bytes
    endorsements: bytes
    appraised_at_s: int
    origin: str = APPLIANCE
    notice: str | None = None
    releases: bytes | None = None

    @property
    def expires_at_s(self) -> int:
        """Unix time at which the attested keys run out."""
        return self.verdict.keyset.not_after

    @property
    def renew_at_s(self) -> int:
        """Unix time from which a new request should attest again first."""
        life_s = max(0, self.expires_at_s - self.appraised_at_s)
        return self.expires_at_s - min(_MAX_MARGIN_S, life_s // _MARGIN_SHARE)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedEvidence:
    """Evidence that an appraisal refused, to say what it claimed; nothing of it is believed.

    Attributes:
        challenge: The challenge that it was asked with.
        report: As received; attacker-controlled.
        endorsements: As received; attacker-controlled.
        appraised_at_s: Unix time of the appraisal.
        origin: Where the endorsements came from, in words.
        notice: What is to be said about that, or None.
    """

    challenge: str
    report: bytes
    endorsements: bytes
    appraised_at_s: int
    origin: str
    notice: str | None


def refused_evidence(error: AttestationError) -> RefusedEvidence | None:
    """Return the evidence that was refused; None for errors from elsewhere."""
    found: object = vars(error).get("evidence")
    return found if isinstance(found, RefusedEvidence) else None


class Session:
    """The state machine. Not thread-safe by itself; the drivers hold a lock around an attestation."""

    def __init__(
        self,
        appraiser: Appraiser,
        *,
        marks: HighWaterMarks = NO_MARKS,
        keep_marks: KeepMarks = forget,
        releases: ReleaseSource = NO_RELEASES,
    ) -> None:
        """Start fresh.

        Args:
            appraiser: The verifier that the caller chose.
            marks: High-water marks of earlier sessions.
            keep_marks: Called with the new marks after every appraisal that passed.
            releases: Where signed reference values come from.
        """
        self.releases: Final = releases
        self._appraiser = appraiser
        self._marks = marks
        self._keep_marks = keep_marks
        self._attested: Attested | None = None
        self._expired = False

    def state(self, now_s: int) -> SessionState:
        """Say where the session stands at this time."""
        if self._attested is None:
            return SessionState.FRESH
        if self._expired or now_s >= self._attested.renew_at_s:
            return SessionState.EXPIRED
        return SessionState.ATTESTED

    def current(self, now_s: int) -> Attested | None:
        """Return the appraisal that requests may be sealed under now; None means: attest first."""
        return self._attested if self.state(now_s) is SessionState.ATTESTED else None

    def accept(
        self,
        *,
        report: bytes,
        endorsements: bytes,
        challenge: str,
        now_s: int,
        origin: str = APPLIANCE,
        notice: str | None = None,
        releases: bytes | None = None,
    ) -> Attested:
        """Appraise evidence and, when it passes, move to ATTESTED.

        Args:
            report: Attacker-controlled body of the attestation endpoint.
            endorsements: Attacker-controlled endorsements.
            challenge: The challenge that was sent for this report, and for no other.
            now_s: Unix time by the client's clock.
            origin: Where the endorsements came from; kept, not judged.
            notice: What is to be said about that.
            releases: Attacker-controlled release file, if the appliance was asked for one.

        Raises:
            AttestationError: The evidence is not accepted; the state does not change.
        """
        releases = releases if self.releases.file is None else self.releases.file
        try:
            verdict = self._appraiser.appraise(
                parse_report(report),
                parse_endorsements(endorsements),
                challenge=challenge,
                now_s=now_s,
                marks=self._marks,
                releases=releases,
            )
        except AttestationError as error:
            vars(error)["evidence"] = RefusedEvidence(
                challenge=challenge,
                report=report,
                endorsements=endorsements,
                appraised_at_s=now_s,
                origin=origin,
                notice=notice,
            )
            raise
        self._marks = verdict.marks
        self._keep_marks(verdict.marks)
        attested = Attested(
            verdict=verdict,
            challenge=challenge,
            report=report,
            endorsements=endorsements,
            appraised_at_s=now_s,
            origin=origin,
            notice=notice,
            releases=releases,
        )
        self._attested, self._expired = attested, False
        return attested

    def check_certificate(self, der: bytes, attested: Attested, *, now_s: int) -> CertificateAppraisal:
        """Appraise the evidence in a peer's certificate under this session's policy and marks.

        Args:
            der: Attacker-controlled certificate.
            attested: The appraisal whose endorsements and releases count.
            now_s: Unix time.

        Raises:
            AttestationError: The certificate is not accepted.
            ConfigError: The verifier of this session appraises reports only.
        """
        if not isinstance(self._appraiser, CertificateAppraiser):
            raise ConfigError("this client's verifier does not appraise certificates")
        return self._appraiser.appraise_certificate(
            der,
            parse_endorsements(attested.endorsements),
            now_s=now_s,
            marks=self._marks,
            releases=attested.releases,
        )

    def expire(self, attested: Attested) -> None:
        """Stop using this appraisal; no effect if it has been replaced already (many requests may say so)."""
        if self._attested is attested:
            self._expired = True
