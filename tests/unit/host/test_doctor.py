# SPDX-License-Identifier: Apache-2.0
"""The doctor over machines that are not there: one thing is broken, and exactly that is found, with what mends it."""

import contextlib
import json
import shutil
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from tiny_gguf import make_tiny_gguf

from adyton_host import cli
from adyton_host.doctor.clock_state import ClockState, read_clock_state
from adyton_host.doctor.cpuid import Registers, read_cpuid
from adyton_host.doctor.examination import examine_hardware, examine_simulation
from adyton_host.doctor.finding import Finding
from adyton_host.doctor.images import memory_need
from adyton_host.doctor.machine import Access, Machine
from adyton_host.doctor.memory import MemoryNeed, epc_bytes, examine_huge_files, examine_memory
from adyton_host.doctor.quoting import parse_qcnl
from adyton_host.doctor.storage import examine_endorsements
from adyton_host.image import load_image, size_bytes
from adyton_host.preflight import preflight
from adyton_protocol.errors import ConfigError
from sgx_server import MRENCLAVE, NOW_S, RELEASE, SgxServer, make_image, qcnl, sgx_server


@pytest.fixture
def server() -> Iterator[SgxServer]:
    """A server with SGX on which everything is in order; below a short path, for the sake of its socket."""
    root = Path(tempfile.mkdtemp(prefix="sgx-"))
    with sgx_server(root) as built:
        yield built
    shutil.rmtree(root)


def findings(server: SgxServer) -> dict[str, Finding]:
    """By name."""
    return {finding.name: finding for finding in examine_hardware(server.machine, server.wishes)}


def test_a_server_in_order_passes_everything(server: SgxServer) -> None:
    """No finding fails, warns or is left out; two sockets with 64 GiB each are added up."""
    found = findings(server)
    assert {finding.verdict for finding in found.values()} == {"pass"}
    assert "128.0 GiB" in found["epc"].detail
    assert MRENCLAVE.hex() in found["signature"].detail
    assert "0xd0003f5" in found["sgx"].detail
    assert all(finding.fix == "" for finding in found.values())
    preflight(server.machine, server.wishes, pytest.fail)


_FLAGS = "fpu avx avx512f"
_INSTALLED_QPL = "/usr/lib/x86_64-linux-gnu/libdcap_quoteprov.so.1"
_Break = Callable[[SgxServer], object]

