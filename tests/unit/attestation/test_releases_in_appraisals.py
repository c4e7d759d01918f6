# SPDX-License-Identifier: Apache-2.0
"""Releases in an appraisal: an enclave is held to one release as a whole, and the verdict says to which."""

import dataclasses
from typing import Any

import pytest
from releases import ALICE, DAY_S, ORIGIN, START_S, STRANGER, Keeper, as_bytes, terms

from adyton_attestation.checks import CheckName, checks_of, failed_check
from adyton_attestation.marks import NO_MARKS, HighWaterMarks
from adyton_attestation.policy import AppraisalPolicy, Identity, KeySeparation, Relaxation
from adyton_attestation.release_memory import ReleaseMark
from adyton_protocol.errors import ReferenceValueError, ReleaseLogForked, ReleaseRolledBack

# The laboratory's.
NOW_S = START_S
MR_ENCLAVE = bytes(range(32))
CONFIGURATION = "sha256:" + "c0" * 32
MODEL_NAME, MODEL_IDENTITY = "abacus", "sha256:" + "ab" * 32

OTHER = "sha256:" + "0d" * 32
ENCLAVE: dict[str, Any] = {
    "mr_enclave": MR_ENCLAVE.hex(),
    "configurations": [CONFIGURATION],
    "models": {MODEL_NAME: [MODEL_IDENTITY]},
}


def release(kept: Keeper, number: int, *enclaves: dict[str, Any], **changes: Any) -> Keeper:
    """Append a release that is in force at the laboratory's time."""
    fields = {
        "not_before_s": NOW_S - DAY_S,
        "not_after_s": NOW_S + 100 * DAY_S,
        "minimum_release": 1,
        "enclaves": list(enclaves),
    }
    return kept.with_release(number, **fields | changes)


def file(kept: Keeper, now_s: int = NOW_S) -> bytes:
    """The release file."""
    return as_bytes(kept.export(now_s))


def policy(lab: Any, **changes: Any) -> AppraisalPolicy:
    """A policy that names signers of releases, and nothing of its own."""
    return lab.policy(
        **{"identity": Identity(), "configurations": frozenset(), "models": (), "releases": terms()} | changes
    )


KEPT = release(Keeper(), 7, ENCLAVE)


def details(checks: Any) -> dict[str, str]:
    """What was found, by check."""
    return {check.name: f"{check.verdict}: {check.detail}" for check in checks}


def test_a_release_stands_in_for_lists(lab: Any) -> None:
    """The policy names signers alone; the verdict says which release named what, and what to remember."""
    result = lab.appraise(policy=policy(lab), releases=file(KEPT))
    found = details(result.checks)
    for check in (CheckName.ENCLAVE_IDENTITY, CheckName.CONFIGURATION, CheckName.MODELS):
        assert found[check].startswith("pass")
        assert "of release 7 (0.7.0)" in found[check]
    assert not [line for line in found.values() if line.startswith("skip")]
    assert result.to_json()["releases"] == [{"product": "adyton", "release": 7, "name": "0.7.0"}]
    mark = result.marks.release_mark(ORIGIN)
    assert (mark.floor, mark.size) == (1, 1)
    assert HighWaterMarks.from_json(as_bytes(result.marks.to_json())) == result.marks


def test_without_signers_of_releases_no_file_counts(lab: Any) -> None:
    """A policy of lists stays one; the three checks say so."""
    nothing = lab.policy(identity=Identity())
    error = lab.refusal(policy=nothing, releases=file(KEPT))
    assert failed_check(error) == CheckName.ENCLAVE_IDENTITY
    found = details(lab.appraise(releases=file(KEPT)).checks)
    for check in (CheckName.RELEASE_SIGNATURES, CheckName.RELEASE_LOG, CheckName.REFERENCE_VALUES):
        assert found[check] == "pass: the policy asks for none: it names its reference values itself"


def test_lists_and_releases_add_up(lab: Any) -> None:
    """An enclave of the policy's own needs a release file still, because the policy asks for one."""
    own = lab.policy(releases=terms())
    empty = file(release(Keeper(), 7))
    found = lab.appraise(policy=own, releases=empty)
    assert found.releases == ()
    assert "on the allow-list" in details(found.checks)[CheckName.ENCLAVE_IDENTITY]
    assert failed_check(lab.refusal(policy=own)) == CheckName.RELEASE_SIGNATURES


