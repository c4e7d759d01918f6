# SPDX-License-Identifier: Apache-2.0
"""Start the real simulated appliance for a test, exactly as an operator would."""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from adyton import AsyncClient, Client, Simulation

BIN = Path(sys.executable).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Appliance:
    """A running appliance and where to look at it."""

    url: str
    directory: Path
    host: subprocess.Popen[str]
    ra_tls_url: str | None = None

    @property
    def simulation_dir(self) -> Path:
        """Root, collateral, policy and the simulated platform."""
        return self.directory / "simulation"

    @property
    def state_dir(self) -> Path:
        """What the supervisor writes: configuration, logs."""
        return self.directory / "state"

    @property
    def enclave(self) -> psutil.Process:
        """The enclave's process, found as the supervisor's child."""
        for child in psutil.Process(self.host.pid).children(recursive=True):
            if any("adyton_enclave" in word or "adyton-enclave" in word for word in child.cmdline()):
                return child
        raise LookupError("the supervisor has no enclave process")

    def kill_enclave(self, patience_s: float = 20) -> None:
        """Kill the enclave and return once its successor serves."""
        died = self.enclave
        died.kill()
        for _ in range(int(patience_s / 0.1)):
            with contextlib.suppress(LookupError, psutil.Error):
                if self.enclave.pid != died.pid and httpx.get(f"{self.url}/readyz").is_success:
                    return
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.host.wait(0.1)
        raise TimeoutError("no enclave came back")

    def simulation(self) -> Simulation:
        """What a client needs to accept this appliance."""
        return Simulation.from_dir(self.simulation_dir)

    def client(self) -> Client:
        """A synchronous client that has explicitly chosen simulation."""
        return Client(self.url, simulation=self.simulation())

    def async_client(self) -> AsyncClient:
        """An asynchronous client that has explicitly chosen simulation."""
        return AsyncClient(self.url, simulation=self.simulation())

    def adyton(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run an ``adyton`` command against this appliance."""
        where = ("--simulated", "--url", self.url, "--simulation-dir", str(self.simulation_dir))
        return self.offline(*arguments, *where, check=check)

    def offline(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run an ``adyton`` command that is told nothing of this appliance."""
        return subprocess.run(
            [str(BIN / "adyton"), *arguments],
            capture_output=True,
            text=True,
            check=check,
            timeout=120,
        )


@contextlib.contextmanager
def running(
    directory: Path, *options: str, program: Sequence[str] = (str(BIN / "adyton-host"),)
) -> Iterator[Appliance]:
    """Run ``adyton-host up --simulate``, or ``program`` in its place, on a free port until the block ends."""
    command = [
        *program, "up", "--simulate", "--port", "0", "--json",
        "--state", str(directory / "state"), "--simulation-dir", str(directory / "simulation"), *options,
    ]  # fmt: skip
    log_path = directory / "host.stderr"
    with (
        log_path.open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as host,
    ):
        try:
            line = host.stdout.readline() if host.stdout else ""
            if not line:
                raise RuntimeError(f"the appliance did not start:\n{log_path.read_text()}")
            ready = json.loads(line)
            yield Appliance(
                url=ready["base_url"], directory=directory, host=host, ra_tls_url=ready.get("ra_tls_url")
            )
        finally:
            host.send_signal(signal.SIGTERM)
            try:
                host.wait(timeout=20)
            except subprocess.TimeoutExpired:
                host.kill()
