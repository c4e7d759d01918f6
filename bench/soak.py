# SPDX-License-Identifier: Apache-2.0
"""The appliance at saturation for an hour: does memory stay flat, does every request end, are all KV cells freed?

More callers than sequences ask for everything at once and cancel at random (``soak_load.py``), while the memory of
host and enclave is sampled. The KV cache is made small, so that sequences are preempted, and the queue short, so that
it overflows. The run is bounded by ``--minutes``; it is not part of the test suite.

Writes ``results/soak.json`` and ``results/soak.png`` beside this file; exit status 1 when a verdict is bad.

Usage: ``python bench/soak.py [--minutes 60] [--model shipped] [--callers 32] [--seed 0]``
"""

import argparse
import asyncio
import dataclasses
import json
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
from engine import SHIPPED, model_file
from tqdm import tqdm

import inside
from adyton import AsyncClient
from adyton_attestation.simulation.warning import SimulatedAttestationWarning
from appliance_process import ROOT, Appliance, running
from peers import Settings, write_catalog, write_overrides
from random_models import NAMES
from soak_load import Caller, Rules, Tally

RESULTS: Final = ROOT / "bench" / "results"
SEQUENCES: Final = 16
QUEUE: Final = 16
CELLS_PER_SEQUENCE: Final = 160
"""Fewer than most requests grow to, so that cells run out and sequences are preempted."""
WARM_UP_SHARE: Final = 0.25
FLAT_SHARE: Final = 0.02
FLAT_BYTES: Final = 4 * 2**20
MIN_MINUTES: Final = 10.0
"""Below, allocators and caches still fill up, and a slope says nothing."""
_SAMPLES: Final = 720
_MIN_INTERVAL_S: Final = 1.0
_DRAIN_S: Final = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One look at the processes, ``at_s`` after the start."""

    at_s: float
    host_rss_bytes: int
    enclave_rss_bytes: int
    enclave_files: int
    enclave_threads: int
    running: int
    waiting: int
    kv_cells_used: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """A straight line through a process's memory after warming up.

    Attributes:
        flat: The line rises by at most 2 % of the median, or 4 MiB, over the time it covers.
    """

    median_bytes: float
    slope_bytes_per_hour: float
    rise_bytes: float
    flat: bool


def trend(times_s: Sequence[float], sizes: Sequence[int]) -> Trend:
    """Least squares over the samples after the first quarter."""
    begin = int(len(sizes) * WARM_UP_SHARE)
    times, values = np.asarray(times_s[begin:]), np.asarray(sizes[begin:], dtype=np.float64)
    slope = float(np.polyfit(times, values, 1)[0]) if len(values) > 2 else 0.0
    median = float(np.median(values))
    rise = slope * float(times[-1] - times[0])
    return Trend(
        median_bytes=median,
        slope_bytes_per_hour=slope * 3600,
        rise_bytes=rise,
        flat=rise <= max(FLAT_SHARE * median, FLAT_BYTES),
    )


class Watcher:
    """Samples a running appliance."""

    def __init__(self, appliance: Appliance, books: Path) -> None:
        self._host = psutil.Process(appliance.host.pid)
        self._enclave = appliance.enclave
        self._books = books
        self._started_s = time.monotonic()
        self.samples: list[Sample] = []

    def lanes(self) -> list[dict[str, int]]:
        """The engine's own books, at most a moment old."""
        lanes: list[dict[str, int]] = json.loads(self._books.read_text())["lanes"]
        return lanes

    def look(self) -> Sample:
        """Take a sample."""
        lanes = self.lanes()
        sample = Sample(
            at_s=time.monotonic() - self._started_s,
            host_rss_bytes=self._host.memory_info().rss,
            enclave_rss_bytes=self._enclave.memory_info().rss,
            enclave_files=self._enclave.num_fds(),
            enclave_threads=self._enclave.num_threads(),
            running=sum(lane["running"] for lane in lanes),
            waiting=sum(lane["waiting_requests"] for lane in lanes),
            kv_cells_used=sum(lane["kv_cells_used"] for lane in lanes),
        )
        self.samples.append(sample)
        return sample

    async def drained(self) -> Sample:
        """Wait until nothing runs, or for a while; return the last sample."""
        end_s = time.monotonic() + _DRAIN_S
        while True:
            await asyncio.sleep(0.5)
            sample = self.look()
            if not sample.running + sample.waiting + sample.kv_cells_used or time.monotonic() > end_s:
                return sample


