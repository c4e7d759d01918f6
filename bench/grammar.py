# SPDX-License-Identifier: Apache-2.0
"""What a grammar costs a token: llguidance, which the engine uses, against llama.cpp's grammar sampler.

Both walk the same documents of the same schema, one token after another, over random logits: before each token the
whole vocabulary is checked, then the token is accepted. (llama.cpp's own server checks only the drawn token first and
the vocabulary when that one is refused, so its price lies between nothing and what stands here.) One thread each, in
turns; figures are medians and 99th percentiles over all tokens of all rounds.

Usage: ``python bench/grammar.py [--rounds 20]``
"""

import argparse
import ctypes
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from llama_cpp import llama_cpp

from adyton_enclave.api.json_schema import schema_rule
from adyton_enclave.engine.grammar import GrammarCompiler
from adyton_enclave.engine.llama import LlamaModel
from random_models import random_model

RESULTS: Final = Path(__file__).resolve().parent / "results"
MODELS: Final = ("135m-49k-q8_0", "135m-128k-q8_0")
_lib: Any = llama_cpp

CASES: Final[dict[str, tuple[dict[str, object], str]]] = {
    "a record": (
        {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "count": {"type": "integer"},
                "tags": {"type": "array", "items": {"type": "string"}},
            },
            "required": ["name", "count", "tags"],
            "additionalProperties": False,
        },
        (
            'root ::= "{" ws "\\"name\\"" ws ":" ws string ws "," ws "\\"count\\"" ws ":" ws integer ws "," ws '
            '"\\"tags\\"" ws ":" ws "[" ws (string (ws "," ws string)*)? ws "]" ws "}"\n'
            'string ::= "\\"" ([^"\\\\\\x00-\\x1f] | "\\\\" ["\\\\/bfnrt])* "\\""\n'
            'integer ::= "-"? ("0" | [1-9] [0-9]*)\nws ::= " "?\n'
        ),
    ),
    "a bounded text": (
        {"type": "string", "maxLength": 1000},
        'root ::= "\\"" ([^"\\\\\\x00-\\x1f] | "\\\\" ["\\\\/bfnrt]){0,1000} "\\""\n',
    ),
}
DOCUMENTS: Final = {
    "a record": '{"name": "the tale of a stone in the river", "count": 1234, "tags": ["river", "stone", "tale"]}',
    "a bounded text": '"' + "the tale of a stone in the river " * 4 + '"',
}


class LlamaGrammar:
    """llama.cpp's grammar sampler."""

    def __init__(self, model: LlamaModel, grammar: str) -> None:
        vocabulary = _lib.llama_model_get_vocab(model.handle)
        self._sampler = _lib.llama_sampler_init_grammar(vocabulary, grammar.encode(), b"root")
        kind = np.dtype([("id", "<i4"), ("logit", "<f4"), ("p", "<f4")])
        self._ids = np.arange(model.n_vocab, dtype=np.int32)
        self._candidates = np.zeros(model.n_vocab, dtype=kind)
        pointer = ctypes.cast(self._candidates.ctypes.data, ctypes.POINTER(_lib.llama_token_data))
        self._array = _lib.llama_token_data_array(data=pointer, size=model.n_vocab, selected=-1, sorted=False)

    def mask(self, row: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Logits with what is not allowed at minus infinity."""
        self._candidates["id"] = self._ids
        self._candidates["logit"] = row
        self._array.size, self._array.selected, self._array.sorted = row.size, -1, False
        _lib.llama_sampler_apply(self._sampler, ctypes.byref(self._array))
        masked: npt.NDArray[np.float32] = self._candidates["logit"]
        return masked

    def accept(self, token_id: int) -> None:
        """Move on."""
        _lib.llama_sampler_accept(self._sampler, token_id)

    def close(self) -> None:
        """Free it."""
        _lib.llama_sampler_free(self._sampler)


class OurGrammar:
    """llguidance, and the mask applied as the engine does."""

    def __init__(self, compiler: GrammarCompiler, schema: dict[str, object]) -> None:
        self._matcher = compiler.compile_now("start: " + schema_rule(schema), param="schema").matcher()

    def mask(self, row: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Logits with what is not allowed at minus infinity."""
        allowed = np.unpackbits(self._matcher.allowed().view(np.uint8), count=row.size, bitorder="little")
        row[allowed == 0] = -np.inf
        return row

    def accept(self, token_id: int) -> None:
        """Move on."""
        self._matcher.accept(token_id)


def _steps(
    grammar: LlamaGrammar | OurGrammar, token_ids: list[int], rows: npt.NDArray[np.float32]
) -> Iterator[float]:
    """Seconds of each token; every token of the document must be among the allowed."""
    for at, token_id in enumerate(token_ids):
        row = rows[at % len(rows)].copy()
        start = time.perf_counter()
        masked = grammar.mask(row)
        grammar.accept(token_id)
        yield time.perf_counter() - start
        if not np.isfinite(masked[token_id]):
            raise ValueError(f"token {at} of the document was refused")


def _figures(seconds: list[float]) -> dict[str, float]:
    return {
        "median_us": float(np.median(seconds) * 1e6),
        "p99_us": float(np.percentile(seconds, 99) * 1e6),
    }


def measure(name: str, rounds: int) -> list[dict[str, object]]:
    """Figures of one vocabulary."""
    made = random_model(name)
    model = LlamaModel(str(made.path), made.pin)
    compiler = GrammarCompiler(model)
    start = time.perf_counter()
    compiler.compile_now('start: "x"', param="x")
    trie_s = time.perf_counter() - start
    rows = np.random.default_rng(0).standard_normal((8, model.n_vocab)).astype(np.float32)
    results: list[dict[str, object]] = []
    for case, (schema, gbnf) in CASES.items():
        token_ids = model.tokenize(DOCUMENTS[case], add_special=False, parse_special=False)
        times: dict[str, list[float]] = {"ours": [], "llama.cpp": []}
        compiling: dict[str, list[float]] = {"ours": [], "llama.cpp": []}
        for _ in range(rounds):
            start = time.perf_counter()
            ours = OurGrammar(compiler, schema)
            compiling["ours"].append(time.perf_counter() - start)
            times["ours"] += _steps(ours, token_ids, rows)
            start = time.perf_counter()
            theirs = LlamaGrammar(model, gbnf)
            compiling["llama.cpp"].append(time.perf_counter() - start)
            times["llama.cpp"] += _steps(theirs, token_ids, rows)
            theirs.close()
        results.append(
            {
                "vocabulary": model.n_vocab,
                "case": case,
                "tokens": len(token_ids),
                "trie_s": trie_s,
                **{
                    side: {**_figures(times[side]), "compile_us": float(np.median(compiling[side]) * 1e6)}
                    for side in times
                },
            }
        )
        print(json.dumps(results[-1]))
    model.close()
    return results


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    results = [result for name in MODELS for result in measure(name, rounds)]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "grammar.json").write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
