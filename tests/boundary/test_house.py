# SPDX-License-Identifier: Apache-2.0
"""The house rules that no other tool holds: licences, trust statements, measured files, import closures."""

import subprocess
import sys
from pathlib import Path

import pytest

from adyton_protocol.measurement import UNMEASURED

ROOT = Path(__file__).resolve().parents[2]
DOMAINS = ("protocol", "attestation", "enclave", "host", "client", "models")
MEASURED = ROOT / "manifests" / "measured-files.txt"


def python_files() -> list[Path]:
    """Every Python file under version control or about to be."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    return [ROOT / name for name in listed if (ROOT / name).exists()]


def test_every_python_file_names_its_licence_in_its_first_line() -> None:
    """One SPDX line stands first in every file, so that a copied file keeps its licence."""
    missing = [
        str(path.relative_to(ROOT))
        for path in python_files()
        if not path.read_text().startswith("# SPDX-License-Identifier: Apache-2.0\n")
    ]
    assert missing == []


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_trust_domain_opens_with_what_it_is_trusted_for(domain: str) -> None:
    """A stranger can tell from each directory's README who is trusted with plaintext."""
    opening = (ROOT / domain / "README.md").read_text()[:600].lower()
    assert "trusted" in opening


def test_measured_files_are_exactly_the_packages_without_simulator_and_probe() -> None:
    """The measured list equals what the enclave and the protocol consist of; nothing else is left out."""
    listed = [line for line in MEASURED.read_text().splitlines() if line and not line.startswith("#")]
    present = sorted(
        f"{package.name}/{path.relative_to(package).as_posix()}"
        for package in (ROOT / "enclave" / "adyton_enclave", ROOT / "protocol" / "adyton_protocol")
        for path in package.rglob("*.py")
        if f"{package.name}/{path.relative_to(package).as_posix()}" not in UNMEASURED
    )
    assert listed == present


def imported_modules(statement: str) -> set[str]:
    """Names in ``sys.modules`` of a fresh, isolated interpreter after ``statement``."""
    code = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_host_loads_no_cryptography_and_no_sealing_code() -> None:
    """Importing everything of the host loads nothing that could open or appraise anything."""
    package = ROOT / "host"
    names = " ".join(
        f"import {'.'.join(path.relative_to(package).with_suffix('').parts)};"
        for path in (package / "adyton_host").rglob("*.py")
        if path.stem not in {"__init__", "__main__"}
    )
    loaded = imported_modules(names)
    protocol = {name for name in loaded if name.startswith("adyton_protocol.")}
    assert protocol <= {"adyton_protocol.media", "adyton_protocol.errors"}
    for forbidden in ("cryptography", "nacl", "dcap_qvl", "adyton_attestation", "adyton_enclave", "adyton"):
        assert forbidden not in loaded


def test_the_enclave_loads_neither_client_nor_verifier_nor_simulator() -> None:
    """The enclave's entry point loads no code that dials out, appraises or simulates."""
    loaded = imported_modules("import adyton_enclave.__main__")
    for forbidden in (
        "adyton", "adyton_attestation", "adyton_host", "adyton_models", "adyton_enclave.simulation",
        "adyton_enclave.probe",
        "httpx", "fastapi", "dcap_qvl", "torch",
    ):  # fmt: skip
        assert forbidden not in loaded


def test_an_appraisal_of_a_bare_quote_loads_no_way_to_the_network() -> None:
    """`adyton quote verify` is offline and quick to start: no HTTP client, no sealing and no SDK is imported."""
    loaded = imported_modules("import adyton.cli; adyton.cli.make_parser('quote')")
    assert "adyton_attestation.appraisal" in loaded
    for forbidden in (
        "httpx",
        "openai",
        "nacl",
        "adyton.client",
        "adyton_protocol.ohttp",
        "adyton_protocol.hpke",
    ):
        assert forbidden not in loaded


def test_the_client_loads_no_enclave_host_or_model_code() -> None:
    """Importing the client loads the verifier and the protocol only."""
    loaded = imported_modules(
        "import adyton, adyton.cli; adyton.cli.make_parser(); [getattr(adyton, name) for name in adyton.__all__]"
    )
    assert "httpx" in loaded
    for forbidden in ("adyton_enclave", "adyton_host", "adyton_models", "llama_cpp", "fastapi", "torch"):
        assert forbidden not in loaded
