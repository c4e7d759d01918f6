# SPDX-License-Identifier: Apache-2.0
"""The policy document: strict in, complete out. Unknown members are errors at every level.

Its values are JSON's, so that its canonical form (RFC 8785) can be hashed; people write it as TOML. Times are RFC
3339 with a zone; measurements are lower-case hexadecimal; durations are whole seconds. Whatever is missing takes
the strict default of :mod:`adyton_attestation.policy`; ``version`` and ``name`` are required.
"""

import difflib
import re
from collections.abc import Collection
from datetime import datetime
from typing import Final, TypedDict, get_args

from adyton_attestation.checks import CheckName
from adyton_attestation.policy import (
    POLICY_VERSION,
    AllowedAdvisory,
    AppraisalPolicy,
    EnrolledPlatform,
    Identity,
    KeySeparation,
    Relaxation,
    SignerIdentity,
    StatusException,
    TcbPolicy,
    TcbStatus,
    TdIdentity,
)
from adyton_attestation.release_terms import DEFAULT_AGE_S, MAX_RELEASE, ReleaseTerms
from adyton_attestation.signing_keys import PublicKey, parse_public_key
from adyton_attestation.times import format_time
from adyton_protocol.digests import DIGEST_CHARS, DIGEST_PATTERN, Digest
from adyton_protocol.errors import ConfigError
from adyton_protocol.strict_json import JsonObject, JsonValue, Members, json_value

_MAX_ITEMS: Final = 256
_MAX_TEXT: Final = 512
_MAX_KEYS: Final = 16
_U16: Final = 2**16 - 1
_U32: Final = 2**32 - 1
_ADVISORY: Final = re.compile(r"[A-Z0-9][A-Z0-9-]{0,63}")
_FLAGS: Final = re.compile(r"[0-9a-f]{16}")
_STATUSES: Final[tuple[TcbStatus, ...]] = get_args(TcbStatus)


class PolicyFields(TypedDict, total=False):
    """Arguments of :class:`AppraisalPolicy`; what the document leaves out is left out here."""

    name: str
    identity: Identity
    tcb: TcbPolicy
    platforms: tuple[EnrolledPlatform, ...]
    configurations: frozenset[Digest]
    models: tuple[tuple[str, frozenset[Digest]], ...]
    releases: ReleaseTerms
    max_key_life_s: int
    relaxations: tuple[Relaxation, ...]


def read_policy(value: JsonValue) -> PolicyFields:
    """Read a policy document.

    Raises:
        ConfigError: Not a policy document of this version.
    """
    document = Members(json_value(value, what="policy", error=ConfigError), "policy", ConfigError)
    if document.raw("version") != POLICY_VERSION:
        document.refuse("version", f"this release reads version {POLICY_VERSION}")
    _only(
        document,
        {
            "version",
            "name",
            "identity",
            "tcb",
            "platforms",
            "configurations",
            "models",
            "releases",
            "max_key_life_s",
            "relaxations",
        },
    )
    fields = PolicyFields(name=document.text("name", max_chars=_MAX_TEXT))
    if "identity" in document:
        fields["identity"] = _identity(document.object("identity"))
    if "tcb" in document:
        fields["tcb"] = _tcb(document.object("tcb"))
    if "platforms" in document:
        fields["platforms"] = tuple(_platform(item) for item in _objects(document, "platforms"))
    if "configurations" in document:
        fields["configurations"] = _digests(document, "configurations")
    if "models" in document:
        models = document.object("models")
        fields["models"] = tuple(sorted((name, _digests(models, name)) for name, _ in models.items()))
    if "releases" in document:
        fields["releases"] = _releases(document.object("releases"))
    if "max_key_life_s" in document:
        fields["max_key_life_s"] = document.integer("max_key_life_s", minimum=1, maximum=_U32)
    if "relaxations" in document:
        fields["relaxations"] = tuple(_relaxation(item) for item in _objects(document, "relaxations"))
    return fields


