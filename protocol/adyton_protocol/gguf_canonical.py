# SPDX-License-Identifier: Apache-2.0
"""One model, one file: merges split files, drops what cannot change an answer, and writes the header that is loaded.

llama.cpp never sees the header of the file as it came. It gets one that is written here from what was parsed: version
3, keys in the order of their names, tensors in the order of theirs, an alignment of 32. So what is dropped here is
neutral by construction, what is kept is hashed into the identity (``model_identity``), and no difference between two
parsers can be of use to anybody.

SECURITY: the list of what is dropped is closed. A key that it does not name is kept, hashed and given to llama.cpp,
whether anybody knows it or not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from adyton_protocol.errors import ModelFileError
from adyton_protocol.gguf import DEFAULT_ALIGNMENT, MAGIC, GgufFile, TensorInfo, Value, padded, read_header
from adyton_protocol.random_access import RandomAccess

CANONICAL_VERSION: Final = 3
MAX_SPLITS: Final = 1024

SPLIT_NUMBER_KEY: Final = "split.no"
SPLIT_COUNT_KEY: Final = "split.count"
SPLIT_TENSORS_KEY: Final = "split.tensors.count"

_PROVENANCE: Final = "says where the model comes from; nothing computes with it"
_LABEL: Final = "a label for people; nothing computes with it"
_SPLIT: Final = "packaging: checked when the files are merged, and gone then"

NEUTRAL_KEYS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "general.alignment": "packaging: the header that is loaded has an alignment of its own",
        "general.author": _PROVENANCE,
        "general.basename": _LABEL,
        "general.datasets": _PROVENANCE,
        "general.description": _LABEL,
        "general.doi": _PROVENANCE,
        "general.file_type": "llama.cpp prints it; how tensors are stored stands in the tensor table, which is hashed",
        "general.finetune": _LABEL,
        "general.languages": _LABEL,
        "general.license": _PROVENANCE,
        "general.license.link": _PROVENANCE,
        "general.license.name": _PROVENANCE,
        "general.organization": _PROVENANCE,
        "general.quantization_version": "no reader looks at it; the tensor types, which are hashed, say everything",
        "general.quantized_by": _PROVENANCE,
        "general.repo_url": _PROVENANCE,
        "general.size_label": _LABEL,
        "general.tags": _LABEL,
        "general.url": _PROVENANCE,
        "general.uuid": _PROVENANCE,
        "general.version": _LABEL,
        "quantize.imatrix.chunks_count": _PROVENANCE,
        "quantize.imatrix.dataset": _PROVENANCE,
        "quantize.imatrix.entries_count": _PROVENANCE,
        "quantize.imatrix.file": _PROVENANCE,
        SPLIT_COUNT_KEY: _SPLIT,
        SPLIT_NUMBER_KEY: _SPLIT,
        SPLIT_TENSORS_KEY: _SPLIT,
    }
)
"""Keys that cannot change an answer, and why. ``general.name`` is none: llama.cpp changes how control tokens of some
vocabularies treat blanks when the name holds "phi-3"."""

NEUTRAL_PREFIXES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "general.base_model.": _PROVENANCE,
        "general.dataset.": _PROVENANCE,
        "general.source.": _PROVENANCE,
    }
)
"""Families of such keys: the models and data sets that a model was made from are numbered."""


def neutral_reason(key: str) -> str | None:
    """Why a key cannot change an answer; None when it may."""
    if (reason := NEUTRAL_KEYS.get(key)) is not None:
        return reason
    return next((reason for prefix, reason in NEUTRAL_PREFIXES.items() if key.startswith(prefix)), None)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the data of one tensor is, and where llama.cpp expects it.

    Attributes:
        source: Number of the file, from 0.
        source_offset: In that file, in bytes from its beginning.
        offset: In the canonical file, in bytes from its beginning.
    """

    tensor: TensorInfo
    source: int
    source_offset: int
    offset: int

    @property
    def size_bytes(self) -> int:
        """Bytes of the data, the same in both files."""
        return self.tensor.size_bytes


@dataclass(frozen=True, slots=True)
class GgufModel:
    """A model, whatever files it came in.

    Attributes:
        metadata: What may change an answer, in the order of the names.
        dropped: What cannot, of the first file.
        header: The canonical header, padding included; the data section begins at its end.
        placements: In the order of the names of the tensors, which is that of the canonical file.
        size_bytes: Of the canonical file. What lies between two tensors is zero.
    """

    metadata: Mapping[str, Value]
    dropped: Mapping[str, Value]
    header: bytes
    placements: tuple[Placement, ...]
    size_bytes: int

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """The tensors by name."""
        return {placement.tensor.name: placement.tensor for placement in self.placements}