FAILURES: list[tuple[str, str, _Break, str]] = [
    ("not x86-64", "sgx", lambda s: s.change(architecture="aarch64"), "up --simulate"),
    (
        "another maker", "sgx",
        lambda s: s.write("/proc/cpuinfo", "vendor_id : AuthenticAMD\nmodel name : AMD EPYC\nflags : avx\n"),
        "up --simulate",
    ),
    (
        "no SGX in the processor", "sgx",
        lambda s: (s.flags(_FLAGS), s.without_cpuid_bit(7, "ebx", 1 << 2)), "Xeon",
    ),
    (
        "a virtual machine without SGX", "sgx",
        lambda s: (s.flags(_FLAGS + " hypervisor"), s.without_cpuid_bit(7, "ebx", 1 << 2)), "sgx-epc",
    ),
    (
        "off in the firmware", "sgx firmware",
        lambda s: (s.flags(_FLAGS + " sgx_lc"), s.without_cpuid_bit(0x12, "eax", 1)), "firmware setup",
    ),
    ("not used by Linux", "sgx firmware", lambda s: s.flags(_FLAGS + " sgx_lc"), "dmesg"),
    ("launch control locked", "launch control", lambda s: s.flags(_FLAGS + " sgx"), "Unlocked"),
    ("an instruction set is missing", "cpu features", lambda s: s.flags("avx sgx sgx_lc"), "build_llama.py"),
    ("an old kernel", "kernel", lambda s: s.write("/proc/sys/kernel/osrelease", "5.4.0-200-generic\n"), "apt install"),
    (
        "a kernel without the driver", "kernel",
        lambda s: s.write(f"/boot/config-{RELEASE}", "# CONFIG_X86_SGX is not set\n"), "apt install",
    ),
    ("no device", "sgx_enclave", lambda s: s.remove("/dev/sgx_enclave"), "dmesg"),
    (
        "a driver from elsewhere", "sgx_enclave",
        lambda s: (s.remove("/dev/sgx_enclave"), s.write("/dev/isgx", "")), "uninstall",
    ),
    (
        "a container without the device", "sgx_enclave",
        lambda s: (s.remove("/dev/sgx_enclave"), s.write("/.dockerenv", "")), "--device /dev/sgx_enclave",
    ),
    (
        "a device of a group", "sgx_enclave",
        lambda s: (s.root / "dev/sgx_enclave").chmod(0o660), "usermod -aG sgx_prv $USER",
    ),
    ("a device of root", "sgx_enclave", lambda s: (s.root / "dev/sgx_enclave").chmod(0o600), "udev"),
    ("no device for provisioning", "sgx_provision", lambda s: s.remove("/dev/sgx_provision"), "dmesg"),
    (
        "aesmd may not provision", "sgx_provision",
        lambda s: (s.root / "dev/sgx_provision").chmod(0o600), "usermod -aG sgx_prv aesmd",
    ),
    ("aesmd not installed", "aesmd", lambda s: s.remove("/var/run/aesmd/aesm.socket"), "apt install sgx-aesm-service"),
    (
        "aesmd not running", "aesmd",
        lambda s: (s.remove("/var/run/aesmd/aesm.socket"), s.write("/opt/intel/sgx-aesm-service/aesm/x", "")),
        "systemctl enable --now aesmd",
    ),
    ("aesmd dead", "aesmd", lambda s: s.aesm.close(), "systemctl restart aesmd"),
    ("no provider library", "quote provider", lambda s: s.remove(_INSTALLED_QPL), "libsgx-dcap-default-qpl"),
    ("no qcnl.conf", "qcnl", lambda s: s.remove("/etc/sgx_default_qcnl.conf"), "libsgx-dcap-default-qpl"),
    ("a damaged qcnl.conf", "qcnl", lambda s: s.write("/etc/sgx_default_qcnl.conf", '{"pccs_url": '), "--reinstall"),
    ("no address of a PCCS", "pccs", lambda s: s.write("/etc/sgx_default_qcnl.conf", qcnl("pccs")), "pccs_url"),
    ("no Gramine", "gramine", lambda s: s.remove("/usr/bin/gramine-sgx"), "packages.gramineproject.io"),
    ("an older Gramine", "gramine", lambda s: s.gramine("1.8"), "apt install gramine"),
    ("no image", "image", lambda s: shutil.rmtree(s.image), "manifest render"),
    ("an unsigned image", "image", lambda s: (s.image / "adyton.sig").unlink(), "manifest sign"),
    ("a damaged signature", "signature", lambda s: (s.image / "adyton.sig").write_bytes(b""), "manifest sign"),
    ("an image that simulates", "attester", lambda s: make_image(s.image, attester="simulated"), "render"),
    (
        "a changed configuration", "configuration",
        lambda s: (s.image / "root/adyton/enclave.toml").write_text('listen_port = 9\nattester = "gramine"\n'),
        "manifest render",
    ),
    ("no weights", "model files", lambda s: (s.image / "models/m.gguf").unlink(), "copy"),
    ("an image with debugging", "lint", lambda s: make_image(s.image, debug=True), "manifest lint"),
    (
        "too small an EPC", "enclave memory",
        lambda s: make_image(s.image, enclave_size="256G", edmm_enable=False), "PRMRR",
    ),
    (
        "no EPC", "epc",
        lambda s: (
            [s.remove(f"/sys/devices/system/node/node{n}/x86/sgx_total_bytes") for n in (0, 1)],
            s.change(cpuid=lambda _leaf, sub: None if sub else Registers(3, 4, 0, 0)),
        ),
        "PRMRR",
    ),
    ("an impossible date", "clock", lambda s: s.change(now_s=lambda: 0.0), "chrony"),
    ("a full disk", "disk", lambda s: s.change(free_bytes=lambda _: 1 << 20), "make room"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "broken", "fix"), [case[1:] for case in FAILURES], ids=[case[0] for case in FAILURES]
)
def test_what_is_broken_fails_by_name_and_with_what_mends_it(
    server: SgxServer, name: str, broken: _Break, fix: str
) -> None:
    """And nothing starts: the preflight refuses with the same words."""
    broken(server)
    finding = findings(server)[name]
    assert finding.verdict == "fail", finding
    assert fix in finding.fix
    with pytest.raises(ConfigError, match="nothing falls back") as refused:
        preflight(server.machine, server.wishes, lambda _: None)
    assert f"{name}: {finding.detail}" in str(refused.value)


