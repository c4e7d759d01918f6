# SPDX-License-Identifier: Apache-2.0
"""The command line: what it prints, what it saves, and with which code it exits."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import Run
from memory_appliance import (
    MODEL,
    QUESTION,
    WORDS,
    MemoryAppliance,
    policy,
    problem,
    write_simulation,
)

from adyton.cli import main
from adyton.terminal import printable
from adyton_protocol.report import parse_report

ANSWER = "".join(WORDS)


def test_ask_prints_the_answer_alone_on_standard_output(run: Run, where: tuple[str, ...]) -> None:
    """The answer is pipeable; banner, verdict and receipt stand on standard error."""
    outcome = run("ask", QUESTION, *where)
    assert outcome.code == 0
    assert outcome.out == ANSWER + "\n"
    assert "SIMULATED" in outcome.err
    assert "attestation: accepted (SIMULATED evidence)" in outcome.err
    assert "receipt: valid" in outcome.err
    assert "\x1b" not in outcome.out + outcome.err


@pytest.mark.parametrize("extra", [("--no-stream",), ("--json",), ("--temperature", "0", "--seed", "7")])
def test_ask_takes_its_options(
    run: Run, where: tuple[str, ...], memory: MemoryAppliance, extra: tuple[str, ...]
) -> None:
    """Streaming and sampling are the caller's choice."""
    outcome = run("ask", QUESTION, *where, *extra)
    assert outcome.code == 0
    asked = json.loads(memory.inner[-1].content)
    assert asked.get("stream", False) is ("--seed" in extra)
    assert ("seed" in asked) is ("--seed" in extra)
    if "--json" in extra:
        document = json.loads(outcome.out)
        assert document["answer"] == ANSWER
        assert document["simulated"] is True
        assert document["receipt_valid"] is True
        assert document["attestation"]["verdict"] == "accepted"


