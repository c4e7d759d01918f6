# SPDX-License-Identifier: Apache-2.0
"""Ways to compute the same tokens, and models to compute them with: what batch invariance is tried on.

A way computes the tokens of one sequence, the *target*, and gives its logits at the positions that are watched:
the last of the prompt and each one decoded. The reference is the way of a request that is alone: the prompt in
whole batches, then one token for each step.
"""

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np
import numpy.typing as npt
from llama_cpp import llama_cpp as bindings
from tiny_gguf import TinyModel, make_tiny_gguf

from adyton_enclave.engine.llama import LlamaBatch, LlamaContext, LlamaModel
from adyton_enclave.engine.settings import EngineConfig, KvType
from adyton_enclave.engine.thread_pool import ThreadPool
from adyton_models.model_files import pin_of

Rows = dict[int, npt.NDArray[np.float32]]
"""Logits, shape ``(n_vocab,)``, by position."""

N_DECODED: Final = 16
MAX_SEQUENCES: Final = 33
MAX_NEIGHBOUR_TOKENS: Final = 1500
MORE_CELLS: Final = 6000
"""Room for neighbours that compute 200 tokens in each of the steps that decode."""

TARGET: Final = 0
DONOR: Final = 1
"""Sequence ids; neighbours have those from 2 on."""

_WRITTEN_DIRECTLY: Final = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What of a model's shape may choose between kernels.

    Widths that are multiples of 256 let K-quants stand; a vocabulary of 275 is divisible by nothing.
    """

    name: str
    width: int = 256
    heads: int = 4
    kv_heads: int = 2
    head: int = 64
    layers: int = 2
    more_tokens: int = 13


SHAPES: Final = {
    shape.name: shape
    for shape in (
        Shape(name="grouped-64"),
        Shape(name="grouped-128", head=128),
        Shape(name="multi-query-64", heads=8, kv_heads=1),
        Shape(name="full-32", heads=8, kv_heads=8, head=32),
        Shape(name="wide-512", width=512, heads=8, kv_heads=2, layers=1),
        Shape(name="odd-vocabulary", more_tokens=0),
        Shape(name="odd-width", width=288),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What of a configuration may choose between kernels."""

    weights: str = "Q8_0"
    kv_k: KvType = "f16"
    kv_v: KvType = "q8_0"
    flash_attention: bool = True
    shape: str = "grouped-64"
    prompt_tokens: int = 300

    @property
    def label(self) -> str:
        """Short name for tables."""
        flash = "flash" if self.flash_attention else "no flash"
        return f"{self.weights} {self.kv_k}/{self.kv_v} {flash} {self.shape} {self.prompt_tokens}"


def make_model(directory: Path, weights: str, shape: Shape) -> TinyModel:
    """A file with all matrices in one type, made once per directory; llama.cpp quantises what gguf cannot."""
    path = directory / f"{shape.name}-{weights}.gguf"
    if path.exists():
        return TinyModel(path=path, pin=pin_of(path), n_vocab=0)
    direct = weights in _WRITTEN_DIRECTLY
    made = make_tiny_gguf(
        path if direct else path.with_suffix(".f32"),
        quantization=getattr(gguf.GGMLQuantizationType, weights if direct else "F32"),
        width=shape.width,
        layers=shape.layers,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head=shape.head,
        n_ctx=8192,
        more_tokens=shape.more_tokens,
    )
    if direct:
        return made
    quantize(made.path, path, weights)
    made.path.unlink()
    return replace(made, path=path, pin=pin_of(path))


def quantize(source: Path, target: Path, weights: str) -> None:
    """Let llama.cpp quantise every matrix to one type (where widths allow it)."""
    library: Any = bindings
    params = library.llama_model_quantize_default_params()
    kind = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_S", "Q5_K": "Q5_K_S"}.get(weights, weights)
    params.ftype = getattr(library, f"LLAMA_FTYPE_MOSTLY_{kind}")
    params.pure = True
    params.nthread = 1
    params.allow_requantize = True
    if library.llama_model_quantize(bytes(source), bytes(target), ctypes.byref(params)):
        raise ValueError(f"llama.cpp cannot quantise to {weights}")


