# SPDX-License-Identifier: Apache-2.0
"""Reads the header of a GGUF file (version 2 or 3, little-endian) that an attacker may have written.

::

    file   = "GGUF" version:u32 n_tensors:u64 n_keys:u64 key* tensor* padding data
    key    = name:string type:u32 value              string = length:u64 byte*
    value  = fixed-size number | string | array      array  = type:u32 count:u64 item*
    tensor = name:string n_dims:u32 dim:u64* type:u32 offset:u64

Every number is checked against a limit and against what is left of the file before it is used, and memory is taken
only for bytes that were really read. What the format leaves open is closed here: no arrays of arrays, booleans are 0
or 1, names are printable ASCII, strings of one value hold no NUL (C would see their beginning only), tensors follow
one another without gap or overlap, as llama.cpp demands it.

What a value means is not looked at; ``gguf_checks`` does that. Nothing here does I/O.
"""

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from adyton_protocol.errors import ModelFileError
from adyton_protocol.gguf_types import STRUCT_FORMATS, TENSOR_TYPES, VALUE_BYTES, TensorType, ValueType
from adyton_protocol.random_access import RandomAccess

MAGIC: Final = b"GGUF"
VERSIONS: Final = frozenset({2, 3})
DEFAULT_ALIGNMENT: Final = 32
ALIGNMENT_KEY: Final = "general.alignment"

MAX_HEADER_BYTES: Final = 128 * 1024 * 1024
MAX_KEYS: Final = 4096
MAX_TENSORS: Final = 65_536
MAX_KEY_BYTES: Final = 256
MAX_TENSOR_NAME_BYTES: Final = 63
"""One less than ``GGML_MAX_NAME``."""
MAX_STRING_BYTES: Final = 64 * 1024 * 1024
MAX_ARRAY_ITEMS: Final = 1 << 22
MAX_DIMENSIONS: Final = 4
MAX_ELEMENTS: Final = 1 << 40
MAX_ALIGNMENT: Final = 1 << 16

_BLOCK_BYTES: Final = 1024 * 1024
_KEY: Final = re.compile(rb"[!-~]{1,256}")
_TENSOR_NAME: Final = re.compile(rb"[!-~]{1,63}")
_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")
_MIN_KEY_BYTES: Final = 8 + 1 + 4 + 1
_MIN_TENSOR_BYTES: Final = 8 + 1 + 4 + 8 + 4 + 8


@dataclass(frozen=True, slots=True)
class Value:
    """A metadata value, kept as it stands in the file.

    Attributes:
        type: Of the value, or of the items of an array.
        count: Items of an array; None for a single value.
        raw: Its bytes, without types and count.
    """

    type: ValueType
    count: int | None
    raw: bytes

    @property
    def text(self) -> bytes | None:
        """The bytes of a single string (UTF-8 by convention), None for everything else."""
        return self.raw[8:] if self.type is ValueType.STRING and self.count is None else None

    @property
    def number(self) -> int | float | bool | None:
        """A single number or boolean, None for everything else."""
        if self.count is not None or self.type is ValueType.STRING:
            return None
        number: int | float | bool = struct.unpack("<" + STRUCT_FORMATS[self.type], self.raw)[0]
        return number

    @property
    def numbers(self) -> tuple[int | float | bool, ...] | None:
        """The items of an array of numbers or booleans, None for everything else."""
        if self.count is None or self.type is ValueType.STRING:
            return None
        return struct.unpack(f"<{self.count}{STRUCT_FORMATS[self.type]}", self.raw)

    @property
    def texts(self) -> tuple[bytes, ...] | None:
        """The items of an array of strings, None for everything else."""
        if self.count is None or self.type is not ValueType.STRING:
            return None
        items, position = [], 0
        for _ in range(self.count):
            (length,) = _U64.unpack_from(self.raw, position)
            items.append(self.raw[position + 8 : position + 8 + length])
            position += 8 + length
        return tuple(items)

    def encode(self) -> bytes:
        """Type and value as they stand in a file."""
        if self.count is None:
            return _U32.pack(self.type) + self.raw
        return _U32.pack(ValueType.ARRAY) + _U32.pack(self.type) + _U64.pack(self.count) + self.raw


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A line of the tensor table.

    Attributes:
        shape: Extents, the one that lies together in memory first, as in the file; 1 to 4 of them.
        type: How it is stored.
        offset: Of its data from the beginning of the data section, in bytes.
        size_bytes: Of its data.
    """

    name: str
    shape: tuple[int, ...]
    type: TensorType
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A parsed header.

    Attributes:
        metadata: Keys and values in the order of the file.
        tensors: In the order of the file, which is that of their data.
        alignment: Of the data section and of every tensor, in bytes.
        data_offset: Where the data section begins, in bytes from the beginning of the file.
    """

    metadata: Mapping[str, Value]
    tensors: tuple[TensorInfo, ...]
    alignment: int
    data_offset: int