def policy_to_json(policy: AppraisalPolicy) -> JsonObject:
    """Return the complete document, defaults included, in a stable order."""
    identity, tcb = policy.identity, policy.tcb
    return {
        "version": POLICY_VERSION,
        "name": policy.name,
        "identity": {
            "mr_enclave": _sorted_hex(identity.mr_enclaves),
            "mr_signer": [
                {
                    "mr_signer": signer.mr_signer.hex(),
                    "isv_prod_id": signer.isv_prod_id,
                    "min_isv_svn": signer.min_isv_svn,
                }
                for signer in sorted(
                    identity.signers, key=lambda item: (item.mr_signer, item.isv_prod_id, item.min_isv_svn)
                )
            ],
            "tdx": [
                {"mr_td": td.mr_td.hex(), "rt_mr": [value.hex() for value in td.rt_mrs]}
                for td in sorted(identity.tds, key=lambda item: (item.mr_td, item.rt_mrs))
            ],
            "attribute_flags": f"{identity.attribute_flags:016x}",
            "attribute_mask": f"{identity.attribute_mask:016x}",
            "xfrm": f"{identity.xfrm:016x}",
            "xfrm_mask": f"{identity.xfrm_mask:016x}",
            "misc_select": identity.misc_select,
            "key_separation": {
                "config_id": identity.key_separation.config_id.hex(),
                "config_svn": identity.key_separation.config_svn,
                "isv_ext_prod_id": identity.key_separation.isv_ext_prod_id.hex(),
                "isv_family_id": identity.key_separation.isv_family_id.hex(),
            },
        },
        "tcb": {
            "statuses": [status for status in _STATUSES if status in tcb.statuses],
            "exceptions": [
                {
                    "status": item.status,
                    "reason": item.reason,
                    "expires": format_time(item.expires_s),
                    "grace_s": item.grace_s,
                }
                for item in tcb.exceptions
            ],
            "advisories": [
                {"id": item.advisory_id, "reason": item.reason, "expires": format_time(item.expires_s)}
                for item in tcb.advisories
            ],
            "min_evaluation_number": tcb.min_evaluation_number,
            "max_endorsement_age_s": tcb.max_endorsement_age_s,
        },
        "platforms": [
            {
                "ppid": item.ppid.hex(),
                "platform_instance_id": item.platform_instance_id.hex(),
                "custodian": item.custodian,
                "place": item.place,
            }
            for item in policy.platforms
        ],
        "configurations": _texts(policy.configurations),
        "models": {name: _texts(identities) for name, identities in policy.models},
        **_releases_to_json(policy.releases),
        "max_key_life_s": policy.max_key_life_s,
        "relaxations": [
            {"check": item.check.value, "reason": item.reason, "expires": format_time(item.expires_s)}
            for item in policy.relaxations
        ],
    }


def _only(members: Members, names: Collection[str]) -> None:
    """Refuse every member that is not listed, and say which one was probably meant.

    The document is its reader's own, so that naming the member gives nothing away.
    """
    unknown = [name[:_MAX_TEXT] for name, _ in members.items() if name not in names]
    if unknown:
        close = difflib.get_close_matches(unknown[0], names, n=1)
        known = f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(names))}"
        members.refuse(ascii(unknown[0]), f"unknown member; {known}")


def _releases_to_json(terms: ReleaseTerms | None) -> JsonObject:
    """The section; left out without signers, for there is no neutral value of a key."""
    if terms is None:
        return {}
    return {
        "releases": {
            "product": terms.product,
            "signers": [*sorted(map(str, terms.signers))],
            "threshold": terms.threshold,
            "log_keys": [*sorted(map(str, terms.logs))],
            "max_age_s": terms.max_age_s,
            "minimum_release": terms.minimum_release,
        }
    }


def _releases(members: Members) -> ReleaseTerms:
    _only(members, {"product", "signers", "threshold", "log_keys", "max_age_s", "minimum_release"})
    signers = _public_keys(members, "signers")
    return ReleaseTerms(
        product=members.text("product", max_chars=64),
        signers=signers,
        # Left out, everybody has to sign.
        threshold=_number(members, "threshold", len(signers), len(signers)),
        logs=_public_keys(members, "log_keys"),
        max_age_s=_number(members, "max_age_s", _U32, DEFAULT_AGE_S),
        minimum_release=_number(members, "minimum_release", MAX_RELEASE, 1),
    )


