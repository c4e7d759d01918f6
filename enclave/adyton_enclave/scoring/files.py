# SPDX-License-Identifier: Apache-2.0
"""Reads the small files beside a scorer, which the host may swap at will: only a pinned digest makes them ours."""

import hmac
from dataclasses import dataclass
from pathlib import Path

from adyton_enclave.scoring.adapter import MAX_ADAPTER_BYTES, Adapter, parse_adapter
from adyton_enclave.scoring.head import MAX_HEAD_BYTES, Head, read_head
from adyton_protocol.digests import Digest, sha256_hex
from adyton_protocol.errors import AdapterError
from adyton_protocol.model_identity import ScorerParts


@dataclass(frozen=True, slots=True)
class Ingredients:
    """What a scorer consists of beside its model: an adapter, and a head if the adapter asks for one."""

    adapter: Adapter
    head: Head | None = None

    def __post_init__(self) -> None:
        """Refuse a missing head."""
        if (self.head is None) != (self.adapter.kind != "head"):
            raise AdapterError("the adapter asks for a head file, and there is none")

    @property
    def parts(self) -> ScorerParts:
        """What of it is part of the model identity."""
        return ScorerParts(adapter=self.adapter.digest, head=None if self.head is None else self.head.digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerFiles:
    """Where a scorer's adapter and head lie, both under the host's control, and what they must be: SHA-256 each."""

    adapter: Path
    adapter_digest: Digest
    head: Path | None = None
    head_digest: Digest | None = None

    @property
    def parts(self) -> ScorerParts:
        """What of them is part of the model identity."""
        return ScorerParts(adapter=self.adapter_digest, head=self.head_digest)

    def read(self) -> Ingredients:
        """Read and check both.

        Raises:
            AdapterError: One is missing, of another digest, malformed, or does not go with the other.
        """
        data = read_pinned(
            self.adapter, self.adapter_digest, max_bytes=MAX_ADAPTER_BYTES, what="the adapter file"
        )
        adapter = parse_adapter(data)
        if self.head is None or self.head_digest is None:
            return Ingredients(adapter)
        if adapter.activation is None:
            raise AdapterError("there is a head file, but the adapter reads logits")
        data = read_pinned(self.head, self.head_digest, max_bytes=MAX_HEAD_BYTES, what="the head file")
        return Ingredients(adapter, read_head(data, adapter.activation))


def read_pinned(path: Path, expected: Digest, *, max_bytes: int, what: str) -> bytes:
    """Read a file once and check the digest of what was read.

    Args:
        path: A file under the host's control.
        expected: SHA-256 from the measured configuration.
        max_bytes: Largest size that is read.
        what: The file in messages.

    Raises:
        AdapterError: It cannot be read, is larger, or has another digest.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise AdapterError(f"{what} cannot be read: {error.strerror}") from error
    if len(data) > max_bytes:
        raise AdapterError(f"{what} has more than {max_bytes} bytes")
    found = sha256_hex(data)
    # SECURITY: on the very bytes that are parsed afterwards; nothing is read twice.
    if not hmac.compare_digest(found, expected):
        raise AdapterError(f"{what} has digest {found}, which is not the one configured")
    return data