async def load(
    appliance: Appliance, watcher: Watcher, rules: Rules, arguments: argparse.Namespace
) -> tuple[Tally, Sample]:
    """Run all callers for the given time, then let them finish; return the tally and the last sample."""
    tally = Tally()
    duration_s: float = 60 * arguments.minutes
    interval_s = max(_MIN_INTERVAL_S, duration_s / _SAMPLES)
    started_s = time.monotonic()

    def over() -> bool:
        return time.monotonic() - started_s >= duration_s

    async with appliance.async_client() as client:
        await client.verify()
        async with client.http() as http:
            callers = [
                Caller(http, tally, rules, arguments.seed * 10_000 + number).call_until(over)
                for number in range(arguments.callers)
            ]
            calling = asyncio.gather(*callers)
            with tqdm(total=round(duration_s), unit="s", disable=arguments.json) as bar:
                while not calling.done() and not over():
                    await asyncio.wait((calling,), timeout=interval_s)
                    watcher.look()
                    bar.update(round(time.monotonic() - started_s) - bar.n)
                    bar.set_postfix_str(f"{sum(tally.asked.values())} requests, {tally.stuck} stuck")
            await calling
        last = await watcher.drained()
        await _still_serves(client)
    return tally, last


async def _still_serves(client: AsyncClient) -> None:
    """One more ordinary request."""
    body = {"messages": [{"role": "user", "content": "How many pens?"}], "max_tokens": 4}
    async with client.http() as http:
        response = await http.post("/v1/chat/completions", json=body)
        response.raise_for_status()


