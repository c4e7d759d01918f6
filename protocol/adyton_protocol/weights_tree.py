# SPDX-License-Identifier: Apache-2.0
"""The Merkle tree over a model's tensors: one root for all weights, from chunks that arrive in any order.

::

    chunk leaf   BLAKE3(context, chunk)                    1 MiB of a tensor's data, the last one what is left
    chunk node   SHA-256(01 || left || right)
    tensor leaf  SHA-256(02 || len(name):u8 || name || type:u32 || n_dims:u8 || dim:u64* || size:u64 || data root)
    tensor node  SHA-256(03 || left || right)              tensors in the order of their names, as bytes

Numbers are big-endian. Trees have the shape of RFC 6962 section 2.1. A chunk is hashed in BLAKE3's key derivation mode
under :data:`CHUNK_CONTEXT`, anything else begins with a byte that says what it is, so that no chunk can pass for a node
and no node of one level for one of the other; a tensor's leaf binds its name, type, shape
and size to its data, so that two tensors cannot be swapped and none can be read as something else.

All the time goes into the chunks, hence BLAKE3, which reads them at 6.6 GB/s where SHA-256 does 1.8 (one core).

Hashing a chunk is a pure function that releases the interpreter's lock; threads may record into one tree.
"""

import hashlib
import hmac
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from blake3 import blake3

from adyton_protocol.digests import Digest
from adyton_protocol.errors import LocalProtocolError, ModelFileError
from adyton_protocol.gguf import TensorInfo
from adyton_protocol.gguf_canonical import GgufModel
from adyton_protocol.random_access import RandomAccess

CHUNK_BYTES: Final = 1024 * 1024

CHUNK_CONTEXT: Final = "adyton model chunk v2"
"""BLAKE3's context string: says what is hashed, and for whom."""

_CHUNK_NODE: Final = b"\x01"
_TENSOR: Final = b"\x02"
_TENSOR_NODE: Final = b"\x03"


def chunk_digest(chunk: bytes | bytearray | memoryview) -> bytes:
    """The leaf of one chunk: 32 bytes."""
    return blake3(chunk, derive_key_context=CHUNK_CONTEXT).digest()


def chunk_count(tensor: TensorInfo) -> int:
    """How many chunks a tensor has; at least one."""
    return -(-tensor.size_bytes // CHUNK_BYTES)


def chunk_bytes(tensor: TensorInfo, index: int) -> int:
    """Length of one chunk of a tensor in bytes."""
    return min(CHUNK_BYTES, tensor.size_bytes - index * CHUNK_BYTES)


class WeightsTree:
    """Collects the leaves of all chunks. ``record`` may be called from any thread.

    The leaves stay (32 bytes for each MiB of weights), so that whatever is read again is held to them.
    """

    def __init__(self, tensors: Iterable[TensorInfo]) -> None:
        """Expect the chunks of these tensors, whose names differ."""
        self._tensors = {tensor.name: tensor for tensor in tensors}
        self._leaves: dict[str, dict[int, bytes]] = {name: {} for name in self._tensors}

    def record(self, name: str, index: int, digest: bytes) -> None:
        """Take the leaf of one chunk, or hold the chunk to the leaf that it had before.

        Args:
            name: Of the tensor.
            index: Of the chunk.
            digest: ``chunk_digest`` of the very bytes that are used.

        Raises:
            LocalProtocolError: There is no such chunk.
            ModelFileError: Another digest was recorded for this chunk: the file changed between two reads.
        """
        if not 0 <= index < chunk_count(self._tensors[name]):
            raise LocalProtocolError(f"the tensor {name} has no chunk {index}")
        # SECURITY: one indivisible step, so that of two threads only one can be the first.
        if not hmac.compare_digest(self._leaves[name].setdefault(index, digest), digest):
            raise ModelFileError(
                f"chunk {index} of the tensor {name} is not what it was before", check="changed"
            )

    def leaf(self, name: str, index: int) -> bytes | None:
        """The leaf of a chunk, None while it is unknown."""
        return self._leaves[name].get(index)

    def missing(self) -> Iterator[tuple[TensorInfo, int]]:
        """The chunks whose leaves are unknown."""
        for name, tensor in self._tensors.items():
            known = self._leaves[name]
            for index in range(chunk_count(tensor)):
                if index not in known:
                    yield tensor, index

    def tensor_root(self, name: str) -> bytes:
        """Root over the chunks of one tensor: 32 bytes.

        Raises:
            LocalProtocolError: A chunk is missing.
        """
        return tree_root(self._complete(name), _chunk_node)

    def root(self) -> Digest:
        """Root over all tensors.

        Raises:
            LocalProtocolError: A chunk is missing, or there is no tensor.
        """
        leaves = [_tensor_leaf(self._tensors[name], self.tensor_root(name)) for name in sorted(self._tensors)]
        return Digest("sha256:" + tree_root(leaves, _tensor_node).hex())

    def _complete(self, name: str) -> list[bytes]:
        leaves = self._leaves[name]
        if len(leaves) != chunk_count(self._tensors[name]):
            raise LocalProtocolError(f"not every chunk of the tensor {name} was hashed")
        return [leaves[index] for index in range(len(leaves))]


def hash_weights(
    model: GgufModel,
    sources: Sequence[RandomAccess],
    report: Callable[[int], None] = lambda _bytes: None,
) -> WeightsTree:
    """Read and hash all tensors of a model, one after the other.

    Args:
        model: Its merged header.
        sources: Its files, in the order in which their headers were merged.
        report: Called after every chunk with the number of bytes that are done.

    Raises:
        ModelFileError: What the sources raise.
    """
    tree = WeightsTree(model.tensors.values())
    buffer = memoryview(bytearray(CHUNK_BYTES))
    done = 0
    for placement in model.placements:
        for index in range(chunk_count(placement.tensor)):
            chunk = buffer[: chunk_bytes(placement.tensor, index)]
            sources[placement.source].read_into(placement.source_offset + index * CHUNK_BYTES, chunk)
            tree.record(placement.tensor.name, index, chunk_digest(chunk))
            done += len(chunk)
            report(done)
    return tree


def tree_root(leaves: Sequence[bytes], node: Callable[[bytes, bytes], bytes]) -> bytes:
    """Root of a tree of the shape of RFC 6962 section 2.1 over leaves that are hashed already.

    Raises:
        LocalProtocolError: There is no leaf.
    """
    if not leaves:
        raise LocalProtocolError("a tree has at least one leaf")
    # Complete subtrees from left to right, each smaller than the one before.
    subtrees: list[tuple[int, bytes]] = []
    for leaf in leaves:
        height, right = 0, leaf
        while subtrees and subtrees[-1][0] == height:
            right = node(subtrees.pop()[1], right)
            height += 1
        subtrees.append((height, right))
    _, root = subtrees.pop()
    while subtrees:
        root = node(subtrees.pop()[1], root)
    return root


def _chunk_node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(_CHUNK_NODE + left + right).digest()


def _tensor_node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(_TENSOR_NODE + left + right).digest()


def _tensor_leaf(tensor: TensorInfo, data_root: bytes) -> bytes:
    name = tensor.name.encode("ascii")
    state = hashlib.sha256(_TENSOR)
    state.update(len(name).to_bytes(1, "big") + name + tensor.type.number.to_bytes(4, "big"))
    state.update(len(tensor.shape).to_bytes(1, "big"))
    for extent in tensor.shape:
        state.update(extent.to_bytes(8, "big"))
    state.update(tensor.size_bytes.to_bytes(8, "big") + data_root)
    return state.digest()
