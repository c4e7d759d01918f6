# SPDX-License-Identifier: Apache-2.0
"""A policy in plain words: for each rule what it accepts at a time, and what is relaxed until when.

One statement for each rule of the document, in the order of the file, also for rules that nobody has touched: what a
default demands is part of what a policy says. A rule is named by its path in the document, which is also how
``tests/vectors/policy_rules.json`` and :mod:`adyton_attestation.policy_lint` name it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from adyton_attestation.checks import NUMBERS, CheckName
from adyton_attestation.policy import (
    DEFAULT_ENDORSEMENT_AGE_S,
    DEFAULT_EVALUATION_NUMBER,
    DEFAULT_KEY_LIFE_S,
    FLAGS_MASK,
    FLAGS_REQUIRED,
    NO_EXPIRY_S,
    OUT_OF_DATE,
    XFRM_MASK,
    AppraisalPolicy,
    KeySeparation,
)
from adyton_attestation.release_terms import DEFAULT_AGE_S
from adyton_attestation.times import format_time, in_words, roughly
from adyton_protocol.strict_json import JsonObject

Standing: TypeAlias = Literal["demanded", "laxer", "nothing", "relaxed"]
"""``demanded``: as strict as the default or stricter. ``laxer``: less strict than the default. ``nothing``: no
evidence can pass. ``relaxed``: the check is not made."""

FLAG_NAMES: Final = {
    0x01: "INIT",
    0x02: "DEBUG",
    0x04: "MODE64BIT",
    0x10: "PROVISIONKEY",
    0x20: "EINITTOKENKEY",
    0x40: "CET",
    0x80: "KSS",
    0x400: "AEX-NOTIFY",
}
"""ATTRIBUTES.FLAGS (Intel SDM volume 3D, section 35.7.1)."""
XFRM_NAMES: Final = {
    0x01: "x87",
    0x02: "SSE",
    0x04: "AVX",
    0x18: "MPX",
    0xE0: "AVX-512",
    0x200: "PKRU",
    0x6_0000: "AMX",
}
"""ATTRIBUTES.XFRM, by the parts of XCR0 that belong together (Intel SDM volume 1, section 13.1)."""

_STATUSES: Final = {
    "UpToDate": "everything is current",
    "SWHardeningNeeded": "current, as long as the software mitigates the advisories",
    "ConfigurationNeeded": "a setting of the firmware weakens the platform (often: hyper-threading is on)",
    "ConfigurationAndSWHardeningNeeded": "both a setting and mitigations in software are needed",
    "OutOfDate": "microcode or firmware with known flaws",
    "OutOfDateConfigurationNeeded": "microcode or firmware with known flaws, and a setting that weakens it",
    "TDRelaunchAdvised": "current, but the trust domain was started before",
    "TDRelaunchAdvisedConfigurationNeeded": "started before the update, and a setting weakens the platform",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What one rule says.

    Attributes:
        rule: Its path in the document.
        check: The check that applies it; None for the list of relaxations.
        standing: How strict it is.
        text: One sentence or two.
    """

    rule: str
    check: CheckName | None
    standing: Standing
    text: str

    def to_json(self) -> JsonObject:
        """Return the JSON object."""
        return {
            "rule": self.rule,
            "check": None if self.check is None else self.check.value,
            "number": None if self.check is None else NUMBERS[self.check],
            "standing": self.standing,
            "text": self.text,
        }


Words: TypeAlias = Iterator[tuple[Standing, str]]


@dataclass(frozen=True, slots=True)
class _Rule:
    path: str
    check: CheckName | None
    words: Callable[[AppraisalPolicy, int], Words]


def explain_policy(policy: AppraisalPolicy, now_s: int) -> tuple[Statement, ...]:
    """Say what a policy accepts at a time, rule by rule."""
    return tuple(
        Statement(rule=rule.path, check=rule.check, standing=standing, text=text)
        for rule in _RULES
        for standing, text in _relaxed(rule, policy, now_s) or rule.words(policy, now_s)
    )


def rules() -> tuple[str, ...]:
    """Return the path of every rule, in the order of the file."""
    return tuple(rule.path for rule in _RULES)


def _relaxed(rule: _Rule, policy: AppraisalPolicy, now_s: int) -> tuple[tuple[Standing, str], ...]:
    relaxation = None if rule.check is None else policy.relaxation(rule.check, now_s)
    if relaxation is None:
        return ()
    return (("relaxed", f"NOT CHECKED {_until(relaxation.expires_s, now_s)}: {relaxation.reason}"),)


def _until(expires_s: int, now_s: int) -> str:
    if expires_s == NO_EXPIRY_S:
        return "without an end"
    if expires_s <= now_s:
        return f"any more since {format_time(expires_s)}"
    return f"until {format_time(expires_s)}, in {roughly(expires_s - now_s)}"


