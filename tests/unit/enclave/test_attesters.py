# SPDX-License-Identifier: Apache-2.0
"""Evidence: Gramine's pseudo-files, the simulated platform, and which of them a process may use."""

import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from attestation_device import Device, attestation_device, local_report, quote_of, report_body
from hypothesis import given
from hypothesis import strategies as st
from unit.enclave.harness import Enclave, configuration

from adyton_attestation.certificates import der_of
from adyton_attestation.simulation.install import measured_files as files_to_accept
from adyton_attestation.simulation.install import simulated_policy
from adyton_attestation.simulation.installation import Installation, ensure_installation
from adyton_attestation.simulation.verifier import SimulatedVerifier
from adyton_enclave import simulation
from adyton_enclave.attester import (
    REPORT_DATA_BYTES,
    GramineAttester,
    check_quote,
    make_attester,
    quoted_report_data,
)
from adyton_enclave.config import parse_configuration
from adyton_enclave.evidence import EvidenceDesk, TokenBucket
from adyton_enclave.simulation import make_simulated_attester, measured_files
from adyton_protocol.errors import (
    AppraisalError,
    AttestationError,
    ConfigError,
    NoRemoteAttestation,
    NotInEnclave,
    QuoteError,
    QuoteMalformed,
    QuoteOfAnother,
    QuotingServiceAway,
)
from adyton_protocol.measurement import simulated_mrenclave
from adyton_protocol.report import AttestationReport

ROOT = Path(__file__).resolve().parents[3]
NOW_S = 1_800_000_000
NONCE = "5a" * 32
REPORT_DATA = bytes(range(64))


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    """The pseudo-files of an enclave on a platform that works."""
    with attestation_device(tmp_path) as working:
        yield working


def test_gramine_quotes_what_it_was_asked_to(device: Device) -> None:
    """Report data is written to the pseudo-file as it is, and the quote about it handed on."""
    attester = GramineAttester(device.path)
    assert quoted_report_data(attester.quote(REPORT_DATA)) == REPORT_DATA
    assert device.written == [REPORT_DATA]
    assert attester.tee_type == "sgx"


def test_quotes_are_made_one_at_a_time(device: Device) -> None:
    """Threads that ask at once get each the quote about their own data: no write comes between write and quote."""
    attester = GramineAttester(device.path)
    asked = [bytes([number]) * REPORT_DATA_BYTES for number in range(8)]
    with ThreadPoolExecutor(len(asked)) as pool:
        quotes = list(pool.map(attester.quote, asked))
    assert [quoted_report_data(quote) for quote in quotes] == asked
    assert sorted(device.written) == asked


async def test_a_report_is_made_of_gramines_quote(device: Device) -> None:
    """What clients fetch, and what a model's key is released to: the quote binds keyset and challenge."""
    ring = Enclave().ring
    ring.rotate()
    bucket = TokenBucket(per_minute=60, burst=10, monotonic=lambda: 0.0)
    report = await EvidenceDesk(GramineAttester(device.path), ring, bucket).attest(NONCE)
    assert report.tee_type == "sgx"
    assert quoted_report_data(report.quote) == report.report_data()
    assert device.written == [report.report_data()]


def test_a_padded_quote_is_one(device: Device) -> None:
    """Some platforms return their whole buffer; zeros after the signature change nothing."""
    device.make_quote = lambda data: quote_of(report_body(data)) + bytes(100)
    assert quoted_report_data(GramineAttester(device.path).quote(REPORT_DATA)) == REPORT_DATA


WRONG_QUOTES: dict[str, tuple[Callable[[bytes], bytes], type[QuoteError]]] = {
    "empty": (lambda _data: b"", QuoteMalformed),
    "header only": (lambda data: quote_of(report_body(data))[:48], QuoteMalformed),
    "no signature": (lambda data: quote_of(report_body(data), signature_data=b""), QuoteMalformed),
    "cut short": (lambda data: quote_of(report_body(data))[:-1], QuoteMalformed),
    "more than a quote": (lambda data: quote_of(report_body(data)) + b"\1", QuoteMalformed),
    "larger than the buffer": (
        lambda data: quote_of(report_body(data), signature_data=bytes(8192)),
        QuoteMalformed,
    ),
    "of another version": (lambda data: quote_of(report_body(data), version=4), QuoteMalformed),
    "about other data": (lambda _data: quote_of(report_body(bytes(64))), QuoteOfAnother),
    "about another enclave": (
        lambda data: quote_of(report_body(data, mr_enclave=bytes(32))),
        QuoteOfAnother,
    ),
}


