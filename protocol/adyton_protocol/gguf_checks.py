# SPDX-License-Identifier: Apache-2.0
"""Refuses models that are well-formed and absurd, before llama.cpp computes with their numbers.

llama.cpp answers a wrong hyperparameter with an assertion, and a failed assertion ends the process. What its loader,
its graphs and its kernels assert about numbers of the header is checked here: layers, heads and their dimensions,
experts, factors that must be finite, epsilons that must not be negative, types of the tensors that kernels take only in
F32. What it checks itself, by an error that we can catch, is left to it: above all the shapes of all tensors.

An architecture that nobody here knows gets the checks that hold for all. So a hostile model of a strange kind may
still end a process: that of whoever tries it out with ``adyton-models add``, for an enclave only takes pinned models.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from adyton_protocol.errors import ModelFileError
from adyton_protocol.gguf import TensorInfo, Value
from adyton_protocol.gguf_canonical import GgufModel
from adyton_protocol.gguf_types import ValueType
from adyton_protocol.gguf_vocabulary import check_vocabulary

MAX_LAYERS: Final = 512
"""``LLAMA_MAX_LAYERS``."""
MAX_EXPERTS: Final = 1024
"""``LLAMA_MAX_EXPERTS``."""
MAX_HEADS: Final = 4096
MAX_HEAD_DIMENSION: Final = 8192
MAX_WIDTH: Final = 1 << 20
MAX_INNER_WIDTH: Final = 1 << 24
MAX_CONTEXT_TOKENS: Final = 1 << 30

EQUAL_HEADS: Final = frozenset(
    {
        "llama",
        "qwen2",
        "qwen2moe",
        "qwen3",
        "qwen3moe",
        "gemma",
        "gemma2",
        "gemma3",
        "mistral3",
        "phi3",
        "granite",
    }
)
"""Architectures whose graphs assert that keys are as long as values, and rotate them in pairs."""

_ARCHITECTURE: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_ROPE_SCALINGS: Final = frozenset({"none", "linear", "yarn", "longrope"})
_POOLING_TYPES: Final = range(5)
_LAYER: Final = re.compile(r"blk\.(\d{1,9})\.")
_FLOATS: Final = frozenset({ValueType.FLOAT32, ValueType.FLOAT64})


def check_model(model: GgufModel) -> None:
    """Refuse what llama.cpp would die of, and what nobody can mean.

    Args:
        model: A merged header; attacker-controlled.

    Raises:
        ModelFileError: Check ``hyperparameter``, ``key-type``, ``tensor-type``, or one of ``gguf_vocabulary``.
    """
    facts = _Hyperparameters(model)
    _check_layers(facts, model)
    _check_heads(facts)
    _check_window(facts)
    _check_experts(facts)
    _check_factors(facts)
    _check_tensors(model.tensors.values())
    n_tokens = check_vocabulary(model.metadata)
    embedding = model.tensors.get("token_embd.weight")
    if embedding is None or embedding.shape != (facts.width, n_tokens):
        raise ModelFileError(
            f"token_embd.weight is not {facts.width} wide with a row for each of {n_tokens} tokens",
            check="hyperparameter",
        )


class _Hyperparameters:
    """The header's numbers, each of the type that llama.cpp takes and within a range."""

    def __init__(self, model: GgufModel) -> None:
        self.metadata: Mapping[str, Value] = model.metadata
        self.architecture = self._architecture()
        self.layers = self.whole("block_count", 1, MAX_LAYERS)
        self.width = self.whole("embedding_length", 1, MAX_WIDTH)
        self.whole("context_length", 1, MAX_CONTEXT_TOKENS)

    def _architecture(self) -> str:
        value = self.metadata.get("general.architecture")
        text = None if value is None else value.text
        if text is None or _ARCHITECTURE.fullmatch(name := text.decode("utf-8", "replace")) is None:
            raise ModelFileError("general.architecture is missing or not a word", check="key-type")
        return name

    def key(self, suffix: str) -> str:
        return f"{self.architecture}.{suffix}"

    def get(self, suffix: str) -> Value | None:
        return self.metadata.get(self.key(suffix))

    def whole(self, suffix: str, low: int, high: int, default: int | None = None) -> int:
        """A single number of type uint32.

        Raises:
            ModelFileError: It is missing without a default, of another type, or out of its range.
        """
        value = self.get(suffix)
        if value is None:
            if default is None:
                raise ModelFileError(f"{self.key(suffix)} is missing", check="hyperparameter")
            return default
        number = value.number
        if value.type is not ValueType.UINT32 or not isinstance(number, int):
            raise ModelFileError(f"{self.key(suffix)} is not of type uint32", check="key-type")
        return self._within(suffix, number, low, high)

    def each(self, suffix: str, low: int, high: int, default: tuple[int, ...]) -> tuple[int, ...]:
        """A number for every layer: one for all, or a list as long as there are layers."""
        value = self.get(suffix)
        if value is None:
            return default
        if value.count is None:
            return (self.whole(suffix, low, high),) * self.layers
        numbers = value.numbers
        if numbers is None or value.type not in {ValueType.UINT32, ValueType.INT32}:
            raise ModelFileError(f"{self.key(suffix)} is not a list of whole numbers", check="key-type")
        if len(numbers) != self.layers:
            raise ModelFileError(
                f"{self.key(suffix)} does not have a number for each layer", check="hyperparameter"
            )
        return tuple(self._within(suffix, int(number), low, high) for number in numbers)

    def _within(self, suffix: str, number: int, low: int, high: int) -> int:
        if not low <= number <= high:
            raise ModelFileError(
                f"{self.key(suffix)} is {number}; {low} to {high} are allowed", check="hyperparameter"
            )
        return number


