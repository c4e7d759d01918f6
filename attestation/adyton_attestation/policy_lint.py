# SPDX-License-Identifier: Apache-2.0
"""What deserves a second look in a policy that is valid: what accepts nothing, what is lax, what ends soon.

An *error* is something that nobody can have meant: a rule that no evidence passes, or a value that was never filled
in. A *warning* is a choice that somebody may have made with open eyes, and should make again now and then.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from adyton_attestation.checks import CheckName
from adyton_attestation.policy import (
    DAY_S,
    FLAGS_MASK,
    NO_EXPIRY_S,
    OUT_OF_DATE,
    AppraisalPolicy,
    Relaxation,
)
from adyton_attestation.policy_words import explain_policy
from adyton_attestation.times import format_time, in_words, roughly
from adyton_protocol.strict_json import JsonObject

Level: TypeAlias = Literal["error", "warning"]

PLACEHOLDER: Final = "FILL IN"
"""How a text begins that a tool could not know."""
SOON_S: Final = 30 * DAY_S
FAR_S: Final = 400 * DAY_S
LONG_GRACE_S: Final = 30 * DAY_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing to look at.

    Attributes:
        level: How bad.
        code: Stable name of the kind of finding.
        rule: Path of the rule in the document.
        message: What is wrong, and what to do.
    """

    level: Level
    code: str
    rule: str
    message: str

    def to_json(self) -> JsonObject:
        """Return the JSON object."""
        return {"level": self.level, "code": self.code, "rule": self.rule, "message": self.message}


def lint_policy(policy: AppraisalPolicy, now_s: int) -> tuple[Finding, ...]:
    """Return what deserves a second look at a time, errors first."""
    found = [
        *_accepts_nothing(policy, now_s),
        *_not_filled_in(policy),
        *_enrolment(policy, now_s),
        *_relaxations(policy, now_s),
        *_ends(policy, now_s),
        *_statuses(policy, now_s),
        *_laxer(policy, now_s),
    ]
    return tuple(sorted(found, key=lambda item: item.level))


def _error(code: str, rule: str, message: str) -> Finding:
    return Finding(level="error", code=code, rule=rule, message=message)


def _warning(code: str, rule: str, message: str) -> Finding:
    return Finding(level="warning", code=code, rule=rule, message=message)


def _accepts_nothing(policy: AppraisalPolicy, now_s: int) -> Iterator[Finding]:
    for statement in explain_policy(policy, now_s):
        if statement.standing == "nothing":
            yield _error(
                "accepts-nothing",
                statement.rule,
                f"{statement.text}; fill it in, or relax the check with a reason and an expiry",
            )


def _not_filled_in(policy: AppraisalPolicy) -> Iterator[Finding]:
    identity = policy.identity
    zeros = [
        ("identity.mr_enclave", any(not any(item) for item in identity.mr_enclaves)),
        ("identity.mr_signer", any(not any(item.mr_signer) for item in identity.signers)),
        ("platforms", any(not any(item.ppid) for item in policy.platforms)),
    ]
    for rule, is_zero in zeros:
        if is_zero:
            yield _error(
                "placeholder",
                rule,
                "a value of all zeros stands for nothing",
            )
    texts = [
        ("name", policy.name),
        *(("platforms", text) for item in policy.platforms for text in (item.custodian, item.place)),
        *(("relaxations", item.reason) for item in policy.relaxations),
        *(("tcb.advisories", item.reason) for item in policy.tcb.advisories),
        *(("tcb.exceptions", item.reason) for item in policy.tcb.exceptions),
    ]
    for rule, text in texts:
        if text.lstrip().upper().startswith(PLACEHOLDER):
            yield _error("placeholder", rule, f"a text still says {PLACEHOLDER}")


def _enrolment(policy: AppraisalPolicy, now_s: int) -> Iterator[Finding]:
    if policy.relaxation(CheckName.PLATFORM, now_s) is not None:
        yield _warning(
            "no-enrolment",
            "platforms",
            "no machine is enrolled: SGX does not withstand physical access, and a genuine quote may come from "
            "anybody's bench; enrol your machines by PPID with custodian and place",
        )


def _relaxations(policy: AppraisalPolicy, now_s: int) -> Iterator[Finding]:
    for item in policy.relaxations:
        if now_s < item.expires_s and item.check is not CheckName.PLATFORM:
            yield _warning(
                "relaxed",
                "relaxations",
                f"{item.check.value} is not checked: {_meaning(item)}",
            )


