# SPDX-License-Identifier: Apache-2.0
"""The installation step: keys once, collateral in time, a policy for exactly the measured source."""

import argparse
import json
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from adyton_attestation.endorsements import parse_endorsements
from adyton_attestation.policy import AppraisalPolicy
from adyton_attestation.simulation.install import install, main, measured_files, parser
from adyton_attestation.simulation.installation import RENEW_AFTER_S, ensure_installation
from adyton_protocol.errors import ConfigError
from adyton_protocol.measurement import simulated_mrenclave

ROOT = Path(__file__).resolve().parents[3]
NOW_S = 1_790_000_000
DIGEST = "sha256:" + "ab" * 32


def arguments(directory: Path, *more: str) -> argparse.Namespace:
    """Parse a command line of the installation step."""
    return parser().parse_args([str(directory), *more])


def contents(directory: Path) -> dict[str, bytes]:
    """Return every file below a directory."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    """The step is idempotent: same keys, same collateral, same policy, byte for byte."""
    step = arguments(tmp_path / "sim", "--measure", str(ROOT), "--model", f"abacus={DIGEST}")
    first = install(step, NOW_S)
    before = contents(tmp_path / "sim")
    second = install(step, NOW_S + 3600)
    assert contents(tmp_path / "sim") == before
    assert (first["created"], first["renewed"]) == (True, True)
    assert (second["created"], second["renewed"]) == (False, False)
    assert first["policy_digest"] == second["policy_digest"]


def test_private_keys_are_private_and_the_rest_is_readable(tmp_path: Path) -> None:
    """Only the owner reads keys; clients read everything else."""
    install(arguments(tmp_path, "--measure", str(ROOT)), NOW_S)
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.name != ".lock":
            mode = stat.S_IMODE(path.stat().st_mode)
            assert mode == (0o600 if path.name.endswith("_key.pem") else 0o644), path
    assert [path for path in contents(tmp_path) if path.endswith("_key.pem")]


def test_collateral_is_renewed_under_the_same_root_with_higher_crl_numbers(tmp_path: Path) -> None:
    """Clients keep their pinned root, and their high-water marks accept what is new."""
    ensure_installation(tmp_path, NOW_S)
    root = (tmp_path / "root.pem").read_bytes()
    before = parse_endorsements((tmp_path / "collateral.json").read_bytes())
    renewed = ensure_installation(tmp_path, NOW_S + RENEW_AFTER_S)
    assert (renewed.created, renewed.renewed) == (False, True)
    assert (tmp_path / "root.pem").read_bytes() == root
    assert renewed.endorsements.root_crl.number == before.root_crl.number + 1
    assert renewed.endorsements.tcb_info.issued_s > before.tcb_info.issued_s


@pytest.mark.parametrize(
    "victim", ["root.pem", "platform/pck_key.pem", "pki/pck_ca.pem", "platform/platform.json"]
)
def test_a_damaged_pki_is_replaced_as_a_whole(tmp_path: Path, victim: str) -> None:
    """Half a PKI is none: keys and certificates never mix between two of them."""
    first = ensure_installation(tmp_path, NOW_S)
    (tmp_path / victim).write_text("damaged")
    second = ensure_installation(tmp_path, NOW_S)
    assert second.created
    assert second.pki.root.der() != first.pki.root.der()
    assert not ensure_installation(tmp_path, NOW_S).created


def test_damaged_collateral_is_replaced(tmp_path: Path) -> None:
    """Whoever damages the cache gets a new one, not a crash."""
    ensure_installation(tmp_path, NOW_S)
    (tmp_path / "collateral.json").write_text("{}")
    again = ensure_installation(tmp_path, NOW_S)
    assert (again.created, again.renewed) == (False, True)


def test_the_policy_accepts_the_measured_files_and_no_others(tmp_path: Path) -> None:
    """Any changed byte of a measured file changes the measurement; the simulator and other files do not."""
    source = tmp_path / "source"
    for name in ("enclave/adyton_enclave", "protocol/adyton_protocol"):
        (source / name).mkdir(parents=True)
        (source / name / "__init__.py").write_text("# one\n")
    (source / "enclave" / "adyton_enclave" / "gateway.py").write_text("two = 2\n")

    def measure() -> bytes:
        return simulated_mrenclave(measured_files([source]))

    before = measure()
    (source / "enclave" / "adyton_enclave" / "simulation.py").write_text("not measured\n")
    (source / "enclave" / "adyton_enclave" / "py.typed").write_text("")
    assert measure() == before
    (source / "enclave" / "adyton_enclave" / "gateway.py").write_text("two = 3\n")
    assert measure() != before
    packages = [source / "enclave" / "adyton_enclave", source / "protocol" / "adyton_protocol"]
    assert measured_files(packages) == measured_files([source])
    install(arguments(tmp_path / "sim", "--measure", str(source)), NOW_S)
    policy = AppraisalPolicy.from_toml((tmp_path / "sim" / "policy.toml").read_bytes())
    assert policy.identity.mr_enclaves == {measure()}


def test_a_file_called_simulation_elsewhere_is_measured(tmp_path: Path) -> None:
    """Only the one simulator is left out, not every file of that name."""
    package = tmp_path / "adyton_enclave"
    (package / "engine").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "engine" / "simulation.py").write_text("")
    assert "adyton_enclave/engine/simulation.py" in measured_files([package])


def test_stated_models_and_configurations_leave_nothing_relaxed(tmp_path: Path) -> None:
    """A relaxation stands in the policy exactly where the step was told nothing."""
    install(arguments(tmp_path, "--measure", str(ROOT)), NOW_S)
    policy = AppraisalPolicy.from_toml((tmp_path / "policy.toml").read_bytes())
    assert {item.check.value for item in policy.relaxations} == {"configuration", "models"}
    stated = ("--model", f"abacus={DIGEST}", "--configuration", DIGEST)
    install(arguments(tmp_path, "--measure", str(ROOT), *stated), NOW_S)
    policy = AppraisalPolicy.from_toml((tmp_path / "policy.toml").read_bytes())
    assert policy.relaxations == ()
    assert policy.models == (("abacus", frozenset({DIGEST})),)


def test_unusable_input_ends_with_status_two(tmp_path: Path, capsys: Any) -> None:
    """A wrong directory is a message and an exit status, not a traceback."""
    assert main([str(tmp_path / "sim"), "--measure", str(tmp_path)]) == 2
    (tmp_path / "file").write_text("")
    assert main([str(tmp_path / "file")]) == 2
    assert "error:" in capsys.readouterr().err
    for bad in (["--model", "abacus"], ["--model", "abacus=sha256:00"], ["--configuration", "00"]):
        with pytest.raises(SystemExit) as caught:
            main([str(tmp_path / "sim"), *bad])
        assert caught.value.code == 2


def test_the_command_prints_what_holds(tmp_path: Path, capsys: Any) -> None:
    """The JSON form is for programs, the text form says SIMULATED first."""
    assert main([str(tmp_path), "--measure", str(ROOT), "--json"]) == 0
    state = json.loads(capsys.readouterr().out)
    assert state["trust_domain"] == "simulated"
    assert len(state["mr_enclave"]) == 64
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("SIMULATED")
    with pytest.raises(ConfigError):
        measured_files([tmp_path])
    shutil.rmtree(tmp_path / "pki")
    assert main([str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["created"] is True