def _public_keys(members: Members, name: str) -> tuple[PublicKey, ...]:
    found = []
    for item in members.array(name, max_items=_MAX_KEYS):
        if type(item) is not str:
            members.refuse(name, "not a list of public keys as `adyton release keygen` prints them")
        found.append(parse_public_key(item))
    return tuple(sorted(found, key=str))


def _identity(members: Members) -> Identity:
    _only(
        members,
        {
            "mr_enclave",
            "mr_signer",
            "tdx",
            "attribute_flags",
            "attribute_mask",
            "xfrm",
            "xfrm_mask",
            "misc_select",
            "key_separation",
        },
    )
    default = Identity()
    return Identity(
        mr_enclaves=frozenset(
            _hex_items(members, "mr_enclave", 32) if "mr_enclave" in members else default.mr_enclaves
        ),
        signers=frozenset(_signer(item) for item in _optional_objects(members, "mr_signer")),
        tds=frozenset(_td(item) for item in _optional_objects(members, "tdx")),
        attribute_flags=_flags(members, "attribute_flags", default.attribute_flags),
        attribute_mask=_flags(members, "attribute_mask", default.attribute_mask),
        xfrm=_flags(members, "xfrm", default.xfrm),
        xfrm_mask=_flags(members, "xfrm_mask", default.xfrm_mask),
        misc_select=_number(members, "misc_select", _U32, default.misc_select),
        key_separation=_key_separation(members.object("key_separation"))
        if "key_separation" in members
        else default.key_separation,
    )


def _signer(members: Members) -> SignerIdentity:
    _only(members, {"mr_signer", "isv_prod_id", "min_isv_svn"})
    return SignerIdentity(
        mr_signer=members.hex("mr_signer", min_bytes=32, max_bytes=32),
        isv_prod_id=members.integer("isv_prod_id", minimum=0, maximum=_U16),
        min_isv_svn=members.integer("min_isv_svn", minimum=0, maximum=_U16),
    )


def _td(members: Members) -> TdIdentity:
    _only(members, {"mr_td", "rt_mr"})
    rt_mrs = _hex_items(members, "rt_mr", 48)
    match rt_mrs:
        case (first, second, third, fourth):
            return TdIdentity(
                mr_td=members.hex("mr_td", min_bytes=48, max_bytes=48), rt_mrs=(first, second, third, fourth)
            )
        case _:
            return members.refuse("rt_mr", "not four measurements")


def _key_separation(members: Members) -> KeySeparation:
    _only(members, {"config_id", "config_svn", "isv_ext_prod_id", "isv_family_id"})
    default = KeySeparation()

    def field(name: str, size_bytes: int, missing: bytes) -> bytes:
        return members.hex(name, min_bytes=size_bytes, max_bytes=size_bytes) if name in members else missing

    return KeySeparation(
        config_id=field("config_id", 64, default.config_id),
        config_svn=_number(members, "config_svn", _U16, default.config_svn),
        isv_ext_prod_id=field("isv_ext_prod_id", 16, default.isv_ext_prod_id),
        isv_family_id=field("isv_family_id", 16, default.isv_family_id),
    )


def _tcb(members: Members) -> TcbPolicy:
    _only(
        members,
        {"statuses", "exceptions", "advisories", "min_evaluation_number", "max_endorsement_age_s"},
    )
    default = TcbPolicy()
    return TcbPolicy(
        statuses=frozenset(
            _status(members, "statuses", item) for item in members.array("statuses", max_items=_MAX_ITEMS)
        )
        if "statuses" in members
        else default.statuses,
        exceptions=tuple(_exception(item) for item in _optional_objects(members, "exceptions")),
        advisories=tuple(_advisory(item) for item in _optional_objects(members, "advisories")),
        min_evaluation_number=_number(members, "min_evaluation_number", _U32, default.min_evaluation_number),
        max_endorsement_age_s=_number(members, "max_endorsement_age_s", _U32, default.max_endorsement_age_s),
    )


