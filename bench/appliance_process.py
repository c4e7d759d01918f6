# SPDX-License-Identifier: Apache-2.0
"""Start the simulated appliance for a measurement, exactly as an operator would."""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from adyton import Simulation

BIN = Path(sys.executable).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """Where it listens and what a client needs to accept it."""

    url: str
    simulation: Simulation


@contextlib.contextmanager
def running(directory: Path, *, catalog: Path | None = None) -> Iterator[Running]:
    """Run ``adyton-host up --simulate`` on a free port, with its state in ``directory``."""
    simulation = directory / "simulation"
    command = [str(BIN / "adyton-host"), "up", "--simulate", "--port", "0", "--json",
               "--state", str(directory / "state"), "--simulation-dir", str(simulation)]  # fmt: skip
    if catalog is not None:
        command += ["--catalog", str(catalog)]
    log_path = directory / "host.stderr"
    with (
        log_path.open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as host,
    ):
        try:
            line = host.stdout.readline() if host.stdout else ""
            if not line:
                raise SystemExit(f"the appliance did not start:\n{log_path.read_text()}")
            yield Running(url=json.loads(line)["base_url"], simulation=Simulation.from_dir(simulation))
        finally:
            host.send_signal(signal.SIGTERM)
            host.wait(timeout=30)
