# SPDX-License-Identifier: Apache-2.0
"""The appraisal policy: one frozen, versioned document that says what evidence is good enough.

Three rules hold for every field. Forgetting it makes the policy stricter, never laxer. An empty set accepts
nothing. A check is relaxed only by naming it, with a reason and an expiry; when the expiry has passed, the check
is back. Checks that are not in :data:`RELAXABLE` cannot be relaxed at all.

The document is hashed into every result (:meth:`AppraisalPolicy.digest`), so that a result says under which rules
it was reached. Reading and writing JSON is in :mod:`adyton_attestation.policy_json`.
"""

from dataclasses import dataclass, field
from typing import Final, Literal, Self, TypeAlias

from adyton_attestation.checks import CheckName
from adyton_attestation.quote import SGX_FLAG_INIT, SGX_FLAG_MODE64BIT
from adyton_protocol.digests import Digest, jcs, sha256_hex
from adyton_protocol.errors import ConfigError
from adyton_protocol.strict_json import JsonObject

POLICY_VERSION: Final = 1

TcbStatus: TypeAlias = Literal[
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "TDRelaunchAdvised",
    "TDRelaunchAdvisedConfigurationNeeded",
]
"""Statuses that a policy may name. ``Revoked`` is not among them."""

OUT_OF_DATE: Final = frozenset({"OutOfDate", "OutOfDateConfigurationNeeded"})

RELAXABLE: Final = frozenset(
    {
        CheckName.ENCLAVE_IDENTITY,
        CheckName.MISC_SELECT,
        CheckName.KEY_SEPARATION,
        CheckName.EVALUATION_NUMBER,
        CheckName.PLATFORM,
        CheckName.CONFIGURATION,
        CheckName.MODELS,
    }
)
"""The checks that compare with reference values; everything cryptographic, and debug, stays."""

DAY_S: Final = 86_400
MAX_GRACE_S: Final = 90 * DAY_S
DEFAULT_ENDORSEMENT_AGE_S: Final = 14 * DAY_S
MAX_ENDORSEMENT_AGE_S: Final = 366 * DAY_S
DEFAULT_KEY_LIFE_S: Final = DAY_S
MAX_KEY_LIFE_S: Final = 7 * DAY_S
DEFAULT_EVALUATION_NUMBER: Final = 20
"""Intel's number of the 2026 TCB recoveries; collateral below it predates them."""
NO_EXPIRY_S: Final = 253_402_300_799
"""The last second of the year 9999."""