def _status(members: Members, name: str, item: JsonValue) -> TcbStatus:
    for status in _STATUSES:
        if item == status:
            return status
    return members.refuse(name, f"only these can be accepted: {', '.join(_STATUSES)}")


def _exception(members: Members) -> StatusException:
    _only(members, {"status", "reason", "expires", "grace_s"})
    return StatusException(
        status=_status(members, "status", members.raw("status")),
        reason=members.text("reason", max_chars=_MAX_TEXT),
        expires_s=_time(members, "expires"),
        grace_s=_number(members, "grace_s", _U32, 0),
    )


def _advisory(members: Members) -> AllowedAdvisory:
    _only(members, {"id", "reason", "expires"})
    return AllowedAdvisory(
        advisory_id=members.text("id", max_chars=64, pattern=_ADVISORY),
        reason=members.text("reason", max_chars=_MAX_TEXT),
        expires_s=_time(members, "expires"),
    )


def _platform(members: Members) -> EnrolledPlatform:
    _only(members, {"ppid", "platform_instance_id", "custodian", "place"})
    has_instance = "platform_instance_id" in members and members.raw("platform_instance_id") != ""
    return EnrolledPlatform(
        ppid=members.hex("ppid", min_bytes=16, max_bytes=16),
        platform_instance_id=members.hex("platform_instance_id", min_bytes=16, max_bytes=16)
        if has_instance
        else b"",
        custodian=members.text("custodian", max_chars=_MAX_TEXT),
        place=members.text("place", max_chars=_MAX_TEXT),
    )


def _relaxation(members: Members) -> Relaxation:
    _only(members, {"check", "reason", "expires"})
    name = members.text("check", max_chars=64)
    try:
        check = CheckName(name)
    except ValueError:
        members.refuse("check", "no such check")
    return Relaxation(
        check=check, reason=members.text("reason", max_chars=_MAX_TEXT), expires_s=_time(members, "expires")
    )


def _objects(members: Members, name: str) -> tuple[Members, ...]:
    return tuple(members.objects(name, max_items=_MAX_ITEMS))


def _optional_objects(members: Members, name: str) -> tuple[Members, ...]:
    return _objects(members, name) if name in members else ()


def _digests(members: Members, name: str) -> frozenset[Digest]:
    items = members.array(name, max_items=_MAX_ITEMS)
    found: set[Digest] = set()
    for item in items:
        if not isinstance(item, str) or len(item) > DIGEST_CHARS or DIGEST_PATTERN.fullmatch(item) is None:
            members.refuse(name, "not a list of sha256: digests")
        found.add(Digest(item))
    return frozenset(found)


def _hex_items(members: Members, name: str, size_bytes: int) -> tuple[bytes, ...]:
    values: list[bytes] = []
    for item in members.array(name, max_items=_MAX_ITEMS):
        if not isinstance(item, str) or re.fullmatch(rf"[0-9a-f]{{{2 * size_bytes}}}", item) is None:
            members.refuse(name, f"not a list of {size_bytes}-byte values in lower-case hexadecimal")
        values.append(bytes.fromhex(item))
    return tuple(values)


def _flags(members: Members, name: str, default: int) -> int:
    return int(members.text(name, max_chars=16, pattern=_FLAGS), 16) if name in members else default


def _number(members: Members, name: str, maximum: int, default: int) -> int:
    return members.integer(name, minimum=0, maximum=maximum) if name in members else default


def _time(members: Members, name: str) -> int:
    text = members.text(name, max_chars=40)
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            members.refuse(name, "a time without a zone")
        return int(moment.timestamp())
    except (ValueError, OverflowError) as cause:
        raise ConfigError(f"policy: {name} is not an RFC 3339 time") from cause


def _sorted_hex(values: frozenset[bytes]) -> list[JsonValue]:
    return [value.hex() for value in sorted(values)]


def _texts(values: frozenset[Digest]) -> list[JsonValue]:
    return [str(value) for value in sorted(values)]