def _mr_enclave(policy: AppraisalPolicy, _now_s: int) -> Words:
    builds = sorted(policy.identity.mr_enclaves)
    if builds:
        yield "demanded", f"the enclave is one of these builds: {', '.join(item.hex() for item in builds)}"
    elif policy.identity.signers or policy.releases is not None:
        yield "demanded", "no single build is named here"
    else:
        yield "nothing", "no build and no signer is named, so that no enclave is accepted by this rule"


def _signers(policy: AppraisalPolicy, _now_s: int) -> Words:
    for signer in sorted(policy.identity.signers, key=lambda item: (item.mr_signer, item.isv_prod_id)):
        product = f"product {signer.isv_prod_id}, from security version {signer.min_isv_svn} on"
        yield (
            "demanded",
            f"or any enclave signed by {signer.mr_signer.hex()}, as {product}, whatever its code is",
        )
    if not policy.identity.signers:
        yield "demanded", "no signer is trusted to vouch for code that is not listed"


def _tds(policy: AppraisalPolicy, _now_s: int) -> Words:
    names = [item.mr_td.hex() for item in sorted(policy.identity.tds, key=lambda item: item.mr_td)]
    if names:
        yield "demanded", f"raw quotes only: the trust domain is one of {', '.join(names)}"
    else:
        yield "demanded", "no TDX trust domain is accepted"


def _flags(policy: AppraisalPolicy, _now_s: int) -> Words:
    flags, mask = policy.identity.attribute_flags, policy.identity.attribute_mask
    ignored = _names(~mask & 0xFFFF_FFFF_FFFF_FFFF, FLAG_NAMES)
    standing: Standing = "demanded" if not FLAGS_MASK & ~mask and flags == FLAGS_REQUIRED else "laxer"
    yield (
        standing,
        f"these flags are set: {_names(flags, FLAG_NAMES)}; not looked at: {ignored}; every other is clear",
    )


def _xfrm(policy: AppraisalPolicy, _now_s: int) -> Words:
    xfrm, mask = policy.identity.xfrm, policy.identity.xfrm_mask
    left_out = ~mask & XFRM_MASK
    state = _names(xfrm, XFRM_NAMES)
    if left_out:
        yield "laxer", f"the enclave uses {state}; the host may choose {_names(left_out, XFRM_NAMES)}"
    else:
        yield "demanded", f"the enclave uses exactly this processor state: {state}"


def _misc_select(policy: AppraisalPolicy, _now_s: int) -> Words:
    value = policy.identity.misc_select
    if value == 0:
        yield "demanded", "MISCSELECT is 0: faults are not reported to the enclave"
    elif value == 1:
        yield "laxer", "MISCSELECT is 1: faults are reported to the enclave (EXINFO)"
    else:
        yield "laxer", f"MISCSELECT is {value:#x}"


def _key_separation(policy: AppraisalPolicy, _now_s: int) -> Words:
    stated = policy.identity.key_separation
    if stated == KeySeparation():
        yield "demanded", "all KSS fields are zero: CONFIGID, CONFIGSVN, extended product, family"
        return
    svn = f"at least {stated.config_svn}" if stated.config_svn else "0"
    product = f"the extended product {stated.isv_ext_prod_id.hex()}, the family {stated.isv_family_id.hex()}"
    yield "demanded", f"CONFIGID is {stated.config_id.hex()}, CONFIGSVN {svn}, {product}"


def _statuses(policy: AppraisalPolicy, now_s: int) -> Words:
    for status in sorted(policy.tcb.statuses, reverse=True):
        yield "demanded", f"{status} is accepted: {_STATUSES[status]}"
    if not policy.accepted_statuses(now_s):
        yield "nothing", "no status is accepted, so that no platform is"


def _exceptions(policy: AppraisalPolicy, now_s: int) -> Words:
    for item in policy.tcb.exceptions:
        grace = (
            f", while its level is at most {in_words(item.grace_s)} old and no advisory stands against it"
            if item.status in OUT_OF_DATE
            else ""
        )
        meaning = _STATUSES[item.status]
        if now_s >= item.expires_s:
            yield "demanded", f"{item.status} is not accepted {_until(item.expires_s, now_s)}"
        else:
            yield (
                "laxer",
                f"{item.status} ({meaning}) is accepted {_until(item.expires_s, now_s)}{grace}: {item.reason}",
            )
    if not policy.tcb.exceptions:
        yield "demanded", "no other status is accepted"


def _advisories(policy: AppraisalPolicy, now_s: int) -> Words:
    for item in policy.tcb.advisories:
        if now_s >= item.expires_s:
            yield "demanded", f"{item.advisory_id} is not allowed {_until(item.expires_s, now_s)}"
        else:
            yield (
                "demanded",
                f"{item.advisory_id} may stand against the platform {_until(item.expires_s, now_s)}: {item.reason}",
            )
    yield "demanded", "every other security advisory against platform or quoting enclave refuses it"


def _evaluation_number(policy: AppraisalPolicy, _now_s: int) -> Words:
    number = policy.tcb.min_evaluation_number
    standing: Standing = "demanded" if number >= DEFAULT_EVALUATION_NUMBER else "laxer"
    yield standing, f"TCB info and QE identity have evaluation number {number} or newer"