def test_ask_reads_the_question_from_standard_input(
    run: Run, where: tuple[str, ...], memory: MemoryAppliance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question need not stand in the list of processes."""
    monkeypatch.setattr("sys.stdin", io.StringIO("from a pipe"))
    assert run("ask", "-", *where).code == 0
    assert json.loads(memory.inner[-1].content)["messages"][0]["content"] == "from a pipe"


def test_a_saved_receipt_verifies_offline(
    run: Run, where: tuple[str, ...], tmp_path: Path, memory: MemoryAppliance
) -> None:
    """Receipt and report are enough for somebody else, with and without a policy for the report."""
    receipt, report = tmp_path / "receipt.json", tmp_path / "report.json"
    run("ask", QUESTION, *where, "--save-receipt", receipt, "--save-report", report)
    memory.sent.clear()
    bare = run("receipt", "verify", receipt, "--report", report)
    assert bare.code == 0
    assert "receipt: valid under this report's keys; they were not appraised" in bare.out
    assert "SIMULATED" in bare.out
    appraised = run("receipt", "verify", receipt, "--report", report, *where[2:])
    assert appraised.code == 0
    assert "receipt: valid (SIMULATED evidence)" in appraised.out
    document = json.loads(run("receipt", "verify", receipt, "--report", report, "--json", *where[2:]).out)
    assert document["verdict"] == "valid"
    assert document["appraised"] is True
    assert document["simulated"] is True
    assert memory.sent == []


def test_a_forged_receipt_or_report_is_invalid(run: Run, where: tuple[str, ...], tmp_path: Path) -> None:
    """An edit of either file exits with 1."""
    receipt, report = tmp_path / "receipt.json", tmp_path / "report.json"
    run("ask", QUESTION, *where, "--save-receipt", receipt, "--save-report", report)
    genuine, evidence = receipt.read_text(), report.read_text()
    receipt.write_text(genuine.replace(MODEL.name, "huge"))
    forged = run("receipt", "verify", receipt, "--report", report)
    assert forged.code == 1
    assert "receipt: INVALID" in forged.out
    receipt.write_text(genuine)
    document = json.loads(evidence)
    document["report"]["attestation"]["workload_keyset"]["not_after"] += 1
    report.write_text(json.dumps(document))
    assert run("receipt", "verify", receipt, "--report", report, "--json").code == 1
    document = json.loads(evidence)
    document["challenge"] = "00" * 32
    report.write_text(json.dumps(document))
    assert run("receipt", "verify", receipt, "--report", report, *where[2:]).code == 1
    document = json.loads(evidence)
    del document["endorsements"]
    report.write_text(json.dumps(document))
    assert run("receipt", "verify", receipt, "--report", report).code == 0
    stripped = run("receipt", "verify", receipt, "--report", report, *where[2:])
    assert stripped.code == 1
    assert "cannot be appraised" in stripped.out
    report.write_text(evidence)
    other = tmp_path / "policy.toml"
    other.write_text(policy().to_toml())
    assert run("receipt", "verify", receipt, "--report", report, "--policy", other).code == 1


def test_a_quote_beside_foreign_keys_does_not_vouch_for_them(
    run: Run, tmp_path: Path, where: tuple[str, ...], memory: MemoryAppliance
) -> None:
    """A genuine quote with somebody else's keyset is refused even when nobody appraises the report."""
    receipt, report = tmp_path / "receipt.json", tmp_path / "report.json"
    run("ask", QUESTION, *where, "--save-receipt", receipt)
    genuine = parse_report(memory.report("ab" * 32))
    memory.rotate()
    foreign = replace(genuine, keyset=memory.epoch.keyset)
    report.write_text(json.dumps(foreign.to_json()))
    outcome = run("receipt", "verify", receipt, "--report", report)
    assert outcome.code == 1
    assert "the quote in the report is about other keys" in outcome.out


def test_verify_prints_every_check_under_the_banner(run: Run, where: tuple[str, ...], tmp_path: Path) -> None:
    """Each check is a line; the banner stands above, the verdict below."""
    report = tmp_path / "report.json"
    outcome = run("verify", *where, "--save-report", report)
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert "SIMULATED" in "\n".join(lines[:5])
    assert any("pass  enclave-identity" in line for line in lines)
    assert "accepted as SIMULATED" in lines[-1]
    saved = json.loads(report.read_text())
    assert saved.keys() == {"report", "endorsements", "challenge", "appraised_at", "releases"}
    document = json.loads(run("verify", *where, "--json").out)
    assert document["trust_domain"] == "simulated"
    assert {check["verdict"] for check in document["checks"]} <= {"pass", "skip"}


def test_verify_refuses_a_simulated_appliance_by_default(run: Run, url: str, tmp_path: Path) -> None:
    """With a policy for real appliances, simulated evidence exits with 1 and names the check."""
    path = tmp_path / "policy.toml"
    path.write_text(policy().to_toml())
    outcome = run("verify", "--url", url, "--policy", path)
    assert outcome.code == 1
    assert "fail  evidence-type" in outcome.out
    assert "verdict: refused" in outcome.out
    document = json.loads(run("verify", "--url", url, "--policy", path, "--json").out)
    assert document["verdict"] == "refused"
    assert document["error"] == "appraisal"
    assert run("ask", QUESTION, "--url", url, "--policy", path).code == 1


def test_no_trust_chosen_is_unusable_input(
    run: Run, url: str, memory: MemoryAppliance, tmp_path: Path
) -> None:
    """Nothing falls back to simulation: without a choice nothing is even contacted."""
    outcome = run("ask", QUESTION, "--url", url)
    assert outcome.code == 2
    assert "--policy FILE" in outcome.err
    assert "--simulated" in outcome.err
    assert memory.sent == []
    assert run("ask", QUESTION, "--url", url, "--simulation-dir", tmp_path).code == 2
    assert run("ask", QUESTION, "--url", url, "--policy", tmp_path / "none.json").code == 2
    assert run("ask", QUESTION, "--url", url, "--simulated", "--simulation-dir", tmp_path / "none").code == 2


def test_an_unreachable_appliance_exits_with_3(run: Run, tmp_path: Path) -> None:
    """The message names the address."""
    write_simulation(tmp_path)
    outcome = run("verify", "--url", "http://127.0.0.1:9", "--simulated", "--simulation-dir", tmp_path)
    assert outcome.code == 3
    assert "http://127.0.0.1:9" in outcome.err


def test_failed_requests_exit_with_3(run: Run, where: tuple[str, ...], memory: MemoryAppliance) -> None:
    """Refusals of host and enclave, and cut streams, are one line on standard error."""
    unknown = run("ask", QUESTION, *where, "--model", "unknown")
    assert unknown.code == 3
    assert "model-not-found" in unknown.err
    memory.deliver = lambda chunks: list(chunks[:3])
    cut = run("ask", QUESTION, *where)
    assert cut.code == 3
    assert "truncated" in cut.err
    memory.deliver = lambda chunks: list(chunks[:-1])
    error = json.loads(run("ask", QUESTION, *where, "--json").out)["error"]
    assert error["code"] == "truncated"
    assert error["retry_safe"] is False
    memory.intercept = lambda _memory, sent: (
        problem(503, "urn:adyton:problem:busy", "full") if sent.method == "POST" else None
    )
    busy = run("ask", QUESTION, *where)
    assert busy.code == 3
    assert "may be sent again" in busy.err


def test_models_lists_attested_identities(run: Run, where: tuple[str, ...]) -> None:
    """Name and digest of each model come from the attested keyset."""
    assert f"{MODEL.name}  {MODEL.identity}" in run("models", *where).out
    assert json.loads(run("models", *where, "--json").out)["data"][0]["id"] == MODEL.name


def test_chat_keeps_its_history_and_forgets_on_request(
    run: Run, where: tuple[str, ...], memory: MemoryAppliance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each question carries the conversation before it, until /reset."""
    monkeypatch.setattr("sys.stdin", io.StringIO("one\ntwo\n/reset\n\n/help\nthree\n/quit\nnever\n"))
    outcome = run("chat", *where)
    assert outcome.code == 0
    assert [len(json.loads(request.content)["messages"]) for request in memory.inner] == [1, 3, 1]
    assert outcome.out.count(ANSWER) == 3
    assert outcome.err.count("receipt: valid") == 3


def test_chat_survives_a_refusal(
    run: Run, where: tuple[str, ...], memory: MemoryAppliance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused question is not remembered, and the conversation goes on."""
    monkeypatch.setattr("sys.stdin", io.StringIO("one\ntwo\n"))
    outcome = run("chat", *where, "--model", "unknown")
    assert outcome.code == 0
    assert outcome.err.count("model-not-found") == 2


def test_usage_errors_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage exits with 2; help teaches by example and documents the exit codes."""
    for arguments, code in ((["ask"], 2), (["nonsense"], 2), (["--help"], 0), (["ask", "--help"], 0)):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == code
    printed = capsys.readouterr().out
    assert "examples:" in printed
    assert "exit codes:" in printed


def test_words_of_a_model_cannot_steer_a_terminal() -> None:
    """Control characters other than line ends and tabs are dropped."""
    assert printable("a\x1b[2Jb\x07\nc\td\u202e") == "a[2Jb\nc\td"
