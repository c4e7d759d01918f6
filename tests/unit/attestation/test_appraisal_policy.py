# SPDX-License-Identifier: Apache-2.0
"""Policy documents: strict by default, closed against the unknown, and fully covered by their digest."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton_attestation.checks import CheckName
from adyton_attestation.policy import (
    NO_EXPIRY_S,
    RAW_QUOTE_POLICY,
    RELAXABLE,
    AppraisalPolicy,
    EnrolledPlatform,
    Identity,
    Relaxation,
    StatusException,
    TcbPolicy,
)
from adyton_attestation.policy_starter import starter_policy
from adyton_protocol.digests import Digest
from adyton_protocol.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
MINIMAL: dict[str, Any] = {"version": 2, "name": "minimal"}
EXCEPTION: dict[str, Any] = {
    "status": "ConfigurationNeeded",
    "reason": "x",
    "expires": "2027-01-01T00:00:00Z",
}
ADVISORY: dict[str, Any] = {"id": "INTEL-SA-00615", "reason": "x", "expires": "2027-01-01T00:00:00Z"}
PLATFORM: dict[str, Any] = {"ppid": "00" * 16, "custodian": "us", "place": "here"}


def read(**changes: Any) -> AppraisalPolicy:
    """Read a minimal document with changes."""
    return AppraisalPolicy.from_json(MINIMAL | changes)


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
    assert (policy.tcb.advisories, policy.tcb.exceptions) == ((), ())
    assert policy.identity.xfrm_mask == 2**64 - 1


def test_documents_survive_a_round_trip(lab: Any) -> None:
    """Reading what was written gives the same policy and the same digest."""
    for policy in (RAW_QUOTE_POLICY, lab.policy(), read()):
        for again in (
            AppraisalPolicy.from_toml(policy.to_toml()),
            AppraisalPolicy.from_json(json.loads(json.dumps(policy.to_json()))),
        ):
            assert again == policy
            assert again.digest() == policy.digest()


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 1},
        {"version": 3},
        {"version": 2.0},
        {"version": True},
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
        {"identity": {"attribute_mask": "ffffffffffffffef"}},
        {"identity": {"xfrm": "e7"}},
        {"identity": {"xfrm_mask": "0000000000000003"}},
        {"identity": {"key_separation": {"config": ""}}},
        {"identity": {"misc_select": -1}},
        {"tcb": {"statuses": ["Revoked"]}},
        {"tcb": {"statuses": ["uptodate"]}},
        {"tcb": {"statuses": ["OutOfDate"]}},
        {"tcb": {"statuses": ["ConfigurationNeeded"]}},
        {"tcb": {"platform_grace_s": 86400}},
        {"tcb": {"exceptions": [EXCEPTION | {"status": "UpToDate"}]}},
        {"tcb": {"exceptions": [EXCEPTION | {"status": "Revoked"}]}},
        {"tcb": {"exceptions": [EXCEPTION | {"status": "OutOfDate"}]}},
        {"tcb": {"exceptions": [EXCEPTION | {"status": "OutOfDate", "grace_s": 91 * 86400}]}},
        {"tcb": {"exceptions": [EXCEPTION | {"grace_s": 86400}]}},
        {"tcb": {"exceptions": [EXCEPTION | {"reason": " "}]}},
        {"tcb": {"exceptions": [EXCEPTION | {"expires": "2027-01-01"}]}},
        {"tcb": {"exceptions": [EXCEPTION] * 2}},
        {"tcb": {"exceptions": [{"status": "ConfigurationNeeded", "reason": "x"}]}},
        {"tcb": {"advisories": [ADVISORY] * 2}},
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
        {"platforms": [PLATFORM | {"ppid": "00" * 15}]},
        {"platforms": [PLATFORM | {"platform_instance_id": "00" * 15}]},
        {"platforms": [PLATFORM | {"platform_instance_id": None}]},
        {"platforms": [PLATFORM | {"custodian": " "}]},
        {"platforms": [PLATFORM | {"place": ""}]},
        {"platforms": [PLATFORM, PLATFORM | {"custodian": "them"}]},
        {"platforms": [PLATFORM, PLATFORM | {"platform_instance_id": "11" * 16}]},
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
    "text",
    [
        "",
        "version = 2",
        "name = 'a'",
        "version = 2\nname = 'a'\nname = 'b'",
        "version = 2\nname = 'a'\n[tcb]\n[tcb]",
        "version = 2\nname = 'a'\nmax_key_life_s = 1.0",
        "version = 2\nname = 'a'\nmax_key_life_s = nan",
        "version = 2\nname = 'a'\n[[relaxations]]\ncheck = 'platform'\nreason = 'x'\nexpires = 2027-01-01",
        "version = 2\nname = 'a'\n[[relaxations]]\ncheck = 'platform'\nreason = 'x'\nexpires = 2027-01-01T00:00:00",
        "version = 2\nname = 'a'\ntcb = " + "[" * 5000,
        "version = 2\nname = 'a'\n" + ".".join("a" * 20000) + " = 1",
        "version = 2\nname = 'a'\n#" + "x" * 70_000,
        "name = 'a'\nversion = " + "1" * 5000,
    ],
    ids=range(13),
)
def test_what_is_no_policy_file_is_refused(text: str) -> None:
    """Duplicate members, floats, times without a zone, and what would keep the parser busy are errors too."""
    with pytest.raises(ConfigError):
        AppraisalPolicy.from_toml(text)


def test_a_policy_of_version_1_says_how_to_convert_it() -> None:
    """Who brings the JSON of before learns what to do."""
    with pytest.raises(ConfigError, match="adyton policy init"):
        AppraisalPolicy.from_toml(' {"version": 1, "name": "old"}')


def test_a_misspelt_member_is_named_with_the_likely_one() -> None:
    """An unknown member is an error that helps, and nobody's terminal is written to by it."""
    with pytest.raises(ConfigError, match=r"policy\.identity.*mr_enclaves.*did you mean mr_enclave\?"):
        read(identity={"mr_enclaves": []})
    with pytest.raises(ConfigError) as caught:
        read(**{"\x1b[2J": 1})
    assert "\x1b" not in str(caught.value)


