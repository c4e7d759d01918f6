# SPDX-License-Identifier: Apache-2.0
"""``adyton policy``: a strict beginning, plain words, and what deserves a second look."""

import json
import re
from pathlib import Path

import pytest
from command_line import Run
from memory_appliance import MemoryAppliance, policy

from adyton.commands.policy import FIRST_USE
from adyton_attestation.policy import AppraisalPolicy


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A policy that accepts the memory appliance."""
    path = tmp_path / "policy.toml"
    path.write_text(policy().to_toml())
    return path


def test_init_writes_a_strict_policy_and_asks_nothing(run: Run, tmp_path: Path) -> None:
    """Without arguments a commented policy comes out that accepts nothing and relaxes nothing."""
    outcome = run("policy", "init")
    assert outcome.code == 0
    written = AppraisalPolicy.from_toml(outcome.out)
    assert (written.platforms, written.models, written.relaxations) == ((), (), ())
    assert outcome.out.count("#") > 30
    assert FIRST_USE[0] not in outcome.out + outcome.err
    path = tmp_path / "new.toml"
    assert run("policy", "init", "--out", path, "--name", "ours").code == 0
    assert AppraisalPolicy.from_toml(path.read_bytes()).name == "ours"
    assert run("policy", "lint", path).code == 1


def test_init_never_replaces_a_file_unasked(run: Run, file: Path) -> None:
    """Somebody's policy is not lost to a second `init`."""
    before = file.read_bytes()
    outcome = run("policy", "init", "--out", file)
    assert outcome.code == 2
    assert "--force" in outcome.err
    assert file.read_bytes() == before
    assert run("policy", "init", "--out", file, "--force").code == 0
    assert file.read_bytes() != before


def test_what_is_copied_from_an_appliance_says_trust_on_first_use(
    run: Run, where: tuple[str, ...], tmp_path: Path, memory: MemoryAppliance
) -> None:
    """The warning stands in the file and on standard error; the policy accepts the appliance; nothing was asked."""
    path = tmp_path / "seen.toml"
    trust = ("--simulated", "--simulation-dir", where[-1])
    arguments = ("--from-url", where[1], *trust, "--custodian", "Ann", "--place", "hall 2")
    outcome = run("policy", "init", *arguments, "--out", path)
    assert outcome.code == 0
    assert "SIMULATED" in outcome.err
    for line in FIRST_USE:
        assert line in outcome.err
        assert f"# {line}" in path.read_text()
    seen = AppraisalPolicy.from_toml(path.read_bytes())
    assert (seen.identity.mr_enclaves, seen.configurations, seen.models) == (
        policy().identity.mr_enclaves,
        policy().configurations,
        policy().models,
    )
    assert (seen.platforms[0].custodian, seen.platforms[0].place) == ("Ann", "hall 2")
    assert seen.relaxations == ()
    assert {sent.method for sent in memory.sent} == {"GET"}
    (Path(where[-1]) / "policy.toml").write_bytes(path.read_bytes())
    assert run("verify", *where).code == 0
    document = json.loads(run("policy", "init", *arguments, "--json").out)
    assert document["trust_on_first_use"] is True
    assert AppraisalPolicy.from_json(document["policy"]) == seen
    assert document["digest"] == seen.digest()


def test_kept_evidence_serves_as_well_as_an_appliance(
    run: Run, where: tuple[str, ...], tmp_path: Path
) -> None:
    """A report file gives the same policy; one that was tampered with, or lacks its challenge, gives none."""
    report = tmp_path / "report.json"
    assert run("verify", *where, "--save-report", report).code == 0
    trust = ("--simulated", "--simulation-dir", where[-1])
    outcome = run("policy", "init", "--report", report, *trust)
    assert outcome.code == 0
    assert AppraisalPolicy.from_toml(outcome.out).identity.mr_enclaves == policy().identity.mr_enclaves
    assert run("policy", "init", "--report", report).code == 1
    document = json.loads(report.read_text())
    report.write_text(json.dumps(document | {"challenge": "00" * 32}))
    assert run("policy", "init", "--report", report, *trust).code == 1
    report.write_text(json.dumps(document | {"challenge": None}))
    assert run("policy", "init", "--report", report, *trust).code == 2


def test_options_of_first_use_do_nothing_silently(run: Run, where: tuple[str, ...]) -> None:
    """Who names a custodian without an appliance is told, as is who names two sources."""
    assert run("policy", "init", "--custodian", "Ann").code == 2
    assert run("policy", "init", "--simulated", "--simulation-dir", where[-1]).code == 2
    with pytest.raises(SystemExit):
        run("policy", "init", "--from-url", where[1], "--report", "x")


def test_explain_goes_through_every_rule(run: Run, file: Path) -> None:
    """Each rule is a paragraph with its check; the machine-readable form has the same statements."""
    outcome = run("policy", "explain", file)
    assert outcome.code == 0
    document = json.loads(run("policy", "explain", file, "--json").out)
    assert document["digest"] == policy().digest()
    assert document["digest"] in outcome.out
    paragraphs = re.sub(r"\s+", " ", outcome.out)
    for item in document["rules"]:
        assert item["rule"] in outcome.out
        assert item["text"] in paragraphs
    assert "kept by tests, at memory" in paragraphs
    at = json.loads(run("policy", "explain", file, "--json", "--at", 86_400).out)
    assert at["at"] == "1970-01-02T00:00:00Z"


def test_lint_exits_by_what_it_finds(run: Run, file: Path, tmp_path: Path) -> None:
    """Errors are 1, warnings 0 unless they are not wanted, no policy is 2."""
    outcome = run("policy", "lint", file)
    assert outcome.code == 0
    assert "no-advisory-allowed" in outcome.out
    assert "0 errors, 1 warnings" in outcome.out
    assert run("policy", "lint", file, "--strict").code == 1
    document = json.loads(run("policy", "lint", file, "--json").out)
    assert document["passed"] is True
    assert [item["code"] for item in document["findings"]] == ["no-advisory-allowed"]
    file.write_text("version = 2\nname = 'x'\nunknown = 1\n")
    assert run("policy", "lint", file).code == 2
    file.write_text('{"version": 1, "name": "old"}')
    outcome = run("policy", "lint", file)
    assert outcome.code == 2
    assert "adyton policy init" in outcome.err
    assert run("policy", "explain", tmp_path / "none.toml").code == 2


def test_words_of_a_policy_cannot_steer_the_terminal(run: Run, file: Path) -> None:
    """A policy from elsewhere is text, also where it holds control characters."""
    text = file.read_text().replace('custodian = "tests"', 'custodian = "FILL IN\\u001b[2Jx"')
    file.write_text(text)
    assert "\x1b" not in run("policy", "explain", file).out
    assert "\x1b" not in run("policy", "lint", file).out
