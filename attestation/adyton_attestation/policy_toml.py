# SPDX-License-Identifier: Apache-2.0
"""Policies as TOML: the file that people write, read and review.

Reading goes through ``tomllib`` into the JSON values of :mod:`adyton_attestation.policy_document`, which knows the
members. Writing gives the same text for the same policy, with every value and a comment on what it means; comments
and layout are no part of the policy, nor of its digest.
"""

import json
import re
import tomllib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Final

from adyton_attestation.policy import POLICY_VERSION, AppraisalPolicy, EnrolledPlatform, Identity
from adyton_attestation.times import format_time, in_words
from adyton_protocol.errors import ConfigError
from adyton_protocol.strict_json import JsonObject, JsonValue, json_value

MAX_POLICY_BYTES: Final = 64 * 1024
MAX_DOTS_IN_LINE: Final = 16
"""``tomllib`` takes time that grows with the square of the parts of a dotted key; ours have three at most."""
_WIDTH: Final = 100
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


def parse_policy_toml(data: bytes) -> JsonObject:
    """Read TOML 1.0 into the values of a policy document; what they mean is not looked at.

    Args:
        data: A file's content, of at most :data:`MAX_POLICY_BYTES`.

    Raises:
        ConfigError: Too long, not TOML, or holding a value that no policy has (a float, a time without a zone).
    """
    if len(data) > MAX_POLICY_BYTES:
        raise ConfigError(f"policy: {len(data)} bytes exceed the limit of {MAX_POLICY_BYTES}")
    if data.lstrip()[:1] == b"{":
        raise ConfigError(
            "policy: this is JSON, the form of version 1; since version 2 policies are TOML. To convert it, write a "
            "new one with `adyton policy init --out policy.toml` and copy your values: their names are the same, "
            "except that a status other than UpToDate and SWHardeningNeeded, and a grace, stand in "
            "[[tcb.exceptions]] with a reason and an expiry"
        )
    if max((line.count(b".") for line in data.split(b"\n")), default=0) > MAX_DOTS_IN_LINE:
        raise ConfigError(f"policy: a line has more than {MAX_DOTS_IN_LINE} dots")
    try:
        document = tomllib.loads(data.decode("utf-8"))
        values = {name: _plain(value) for name, value in document.items()}
    except (ValueError, RecursionError, OverflowError) as cause:
        raise ConfigError(f"policy: not a TOML document: {ascii(str(cause))[1:-1]}") from cause
    checked = json_value(values, what="policy", error=ConfigError)
    return checked if isinstance(checked, dict) else {}


def write_policy_toml(policy: AppraisalPolicy) -> str:
    """Return the file of a policy; reading it back gives the same policy."""
    identity, tcb = policy.identity, policy.tcb
    document = policy.to_json()
    lines = [
        *_comment(_HEAD),
        "",
        f"version = {POLICY_VERSION}",
        f"name = {_text(policy.name)}",
        "",
        *_comment(_KEY_LIFE),
        f"max_key_life_s = {policy.max_key_life_s}  # {in_words(policy.max_key_life_s)}",
        "",
        *_comment(_CONFIGURATIONS),
        f"configurations = {_array(map(str, sorted(policy.configurations)))}",
        "",
        "",
        "[identity]",
        *_identity(identity),
        "",
        *_comment(_KEY_SEPARATION),
        "[identity.key_separation]",
        f"config_id = {_text(identity.key_separation.config_id.hex())}",
        f"config_svn = {identity.key_separation.config_svn}",
        f"isv_ext_prod_id = {_text(identity.key_separation.isv_ext_prod_id.hex())}",
        f"isv_family_id = {_text(identity.key_separation.isv_family_id.hex())}",
        "",
        *_tables("identity.mr_signer", _SIGNERS, _member(document, "identity", "mr_signer")),
        *_tables("identity.tdx", _TDX, _member(document, "identity", "tdx")),
        "",
        "[tcb]",
        *_comment(_STATUSES),
        f"statuses = {_array(sorted(tcb.statuses, reverse=True))}",
        "",
        *_comment(_EVALUATION),
        f"min_evaluation_number = {tcb.min_evaluation_number}",
        "",
        *_comment(_AGE),
        f"max_endorsement_age_s = {tcb.max_endorsement_age_s}  # {in_words(tcb.max_endorsement_age_s)}",
        "",
        *_tables("tcb.advisories", _ADVISORIES, _member(document, "tcb", "advisories")),
        *_tables("tcb.exceptions", _EXCEPTIONS, _member(document, "tcb", "exceptions")),
        "",
        *_tables("platforms", _PLATFORMS, _member(document, "platforms")),
        "",
        *_comment(_MODELS),
        "[models]",
        *(f"{_key(name)} = {_array(map(str, sorted(digests)))}" for name, digests in policy.models),
        "",
        "",
        *_releases(document),
        "",
        *_tables("relaxations", _RELAXATIONS, _member(document, "relaxations")),
    ]
    return re.sub(r"\n{4,}", "\n\n\n", "\n".join(lines)).rstrip("\n") + "\n"