def _clock(error_s: float) -> ClockState:
    """Disciplined where the error is small."""
    return ClockState(synchronised=error_s < 10, max_error_s=error_s)


_END_S = datetime(2026, 12, 20, tzinfo=UTC).timestamp()

WARNINGS: list[tuple[str, str, _Break, str]] = [
    ("no SGX2", "sgx2", lambda s: s.without_cpuid_bit(0x12, "eax", 2), "EDMM"),
    ("a kernel without EDMM", "kernel", lambda s: s.write("/proc/sys/kernel/osrelease", "5.15.0-1-x\n"), "apt install"),
    ("a later Gramine", "gramine", lambda s: s.gramine("1.10"), "render"),
    ("a build of Gramine", "gramine", lambda s: s.gramine("1.9post~UNRELEASED"), "render"),
    (
        "an unchecked PCCS elsewhere", "qcnl",
        lambda s: s.write("/etc/sgx_default_qcnl.conf", qcnl("https://pccs.invalid:1/", use_secure_cert=False)),
        "use_secure_cert",
    ),
    ("no PCCS", "pccs", lambda s: s.pccs.close(), "systemctl restart pccs"),
    (
        "no way to Intel", "pccs",
        lambda s: s.write("/etc/sgx_default_qcnl.conf", qcnl("http://api.trustedservices.intel.com:1/")), "Intel",
    ),
    ("a narrow EPC", "enclave memory", lambda s: make_image(s.image, enclave_size="128G", edmm_enable=False), "PRMRR"),
    (
        "two nodes", "enclave memory",
        lambda s: (s.epc(100, 100), make_image(s.image, enclave_size="128G", edmm_enable=False)), "node",
    ),
    ("no weights at all", "model files", lambda s: make_image(s.image, weights=False), "model"),
    (
        "huge pages set aside", "hugepages",
        lambda s: s.write("/proc/meminfo", "MemTotal: 1000000 kB\nHugePages_Total: 100\nHugepagesize: 2048 kB\n"),
        "nr_hugepages=0",
    ),
    (
        "no transparent huge pages", "hugepages",
        lambda s: s.write("/sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n"), "madvise",
    ),
    ("a clock that runs free", "clock", lambda s: s.change(clock_state=lambda: _clock(16.0)), "chrony"),
    ("a clock that is far off", "clock", lambda s: s.change(clock_state=lambda: _clock(9.0)), "chrony"),
    ("little room", "disk", lambda s: s.change(free_bytes=lambda _: 500 << 20), "make room"),
    ("no endorsements", "endorsements", lambda s: s.wishes.endorsements.unlink(), "--endorsements-from"),
    ("old endorsements", "endorsements", lambda s: s.change(now_s=lambda: NOW_S + 90 * 86_400), "--endorsements-from"),
    ("endorsements that end today", "endorsements", lambda s: s.change(now_s=lambda: _END_S - 3600.0), "air gap"),
    ("something else for endorsements", "endorsements", lambda s: s.wishes.endorsements.write_text("[]"), "air gap"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "broken", "fix"), [case[1:] for case in WARNINGS], ids=[case[0] for case in WARNINGS]
)
def test_what_could_be_better_warns_and_stops_nothing(
    server: SgxServer, name: str, broken: _Break, fix: str
) -> None:
    """A PCCS that is down, above all, does not turn its outage into one of the appliance."""
    broken(server)
    finding = findings(server)[name]
    assert finding.verdict == "warn", finding
    assert fix in finding.fix
    said: list[str] = []
    preflight(server.machine, server.wishes, said.append)
    assert any(line.startswith(f"warning: {name}: {finding.detail}") for line in said)


