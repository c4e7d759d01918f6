# SPDX-License-Identifier: Apache-2.0
"""Policy documents: strict by default, closed against the unknown, and fully covered by their digest."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton_attestation.checks import CheckName
from adyton_attestation.policy import RAW_QUOTE_POLICY, RELAXABLE, AppraisalPolicy, Relaxation
from adyton_protocol.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
MINIMAL: dict[str, Any] = {"version": 1, "name": "minimal"}


def read(**changes: Any) -> AppraisalPolicy:
    """Read a minimal document with changes."""
    return AppraisalPolicy.from_json(json.dumps(MINIMAL | changes))


def test_a_minimal_document_is_the_strictest_policy() -> None:
    """What is left out takes its strict value: nothing named, nothing relaxed, two statuses, no grace."""
    policy = read()
    assert policy == AppraisalPolicy(name="minimal")
    assert not policy.identity.mr_enclaves | policy.identity.signers | policy.identity.tds
    assert (policy.platforms, policy.configurations, policy.models, policy.relaxations) == (
        (),
        frozenset(),
        (),
        (),
    )
    assert policy.tcb.statuses == {"UpToDate", "SWHardeningNeeded"}
    assert (policy.tcb.advisories, policy.tcb.platform_grace_s) == ((), 0)


def test_documents_survive_a_round_trip(lab: Any) -> None:
    """Reading what was written gives the same policy and the same digest."""
    for policy in (RAW_QUOTE_POLICY, lab.policy(), read()):
        again = AppraisalPolicy.from_json(json.dumps(policy.to_json()))
        assert again == policy
        assert again.digest() == policy.digest()


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"version": None},
        {"name": ""},
        {"unknown": 1},
        {"identity": {"mr_enclaves": []}},
        {"identity": {"mr_enclave": ["00"]}},
        {"identity": {"mr_enclave": ["AB" * 32]}},
        {"identity": {"mr_enclave": None}},
        {"identity": {"mr_signer": [{"mr_signer": "00" * 32}]}},
        {"identity": {"mr_signer": [{"mr_signer": "00" * 32, "isv_prod_id": 65536, "min_isv_svn": 0}]}},
        {"identity": {"tdx": [{"mr_td": "00" * 48, "rt_mr": ["00" * 48] * 3}]}},
        {"identity": {"attribute_flags": "5"}},
        {"identity": {"attribute_mask": "fffffffffffffffd"}},
        {"identity": {"attribute_flags": "0000000000000007"}},
        {"identity": {"attribute_flags": "0000000000000045"}},
        {"identity": {"key_separation": {"config": ""}}},
        {"identity": {"misc_select": -1}},
        {"tcb": {"statuses": ["Revoked"]}},
        {"tcb": {"statuses": ["uptodate"]}},
        {"tcb": {"statuses": ["OutOfDate"]}},
        {"tcb": {"platform_grace_s": 86400}},
        {"tcb": {"statuses": ["OutOfDate"], "platform_grace_s": 91 * 86400}},
        {"tcb": {"max_endorsement_age_s": 0}},
        {"tcb": {"max_endorsement_age_s": 400 * 86400}},
        {"tcb": {"min_evaluation_number": "20"}},
        {"tcb": {"min_evaluation_number": True}},
        {"tcb": {"advisories": [{"id": "INTEL-SA-00615", "expires": "2027-01-01T00:00:00Z"}]}},
        {"tcb": {"advisories": [{"id": "INTEL-SA-00615", "reason": " ", "expires": "2027-01-01T00:00:00Z"}]}},
        {"tcb": {"advisories": [{"id": "INTEL-SA-00615", "reason": "x", "expires": "2027-01-01T00:00:00"}]}},
        {"tcb": {"advisories": [{"id": "INTEL-SA-00615", "reason": "x", "expires": "soon"}]}},
        {"tcb": {"advisories": [{"id": "INTEL-SA-00615", "reason": "x"}]}},
        {"max_key_life_s": 0},
        {"max_key_life_s": 8 * 86400},
        {"platforms": [{"ppid": "00" * 16}]},
        {"platforms": [{"ppid": "00" * 15, "custodian": "us", "place": "here"}]},
        {"configurations": ["sha256:00"]},
        {"configurations": "sha256:" + "00" * 32},
        {"models": []},
        {"models": {"m": "sha256:" + "00" * 32}},
        {"relaxations": [{"check": "debug-disabled", "reason": "x", "expires": "2027-01-01T00:00:00Z"}]},
        {"relaxations": [{"check": "no-such-check", "reason": "x", "expires": "2027-01-01T00:00:00Z"}]},
        {"relaxations": [{"check": "platform", "reason": "", "expires": "2027-01-01T00:00:00Z"}]},
        {"relaxations": [{"check": "platform", "reason": "x"}]},
        {"relaxations": [{"check": "platform", "reason": "x", "expires": "2027-01-01T00:00:00Z"}] * 2},
    ],
    ids=json.dumps,
)
def test_documents_that_do_not_mean_what_they_say_are_refused(changes: dict[str, Any]) -> None:
    """Unknown, missing, contradictory or out of range: an error of the operator, before anything is appraised."""
    with pytest.raises(ConfigError):
        read(**changes)


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{}", '{"version":1}', '{"version":1,"name":"a","name":"b"}', "{"]
)
def test_what_is_no_policy_document_is_refused(text: str) -> None:
    """Duplicate members and missing required ones are errors too."""
    with pytest.raises(ConfigError):
        AppraisalPolicy.from_json(text)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_nothing_but_config_error(data: bytes) -> None:
    """A damaged policy file is the operator's error, never a crash."""
    with pytest.raises(ConfigError):
        AppraisalPolicy.from_json(data)


