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

import ctypes
from dataclasses import dataclass
from typing import Any, Final

from llama_cpp import llama_cpp as _bindings

from adyton_enclave.engine.settings import EngineConfig
from adyton_protocol.errors import ConfigError

ARCHITECTURES: Final = frozenset({"llama", "qwen2", "qwen3"})
"""``general.architecture`` of the models whose graphs consist of what was measured."""

ALIKE: Final = frozenset({"q8_0", "q4_0", "q4_1", "q5_0", "q5_1"})
"""Types, by ggml's names, whose matrices multiply every row alike."""

K_QUANTS: Final = frozenset({"q2_K", "q3_K", "q4_K", "q5_K", "q6_K", "iq4_xs"})
"""Types that do so without tiled kernels and repacked layouts."""

TWO_ROWS: Final = frozenset({"f32", "f16", "bf16", "iq4_nl"})
"""Types that do so for two rows and more."""

_REPACKED: Final = frozenset({"q4_K", "q2_K"})
_EMBEDDING: Final = b"token_embd.weight"
_OUTPUT: Final = b"output.weight"
_MATRIX_DIMENSIONS: Final = 2
_MAX_DIMENSIONS: Final = 4
_GGUF_STRING: Final = 8

# llama-cpp-python binds no GGUF reader. libllama's own handle finds the copy of ggml that it uses.
_library: Any = _bindings


class _InitParams(ctypes.Structure):
    """``struct gguf_init_params``."""

    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


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


def read_weights(data: bytearray) -> Weights:
    """Read types and shapes of all tensors with ggml's own reader; no weight is touched.

    Args:
        data: The verified bytes of a GGUF file.

    Raises:
        ConfigError: They are no GGUF file.
    """
    if not data:
        raise ConfigError("llama.cpp cannot load the model file")
    buffer = (ctypes.c_char * len(data)).from_buffer(data)
    params = _InitParams(no_alloc=True, ctx=None)
    handle = _call("gguf_init_from_buffer", ctypes.c_void_p, buffer, ctypes.c_size_t(len(data)), params)
    if not handle:
        raise ConfigError("llama.cpp cannot load the model file")
    header = ctypes.c_void_p(handle)
    try:
        return _weights(header)
    finally:
        _call("gguf_free", None, header)


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


def _weights(header: ctypes.c_void_p) -> Weights:
    types: dict[bytes, str] = {}
    has_experts = False
    for index in range(_call("gguf_get_n_tensors", ctypes.c_int64, header)):
        number = ctypes.c_int64(index)
        sizes = _call("gguf_get_tensor_ne", ctypes.POINTER(ctypes.c_int64), header, number)[:_MAX_DIMENSIONS]
        dimensions = max((axis + 1 for axis, size in enumerate(sizes) if size > 1), default=1)
        if dimensions < _MATRIX_DIMENSIONS:
            continue
        has_experts = has_experts or dimensions > _MATRIX_DIMENSIONS
        name = _call("gguf_get_tensor_name", ctypes.c_char_p, header, number)
        kind = ctypes.c_int(_call("gguf_get_tensor_type", ctypes.c_int, header, number))
        types[name] = _call("ggml_type_name", ctypes.c_char_p, kind).decode("ascii")
    if _OUTPUT in types:
        # Then embeddings are looked up and never multiplied.
        types.pop(_EMBEDDING, None)
    return Weights(
        architecture=_architecture(header), matrix_types=frozenset(types.values()), has_experts=has_experts
    )


def _architecture(header: ctypes.c_void_p) -> str:
    found = _call("gguf_find_key", ctypes.c_int64, header, b"general.architecture")
    key = ctypes.c_int64(found)
    if found < 0 or _call("gguf_get_kv_type", ctypes.c_int, header, key) != _GGUF_STRING:
        return ""
    text: bytes = _call("gguf_get_val_str", ctypes.c_char_p, header, key)
    return text.decode("utf-8", "replace")


def _call(name: str, result: Any, *arguments: object) -> Any:
    """Call a function of ggml that the binding leaves out."""
    function = getattr(_library._lib, name)  # noqa: SLF001  # its handle, see above
    function.restype = result
    return function(*arguments)
