# SPDX-License-Identifier: Apache-2.0
"""Divide a GGUF into parts as gguf-split names and marks them, tensor by tensor, without reading it into memory."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from adyton_enclave.weights.sources import FileSource
from adyton_protocol.gguf import DEFAULT_ALIGNMENT, MAGIC, GgufFile, TensorInfo, Value, padded, read_header
from adyton_protocol.gguf_canonical import SPLIT_COUNT_KEY, SPLIT_NUMBER_KEY, SPLIT_TENSORS_KEY
from adyton_protocol.gguf_types import ValueType
from adyton_protocol.random_access import RandomAccess

_COPY_BYTES: Final = 16 * 1024 * 1024


def split_model(path: Path, parts: int) -> list[Path]:
    """Write the parts beside the file, unless they are there; return them in their order."""
    paths = [path.with_name(f"{path.stem}-{n + 1:05}-of-{parts:05}.gguf") for n in range(parts)]
    if all(part.exists() for part in paths):
        return paths
    with closing(FileSource(str(path))) as source:
        file = read_header(source)
        for number, part in enumerate(paths):
            tensors = _share(file.tensors, number, parts)
            about = {
                SPLIT_NUMBER_KEY: _number(number, ValueType.UINT16, 2),
                SPLIT_COUNT_KEY: _number(parts, ValueType.UINT16, 2),
                SPLIT_TENSORS_KEY: _number(len(file.tensors), ValueType.INT32, 4),
            }
            draft = part.with_suffix(".part")
            _write(draft, source, file, tensors, {**(file.metadata if number == 0 else {}), **about})
            draft.replace(part)
    return paths


def _share(tensors: Sequence[TensorInfo], number: int, parts: int) -> list[TensorInfo]:
    """The tensors of one part: in the order of the file, about as many bytes in each."""
    total = sum(tensor.size_bytes for tensor in tensors)
    share, done = [], 0
    for tensor in tensors:
        if min(parts - 1, done * parts // total) == number:
            share.append(tensor)
        done += tensor.size_bytes
    return share


def _number(value: int, kind: ValueType, size: int) -> Value:
    return Value(kind, None, value.to_bytes(size, "little"))


def _string(text: str) -> bytes:
    return len(text).to_bytes(8, "little") + text.encode("ascii")


def _write(
    path: Path,
    source: RandomAccess,
    file: GgufFile,
    tensors: Sequence[TensorInfo],
    metadata: dict[str, Value],
) -> None:
    pieces = [MAGIC, (3).to_bytes(4, "little")]
    pieces += (len(tensors).to_bytes(8, "little"), len(metadata).to_bytes(8, "little"))
    for key, value in metadata.items():
        pieces += (_string(key), value.encode())
    offset = 0
    for tensor in tensors:
        pieces += (_string(tensor.name), len(tensor.shape).to_bytes(4, "little"))
        pieces += (extent.to_bytes(8, "little") for extent in tensor.shape)
        pieces += (tensor.type.number.to_bytes(4, "little"), offset.to_bytes(8, "little"))
        offset = padded(offset + tensor.size_bytes, file.alignment)
    header = b"".join(pieces)
    with path.open("wb") as out:
        out.write(header.ljust(padded(len(header), file.alignment or DEFAULT_ALIGNMENT), b"\x00"))
        buffer = memoryview(bytearray(_COPY_BYTES))
        for tensor in tensors:
            for begin in range(0, tensor.size_bytes, _COPY_BYTES):
                part = buffer[: min(_COPY_BYTES, tensor.size_bytes - begin)]
                source.read_into(file.data_offset + tensor.offset + begin, part)
                out.write(part)
            out.write(bytes(padded(tensor.size_bytes, file.alignment) - tensor.size_bytes))
