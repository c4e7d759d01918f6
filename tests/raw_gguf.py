# SPDX-License-Identifier: Apache-2.0
"""Writes GGUF files byte by byte, wrong ones above all, and edits real ones."""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from adyton_protocol.gguf import DEFAULT_ALIGNMENT, GgufFile, TensorInfo, Value, padded, read_header
from adyton_protocol.gguf_types import STRUCT_FORMATS, TENSOR_TYPES, ValueType
from adyton_protocol.random_access import BytesAccess


def u32(number: int) -> bytes:
    """Four bytes."""
    return struct.pack("<I", number)


def u64(number: int) -> bytes:
    """Eight bytes."""
    return struct.pack("<Q", number)


def string(text: str | bytes) -> bytes:
    """A length and a text."""
    data = text.encode() if isinstance(text, str) else text
    return u64(len(data)) + data


def text(value: str | bytes) -> Value:
    """A text as a value."""
    return Value(ValueType.STRING, None, string(value))


def texts(values: Sequence[str | bytes]) -> Value:
    """An array of texts as a value."""
    return Value(ValueType.STRING, len(values), b"".join(map(string, values)))


def number(value: float, kind: ValueType = ValueType.UINT32) -> Value:
    """A number as a value."""
    return Value(kind, None, struct.pack("<" + STRUCT_FORMATS[kind], value))


def numbers(values: Sequence[float], kind: ValueType = ValueType.UINT32) -> Value:
    """An array of numbers as a value."""
    return Value(kind, len(values), struct.pack(f"<{len(values)}{STRUCT_FORMATS[kind]}", *values))


def key_line(name: str | bytes, value: Value | bytes) -> bytes:
    """A key and its value; bytes stand for type and value."""
    return string(name) + (value if isinstance(value, bytes) else value.encode())


def tensor_line(
    name: str | bytes, shape: Sequence[int], kind: int = 0, offset: int = 0, n_dims: int | None = None
) -> bytes:
    """A line of the tensor table."""
    dimensions = b"".join(map(u64, shape))
    return string(name) + u32(len(shape) if n_dims is None else n_dims) + dimensions + u32(kind) + u64(offset)


def raw_file(
    keys: Sequence[bytes] = (),
    tensors: Sequence[bytes] = (),
    *,
    data: bytes = b"",
    magic: bytes = b"GGUF",
    version: int = 3,
    n_keys: int | None = None,
    n_tensors: int | None = None,
    alignment: int = DEFAULT_ALIGNMENT,
) -> bytes:
    """A file, whose counts may lie."""
    counts = u64(len(tensors) if n_tensors is None else n_tensors) + u64(
        len(keys) if n_keys is None else n_keys
    )
    head = magic + u32(version) + counts + b"".join(keys) + b"".join(tensors)
    return head.ljust(padded(len(head), alignment), b"\x00") + data


@dataclass
class EditableModel:
    """A real file taken apart, to be changed and put together again.

    Attributes:
        metadata: May be changed in place.
        tensors: Name to shape, number of the type, and data; may be changed in place.
    """

    metadata: dict[str, Value]
    tensors: dict[str, tuple[tuple[int, ...], int, bytes]]
    version: int = 3
    alignment: int = DEFAULT_ALIGNMENT
    gap: bytes = b"\x00"
    tail: bytes = field(default=b"")

    @classmethod
    def parse(cls, data: bytes) -> "EditableModel":
        """Take a file apart."""
        file: GgufFile = read_header(BytesAccess(data))

        def content(tensor: TensorInfo) -> bytes:
            start = file.data_offset + tensor.offset
            return data[start : start + tensor.size_bytes]

        return cls(
            metadata=dict(file.metadata),
            tensors={t.name: (t.shape, t.type.number, content(t)) for t in file.tensors},
        )

    def to_bytes(self, order: Callable[[str], object] | None = None) -> bytes:
        """Put it together; ``order`` sorts keys and tensors."""
        keys = sorted(self.metadata, key=order) if order else list(self.metadata)  # type: ignore[arg-type]
        names = sorted(self.tensors, key=order) if order else list(self.tensors)  # type: ignore[arg-type]
        lines, data = [], b""
        for name in names:
            shape, kind, content = self.tensors[name]
            lines.append(tensor_line(name, shape, kind, len(data)))
            end = len(data) + len(content)
            data += content + self.gap * (padded(end, self.alignment) - end)
        return (
            raw_file(
                [key_line(key, self.metadata[key]) for key in keys],
                lines,
                data=data,
                version=self.version,
                alignment=self.alignment,
            )
            + self.tail
        )


def row_bytes(shape: Sequence[int], kind: int) -> int:
    """Bytes of the data of a tensor."""
    elements = 1
    for extent in shape:
        elements *= extent
    return elements // TENSOR_TYPES[kind].block_elements * TENSOR_TYPES[kind].block_bytes


def split_files(model: EditableModel, names: Sequence[Sequence[str]]) -> list[bytes]:
    """The files of a split model, as ``gguf-split`` writes them: all keys in the first."""
    files = []
    for index, part in enumerate(names):
        about: Mapping[str, Value] = {
            "split.no": number(index, ValueType.UINT16),
            "split.count": number(len(names), ValueType.UINT16),
            "split.tensors.count": number(len(model.tensors), ValueType.INT32),
        }
        metadata = {**model.metadata, **about} if index == 0 else dict(about)
        files.append(EditableModel(metadata, {name: model.tensors[name] for name in part}).to_bytes())
    return files