def test_only_what_is_broken_changes_its_verdict(server: SgxServer) -> None:
    """One finding for one cause: the others stay as they were, or say that there is nothing to look at."""
    server.gramine("1.8")
    assert [name for name, finding in findings(server).items() if finding.verdict != "pass"] == ["gramine"]
    server.gramine("1.9")
    server.flags(_FLAGS)
    server.without_cpuid_bit(7, "ebx", 1 << 2)
    found = findings(server)
    assert [name for name, finding in found.items() if finding.verdict == "fail"] == ["sgx"]
    assert found["sgx2"].verdict == found["epc"].verdict == "skip"


def test_a_changed_measured_file_is_named(server: SgxServer) -> None:
    """Gramine would refuse it with a hash; the operator gets its name, and only a few of many."""
    config = server.image / "root/adyton/enclave.toml"
    config.write_text(config.read_text() + "\n")
    finding = findings(server)["measured files"]
    assert finding.verdict == "fail"
    assert "root/adyton/enclave.toml was changed" in finding.detail
    make_image(server.image, trusted_files=[
        {"uri": "file:root/adyton/enclave.toml", "sha256": "00" * 32},
        *({"uri": f"file:root/{name}.py", "sha256": "00" * 32} for name in "abcd"),
    ])  # fmt: skip
    detail = findings(server)["measured files"].detail
    assert "root/a.py is missing" in detail
    assert "and 2 more" in detail


def test_a_taken_port_of_the_enclave_is_found(server: SgxServer) -> None:
    """Whoever listens there would be taken for the enclave."""
    with socket.create_server(("127.0.0.1", load_image(server.image, signed=True).port)):
        finding = findings(server)["enclave port"]
    assert finding.verdict == "fail"
    assert "ss -ltnp" in finding.fix


def test_processor_facts_come_from_cpuid_where_linux_is_silent(server: SgxServer) -> None:
    """Without the files of sysfs, sections of the EPC are added up as the processor lists them."""
    for node in (0, 1):
        server.remove(f"/sys/devices/system/node/node{node}/x86/sgx_total_bytes")
    assert epc_bytes(server.machine) == (2 << 32,)
    server.change(cpuid=lambda _leaf, _subleaf: None)
    assert epc_bytes(server.machine) == ()
    assert findings(server)["sgx2"].verdict == "skip"


@given(
    parts=st.dictionaries(st.text(), st.integers(0, 1 << 40)),
    committed=st.integers(0, 1 << 41),
    epc=st.integers(1, 1 << 42),
)
def test_what_does_not_fit_never_passes(parts: dict[str, int], committed: int, epc: int) -> None:
    """More than there is fails, close to it warns; what is committed at start counts whether it is used or not."""
    section = Registers(1, 0, epc & 0xFFFFF000, epc >> 32)
    machine = Machine(root=Path("/nonexistent"), cpuid=lambda _leaf, sub: section if sub == 2 else None)
    need = MemoryNeed(parts=parts, committed_bytes=committed)
    _, fits, _ = examine_memory(machine, need, sgx=True)
    room = epc & ~0xFFF
    assert need.total_bytes == max(committed, sum(parts.values()))
    if room:
        assert (fits.verdict == "fail") == (need.total_bytes > room)
        assert (fits.verdict == "pass") == (need.total_bytes <= 0.9 * room)


