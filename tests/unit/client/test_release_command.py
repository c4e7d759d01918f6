# SPDX-License-Identifier: Apache-2.0
"""``adyton release`` from the first key to what a client accepts, and a client that asks the appliance for it."""

import json
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from command_line import Run
from memory_appliance import (
    CONFIGURATION,
    MODEL,
    MR_ENCLAVE,
    URL,
    MemoryAppliance,
    Sent,
    policy,
    simulation,
)
from releases import ALICE, BOB, Keeper, as_bytes, terms

from adyton import Client
from adyton.commands.policy_releases import COPIED_SIGNERS
from adyton.receipts import ReportFile
from adyton_attestation.policy import AppraisalPolicy, Identity
from adyton_attestation.release_file import parse_release_file
from adyton_attestation.signing_keys import parse_public_key
from adyton_protocol import media
from adyton_protocol.errors import ConfigError, ReferenceValueError, ReleaseRolledBack

HEX = "5f" * 32
LOG = "releases.example.org/adyton"


@pytest.fixture
def desk(tmp_path: Path, run: Run) -> Path:
    """A directory with two signers' keys and a keeper's."""
    for name, file in (("alice@example.org", "alice"), ("bob@example.org", "bob"), (LOG, "keeper")):
        made = run("release", "keygen", "--name", name, "--out", tmp_path / file, "--insecure-no-passphrase")
        assert made.code == 0, made.err
    return tmp_path


def draft(run: Run, desk: Path, number: int, *options: object) -> Path:
    """Draft a release."""
    path = desk / f"{number}.json"
    facts = ("--product", "adyton", "--release", number, "--name", f"0.{number}.0", "--minimum-release", 1)
    made = run("release", "draft", *facts, "--mr-enclave", HEX, *options, "--out", path)
    assert made.code == 0, made.err
    return path


def publish(run: Run, desk: Path, number: int) -> Path:
    """Draft, sign twice, append and export."""
    path = draft(run, desk, number)
    steps: tuple[tuple[object, ...], ...] = (
        ("sign", path, "--key", desk / "alice", "--yes", "--out", path),
        ("sign", path, "--key", desk / "bob", "--yes", "--out", path),
        ("append", path, "--log", desk / "log", "--key", desk / "keeper"),
        ("export", "--log", desk / "log", "--out", desk / "releases.json"),
    )
    for step in steps:
        done = run("release", *step)
        assert done.code == 0, (step, done.err)
    return desk / "releases.json"


def keys(desk: Path) -> tuple[str, ...]:
    """The options of ``verify``."""
    alice, bob, keeper = ((desk / f"{name}.pub").read_text().strip() for name in ("alice", "bob", "keeper"))
    return ("--product", "adyton", "--signer", alice, "--signer", bob, "--log-key", keeper)


def test_from_keys_to_a_release_file(run: Run, desk: Path) -> None:
    """Two releases; a client with these keys accepts both, and one with another signer neither."""
    publish(run, desk, 1)
    file = publish(run, desk, 2)
    found = json.loads(run("release", "verify", file, *keys(desk), "--json").out)
    assert found["verdict"] == "accepted"
    assert [(item["release"], item["standing"]) for item in found["releases"]] == [
        (1, "in force"),
        (2, "in force"),
    ]
    other = run("release", "verify", file, *keys(desk), "--signer", str(ALICE.public))
    assert (other.code, "fail  signatures" in other.out, "REFUSED" in other.out) == (1, True, True)
    later = run("release", "verify", file, *keys(desk), "--at", 4_000_000_000)
    assert (later.code, "fail  log" in later.out) == (1, True)


def test_a_key_is_private_sealed_and_never_overwritten(run: Run, tmp_path: Path) -> None:
    """Mode 0600, no seed in the file; nothing replaces it; a wrong passphrase opens nothing."""
    passphrase, wrong = tmp_path / "passphrase", tmp_path / "wrong"
    passphrase.write_text("correct horse battery\n")
    wrong.write_text("incorrect horse\n")
    path = tmp_path / "alice.key"
    make = (
        "release",
        "keygen",
        "--name",
        "alice@example.org",
        "--out",
        path,
        "--passphrase-file",
        passphrase,
    )
    made = json.loads(run(*make, "--json").out)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "seed" not in json.loads(path.read_text())
    before = path.read_bytes()
    assert run(*make).code == 2
    assert path.read_bytes() == before
    shown = run("release", "show", path)
    assert parse_public_key(made["public_key"]).fingerprint in shown.out
    statement = draft(run, tmp_path, 1)
    sign = ("release", "sign", statement, "--key", path, "--yes", "--out", tmp_path / "signed")
    assert run(*sign, "--passphrase-file", wrong).code == 2
    assert run(*sign, "--passphrase-file", passphrase).code == 0
    path.chmod(0o644)
    assert "chmod 600" in run(*sign, "--passphrase-file", passphrase).err