def _meaning(item: Relaxation) -> str:
    return {
        CheckName.ENCLAVE_IDENTITY: "any enclave of any vendor is accepted",
        CheckName.CONFIGURATION: "the operator may configure the enclave as he likes",
        CheckName.MODELS: "any model may answer under any name",
        CheckName.EVALUATION_NUMBER: "endorsements of before a TCB recovery are accepted",
        CheckName.MISC_SELECT: "the host may have faults reported to the enclave",
        CheckName.KEY_SEPARATION: "the host may set CONFIGID and the other KSS fields",
    }.get(item.check, "what it compares with does not count")


def _ends(policy: AppraisalPolicy, now_s: int) -> Iterator[Finding]:
    entries = [
        *(("relaxations", item.check.value, item.expires_s) for item in policy.relaxations),
        *(("tcb.advisories", item.advisory_id, item.expires_s) for item in policy.tcb.advisories),
        *(("tcb.exceptions", item.status, item.expires_s) for item in policy.tcb.exceptions),
    ]
    for rule, name, expires_s in entries:
        if expires_s <= now_s:
            yield _warning(
                "expired",
                rule,
                f"the entry for {name} ended at {format_time(expires_s)} and does nothing; remove it, "
                "or look at it again",
            )
        elif expires_s - now_s < SOON_S:
            yield _warning(
                "expires-soon",
                rule,
                f"the entry for {name} ends in {roughly(expires_s - now_s)}, at {format_time(expires_s)}; what "
                "it allows is refused from then on",
            )
        elif expires_s == NO_EXPIRY_S or expires_s - now_s > FAR_S:
            yield _warning(
                "expires-late",
                rule,
                f"the entry for {name} ends at {format_time(expires_s)}; nobody will look at it before, so "
                "choose a time within a year",
            )


def _statuses(policy: AppraisalPolicy, now_s: int) -> Iterator[Finding]:
    for item in policy.tcb.exceptions:
        if now_s >= item.expires_s:
            continue
        if item.status not in OUT_OF_DATE:
            yield _warning(
                "weak-status",
                "tcb.exceptions",
                f"platforms of status {item.status} are accepted; ask the operator when that ends",
            )
        elif item.grace_s > LONG_GRACE_S:
            yield _warning(
                "long-grace",
                "tcb.exceptions",
                f"a platform may be out of date for {in_words(item.grace_s)}; known attacks take less. 30 days "
                "are enough for a planned update",
            )
        else:
            yield _warning(
                "grace",
                "tcb.exceptions",
                f"platforms of status {item.status} are accepted for {in_words(item.grace_s)}",
            )
    hardening = "SWHardeningNeeded" in policy.tcb.statuses
    if hardening and not policy.allowed_advisories(now_s):
        yield _warning(
            "no-advisory-allowed",
            "tcb.advisories",
            "SWHardeningNeeded always comes with an advisory, and none is allowed; such platforms, which are "
            "most servers with SGX, are refused",
        )


def _laxer(policy: AppraisalPolicy, now_s: int) -> Iterator[Finding]:
    advice = {
        "max_key_life_s": "epochs last 15 minutes; an hour is ample",
        "identity.xfrm": "state the processor state exactly, as `adyton verify` shows it",
        "identity.misc_select": "manifests of this project leave it off",
        "tcb.min_evaluation_number": "older endorsements predate a TCB recovery",
        "releases": "a withdrawn release counts until the log is asked again",
        "tcb.max_endorsement_age_s": "a revocation counts only when endorsements are fetched again",
    }
    for statement in explain_policy(policy, now_s):
        if statement.standing == "laxer" and statement.rule in advice:
            yield _warning(
                "laxer-than-default",
                statement.rule,
                f"{statement.text}; {advice[statement.rule]}",
            )
    if FLAGS_MASK & ~policy.identity.attribute_mask:
        yield _warning(
            "laxer-than-default",
            "identity.attribute_flags",
            "the mask leaves out flags that the default looks at",
        )
    if policy.releases is not None and policy.releases.threshold == 1:
        yield _warning(
            "one-signer",
            "releases",
            "one signer alone decides which enclaves are accepted; ask for two",
        )
    if any(item.min_isv_svn == 0 for item in policy.identity.signers):
        yield _warning(
            "no-minimum-version",
            "identity.mr_signer",
            "every version of the product is accepted, those with flaws that were mended, too; raise min_isv_svn",
        )
