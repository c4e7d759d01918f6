# SPDX-License-Identifier: Apache-2.0
"""Names under which one key epoch's requests may share cached prefixes.

A namespace is HMAC-SHA256, under a secret of the epoch, of the salt that a caller put into its sealed request. Whoever
does not know the salt cannot name it; whoever knows it later cannot either, because the secret lives in this process's
memory only and goes with the epoch's keys. What the host says about a tenant takes no part.
"""

import hmac
import secrets
from collections.abc import Set as AbstractSet
from typing import Final

_SECRET_BYTES: Final = 32
_LABEL: Final = b"adyton cache namespace\0"


class CacheNamespaces:
    """The namespaces of one epoch. Used from the event loop's thread only."""

    def __init__(self) -> None:
        """Make a secret."""
        self._secret: bytes | None = secrets.token_bytes(_SECRET_BYTES)
        self._issued: set[bytes] = set()

    def derive(self, salt: str) -> bytes | None:
        """The 32 bytes that a caller's salt stands for in this epoch; None when the epoch is over.

        Args:
            salt: Attacker-controlled; equal salts of different callers share, which is what a salt is for.
        """
        if self._secret is None:
            return None
        namespace = hmac.digest(self._secret, _LABEL + salt.encode("utf-8"), "sha256")
        self._issued.add(namespace)
        return namespace

    def end(self) -> AbstractSet[bytes]:
        """Forget the secret; returns every namespace that was ever given out."""
        self._secret = None
        return self._issued