def merge_splits(files: Sequence[GgufFile]) -> GgufModel:
    """Make one model of the parsed headers of its files (attacker-controlled), in their order.

    Raises:
        ModelFileError: The files are not the parts of one model, or no part is the first.
    """
    _check_splits(files)
    first = files[0].metadata
    kept = {key: first[key] for key in sorted(first) if neutral_reason(key) is None}
    sources: dict[str, tuple[int, GgufFile, TensorInfo]] = {}
    for number, file in enumerate(files):
        for tensor in file.tensors:
            if tensor.name in sources:
                raise ModelFileError(f"the tensor {tensor.name} is in two files", check="duplicate")
            sources[tensor.name] = (number, file, tensor)
    ordered = [sources[name][2] for name in sorted(sources)]
    header = _header(kept, ordered)
    placements = []
    position = len(header)
    for tensor in ordered:
        number, file, _ = sources[tensor.name]
        placements.append(Placement(tensor, number, file.data_offset + tensor.offset, position))
        position = padded(position + tensor.size_bytes, DEFAULT_ALIGNMENT)
    return GgufModel(
        metadata=MappingProxyType(kept),
        dropped=MappingProxyType({key: value for key, value in first.items() if key not in kept}),
        header=header,
        placements=tuple(placements),
        size_bytes=position,
    )


def read_model(sources: Sequence[RandomAccess]) -> GgufModel:
    """Parse and merge the headers of a model's files (attacker-controlled), in their order.

    Raises:
        ModelFileError: A file is no GGUF file, or they are not one model.
    """
    return merge_splits([read_header(source) for source in sources])


def split_count(file: GgufFile) -> int:
    """How many files the model of this (first) one has.

    Raises:
        ModelFileError: The numbers of the file about that are none.
    """
    count = _whole(file, SPLIT_COUNT_KEY)
    if count is None:
        return 1
    if not 0 < count <= MAX_SPLITS:
        raise ModelFileError(f"a model in {count} files; 1 to {MAX_SPLITS} are allowed", check="split")
    return count


def _check_splits(files: Sequence[GgufFile]) -> None:
    if not files:
        raise ModelFileError("a model has at least one file", check="split")
    count = split_count(files[0])
    if count != len(files):
        raise ModelFileError(f"the model has {count} files, and {len(files)} are given", check="split")
    tensors = sum(len(file.tensors) for file in files)
    if _whole(files[0], SPLIT_TENSORS_KEY) not in {None, tensors}:
        raise ModelFileError("the files do not hold as many tensors as the first one says", check="split")
    for number, file in enumerate(files):
        # A file of its own may leave its number out; parts of several may not.
        if _whole(file, SPLIT_NUMBER_KEY) != number and not (
            count == 1 and SPLIT_NUMBER_KEY not in file.metadata
        ):
            raise ModelFileError(
                f"file {number} of the model does not say that it is this one", check="split"
            )
        if split_count(file) != count:
            raise ModelFileError("the files disagree about how many they are", check="split")
        for key, value in file.metadata.items():
            # Whatever may change an answer stands in the first file, or nobody would know which file counts.
            if neutral_reason(key) is None and files[0].metadata.get(key) != value:
                raise ModelFileError(f"{key} in file {number} differs from the first file", check="split")


def _whole(file: GgufFile, key: str) -> int | None:
    value = file.metadata.get(key)
    if value is None:
        return None
    number = value.number
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise ModelFileError(f"{key} is not a whole number", check="key-type")
    return number


def _header(metadata: Mapping[str, Value], tensors: Sequence[TensorInfo]) -> bytes:
    pieces = [MAGIC, _u32(CANONICAL_VERSION), _u64(len(tensors)), _u64(len(metadata))]
    for key, value in metadata.items():
        pieces += (_u64(len(key)), key.encode("ascii"), value.encode())
    offset = 0
    for tensor in tensors:
        pieces += (_u64(len(tensor.name)), tensor.name.encode("ascii"), _u32(len(tensor.shape)))
        pieces += (_u64(extent) for extent in tensor.shape)
        pieces += (_u32(tensor.type.number), _u64(offset))
        offset = padded(offset + tensor.size_bytes, DEFAULT_ALIGNMENT)
    header = b"".join(pieces)
    return header.ljust(padded(len(header), DEFAULT_ALIGNMENT), b"\x00")


def _u32(number: int) -> bytes:
    return number.to_bytes(4, "little")


def _u64(number: int) -> bytes:
    return number.to_bytes(8, "little")
