# SPDX-License-Identifier: Apache-2.0
"""Signed results and wrapped evidence from the command line."""

import json
from pathlib import Path

import pytest
from command_line import Run
from memory_appliance import MemoryAppliance

from adyton_attestation.endorsements import parse_endorsements
from adyton_protocol.cmw_evidence import parse_evidence


@pytest.fixture
def keys(run: Run, tmp_path: Path) -> tuple[Path, Path]:
    """A key of somebody who vouches, and its public half."""
    key, public = tmp_path / "auditor.key", tmp_path / "auditor.pub"
    made = run("attestation-result", "keygen", "--key", key, "--public", public, "--insecure-no-passphrase")
    assert made.code == 0, made.err
    assert key.stat().st_mode & 0o077 == 0, "nobody else may read it"
    return key, public


def test_a_result_goes_from_one_to_another(
    run: Run, where: tuple[str, ...], keys: tuple[Path, Path], tmp_path: Path
) -> None:
    """It holds, says which enclave it is about, and a simulated one is nothing to rely on."""
    token = tmp_path / "result.jwt"
    asked = ("--eat", token, "--eat-key", keys[0], "--eat-nonce", "for the auditor")
    assert run("verify", *where, *asked).code == 0
    outcome = run(
        "attestation-result", "verify", token, "--key", keys[1], "--nonce", "for the auditor", "--json"
    )
    document = json.loads(outcome.out)
    assert (outcome.code, document["verdict"], document["tier"]) == (1, "holds", "none")
    assert document["result"]["trust_domain"] == "simulated"
    shown = run("attestation-result", "verify", token, "--key", keys[1])
    assert "tier: none" in shown.out
    assert run("attestation-result", "verify", token, "--key", keys[1], "--nonce", "for another").code == 1
    late = run("attestation-result", "verify", token, "--key", keys[1], "--at", "4000000000", "--json")
    assert (late.code, json.loads(late.out)["verdict"]) == (1, "refused")


def test_a_key_is_not_written_over(run: Run, keys: tuple[Path, Path]) -> None:
    """Whoever makes a second key under the same name keeps the first."""
    before = keys[0].read_bytes()
    for public in (keys[1], keys[1].with_suffix(".new")):
        again = ("--key", keys[0], "--public", public, "--insecure-no-passphrase")
        assert run("attestation-result", "keygen", *again).code == 2
        assert keys[0].read_bytes() == before


def test_a_key_is_sealed_and_of_the_one_form(run: Run, where: tuple[str, ...], tmp_path: Path) -> None:
    """The passphrase opens it, nothing else does; `release show` reads it; a key that others may read is refused."""
    passphrase, wrong = tmp_path / "passphrase", tmp_path / "wrong"
    passphrase.write_text("correct horse battery\n")
    wrong.write_text("incorrect horse\n")
    key, public, token = tmp_path / "auditor.key", tmp_path / "auditor.pub", tmp_path / "result.jwt"
    make = ("attestation-result", "keygen", "--name", "auditor@example.org", "--key", key, "--public", public)
    assert run(*make).code == 2, "there is no terminal to ask on, and nothing says that it may lie open"
    assert not key.exists()
    assert run(*make, "--passphrase-file", passphrase).code == 0
    assert "seed" not in json.loads(key.read_text())
    assert "auditor@example.org" in run("release", "show", key).out
    asked = ("verify", *where, "--eat", token, "--eat-key", key)
    assert run(*asked, "--eat-passphrase-file", wrong).code == 2
    assert run(*asked, "--eat-passphrase-file", passphrase).code == 0
    shown = json.loads(run("attestation-result", "verify", token, "--key", public, "--json").out)
    assert shown["verdict"] == "holds"
    key.chmod(0o644)
    assert "chmod 600" in run(*asked, "--eat-passphrase-file", passphrase).err


def test_nothing_is_asked_for_with_unusable_options(
    run: Run, where: tuple[str, ...], keys: tuple[Path, Path], memory: MemoryAppliance, tmp_path: Path
) -> None:
    """A missing key, the wrong half of one, and a nonce that no reader takes are found at once."""
    for options in (
        ("--eat", tmp_path / "x"),
        ("--eat-key", keys[0]),
        ("--eat-passphrase-file", keys[0]),
        ("--eat", tmp_path / "x", "--eat-key", keys[1]),
        ("--eat", tmp_path / "x", "--eat-key", tmp_path / "nothing"),
        ("--eat", tmp_path / "x", "--eat-key", keys[0], "--eat-nonce", "short"),
    ):
        assert run("verify", *where, *options).code == 2
    assert memory.sent == []
    assert run("attestation-result", "verify", keys[0], "--key", keys[0]).code == 2


@pytest.mark.parametrize("name", ["evidence.cbor", "evidence.json"])
def test_evidence_and_endorsements_are_saved_as_one_file(
    run: Run, where: tuple[str, ...], tmp_path: Path, name: str
) -> None:
    """A verifier of another make gets all that it needs, in the encoding that the name says."""
    path = tmp_path / name
    assert run("verify", *where, "--save-cmw", path).code == 0
    data = path.read_bytes()
    assert data.startswith(b"{") == name.endswith("json")
    found = parse_evidence(data)
    assert found.report.tee_type == "simulated"
    assert found.endorsements is not None
    assert parse_endorsements(found.endorsements).tcb_info.issued_s
