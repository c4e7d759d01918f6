# SPDX-License-Identifier: Apache-2.0
"""What a policy says of itself in words, and what is found in it on a second look."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from releases import terms

from adyton_attestation.checks import CheckName
from adyton_attestation.policy import (
    DAY_S,
    NO_EXPIRY_S,
    RELAXABLE,
    AllowedAdvisory,
    AppraisalPolicy,
    EnrolledPlatform,
    Identity,
    KeySeparation,
    Relaxation,
    SignerIdentity,
    StatusException,
    TcbPolicy,
)
from adyton_attestation.policy_lint import Finding, lint_policy
from adyton_attestation.policy_starter import first_use_policy, policy_as_seen, starter_policy
from adyton_attestation.policy_words import explain_policy
from adyton_attestation.times import format_time, in_words, roughly

NOW_S = 1_790_000_000
ALLOWED = AllowedAdvisory(advisory_id="INTEL-SA-00615", reason="mitigated", expires_s=NOW_S + 200 * DAY_S)
SOUND_TCB = TcbPolicy(advisories=(ALLOWED,))


def said(policy: AppraisalPolicy, rule: str, now_s: int = NOW_S) -> dict[str, str]:
    """Return what is said about one rule, by standing."""
    texts: dict[str, str] = {}
    for item in explain_policy(policy, now_s):
        if item.rule == rule:
            texts[item.standing] = f"{texts.get(item.standing, '')} {item.text}".strip()
    return texts


def found(policy: AppraisalPolicy, now_s: int = NOW_S) -> set[tuple[str, str, str]]:
    """Return level, code and rule of each finding."""
    return {(item.level, item.code, item.rule) for item in lint_policy(policy, now_s)}


def sound(lab: Any, **changes: Any) -> AppraisalPolicy:
    """Return a policy of a deployment that did everything right, with changes."""
    return dataclasses.replace(lab.policy(tcb=SOUND_TCB), **changes)


def with_exception(status: Any, grace_s: int = 0, for_s: int = 60 * DAY_S) -> TcbPolicy:
    """Return a TCB policy with one exception."""
    item = StatusException(status=status, reason="planned", expires_s=NOW_S + for_s, grace_s=grace_s)
    return dataclasses.replace(SOUND_TCB, exceptions=(item,))


def test_a_sound_policy_gives_no_findings(lab: Any) -> None:
    """Silence means that there is nothing to look at."""
    assert found(sound(lab)) == set()
    assert {item.standing for item in explain_policy(sound(lab), NOW_S)} == {"demanded"}


def test_the_starter_says_what_has_to_be_filled_in() -> None:
    """A policy that accepts nothing is an error for each part that is empty, and for nothing else."""
    starter = starter_policy(advisories_until_s=NOW_S + 365 * DAY_S)
    assert found(starter) == {
        ("error", "accepts-nothing", rule)
        for rule in ("identity.mr_enclave", "platforms", "configurations", "models")
    }


def relaxed(check: CheckName, for_s: int = 60 * DAY_S) -> tuple[Relaxation, ...]:
    """Return one relaxation."""
    return (Relaxation(check=check, reason="under way", expires_s=NOW_S + for_s),)


CASES: dict[str, tuple[Callable[[Any], AppraisalPolicy], tuple[str, str, str]]] = {
    "no status": (
        lambda lab: sound(lab, tcb=TcbPolicy(statuses=frozenset())),
        ("error", "accepts-nothing", "tcb.statuses"),
    ),
    "a model without an identity": (
        lambda lab: sound(lab, models=(*lab.policy().models, ("x", frozenset()))),
        ("error", "accepts-nothing", "models"),
    ),
    "a measurement of zeros": (
        lambda lab: sound(lab, identity=Identity(mr_enclaves=frozenset({bytes(32)}))),
        ("error", "placeholder", "identity.mr_enclave"),
    ),
    "a signer of zeros": (
        lambda lab: sound(
            lab,
            identity=Identity(
                signers=frozenset({SignerIdentity(mr_signer=bytes(32), isv_prod_id=1, min_isv_svn=1)})
            ),
        ),
        ("error", "placeholder", "identity.mr_signer"),
    ),
    "a machine of zeros": (
        lambda lab: sound(lab, platforms=(EnrolledPlatform(ppid=bytes(16), custodian="us", place="here"),)),
        ("error", "placeholder", "platforms"),
    ),
    "a custodian to be filled in": (
        lambda lab: sound(
            lab, platforms=(EnrolledPlatform(ppid=b"\x01" * 16, custodian="fill in: who", place="here"),)
        ),
        ("error", "placeholder", "platforms"),
    ),
    "no enrolment": (
        lambda lab: sound(lab, platforms=(), relaxations=relaxed(CheckName.PLATFORM)),
        ("warning", "no-enrolment", "platforms"),
    ),
    "any enclave": (
        lambda lab: sound(lab, relaxations=relaxed(CheckName.ENCLAVE_IDENTITY)),
        ("warning", "relaxed", "relaxations"),
    ),
    "an advisory whose entry ends soon": (
        lambda lab: sound(
            lab, tcb=TcbPolicy(advisories=(dataclasses.replace(ALLOWED, expires_s=NOW_S + 29 * DAY_S),))
        ),
        ("warning", "expires-soon", "tcb.advisories"),
    ),
    "a relaxation that has ended": (
        lambda lab: sound(lab, relaxations=relaxed(CheckName.MODELS, 0)),
        ("warning", "expired", "relaxations"),
    ),
    "an advisory without an end": (
        lambda lab: sound(
            lab, tcb=TcbPolicy(advisories=(dataclasses.replace(ALLOWED, expires_s=NO_EXPIRY_S),))
        ),
        ("warning", "expires-late", "tcb.advisories"),
    ),
    "no advisory allowed": (
        lambda lab: sound(lab, tcb=TcbPolicy()),
        ("warning", "no-advisory-allowed", "tcb.advisories"),
    ),
    "a weak status": (
        lambda lab: sound(lab, tcb=with_exception("ConfigurationNeeded")),
        ("warning", "weak-status", "tcb.exceptions"),
    ),
    "a grace": (
        lambda lab: sound(lab, tcb=with_exception("OutOfDate", 30 * DAY_S)),
        ("warning", "grace", "tcb.exceptions"),
    ),
    "a long grace": (
        lambda lab: sound(lab, tcb=with_exception("OutOfDate", 31 * DAY_S)),
        ("warning", "long-grace", "tcb.exceptions"),
    ),
    "old evaluation data": (
        lambda lab: sound(lab, tcb=dataclasses.replace(SOUND_TCB, min_evaluation_number=19)),
        ("warning", "laxer-than-default", "tcb.min_evaluation_number"),
    ),
    "old endorsements": (
        lambda lab: sound(lab, tcb=dataclasses.replace(SOUND_TCB, max_endorsement_age_s=15 * DAY_S)),
        ("warning", "laxer-than-default", "tcb.max_endorsement_age_s"),
    ),
    "long-lived keys": (
        lambda lab: sound(lab, max_key_life_s=2 * DAY_S),
        ("warning", "laxer-than-default", "max_key_life_s"),
    ),
    "any AVX-512": (
        lambda lab: sound(
            lab, identity=dataclasses.replace(lab.policy().identity, xfrm=0x07, xfrm_mask=2**64 - 1 - 0xE0)
        ),
        ("warning", "laxer-than-default", "identity.xfrm"),
    ),
    "faults reported": (
        lambda lab: sound(lab, identity=dataclasses.replace(lab.policy().identity, misc_select=1)),
        ("warning", "laxer-than-default", "identity.misc_select"),
    ),
    "flags not looked at": (
        lambda lab: sound(lab, identity=dataclasses.replace(lab.policy().identity, attribute_mask=0x37)),
        ("warning", "laxer-than-default", "identity.attribute_flags"),
    ),
    "one signer of releases": (
        lambda lab: sound(lab, identity=Identity(), releases=terms(threshold=1)),
        ("warning", "one-signer", "releases"),
    ),
    "an old log": (
        lambda lab: sound(lab, configurations=frozenset(), models=(), releases=terms(max_age_s=32 * DAY_S)),
        ("warning", "laxer-than-default", "releases"),
    ),
    "every version of a signer": (
        lambda lab: sound(
            lab,
            identity=Identity(
                signers=frozenset({SignerIdentity(mr_signer=b"\x01" * 32, isv_prod_id=1, min_isv_svn=0)})
            ),
        ),
        ("warning", "no-minimum-version", "identity.mr_signer"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_finding_is_found_alone(lab: Any, name: str) -> None:
    """One thing that deserves a look gives one finding of its kind."""
    make, expected = CASES[name]
    assert found(make(lab)) == {expected}


def test_errors_come_before_warnings() -> None:
    """Who reads only the first line reads the worst."""
    policy = dataclasses.replace(starter_policy(advisories_until_s=NOW_S + DAY_S), max_key_life_s=2 * DAY_S)
    levels = [item.level for item in lint_policy(policy, NOW_S)]
    assert levels == sorted(levels)
    assert set(levels) == {"error", "warning"}
    assert isinstance(lint_policy(policy, NOW_S)[0], Finding)


def test_a_relaxed_rule_says_until_when_and_why_and_comes_back(lab: Any) -> None:
    """While a check is relaxed its rules say so instead of what they would demand; afterwards they demand again."""
    policy = sound(lab, relaxations=relaxed(CheckName.PLATFORM, 10 * DAY_S))
    until_s = NOW_S + 10 * DAY_S
    text = said(policy, "platforms")["relaxed"]
    assert text == f"NOT CHECKED until {format_time(until_s)}, in 10 days: under way"
    assert set(said(policy, "platforms", until_s)) == {"demanded"}
    assert "any more since" in said(policy, "relaxations", until_s)["demanded"]


def test_the_words_name_the_values(lab: Any) -> None:
    """Whoever reads the words learns each value that decides."""
    signer = SignerIdentity(mr_signer=b"\x51" * 32, isv_prod_id=7, min_isv_svn=3)
    policy = sound(
        lab,
        identity=Identity(
            signers=frozenset({signer}),
            xfrm=0x207,
            xfrm_mask=2**64 - 1 - 0x1_00E0,
            misc_select=2,
            key_separation=KeySeparation(config_id=b"\xc1" * 64, config_svn=5),
        ),
        tcb=with_exception("OutOfDate", 30 * DAY_S),
    )
    text = {
        rule: " ".join(said(policy, rule).values())
        for rule in {item.rule for item in explain_policy(policy, NOW_S)}
    }
    assert "51" * 32 in text["identity.mr_signer"]
    assert "product 7, from security version 3 on" in text["identity.mr_signer"]
    assert text["identity.xfrm"] == (
        "the enclave uses x87, SSE, AVX, PKRU; the host may choose AVX-512, bits 0x10000"
    )
    assert text["identity.misc_select"] == "MISCSELECT is 0x2"
    assert "c1" * 64 in text["identity.key_separation"]
    assert "CONFIGSVN at least 5" in text["identity.key_separation"]
    assert "at most 30 days old and no advisory stands against it: planned" in text["tcb.exceptions"]
    assert lab.pki.platform.ppid.hex() in text["platforms"]
    assert "kept by us, at bench" in text["platforms"]
    assert "abacus" in text["models"]


def test_a_first_look_relaxes_only_comparisons_and_only_for_a_minute(lab: Any) -> None:
    """What is taken on first use is which enclave, never whether it is one; a minute later nothing is accepted."""
    look = first_use_policy(advisories_until_s=lab.now_s + DAY_S, now_s=lab.now_s)
    seen = lab.appraise(policy=look)
    assert {CheckName(item.name) for item in seen.checks if item.verdict == "skip"} == RELAXABLE
    lab.refusal(policy=look, now_s=lab.now_s + 60)
    lab.refusal(lab.report(lab.quote(report_data=bytes(64))), policy=look)
    lab.refusal(endorsements=lab.endorsements(tcb_status="OutOfDate"), policy=look)


def test_what_was_seen_becomes_a_policy_that_accepts_it_and_nothing_else(lab: Any) -> None:
    """The values are those of the evidence, complete and exact; who keeps the machine is left to be said."""
    report = lab.report(lab.quote(misc_select=1, config_id=b"\x01" * 64, config_svn=2))
    look = first_use_policy(advisories_until_s=lab.now_s + DAY_S, now_s=lab.now_s)
    seen = lab.appraise(report, policy=look)
    policy = policy_as_seen(
        seen, name="seen", custodian=None, place="hall 2", advisories_until_s=lab.now_s + 365 * DAY_S
    )
    result = lab.appraise(report, policy=policy)
    assert {item.verdict for item in result.checks} == {"pass"}
    for change in (
        {"mr_enclave": bytes(32)},
        {"misc_select": 0},
        {"config_svn": 1},
        {"config_id": bytes(64)},
    ):
        fields = {"misc_select": 1, "config_id": b"\x01" * 64, "config_svn": 2} | change
        lab.refusal(lab.report(lab.quote(**fields)), policy=policy)
    assert ("error", "placeholder", "platforms") in found(policy, lab.now_s)
    named = dataclasses.replace(policy.platforms[0], custodian="Ann")
    assert found(dataclasses.replace(policy, platforms=(named,)), lab.now_s) == {
        ("warning", "laxer-than-default", "identity.misc_select")
    }


@pytest.mark.parametrize(
    ("seconds", "exact", "rough"),
    [
        (0, "0 days", "0 seconds"),
        (1, "1 second", "1 second"),
        (3599, "3599 seconds", "59 minutes"),
        (3600, "1 hour", "1 hour"),
        (5400, "90 minutes", "1 hour"),
        (86_400, "1 day", "1 day"),
        (14 * DAY_S, "14 days", "14 days"),
    ],
)
def test_durations_in_words(seconds: int, exact: str, rough: str) -> None:
    """A limit is said exactly, a remaining time roughly."""
    assert in_words(seconds) == exact
    assert roughly(seconds) == rough
