# SPDX-License-Identifier: Apache-2.0
"""Where logits are the same, bit for bit, whatever shares the batch, and what that costs.

Two parts. The *region*: for each type of weights, pair of cache types, shape and context length, the same tokens are
computed in some forty ways (chunks of the prompt, micro-batches, threads, neighbours, forks) and compared with the
request alone; the ways are those of ``tests/invariance_scenarios.py``, which the suite uses, too. The *price*: prefill
and decoding under several cache types over growing contexts, in turn in one run; medians of ratios to keys and values
in f16, which is what others serve with.

Writes ``results/invariance.json`` beside this file and prints tables.

Usage: ``python bench/invariance.py [--part region|price] [--full]``
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "bench" / "results"
sys.path.insert(0, str(ROOT / "tests"))

from invariance_scenarios import (  # noqa: E402 - found through the path above
    SHAPES,
    WAYS,
    Profile,
    Rows,
    Shape,
    Trial,
    difference,
    make_model,
)

from adyton_enclave.engine.invariance import ALIKE, K_QUANTS, TWO_ROWS, why_inexact  # noqa: E402 - as above

KINDS: Final = tuple(sorted(kind.upper() for kind in ALIKE | K_QUANTS | TWO_ROWS))
PAIRS: Final = tuple((keys, values) for keys in ("f16", "q8_0", "q4_0") for values in ("f16", "q8_0", "q4_0"))
PRICED: Final = Shape(name="priced", width=576, heads=9, kv_heads=3, layers=2)
PRICED_PROFILES: Final = {
    "f16/f16": Profile(kv_v="f16", shape=PRICED.name),
    "f16/f16, no flash": Profile(kv_v="f16", shape=PRICED.name, flash_attention=False),
    "f16/q8_0": Profile(shape=PRICED.name),
    "q8_0/q8_0": Profile(kv_k="q8_0", shape=PRICED.name),
}
CONTEXTS: Final = (512, 2048, 4096)
BATCHES: Final = (1, 8)
CHUNK: Final = 512
HEADING: Final = f"{'weights, cache, attention, shape, prompt':46}{'measured':9}{'largest':>9}  called"

Record = dict[str, object]


def profiles(*, full: bool) -> list[Profile]:
    """The grid: one axis at a time from the default, or more of the product with ``full``."""
    grid = [Profile(weights=kind, prompt_tokens=100) for kind in KINDS]
    grid += [Profile(shape=shape, prompt_tokens=100) for shape in SHAPES]
    grid += [Profile(kv_k=keys, kv_v=values, prompt_tokens=520) for keys, values in PAIRS]  # type: ignore[arg-type]
    grid += [Profile(kv_v="f16", flash_attention=False)]
    grid += [Profile(prompt_tokens=count) for count in (1100, 4200)]
    if full:
        grid += [Profile(weights=kind, shape=shape, prompt_tokens=300) for kind in KINDS for shape in SHAPES]
        grid += [Profile(weights=kind, prompt_tokens=2100) for kind in KINDS]
    return list(dict.fromkeys(grid))


def explore(directory: Path, profile: Profile) -> Record:
    """Try every way under one profile."""
    trial = Trial(make_model(directory, profile.weights, SHAPES[profile.shape]), profile)
    try:
        label = why_inexact(trial.model.weights, trial.config())
        reference = trial.alone()
        spread = statistics.pstdev(float(x) for x in next(iter(reference.values())))
        differing, largest = [], 0.0
        for name, way in WAYS.items():
            delta, count, _ = difference(way(trial), reference)
            largest = max(largest, delta)
            if count:
                differing.append(name)
    finally:
        trial.close()
    if trial.model.weights.needs_two_rows:
        # Micro-batches smaller than a batch are outside of the region for these, and labelled so.
        differing = [name for name in differing if not name.startswith("n_ubatch")]
    return {
        "profile": profile.label,
        "ways": len(WAYS),
        "differing": differing,
        "largest_delta": largest,
        "logits_std": spread,
        "label": label,
        "exact": not differing,
    }


def show(record: Record) -> None:
    """A line of the table."""
    measured = "exact" if record["exact"] else "differs"
    largest = "" if record["exact"] else f"{record['largest_delta']:.2g}"
    print(f"{record['profile']!s:46}{measured:9}{largest:>9}  {record['label'] or 'exact'}", flush=True)


class Priced:
    """One context of the priced model that is prefilled and then decodes again and again."""

    def __init__(self, trial: Trial) -> None:
        """Keep a context open."""
        self._trial = trial
        self._context_manager = trial.context()
        self.context = self._context_manager.__enter__()

    def close(self) -> None:
        """Free it."""
        self._context_manager.__exit__(None, None, None)
        self._trial.close()

    def sample(self, n_context: int) -> dict[str, float]:
        """Seconds for a prefill of that many tokens, and of steps over them."""
        trial, context, rows = self._trial, self.context, Rows()
        context.scrub()
        started = time.perf_counter()
        trial.prefill(context, 2, 0, n_context, CHUNK, rows)
        found = {"prefill": time.perf_counter() - started}
        for seq_id in range(3, 2 + max(BATCHES)):
            context.copy(2, seq_id, n_context)
        position = n_context
        for batch in BATCHES:
            times = []
            for _ in range(6):
                started = time.perf_counter()
                trial.step(context, [(seq_id, position, 1) for seq_id in range(2, 2 + batch)], rows)
                times.append(time.perf_counter() - started)
                for seq_id in range(2, 2 + batch):
                    context.remove(seq_id, position)
            found[f"decode {batch}"] = statistics.median(times)
        return found


def price(directory: Path, rounds: int) -> list[Record]:
    """Ratios of time to f16/f16 with flash attention; less is faster."""
    SHAPES[PRICED.name] = PRICED
    made = make_model(directory, "Q8_0", PRICED)
    priced = {
        name: Priced(Trial(made, replace(profile, prompt_tokens=max(CONTEXTS))))
        for name, profile in PRICED_PROFILES.items()
    }
    records: list[Record] = []
    try:
        for n_context in CONTEXTS:
            samples = {name: [one.sample(n_context)] for name, one in priced.items()}
            for _ in range(rounds - 1):
                for name, one in priced.items():
                    samples[name].append(one.sample(n_context))
            for name, mine in samples.items():
                base = samples["f16/f16"]
                record: Record = {"cache": name, "context": n_context}
                for what in mine[0]:
                    ratios = [a[what] / b[what] for a, b in zip(mine, base, strict=True)]
                    record[what] = statistics.median(ratios)
                    record[f"{what} ms"] = 1000 * statistics.median(sample[what] for sample in mine)
                records.append(record)
                print(
                    f"{n_context:6} {name:20}"
                    + "".join(f"{what} x{record[what]:5.2f}   " for what in mine[0]),
                    flush=True,
                )
    finally:
        for one in priced.values():
            one.close()
    return records


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--part", choices=("region", "price"), action="append")
    parser.add_argument("--full", action="store_true", help="more of the grid; hours")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    parts = arguments.part or ["region", "price"]
    document: dict[str, object] = {
        "machine": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
    }
    with tempfile.TemporaryDirectory() as directory:
        if "region" in parts:
            records = []
            print(HEADING)
            for profile in profiles(full=arguments.full):
                records.append(explore(Path(directory), profile))
                show(records[-1])
            document["region"] = records
        if "price" in parts:
            print("\ntime against f16/f16 with flash attention (less is faster)")
            document["price"] = price(Path(directory), arguments.rounds)
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / "invariance.json"
    before = json.loads(target.read_text()) if target.exists() else {}
    target.write_text(json.dumps({**before, **document}, indent=1) + "\n")


if __name__ == "__main__":
    main()
