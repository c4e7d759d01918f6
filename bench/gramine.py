# SPDX-License-Identifier: Apache-2.0
"""What Gramine costs: the appliance with its enclave under gramine-direct against the same enclave as a process.

Both appliances run side by side with the same model, settings and number of threads, and are measured in turns, so that
whatever else the machine does hits both alike; each figure of speed is the median over the rounds of Gramine over
native. Starts are those of the enclave alone, also in turns: from the start of the process until it is ready, in
seconds of the clock and of the processor. Memory is the most that the enclave's process ever held.

There is no SGX in this: no encrypted memory, no paging, no exits. It is what the library operating system costs.

Writes ``results/gramine.json`` beside this file.

Usage: ``python bench/gramine.py [--rounds 7] [--starts 3] [--tokens 96] [--shipped]``
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import psutil
from sealing import HttpFactory, free_port, measure, write_catalog

from adyton_attestation.simulation.warning import SimulatedAttestationWarning
from appliance_process import ROOT, Appliance, running

RESULTS: Final = ROOT / "bench" / "results"
CLIENTS: Final = (1, 4, 8)
THROUGHPUT_AIM: Final = 0.97
START_TIMEOUT_S: Final = 600
TRAPPED: Final = b"Emulating a raw system/supervisor call"
"""What gramine-direct says when the C library is not its own: each system call costs a signal then."""

_MEBIBYTE: Final = 1 << 20
_LOOK_S: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """One start of an enclave: seconds until it was ready, processor seconds until then, most memory it held."""

    ready_s: float
    processor_s: float
    peak_bytes: int


def render(directory: Path, catalog: Path | None) -> tuple[Path, Mapping[str, object]]:
    """An image for gramine-direct, and what was said about it."""
    command = [str(Path(sys.executable).parent / "adyton-host"), "manifest", "render", "--simulated", "--json",
               "--port", str(free_port()), "--output", str(directory / "image"),
               "--simulation-dir", str(directory / "simulation")]  # fmt: skip
    if catalog is not None:
        command += ["--catalog", str(catalog)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"no image could be rendered:\n{done.stderr}")
    facts: Mapping[str, object] = json.loads(done.stdout)
    return directory / "image", facts


def native_copy(image: Path, directory: Path) -> tuple[Path, int]:
    """A working directory in which the enclave runs natively with the configuration of ``image``, and its port."""
    port, lines = free_port(), []
    for line in (image / "root/adyton/enclave.toml").read_text().splitlines():
        name = line.partition(" = ")[0]
        if name == "listen_port":
            lines.append(f"listen_port = {port}")
        elif name == "simulation_platform":
            lines.append(f'simulation_platform = "{directory.parent}/simulation/platform"')
        else:
            lines.append(line.replace('"/models/', f'"{image}/models/'))
    directory.mkdir()
    (directory / "enclave.toml").write_text("\n".join(lines) + "\n")
    return directory, port


def peak_bytes(pid: int) -> int:
    """Most memory that a process ever held, in bytes (VmHWM, proc(5))."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("this kernel does not say how much memory a process held")


def start(command: list[str], directory: Path, port: int) -> Start:
    """Start an enclave, wait until it is ready, and end it."""
    began_s = time.perf_counter()
    with subprocess.Popen(
        command, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            while time.perf_counter() - began_s < START_TIMEOUT_S:
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).is_success:
                        spent = psutil.Process(process.pid).cpu_times()
                        return Start(
                            ready_s=time.perf_counter() - began_s,
                            processor_s=spent.user + spent.system,
                            peak_bytes=peak_bytes(process.pid),
                        )
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_LOOK_S)
                    break
            raise SystemExit(f"the enclave did not become ready: {' '.join(command)}")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


def measure_starts(image: Path, name: str, directory: Path, count: int) -> dict[str, object]:
    """Start both in turns; the first pair only warms the page cache."""
    where, port = native_copy(image, directory / "native-start")
    image_port = next(
        int(line.partition(" = ")[2])
        for line in (image / "root/adyton/enclave.toml").read_text().splitlines()
        if line.startswith("listen_port")
    )
    pairs: list[tuple[Start, Start]] = []
    for number in range(count + 1):
        under = start(["gramine-direct", name], image, image_port)
        native = start([sys.executable, "-I", "-m", "adyton_enclave"], where, port)
        if number:
            pairs.append((under, native))
        print(f"  start {number}/{count}", end="\r", file=sys.stderr)

    def median(values: Iterator[float]) -> float:
        return round(statistics.median(values), 3)

    return {
        "gramine_ready_s": median(under.ready_s for under, _ in pairs),
        "native_ready_s": median(native.ready_s for _, native in pairs),
        "ready_later_s": median(under.ready_s - native.ready_s for under, native in pairs),
        "gramine_processor_s": median(under.processor_s for under, _ in pairs),
        "native_processor_s": median(native.processor_s for _, native in pairs),
        "gramine_peak_mib": median(under.peak_bytes / _MEBIBYTE for under, _ in pairs),
        "native_peak_mib": median(native.peak_bytes / _MEBIBYTE for _, native in pairs),
    }