FLAGS_REQUIRED: Final = SGX_FLAG_INIT | SGX_FLAG_MODE64BIT
FLAGS_MASK: Final = 0xFFFF_FFFF_FFFF_FB3F
"""Every flag counts except CET (0x40), KSS (0x80) and AEX-notify (0x400), which protect or are checked elsewhere.
Under the mask lie DEBUG (0x02), the provisioning key (0x10) and the launch token key (0x20)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerIdentity:
    """Any enclave of one signer, of one product, at or above one security version.

    Attributes:
        mr_signer: 32 bytes.
        isv_prod_id: Exactly this product.
        min_isv_svn: At least this security version.
    """

    mr_signer: bytes
    isv_prod_id: int
    min_isv_svn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TdIdentity:
    """One trust domain, by all five measurements of 48 bytes. Only raw quotes can be TDX quotes."""

    mr_td: bytes
    rt_mrs: tuple[bytes, bytes, bytes, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySeparation:
    """The KSS fields, which an enclave gets without changing MRENCLAVE; zero unless stated.

    Attributes:
        config_id: 64 bytes.
        config_svn: At least this.
        isv_ext_prod_id: 16 bytes.
        isv_family_id: 16 bytes.
    """

    config_id: bytes = bytes(64)
    config_svn: int = 0
    isv_ext_prod_id: bytes = bytes(16)
    isv_family_id: bytes = bytes(16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What may run. An enclave must match one entry of ``mr_enclaves`` or ``signers``; a TD one of ``tds``.

    Attributes:
        mr_enclaves: Measurements, 32 bytes each.
        signers: Signers.
        tds: Trust domains.
        attribute_flags: What ATTRIBUTES.FLAGS must be under the mask.
        attribute_mask: Which flags count. SECURITY: it always covers DEBUG.
        misc_select: MISCSELECT, exactly.
        key_separation: KSS fields.
    """

    mr_enclaves: frozenset[bytes] = frozenset()
    signers: frozenset[SignerIdentity] = frozenset()
    tds: frozenset[TdIdentity] = frozenset()
    attribute_flags: int = FLAGS_REQUIRED
    attribute_mask: int = FLAGS_MASK
    misc_select: int = 0
    key_separation: KeySeparation = field(default_factory=KeySeparation)


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedAdvisory:
    """A security advisory that is known and dealt with.

    Attributes:
        advisory_id: For example ``INTEL-SA-00615``.
        reason: Why it does no harm here; never empty.
        expires_s: Unix time from which it is not allowed any more.
    """

    advisory_id: str
    reason: str
    expires_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TcbPolicy:
    """How current the platform and the endorsements must be.

    Attributes:
        statuses: Accepted TCB statuses, for the platform and for the quoting enclave.
        advisories: Advisories that may stand against the platform, whatever its status.
        min_evaluation_number: Lowest tcbEvaluationDataNumber.
        max_endorsement_age_s: Greatest age of TCB info, QE identity and PCK CRL, in seconds.
        platform_grace_s: How long after its tcbDate an out-of-date level is accepted, in seconds; 0 means never.
    """

    statuses: frozenset[TcbStatus] = frozenset({"UpToDate", "SWHardeningNeeded"})
    advisories: tuple[AllowedAdvisory, ...] = ()
    min_evaluation_number: int = DEFAULT_EVALUATION_NUMBER
    max_endorsement_age_s: int = DEFAULT_ENDORSEMENT_AGE_S
    platform_grace_s: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolledPlatform:
    """A machine that somebody answers for.

    Attributes:
        ppid: Platform provisioning id, 16 bytes.
        custodian: Who keeps the machine.
        place: Where it stands.
    """

    ppid: bytes
    custodian: str
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Relaxation:
    """A check that is not made.

    Attributes:
        check: Which; one of :data:`RELAXABLE`.
        reason: Why; never empty.
        expires_s: Unix time from which the check is made again.
    """

    check: CheckName
    reason: str
    expires_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AppraisalPolicy:
    """What evidence must show.

    Attributes:
        name: A name for people; part of the digest.
        identity: What may run.
        tcb: How current the platform must be.
        platforms: Enrolled machines.
        configurations: Accepted configuration digests.
        models: Accepted identities by model name, sorted; every model of the keyset must be listed.
        max_key_life_s: How far ahead the end of the keys may lie, in seconds. The enclave dates its keys by a clock
            that the host sets.
        relaxations: Checks that are not made.

    Raises:
        ConfigError: The policy contradicts itself.
    """

    name: str
    identity: Identity = field(default_factory=Identity)
    tcb: TcbPolicy = field(default_factory=TcbPolicy)
    platforms: tuple[EnrolledPlatform, ...] = ()
    configurations: frozenset[Digest] = frozenset()
    models: tuple[tuple[str, frozenset[Digest]], ...] = ()
    max_key_life_s: int = DEFAULT_KEY_LIFE_S
    relaxations: tuple[Relaxation, ...] = ()

    def __post_init__(self) -> None:
        """Refuse policies that would not mean what they say."""
        _check_identity(self.identity)
        _check_tcb(self.tcb)
        if not 0 < self.max_key_life_s <= MAX_KEY_LIFE_S:
            raise ConfigError(f"policy: the life of keys lies between 1 and {MAX_KEY_LIFE_S} seconds")
        relaxed = [relaxation.check for relaxation in self.relaxations]
        if not RELAXABLE.issuperset(relaxed):
            raise ConfigError(
                f"policy {self.name!r}: only these can be relaxed: {', '.join(sorted(RELAXABLE))}"
            )
        if len(set(relaxed)) != len(relaxed):
            raise ConfigError(f"policy {self.name!r}: a check is relaxed twice")
        reasons = [
            *(item.reason for item in self.relaxations),
            *(item.reason for item in self.tcb.advisories),
        ]
        if not all(reason.strip() for reason in reasons):
            raise ConfigError(f"policy {self.name!r}: a relaxation or an advisory lacks its reason")
        if len({name for name, _ in self.models}) != len(self.models):
            raise ConfigError(f"policy {self.name!r}: a model is listed twice")

    def relaxation(self, check: CheckName, now_s: int) -> Relaxation | None:
        """Return the relaxation of a check that is in force, if any."""
        for relaxation in self.relaxations:
            if relaxation.check is check and now_s < relaxation.expires_s:
                return relaxation
        return None

    def allowed_advisories(self, now_s: int) -> frozenset[str]:
        """Return the advisories allowed at a time."""
        return frozenset(item.advisory_id for item in self.tcb.advisories if now_s < item.expires_s)

    @classmethod
    def from_json(cls, data: bytes | str) -> Self:
        """Read a policy document; unknown members are errors.

        Raises:
            ConfigError: Malformed, of another version, or contradicting itself.
        """
        # Imported here because the reader builds the classes of this module.
        from adyton_attestation.policy_json import read_policy  # noqa: PLC0415

        return cls(**read_policy(data.encode("utf-8") if isinstance(data, str) else data))

    def to_json(self) -> JsonObject:
        """Return the whole document, defaults included."""
        from adyton_attestation.policy_json import policy_to_json  # noqa: PLC0415

        return policy_to_json(self)

    def digest(self) -> Digest:
        """Return the SHA-256 over the canonical form of the whole document."""
        return sha256_hex(jcs(self.to_json()))


