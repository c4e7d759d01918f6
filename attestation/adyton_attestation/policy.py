# SPDX-License-Identifier: Apache-2.0
"""The appraisal policy: one frozen, versioned document that says what evidence is good enough.

Three rules hold for every field. Forgetting it makes the policy stricter, never laxer. An empty set accepts
nothing. A check is relaxed only by naming it, with a reason and an expiry; when the expiry has passed, the check
is back. Checks that are not in :data:`RELAXABLE` cannot be relaxed at all.

The document is hashed into every result (:meth:`AppraisalPolicy.digest`), so that a result says under which rules
it was reached. People write it as TOML (:mod:`adyton_attestation.policy_toml`); what is hashed is the complete
document, defaults included (:mod:`adyton_attestation.policy_document`).
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal, Self, TypeAlias

from adyton_attestation.checks import CheckName
from adyton_attestation.quote import SGX_FLAG_INIT, SGX_FLAG_MODE64BIT
from adyton_attestation.release_terms import ReleaseTerms
from adyton_protocol.digests import Digest, jcs, sha256_hex
from adyton_protocol.errors import ConfigError
from adyton_protocol.strict_json import JsonObject, JsonValue

POLICY_VERSION: Final = 2

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
SOUND: Final = frozenset({"UpToDate", "SWHardeningNeeded"})
"""Statuses that need no exception; the second still needs every advisory on the allow-list."""

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
_REMEMBERED: Final = 16
NO_EXPIRY_S: Final = 253_402_300_799
"""The last second of the year 9999."""

FLAGS_REQUIRED: Final = SGX_FLAG_INIT | SGX_FLAG_MODE64BIT
FLAGS_MASK: Final = 0xFFFF_FFFF_FFFF_FB3F
"""Every flag counts except CET (0x40), KSS (0x80) and AEX-notify (0x400), which protect or are checked elsewhere.
Under the mask lie DEBUG (0x02), the provisioning key (0x10) and the launch token key (0x20)."""
FLAGS_ALWAYS: Final = 0x37
"""INIT, DEBUG, MODE64BIT, provisioning key and launch token key: flags that no mask can leave out."""
XFRM_REQUIRED: Final = 0xE7
"""x87, SSE, AVX and the three parts of AVX-512: what a server with SGX has, and nothing else."""
XFRM_MASK: Final = 0xFFFF_FFFF_FFFF_FFFF


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
        attribute_mask: Which flags count. SECURITY: it always covers DEBUG and the keys of others.
        xfrm: What ATTRIBUTES.XFRM, the processor state that the enclave may use, must be under its mask. The host
            chooses it at start; libraries choose their code by it, and other code may answer differently.
        xfrm_mask: Which bits of it count.
        misc_select: MISCSELECT, exactly.
        key_separation: KSS fields.
    """

    mr_enclaves: frozenset[bytes] = frozenset()
    signers: frozenset[SignerIdentity] = frozenset()
    tds: frozenset[TdIdentity] = frozenset()
    attribute_flags: int = FLAGS_REQUIRED
    attribute_mask: int = FLAGS_MASK
    xfrm: int = XFRM_REQUIRED
    xfrm_mask: int = XFRM_MASK
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
class StatusException:
    """A TCB status that is accepted although it is not sound.

    Attributes:
        status: Which; neither one of :data:`SOUND` nor ``Revoked``.
        reason: Why; never empty.
        expires_s: Unix time from which it is not accepted any more.
        grace_s: For an out-of-date status: how long after the date of the TCB level it is accepted, in seconds;
            0 for every other status. It covers no advisory.
    """

    status: TcbStatus
    reason: str
    expires_s: int
    grace_s: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TcbPolicy:
    """How current the platform and the endorsements must be.

    Attributes:
        statuses: Accepted TCB statuses, for the platform and for the quoting enclave; among :data:`SOUND`.
        exceptions: Further statuses, each with its reason and until when.
        advisories: Advisories that may stand against the platform, whatever its status.
        min_evaluation_number: Lowest tcbEvaluationDataNumber.
        max_endorsement_age_s: Greatest age of TCB info, QE identity and PCK CRL, in seconds.
    """

    statuses: frozenset[TcbStatus] = frozenset({"UpToDate", "SWHardeningNeeded"})
    exceptions: tuple[StatusException, ...] = ()
    advisories: tuple[AllowedAdvisory, ...] = ()
    min_evaluation_number: int = DEFAULT_EVALUATION_NUMBER
    max_endorsement_age_s: int = DEFAULT_ENDORSEMENT_AGE_S


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolledPlatform:
    """A machine that somebody answers for.

    Attributes:
        ppid: Platform provisioning id, 16 bytes.
        platform_instance_id: What Intel registered the machine as, 16 bytes, where its PCK certificate names it (one
            issued by the Platform CA does); else empty. A machine that is registered anew gets another one.
        custodian: Who keeps the machine.
        place: Where it stands.
    """

    ppid: bytes
    platform_instance_id: bytes = b""
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
        releases: Whose signed releases name further enclaves, and for how long; None for nobody's.
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
    releases: ReleaseTerms | None = None
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
            *(item.reason for item in self.tcb.exceptions),
        ]
        if not all(reason.strip() for reason in reasons):
            raise ConfigError(
                f"policy {self.name!r}: a relaxation, an exception or an advisory lacks its reason"
            )
        _check_platforms(self.platforms)
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

    def accepted_statuses(self, now_s: int) -> dict[str, int | None]:
        """Return the statuses accepted at a time; with each out-of-date one its grace in seconds, else None."""
        accepted: dict[str, int | None] = dict.fromkeys(self.tcb.statuses)
        for item in self.tcb.exceptions:
            if now_s < item.expires_s:
                accepted[item.status] = item.grace_s if item.status in OUT_OF_DATE else None
        return accepted

    @classmethod
    def from_toml(cls, data: bytes | str) -> Self:
        """Read a policy file; unknown members are errors.

        Raises:
            ConfigError: Malformed, of another version, or contradicting itself.
        """
        # Imported here because the reader builds the classes of this module.
        from adyton_attestation.policy_toml import parse_policy_toml  # noqa: PLC0415

        return cls.from_json(parse_policy_toml(data.encode("utf-8") if isinstance(data, str) else data))

    @classmethod
    def from_json(cls, document: JsonValue) -> Self:
        """Take a policy as the object that :meth:`to_json` returns; members with a default may be missing.

        Raises:
            ConfigError: Malformed, of another version, or contradicting itself.
        """
        from adyton_attestation.policy_document import read_policy  # noqa: PLC0415

        return cls(**read_policy(document))

    def to_toml(self) -> str:
        """Return the policy as a file for people: every value, and a comment on what it means."""
        from adyton_attestation.policy_toml import write_policy_toml  # noqa: PLC0415

        return write_policy_toml(self)

    def to_json(self) -> JsonObject:
        """Return the whole document, defaults included."""
        from adyton_attestation.policy_document import policy_to_json  # noqa: PLC0415

        return policy_to_json(self)

    def digest(self) -> Digest:
        """Return the SHA-256 over the canonical form of the whole document."""
        return _digest(self)