def _check_layers(facts: _Hyperparameters, model: GgufModel) -> None:
    facts.whole("nextn_predict_layers", 0, facts.layers - 1, 0)
    facts.each("feed_forward_length", 0, MAX_INNER_WIDTH, ())
    deepest = max((int(match[1]) for name in model.tensors if (match := _LAYER.match(name))), default=-1)
    if deepest >= facts.layers:
        raise ModelFileError(
            f"there is a tensor of layer {deepest}, and {facts.layers} layers", check="hyperparameter"
        )


def _check_heads(facts: _Hyperparameters) -> None:
    """Queries share keys in equal groups, and what is rotated are pairs."""
    heads = facts.each("attention.head_count", 0, MAX_HEADS, (0,) * facts.layers)
    kv_heads = facts.each("attention.head_count_kv", 0, MAX_HEADS, heads)
    for queries, keys in zip(heads, kv_heads, strict=True):
        if keys and queries % keys:
            raise ModelFileError(
                f"{queries} heads cannot share {keys} heads of keys evenly", check="hyperparameter"
            )
    known = facts.architecture in EQUAL_HEADS
    if known and not (all(heads) and all(kv_heads)):
        raise ModelFileError(
            "a layer has no heads, which its architecture does not allow", check="hyperparameter"
        )
    derived = facts.width // heads[0] if heads[0] else 0
    key_length = facts.whole("attention.key_length", 1, MAX_HEAD_DIMENSION, derived)
    value_length = facts.whole("attention.value_length", 1, MAX_HEAD_DIMENSION, derived)
    rotated = facts.whole("rope.dimension_count", 1, MAX_HEAD_DIMENSION, key_length)
    if rotated > key_length or (known and rotated % 2):
        raise ModelFileError(
            f"{rotated} of {key_length} dimensions of a head cannot be rotated", check="hyperparameter"
        )
    if known and key_length != value_length:
        raise ModelFileError("keys and values have different lengths", check="hyperparameter")


def _check_window(facts: _Hyperparameters) -> None:
    """Of the layers of a model with a sliding window, at least one has it."""
    value = facts.get("attention.sliding_window_pattern")
    if value is None:
        return
    if value.count is None:
        every = facts.whole("attention.sliding_window_pattern", 0, MAX_LAYERS)
        windowed = every != 1
    elif value.type in {ValueType.BOOL, ValueType.UINT32, ValueType.INT32}:
        windowed = value.count == facts.layers and any(value.numbers or ())
    else:
        raise ModelFileError("attention.sliding_window_pattern holds no numbers", check="key-type")
    if not windowed:
        raise ModelFileError("attention.sliding_window_pattern leaves no window", check="hyperparameter")


def _check_experts(facts: _Hyperparameters) -> None:
    experts = facts.whole("expert_count", 0, MAX_EXPERTS, 0)
    used = facts.each("expert_used_count", 0, MAX_EXPERTS, (0,))
    groups = facts.whole("expert_group_count", 0, MAX_EXPERTS, 0)
    groups_used = facts.whole("expert_group_used_count", 0, MAX_EXPERTS, 0)
    grouped = groups > 1
    if (
        max(used) > experts
        or (experts and (not max(used) or groups >= experts))
        or (not experts and groups)
        or (grouped and (experts % groups or not 0 < groups_used < groups))
    ):
        raise ModelFileError("the numbers of experts contradict one another", check="hyperparameter")


def _check_factors(facts: _Hyperparameters) -> None:
    """SECURITY: kernels assert that epsilons are not negative, which NaN is not either."""
    ranges: tuple[tuple[Callable[[str], bool], float, float], ...] = (
        (lambda key: key.endswith("epsilon"), 0.0, 1.0),
        (lambda key: key.endswith(("rope.freq_base", "rope.freq_base_swa")), 1e-6, 1e18),
        (lambda key: key.endswith(("rope.scaling.factor", "rope.scale_linear")), 0.0, 1e9),
    )
    for key, value in facts.metadata.items():
        if value.type not in _FLOATS or not key.startswith(facts.architecture + "."):
            continue
        numbers = value.numbers if value.numbers is not None else (value.number,)
        if not all(isinstance(number, float) and math.isfinite(number) for number in numbers):
            raise ModelFileError(f"{key} is not finite", check="hyperparameter")
        for applies, low, high in ranges:
            if applies(key) and not all(low <= float(number or 0) <= high for number in numbers):
                raise ModelFileError(f"{key} is not from {low} to {high}", check="hyperparameter")
    scaling = facts.get("rope.scaling.type")
    if scaling is not None and (scaling.text or b"").decode("utf-8", "replace") not in _ROPE_SCALINGS:
        raise ModelFileError(f"{facts.key('rope.scaling.type')} is unknown", check="hyperparameter")
    for suffix in ("pooling_type", "classifier.pooling_type"):
        facts.whole(suffix, _POOLING_TYPES.start, _POOLING_TYPES.stop - 1, 0)


def _check_tensors(tensors: Iterable[TensorInfo]) -> None:
    """Norms, biases and factors are taken in F32 only; another type ends in an assertion of some kernel."""
    for tensor in tensors:
        vector = sum(extent > 1 for extent in tensor.shape) <= 1
        if (vector or tensor.name.endswith(("_norm.weight", ".bias"))) and tensor.type.name != "f32":
            raise ModelFileError(
                f"the vector {tensor.name} is of type {tensor.type.name} instead of f32", check="tensor-type"
            )