def _check_identity(identity: Identity) -> None:
    # SECURITY: a mask without DEBUG would let a debugger read the prompts of an otherwise perfect enclave.
    if not identity.attribute_mask & 0x02 or identity.attribute_flags & 0x02:
        raise ConfigError("policy: the attribute mask must cover DEBUG, and DEBUG must be clear")
    if identity.attribute_flags & ~identity.attribute_mask:
        raise ConfigError("policy: attribute flags are required that the mask leaves out")


def _check_tcb(tcb: TcbPolicy) -> None:
    if not 0 < tcb.max_endorsement_age_s <= MAX_ENDORSEMENT_AGE_S:
        raise ConfigError(
            f"policy: the age of endorsements lies between 1 and {MAX_ENDORSEMENT_AGE_S} seconds"
        )
    if not 0 <= tcb.platform_grace_s <= MAX_GRACE_S:
        raise ConfigError(f"policy: the platform grace lies between 0 and {MAX_GRACE_S} seconds")
    if bool(OUT_OF_DATE & tcb.statuses) != (tcb.platform_grace_s > 0):
        raise ConfigError("policy: an out-of-date status needs a grace, and a grace an out-of-date status")


RAW_QUOTE_POLICY: Final = AppraisalPolicy(
    name="raw quote: platform, signatures and TCB, no reference values",
    tcb=TcbPolicy(
        advisories=(
            AllowedAdvisory(
                advisory_id="INTEL-SA-00615",
                reason="MMIO stale data; enclaves built with current SDKs and Gramine mitigate it in software",
                expires_s=NO_EXPIRY_S,
            ),
            AllowedAdvisory(
                advisory_id="INTEL-SA-00657",
                reason="xAPIC stale data; enclaves built with current SDKs and Gramine mitigate it in software",
                expires_s=NO_EXPIRY_S,
            ),
        ),
        min_evaluation_number=0,
        max_endorsement_age_s=31 * DAY_S,
    ),
    relaxations=tuple(
        Relaxation(check=check, reason="no reference values were given", expires_s=NO_EXPIRY_S)
        for check in sorted(RELAXABLE)
    ),
)
"""What ``adyton quote verify`` applies without ``--policy``: everything but the comparison with reference values.

It never leads to a channel; only :class:`~adyton_attestation.verifier.Verifier` does, with a policy of its user.
"""