def write_platform_toml(platform: EnrolledPlatform) -> str:
    """Return the lines that enrol one machine, to append to a policy."""
    return "\n".join(
        _table(
            "platforms",
            {
                "ppid": platform.ppid.hex(),
                "platform_instance_id": platform.platform_instance_id.hex(),
                "custodian": platform.custodian,
                "place": platform.place,
            },
        )
    )


def _identity(identity: Identity) -> Iterator[str]:
    yield from _comment(_MR_ENCLAVE)
    yield f"mr_enclave = {_array(value.hex() for value in sorted(identity.mr_enclaves))}"
    yield ""
    yield from _comment(_ATTRIBUTES)
    yield f'attribute_flags = "{identity.attribute_flags:016x}"'
    yield f'attribute_mask = "{identity.attribute_mask:016x}"'
    yield ""
    yield from _comment(_XFRM)
    yield f'xfrm = "{identity.xfrm:016x}"'
    yield f'xfrm_mask = "{identity.xfrm_mask:016x}"'
    yield ""
    yield from _comment(_MISC_SELECT)
    yield f"misc_select = {identity.misc_select}"


def _releases(document: JsonObject) -> Iterator[str]:
    yield from _comment(_RELEASES)
    section = document.get("releases")
    if isinstance(section, dict):
        yield "[releases]"
        for name, value in section.items():
            yield f"{_key(name)} = {_value(name, value)}"
    yield ""


def _tables(path: str, comment: str, items: JsonValue) -> Iterator[str]:
    yield from _comment(comment)
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict):
            yield from _table(path, item)
    if not items:
        yield ""


def _table(path: str, item: JsonObject) -> Iterator[str]:
    yield f"[[{path}]]"
    for name, value in item.items():
        yield f"{_key(name)} = {_value(name, value)}"
    yield ""


def _value(name: str, value: JsonValue) -> str:
    if name == "expires":
        # A TOML date-time needs no quotes.
        return str(value)
    if isinstance(value, list):
        return _array(str(item) for item in value)
    if isinstance(value, int):
        return f"{value}  # {in_words(value)}" if name.endswith("_s") and value else str(value)
    return _text(str(value))


def _plain(value: object) -> object:
    """Replace what TOML has beyond JSON: date-times become RFC 3339 text; the rest is refused later."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ConfigError("policy: a time without a zone; write it as 2027-12-31T00:00:00Z")
        return format_time(int(value.astimezone(UTC).timestamp()))
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _member(document: JsonObject, *path: str) -> JsonValue:
    value: JsonValue = document
    for name in path:
        value = value[name] if isinstance(value, dict) else None
    return value


def _text(value: str) -> str:
    """A basic string (TOML 1.0): JSON's escapes are TOML's, but DELETE needs one, too."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _text(name)


def _array(values: Iterable[str]) -> str:
    items = [_text(value) for value in values]
    line = f"[{', '.join(items)}]"
    return line if len(line) <= _WIDTH - 20 else "".join(("[", *(f"\n  {item}," for item in items), "\n]"))


def _comment(text: str) -> Iterator[str]:
    return (f"# {line}".rstrip() for line in text.strip("\n").split("\n"))


