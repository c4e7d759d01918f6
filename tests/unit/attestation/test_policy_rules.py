# SPDX-License-Identifier: Apache-2.0
"""Every rule of a policy decides by itself: for each there is evidence that this rule alone refuses."""

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from evidence_recipes import endorsement_fields, report_fields
from releases import ALICE, BOB, CAROL, KEEPER, NEXT_KEEPER, STRANGER, Keeper, as_bytes, terms

from adyton_attestation.bare_quote import appraise_quote
from adyton_attestation.checks import CheckName, checks_of, failed_check
from adyton_attestation.policy import (
    AllowedAdvisory,
    AppraisalPolicy,
    EnrolledPlatform,
    Identity,
    Relaxation,
    SignerIdentity,
    StatusException,
    TcbPolicy,
    TdIdentity,
)
from adyton_attestation.policy_words import rules
from adyton_attestation.simulation.quoting import TdReportSpec, build_tdx_quote
from adyton_attestation.times import format_time
from adyton_protocol.digests import Digest
from adyton_protocol.errors import AttestationError

CASES = json.loads((Path(__file__).parents[2] / "vectors" / "policy_rules.json").read_text())["vectors"]

PROSE = {"version", "name", "reason", "custodian", "place"}
"""Members that say something to people and decide nothing; the version is decided by the reader."""

KEYS = {
    "alice": ALICE,
    "bob": BOB,
    "carol": CAROL,
    "mallory": STRANGER,
    "keeper": KEEPER,
    "nextkeeper": NEXT_KEEPER,
}

COMPLETE = AppraisalPolicy(
    name="every rule is used",
    identity=Identity(
        mr_enclaves=frozenset({bytes(32)}),
        signers=frozenset({SignerIdentity(mr_signer=bytes(32), isv_prod_id=1, min_isv_svn=1)}),
        tds=frozenset({TdIdentity(mr_td=bytes(48), rt_mrs=(bytes(48), bytes(48), bytes(48), bytes(48)))}),
    ),
    tcb=TcbPolicy(
        exceptions=(StatusException(status="OutOfDate", reason="x", expires_s=1, grace_s=1),),
        advisories=(AllowedAdvisory(advisory_id="INTEL-SA-00615", reason="x", expires_s=1),),
    ),
    platforms=(
        EnrolledPlatform(ppid=bytes(16), platform_instance_id=bytes(16), custodian="us", place="here"),
    ),
    configurations=frozenset({Digest("sha256:" + "00" * 32)}),
    models=(("m", frozenset({Digest("sha256:" + "00" * 32)})),),
    releases=terms(),
    relaxations=(Relaxation(check=CheckName.PLATFORM, reason="x", expires_s=1),),
)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value of a policy document with the rule that it belongs to."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name in PROSE:
                continue
            if path == "models":
                yield from (("models.*[]", (name, identity)) for identity in item)
            else:
                yield from leaves(item, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item, f"{path}[]")
    else:
        yield path, value


def merged(target: Any, patch: Any) -> Any:
    """Apply a merge patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def filled_in(value: Any, lab: Any) -> Any:
    """Replace ``$now+N`` and ``$ppid``."""
    if isinstance(value, dict):
        return {name: filled_in(item, lab) for name, item in value.items()}
    if isinstance(value, list):
        return [filled_in(item, lab) for item in value]
    if value == "$ppid":
        return lab.pki.platform.ppid.hex()
    if isinstance(value, str) and value[1:] in KEYS:
        return str(KEYS[value[1:]].public)
    if isinstance(value, str) and value.startswith("$now+"):
        return format_time(lab.now_s + int(value[5:]))
    return value


def appraise(lab: Any, evidence: dict[str, Any], policy: AppraisalPolicy) -> None:
    """Appraise what a vector describes."""
    endorsements = lab.endorsements(**endorsement_fields(evidence.get("endorsements", {}), lab.now_s))
    if "tdx" in evidence:
        report = TdReportSpec(report_data=bytes(64), **report_fields(evidence["tdx"]))
        quote = build_tdx_quote(lab.pki, report)
        appraise_quote(quote, endorsements, policy, now_s=lab.now_s, root_der=lab.pki.root.der())
        return
    report = lab.report(lab.quote(**report_fields(evidence.get("quote", {}))))
    releases = None
    if "releases" in evidence:
        at_s = lab.now_s - evidence["releases"]["exported_s_ago"]
        enclave = {"mr_enclave": lab.quote()[112:144].hex()}
        kept = Keeper().with_release(7, minimum_release=1, not_before_s=at_s, enclaves=[enclave])
        releases = as_bytes(kept.export(at_s))
    lab.appraise(report, endorsements, policy, releases=releases)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_rule_refuses_alone(lab: Any, case: dict[str, Any]) -> None:
    """Two policies that differ in one rule differ in their verdict, and one check alone says so."""
    accepting = merged(lab.policy().to_json(), filled_in(case.get("policy", {}), lab))
    refusing = merged(accepting, filled_in(case["refusing"], lab))
    appraise(lab, case.get("evidence", {}), AppraisalPolicy.from_json(accepting))
    with pytest.raises(AttestationError) as caught:
        appraise(lab, case.get("evidence", {}), AppraisalPolicy.from_json(refusing))
    assert failed_check(caught.value) == case["rejected"]["check"]
    assert caught.value.code == case["rejected"]["code"]
    failed = [item.name for item in checks_of(caught.value) if item.verdict == "fail"]
    assert failed == [case["rejected"]["check"]]
    differing = set(leaves(AppraisalPolicy.from_json(accepting).to_json())) ^ set(
        leaves(AppraisalPolicy.from_json(refusing).to_json())
    )
    assert {path for path, _ in differing} == {case["rule"]}


def test_every_rule_has_a_vector() -> None:
    """Whoever adds a member to the policy has to add the evidence that it refuses."""
    found = {path for path, _ in leaves(COMPLETE.to_json())}
    assert found == {case["rule"] for case in CASES}


def test_the_complete_policy_leaves_no_member_empty() -> None:
    """The list of rules is that of a policy in which everything is used; nothing may hide in an empty list."""

    def walk(item: Any) -> None:
        for member in dataclasses.fields(item):
            value = getattr(item, member.name)
            assert value is not None
            if isinstance(value, tuple | frozenset):
                assert value, member.name
                for part in value:
                    if dataclasses.is_dataclass(part):
                        walk(part)
            elif dataclasses.is_dataclass(value):
                walk(value)

    walk(COMPLETE)


def test_every_rule_is_explained() -> None:
    """``adyton policy explain`` speaks about every member, and about none that there is not."""
    for path, _ in leaves(COMPLETE.to_json()):
        named = {"identity.attribute_mask": "identity.attribute_flags", "identity.xfrm_mask": "identity.xfrm"}
        assert any(named.get(path, path).startswith(rule) for rule in rules()), path
    for rule in rules():
        assert any(path.startswith(rule) for path, _ in leaves(COMPLETE.to_json())), rule


def test_the_page_has_every_rule_with_its_check() -> None:
    """docs/policy.md lists each rule, with the check that its vectors name."""
    page = (Path(__file__).parents[3] / "docs" / "policy.md").read_text()
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `")]
    listed = {rule: row[4] for row in rows if len(row) == 6 for rule in re.findall(r"`([^`]+)`", row[1])}
    assert set(listed) == {case["rule"] for case in CASES}
    for case in CASES:
        check = case["rejected"]["check"]
        assert check in listed[case["rule"]] or "the check named" in listed[case["rule"]], case["rule"]