class _Cursor:
    """Reads a source from its beginning, in blocks, and never beyond the limit of a header."""

    def __init__(self, source: RandomAccess) -> None:
        self._source = source
        self._limit = min(source.size_bytes, MAX_HEADER_BYTES)
        self._read = bytearray()
        self.position = 0

    @property
    def left(self) -> int:
        """Bytes that the header may still have."""
        return self._limit - self.position

    def need(self, count: int) -> None:
        """Have so many bytes at hand after the position."""
        if count > self.left:
            if self._limit < self._source.size_bytes:
                raise ModelFileError(f"the header exceeds {MAX_HEADER_BYTES} bytes", check="header-size")
            raise ModelFileError("the model file ends inside its header", check="truncated")
        while len(self._read) < self.position + count:
            start = len(self._read)
            block = bytearray(min(_BLOCK_BYTES, self._limit - start))
            self._source.read_into(start, memoryview(block))
            self._read += block

    def take(self, count: int) -> bytes:
        self.need(count)
        start, self.position = self.position, self.position + count
        return bytes(self._read[start : self.position])

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def skip_strings(self, count: int) -> bytes:
        """Step over strings that follow one another, and return them with their lengths."""
        start = position = self.position
        # A vocabulary has hundreds of thousands of strings; what is at hand is asked for without a call.
        read = self._read
        for _ in range(count):
            if position + 8 > len(read):
                self.position = position
                self.need(8)
            (length,) = _U64.unpack_from(read, position)
            if length > MAX_STRING_BYTES:
                raise _too_long(length)
            position += 8
            if position + length > len(read):
                self.position = position
                self.need(length)
            position += length
        self.position = position
        return bytes(read[start:position])


def _too_long(length: int) -> ModelFileError:
    return ModelFileError(
        f"a string of {length} bytes; at most {MAX_STRING_BYTES} are allowed", check="string-length"
    )


def read_header(source: RandomAccess) -> GgufFile:
    """Parse the header of a GGUF file.

    Args:
        source: Attacker-controlled. Only the header is read, and at most ``MAX_HEADER_BYTES``.

    Raises:
        ModelFileError: It is no GGUF file, or exceeds a limit, or contradicts itself; or what the source raises.
    """
    cursor = _Cursor(source)
    if cursor.left < len(MAGIC) or cursor.take(len(MAGIC)) != MAGIC:
        raise ModelFileError("not a GGUF file: it begins with other bytes", check="magic")
    if (version := cursor.u32()) not in VERSIONS:
        raise ModelFileError(f"GGUF version {version}; known are 2 and 3, little-endian", check="version")
    n_tensors, n_keys = cursor.u64(), cursor.u64()
    _check_count("keys", n_keys, MAX_KEYS, _MIN_KEY_BYTES, cursor)
    _check_count("tensors", n_tensors, MAX_TENSORS, _MIN_TENSOR_BYTES, cursor)
    metadata: dict[str, Value] = {}
    for _ in range(n_keys):
        name = _name(cursor, _KEY, MAX_KEY_BYTES, "key")
        if name in metadata:
            raise ModelFileError(f"the key {name} occurs twice", check="duplicate")
        metadata[name] = _value(cursor, name)
    alignment = _alignment(metadata)
    tensors: dict[str, TensorInfo] = {}
    expected = 0
    for _ in range(n_tensors):
        tensor = _tensor(cursor)
        if tensor.name in tensors:
            raise ModelFileError(f"the tensor {tensor.name} occurs twice", check="duplicate")
        if tensor.offset != expected:
            raise ModelFileError(
                f"the tensor {tensor.name} begins at {tensor.offset} of the data section instead of {expected}",
                check="offset",
            )
        tensors[tensor.name] = tensor
        expected = padded(expected + tensor.size_bytes, alignment)
    data_offset = padded(cursor.position, alignment)
    for tensor in tensors.values():
        if data_offset + tensor.offset + tensor.size_bytes > source.size_bytes:
            raise ModelFileError(f"the file ends inside the tensor {tensor.name}", check="truncated")
    return GgufFile(
        metadata=MappingProxyType(metadata),
        tensors=tuple(tensors.values()),
        alignment=alignment,
        data_offset=data_offset,
    )


def padded(position: int, alignment: int) -> int:
    """The next multiple of ``alignment``, a power of two."""
    return (position + alignment - 1) & ~(alignment - 1)


