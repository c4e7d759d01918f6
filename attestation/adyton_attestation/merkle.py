# SPDX-License-Identifier: Apache-2.0
"""The Merkle tree of RFC 9162 over the entries of a log: roots, inclusion proofs and consistency proofs.

::

    leaf   SHA-256(00 || entry)
    node   SHA-256(01 || left || right)

A tree of n leaves splits at the largest power of two below n (section 2.1.1). An inclusion proof shows that one
entry is in the tree of a root, a consistency proof that the tree of one root begins with the tree of another; both
are logarithmic. Making proofs is for whoever keeps the log. Verifying takes attacker-controlled proofs and follows
sections 2.1.3.2 and 2.1.4.2 step by step. No I/O, no signatures.
"""

import hashlib
import hmac
from collections.abc import Iterator, Sequence
from typing import Final

from adyton_protocol.digests import SHA256_BYTES
from adyton_protocol.errors import LocalProtocolError

HASH_BYTES: Final = SHA256_BYTES
MAX_TREE_SIZE: Final = 2**53 - 1
"""Largest tree size that is read; what JSON can say exactly."""
MAX_PROOF_HASHES: Final = 64
"""Longest proof that is looked at; a tree of ``MAX_TREE_SIZE`` leaves needs 54."""

EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
"""Root of the tree without leaves (section 2.1.1)."""


def leaf_hash(entry: bytes) -> bytes:
    """Hash one entry; 32 bytes."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash two subtrees; 32 bytes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_hash(leaves: Sequence[bytes]) -> bytes:
    """Root over leaf hashes, in order (RFC 9162 section 2.1.1)."""
    if not leaves:
        return EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    split = _split(len(leaves))
    return node_hash(root_hash(leaves[:split]), root_hash(leaves[split:]))


def inclusion_proof(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """Prove that the leaf at ``index`` (from 0) is in the tree (RFC 9162 section 2.1.3.1).

    Raises:
        LocalProtocolError: There is no such leaf.
    """
    if not 0 <= index < len(leaves):
        raise LocalProtocolError("an inclusion proof is for a leaf of the tree")
    return tuple(_path(leaves, index))


def consistency_proof(leaves: Sequence[bytes], size: int) -> tuple[bytes, ...]:
    """Prove that the tree begins with the tree of its first ``size`` leaves (RFC 9162 section 2.1.4.1).

    Raises:
        LocalProtocolError: The size is not between one and the number of leaves.
    """
    if not 0 < size <= len(leaves):
        raise LocalProtocolError("a consistency proof is from an earlier tree that is not empty")
    return tuple(_subproof(leaves, size, whole=True))


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Say whether the proof shows that ``leaf`` is entry ``index`` of the tree (RFC 9162 section 2.1.3.2).

    Args:
        leaf: Leaf hash, computed from the entry itself.
        index: From 0; attacker-controlled.
        size: Of the tree, as signed.
        proof: Attacker-controlled hashes.
        root: Of the tree, as signed.
    """
    if not 0 <= index < size:
        return False
    position, last, running = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if position & 1 or position == last:
            running = node_hash(sibling, running)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            running = node_hash(running, sibling)
        position, last = position >> 1, last >> 1
    # SECURITY: a proof that is too short would prove a node, which is no entry.
    return last == 0 and hmac.compare_digest(running, root)


def verify_consistency(
    old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]
) -> bool:
    """Say whether the proof shows that the new tree begins with the old one (RFC 9162 section 2.1.4.2).

    Args:
        old_size: Of the tree that was seen before.
        old_root: Its root.
        new_size: Of the tree that is shown now, as signed.
        new_root: Its root, as signed.
        proof: Attacker-controlled hashes; none for trees of one size, which must have one root.
    """
    if not 0 < old_size <= new_size:
        return False
    if old_size == new_size:
        return not proof and hmac.compare_digest(old_root, new_root)
    if not proof:
        return False
    # Step 2: the old tree is complete, so its root is where the path begins.
    path = [old_root, *proof] if old_size & (old_size - 1) == 0 else [*proof]
    position, last = old_size - 1, new_size - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old_running = new_running = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            old_running = node_hash(sibling, old_running)
            new_running = node_hash(sibling, new_running)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            new_running = node_hash(new_running, sibling)
        position, last = position >> 1, last >> 1
    return (
        last == 0
        and hmac.compare_digest(old_running, old_root)
        and hmac.compare_digest(new_running, new_root)
    )


def _split(size: int) -> int:
    """Largest power of two below ``size``, which is two or more."""
    return 1 << (size - 1).bit_length() - 1


def _path(leaves: Sequence[bytes], index: int) -> Iterator[bytes]:
    if len(leaves) == 1:
        return
    split = _split(len(leaves))
    if index < split:
        yield from _path(leaves[:split], index)
        yield root_hash(leaves[split:])
    else:
        yield from _path(leaves[split:], index - split)
        yield root_hash(leaves[:split])


def _subproof(leaves: Sequence[bytes], size: int, *, whole: bool) -> Iterator[bytes]:
    if size == len(leaves):
        if not whole:
            yield root_hash(leaves)
        return
    split = _split(len(leaves))
    if size <= split:
        yield from _subproof(leaves[:split], size, whole=whole)
        yield root_hash(leaves[split:])
    else:
        yield from _subproof(leaves[split:], size - split, whole=False)
        yield root_hash(leaves[:split])
