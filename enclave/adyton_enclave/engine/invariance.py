# SPDX-License-Identifier: Apache-2.0
"""Says whether a model's logits are the same, bit for bit, whatever shares the batch; and if not, why not.

Floating point sums depend on their order. On a CPU, ggml has several kernels for one operation and chooses by the
number of rows at hand, so that a token computed alone may get other bits than the same token in a batch. What is
called exact here was measured (``bench/invariance.py``) on x86-64 with AVX-512, and tests hold it:

- Attention has one path for every batch when flash attention is on and the cache's two types are not both f16.
- Quantised weights have one kernel for every batch, once two things are off: the tiled kernels that take over
  K-quants from eight rows on, and the repacked layouts of Q4_K and Q2_K, which differ between three rows and four.
- Weights in floating point, and IQ4_NL, have one kernel for a single row and another for two and more, so a step
  of one row gets a second one, which nobody reads.

``engine.batch_invariant`` sees to the last two. Everything else is served, but labelled: other architectures,
mixtures of experts, quantisations that nobody measured.
"""

from dataclasses import dataclass
from typing import Final

from adyton_enclave.engine.settings import EngineConfig
from adyton_protocol.gguf_canonical import GgufModel

ARCHITECTURES: Final = frozenset({"llama", "qwen2", "qwen3"})
"""``general.architecture`` of the models whose graphs consist of what was measured."""

ALIKE: Final = frozenset({"q8_0", "q4_0", "q4_1", "q5_0", "q5_1"})
"""Types, by ggml's names, whose matrices multiply every row alike."""

K_QUANTS: Final = frozenset({"q2_K", "q3_K", "q4_K", "q5_K", "q6_K", "iq4_xs"})
"""Types that do so without tiled kernels and repacked layouts."""

TWO_ROWS: Final = frozenset({"f32", "f16", "bf16", "iq4_nl"})
"""Types that do so for two rows and more."""

_REPACKED: Final = frozenset({"q4_K", "q2_K"})
_EMBEDDING: Final = "token_embd.weight"
_OUTPUT: Final = "output.weight"
_MATRIX_DIMENSIONS: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What of a model file chooses between kernels.

    Attributes:
        architecture: ``general.architecture``; empty if the file names none.
        matrix_types: ggml's names of the types of all matrices that multiply.
        has_experts: True with tensors of three dimensions, which are multiplied by another operation.
    """

    architecture: str
    matrix_types: frozenset[str]
    has_experts: bool = False

    @property
    def repack(self) -> bool:
        """True when llama.cpp may lay weights out anew for faster kernels, and stays exact."""
        return not self.matrix_types & _REPACKED

    @property
    def needs_two_rows(self) -> bool:
        """True when exactness needs that a step never computes a single row."""
        return bool(self.matrix_types & TWO_ROWS)


def read_weights(model: GgufModel) -> Weights:
    """Types and shapes of all tensors, from the header alone."""
    types: dict[str, str] = {}
    has_experts = False
    for name, tensor in model.tensors.items():
        dimensions = max((axis + 1 for axis, size in enumerate(tensor.shape) if size > 1), default=1)
        if dimensions < _MATRIX_DIMENSIONS:
            continue
        has_experts = has_experts or dimensions > _MATRIX_DIMENSIONS
        types[name] = tensor.type.name
    if _OUTPUT in types:
        # Then embeddings are looked up and never multiplied.
        types.pop(_EMBEDDING, None)
    architecture = model.metadata.get("general.architecture")
    text = None if architecture is None else architecture.text
    return Weights(
        architecture="" if text is None else text.decode("utf-8", "replace"),
        matrix_types=frozenset(types.values()),
        has_experts=has_experts,
    )


def why_inexact(weights: Weights, config: EngineConfig) -> str | None:
    """The first reason why logits may depend on what shares a batch; None when they do not.

    The text holds names of types and settings only.
    """
    unknown = weights.matrix_types - ALIKE - K_QUANTS - TWO_ROWS
    if weights.architecture not in ARCHITECTURES:
        return "models of this architecture were not measured"
    if weights.has_experts:
        return "mixtures of experts were not measured"
    if unknown:
        return f"weights of type {', '.join(sorted(unknown))} were not measured"
    if not config.batch_invariant and weights.matrix_types - ALIKE:
        return "engine.batch_invariant is off"
    if not config.flash_attention:
        return "flash attention is off"
    if config.kv_type_k == config.kv_type_v == "f16":
        return "keys and values are both cached in f16"
    if weights.needs_two_rows and config.n_ubatch < min(config.n_batch, config.n_ctx_total):
        kinds = ", ".join(sorted(weights.matrix_types & TWO_ROWS))
        return f"weights of type {kinds} need engine.n_ubatch to be engine.n_batch"
    return None