def test_old_and_new_overlap_until_the_old_is_withdrawn(lab: Any) -> None:
    """The same enclave passes beside its successor, and not once a statement in force has withdrawn it."""
    successor = ENCLAVE | {"mr_enclave": "77" * 32}
    during = release(KEPT, 8, successor)
    assert [item.release for item in lab.appraise(policy=policy(lab), releases=file(during)).releases] == [7]
    new = lab.report(lab.quote(mr_enclave=bytes.fromhex("77" * 32)))
    assert [
        item.release for item in lab.appraise(new, policy=policy(lab), releases=file(during)).releases
    ] == [8]
    after = release(KEPT, 8, successor, minimum_release=8)
    error = lab.refusal(policy=policy(lab), releases=file(after))
    assert failed_check(error) == CheckName.ENCLAVE_IDENTITY
    announced = release(KEPT, 8, successor, minimum_release=8, not_before_s=NOW_S + 1)
    lab.appraise(policy=policy(lab), releases=file(announced))


@pytest.mark.parametrize("wrong", ["configurations", "models"])
def test_releases_do_not_mix(lab: Any, wrong: str) -> None:
    """The measurement of one release with the configuration or the models of another is nobody's."""
    other = {"configurations": [OTHER], "models": {MODEL_NAME: [OTHER]}}[wrong]
    mixed = release(release(Keeper(), 6, ENCLAVE | {wrong: other}), 7, ENCLAVE | {"mr_enclave": "77" * 32})
    error = lab.refusal(policy=policy(lab), releases=file(mixed))
    assert failed_check(error) == {"configurations": "configuration", "models": "models"}[wrong]
    two = release(Keeper(), 6, ENCLAVE | {wrong: other}, ENCLAVE)
    lab.appraise(policy=policy(lab), releases=file(two))


def test_nor_do_a_release_and_the_policys_lists(lab: Any) -> None:
    """What a release states is not widened by the policy; what it leaves out is the policy's."""
    bare = {"mr_enclave": MR_ENCLAVE.hex()}
    lists = {
        "configurations": frozenset({CONFIGURATION}),
        "models": ((MODEL_NAME, frozenset({MODEL_IDENTITY})),),
    }
    result = lab.appraise(policy=policy(lab, **lists), releases=file(release(Keeper(), 7, bare)))
    assert "on the allow-list" in details(result.checks)[CheckName.MODELS]
    stated = ENCLAVE | {"models": {MODEL_NAME: [OTHER]}}
    error = lab.refusal(policy=policy(lab, **lists), releases=file(release(Keeper(), 7, stated)))
    assert failed_check(error) == CheckName.MODELS
    error = lab.refusal(policy=policy(lab), releases=file(release(Keeper(), 7, bare)))
    assert failed_check(error) == CheckName.CONFIGURATION


def test_a_release_may_name_a_signer_and_kss_fields(lab: Any) -> None:
    """With exact product, lowest security version, and its own CONFIGID instead of the policy's."""
    fields = {"mr_signer": b"\x05" * 32, "isv_prod_id": 3, "isv_svn": 4, "config_id": b"\x09" * 64}
    report = lab.report(lab.quote(**fields))
    kss = {"config_id": "09" * 64, "config_svn": 0, "isv_ext_prod_id": "00" * 16, "isv_family_id": "00" * 16}
    by_signer = {name: value for name, value in ENCLAVE.items() if name != "mr_enclave"} | {
        "mr_signer": {"mr_signer": "05" * 32, "isv_prod_id": 3, "min_isv_svn": 4},
        "key_separation": kss,
    }
    lab.appraise(report, policy=policy(lab), releases=file(release(Keeper(), 7, by_signer)))
    for changes in ({"isv_svn": 3}, {"isv_prod_id": 4}, {"mr_signer": bytes(32)}):
        bent = lab.report(lab.quote(**fields | changes))
        error = lab.refusal(bent, policy=policy(lab), releases=file(release(Keeper(), 7, by_signer)))
        assert failed_check(error) == CheckName.ENCLAVE_IDENTITY
    without = {name: value for name, value in by_signer.items() if name != "key_separation"}
    error = lab.refusal(report, policy=policy(lab), releases=file(release(Keeper(), 7, without)))
    assert failed_check(error) == CheckName.KEY_SEPARATION
    lab.appraise(
        report,
        policy=policy(lab, identity=Identity(key_separation=KeySeparation(config_id=b"\x09" * 64))),
        releases=file(release(Keeper(), 7, without)),
    )


