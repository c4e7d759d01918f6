# SPDX-License-Identifier: Apache-2.0
"""``adyton-host up`` without ``--simulate``: a signed image under ``gramine-sgx``, on a server that is not there.

The machine is a fake tree and ``gramine-sgx`` a script of the same arguments; preflight, image, launch, supervisor and
relay are the real ones, in a process of their own.
"""

import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from adyton_host import cli
from adyton_host.catalog import choose
from adyton_host.enclave_config import EnclaveConfig
from adyton_host.image import load_image
from adyton_host.launching import gramine_direct, gramine_sgx
from adyton_host.simulation import SimulationDir, prepare
from adyton_host.supervisor import free_port
from adyton_protocol.errors import ConfigError
from sgx_server import MRENCLAVE, SgxServer, make_image, sgx_server
from tiny_appliance import tiny_catalog

TESTS = Path(__file__).parents[2]
PROGRAM = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(TESTS)!r})
from sgx_server import machine_over
from adyton_host import cli
from adyton_host.commands import up
root = Path(sys.argv[1])
arguments = cli.build_parser().parse_args(
    ["up", "--port", "0", "--json", "--enclave", str(root / "image"), "--state", str(root / "state"),
     "--endorsements", str(root / "endorsements.json"), "--endorsements-from", "none", *sys.argv[2:]]
)
arguments.run = lambda arguments: up.run(arguments, machine_over(root))
sys.exit(cli.finish(arguments))
"""


@pytest.fixture
def server() -> Iterator[SgxServer]:
    """A server with SGX on which everything is in order."""
    root = Path(tempfile.mkdtemp(prefix="sgx-"))
    with sgx_server(root) as built:
        yield built
    shutil.rmtree(root)


@contextlib.contextmanager
def host_on(server: SgxServer, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A whole host over that machine."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(server.root), *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as host:  # fmt: skip
        try:
            yield host
        finally:
            host.kill()


def test_a_signed_image_is_started_attests_and_is_served(server: SgxServer) -> None:
    """Ready says SGX and the signed MRENCLAVE; endorsements are served; SIGTERM ends all of it with status 0."""
    with host_on(server) as host:
        assert host.stdout is not None
        ready = json.loads(host.stdout.readline())
        assert (ready["event"], ready["simulated"], ready["simulation_dir"]) == ("ready", False, None)
        assert (ready["mrenclave"], ready["model"]) == (MRENCLAVE.hex(), "m")
        url = ready["base_url"]
        assert httpx.get(url + "/readyz", trust_env=False).json()["simulated"] is False
        assert "tcb_info" in httpx.get(url + "/adyton/endorsements", trust_env=False).json()
        attested = httpx.get(url + "/v1/aci/attestation?nonce=" + "00" * 32, trust_env=False).json()
        assert attested["attestation"]["tee_type"] == "sgx"
        assert set(attested["environment"]) <= {"LANG", "LC_CTYPE", "PATH", "PWD", "_"}
        host.send_signal(signal.SIGTERM)
        assert host.wait(timeout=30) == 0
    assert not psutil.pid_exists(ready["enclave_pid"])


def test_what_simulates_behind_gramine_sgx_is_ended(server: SgxServer, tmp_path: Path) -> None:
    """The enclave's own code with the simulated attester, where a real one was to be: status 1, and never served."""
    catalog = tiny_catalog(tmp_path)
    simulation = SimulationDir(path=tmp_path / "simulation")
    text = EnclaveConfig(
        simulation_platform=simulation.platform,
        models=(choose(catalog, None),),
        overrides={"engine": {"threads": 1}},
    ).to_toml(port=free_port())
    prepare(simulation, text)
    (server.image / "PLATFORM").write_text(str(simulation.platform))
    real = re.sub('attester = "simulated"\nsimulation_platform = .*\n', 'attester = "gramine"\n', text)
    make_image(server.image, config=real, weights=False)
    server.gramine("1.9", "simulated")
    with host_on(server) as host:
        output, errors = host.communicate(timeout=120)
    assert (host.returncode, output) == (1, "")
    assert "attests as 'simulated', and 'sgx' was to be started" in errors


