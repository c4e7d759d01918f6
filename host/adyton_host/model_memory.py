# SPDX-License-Identifier: Apache-2.0
"""How much memory a model will need in an enclave, read from the header of its GGUF file.

An estimate for sizing and for warnings: nothing is trusted because of it. The enclave reads the same file again, with
a parser that checks everything, and holds it to its digest.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from adyton_protocol.errors import ConfigError

_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_NUMBERS: Final = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
_STRING: Final = 8
_ARRAY: Final = 9
_MAX_STRING_BYTES: Final = 1 << 20
_MAX_ITEMS: Final = 1 << 24
_KV_BYTES: Final[Mapping[str, float]] = {"f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}
_FLOAT_BYTES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """The sizes that decide about memory.

    Attributes:
        file_bytes: Of all parts; weights take about as much.
        layers: Transformer blocks.
        embedding: Length of a hidden vector.
        feed_forward: Length of the vectors in between.
        key_values: Values that one cached token takes for keys, in all layers.
        value_values: The same for values.
        vocabulary: Tokens.
    """

    file_bytes: int
    layers: int
    embedding: int
    feed_forward: int
    key_values: int
    value_values: int
    vocabulary: int

    def kv_bytes(self, cells: int, *, kv_type_k: str = "f16", kv_type_v: str = "q8_0") -> int:
        """Bytes of a KV cache of ``cells`` tokens.

        Raises:
            ConfigError: An element type is unknown.
        """
        try:
            each = self.key_values * _KV_BYTES[kv_type_k] + self.value_values * _KV_BYTES[kv_type_v]
        except KeyError as error:
            raise ConfigError(f"the KV cache has no element type {error}") from error
        return int(cells * each)

    def compute_bytes(self, *, n_batch: int, n_ubatch: int) -> int:
        """Bytes for computing one step, on the safe side: hidden vectors of a micro-batch and logits of a batch."""
        hidden = n_ubatch * (8 * self.embedding + 4 * self.feed_forward)
        return _FLOAT_BYTES * (hidden + (n_batch + n_ubatch) * self.vocabulary)


def read_shape(*paths: Path) -> ModelShape:
    """Read the header of a model; of a split one, ``paths`` are all parts, the first first.

    Raises:
        ConfigError: A file is missing, or the first is no GGUF file in the clear.
    """
    try:
        file_bytes = sum(path.stat().st_size for path in paths)
        with paths[0].open("rb") as file:
            facts = _header(file)
    except OSError as error:
        raise ConfigError(f"cannot read {paths[0]}: {error.strerror}") from error
    except (struct.error, ValueError) as error:
        raise ConfigError(f"{paths[0]} is not a GGUF file in the clear; its memory cannot be told") from error
    name = facts.get("general.architecture", "")

    def fact(key: str, default: int = 0) -> int:
        value = facts.get(f"{name}.{key}", default)
        return (
            max(value) if isinstance(value, list) and value else value if isinstance(value, int) else default
        )

    layers, embedding, heads = (
        fact("block_count"),
        fact("embedding_length"),
        max(1, fact("attention.head_count")),
    )
    kv_heads = fact("attention.head_count_kv", heads)
    tokens = facts.get("tokenizer.ggml.tokens", 0)
    return ModelShape(
        file_bytes=file_bytes,
        layers=layers,
        embedding=embedding,
        feed_forward=fact("feed_forward_length", 4 * embedding),
        key_values=layers * kv_heads * fact("attention.key_length", embedding // heads),
        value_values=layers * kv_heads * fact("attention.value_length", embedding // heads),
        vocabulary=fact("vocab_size", tokens if isinstance(tokens, int) else 0),
    )


def _header(file: BinaryIO) -> dict[str, Any]:
    """Numbers, texts and arrays of numbers of the header; of an array of texts its length."""
    if file.read(4) != _MAGIC:
        raise ValueError("no GGUF")
    version, _tensors, pairs = _unpack(file, "<IQQ")
    if version not in _VERSIONS or pairs > _MAX_ITEMS:
        raise ValueError("no GGUF that we know")
    facts: dict[str, Any] = {}
    for _ in range(pairs):
        key = _string(file).decode()
        (kind,) = _unpack(file, "<I")
        facts[key] = _value(file, kind)
    return facts


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _string(file).decode("utf-8", "replace")
    if kind != _ARRAY:
        return _unpack(file, _number(kind))[0]
    item, count = _unpack(file, "<IQ")
    if count > _MAX_ITEMS:
        raise ValueError("an array is too long")
    if item == _STRING:
        for _ in range(count):
            _string(file)
        return count
    return list(_unpack(file, f"<{count}{_number(item)[1]}"))


def _number(kind: int) -> str:
    if kind not in _NUMBERS:
        raise ValueError("unknown type")
    return _NUMBERS[kind]


def _string(file: BinaryIO) -> bytes:
    (length,) = _unpack(file, "<Q")
    if length > _MAX_STRING_BYTES:
        raise ValueError("a text is too long")
    return _exactly(file, length)


def _unpack(file: BinaryIO, form: str) -> tuple[Any, ...]:
    return struct.unpack(form, _exactly(file, struct.calcsize(form)))


def _exactly(file: BinaryIO, length: int) -> bytes:
    data = file.read(length)
    if len(data) != length:
        raise ValueError("the file ends early")
    return data