def soak(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run it; return the results as JSON."""
    path, pin, n_ctx = model_file(arguments.model)
    n_ctx = min(n_ctx, 1024)
    settings = Settings(
        path=path, pin=pin, n_ctx=n_ctx, n_cells=SEQUENCES * CELLS_PER_SEQUENCE, sequences=SEQUENCES
    )
    rules = Rules(n_ctx=n_ctx, candidates=SEQUENCES, limit_s=arguments.limit)
    with tempfile.TemporaryDirectory(prefix="adyton-soak-") as name:
        directory = Path(name)
        books = directory / "books.json"
        overrides = write_overrides(settings, directory, max_queue=QUEUE)
        options = ("--catalog", str(write_catalog(settings, directory)), "--enclave-config", str(overrides))
        with running(directory, *options, program=inside.host_program("books", books)) as appliance:
            enclave_pid = appliance.enclave.pid
            watcher = Watcher(appliance, books)
            tally, last = asyncio.run(load(appliance, watcher, rules, arguments))
            restarted = appliance.enclave.pid != enclave_pid
    times_s = [sample.at_s for sample in watcher.samples]
    trends = {
        "host": trend(times_s, [sample.host_rss_bytes for sample in watcher.samples]),
        "enclave": trend(times_s, [sample.enclave_rss_bytes for sample in watcher.samples]),
    }
    long_enough = arguments.minutes >= MIN_MINUTES
    verdicts = {
        "no stuck request": tally.stuck == 0,
        "no unexpected error": not tally.errors,
        "no KV cell left": last.kv_cells_used == 0 and last.running == 0 and last.waiting == 0,
        "the enclave never restarted": not restarted,
        **({"memory is flat": all(found.flat for found in trends.values())} if long_enough else {}),
    }
    return {
        "measures": "the appliance at saturation, with random cancellations",
        "command": (
            f"python bench/soak.py --minutes {arguments.minutes:g} --model {arguments.model} "
            f"--callers {arguments.callers} --seed {arguments.seed}"
        ),
        "model": arguments.model,
        "minutes": arguments.minutes,
        "callers": arguments.callers,
        "sequences": SEQUENCES,
        "kv_cells": settings.n_cells,
        "queue": QUEUE,
        "verdicts": verdicts,
        "trends": {name: dataclasses.asdict(found) for name, found in trends.items()},
        "tally": tally.to_json(),
        "last": dataclasses.asdict(last),
        "samples": [dataclasses.asdict(sample) for sample in watcher.samples],
    }


def summary(document: dict[str, Any]) -> str:
    """The results in words."""
    tally = document["tally"]
    requests = sum(tally["asked"].values())
    lines = [
        (
            f"{requests} requests by {document['callers']} callers in {document['minutes']:g} minutes, "
            f"{tally['tokens']} tokens or events read; the longest took {tally['longest_s']:.1f} s"
        ),
        "  asked: " + ", ".join(f"{name} {count}" for name, count in sorted(tally["asked"].items())),
        "  ended: " + ", ".join(f"{name} {count}" for name, count in sorted(tally["ended"].items())),
    ]
    if tally["errors"]:
        lines.append("  errors: " + ", ".join(f"{name} {count}" for name, count in tally["errors"].items()))
    for name, found in document["trends"].items():
        lines.append(
            f"  {name}: {found['median_bytes'] / 2**20:.1f} MiB, "
            f"{found['slope_bytes_per_hour'] / 2**20:+.2f} MiB an hour"
        )
    if document["minutes"] < MIN_MINUTES:
        lines.append(f"  memory: no verdict; that takes at least {MIN_MINUTES:g} minutes")
    lines += [f"  {'pass' if good else 'FAIL'}  {name}" for name, good in document["verdicts"].items()]
    return "\n".join(lines)


def plot(document: dict[str, Any], path: Path) -> None:
    """Draw memory, and what the engine was doing, over time."""
    import matplotlib as mpl  # noqa: PLC0415 - not needed for measuring

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - as above

    samples = document["samples"]
    minutes = [sample["at_s"] / 60 for sample in samples]
    figure, (above, below) = plt.subplots(2, 1, figsize=(8, 5), layout="constrained", sharex=True)
    for key, label, colour in (
        ("enclave_rss_bytes", "enclave", "#37618e"),
        ("host_rss_bytes", "host", "#8e9a37"),
    ):
        above.plot(minutes, [sample[key] / 2**20 for sample in samples], label=label, color=colour)
    above.set(title="resident memory (MiB)", ylim=(0, None))
    above.legend(loc="lower right")
    below.plot(minutes, [sample["running"] for sample in samples], label="sequences", color="#37618e")
    below.plot(minutes, [sample["waiting"] for sample in samples], label="requests waiting", color="#b3261e")
    below.set(xlabel="minutes", title="in the engine", ylim=(0, None))
    below.legend(loc="lower right")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> int:
    """Soak, print the verdicts, write JSON and plot."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n", 1)[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="how long callers begin requests")
    parser.add_argument("--model", choices=(SHIPPED, *NAMES), default=SHIPPED)
    parser.add_argument("--callers", type=int, default=32, help="requests at once")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds after which a request is stuck")
    parser.add_argument("--seed", type=int, default=0, help="of what is asked and when it is cancelled")
    parser.add_argument("--output", type=Path, default=RESULTS / "soak.json")
    parser.add_argument("--json", action="store_true", help="print the results as JSON and nothing else")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", SimulatedAttestationWarning)
    # Otherwise the servers would stay behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    document = soak(arguments)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(document, indent=1) + "\n")
    plot(document, arguments.output.with_suffix(".png"))
    if arguments.json:
        json.dump(document, sys.stdout)
    else:
        print(summary(document))
        print(f"written: {arguments.output}, {arguments.output.with_suffix('.png')}")
    return 0 if all(document["verdicts"].values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