@pytest.mark.parametrize("name", WRONG_QUOTES)
def test_no_wrong_quote_leaves_the_enclave(device: Device, name: str) -> None:
    """What the host's quoting service returns is held against what the processor itself reported."""
    device.make_quote, expected = WRONG_QUOTES[name]
    with pytest.raises(expected):
        GramineAttester(device.path).quote(REPORT_DATA)


def test_report_data_that_something_else_overwrote_is_noticed(device: Device) -> None:
    """Report and quote that agree with one another, but not with what was asked, are refused."""
    device.make_report = lambda _data: local_report(report_body(bytes(64)))
    device.make_quote = lambda _data: quote_of(report_body(bytes(64)))
    with pytest.raises(QuoteOfAnother):
        GramineAttester(device.path).quote(REPORT_DATA)


@pytest.mark.parametrize("length", [0, 384, 431, 433])
def test_a_report_of_another_length_is_refused(device: Device, length: int) -> None:
    """EREPORT writes 432 bytes; nothing is compared with anything else."""
    device.make_report = lambda data: local_report(report_body(data)).ljust(433, b"\0")[:length]
    with pytest.raises(QuoteMalformed):
        GramineAttester(device.path).quote(REPORT_DATA)


@given(data=st.binary(max_size=9000))
def test_no_bytes_are_a_quote_by_chance(data: bytes) -> None:
    """Whatever the host's service returns is refused as one of the two kinds, and nothing else is raised."""
    body = report_body(REPORT_DATA)
    with pytest.raises((QuoteMalformed, QuoteOfAnother)):
        check_quote(data, local_report(body), REPORT_DATA)


@given(at=st.integers(0, len(quote_of(report_body(REPORT_DATA))) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_of_the_body_is_noticed(at: int, bit: int) -> None:
    """Every bit of what the quote signs about the enclave is compared; the signature itself is the client's matter."""
    body = report_body(REPORT_DATA)
    quote = bytearray(quote_of(body))
    quote[at] ^= 1 << bit
    try:
        check_quote(bytes(quote), local_report(body), REPORT_DATA)
    except QuoteError:
        return
    assert not 48 <= at < 432 + 4


def test_outside_of_gramine_there_is_no_enclave(tmp_path: Path) -> None:
    """Without /dev/attestation nothing starts; the error says what to do."""
    with pytest.raises(NotInEnclave, match=r"does not exist.*gramine-sgx"):
        GramineAttester(tmp_path / "attestation")


def test_gramine_direct_is_no_enclave(tmp_path: Path) -> None:
    """The directory alone, which gramine-direct has with nothing but keys in it, is none either."""
    (tmp_path / "keys").mkdir()
    with pytest.raises(NotInEnclave, match="gramine-direct"):
        GramineAttester(tmp_path)


@pytest.mark.parametrize("kind", [b"none", b"epid", b"", b"dcap2"])
def test_gramine_without_remote_attestation_fails_closed(tmp_path: Path, kind: bytes) -> None:
    """An enclave that cannot be attested by DCAP does not serve."""
    with (
        attestation_device(tmp_path, kind=kind) as device,
        pytest.raises(NoRemoteAttestation, match="remote_attestation"),
    ):
        GramineAttester(device.path)


def test_an_enclave_without_a_quote_file_fails_closed(device: Device) -> None:
    """Gramine leaves the file away when it was signed without attestation, whatever the type file says."""
    (device.path / "quote").unlink()
    with pytest.raises(NoRemoteAttestation):
        GramineAttester(device.path)


@pytest.mark.parametrize("length", [0, 32, 63, 65, 128])
def test_report_data_has_64_bytes(device: Device, length: int) -> None:
    """Gramine would pad or cut other lengths in silence."""
    with pytest.raises(AttestationError):
        GramineAttester(device.path).quote(bytes(length))
    assert device.written == []


def test_a_quoting_service_that_is_away_is_an_error_of_its_own(device: Device) -> None:
    """Gramine fails to open the file then; the error names the service, and the next quote may work."""
    attester = GramineAttester(device.path)
    (device.path / "quote").unlink()
    (device.path / "quote").mkdir()
    with pytest.raises(QuotingServiceAway, match="aesmd") as refused:
        attester.quote(REPORT_DATA)
    assert refused.value.fault == "operator"
    (device.path / "quote").rmdir()
    os.mkfifo(device.path / "quote")
    assert quoted_report_data(attester.quote(REPORT_DATA)) == REPORT_DATA


def test_an_enclave_without_a_local_report_is_an_error(device: Device) -> None:
    """A missing pseudo-file is a typed error, not an exception of the file system."""
    attester = GramineAttester(device.path)
    (device.path / "report").unlink()
    (device.path / "report").mkdir()
    (device.path / "quote").unlink()
    with pytest.raises(QuoteError, match="processor"):
        attester.quote(REPORT_DATA)


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