def _age(policy: AppraisalPolicy, _now_s: int) -> Words:
    age_s = policy.tcb.max_endorsement_age_s
    standing: Standing = "demanded" if age_s <= DEFAULT_ENDORSEMENT_AGE_S else "laxer"
    yield standing, f"TCB info, QE identity and PCK CRL are at most {in_words(age_s)} old"


def _platforms(policy: AppraisalPolicy, _now_s: int) -> Words:
    for item in policy.platforms:
        instance = item.platform_instance_id.hex() or "none"
        yield (
            "demanded",
            f"PPID {item.ppid.hex()}, platform instance {instance}: kept by {item.custodian}, at {item.place}",
        )
    if not policy.platforms:
        yield "nothing", "no machine is enrolled, so that none is accepted"


def _configurations(policy: AppraisalPolicy, _now_s: int) -> Words:
    if policy.configurations:
        yield "demanded", f"the enclave's configuration is one of {', '.join(sorted(policy.configurations))}"
    elif policy.releases is not None:
        yield "demanded", "no configuration is named here; that of an enclave must stand in its release"
    else:
        yield "nothing", "no configuration is named, so that none is accepted by this rule"


def _models(policy: AppraisalPolicy, _now_s: int) -> Words:
    for name, identities in policy.models:
        standing: Standing = "demanded" if identities else "nothing"
        yield standing, f"model {name!r} is one of: {', '.join(sorted(identities)) or 'none'}"
    if policy.models:
        yield "demanded", "an enclave with any other model is refused"
    elif policy.releases is not None:
        yield "demanded", "no model is named here; those of an enclave must stand in its release"
    else:
        yield "nothing", "no model is named, so that none is accepted by this rule"


def _releases(policy: AppraisalPolicy, _now_s: int) -> Words:
    terms = policy.releases
    if terms is None:
        yield "demanded", "nobody's releases count: what this policy names itself is all that can be accepted"
        return
    signers = ", ".join(str(item) for item in terms.signers)
    logs = " or ".join(str(item) for item in terms.logs)
    standing: Standing = "demanded" if terms.max_age_s <= DEFAULT_AGE_S else "laxer"
    what = f"release {terms.minimum_release} or newer, signed by at least {terms.threshold} of {signers}"
    where = f"in the log of {logs}, as of at most {in_words(terms.max_age_s)} ago"
    yield (
        standing,
        f"releases of {terms.product!r} name further enclaves and what belongs to them: {what}, {where}",
    )


def _key_life(policy: AppraisalPolicy, _now_s: int) -> Words:
    life_s = policy.max_key_life_s
    standing: Standing = "demanded" if life_s <= DEFAULT_KEY_LIFE_S else "laxer"
    yield standing, f"the enclave's keys end within {in_words(life_s)}"


def _relaxations(policy: AppraisalPolicy, now_s: int) -> Words:
    for item in policy.relaxations:
        standing: Standing = "relaxed" if now_s < item.expires_s else "demanded"
        yield standing, f"{item.check.value} is not checked {_until(item.expires_s, now_s)}: {item.reason}"
    if not policy.relaxations:
        yield "demanded", "no check is relaxed"


_RULES: Final = (
    _Rule("max_key_life_s", CheckName.KEYS_CURRENT, _key_life),
    _Rule("configurations", CheckName.CONFIGURATION, _configurations),
    _Rule("identity.mr_enclave", CheckName.ENCLAVE_IDENTITY, _mr_enclave),
    _Rule("identity.mr_signer", CheckName.ENCLAVE_IDENTITY, _signers),
    _Rule("identity.tdx", CheckName.ENCLAVE_IDENTITY, _tds),
    _Rule("identity.attribute_flags", CheckName.ATTRIBUTES, _flags),
    _Rule("identity.xfrm", CheckName.ATTRIBUTES, _xfrm),
    _Rule("identity.misc_select", CheckName.MISC_SELECT, _misc_select),
    _Rule("identity.key_separation", CheckName.KEY_SEPARATION, _key_separation),
    _Rule("tcb.statuses", CheckName.TCB_STATUS, _statuses),
    _Rule("tcb.exceptions", CheckName.TCB_STATUS, _exceptions),
    _Rule("tcb.advisories", CheckName.ADVISORIES, _advisories),
    _Rule("tcb.min_evaluation_number", CheckName.EVALUATION_NUMBER, _evaluation_number),
    _Rule("tcb.max_endorsement_age_s", CheckName.ENDORSEMENT_AGE, _age),
    _Rule("platforms", CheckName.PLATFORM, _platforms),
    _Rule("models", CheckName.MODELS, _models),
    _Rule("releases", CheckName.REFERENCE_VALUES, _releases),
    _Rule("relaxations", None, _relaxations),
)


def _names(bits: int, names: dict[int, str]) -> str:
    found = [name for bit, name in names.items() if bits & bit == bit]
    rest = bits
    for bit in names:
        if bits & bit == bit:
            rest &= ~bit
    if rest:
        found.append(f"bits {rest:#x}")
    return ", ".join(found) or "none"
