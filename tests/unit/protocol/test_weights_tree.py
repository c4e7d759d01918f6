# SPDX-License-Identifier: Apache-2.0
"""The tree over a model's tensors: vectors, an independent construction, and what it binds."""

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from slow_blake3 import derived

from adyton_protocol.errors import LocalProtocolError, ModelFileError
from adyton_protocol.gguf import TensorInfo
from adyton_protocol.gguf_types import TENSOR_TYPES
from adyton_protocol.weights_tree import CHUNK_BYTES, WeightsTree, chunk_count, chunk_digest, tree_root

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "weights_tree.json").read_text())


def tensor(name: str, shape: tuple[int, ...], kind: int) -> TensorInfo:
    """A tensor somewhere in a file."""
    elements = 1
    for extent in shape:
        elements *= extent
    of = TENSOR_TYPES[kind]
    return TensorInfo(name, shape, of, 0, elements // of.block_elements * of.block_bytes)


def merkle(leaves: list[bytes], prefix: bytes) -> bytes:
    """RFC 6962 section 2.1, as it is written there."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while 2 * split < len(leaves):
        split *= 2
    left, right = merkle(leaves[:split], prefix), merkle(leaves[split:], prefix)
    return hashlib.sha256(prefix + left + right).digest()


def independent_root(tensors: dict[str, tuple[list[int], int, bytes]]) -> str:
    """The root, computed anew from the description."""
    leaves = []
    for name in sorted(tensors):
        shape, kind, data = tensors[name]
        chunks = [data[at : at + 2**20] for at in range(0, len(data), 2**20)]
        root = merkle(
            [blake3(c, derive_key_context="adyton model chunk v2").digest() for c in chunks], b"\x01"
        )
        line = bytes([len(name)]) + name.encode() + kind.to_bytes(4, "big") + bytes([len(shape)])
        line += b"".join(extent.to_bytes(8, "big") for extent in shape) + len(data).to_bytes(8, "big")
        leaves.append(hashlib.sha256(b"\x02" + line + root).digest())
    return "sha256:" + merkle(leaves, b"\x03").hex()


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 1023, 1024, 1025, 2048, 3073, 9000])
def test_a_chunk_is_hashed_as_the_blake3_paper_says(size: int) -> None:
    """Whatever the library does to be fast, and whatever kind of buffer it is given."""
    chunk = bytes(at % 251 for at in range(size))
    expected = derived("adyton model chunk v2", chunk)
    assert (
        chunk_digest(chunk) == chunk_digest(bytearray(chunk)) == chunk_digest(memoryview(chunk)) == expected
    )


def our_root(tensors: dict[str, tuple[list[int], int, bytes]]) -> str:
    """The root by the tree, chunks last to first."""
    infos = [tensor(name, tuple(shape), kind) for name, (shape, kind, _) in tensors.items()]
    tree = WeightsTree(infos)
    for info in infos:
        data = tensors[info.name][2]
        assert len(data) == info.size_bytes
        for index in reversed(range(chunk_count(info))):
            tree.record(info.name, index, chunk_digest(data[index * CHUNK_BYTES :][:CHUNK_BYTES]))
    assert not list(tree.missing())
    return tree.root()


def described(vector: dict[str, Any]) -> dict[str, tuple[list[int], int, bytes]]:
    """Tensors of a vector; the data of each is a byte, repeated, and its last one another."""
    found = {}
    for entry in vector["tensors"]:
        size = tensor(entry["name"], tuple(entry["shape"]), entry["type"]).size_bytes
        found[entry["name"]] = (
            entry["shape"],
            entry["type"],
            bytes([entry["byte"]]) * (size - 1) + bytes([entry["last"]]),
        )
    return found


@pytest.mark.parametrize("vector", VECTORS["roots"], ids=lambda vector: vector["name"])
def test_vectors(vector: dict[str, Any]) -> None:
    """The roots on record are those of the independent construction and of ours."""
    tensors = described(vector)
    assert our_root(tensors) == independent_root(tensors) == vector["weights"]


def test_everything_about_a_tensor_counts() -> None:
    """Data, name, type, shape, order of two, and a tensor more."""
    data = bytes(range(64)) * 2
    base = {"a": ([32], 0, data), "b": ([32], 0, data[::-1])}
    variants = [
        base,
        {**base, "a": ([32], 0, data[:-1] + b"\x00")},
        {**base, "a": ([16, 2], 0, data)},
        {**base, "a": ([32, 1], 0, data)},
        {**base, "a": ([64], 1, data)},
        {**base, "a": ([64], 30, data)},
        {"a": ([32], 0, data[::-1]), "b": ([32], 0, data)},
        {"a": ([32], 0, data), "c": ([32], 0, data[::-1])},
        {**base, "c": ([32], 0, data)},
        {"a": ([32], 0, data)},
    ]
    assert len({our_root(variant) for variant in variants}) == len(variants)


def test_a_chunk_that_looks_like_a_node_is_none() -> None:
    """What two leaves hash to is no leaf: a short tensor cannot pass for a long one."""
    left, right = chunk_digest(bytes(CHUNK_BYTES)), chunk_digest(b"\x01")
    node = hashlib.sha256(b"\x01" + left + right).digest()
    assert chunk_digest(left + right) != node
    long = WeightsTree([_bytes_tensor(CHUNK_BYTES + 4)])
    long.record("a", 0, left)
    long.record("a", 1, right)
    short = WeightsTree([_bytes_tensor(4)])
    short.record("a", 0, node)
    assert long.tensor_root("a") == short.tensor_root("a")
    assert long.root() != short.root()


def _bytes_tensor(size: int) -> TensorInfo:
    return tensor("a", (size // 4,), 0)


@given(leaves=st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=40))
def test_the_shape_is_that_of_rfc_6962(leaves: list[bytes]) -> None:
    """Our way of folding and the recursion of the RFC agree for every number of leaves."""
    ours = tree_root(leaves, lambda a, b: hashlib.sha256(b"\x01" + a + b).digest())
    assert ours == merkle(leaves, b"\x01")


def test_a_chunk_that_changed_between_two_reads_is_refused() -> None:
    """The first leaf stays; the same again is fine, another is not."""
    tree = WeightsTree([_bytes_tensor(64)])
    tree.record("a", 0, chunk_digest(b"x"))
    tree.record("a", 0, chunk_digest(b"x"))
    with pytest.raises(ModelFileError) as caught:
        tree.record("a", 0, chunk_digest(b"y"))
    assert caught.value.check == "changed"
    assert tree.leaf("a", 0) == chunk_digest(b"x")


def test_of_many_threads_one_is_the_first() -> None:
    """Threads that saw different bytes cannot all have recorded."""
    for _ in range(20):
        tree = WeightsTree([_bytes_tensor(64)])
        start = threading.Barrier(8)
        refused: list[int] = []

        def see(
            byte: int, tree: WeightsTree = tree, start: Any = start, refused: list[int] = refused
        ) -> None:
            start.wait()
            try:
                tree.record("a", 0, chunk_digest(bytes([byte])))
            except ModelFileError:
                refused.append(byte)

        threads = [threading.Thread(target=see, args=(byte,)) for byte in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(refused) == 7


def test_a_root_needs_every_chunk() -> None:
    """Missing chunks are named, chunks that no tensor has are refused, and nothing has no root."""
    info = _bytes_tensor(3 * CHUNK_BYTES)
    tree = WeightsTree([info])
    tree.record("a", 1, chunk_digest(b""))
    assert list(tree.missing()) == [(info, 0), (info, 2)]
    for wrong in (
        tree.root,
        lambda: tree.record("a", 3, bytes(32)),
        lambda: tree.record("a", -1, bytes(32)),
    ):
        with pytest.raises(LocalProtocolError):
            wrong()
    with pytest.raises(LocalProtocolError):
        WeightsTree([]).root()
