# SPDX-License-Identifier: Apache-2.0
"""The supervisor over real processes: it waits for attestation, restarts, stops, leaves nothing."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton_host.config import HostSettings, RelayLimits, SupervisorTiming
from adyton_host.enclave_config import EnclaveConfig
from adyton_host.errors import EnclaveStartError
from adyton_host.relay import enclave_client
from adyton_host.routing import RoutingTable
from adyton_host.state import StateDir, hold_simulation_dir, hold_state_dir, read_record
from adyton_host.supervisor import EnclaveLaunch, Supervisor, free_port, stated_tee_type
from adyton_protocol import media
from adyton_protocol.errors import ConfigError

SCRIPT = Path(__file__).with_name("fake_enclave_process.py")
FAST = SupervisorTiming(start_timeout_s=20.0, poll_s=0.01, stop_grace_s=10.0, backoff_first_s=0.01)


@dataclass
class Scene:
    """A supervisor over the fake enclave process."""

    supervisor: Supervisor
    table: RoutingTable
    client: httpx.AsyncClient
    state: StateDir
    restarted: asyncio.Event

    async def report(self) -> dict[str, object]:
        base_url = self.table.any_ready()
        assert base_url is not None
        response = await self.client.get(base_url + media.ATTESTATION_PATH)
        return dict(response.json())


@contextlib.asynccontextmanager
async def scene(
    directory: Path, mode: str = "serve", timing: SupervisorTiming = FAST, tee_type: str = "simulated"
) -> AsyncIterator[Scene]:
    """Everything but the start; stops the supervisor at the end."""
    with hold_state_dir(directory / "state") as state:
        async with enclave_client(RelayLimits()) as client:
            table, restarted, port = RoutingTable(client), asyncio.Event(), free_port()
            supervisor = Supervisor(
                EnclaveLaunch(
                    command=(sys.executable, "-I", str(SCRIPT), mode),
                    config=EnclaveConfig(simulation_platform=directory, models=()).to_toml(port=port),
                    port=port,
                    tee_type=tee_type,
                ),
                state=state,
                table=table,
                client=client,
                timing=timing,
                on_restart=restarted.set,
            )
            try:
                yield Scene(supervisor, table, client, state, restarted)
            finally:
                await supervisor.stop()


def names_in(directory: Path) -> list[str]:
    """Names of the files in a directory."""
    return sorted(path.name for path in directory.iterdir())


async def until_ended(pid: int) -> None:
    """Wait until a process is gone (or only its exit status is left)."""
    async with asyncio.timeout(10):
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_start_returns_once_the_enclave_attests(tmp_path: Path) -> None:
    """After the start the enclave is in the routing table, and it answers a challenge."""
    async with scene(tmp_path) as stage:
        await stage.supervisor.start()
        assert stage.table.ready_count() == 1
        assert (await stage.report())["pid"] == stage.supervisor.pid


async def test_the_enclave_runs_in_a_fresh_directory_with_a_clean_environment(tmp_path: Path) -> None:
    """Nothing of the operator's environment reaches it; its configuration is the only file there."""
    async with scene(tmp_path) as stage:
        await stage.supervisor.start()
        report = await stage.report()
        assert set(report["environment"]) <= {"LANG", "LC_CTYPE", "PATH"}  # type: ignore[call-overload]
        run_dir = Path(str(report["cwd"]))
        assert run_dir.parent == stage.state.path / "run"
        assert names_in(run_dir) == ["enclave.toml"]
    assert names_in(tmp_path / "state") == ["enclave.log", "lock"]


async def test_an_enclave_that_dies_is_restarted_as_a_new_process(tmp_path: Path) -> None:
    """Its place in the table is taken by another process with the same configuration."""
    async with scene(tmp_path) as stage:
        await stage.supervisor.start()
        first = stage.supervisor.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        async with asyncio.timeout(10):
            await stage.restarted.wait()
            while stage.table.any_ready() is None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert stage.supervisor.pid != first
        assert (await stage.report())["pid"] == stage.supervisor.pid
        assert len(stage.table.snapshot()) == 1


async def test_stop_leaves_no_process(tmp_path: Path) -> None:
    """SIGTERM ends the enclave; nothing of its process group is left and nothing restarts it."""
    async with scene(tmp_path) as stage:
        await stage.supervisor.start()
        pid = stage.supervisor.pid
        assert pid is not None
        await stage.supervisor.stop()
        assert not psutil.pid_exists(pid)
        assert stage.table.snapshot() == {}
        assert not stage.restarted.is_set()


async def test_an_enclave_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    """After the grace time nothing is asked any more."""
    timing = SupervisorTiming(start_timeout_s=20.0, poll_s=0.01, stop_grace_s=0.05)
    async with scene(tmp_path, "stubborn", timing) as stage:
        await stage.supervisor.start()
        pid = stage.supervisor.pid
        assert pid is not None
        await stage.supervisor.stop()
        assert not psutil.pid_exists(pid)


async def test_an_enclave_that_ends_before_it_attests_is_an_error(tmp_path: Path) -> None:
    """The error shows what the enclave said last; nothing is restarted at the first start."""
    async with scene(tmp_path, "exit") as stage:
        with pytest.raises(EnclaveStartError) as caught:
            await stage.supervisor.start()
        assert "refuses to start" in caught.value.log_tail
        assert stage.supervisor.pid is None