_HEAD: Final = """
Appraisal policy: what an enclave must prove before a client sends it anything.

Leaving a member out makes the policy stricter, an empty list accepts nothing, an unknown member is an error, and
whatever is relaxed says why and until when. `adyton policy explain FILE` says in words what is accepted,
`adyton policy lint FILE` what deserves a second look. Comments and layout do not count: the digest that stands
in every result is over the values, defaults included. docs/policy.md explains each member.
"""
_KEY_LIFE: Final = """
How far ahead the end of an enclave's keys may lie. The enclave dates them by a clock that its host sets.
"""
_CONFIGURATIONS: Final = """
Digests of the enclave configurations that you have reviewed (`adyton verify` shows the one that is found).
"""
_MR_ENCLAVE: Final = """
MRENCLAVE of each build that you accept, 64 hexadecimal digits, from the release statement.
"""
_ATTRIBUTES: Final = """
ATTRIBUTES.FLAGS under a mask. As written: initialised, 64 bit, no debugger, neither the provisioning nor the launch
key. The mask leaves out CET, KSS and AEX-notify alone.
"""
_XFRM: Final = """
ATTRIBUTES.XFRM under a mask: the processor state that the enclave may use. e7 is x87, SSE, AVX and AVX-512; 07 is
without AVX-512, 600e7 with AMX. The host chooses it, and numeric libraries choose their code by it.
"""
_MISC_SELECT: Final = """
MISCSELECT, exactly. 1 (EXINFO) has page faults reported to the enclave, which manifests of this project leave off.
"""
_KEY_SEPARATION: Final = """
KSS fields, which the host can set without changing MRENCLAVE: as stated, config_svn at least.
"""
_SIGNERS: Final = """
Instead of single builds: every enclave of a signer, of exactly this product, from this security version on.
Each is a table of its own:
  [[identity.mr_signer]]
  mr_signer = "64 hexadecimal digits"
  isv_prod_id = 1
  min_isv_svn = 1
"""
_TDX: Final = """
Trust domains, for raw quotes only ([[identity.tdx]] with mr_td and four rt_mr, 96 digits each).
"""
_STATUSES: Final = """
TCB statuses that need no exception. SWHardeningNeeded means: safe if the software does something; what, the
advisories say, and every one of them has to be listed below.
"""
_EVALUATION: Final = """
Lowest tcbEvaluationDataNumber: endorsements below it predate a TCB recovery.
"""
_AGE: Final = """
Greatest age of TCB info, QE identity and PCK CRL.
"""
_ADVISORIES: Final = """
Security advisories that are known and dealt with, whatever the status is: id, reason, expires.
"""
_EXCEPTIONS: Final = """
Statuses that are accepted although they are not sound, each with a reason and an expiry. An out-of-date one needs
grace_s, counted from the date of the TCB level, 90 days at most; it covers no advisory:
  [[tcb.exceptions]]
  status = "OutOfDate"
  reason = "the firmware update is scheduled"
  expires = 2027-01-31T00:00:00Z
  grace_s = 2592000
"""
_PLATFORMS: Final = """
The machines that somebody answers for. SGX does not withstand whoever can touch the memory bus, and a genuine
quote does not say where its machine stands; this list does. Each machine once:
  [[platforms]]
  ppid = "32 hexadecimal digits"
  platform_instance_id = "32 more; leave it out where the PCK certificate names none"
  custodian = "who keeps it"
  place = "where it stands"
"""
_MODELS: Final = """
For each model that may answer or score, by name: the identities that you accept ("sha256:...").
"""
_RELEASES: Final = """
Instead of a new policy for every release: whose signed releases name enclaves, configurations and models. Old and
new overlap until a release withdraws the old one. docs/reference-values.md tells how keys are made and compared.
threshold is how many signers there must be (all of them where it is left out), max_age_s how old the log's
checkpoint may be:
  [releases]
  product = "adyton"
  signers = ["alice@example.org+...", "bob@example.org+..."]
  threshold = 2
  log_keys = ["releases.example.org/adyton+..."]
  max_age_s = 2678400
  minimum_release = 1
"""
_RELAXATIONS: Final = """
Checks that are not made for a while. Only comparisons with reference values can be relaxed: enclave-identity,
misc-select, key-separation, evaluation-number, platform, configuration, models.
  [[relaxations]]
  check = "platform"
  reason = "the machines are not enrolled yet"
  expires = 2027-01-31T00:00:00Z
"""