def test_what_an_image_needs_is_what_it_was_rendered_for(tmp_path: Path) -> None:
    """Weights and KV cache of its model, from the header of the file, and the runtime; a sealed file tells less."""
    make_tiny_gguf(tmp_path / "tiny.gguf", n_ctx=256)
    config = 'listen_port = 1\nattester = "gramine"\n[engine]\nn_ctx_total = 4096\n'
    config += '[[model]]\nname = "t"\npath = "/models/m.gguf"\n'
    image = make_image(tmp_path / "image", config=config)
    shutil.copyfile(tmp_path / "tiny.gguf", image / "models/m.gguf")
    parts = memory_need(load_image(image, signed=True)).parts
    assert parts["weights of t"] == (tmp_path / "tiny.gguf").stat().st_size
    assert parts["KV cache of t, 4096 cells"] > 0
    assert sum(parts.values()) > 1_500_000_000
    make_image(image, config=config + f'sealed = {{ key_id = "{"5e" * 32}" }}\n')
    assert "weights (KV cache not known)" in memory_need(load_image(image, signed=True)).parts


def test_large_trusted_files_cost_time() -> None:
    """What Gramine hashes at start is reckoned; weights belong among the allowed files."""
    assert examine_huge_files({"a.py": 1000}).verdict == "pass"
    finding = examine_huge_files({"a.py": 1000, "m.gguf": 11 * 10**8})
    assert finding.verdict == "warn"
    assert "m.gguf" in finding.detail
    assert "30 s" in finding.detail


@pytest.mark.parametrize(
    ("text", "url", "checks"),
    [
        (qcnl("https://p:1/"), "https://p:1/", True),
        (qcnl("https://p:1/", use_secure_cert=False), "https://p:1/", False),
        ("# old\nPCCS_URL=https://p:1/\nUSE_SECURE_CERT=FALSE\n", "https://p:1/", False),
        ("PCCS_URL = https://p:1/", "https://p:1/", True),
        ("", "https://localhost:8081/sgx/certification/v4/", True),
        ("{}", "https://localhost:8081/sgx/certification/v4/", True),
    ],
)  # fmt: skip
def test_both_forms_of_the_configuration_are_read(text: str, url: str, checks: bool) -> None:
    """JSON with comments, and lines of an older version; what is missing has the library's default."""
    parsed = parse_qcnl(text)
    assert (parsed.url, parsed.checks_tls) == (url, checks)


@given(st.text() | st.text().map(lambda text: "{" + text + "}"))
def test_any_text_is_a_configuration_or_an_error(text: str) -> None:
    """Nothing else comes out."""
    with contextlib.suppress(ValueError):
        assert isinstance(parse_qcnl(text).url, str)


@given(st.binary())
def test_any_bytes_are_endorsements_or_a_warning(server_root: Path, data: bytes) -> None:
    """The host reads two dates of a document from elsewhere, and survives whatever it is."""
    path = server_root / "endorsements.json"
    path.write_bytes(data)
    assert examine_endorsements(Machine(root=server_root), path).verdict == "warn"


@pytest.fixture(scope="module")
def server_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for all examples."""
    return tmp_path_factory.mktemp("root")


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_a_manifest_or_a_configuration_error(server_root: Path, data: bytes) -> None:
    """A damaged image is the operator's, and named as such."""
    directory = make_image(server_root / "image", port=1)
    (directory / "adyton.manifest.sgx").write_bytes(data)
    with pytest.raises(ConfigError):
        load_image(directory, signed=True)


@given(st.integers(0, 1 << 50))
def test_sizes_are_read_as_gramine_writes_them(size: int) -> None:
    """Bytes, hexadecimal digits and units."""
    assert size_bytes(size) == size_bytes(str(size)) == size_bytes(hex(size)) == size
    assert size_bytes(f"{size}G") == size << 30
    assert size_bytes(f"{size}m") == size << 20