def test_a_time_means_the_same_in_every_notation() -> None:
    """A TOML date-time, with any offset, and its text are one value, and one digest."""
    texts = (
        "2027-01-01T00:00:00Z",
        "2027-01-01T02:00:00+02:00",
        "2026-12-31 23:00:00-01:00",
        '"2027-01-01T00:00:00Z"',
    )
    head = "version = 2\nname = 'a'\n[[relaxations]]\ncheck = 'platform'\nreason = 'x'\nexpires = "
    assert len({AppraisalPolicy.from_toml(head + text).digest() for text in texts}) == 1


@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_nothing_but_config_error(data: bytes) -> None:
    """A damaged policy file is the operator's error, never a crash."""
    with pytest.raises(ConfigError):
        AppraisalPolicy.from_toml(data)


_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda text: bool(text.strip())
)
_DIGEST_SETS = st.frozensets(
    st.binary(min_size=32, max_size=32).map(lambda raw: Digest(f"sha256:{raw.hex()}")), max_size=3
)


@given(
    name=_TEXTS,
    reason=_TEXTS,
    custodian=_TEXTS,
    models=st.dictionaries(_TEXTS, _DIGEST_SETS, max_size=3),
    configurations=_DIGEST_SETS,
    expires_s=st.integers(0, NO_EXPIRY_S),
    mr_enclaves=st.frozensets(st.binary(min_size=32, max_size=32), max_size=3),
)
def test_whatever_a_policy_holds_its_file_says_it(
    name: str,
    reason: str,
    custodian: str,
    models: dict[str, frozenset[Digest]],
    configurations: frozenset[Digest],
    expires_s: int,
    mr_enclaves: frozenset[bytes],
) -> None:
    """Writing and reading is the identity, for every text, name and time; the text written is always the same."""
    policy = AppraisalPolicy(
        name=name,
        identity=Identity(mr_enclaves=mr_enclaves),
        tcb=TcbPolicy(
            exceptions=(StatusException(status="OutOfDate", reason=reason, expires_s=expires_s, grace_s=60),)
        ),
        platforms=(EnrolledPlatform(ppid=bytes(16), custodian=custodian, place=reason),),
        configurations=configurations,
        models=tuple(sorted(models.items())),
        relaxations=(Relaxation(check=CheckName.PLATFORM, reason=reason, expires_s=expires_s),),
    )
    text = policy.to_toml()
    again = AppraisalPolicy.from_toml(text)
    assert again == policy
    assert again.to_toml() == text


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
                digests.add(AppraisalPolicy.from_json(document).digest())
                edits += 1
            except ConfigError:
                pass
            container[key] = value

    walk(document)
    assert edits > 12
    assert len(digests) == edits + 1


def test_the_shipped_policy_is_the_one_that_init_writes() -> None:
    """The file in manifests/policies says every default with its comment, accepts nothing yet and relaxes nothing."""
    (path,) = (ROOT / "manifests" / "policies").glob("*.toml")
    policy = AppraisalPolicy.from_toml(path.read_bytes())
    until_s = policy.tcb.advisories[0].expires_s
    assert policy == starter_policy(advisories_until_s=until_s)
    licence, text = path.read_text().split("#\n", 1)
    assert licence == "# SPDX-License-Identifier: Apache-2.0\n"
    assert text == policy.to_toml()
    assert {item.advisory_id for item in policy.tcb.advisories} == {"INTEL-SA-00615", "INTEL-SA-00657"}
    assert (policy.platforms, policy.models, policy.relaxations, policy.tcb.exceptions) == ((), (), (), ())
    assert not policy.identity.mr_enclaves | policy.identity.signers | policy.identity.tds