def test_exactly_the_comparisons_with_reference_values_can_be_relaxed() -> None:
    """Signatures, revocation, status, debug, freshness and binding are beyond any policy."""
    assert {name.value for name in RELAXABLE} == {
        "evaluation-number",
        "platform",
        "enclave-identity",
        "misc-select",
        "key-separation",
        "configuration",
        "models",
    }
    for check in set(CheckName) - RELAXABLE:
        relaxation = Relaxation(check=check, reason="please", expires_s=2**31)
        with pytest.raises(ConfigError):
            AppraisalPolicy(name="x", relaxations=(relaxation,))


def test_every_part_of_a_document_is_in_its_digest(lab: Any) -> None:
    """Two policies that differ anywhere have different digests, so that a result names its rules exactly."""
    document = lab.policy().to_json()
    digests = {lab.policy().digest()}
    edits = 0

    def edit(value: Any) -> Any:
        match value:
            case bool():
                return not value
            case int():
                return value ^ 1
            case str() if value[:2] == "20":
                return "2031" + value[4:]
            case str():
                return value[:-1] + ("0" if value[-1] != "0" else "1")
        raise TypeError(value)

    def walk(container: Any) -> None:
        nonlocal edits
        for key in list(container) if isinstance(container, dict) else range(len(container)):
            value = container[key]
            if isinstance(value, dict | list):
                walk(value)
                continue
            container[key] = edit(value)
            try:
                digests.add(AppraisalPolicy.from_json(json.dumps(document)).digest())
                edits += 1
            except ConfigError:
                pass
            container[key] = value

    walk(document)
    assert edits > 12
    assert len(digests) == edits + 1


def test_shipped_policies_are_readable_and_complete() -> None:
    """The documents in manifests/policies are policies, say every default, and relax nothing silently."""
    paths = sorted((ROOT / "manifests" / "policies").glob("*.json"))
    assert paths
    for path in paths:
        document = json.loads(path.read_text())
        policy = AppraisalPolicy.from_json(path.read_text())
        assert policy.to_json() == document, path.name
        assert "SWHardeningNeeded" in policy.tcb.statuses
        assert {item.advisory_id for item in policy.tcb.advisories} == {"INTEL-SA-00615", "INTEL-SA-00657"}
