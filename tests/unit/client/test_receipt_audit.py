# SPDX-License-Identifier: Apache-2.0
"""An archive of receipts, audited years later: what holds, what fails, and what has ended since."""

import json
import os
import shutil
from pathlib import Path

import pytest
from command_line import Run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memory_appliance import QUESTION, MemoryAppliance, policy
from page_reader import check_self_contained

from adyton.archive import read_archive
from adyton.audit import audit_archive
from adyton.edge import wall_clock_s
from adyton.terminal import SIMULATED_BANNER

YEARS_S = 5 * 365 * 86_400


@pytest.fixture
def kept(run: Run, where: tuple[str, ...], tmp_path: Path, memory: MemoryAppliance) -> Path:
    """Two receipts of one keyset and one of the next, as ``adyton ask`` keeps them."""
    directory = tmp_path / "kept"
    (directory / "below").mkdir(parents=True)
    for place in ("1", "2", "below/3"):
        if place == "below/3":
            memory.rotate()
        files = (
            "--save-receipt",
            directory / f"{place}.receipt.json",
            "--save-report",
            directory / f"{place}.report.json",
        )
        assert run("ask", QUESTION, *where, *files).code == 0
    memory.sent.clear()
    return directory


@pytest.fixture
def trust(where: tuple[str, ...]) -> tuple[str, ...]:
    """The options that choose the simulated policy, without an address."""
    return where[2:]


def outcomes(document: dict[str, list[dict[str, str]]]) -> dict[str, tuple[str, str | None]]:
    """File, outcome and code."""
    return {item["file"]: (item["outcome"], item["code"]) for item in document["files"]}


def test_an_archive_holds_years_later(
    run: Run, kept: Path, trust: tuple[str, ...], memory: MemoryAppliance, tmp_path: Path
) -> None:
    """Everything is appraised as of its own time; that keys and endorsements ended since is said and fails nothing."""
    page = tmp_path / "audit.html"
    later = str(wall_clock_s() + YEARS_S)
    outcome = run("receipt", "audit", kept, *trust, "--at", later, "--html", page)
    assert outcome.code == 0
    assert outcome.out.count("accepted by the policy as of") == 3
    assert "ended since, first the enclave's keys" in outcome.out
    assert "audit: all 3 valid (SIMULATED evidence)" in outcome.out
    document = json.loads(run("receipt", "audit", kept, *trust, "--at", later, "--json").out)
    assert document["verdict"] == "valid"
    assert document["appraised"] is True
    for item in document["files"]:
        assert {"the enclave's keys", "tcb_info", "pck_crl"} <= {
            ended["what"] for ended in item["ended_since"]
        }
    words = " ".join(check_self_contained(page.read_text("utf-8")).words)
    assert SIMULATED_BANNER in words
    assert "below/3.receipt.json" in words
    assert memory.sent == []


def test_nothing_has_ended_while_the_keys_live(run: Run, kept: Path, trust: tuple[str, ...]) -> None:
    """Right after the answer there is nothing to say."""
    document = json.loads(run("receipt", "audit", kept, *trust, "--json").out)
    assert [item["ended_since"] for item in document["files"]] == [[], [], []]


def test_without_a_policy_the_audit_says_that_nothing_was_appraised(run: Run, kept: Path) -> None:
    """Signatures alone are worth something, and not called more than that."""
    outcome = run("receipt", "audit", kept)
    assert outcome.code == 0
    assert "not all were appraised" in outcome.out
    assert "accepted by the policy" not in outcome.out


def test_one_bad_file_fails_the_audit_and_hides_none_of_the_others(
    run: Run, kept: Path, trust: tuple[str, ...], tmp_path: Path
) -> None:
    """Forged, damaged, orphaned and foreign files each have their finding; the sound ones stay valid."""
    sound = kept / "1.receipt.json"
    (kept / "forged.receipt.json").write_text(
        sound.read_text().replace('"method": "POST"', '"method": "PUT"')
    )
    shutil.copy(kept / "1.report.json", kept / "forged.report.json")
    (kept / "torn.json").write_bytes(sound.read_bytes()[:100])
    (kept / "note.json").write_text('{"mine": true}')
    (kept / "below" / "3.report.json").unlink()
    outside = tmp_path / "outside.json"
    outside.write_text("not JSON")
    (kept / "link.json").symlink_to(outside)
    os.mkfifo(kept / "pipe.json")
    page = tmp_path / "audit.html"
    outcome = run("receipt", "audit", kept, *trust, "--json", "--html", page)
    assert outcome.code == 1
    document = json.loads(outcome.out)
    assert outcomes(document) == {
        "1.receipt.json": ("valid", None),
        "2.receipt.json": ("valid", None),
        "below/3.receipt.json": ("no-report", "no-report"),
        "forged.receipt.json": ("invalid", "signature"),
        "torn.json": ("damaged", "config"),
    }
    assert sorted(document["other_files"]) == ["link.json", "note.json", "pipe.json"]
    assert document["summary"] == {"valid": 2, "invalid": 1, "damaged": 1, "no_report": 1}
    words = " ".join(check_self_contained(page.read_text("utf-8")).words)
    assert "FAILED: 3 of 5 files" in words
    assert "Why forged.receipt.json failed" in words
    shown = run("receipt", "audit", kept, *trust).out
    assert "audit: FAILED: 3 of 5 files" in shown
    assert len([line for line in shown.splitlines() if ".json: " in line]) == 5


