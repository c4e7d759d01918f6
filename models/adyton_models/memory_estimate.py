# SPDX-License-Identifier: Apache-2.0
"""How much memory an enclave needs for a model, from its header and the engine's settings alone.

The formulas follow what llama.cpp's CPU backend allocates under the engine's settings: weights once (a tied output
matrix twice where it is laid out anew), the KV cache, the larger of two peaks of the computation (a layer over a full
micro-batch, or the rows of logits), the rows that are handed out, and the interpreter with its libraries. What counts
is what is asked for, touched or not, because an enclave has to have room for it. Compared with that, the estimate is
within `TOLERANCE` for all but the interpreter; tests hold that for small models, `adyton-models add` shows it for the
model at hand.
"""

from dataclasses import asdict, dataclass
from typing import Final

from adyton_enclave.engine import EngineConfig, KvType
from adyton_enclave.engine.settings import OWN_SEQUENCES
from adyton_models.gguf_facts import EMBEDDING, ModelFacts

TOLERANCE: Final = 0.15
"""Share by which weights, cache and buffers together may differ from what was measured."""

PROCESS_BYTES: Final = 120 * 1024 * 1024
"""Interpreter, libraries and code of the enclave process without a model, measured on Linux without Gramine."""

_KV_BYTES: Final[dict[KvType, float]] = {"f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}
_CELLS_STEP: Final = 256
_CELL_BYTES: Final = 48
"""Of a cell's place in index lists and masks, beside its row of the mask."""
_MASK_BYTES: Final = 2
_FLOAT_BYTES: Final = 4
_WIDTHS_ALIVE: Final = 3.6
"""Activations of the residual stream's width that live at once, as measured."""
_FEED_FORWARDS_ALIVE: Final = 3
_LAID_OUT_ANEW: Final = frozenset({"q4_0", "iq4_nl"})
_EMBEDDING_ROWS: Final = 128
_VOCABULARY_ENTRY_BYTES: Final = 260
"""Of a token or merge rule in llama.cpp's tables and in the engine's, as measured."""
_GRAPH_BYTES: Final = 30 * 1024 * 1024
"""Of ggml's descriptions of graphs, as measured; little of it is ever touched."""
_SMALLEST_ENCLAVE: Final = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """Parts in bytes.

    Attributes:
        weights: Tensors as they lie in memory.
        kv_cache: Keys and values of all cells.
        compute: Intermediate results of one step.
        outputs: Rows of logits, and the vocabulary.
        process: Interpreter and libraries.
    """

    weights: int
    kv_cache: int
    compute: int
    outputs: int
    process: int = PROCESS_BYTES

    @property
    def model_bytes(self) -> int:
        """Without the process itself."""
        return self.weights + self.kv_cache + self.compute + self.outputs

    @property
    def total_bytes(self) -> int:
        """Everything."""
        return self.model_bytes + self.process

    @property
    def enclave_bytes(self) -> int:
        """The size that an enclave needs, a power of two with a tenth to spare: Gramine's `sgx.enclave_size`."""
        return max(_SMALLEST_ENCLAVE, 1 << int(self.total_bytes * 1.1 - 1).bit_length())

    def as_json(self) -> dict[str, int]:
        """All parts and sums, with their unit in the name."""
        parts = {f"{name}_bytes": size for name, size in asdict(self).items()}
        return {**parts, "total_bytes": self.total_bytes, "enclave_bytes": self.enclave_bytes}


def estimate_memory(
    facts: ModelFacts, config: EngineConfig, *, generates: bool = True, embeds_tokens: int = 0
) -> MemoryEstimate:
    """Estimate what serving a model takes.

    Args:
        facts: The model.
        config: Settings of the engine; `n_ctx_total` is the number of KV cells.
        generates: It gets a KV cache and answers.
        embeds_tokens: Context of its embeddings in tokens; 0 when it makes none.
    """
    embedding = facts.tensors.get(EMBEDDING)
    width = facts.of_arch("embedding_length")
    n_vocab = embedding.shape[1] if embedding is not None and len(embedding.shape) > 1 else 0
    weights = facts.weights_bytes
    if facts.tied and embedding is not None and embedding.type.name in _LAID_OUT_ANEW:
        weights += embedding.size_bytes
    kv_cache = compute = 0
    entries = sum(facts.count(f"tokenizer.ggml.{name}") or 0 for name in ("tokens", "merges"))
    outputs = entries * _VOCABULARY_ENTRY_BYTES
    if generates:
        rows = config.max_sequences + config.cached_sequences + OWN_SEQUENCES
        kv_cache += _kv_bytes(facts, config, config.n_ctx_total)
        compute += _compute_bytes(
            facts, config.n_ctx_total, min(config.n_ubatch, config.n_batch), rows * n_vocab
        )
        outputs += rows * n_vocab * _FLOAT_BYTES
    if embeds_tokens:
        rows = _EMBEDDING_ROWS
        step = min(config.n_ubatch, embeds_tokens) if not generates else min(_EMBEDDING_ROWS, embeds_tokens)
        kv_cache += _kv_bytes(facts, config, embeds_tokens)
        compute += _compute_bytes(facts, embeds_tokens, step, rows * n_vocab)
        outputs += rows * (n_vocab + width) * _FLOAT_BYTES
    return MemoryEstimate(weights=weights, kv_cache=kv_cache, compute=compute, outputs=outputs)


def _padded(cells: int) -> int:
    return -(-cells // _CELLS_STEP) * _CELLS_STEP


def _heads(facts: ModelFacts) -> tuple[int, int, int]:
    """Numbers a token has in all query heads, in all key heads and in all value heads of a layer."""
    heads = facts.of_arch("attention.head_count", 1)
    kv_heads = facts.of_arch("attention.head_count_kv", heads)
    usual = facts.of_arch("embedding_length") // max(heads, 1)
    key = facts.of_arch("attention.key_length", usual)
    value = facts.of_arch("attention.value_length", usual)
    return heads * key, kv_heads * key, kv_heads * value


def _kv_bytes(facts: ModelFacts, config: EngineConfig, cells: int) -> int:
    _, keys, values = _heads(facts)
    per_cell = keys * _KV_BYTES[config.kv_type_k] + values * _KV_BYTES[config.kv_type_v]
    return int(_padded(cells) * facts.of_arch("block_count") * per_cell)


def _compute_bytes(facts: ModelFacts, cells: int, tokens: int, logits: int) -> int:
    queries, keys, values = _heads(facts)
    experts = facts.of_arch("expert_used_count", 1)
    feed_forward = facts.of_arch("feed_forward_length")
    if facts.has_arch_key("expert_feed_forward_length"):
        feed_forward = max(feed_forward, facts.of_arch("expert_feed_forward_length") * experts)
    elif facts.has_arch_key("expert_used_count"):
        feed_forward *= experts
    width = facts.of_arch("embedding_length")
    wide = max(_FEED_FORWARDS_ALIVE * feed_forward, 2 * queries + keys + values)
    layer = tokens * _FLOAT_BYTES * (_WIDTHS_ALIVE * width + wide)
    mask = _padded(cells) * (tokens * _MASK_BYTES + _CELL_BYTES)
    # The quantised copy of a matrix product's input is ggml's own, beside the graph's buffer.
    work = tokens * max(width, feed_forward, queries) * _KV_BYTES["q8_0"]
    return int(max(layer + mask, logits * _FLOAT_BYTES) + work) + _GRAPH_BYTES