def test_nothing_starts_while_something_fails(server: SgxServer) -> None:
    """Status 2, each finding with its fix, no state, no process; and not a word of simulation but how to ask for it."""
    server.gramine("1.8")
    server.remove("/dev/sgx_enclave")
    with host_on(server) as host:
        output, errors = host.communicate(timeout=60)
    assert (host.returncode, output) == (2, "")
    assert "gramine: 1.8" in errors
    assert "sgx_enclave: no /dev/sgx_enclave" in errors
    assert "SIMULATED" not in errors
    assert not (server.root / "state").exists()


def test_an_enclave_that_dies_in_gramine_is_explained(server: SgxServer) -> None:
    """What Gramine said last is what the operator reads."""
    server.gramine("1.9", "exit")
    with host_on(server) as host:
        output, errors = host.communicate(timeout=60)
    assert (host.returncode, output) == (1, "")
    assert "the fake enclave refuses to start" in errors


@pytest.mark.parametrize("option", ["--model=m", "--catalog=c.toml", "--enclave-config=e.toml"])
@pytest.mark.parametrize("simulate", [[], ["--simulate", "--enclave", "image"]])
def test_an_image_is_not_changed_by_options(
    capsys: pytest.CaptureFixture[str], option: str, simulate: list[str]
) -> None:
    """What it serves is measured; an option that seemed to change it would deceive the operator."""
    assert cli.main(["up", *simulate, option]) == 2
    assert option.partition("=")[0] in capsys.readouterr().err


def test_no_way_leads_from_one_kind_of_enclave_to_another(tmp_path: Path) -> None:
    """An image that simulates is not started for the hardware, nor one for the hardware without it."""
    simulating = load_image(make_image(tmp_path / "one", attester="simulated"), signed=True)
    with pytest.raises(ConfigError, match="does not ask the hardware"):
        gramine_sgx(simulating, program=Path("/bin/true"))
    real = load_image(make_image(tmp_path / "two"), signed=False)
    with pytest.raises(ConfigError, match="has no hardware to ask"):
        gramine_direct(real, program=Path("/bin/true"))
    assert gramine_sgx(load_image(real.directory, signed=True), program=Path("/bin/true")).tee_type == "sgx"
    assert gramine_direct(simulating, program=Path("/bin/true")).tee_type == "simulated"


def test_a_changed_configuration_is_not_started(tmp_path: Path) -> None:
    """What was not measured is not what was signed."""
    directory = make_image(tmp_path)
    path = directory / "root/adyton/enclave.toml"
    path.write_text(path.read_text().replace('name = "m"', 'name = "n"'))
    with pytest.raises(ConfigError, match="changed after"):
        gramine_sgx(load_image(directory, signed=True), program=Path("/bin/true"))


def test_without_gramine_the_error_says_where_it_is(tmp_path: Path) -> None:
    """And names the guide."""
    with pytest.raises(ConfigError, match=r"operator\.md"):
        gramine_sgx(load_image(make_image(tmp_path), signed=True), program=tmp_path / "absent")


def test_a_large_enclave_gets_more_time_to_start(tmp_path: Path) -> None:
    """Pages are added one by one; without EDMM all of them at the start."""
    small = gramine_sgx(
        load_image(make_image(tmp_path, enclave_size="1G", edmm_enable=False), signed=True),
        program=Path("/bin/true"),
    )
    large = gramine_sgx(
        load_image(make_image(tmp_path, enclave_size="64G", edmm_enable=False), signed=True),
        program=Path("/bin/true"),
    )
    assert small.start_timeout_s is not None
    assert large.start_timeout_s is not None
    assert large.start_timeout_s > 60 * 60
    assert small.command == ("/bin/true", str(tmp_path / "adyton"))
    assert small.image_dir == tmp_path


def test_endorsements_of_a_simulation_are_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """The option belongs to a real enclave."""
    assert cli.main(["up", "--simulate", "--endorsements", "e.json"]) == 2
    assert "--endorsements" in capsys.readouterr().err