@given(st.text() | st.none() | st.booleans() | st.floats())
def test_what_is_no_size_counts_as_none(value: object) -> None:
    """And never as an exception."""
    assert size_bytes(value) >= 0 or str(value).strip().startswith("-")


@pytest.mark.parametrize(
    ("mode", "owner", "group", "allowed"),
    [(0o600, True, False, True), (0o600, False, True, False), (0o660, False, True, True), (0o660, False, False, False),
     (0o666, False, False, True), (0o066, True, True, False), (0o606, False, True, False)],
)  # fmt: skip
def test_permissions_are_read_as_the_kernel_reads_them(
    mode: int, owner: bool, group: bool, allowed: bool
) -> None:
    """The first class that fits decides: an owner without permission is not helped by the others'."""
    access = Access(owner_id=10, group_id=20, mode=mode)
    assert access.allows(10 if owner else 11, frozenset({20} if group else {21})) is allowed
    assert access.allows(0, frozenset())


def test_the_instruction_answers_on_this_machine() -> None:
    """On x86-64 the vendor is text; elsewhere there is no answer, and no crash."""
    registers = read_cpuid(0, 0)
    if registers is not None:
        vendor = b"".join(
            part.to_bytes(4, "little") for part in (registers.ebx, registers.edx, registers.ecx)
        )
        assert vendor.isascii()
        assert read_cpuid(0, 0) == registers


def test_the_kernel_answers_about_its_clock() -> None:
    """Reading needs no privilege."""
    state = read_clock_state()
    assert state is None or state.max_error_s >= 0


def _certificate(directory: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(tz=UTC)  # noqa: TID251 -- a certificate for the next minutes
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    paths = directory / "cert.pem", directory / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return paths


@pytest.mark.parametrize(("checks", "verdict"), [(False, "pass"), (True, "warn")])
def test_tls_of_the_pccs_is_checked_and_nothing_sent(
    server: SgxServer, tmp_path: Path, checks: bool, verdict: str
) -> None:
    """A certificate that nobody vouches for is told from a server that is not there; no byte of a request arrives."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*_certificate(tmp_path))
    received: list[bytes] = []

    def serve() -> None:
        connection, _ = server.pccs.accept()
        try:
            with context.wrap_socket(connection, server_side=True) as secured:
                received.append(secured.recv(1))
        except OSError:
            received.append(b"")

    thread = threading.Thread(target=serve)
    thread.start()
    url = f"https://localhost:{server.pccs.getsockname()[1]}/"
    server.write("/etc/sgx_default_qcnl.conf", qcnl(url, use_secure_cert=checks))
    finding = findings(server)["pccs"]
    thread.join()
    assert finding.verdict == verdict
    assert ("certificate" in finding.detail) == checks
    assert received == [b""]


def test_simulation_needs_no_sgx(server: SgxServer) -> None:
    """On any machine: nothing of the hardware is looked at."""
    found = {finding.name for finding in examine_simulation(server.machine, server.wishes)}
    assert found.isdisjoint({"sgx", "sgx_enclave", "aesmd", "gramine", "epc", "image"})
    assert {"python", "model", "disk", "clock"} <= found


def test_the_command_shows_every_fix_and_fails(
    server: SgxServer, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """For people with one line for each fix, for programs as JSON; the exit status says whether something fails."""
    arguments = ["doctor", "--port", "0", "--state", str(tmp_path), "--enclave", str(tmp_path / "none")]
    assert cli.main(arguments) == 1
    shown = capsys.readouterr().out
    assert "fail  image:" in shown
    assert "fix: adyton-host manifest render" in shown
    assert cli.main([*arguments, "--json"]) == 1
    listed = json.loads(capsys.readouterr().out)
    assert all(set(finding) == {"name", "verdict", "detail", "fix"} for finding in listed)
    assert len(listed) == len({finding["name"] for finding in listed})
