# SPDX-License-Identifier: Apache-2.0
"""Reads the small files beside a scorer, which the host may swap at will: only a pinned digest makes them ours."""

import hashlib
import hmac
from pathlib import Path

from adyton_protocol.errors import AdapterError


def read_pinned(path: Path, sha256: str, *, max_bytes: int, what: str) -> bytes:
    """Read a file once and check the digest of what was read.

    Args:
        path: A file under the host's control.
        sha256: Expected SHA-256 from the measured configuration: 64 lower-case hex digits.
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
    digest = hashlib.sha256(data).hexdigest()
    # SECURITY: on the very bytes that are parsed afterwards; nothing is read twice.
    if not hmac.compare_digest(digest, sha256):
        raise AdapterError(f"{what} has digest sha256:{digest}, which is not the one configured")
    return data