def test_nobody_signs_by_accident(run: Run, desk: Path) -> None:
    """Without a terminal to ask on, and without --yes, there is no signature; a short passphrase makes no key."""
    path = draft(run, desk, 1)
    refused = run("release", "sign", path, "--key", desk / "alice", "--out", desk / "signed")
    assert (refused.code, (desk / "signed").exists()) == (2, False)
    (desk / "short").write_text("abc\n")
    short = run("release", "keygen", "--name", "x", "--out", desk / "x", "--passphrase-file", desk / "short")
    assert (short.code, (desk / "x").exists()) == (2, False)


def test_a_log_that_was_touched_is_not_signed_over(run: Run, desk: Path) -> None:
    """An entry that is gone, changed, or that has no checkpoint: the keeper is told, and nothing is written."""
    publish(run, desk, 1)
    publish(run, desk, 2)
    log, checkpoint = (desk / "log").read_bytes(), (desk / "log.checkpoint").read_bytes()
    refresh = ("release", "append", "--refresh", "--log", desk / "log", "--key", desk / "keeper")
    (desk / "log").write_bytes(log.splitlines(keepends=True)[0])
    assert "restore" in run(*refresh).err.lower()
    (desk / "log").write_bytes(log)
    (desk / "log.checkpoint").unlink()
    assert run(*refresh).code == 2
    (desk / "log.checkpoint").write_bytes(checkpoint)
    assert run(*refresh).code == 0
    stranger = ("release", "append", "--refresh", "--log", desk / "log", "--key", desk / "alice")
    assert run(*stranger).code == 2


def test_an_append_that_was_interrupted_is_finished(run: Run, desk: Path) -> None:
    """The log has an entry more than its checkpoint: appending waits until --refresh has signed it."""
    publish(run, desk, 1)
    before = (desk / "log.checkpoint").read_bytes()
    publish(run, desk, 2)
    (desk / "log.checkpoint").write_bytes(before)
    third = draft(run, desk, 3)
    assert run("release", "sign", third, "--key", desk / "alice", "--yes", "--out", third).code == 0
    append = ("release", "append", third, "--log", desk / "log", "--key", desk / "keeper")
    assert "--refresh" in run(*append).err
    assert run("release", "append", "--refresh", "--log", desk / "log", "--key", desk / "keeper").code == 0
    assert run(*append).code == 0


def test_the_keepers_key_changes_by_overlap(run: Run, desk: Path) -> None:
    """A new key alone is refused; beside the old one it signs, and afterwards alone."""
    publish(run, desk, 1)
    new = ("release", "keygen", "--name", LOG, "--out", desk / "next", "--insecure-no-passphrase")
    assert run(*new).code == 0
    refresh = ("release", "append", "--refresh", "--log", desk / "log")
    assert run(*refresh, "--key", desk / "next").code == 2
    assert run(*refresh, "--key", desk / "keeper", "--key", desk / "next").code == 0
    assert run("release", "export", "--log", desk / "log", "--out", desk / "releases.json").code == 0
    next_key = (desk / "next.pub").read_text().strip()
    assert run("release", "verify", desk / "releases.json", *keys(desk)[:-1], next_key).code == 0
    assert run(*refresh, "--key", desk / "next").code == 0


def test_show_tells_every_kind_and_believes_none(run: Run, desk: Path) -> None:
    """Each file that the commands make; anything else is unusable input."""
    file = publish(run, desk, 1)
    kinds = {
        "alice": "private key",
        "alice.pub": "public key",
        "1.json": "statement",
        "log": "log",
        "log.checkpoint": "checkpoint",
        file.name: "release file",
    }
    for name, kind in kinds.items():
        assert json.loads(run("release", "show", desk / name, "--json").out)["kind"] == kind
    (desk / "junk").write_text("junk")
    assert run("release", "show", desk / "junk").code == 2


# --- A client ----------------------------------------------------------------------------------------------------


def release_file(memory: MemoryAppliance, kept: Keeper, **changes: Any) -> bytes:
    """A release of the memory appliance, in force by its clock."""
    now_s = memory.clock()
    enclave = {
        "mr_enclave": MR_ENCLAVE.hex(),
        "configurations": [str(CONFIGURATION)],
        "models": {MODEL.name: [str(MODEL.identity)]},
    }
    fields: dict[str, Any] = {"not_before_s": now_s - 60, "not_after_s": now_s + 3600, "enclaves": [enclave]}
    number = len(kept.log.entries) + 1
    return as_bytes(kept.with_release(number, ALICE, BOB, **fields | changes).export(now_s))


