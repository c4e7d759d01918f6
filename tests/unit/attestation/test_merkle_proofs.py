# SPDX-License-Identifier: Apache-2.0
"""The log's tree is that of RFC 9162, its proofs prove, and nothing else passes for one."""

import hashlib

import pytest
import slow_merkle
from hypothesis import given, settings
from hypothesis import strategies as st

from adyton_attestation import merkle
from adyton_protocol.errors import LocalProtocolError

LARGEST = 40


def entries(count: int) -> list[bytes]:
    """Entries that differ."""
    return [f"entry {number}".encode() for number in range(count)]


def leaves(count: int) -> list[bytes]:
    """Their hashes."""
    return [merkle.leaf_hash(entry) for entry in entries(count)]


ROOTS = [merkle.root_hash(leaves(count)) for count in range(LARGEST + 1)]


def test_every_tree_and_every_proof_is_that_of_the_definition() -> None:
    """All sizes up to forty, all leaves, all earlier sizes."""
    for size in range(LARGEST + 1):
        given_entries, given_leaves = entries(size), leaves(size)
        assert merkle.root_hash(given_leaves) == slow_merkle.tree(given_entries)
        for index in range(size):
            found = merkle.inclusion_proof(given_leaves, index)
            assert list(found) == slow_merkle.path(index, given_entries)
            assert merkle.verify_inclusion(given_leaves[index], index, size, found, ROOTS[size])
        for old in range(1, size + 1):
            shown = merkle.consistency_proof(given_leaves, old)
            assert list(shown) == slow_merkle.proof(old, given_entries)
            assert merkle.verify_consistency(old, ROOTS[old], size, ROOTS[size], shown)


def test_known_trees() -> None:
    """The empty tree and that of one empty entry, as every log of certificates has them."""
    assert merkle.root_hash([]) == hashlib.sha256().digest()
    assert merkle.leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 13])
def test_an_entry_is_in_its_own_place_only(size: int) -> None:
    """A proof of one leaf proves no other leaf, no other place, no other size and no other root."""
    nodes = leaves(size)
    for index in range(size):
        proof = merkle.inclusion_proof(nodes, index)
        for other in range(size + 2):
            right = other == index
            assert merkle.verify_inclusion(nodes[index], other, size, proof, ROOTS[size]) is (
                right and other < size
            )
        assert not merkle.verify_inclusion(merkle.leaf_hash(b"x"), index, size, proof, ROOTS[size])
        assert not merkle.verify_inclusion(nodes[index], index, size, proof, ROOTS[size + 1])
        assert not merkle.verify_inclusion(nodes[index], index, size, (*proof, bytes(32)), ROOTS[size])
        if proof:
            assert not merkle.verify_inclusion(nodes[index], index, size, proof[:-1], ROOTS[size])
            assert not merkle.verify_inclusion(nodes[index], index, size, proof[1:], ROOTS[size])


def test_a_node_is_no_entry() -> None:
    """An inner node with the rest of the proof does not pass for a leaf: leaves and nodes are hashed apart."""
    nodes = leaves(8)
    inner = merkle.node_hash(nodes[0], nodes[1])
    assert not merkle.verify_inclusion(inner, 0, 8, merkle.inclusion_proof(nodes, 0)[1:], ROOTS[8])
    assert merkle.leaf_hash(nodes[0] + nodes[1]) != inner


@settings(max_examples=300)
@given(
    st.integers(1, LARGEST),
    st.integers(1, LARGEST),
    st.lists(st.binary(min_size=32, max_size=32), max_size=8),
    st.booleans(),
)
def test_no_made_up_proof_connects_two_trees(old: int, new: int, made_up: list[bytes], forked: bool) -> None:
    """Hashes of nobody's tree never show that one tree begins with the other, nor does a proof of another pair."""
    other = ROOTS[old] if not forked else merkle.root_hash([merkle.leaf_hash(b"fork"), *leaves(old)[1:]])
    assert not merkle.verify_consistency(old, other, new, ROOTS[new], made_up) or (old == new and not forked)
    if old < new:
        right = merkle.consistency_proof(leaves(new), old)
        assert merkle.verify_consistency(old, other, new, ROOTS[new], right) is (not forked)
        assert not merkle.verify_consistency(old, ROOTS[old], new, ROOTS[new], (*right, bytes(32)))
        assert not merkle.verify_consistency(old, ROOTS[old], new, ROOTS[new], right[:-1])


@pytest.mark.parametrize("size", [4, 6, 9])
def test_every_changed_bit_of_a_proof_spoils_it(size: int) -> None:
    """One bit of each hash."""
    for old in range(1, size):
        proof = merkle.consistency_proof(leaves(size), old)
        for place, node in enumerate(proof):
            bent = (*proof[:place], bytes([node[0] ^ 1]) + node[1:], *proof[place + 1 :])
            assert not merkle.verify_consistency(old, ROOTS[old], size, ROOTS[size], bent)


def test_there_are_no_proofs_of_what_is_not_there() -> None:
    """No leaf beyond the end, no earlier tree that is empty or larger; and a tree does not shrink."""
    for call in (
        lambda: merkle.inclusion_proof(leaves(3), 3),
        lambda: merkle.inclusion_proof(leaves(3), -1),
        lambda: merkle.consistency_proof(leaves(3), 0),
        lambda: merkle.consistency_proof(leaves(3), 4),
    ):
        with pytest.raises(LocalProtocolError):
            call()
    assert not merkle.verify_consistency(0, merkle.EMPTY_ROOT, 3, ROOTS[3], ())
    assert not merkle.verify_consistency(3, ROOTS[3], 2, ROOTS[2], ())
    assert not merkle.verify_consistency(3, ROOTS[3], 3, ROOTS[3], (bytes(32),))
    assert not merkle.verify_consistency(2, ROOTS[2], 3, ROOTS[3], ())
