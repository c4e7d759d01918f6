# SPDX-License-Identifier: Apache-2.0
"""What an operator decides about the engine: measured configuration, fixed for the life of the process."""

import os
from dataclasses import dataclass, field
from typing import Final, Literal

from adyton_enclave.engine.request import SamplingParams
from adyton_enclave.weights.terms import SealedTerms
from adyton_protocol.errors import ConfigError
from adyton_protocol.model_identity import ModelPin, ScorerParts

KvType = Literal["f16", "q8_0", "q4_0"]
"""Element types of the KV cache.

Answers are independent of the batch with all pairs but one; the default is keys in f16 and values in q8_0. With
both in f16, ggml's CPU backend takes three different paths through attention, depending on how many tokens are
computed at once and how many there are, and their results differ. (f32 is not offered: ggml casts it to f16.)
"""

OWN_SEQUENCES: Final = 3
"""Sequence ids of the engine itself: one keeps the cells in order, one clears them, one fills up single rows."""

MAX_SEQUENCES: Final = 256 - OWN_SEQUENCES
"""llama.cpp allows 256."""

MAX_CACHED_SEQUENCES = 32
"""Most finished sequences that are kept for a next turn; each takes one of llama.cpp's ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Sizes of the engine; each model gets a context of its own with these sizes.

    Attributes:
        threads: Compute threads; 0 means all cores but one (at least one), because ggml's barriers spin
            and the event loop needs a core of its own.
        n_ctx_total: KV cells of each model, shared by all its sequences.
        n_batch: Most tokens in one step.
        n_ubatch: Most tokens that llama.cpp computes at once.
        prefill_tokens: Most prompt tokens in a step that also decodes, which bounds how long a long prompt
            holds up running streams; 0 means as many as measured times allow (``prefill_share``).
        max_sequences: Most sequences of one model in the KV cache at once, up to ``MAX_SEQUENCES``.
        max_queue: Most requests of one model that wait for their first step; one tenant may hold as many of these
            places as are free.
        cache_cells: Most KV cells that are kept for later requests of those who ask for it; 0 keeps nothing, None is
            half of ``n_ctx_total``. They are lent: whoever computes gets them back.
        kv_type_k: Type of cached keys.
        kv_type_v: Type of cached values.
        flash_attention: Without it, logits depend on what shares the batch.
        batch_invariant: Do without kernels that make logits depend on the batch where that has a price: prefill of
            K-quants, and single streams over weights in floating point.
        require_reproducible: Refuse to load a model whose logits depend on the batch; see ``invariance``.
    """

    threads: int = 0
    n_ctx_total: int = 8192
    n_batch: int = 512
    n_ubatch: int = 512
    prefill_tokens: int = 0
    max_sequences: int = 32
    max_queue: int = 128
    cache_cells: int | None = None
    kv_type_k: KvType = "f16"
    kv_type_v: KvType = "q8_0"
    flash_attention: bool = True
    batch_invariant: bool = True
    require_reproducible: bool = False

    def __post_init__(self) -> None:
        """Refuse sizes that llama.cpp would change silently or crash on."""
        if self.threads < 0:
            raise ConfigError("engine.threads must not be negative")
        if not 1 <= self.max_sequences <= MAX_SEQUENCES:
            raise ConfigError(f"engine.max_sequences must lie between 1 and {MAX_SEQUENCES}")
        if self.n_ubatch < 1 or self.n_batch < self.n_ubatch:
            raise ConfigError("engine.n_batch must be at least engine.n_ubatch, and both positive")
        if self.n_batch < self.max_sequences:
            raise ConfigError("engine.n_batch must hold one token of every sequence")
        if self.n_ctx_total < 1:
            raise ConfigError("engine.n_ctx_total must be positive")
        if self.cache_cells is not None and not 0 <= self.cache_cells <= self.n_ctx_total:
            raise ConfigError("engine.cache_cells must lie between 0 and engine.n_ctx_total")
        if self.prefill_tokens < 0 or self.max_queue < 0:
            raise ConfigError("engine.prefill_tokens and max_queue must not be negative")

    @property
    def prefix_cells(self) -> int:
        """Cells lent to the prefix cache after resolving None; 0 where no sequence id is left for it."""
        if not self.cached_sequences:
            return 0
        return self.n_ctx_total // 2 if self.cache_cells is None else self.cache_cells

    @property
    def cached_sequences(self) -> int:
        """Most sequences that are kept."""
        return 0 if self.cache_cells == 0 else min(MAX_CACHED_SEQUENCES, MAX_SEQUENCES - self.max_sequences)

    @property
    def compute_threads(self) -> int:
        """Threads after resolving 0."""
        if self.threads:
            return self.threads
        return max(1, len(os.sched_getaffinity(0)) - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One model to load.

    Attributes:
        name: What callers write in ``model``.
        path: A GGUF file, the first part of a split one, or a sealed one. The host may swap it at will; only ``pin`` is
            trusted.
        more_paths: The other parts, in their order.
        sealed: What is demanded of a sealed file; None for one in the clear.
        pin: What the files have to hold.
        n_ctx: Most tokens of prompt and answer together, per sequence.
        generates: Give it a KV cache and let it answer.
        scorer: Give it a KV cache and let it judge answers by this adapter and head, which are part of the model
            identity; what does not generate answers nobody.
        hidden_states: Keep hidden states beside logits, for scorers with a head of their own.
        embeddings: Give it a second, small context and let it make vectors.
        sampling: Defaults for what a request leaves out; part of the model identity.
    """

    name: str
    path: str
    pin: ModelPin
    n_ctx: int
    generates: bool = True
    scorer: ScorerParts | None = None
    hidden_states: bool = False
    embeddings: bool = False
    sampling: SamplingParams = field(default_factory=SamplingParams)
    more_paths: tuple[str, ...] = ()
    sealed: SealedTerms | None = None

    @property
    def decodes(self) -> bool:
        """True when it needs a KV cache."""
        return self.generates or self.scorer is not None