class Trial:
    """One loaded model; makes contexts of all kinds over it."""

    def __init__(self, model: TinyModel, profile: Profile) -> None:
        """Load."""
        self.profile = profile
        self.model = LlamaModel(str(model.path), model.pin)
        rng = np.random.default_rng(7)
        self.tokens: list[int] = rng.integers(5, 270, profile.prompt_tokens + N_DECODED).tolist()
        self.other: list[int] = rng.integers(5, 270, 16384).tolist()
        self._batch = LlamaBatch(512)

    def config(self, *, threads: int = 1, n_ubatch: int = 512) -> EngineConfig:
        """What contexts are made with."""
        return EngineConfig(
            threads=threads,
            n_ctx_total=3 * self.profile.prompt_tokens + MORE_CELLS,
            n_batch=512,
            n_ubatch=n_ubatch,
            max_sequences=MAX_SEQUENCES,
            kv_type_k=self.profile.kv_k,
            kv_type_v=self.profile.kv_v,
            flash_attention=self.profile.flash_attention,
        )

    @contextmanager
    def context(self, *, threads: int = 1, n_ubatch: int = 512) -> Iterator[LlamaContext]:
        """A fresh context."""
        config = self.config(threads=threads, n_ubatch=n_ubatch)
        pool = ThreadPool(threads)
        context = LlamaContext(self.model, config)
        pool.attach(context)
        try:
            yield context
        finally:
            context.close()
            pool.close()

    def close(self) -> None:
        """Free the model."""
        self.model.close()

    def step(self, context: LlamaContext, parts: Sequence[tuple[int, int, int]], rows: Rows) -> None:
        """One batch of ``(sequence, start, count)``; keep the target's row if it has one."""
        batch = self._batch
        batch.clear()
        wanted: list[int] = []
        for seq_id, start, count in parts:
            source = self.tokens if seq_id in {TARGET, DONOR} else self.other[97 * seq_id :]
            batch.add(source[start : start + count], start, seq_id, wants_logits=True)
            wanted.append(start + count - 1 if seq_id == TARGET else -1)
        context.decode(batch)
        logits = context.logits(len(parts))
        for row, position in zip(logits, wanted, strict=True):
            if position >= 0:
                rows[position] = row.copy()

    def prefill(
        self, context: LlamaContext, seq_id: int, start: int, end: int, chunk: int, rows: Rows
    ) -> None:
        """Compute ``start`` to ``end`` of one sequence in chunks."""
        for position in range(start, end, chunk):
            self.step(context, [(seq_id, position, min(chunk, end - position))], rows)

    def decode(self, context: LlamaContext, rows: Rows) -> None:
        """The decoded tokens, alone."""
        for position in range(self.profile.prompt_tokens, len(self.tokens)):
            self.step(context, [(TARGET, position, 1)], rows)

    def alone(self, *, threads: int = 1, n_ubatch: int = 512, chunk: int = 512) -> Rows:
        """Alone, in other chunks, micro-batches or threads."""
        rows: Rows = {}
        with self.context(threads=threads, n_ubatch=n_ubatch) as context:
            self.prefill(context, TARGET, 0, self.profile.prompt_tokens, chunk, rows)
            self.decode(context, rows)
        return rows

    def one_by_one(self, last: int) -> Rows:
        """The last tokens of the prompt one at a time."""
        rows: Rows = {}
        with self.context() as context:
            n = self.profile.prompt_tokens
            self.prefill(context, TARGET, 0, max(0, n - last), 512, rows)
            self.prefill(context, TARGET, max(0, n - last), n, 1, rows)
            self.decode(context, rows)
        return rows

    def all_at_once(self) -> Rows:
        """Prompt and answer as one prefill: how a replay checks an answer. One row, the last."""
        rows: Rows = {}
        with self.context() as context:
            self.prefill(context, TARGET, 0, len(self.tokens), 512, rows)
        return rows

    def beside(self, others: int, *, threads: int = 1) -> Rows:
        """Decoding in a batch with ``others``, at changing places in it."""
        rows: Rows = {}
        with self.context(threads=threads) as context:
            for other in range(2, 2 + others):
                self.step(context, [(other, 0, 3 + other)], rows)
            self.prefill(context, TARGET, 0, self.profile.prompt_tokens, 512, rows)
            for index, position in enumerate(range(self.profile.prompt_tokens, len(self.tokens))):
                parts = [(other, 3 + other + index, 1) for other in range(2, 2 + others)]
                parts.insert(index % (others + 1), (TARGET, position, 1))
                self.step(context, parts, rows)
        return rows

    def beside_prefill(self, chunk: int, mine: int) -> Rows:
        """Prefill in chunks of ``mine`` and then decoding, always beside chunks of somebody else's prompt."""
        rows: Rows = {}
        with self.context() as context:
            done, other, neighbour = 0, 0, 2
            while done < len(self.tokens):
                count = (
                    min(mine, self.profile.prompt_tokens - done) if done < self.profile.prompt_tokens else 1
                )
                if other + chunk > MAX_NEIGHBOUR_TOKENS:
                    # Another one, whose cells lie above; the engine never leaves holes below, either.
                    neighbour += 1
                    other = 0
                parts = [(TARGET, done, count), (neighbour, other, chunk)]
                self.step(context, parts[:: 1 if done % 2 else -1], rows)
                done += count
                other += chunk
        return rows

    def forked(self, shared: int) -> Rows:
        """The first ``shared`` tokens were another's, who goes on beside the target."""
        rows: Rows = {}
        with self.context() as context:
            n = self.profile.prompt_tokens
            self.step(context, [(5, 0, 100)], rows)
            self.prefill(context, DONOR, 0, shared, 512, rows)
            context.copy(DONOR, TARGET, shared)
            self.prefill(context, TARGET, shared, n, 512, rows)
            for index, position in enumerate(range(n, len(self.tokens))):
                parts = [(DONOR, shared + index, 1), (TARGET, position, 1)]
                self.step(context, parts if shared + index < n else parts[1:], rows)
        return rows