@contextlib.contextmanager
def served(directory: Path, *options: str) -> Iterator[tuple[Appliance, HttpFactory]]:
    """An appliance and clients of it that attest and seal."""
    directory.mkdir(exist_ok=True)
    with running(directory, *options) as appliance, appliance.client() as client:
        client.verify()
        yield appliance, client.http


def settings_of(image: Path, path: Path) -> Path:
    """The ``[engine]`` table of an image's configuration as an operator's file, so that both have as many threads."""
    text = (image / "root/adyton/enclave.toml").read_text()
    table = text.partition("\n[engine]\n")[2].partition("\n[")[0]
    path.write_text("[engine]\n" + table + "\n")
    return path


def main() -> int:
    """Measure, print, write JSON; exit 1 when the aim is missed, 2 without Gramine."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=7, help="paired rounds for each number of clients")
    parser.add_argument("--starts", type=int, default=3, help="paired starts after one that warms up")
    parser.add_argument("--tokens", type=int, default=96, help="tokens per answer")
    parser.add_argument(
        "--shipped", action="store_true", help="measure with the small shipped models instead"
    )
    arguments = parser.parse_args()
    if shutil.which("gramine-direct") is None:
        print("gramine-direct is not on the PATH; docs/gramine.md says how to get it", file=sys.stderr)
        return 2
    RESULTS.mkdir(exist_ok=True)
    warnings.simplefilter("ignore", SimulatedAttestationWarning)
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="adyton-bench-")))
        catalog = None if arguments.shipped else write_catalog(directory)
        image, facts = render(directory, catalog)
        name = Path(str(facts["manifest"])).stem
        starts = measure_starts(image, name, directory, arguments.starts)
        one, under = stack.enter_context(served(directory, "--enclave", str(image)))
        models = () if catalog is None else ("--catalog", str(catalog))
        engine = settings_of(image, directory / "engine.toml")
        two, native = stack.enter_context(
            served(directory / "native", *models, "--enclave-config", str(engine))
        )
        rows = measure(
            under,
            native,
            names=("gramine", "native"),
            at_once=CLIENTS,
            rounds=arguments.rounds,
            tokens=arguments.tokens,
        )
        serving = {
            "gramine_peak_mib": round(peak_bytes(one.enclave.pid) / _MEBIBYTE, 1),
            "native_peak_mib": round(peak_bytes(two.enclave.pid) / _MEBIBYTE, 1),
        }
        trapped = TRAPPED in (one.state_dir / "enclave.log").read_bytes()
    document = {
        "measures": "the enclave under gramine-direct over the same enclave as a process; no SGX",
        "model": "the shipped models" if arguments.shipped else "random weights, 120 M parameters, Q8_0",
        "gramine": subprocess.run(
            ["gramine-direct", "--version"], capture_output=True, text=True, check=False
        ).stdout.strip(),
        "system_calls": "trapped one by one: not Gramine's C library"
        if trapped
        else "by Gramine's C library",
        "measured_files": facts["measured_files"],
        "measured_mib": round(int(str(facts["measured_bytes"])) / _MEBIBYTE, 1),
        "tokens_per_answer": arguments.tokens,
        "rounds": arguments.rounds,
        "machine": {"cpu_count": os.cpu_count(), "platform": platform.platform()},
        "load_after": os.getloadavg()[0],
        "starts": starts,
        "memory_after_serving": serving,
        "rows": rows,
    }
    result = RESULTS / ("gramine-shipped.json" if arguments.shipped else "gramine.json")
    result.write_text(json.dumps(document, indent=2) + "\n")
    return report(document, rows, result)


def report(document: Mapping[str, object], rows: list[dict[str, object]], written: Path) -> int:
    """Print what was measured; return the exit status."""
    print(f"model: {document['model']}; system calls {document['system_calls']}")
    print(f"starts: {document['starts']}\nmemory: {document['memory_after_serving']}")
    print(f"{'clients':>8} {'Gramine tok/s':>14} {'native':>9} {'ratio':>6} {'first token later':>18}")
    missed = False
    for row in rows:
        ratio = float(str(row["throughput_ratio"]))
        missed |= ratio < THROUGHPUT_AIM
        print(
            f"{row['clients']:>8} {row['gramine_tokens_per_s']:>14.1f} {row['native_tokens_per_s']:>9.1f} "
            f"{ratio:>6.3f} {row['first_token_later_ms']:>15.2f} ms"
        )
    print(f"written: {written}")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
