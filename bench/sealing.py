# SPDX-License-Identifier: Apache-2.0
"""What sealing costs: the whole appliance against the same engine in the clear, at 1 and 8 clients.

Sealed: client SDK, relay, gateway, padding, receipts, two hops. Unsealed: plain HTTP to the same API over the same
engine build, model and configuration, in one hop. Both run side by side and are measured in turns, so that
whatever else the machine does hits both alike; each figure is the median over the rounds of sealed over unsealed.
The time to the first token is that of one request beside the other clients' running streams. The clients share the
machine with the appliance, so that their part of the work counts, too.

Writes ``results/sealing.json`` and ``results/sealing.png`` beside this file.

Usage: ``python bench/sealing.py [--rounds 7] [--tokens 96] [--shipped]``
"""

import argparse
import contextlib
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from adyton_attestation.simulation.warning import SimulatedAttestationWarning
from appliance_process import ROOT, make_tiny_gguf, running

RESULTS: Final = ROOT / "bench" / "results"
CLIENTS: Final = (1, 8)
PROBES: Final = 9
THROUGHPUT_AIM: Final = 0.97
FIRST_TOKEN_AIM_MS: Final = 5.0
PROMPT: Final = "Leo has 12 pens. Mia has 4 more pens than Leo. How many pens does Mia have?"