@pytest.mark.parametrize(
    ("kept", "check"),
    [
        (None, CheckName.RELEASE_SIGNATURES),
        (Keeper().with_release(7, ALICE, STRANGER, not_before_s=NOW_S - 1), CheckName.RELEASE_SIGNATURES),
        (dataclasses.replace(KEPT, key=dataclasses.replace(STRANGER, name=ORIGIN)), CheckName.RELEASE_LOG),
        (release(Keeper(), 7, ENCLAVE, not_before_s=NOW_S + 1), CheckName.REFERENCE_VALUES),
        (release(Keeper(), 7, ENCLAVE, not_after_s=NOW_S), CheckName.REFERENCE_VALUES),
    ],
    ids=["no file", "wrong signer", "wrong log", "not yet", "expired"],
)
def test_a_file_that_does_not_hold_is_refused_by_name(
    lab: Any, kept: Keeper | None, check: CheckName
) -> None:
    """And then names no enclave, so that the identity fails with it."""
    error = lab.refusal(policy=policy(lab), releases=None if kept is None else file(kept))
    assert failed_check(error) == check
    assert isinstance(error, ReferenceValueError)
    assert details(checks_of(error))[CheckName.ENCLAVE_IDENTITY].startswith("fail")


def test_whoever_rolls_the_file_back_is_refused_as_such(lab: Any) -> None:
    """A client that accepted the newer file refuses the older one, and a fork, each by its own error."""
    newer = release(KEPT, 8, ENCLAVE, minimum_release=8)
    marks = lab.appraise(policy=policy(lab), releases=file(newer)).marks
    rolled_back = lab.refusal(policy=policy(lab), releases=file(KEPT), marks=marks)
    assert isinstance(rolled_back, ReleaseRolledBack)
    assert failed_check(rolled_back) == CheckName.RELEASE_LOG
    fork = release(release(Keeper(), 7, ENCLAVE, name="0.7.1"), 8, ENCLAVE, minimum_release=8)
    forked = lab.refusal(policy=policy(lab), releases=file(fork), marks=marks)
    assert isinstance(forked, ReleaseLogForked)
    assert failed_check(forked) == CheckName.RELEASE_LOG
    lab.appraise(
        policy=policy(lab), releases=file(release(newer, 9, ENCLAVE, minimum_release=8)), marks=marks
    )


def test_a_withdrawn_enclave_is_called_withdrawn(lab: Any) -> None:
    """An operator who still runs it learns why it is refused."""
    marks = HighWaterMarks(releases=(ReleaseMark(origin=ORIGIN, floor=8),))
    both = release(KEPT, 8, ENCLAVE | {"mr_enclave": "77" * 32})
    error = lab.refusal(policy=policy(lab), releases=file(both), marks=marks)
    assert "of release 7 (0.7.0), which is withdrawn" in str(error)


def test_nothing_is_remembered_of_what_was_refused(lab: Any) -> None:
    """Marks rise with an appraisal that passed, and no other."""
    marks = lab.appraise(policy=policy(lab), releases=file(KEPT), marks=NO_MARKS).marks
    assert lab.appraise(policy=policy(lab), releases=file(KEPT), marks=marks).marks == marks
    assert lab.appraise(marks=marks).marks.releases == marks.releases


def test_no_release_is_named_for_an_enclave_that_was_not_compared(lab: Any) -> None:
    """A relaxed identity check leaves open whose the enclave is."""
    relaxed = policy(
        lab,
        relaxations=(
            Relaxation(check=CheckName.ENCLAVE_IDENTITY, reason="a trial", expires_s=NOW_S + DAY_S),
        ),
    )
    assert lab.appraise(policy=relaxed, releases=file(KEPT)).releases == ()