def serving(file: bytes | None) -> Any:
    """A host that carries this release file."""

    def intercept(_: MemoryAppliance, sent: Sent) -> httpx.Response | None:
        if sent.path == media.RELEASES_PATH and file is not None:
            return httpx.Response(200, content=file)
        return None

    return intercept


def signed_only() -> Any:
    """A simulation whose policy names signers of releases and nothing of its own."""
    named = replace(policy(), identity=Identity(), configurations=frozenset(), models=(), releases=terms())
    return replace(simulation(), policy=named)


def test_a_client_takes_the_release_file_from_the_appliance(memory: MemoryAppliance) -> None:
    """Asked for only when the policy wants it; without one nothing is sent."""
    file = release_file(memory, Keeper())
    memory.intercept = serving(file)
    with Client(URL, simulation=signed_only(), transport=memory.transport) as client:
        assert [item.name for item in client.verify().releases] == ["0.1.0"]
        kept = ReportFile.of(client.attest())
    assert memory.paths() == [media.ATTESTATION_PATH, media.ENDORSEMENTS_PATH, media.RELEASES_PATH]
    again = ReportFile.parse(json.dumps(kept.to_json()).encode())
    assert again.release_file is not None
    assert parse_release_file(again.release_file) == parse_release_file(file)
    memory.intercept = serving(None)
    with (
        Client(URL, simulation=signed_only(), transport=memory.transport) as client,
        pytest.raises(ReferenceValueError),
    ):
        client.verify()
    assert not memory.gateway_posts


def test_a_client_refuses_a_rollback_within_its_life(memory: MemoryAppliance) -> None:
    """The second, older file of a host that went back."""
    older = Keeper().with_release(1, ALICE, BOB)
    with Client(URL, simulation=signed_only(), transport=memory.transport) as client:
        memory.intercept = serving(release_file(memory, older))
        client.verify()
        memory.intercept = serving(release_file(memory, Keeper()))
        with pytest.raises(ReleaseRolledBack):
            client.verify()


def test_a_file_of_ones_own_comes_first(memory: MemoryAppliance, tmp_path: Path) -> None:
    """Then the appliance is not asked; and without [releases] in the policy, the option is a mistake."""
    path = tmp_path / "releases.json"
    path.write_bytes(release_file(memory, Keeper()))
    with Client(URL, simulation=signed_only(), releases=path, transport=memory.transport) as client:
        client.verify()
    assert media.RELEASES_PATH not in memory.paths()
    with pytest.raises(ConfigError):
        Client(URL, simulation=simulation(), releases=path, transport=memory.transport)


def test_a_policy_is_begun_from_a_release_file(run: Run, desk: Path) -> None:
    """With compared keys it believes them, copies no enclave, warns of nothing, and accepts the release file."""
    file = publish(run, desk, 1)
    product, *given = keys(desk)[1:]
    path = desk / "policy.toml"
    made = run("policy", "init", "--release", file, *given, "--out", path)
    assert made.code == 0, made.err
    assert "TRUST ON FIRST USE" not in made.err + path.read_text()
    assert parse_public_key(given[1]).fingerprint in path.read_text()
    begun = AppraisalPolicy.from_toml(path.read_bytes())
    assert begun.releases is not None
    assert (begun.releases.product, begun.releases.threshold) == (product, 2)
    assert [str(key) for key in begun.releases.signers] == [given[1], given[3]]
    assert begun.identity.mr_enclaves == frozenset()
    assert run("release", "verify", file, "--policy", path).code == 0
    errors = [
        item["rule"]
        for item in json.loads(run("policy", "lint", path, "--json").out)["findings"]
        if item["level"] == "error"
    ]
    assert errors == ["platforms"]


def test_signers_out_of_the_release_file_are_trust_on_first_use(run: Run, desk: Path) -> None:
    """Without --signer the file and standard error say so; without the keeper's key there is no policy at all."""
    file = publish(run, desk, 1)
    keeper = ("--log-key", keys(desk)[-1])
    made = run("policy", "init", "--release", file, *keeper)
    assert made.code == 0
    for line in COPIED_SIGNERS:
        assert line in made.err
        assert f"# {line}" in made.out
    assert AppraisalPolicy.from_toml(made.out).releases is not None
    assert json.loads(run("policy", "init", "--release", file, *keeper, "--json").out)["trust_on_first_use"]
    missing = run("policy", "init", "--release", file)
    assert (missing.code, "--log-key" in missing.err) == (2, True)
    assert run("policy", "init", *keeper).code == 2
    assert run("policy", "init", "--release", file, *keeper, "--from-url", URL).code == 2
    assert run("policy", "init", "--release", file, *keeper, "--signer", str(ALICE.public)).code == 1
    file.write_text("{}")
    assert run("policy", "init", "--release", file, *keeper).code == 1
