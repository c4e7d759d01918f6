# SPDX-License-Identifier: Apache-2.0
"""Seals and splits model files for tests, with the protocol's own sealer and nothing of the tools."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from adyton_protocol.digests import Digest
from adyton_protocol.gguf import read_header
from adyton_protocol.gguf_canonical import merge_splits
from adyton_protocol.model_identity import ModelPin, model_content
from adyton_protocol.random_access import BytesAccess, read_bytes
from adyton_protocol.sealed_model import (
    KEY_BYTES,
    MIN_CHUNK_BYTES,
    TAG_BYTES,
    ModelKey,
    ModelSealer,
    SealedHeader,
    parse_sealed_header,
)
from adyton_protocol.weights_tree import CHUNK_BYTES, WeightsTree, chunk_bytes, chunk_digest

TEST_KEY: Final = bytes(range(KEY_BYTES))


def pin_of_files(*files: bytes) -> ModelPin:
    """What the files of one model hold."""
    sources = [BytesAccess(data) for data in files]
    model = merge_splits([read_header(source) for source in sources])
    placements = {placement.tensor.name: placement for placement in model.placements}
    tree = WeightsTree(placement.tensor for placement in model.placements)
    for tensor, index in list(tree.missing()):
        placement = placements[tensor.name]
        offset = placement.source_offset + index * CHUNK_BYTES
        chunk = read_bytes(sources[placement.source], offset, chunk_bytes(tensor, index))
        tree.record(tensor.name, index, chunk_digest(chunk))
    return model_content(model, tree.root()).pin


def seal_files(
    *files: bytes,
    key: bytes = TEST_KEY,
    model_version: int = 1,
    chunk_bytes: int = MIN_CHUNK_BYTES,
    content: Digest | None = None,
    file_id: bytes = bytes(32),
) -> bytes:
    """One sealed file."""
    plain, owner = b"".join(files), ModelKey(key)
    header = SealedHeader(
        chunk_bytes=chunk_bytes,
        model_version=model_version,
        key_id=owner.key_id,
        content=content or pin_of_files(*files).content,
        file_id=file_id,
        member_bytes=tuple(map(len, files)),
    )
    sealer = ModelSealer(owner, header)
    chunks = [plain[at : at + chunk_bytes] for at in range(0, len(plain), chunk_bytes)]
    return sealer.beginning + b"".join(sealer.seal(index, chunk) for index, chunk in enumerate(chunks))


def sealed_pieces(data: bytes) -> tuple[bytes, list[bytes]]:
    """Header with tag, and the sealed chunks."""
    header = parse_sealed_header(data)
    begins = [header.offset_of(index) for index in range(header.n_chunks)]
    return data[: begins[0]], [
        data[begin : begin + header.plain_bytes_of(index) + TAG_BYTES] for index, begin in enumerate(begins)
    ]


def sha256_of(path: Path) -> str:
    """Of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_all(directory: Path, files: Sequence[bytes], stem: str = "m") -> list[Path]:
    """The parts of a split model under the names that gguf-split gives them."""
    paths = [directory / f"{stem}-{n + 1:05}-of-{len(files):05}.gguf" for n in range(len(files))]
    for path, data in zip(paths, files, strict=True):
        path.write_bytes(data)
    return paths