HttpFactory = Callable[[], httpx.Client]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One request: seconds to the first piece of text, seconds in all, tokens generated."""

    first_s: float
    total_s: float
    tokens: int


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def write_catalog(directory: Path) -> Path:
    """A catalog with a random-weight model of about 120 million parameters that never ends an answer early."""
    made = make_tiny_gguf(directory / "bench.gguf", width=768, layers=24, heads=24, kv_heads=8, n_ctx=1024)
    catalog = directory / "catalog.toml"
    catalog.write_text(
        f'version = 1\ndefault = "bench"\n\n[[model]]\nname = "bench"\nfile = "{made.path.name}"\n'
        f'content = "{made.pin.content}"\nweights = "{made.pin.weights}"\n'
        'license = "Apache-2.0"\nn_ctx = 1024\nrole = "generator"\n'
        "[model.sampling]\ntemperature = 0.8\ntop_p = 0.95\ntop_k = 40\nmin_p = 0.05\nmax_tokens = 256\n"
    )
    return catalog


@contextlib.contextmanager
def sealed_server(directory: Path, catalog: Path) -> Iterator[HttpFactory]:
    """The appliance as an operator runs it; yields HTTP clients that attest and seal."""
    with (
        running(directory, "--catalog", str(catalog)) as appliance,
        appliance.client() as client,
    ):
        client.verify()
        yield client.http


@contextlib.contextmanager
def plain_server(directory: Path) -> Iterator[HttpFactory]:
    """The same configuration in the clear; yields plain HTTP clients."""
    source = next((directory / "state").rglob("enclave.toml")).read_text()
    port = free_port()
    lines = [
        f"listen_port = {port}" if line.startswith("listen_port") else line for line in source.splitlines()
    ]
    run = directory / "plain"
    run.mkdir()
    (run / "enclave.toml").write_text("\n".join(lines) + "\n")
    with subprocess.Popen([sys.executable, str(ROOT / "bench" / "plain_server.py")], cwd=run) as server:
        base = f"http://127.0.0.1:{port}"
        try:
            for _ in range(600):
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(base + "/readyz").status_code == httpx.codes.OK:
                        break
                with contextlib.suppress(subprocess.TimeoutExpired):
                    server.wait(0.1)
            yield lambda: httpx.Client(base_url=base, timeout=120)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=30)


def generate(http: httpx.Client, tokens: int) -> Timing:
    """Stream one answer."""
    body = {
        "messages": [{"role": "user", "content": PROMPT}], "max_tokens": tokens, "temperature": 0,
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    started = time.perf_counter()
    first_s, generated = 0.0, 0
    with http.stream("POST", "/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line[6:])
            if not first_s and any(choice["delta"].get("content") for choice in event["choices"]):
                first_s = time.perf_counter() - started
            if event.get("usage"):
                generated = event["usage"]["completion_tokens"]
    return Timing(first_s=first_s, total_s=time.perf_counter() - started, tokens=generated)


def load(factory: HttpFactory, clients: int, tokens: int) -> float:
    """Run ``clients`` at once; return tokens per second over all."""
    timings: list[Timing] = []
    barrier = threading.Barrier(clients + 1)

    def work() -> None:
        with factory() as http:
            barrier.wait()
            timings.append(generate(http, tokens))

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    barrier.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - started
    if len(timings) != clients:
        raise SystemExit("a request failed; see above")
    return sum(t.tokens for t in timings) / elapsed


def first_text(factory: HttpFactory, clients: int, tokens: int) -> float:
    """Return the median time to the first text of one request, in s, beside ``clients - 1`` running streams."""
    busy = threading.Event()

    def keep_busy() -> None:
        with factory() as http:
            while not busy.is_set():
                generate(http, tokens)

    threads = [threading.Thread(target=keep_busy) for _ in range(clients - 1)]
    for thread in threads:
        thread.start()
    with factory() as http:
        generate(http, 2)
        timings = [generate(http, 2).first_s for _ in range(PROBES)]
    busy.set()
    for thread in threads:
        thread.join()
    return statistics.median(timings)


def measure(
    one: HttpFactory,
    other: HttpFactory,
    *,
    names: tuple[str, str],
    at_once: tuple[int, ...],
    rounds: int,
    tokens: int,
) -> list[dict[str, object]]:
    """Alternate between the two, and compare within each round.

    Args:
        one: What is measured.
        other: What it is measured against.
        names: Of both, in the rows.
        at_once: Numbers of clients.
        rounds: How often.
        tokens: Of each answer.
    """
    rows: list[dict[str, object]] = []
    for clients in at_once:
        load(other, clients, 8), load(one, clients, 8)
        pairs: list[tuple[tuple[float, float], tuple[float, float]]] = []
        for number in range(rounds):
            order = (other, one) if number % 2 else (one, other)
            rates = {id(factory): load(factory, clients, tokens) for factory in order}
            firsts = {id(factory): first_text(factory, clients, tokens) for factory in order}
            pairs.append(((rates[id(one)], firsts[id(one)]), (rates[id(other)], firsts[id(other)])))
            print(f"  {clients} client(s), round {number + 1}/{rounds}", end="\r", file=sys.stderr)
        ratios = [a[0] / b[0] for a, b in pairs]
        later_ms = [(a[1] - b[1]) * 1000 for a, b in pairs]
        rows.append(
            {
                "clients": clients,
                f"{names[0]}_tokens_per_s": statistics.median(a[0] for a, _ in pairs),
                f"{names[1]}_tokens_per_s": statistics.median(b[0] for _, b in pairs),
                "throughput_ratio": statistics.median(ratios),
                "throughput_ratio_range": [min(ratios), max(ratios)],
                "first_token_later_ms": statistics.median(later_ms),
                "first_token_later_ms_range": [min(later_ms), max(later_ms)],
            }
        )
    return rows


def plot(rows: list[dict[str, object]], model: str, path: Path) -> None:
    """Draw both figures with their aims."""
    import matplotlib as mpl  # noqa: PLC0415 - not needed for measuring

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - as above

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    labels = [f"{row['clients']} client{'s' if row['clients'] != 1 else ''}" for row in rows]
    left.bar(labels, [row["throughput_ratio"] for row in rows], color="#37618e", width=0.5)
    left.axhline(THROUGHPUT_AIM, color="#b3261e", linestyle="--", label=f"aim: at least {THROUGHPUT_AIM}")
    left.set(title="throughput, sealed / unsealed", ylim=(0, 1.15))
    left.legend(loc="lower right")
    right.bar(labels, [row["first_token_later_ms"] for row in rows], color="#37618e", width=0.5)
    right.axhline(
        FIRST_TOKEN_AIM_MS, color="#b3261e", linestyle="--", label=f"aim: at most {FIRST_TOKEN_AIM_MS:g} ms"
    )
    right.set(title="first token later by (ms)")
    right.legend(loc="upper right")
    figure.suptitle(f"cost of sealing, {model}")
    figure.savefig(path, dpi=110)


def main() -> int:
    """Measure, print a table, write JSON and plot; exit 1 when an aim is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=7, help="paired rounds for each number of clients")
    parser.add_argument("--tokens", type=int, default=96, help="tokens per answer")
    parser.add_argument("--shipped", action="store_true", help="measure with the small shipped model instead")
    arguments = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    warnings.simplefilter("ignore", SimulatedAttestationWarning)
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="adyton-bench-")))
        catalog = ROOT / "models" / "catalog.toml" if arguments.shipped else write_catalog(directory)
        sealed = stack.enter_context(sealed_server(directory, catalog))
        plain = stack.enter_context(plain_server(directory))
        rows = measure(
            sealed,
            plain,
            names=("sealed", "unsealed"),
            at_once=CLIENTS,
            rounds=arguments.rounds,
            tokens=arguments.tokens,
        )
    model = "the shipped model" if arguments.shipped else "random weights, 120 M parameters, Q8_0"
    name = "sealing-shipped" if arguments.shipped else "sealing"
    document = {
        "measures": "sealed appliance over unsealed engine",
        "model": model,
        "tokens_per_answer": arguments.tokens,
        "rounds": arguments.rounds,
        "machine": {"cpu_count": os.cpu_count(), "platform": platform.platform()},
        "load_before": os.getloadavg()[0],
        "rows": rows,
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n")
    plot(rows, model, RESULTS / f"{name}.png")
    print(f"{'clients':>8} {'sealed tok/s':>13} {'unsealed':>9} {'ratio':>6} {'first token later':>18}")
    missed = False
    for row in rows:
        ratio, later = float(str(row["throughput_ratio"])), float(str(row["first_token_later_ms"]))
        missed |= ratio < THROUGHPUT_AIM or later > FIRST_TOKEN_AIM_MS
        print(
            f"{row['clients']:>8} {row['sealed_tokens_per_s']:>13.1f} {row['unsealed_tokens_per_s']:>9.1f} "
            f"{ratio:>6.3f} {later:>15.2f} ms"
        )
    print(f"written: {RESULTS / name}.json, {RESULTS / name}.png")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
