# SPDX-License-Identifier: Apache-2.0
"""Writes sealed model files: the GGUF as it is, or the parts of a split one, encrypted chunk by chunk."""

import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adyton_enclave.weights.sources import FileSource
from adyton_models.model_files import Report
from adyton_protocol.digests import Digest
from adyton_protocol.errors import ConfigError
from adyton_protocol.random_access import RandomAccess
from adyton_protocol.sealed_model import (
    DEFAULT_ALGORITHM,
    DEFAULT_CHUNK_BYTES,
    FILE_ID_BYTES,
    Algorithm,
    ModelKey,
    ModelSealer,
    SealedHeader,
)

_PUBLIC: Final = 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealing:
    """What to seal.

    Attributes:
        files: The GGUF, or all parts of a split one in their order.
        content: What they hold, from reading them.
        model_version: The owner's counter; the enclave refuses files that are older than its configuration demands.
        chunk_bytes: Plain bytes of a chunk.
        algorithm: Of the chunks.
    """

    files: tuple[Path, ...]
    content: Digest
    model_version: int = 1
    chunk_bytes: int = DEFAULT_CHUNK_BYTES
    algorithm: Algorithm = DEFAULT_ALGORITHM


def seal_model(
    sealing: Sealing,
    key: ModelKey,
    out: Path,
    *,
    report: Report = lambda _share, _note: None,
) -> SealedHeader:
    """Write a sealed file, which is there whole or not at all.

    Args:
        sealing: What to seal.
        key: Under which.
        out: Where; not overwritten.
        report: Called with the share that is done, from 0 to 1, and a note.

    Returns:
        The header of what was written.

    Raises:
        ConfigError: ``out`` is there already, or cannot be written.
        ModelFileError: A file cannot be read.
    """
    if out.exists():
        raise ConfigError(f"{out} exists; name another file with --out")
    with ExitStack() as stack:
        sources = [stack.enter_context(closing(FileSource(str(path)))) for path in sealing.files]
        header = SealedHeader(
            chunk_bytes=sealing.chunk_bytes,
            model_version=sealing.model_version,
            key_id=key.key_id,
            content=sealing.content,
            # SECURITY: drawn anew each time, or two files would share keys and nonces.
            file_id=os.urandom(FILE_ID_BYTES),
            member_bytes=tuple(source.size_bytes for source in sources),
            algorithm=sealing.algorithm,
        )
        sealer = ModelSealer(key, header)
        try:
            handle, draft = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
            stack.callback(_remove, Path(draft))
            with os.fdopen(handle, "wb") as stream:
                stream.write(sealer.beginning)
                for index in range(header.n_chunks):
                    plain = bytearray(header.plain_bytes_of(index))
                    _read_across(sources, index * header.chunk_bytes, memoryview(plain))
                    stream.write(sealer.seal(index, plain))
                    done = index * header.chunk_bytes + len(plain)
                    report(done / header.plain_bytes, f"{done / 1e6:.0f} MB")
                stream.flush()
                os.fsync(stream.fileno())
            Path(draft).chmod(_PUBLIC)
            os.link(draft, out)
        except OSError as error:
            raise ConfigError(f"cannot write {out}: {error.strerror}") from error
    return header


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _read_across(sources: Sequence[RandomAccess], offset: int, target: memoryview) -> None:
    """Fill ``target`` from ``offset`` on, as if the sources were one file."""
    done, begin = 0, 0
    for source in sources:
        end = begin + source.size_bytes
        position = offset + done
        if done < len(target) and begin <= position < end:
            count = min(end - position, len(target) - done)
            source.read_into(position - begin, target[done : done + count])
            done += count
        begin = end