async def test_an_enclave_that_never_attests_is_an_error(tmp_path: Path) -> None:
    """The start has a deadline, and what did not meet it does not stay."""
    timing = SupervisorTiming(start_timeout_s=0.5, poll_s=0.01)
    async with scene(tmp_path, "never", timing) as stage:
        with pytest.raises(EnclaveStartError, match="did not attest"):
            await stage.supervisor.start()
        assert stage.supervisor.pid is None
        assert stage.table.snapshot() == {}


async def test_an_enclave_of_another_kind_is_ended_and_never_served(tmp_path: Path) -> None:
    """A real enclave was to be started, and what answers calls itself simulated: an error, and no process stays."""
    async with scene(tmp_path, tee_type="sgx") as stage:
        with pytest.raises(EnclaveStartError, match=r"'simulated'.*'sgx'"):
            await stage.supervisor.start()
        assert stage.supervisor.pid is None
        assert stage.table.snapshot() == {}


@given(
    st.binary()
    | st.recursive(
        st.text(), lambda inner: st.dictionaries(st.sampled_from(["attestation", "tee_type"]), inner)
    ).map(lambda value: json.dumps(value).encode())
)
def test_a_kind_is_read_from_any_bytes(report: bytes) -> None:
    """Whatever an enclave answers, the host finds a text or nothing."""
    assert stated_tee_type(report) is None or json.loads(report)["attestation"][
        "tee_type"
    ] == stated_tee_type(report)


def test_two_hosts_cannot_share_a_state_directory(tmp_path: Path) -> None:
    """The second one is told who holds it; after the first has ended it gets it."""
    with hold_state_dir(tmp_path) as state:
        state.write_record({"pid": 4711, "base_url": "http://127.0.0.1:1"})
        with pytest.raises(ConfigError, match="4711"), hold_state_dir(tmp_path):
            pass
        assert read_record(tmp_path) is not None
    assert read_record(tmp_path) is None
    with hold_state_dir(tmp_path):
        pass


def test_two_hosts_cannot_share_a_simulation_directory(tmp_path: Path) -> None:
    """Its policy accepts one host's enclave; a second host would make clients refuse the first one's."""
    refused = pytest.raises(ConfigError, match="--simulation-dir")
    with hold_simulation_dir(tmp_path), refused, hold_simulation_dir(tmp_path):
        pass


HOST_PROGRAM = """
import sys
from pathlib import Path
from adyton_host.config import HostSettings, SupervisorTiming
from adyton_host.enclave_config import EnclaveConfig
from adyton_host.service import Plan, up
from adyton_host.simulation import SimulationDir
from adyton_host.supervisor import EnclaveLaunch, free_port
directory, script = Path(sys.argv[1]), sys.argv[2]
port = free_port()
plan = Plan(
    settings=HostSettings(port=0, state_dir=directory / "state", drain_s=1),
    launch=EnclaveLaunch(
        command=(sys.executable, "-I", script, "serve"),
        config=EnclaveConfig(simulation_platform=directory, models=()).to_toml(port=port),
        port=port,
        tee_type="simulated",
    ),
    model="m",
    simulation=SimulationDir(path=directory),
)
up(plan, lambda ready: print(ready.base_url, ready.enclave_pid, flush=True))
print("stopped", flush=True)
"""


@contextlib.contextmanager
def host_process(directory: Path) -> Iterator[tuple[subprocess.Popen[str], str, int]]:
    """A whole host in a process of its own, over the fake enclave."""
    with subprocess.Popen(
        [sys.executable, "-c", HOST_PROGRAM, str(directory), str(SCRIPT)], stdout=subprocess.PIPE, text=True
    ) as host:
        try:
            assert host.stdout is not None
            base_url, enclave_pid = host.stdout.readline().split()
            yield host, base_url, int(enclave_pid)
        finally:
            host.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_host_and_enclave_in_order(tmp_path: Path, number: int) -> None:
    """The host serves, then a signal ends it with status 0, and its enclave and files are gone."""
    with host_process(tmp_path) as (host, base_url, enclave_pid):
        assert httpx.get(base_url + "/readyz", trust_env=False).json()["ready"] is True
        sealed = httpx.post(
            base_url + media.GATEWAY_PATH,
            content=b"\x01sealed",
            headers={"content-type": media.OHTTP_REQUEST},
            trust_env=False,
        )
        assert json.loads(sealed.content) == {"pid": enclave_pid}
        record = read_record(tmp_path / "state")
        assert record is not None
        assert record["base_url"] == base_url
        host.send_signal(number)
        assert host.wait(timeout=20) == 0
        assert host.stdout is not None
        assert host.stdout.read() == "stopped\n"
    assert not psutil.pid_exists(enclave_pid)
    assert read_record(tmp_path / "state") is None


async def test_the_enclave_does_not_outlive_a_killed_host(tmp_path: Path) -> None:
    """SIGKILL leaves the host no chance to stop its enclave; the kernel does it."""
    with host_process(tmp_path) as (host, _, enclave_pid):
        host.kill()
        host.wait(timeout=10)
        await until_ended(enclave_pid)


def test_settings_have_the_documented_defaults() -> None:
    """The guide and the client rely on these."""
    settings = HostSettings()
    assert (settings.host, settings.port) == ("127.0.0.1", 8470)
    assert settings.limits.max_request_bytes == media.MAX_REQUEST_BYTES