Way = Callable[[Trial], Rows]


def _ways() -> dict[str, Way]:
    ways: dict[str, Way] = {"again": lambda trial: trial.alone()}
    for chunk in (2, 3, 7, 8, 13, 31, 33, 63, 64, 65, 127, 257):
        ways[f"chunks of {chunk}"] = lambda trial, chunk=chunk: trial.alone(chunk=chunk)  # type: ignore[misc]
    for n_ubatch in (32, 48, 64, 100, 128, 256):
        ways[f"n_ubatch {n_ubatch}"] = lambda trial, n=n_ubatch: trial.alone(n_ubatch=n)  # type: ignore[misc]
    for threads in (2, 3, 4, 5):
        ways[f"{threads} threads"] = lambda trial, n=threads: trial.alone(threads=n)  # type: ignore[misc]
    ways["last 64 one by one"] = lambda trial: trial.one_by_one(64)
    ways["all at once"] = lambda trial: trial.all_at_once()
    for others in (1, 2, 3, 4, 6, 7, 8, 11, 15, 16, 31):
        ways[f"batch of {others + 1}"] = lambda trial, n=others: trial.beside(n)  # type: ignore[misc]
    ways["batch of 4, 3 threads"] = lambda trial: trial.beside(3, threads=3)
    ways["beside prefill of 37"] = lambda trial: trial.beside_prefill(37, 29)
    ways["beside prefill of 200"] = lambda trial: trial.beside_prefill(200, 111)
    ways["forked in the middle"] = lambda trial: trial.forked(trial.profile.prompt_tokens // 2 + 1)
    ways["forked at the end"] = lambda trial: trial.forked(trial.profile.prompt_tokens - 1)
    return ways


WAYS: Final = _ways()


def difference(found: Rows, reference: Rows) -> tuple[float, int, int]:
    """Largest difference of a logit, positions that differ, positions compared."""
    compared = [position for position in found if position in reference]
    deltas = [float(np.max(np.abs(found[p] - reference[p]))) for p in compared]
    differing = sum(not np.array_equal(found[p], reference[p]) for p in compared)
    return max(deltas, default=0.0), differing, len(compared)
