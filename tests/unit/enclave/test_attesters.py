# SPDX-License-Identifier: Apache-2.0
"""Evidence: Gramine's pseudo-files, the simulated platform, and which of them a process may use."""

import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from unit.enclave.harness import Enclave, configuration

from adyton_attestation.certificates import der_of
from adyton_attestation.simulation.install import measured_files as files_to_accept
from adyton_attestation.simulation.install import simulated_policy
from adyton_attestation.simulation.installation import Installation, ensure_installation
from adyton_attestation.simulation.verifier import SimulatedVerifier
from adyton_enclave import simulation
from adyton_enclave.attester import GramineAttester, make_attester, quoted_report_data
from adyton_enclave.config import parse_configuration
from adyton_enclave.simulation import make_simulated_attester, measured_files
from adyton_protocol.errors import AppraisalError, AttestationError, ConfigError
from adyton_protocol.measurement import simulated_mrenclave
from adyton_protocol.report import AttestationReport

ROOT = Path(__file__).resolve().parents[3]
NOW_S = 1_800_000_000
NONCE = "5a" * 32
REPORT_DATA = bytes(range(64))


def platform_files(directory: Path, *, kind: str = "dcap\n", report_data: bytes = REPORT_DATA) -> Path:
    """A stand-in for /dev/attestation whose quote speaks about ``report_data``."""
    (directory / "attestation_type").write_text(kind)
    (directory / "quote").write_bytes(bytes(368) + report_data + bytes(600))
    return directory


def test_gramine_quotes_what_it_was_asked_to(tmp_path: Path) -> None:
    """Report data is written to the pseudo-file as it is, and the quote about it handed on."""
    attester = GramineAttester(platform_files(tmp_path))
    assert quoted_report_data(attester.quote(REPORT_DATA)) == REPORT_DATA
    assert (tmp_path / "user_report_data").read_bytes() == REPORT_DATA
    assert attester.tee_type == "sgx"


def test_a_quote_about_something_else_is_refused(tmp_path: Path) -> None:
    """When another thread or the platform mixed report data up, no evidence leaves the enclave."""
    attester = GramineAttester(platform_files(tmp_path, report_data=bytes(64)))
    with pytest.raises(AttestationError):
        attester.quote(REPORT_DATA)


def test_gramine_without_a_tee_fails_closed(tmp_path: Path) -> None:
    """The directory alone (gramine-direct has it) is no enclave; the error says what to do."""
    (tmp_path / "keys").mkdir()
    with pytest.raises(ConfigError, match="gramine-sgx"):
        GramineAttester(tmp_path)


def test_gramine_without_remote_attestation_fails_closed(tmp_path: Path) -> None:
    """An enclave that cannot be attested does not serve."""
    with pytest.raises(ConfigError, match="remote_attestation"):
        GramineAttester(platform_files(tmp_path, kind="none"))


@pytest.mark.parametrize("length", [0, 32, 63, 65, 128])
def test_report_data_has_64_bytes(tmp_path: Path, length: int) -> None:
    """Gramine would pad or cut other lengths in silence."""
    with pytest.raises(AttestationError):
        GramineAttester(platform_files(tmp_path)).quote(bytes(length))


def test_a_platform_that_gives_no_quote_is_an_error(tmp_path: Path) -> None:
    """A missing quote is a typed error, not an exception of the file system."""
    platform_files(tmp_path)
    (tmp_path / "quote").unlink()
    with pytest.raises(AttestationError):
        GramineAttester(tmp_path).quote(REPORT_DATA)


def test_a_gramine_configuration_does_not_fall_back() -> None:
    """On a machine without SGX the production configuration starts nothing, least of all the simulator."""
    if Path("/dev/attestation/attestation_type").exists():
        pytest.skip("this machine attests")
    with pytest.raises(ConfigError):
        make_attester(configuration())


# --- Simulation --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """A simulated platform."""
    return ensure_installation(tmp_path_factory.mktemp("simulation"), NOW_S)