@lru_cache(maxsize=_REMEMBERED)
def _digest(policy: AppraisalPolicy) -> Digest:
    """Made once for a policy: it is frozen, and every result carries it."""
    return sha256_hex(jcs(policy.to_json()))


def _check_identity(identity: Identity) -> None:
    # SECURITY: a mask without DEBUG would let a debugger read the prompts of an otherwise perfect enclave.
    if identity.attribute_flags & 0x02:
        raise ConfigError("policy: DEBUG must be clear")
    if FLAGS_ALWAYS & ~identity.attribute_mask:
        raise ConfigError(f"policy: the attribute mask must cover {FLAGS_ALWAYS:#x}, DEBUG among them")
    if identity.attribute_flags & ~identity.attribute_mask or identity.xfrm & ~identity.xfrm_mask:
        raise ConfigError("policy: bits of attribute_flags or xfrm are required that their mask leaves out")


def _check_tcb(tcb: TcbPolicy) -> None:
    if not 0 < tcb.max_endorsement_age_s <= MAX_ENDORSEMENT_AGE_S:
        raise ConfigError(
            f"policy: the age of endorsements lies between 1 and {MAX_ENDORSEMENT_AGE_S} seconds"
        )
    if not tcb.statuses <= SOUND:
        raise ConfigError("policy: a status other than UpToDate and SWHardeningNeeded needs an exception")
    excepted = [item.status for item in tcb.exceptions]
    if len(set(excepted)) != len(excepted) or not SOUND.isdisjoint(excepted):
        raise ConfigError("policy: a status is excepted twice, or needs no exception")
    for item in tcb.exceptions:
        if (item.status in OUT_OF_DATE) != (item.grace_s > 0):
            raise ConfigError(
                "policy: an exception for an out-of-date status needs a grace, and no other has one"
            )
        if not 0 <= item.grace_s <= MAX_GRACE_S:
            raise ConfigError(f"policy: a grace lies between 1 and {MAX_GRACE_S} seconds")
    named = [item.advisory_id for item in tcb.advisories]
    if len(set(named)) != len(named):
        raise ConfigError("policy: an advisory is listed twice")


def _check_platforms(platforms: tuple[EnrolledPlatform, ...]) -> None:
    # SECURITY: two entries for one machine would leave open who answers for it, and where it stands.
    if len({item.ppid for item in platforms}) != len(platforms):
        raise ConfigError("policy: a platform is enrolled twice; one machine has one custodian and one place")
    if not all(item.custodian.strip() and item.place.strip() for item in platforms):
        raise ConfigError("policy: a platform is enrolled without its custodian or its place")


RAW_QUOTE_POLICY: Final = AppraisalPolicy(
    name="raw quote: platform, signatures and TCB, no reference values",
    # Which processor state an enclave uses is a reference value; x87 and SSE are always on.
    identity=Identity(xfrm=0x03, xfrm_mask=0x03),
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
