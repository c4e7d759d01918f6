# SPDX-License-Identifier: Apache-2.0
"""What an appraisal costs over dcap-qvl's own verification, and how long ``adyton quote verify`` takes from its start.

Two measurements, each paired within a round, in changing order:

- *Warm*: ``appraise_quote`` with parsed endorsements against ``dcap_qvl.verify`` with parsed collateral, on the same
  bytes at the same time in one process. Ours contains dcap-qvl's verification, and adds every signature once more with
  another library, the guard and the policy. Parsing of endorsements is reported beside it, since it is done once for
  many quotes. Nothing waits in either, so that the time is the processor's, and a busy machine disturbs less.
- *Start*: the command as a process of its own against ``python -c pass``, wall time and time of the processor; the
  difference is what the checks need to start and to run. Compiled modules are in place, as after an installation.

A round is a block of calls whose median counts; over the rounds the median of the differences is reported, with the
smallest and the largest. Quotes: a simulated SGX quote, and Intel's samples where they are at hand.

Usage: ``python bench/appraisal.py [--rounds 15] [--quick] [--json]``
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import dcap_qvl

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

import real_samples
from adyton_attestation.bare_quote import appraise_quote
from adyton_attestation.endorsements import parse_endorsements
from adyton_attestation.policy import RAW_QUOTE_POLICY
from negatives import Case, real_case, simulated_world

RESULTS: Final = Path(__file__).parent / "results"
CALLS: Final = 20
AIM_MS: Final = 2.0
START_AIM_MS: Final = 100.0


def cases() -> dict[str, Case]:
    """Return what is appraised, by name; all of it is accepted."""
    found = {"simulated-sgx": simulated_world().case}
    try:
        samples = real_samples.samples()
    except real_samples.NotAvailable as reason:
        print(f"without real quotes: {reason}", file=sys.stderr)
        return found
    return found | {name: real_case(samples, name) for name in ("tdx_quote", "tdx_quote_td15ex")}


def block_ms(call: Callable[[], object]) -> float:
    """Time a block of calls; returns the median of one, in milliseconds."""
    taken = []
    for _ in range(CALLS):
        begun_ns = time.thread_time_ns()
        call()
        taken.append((time.thread_time_ns() - begun_ns) / 1e6)
    return statistics.median(taken)


def warm(case: Case, rounds: int) -> dict[str, Any]:
    """Measure the appraisal of one case against dcap-qvl's verification of it."""
    data = json.dumps(case.collateral).encode()
    endorsements, collateral = parse_endorsements(data), dcap_qvl.QuoteCollateralV3.from_json(data.decode())
    ways: dict[str, Callable[[], object]] = {
        "appraisal": lambda: appraise_quote(
            case.quote, endorsements, RAW_QUOTE_POLICY, now_s=case.now_s, root_der=case.root_der
        ),
        "dcap-qvl": lambda: dcap_qvl.verify_with_root_ca(case.quote, collateral, case.root_der, case.now_s),
        "parsing": lambda: parse_endorsements(data),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for call in ways.values():
        call()
    for number in range(rounds):
        order = list(ways)
        for name in order[number % 3 :] + order[: number % 3]:
            taken[name].append(block_ms(ways[name]))
    more = [ours - theirs for ours, theirs in zip(taken["appraisal"], taken["dcap-qvl"], strict=True)]
    return {
        "rounds": rounds,
        "median_ms": {name: statistics.median(times) for name, times in taken.items()},
        "more_ms": _spread(more),
        "within_aim": statistics.median(more) <= AIM_MS,
    }


def start(case: Case, rounds: int) -> dict[str, Any]:
    """Measure the command from its start against an interpreter that does nothing."""
    with tempfile.TemporaryDirectory(prefix="adyton-bench-") as scratch:
        quote, collateral, root = (Path(scratch) / name for name in ("quote", "collateral.json", "root.pem"))
        quote.write_bytes(case.quote)
        collateral.write_text(json.dumps(case.collateral))
        root.write_bytes(_pem(case.root_der))
        adyton = str(Path(sys.executable).with_name("adyton"))
        line = ["quote", "verify", "--quote", str(quote), "--collateral", str(collateral)]
        line += ["--at", str(case.now_s), "--root", str(root)]
        ways = {"command": [adyton, *line], "python": [sys.executable, "-c", "pass"]}
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for command in ways.values():
            _process_ms(command)
        for number in range(rounds):
            order = list(ways) if number % 2 else list(ways)[::-1]
            for name in order:
                taken[name].append(_process_ms(ways[name]))
    pairs = list(zip(taken["command"], taken["python"], strict=True))
    wall = [ours[0] - theirs[0] for ours, theirs in pairs]
    cpu = [ours[1] - theirs[1] for ours, theirs in pairs]
    return {
        "rounds": rounds,
        "more_wall_ms": _spread(wall),
        "more_cpu_ms": _spread(cpu),
        "within_aim": statistics.median(wall) <= START_AIM_MS,
    }


def _process_ms(command: list[str]) -> tuple[float, float]:
    """Run a process; returns its wall time and its time of the processor, in milliseconds."""
    # Modules are compiled once, as an installer does; the measurement is not about the compiler.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before, begun_ns = os.times(), time.perf_counter_ns()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    wall_ms = (time.perf_counter_ns() - begun_ns) / 1e6
    after = os.times()
    children_s = (after.children_user - before.children_user) + (
        after.children_system - before.children_system
    )
    return wall_ms, children_s * 1000


def _pem(der: bytes) -> bytes:
    from cryptography import x509  # noqa: PLC0415 - not part of what is measured
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415

    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "smallest": min(values), "largest": max(values)}


def table(document: dict[str, Any]) -> str:
    """Return the results for people."""
    lines = [f"{'quote':20} {'appraisal':>10} {'dcap-qvl':>10} {'more, ms':>10} {'parsing':>9}"]
    for name, result in document["warm"].items():
        times = result["median_ms"]
        lines.append(
            f"{name:20} {times['appraisal']:10.2f} {times['dcap-qvl']:10.2f}"
            f" {result['more_ms']['median']:10.2f} {times['parsing']:9.2f}"
        )
    lines.append(f"{'quote':20} {'wall, ms over python':>22} {'processor, ms':>15}")
    for name, result in document["start"].items():
        wall, cpu = result["more_wall_ms"], result["more_cpu_ms"]
        lines.append(f"{name:20} {wall['median']:22.1f} {cpu['median']:15.1f}")
    return "\n".join(lines)


def main() -> int:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=15, help="paired rounds (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="three rounds")
    parser.add_argument("--output", type=Path, default=RESULTS / "appraisal.json", help="results")
    parser.add_argument("--json", action="store_true", help="print the results as JSON and nothing else")
    arguments = parser.parse_args()
    rounds = 3 if arguments.quick else arguments.rounds
    warnings.simplefilter("ignore")
    found = cases()
    document: dict[str, Any] = {
        "measures": "an appraisal over dcap-qvl's own verification, and the command over a bare interpreter",
        "aims": {"more_ms": AIM_MS, "more_wall_ms": START_AIM_MS},
        "machine": {"cpu_count": os.cpu_count(), "platform": platform.platform()},
        "warm": {name: warm(case, rounds) for name, case in found.items()},
        "start": {name: start(case, rounds) for name, case in found.items()},
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(document, indent=1) + "\n")
    if arguments.json:
        json.dump(document, sys.stdout)
    else:
        print(table(document))
        print(f"\nwritten: {arguments.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
