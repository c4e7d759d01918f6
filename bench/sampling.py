# SPDX-License-Identifier: Apache-2.0
"""What a draw costs: our truncation and keyed draw against llama.cpp's sampler chain, on the same rows of logits.

Both keep 40 candidates, then 95 % of their mass, then what reaches 5 % of the best, at temperature 0.8, and draw one.
llama.cpp's side gets its candidate array filled by numpy, which is cheaper than the loop that its own server runs.
Rounds alternate; each figure is the median over the rounds.

Usage: ``python bench/sampling.py [--rounds 40]``
"""

import argparse
import ctypes
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from llama_cpp import llama_cpp

from adyton_enclave.engine.batch_sampler import BatchSampler
from adyton_enclave.engine.noise import PathNoise
from adyton_enclave.engine.request import SamplingParams

RESULTS: Final = Path(__file__).resolve().parent / "results"
VOCABULARIES: Final = (512, 49_152, 128_256)
ROWS: Final = (1, 8, 16)
PARAMS: Final = SamplingParams(temperature=0.8, top_p=0.95, top_k=40, min_p=0.05)
_lib: Any = llama_cpp


class LlamaChain:
    """llama.cpp's samplers over one row at a time."""

    def __init__(self, n_vocab: int) -> None:
        self.chain = _lib.llama_sampler_chain_init(_lib.llama_sampler_chain_default_params())
        for sampler in (
            _lib.llama_sampler_init_top_k(PARAMS.top_k),
            _lib.llama_sampler_init_top_p(PARAMS.top_p, 1),
            _lib.llama_sampler_init_min_p(PARAMS.min_p, 1),
            _lib.llama_sampler_init_temp(PARAMS.temperature),
            _lib.llama_sampler_init_dist(1),
        ):
            _lib.llama_sampler_chain_add(self.chain, sampler)
        self.ids = np.arange(n_vocab, dtype=np.int32)
        kind = np.dtype([("id", "<i4"), ("logit", "<f4"), ("p", "<f4")])
        self.candidates = np.zeros(n_vocab, dtype=kind)
        pointer = ctypes.cast(self.candidates.ctypes.data, ctypes.POINTER(_lib.llama_token_data))
        self.array = _lib.llama_token_data_array(data=pointer, size=n_vocab, selected=-1, sorted=False)

    def draw(self, row: "np.ndarray[tuple[int], np.dtype[np.float32]]") -> int:
        """One token."""
        self.candidates["id"] = self.ids
        self.candidates["logit"] = row
        self.array.size, self.array.selected, self.array.sorted = row.size, -1, False
        _lib.llama_sampler_apply(self.chain, ctypes.byref(self.array))
        return int(self.candidates["id"][self.array.selected])


def seconds(work: Callable[[], object]) -> float:
    """Time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure(n_vocab: int, n_rows: int, rounds: int) -> dict[str, float]:
    """Microseconds for each row, ours and llama.cpp's, in turns."""
    rng = np.random.default_rng(n_vocab)
    rows = (rng.standard_normal((n_rows, n_vocab)) * 3).astype(np.float32)
    noises = [PathNoise(bytes(32), (at,)) for at in range(n_rows)]
    ours = BatchSampler([PARAMS] * n_rows, noises, PARAMS.top_k)
    theirs = LlamaChain(n_vocab)
    pairs = []
    for number in range(rounds + 3):
        pair = (
            seconds(lambda: ours.draw(rows, [number] * n_rows)),  # noqa: B023  # called at once
            seconds(lambda: [theirs.draw(row) for row in rows]),
        )
        if number >= 3:  # the first warm the caches
            pairs.append(pair)
    return {
        "n_vocab": n_vocab,
        "rows": n_rows,
        "ours_us_per_row": statistics.median(mine for mine, _ in pairs) / n_rows * 1e6,
        "llama_us_per_row": statistics.median(other for _, other in pairs) / n_rows * 1e6,
        "ratio": statistics.median(other / mine for mine, other in pairs),
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    table = [measure(n_vocab, n_rows, arguments.rounds) for n_vocab in VOCABULARIES for n_rows in ROWS]
    print(f"{'vocabulary':>10} {'rows':>5} {'ours, us/row':>13} {'llama.cpp':>10} {'llama.cpp / ours':>17}")
    for row in table:
        print(
            f"{row['n_vocab']:>10} {row['rows']:>5} {row['ours_us_per_row']:>13.1f} "
            f"{row['llama_us_per_row']:>10.1f} {row['ratio']:>17.2f}"
        )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "sampling.json").write_text(json.dumps(table, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
