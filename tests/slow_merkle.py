# SPDX-License-Identifier: Apache-2.0
"""The Merkle tree of RFC 9162 as section 2.1 defines it, word for word, over entries instead of hashes."""

import hashlib
from collections.abc import Sequence


def tree(entries: Sequence[bytes]) -> bytes:
    """MTH(D[n]), section 2.1.1."""
    if not entries:
        return hashlib.sha256().digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    k = split(len(entries))
    return hashlib.sha256(b"\x01" + tree(entries[:k]) + tree(entries[k:])).digest()


def split(n: int) -> int:
    """The largest power of two smaller than n."""
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def path(m: int, entries: Sequence[bytes]) -> list[bytes]:
    """PATH(m, D[n]), section 2.1.3.1."""
    if len(entries) == 1:
        return []
    k = split(len(entries))
    if m < k:
        return [*path(m, entries[:k]), tree(entries[k:])]
    return [*path(m - k, entries[k:]), tree(entries[:k])]


def proof(m: int, entries: Sequence[bytes]) -> list[bytes]:
    """PROOF(m, D[n]), section 2.1.4.1."""
    return subproof(m, entries, complete=True)


def subproof(m: int, entries: Sequence[bytes], *, complete: bool) -> list[bytes]:
    """SUBPROOF(m, D[n], b), section 2.1.4.1."""
    n = len(entries)
    if m == n:
        return [] if complete else [tree(entries)]
    k = split(n)
    if m <= k:
        return [*subproof(m, entries[:k], complete=complete), tree(entries[k:])]
    return [*subproof(m - k, entries[k:], complete=False), tree(entries[:k])]