def verifier_of(installation: Installation, files: dict[str, bytes]) -> SimulatedVerifier:
    """A verifier that accepts exactly these files on this platform."""
    policy = simulated_policy(installation, simulated_mrenclave(files))
    return SimulatedVerifier(policy, der_of(installation.pki.root.certificate))


def report_of(installation: Installation) -> AttestationReport:
    """What a simulated enclave serves."""
    attester = make_simulated_attester(installation.directory / "platform")
    enclave = Enclave()
    enclave.clock.wall = NOW_S
    keyset = enclave.ring.rotate().keyset
    report = AttestationReport(tee_type="simulated", quote=bytes(1), keyset=keyset, nonce=NONCE)
    quote = attester.quote(report.report_data())
    return AttestationReport(tee_type="simulated", quote=quote, keyset=keyset, nonce=NONCE)


def test_the_simulated_quote_is_accepted_by_the_simulated_verifier(installation: Installation) -> None:
    """Attester and verifier, written apart, agree on every byte of quote, keys and measurement."""
    verifier = verifier_of(installation, files_to_accept([ROOT]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = verifier.appraise(
            report_of(installation), installation.endorsements, challenge=NONCE, now_s=NOW_S
        )
    assert result.tee_type == "simulated"
    assert {check.verdict for check in result.checks} <= {"pass", "skip"}


def test_another_measurement_is_refused(installation: Installation) -> None:
    """One changed byte in one measured file is another enclave."""
    files = files_to_accept([ROOT])
    files["adyton_enclave/gateway.py"] += b"\n"
    verifier = verifier_of(installation, files)
    report = report_of(installation)
    with pytest.warns(UserWarning, match="(?i)simulat"), pytest.raises(AppraisalError):
        verifier.appraise(report, installation.endorsements, challenge=NONCE, now_s=NOW_S)


def test_both_sides_measure_the_same_files() -> None:
    """The attester measures what the installation step accepts: all of enclave and protocol but the simulator."""
    files = measured_files()
    assert files == files_to_accept([ROOT])
    assert "adyton_enclave/simulation.py" not in files
    assert {
        "adyton_enclave/__main__.py",
        "adyton_enclave/engine/engine.py",
        "adyton_protocol/ohttp.py",
    } <= set(files)


def test_the_simulator_announces_itself(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every start in simulation says so on stderr."""
    make_simulated_attester(installation.directory / "platform")
    assert "SIMULATED ENCLAVE" in capsys.readouterr().err


def test_a_missing_platform_is_a_configuration_error(tmp_path: Path) -> None:
    """Without its platform directory the simulator does not start."""
    with pytest.raises(ConfigError):
        make_simulated_attester(tmp_path)


def test_the_factory_makes_the_simulated_attester(installation: Installation) -> None:
    """The configuration alone chooses it."""
    text = (
        f'version = 1\nattester = "simulated"\nsimulation_platform = "{installation.directory}/platform"\n'
        f'[[model]]\nname = "m"\npath = "m"\ncontent = "sha256:{"0" * 64}"\nweights = "sha256:{"0" * 64}"\nn_ctx = 64\n'
    )
    attester = make_attester(parse_configuration(text.encode()))
    assert isinstance(attester, simulation.SimulatedAttester)


def test_an_image_without_the_simulator_cannot_simulate(installation: Installation, tmp_path: Path) -> None:
    """With the measured files alone, a configuration that asks for simulation is refused."""
    for name, content in measured_files().items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "enclave.toml").write_text(
        f'version = 1\nattester = "simulated"\nsimulation_platform = "{installation.directory}/platform"\n'
        f'[[model]]\nname = "m"\npath = "m"\ncontent = "sha256:{"0" * 64}"\nweights = "sha256:{"0" * 64}"\nn_ctx = 64\n'
    )
    # A directory entry comes before the editable installation's; -P keeps the working directory out.
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv = ['x']; "
    script += "from adyton_enclave.__main__ import main; sys.exit(main())"
    ran = subprocess.run(
        [sys.executable, "-P", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 2
    assert "does not contain the simulator" in ran.stderr
    assert "SIMULATED" not in ran.stderr
    shutil.rmtree(tmp_path)