def test_a_report_is_found_by_the_keys_that_it_is_about(run: Run, kept: Path, trust: tuple[str, ...]) -> None:
    """Names do not matter: one report serves every receipt of its keys, wherever it lies."""
    (kept / "2.report.json").unlink()
    (kept / "1.report.json").rename(kept / "below" / "x.json")
    document = json.loads(run("receipt", "audit", kept, *trust, "--json").out)
    assert {item["outcome"] for item in document["files"]} == {"valid"}
    assert document["files"][0]["report"] == "below/x.json"


def test_a_report_beside_it_that_is_no_good_does_not_spoil_one_that_is(
    run: Run, kept: Path, trust: tuple[str, ...]
) -> None:
    """Every report about the keys is tried; the first that holds counts."""
    report = json.loads((kept / "1.report.json").read_text())
    report["challenge"] = "00" * 32
    (kept / "1.report.json").write_text(json.dumps(report))
    document = json.loads(run("receipt", "audit", kept, *trust, "--json").out)
    assert document["files"][0]["outcome"] == "valid"
    assert document["files"][0]["report"] == "2.report.json"


def test_the_policy_decides_as_of_the_time_that_the_file_states(
    run: Run, kept: Path, trust: tuple[str, ...], tmp_path: Path
) -> None:
    """A time at which the endorsements were not in force, one that has not come, and another policy all fail."""
    for name in ("2", "below/3"):
        (kept / f"{name}.receipt.json").unlink()
        (kept / f"{name}.report.json").unlink()
    report = json.loads((kept / "1.report.json").read_text())
    for stated, code in (
        (1_600_000_000, "report"),
        (wall_clock_s() + 86_400, "appraised-at"),
        (None, "report"),
    ):
        (kept / "1.report.json").write_text(json.dumps(report | {"appraised_at": stated}))
        outcome = run("receipt", "audit", kept, *trust, "--json")
        assert outcome.code == 1
        assert outcomes(json.loads(outcome.out)) == {"1.receipt.json": ("invalid", code)}
    for stated in (True, -1, 10**15):
        (kept / "1.report.json").write_text(json.dumps(report | {"appraised_at": stated}))
        document = json.loads(run("receipt", "audit", kept, *trust, "--json").out)
        assert outcomes(document)["1.report.json"] == ("damaged", "config")
    (kept / "1.report.json").write_text(json.dumps(report))
    other = tmp_path / "policy.toml"
    other.write_text(policy().to_toml())
    assert run("receipt", "audit", kept, "--policy", other).code == 1


def test_search_files_bring_their_own_evidence(run: Run, kept: Path) -> None:
    """A search file that cannot be read is damaged, like any other."""
    (kept / "search.json").write_text(
        '{"transcript": {}, "receipt": {}, "evidence": {"report": {}}, "openings": {}}'
    )
    document = json.loads(run("receipt", "audit", kept, "--json").out)
    assert outcomes(document)["search.json"] == ("damaged", "receipt")


def test_an_archive_without_receipts_is_unusable_input(run: Run, tmp_path: Path) -> None:
    """Nothing to audit is not a passed audit."""
    assert run("receipt", "audit", tmp_path).code == 2
    assert run("receipt", "audit", tmp_path / "nowhere").code == 2


def test_names_that_are_no_text_and_words_that_steer_are_shown_safely(
    run: Run, kept: Path, trust: tuple[str, ...], tmp_path: Path
) -> None:
    """A file name cannot end a line, colour a terminal, or break JSON or page."""
    page = tmp_path / "audit.html"
    for name in (b"\xff.json", b"<script>.json", b"a\nvalid      b.json", b"\x1b[31m.json"):
        (kept / os.fsdecode(name)).write_bytes(b"{")
    assert run("receipt", "audit", kept, *trust, "--html", page).code == 1
    check_self_contained(page.read_text("utf-8"))
    outcome = run("receipt", "audit", kept, *trust)
    assert "\x1b" not in outcome.out
    assert not any(line.startswith("valid      b.json") for line in outcome.out.splitlines())
    assert json.loads(run("receipt", "audit", kept, *trust, "--json").out)["summary"]["damaged"] == 4


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_anywhere_is_a_finding_and_never_a_crash(kept: Path, data: st.DataObject) -> None:
    """Bytes exchanged in a receipt or its report: the audit goes on, and the other receipt stays valid."""
    name = data.draw(st.sampled_from(["1.receipt.json", "1.report.json"]))
    original = (kept / name).read_bytes()
    at = data.draw(st.integers(0, len(original) - 1))
    with_what = data.draw(st.binary(max_size=8))
    try:
        (kept / name).write_bytes(original[:at] + with_what + original[at + len(with_what) :])
        audit = audit_archive(read_archive(kept), None, None, now_s=wall_clock_s())
    finally:
        (kept / name).write_bytes(original)
    found = {item.file: item.outcome for item in audit.files}
    assert found["2.receipt.json"] == "valid"
    assert found["below/3.receipt.json"] == "valid"
