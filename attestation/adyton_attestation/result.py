# SPDX-License-Identifier: Apache-2.0
"""What an appraisal that passed is worth: a channel to the enclave, and a record of why.

``AttestationResult`` comes from :class:`~adyton_attestation.verifier.Verifier` alone, and it is the only way to a
:class:`SealedChannel` for real evidence: no result, no channel. The simulated verifier has a result type of its
own, which is no subclass of this one.
"""

from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from adyton_attestation.checks import Check
from adyton_attestation.dcap import DcapClaims
from adyton_attestation.marks import HighWaterMarks
from adyton_attestation.policy import EnrolledPlatform
from adyton_attestation.quote import SgxQuoteV3
from adyton_attestation.release_statement import ReleaseStatement
from adyton_attestation.times import format_time
from adyton_protocol.digests import Digest
from adyton_protocol.errors import MalformedEvidence
from adyton_protocol.key_config import KeyConfig
from adyton_protocol.keyset import Keyset
from adyton_protocol.ohttp import RequestSealer
from adyton_protocol.report import AttestationReport
from adyton_protocol.strict_json import JsonObject
from adyton_protocol.suite import Kem

_PREFERENCE: Final = (Kem.X_WING, Kem.X25519)


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedChannel:
    """Seals requests to the keys that an appraisal accepted.

    Attributes:
        keyset: The keys.
        config: The key configuration in use: X-Wing when offered, else X25519.
    """

    keyset: Keyset
    config: KeyConfig

    @property
    def expires_at_s(self) -> int:
        """Unix time at which the keys end; a new appraisal is due before."""
        return self.keyset.not_after

    def sealer(self, *, chunked: bool) -> RequestSealer:
        """Return a sealer for one request."""
        return RequestSealer(self.config, chunked=chunked)


def channel_to(keyset: Keyset) -> SealedChannel:
    """Choose the key configuration of an accepted keyset.

    SECURITY: for the two result types only. Anything else that calls this seals to keys that nobody appraised.

    Raises:
        MalformedEvidence: The keyset offers no configuration that we know.
    """
    configs = keyset.key_configs()
    for kem in _PREFERENCE:
        for config in configs:
            if config.kem is kem:
                return SealedChannel(keyset=keyset, config=config)
    raise MalformedEvidence("the keyset offers neither X-Wing nor X25519")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationResult:
    """A real enclave's evidence was accepted.

    Attributes:
        checks: Every verdict.
        report: The evidence.
        keyset: The keys that the quote binds.
        policy_digest: Digest of the policy that was applied.
        policy_name: Its name.
        appraised_at_s: Unix time of the appraisal.
        claims: What is known of the platform.
        quote: The quote, parsed.
        platform: Its enrolment, or None when the policy does not ask.
        marks: High-water marks to pass to the next appraisal.
        releases: The releases whose reference values were met; none if the policy's own were.
        tee_type: ``sgx``.
    """

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
    tee_type: Literal["sgx"] = field(default="sgx", init=False)

    def open_channel(self) -> SealedChannel:
        """Return the channel to the appraised enclave."""
        return channel_to(self.keyset)

    def to_json(self) -> JsonObject:
        """Return the machine-readable record."""
        return {"tee_type": self.tee_type, "trust_domain": "intel", **result_json(self)}


class ResultFields(Protocol):
    """The attributes that both result types share, for :func:`result_json` alone; no type to accept results by."""

    @property
    def checks(self) -> tuple[Check, ...]:
        """Every verdict."""
        ...

    @property
    def keyset(self) -> Keyset:
        """The accepted keys."""
        ...

    @property
    def policy_digest(self) -> Digest:
        """Digest of the policy."""
        ...

    @property
    def policy_name(self) -> str:
        """Name of the policy."""
        ...

    @property
    def appraised_at_s(self) -> int:
        """Unix time."""
        ...

    @property
    def claims(self) -> DcapClaims:
        """The platform."""
        ...

    @property
    def quote(self) -> SgxQuoteV3:
        """The quote."""
        ...

    @property
    def platform(self) -> EnrolledPlatform | None:
        """The enrolment."""
        ...

    @property
    def marks(self) -> HighWaterMarks:
        """The marks to keep."""
        ...

    @property
    def releases(self) -> tuple[ReleaseStatement, ...]:
        """The releases that were met."""
        ...


def result_json(result: ResultFields) -> JsonObject:
    """Return what the records of both result types share."""
    platform = result.platform
    return {
        "verdict": "accepted",
        "appraised_at": format_time(result.appraised_at_s),
        "policy": {"name": result.policy_name, "digest": result.policy_digest},
        "checks": [check.to_json() for check in result.checks],
        "keyset_digest": result.keyset.digest(),
        "keys_end_at": format_time(result.keyset.not_after),
        "releases": [
            {"product": item.product, "release": item.release, "name": item.name} for item in result.releases
        ],
        "models": [model.to_json() for model in result.keyset.extension.models],
        "mr_enclave": result.quote.report.mr_enclave.hex(),
        "mr_signer": result.quote.report.mr_signer.hex(),
        **result.claims.to_json(),
        "platform": None if platform is None else {"custodian": platform.custodian, "place": platform.place},
        "marks": result.marks.to_json(),
    }