def _check_count(what: str, count: int, most: int, smallest_bytes: int, cursor: _Cursor) -> None:
    if count > most:
        raise ModelFileError(f"{count} {what}; at most {most} are allowed", check="count")
    if count * smallest_bytes > cursor.left:
        raise ModelFileError(f"{count} {what} do not fit into the file", check="truncated")


def _name(cursor: _Cursor, pattern: re.Pattern[bytes], most: int, what: str) -> str:
    """SECURITY: names go to C, where a NUL ends them, and into messages: printable ASCII only."""
    length = cursor.u64()
    if not 0 < length <= most:
        raise ModelFileError(f"a {what} of {length} bytes; 1 to {most} are allowed", check="name")
    name = cursor.take(length)
    if pattern.fullmatch(name) is None:
        raise ModelFileError(f"the name of a {what} is not printable ASCII", check="name")
    return name.decode("ascii")


def _value(cursor: _Cursor, key: str) -> Value:
    kind = _value_type(cursor.u32(), key)
    if kind is ValueType.ARRAY:
        return _array(cursor, key)
    if kind is ValueType.STRING:
        raw = cursor.skip_strings(1)
        if b"\x00" in raw[8:]:
            raise ModelFileError(f"the text of {key} holds a NUL", check="string-nul")
        return Value(kind, None, raw)
    raw = cursor.take(VALUE_BYTES[kind])
    _check_booleans(kind, raw, key)
    return Value(kind, None, raw)


def _array(cursor: _Cursor, key: str) -> Value:
    kind = _value_type(cursor.u32(), key)
    if kind is ValueType.ARRAY:
        raise ModelFileError(f"{key} is an array of arrays", check="nesting")
    count = cursor.u64()
    if count > MAX_ARRAY_ITEMS:
        raise ModelFileError(
            f"{key} has {count} items; at most {MAX_ARRAY_ITEMS} are allowed", check="array-length"
        )
    if kind is ValueType.STRING:
        # Each string has at least its length.
        if count * _U64.size > cursor.left:
            raise ModelFileError(f"the items of {key} do not fit into the file", check="truncated")
        return Value(kind, count, cursor.skip_strings(count))
    raw = cursor.take(count * VALUE_BYTES[kind])
    _check_booleans(kind, raw, key)
    return Value(kind, count, raw)


def _value_type(number: int, key: str) -> ValueType:
    try:
        return ValueType(number)
    except ValueError:
        raise ModelFileError(f"{key} has the unknown type {number}", check="value-type") from None


def _check_booleans(kind: ValueType, raw: bytes, key: str) -> None:
    if kind is ValueType.BOOL and raw.translate(None, b"\x00\x01"):
        raise ModelFileError(f"{key} holds a boolean that is neither 0 nor 1", check="boolean")


def _alignment(metadata: Mapping[str, Value]) -> int:
    value = metadata.get(ALIGNMENT_KEY)
    if value is None:
        return DEFAULT_ALIGNMENT
    alignment = value.number
    if value.type is not ValueType.UINT32 or not isinstance(alignment, int):
        raise ModelFileError(f"{ALIGNMENT_KEY} is not of type uint32", check="key-type")
    if not 0 < alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise ModelFileError(
            f"an alignment of {alignment}; allowed are powers of two up to {MAX_ALIGNMENT}", check="alignment"
        )
    return alignment


def _tensor(cursor: _Cursor) -> TensorInfo:
    name = _name(cursor, _TENSOR_NAME, MAX_TENSOR_NAME_BYTES, "tensor")
    n_dimensions = cursor.u32()
    if not 0 < n_dimensions <= MAX_DIMENSIONS:
        raise ModelFileError(
            f"the tensor {name} has {n_dimensions} dimensions; 1 to {MAX_DIMENSIONS} are allowed",
            check="dimensions",
        )
    shape = tuple(cursor.u64() for _ in range(n_dimensions))
    elements = 1
    for extent in shape:
        elements *= extent
        if not 0 < elements <= MAX_ELEMENTS:
            raise ModelFileError(
                f"the tensor {name} has no elements, or more than {MAX_ELEMENTS}", check="dimensions"
            )
    number = cursor.u32()
    kind = TENSOR_TYPES.get(number)
    if kind is None:
        raise ModelFileError(f"the tensor {name} has the unknown type {number}", check="tensor-type")
    if shape[0] % kind.block_elements:
        raise ModelFileError(
            f"the rows of the tensor {name} are not whole blocks of {kind.block_elements}", check="dimensions"
        )
    size_bytes = elements // kind.block_elements * kind.block_bytes
    return TensorInfo(name, shape, kind, cursor.u64(), size_bytes)
