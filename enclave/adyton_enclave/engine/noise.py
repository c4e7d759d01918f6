# SPDX-License-Identifier: Apache-2.0
"""Where randomness comes from: a keyed function of (request, choice, position, candidate) and of nothing else.

A request draws the same tokens whatever else is in the batch and however often it is computed again::

    path key = BLAKE2b-256(key = request key, person = "adyton gumbel 2", path)
    block    = AES-256(path key, position || t >> 1), all integers 64 bits, little-endian
    u(t)     = (53 high bits of the (t & 1)-th 64-bit little-endian word of block + 1/2) / 2^53

Any candidate's number can be had without those of its neighbours, so that a draw among forty of a hundred
thousand tokens costs forty blocks; and the cipher is set up once for a choice, not once for a token.
"""

import hashlib
import os
import struct
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import ECB

from adyton_enclave.engine.request import KEY_BYTES

TokenIds = npt.NDArray[np.intp]
Words = npt.NDArray[np.uint64]

_PERSON: Final = b"adyton gumbel 2"
_SEED_PERSON: Final = b"adyton seed 1"


def sampling_key(seed: int | None, entropy: Callable[[int], bytes] = os.urandom) -> bytes:
    """The 32-byte key of a request: derived from its seed, or random without one.

    Args:
        seed: Any integer from the caller; equal seeds give equal keys, on every machine.
        entropy: Source of random bytes, called with their number.
    """
    if seed is None:
        return entropy(KEY_BYTES)
    return hashlib.blake2b(str(seed).encode("ascii"), digest_size=KEY_BYTES, person=_SEED_PERSON).digest()


class PathNoise:
    """The noise of one choice. Not thread-safe."""

    __slots__ = ("encrypt",)

    def __init__(self, key: bytes, path: tuple[int, ...]) -> None:
        """Set the cipher up.

        Args:
            key: The request's key, 32 bytes, secret.
            path: Which choice, and in a tree search which branch of it; each below 2**32.
        """
        where = struct.pack(f"<I{len(path)}I", len(path), *path)
        path_key = hashlib.blake2b(where, key=key, digest_size=32, person=_PERSON).digest()
        # One block at a time under a key of its own: a pseudo-random function, not a mode for messages. Taken
        # directly for many choices at once: rows of (position, candidate >> 1), 16 bytes each.
        self.encrypt: Callable[[bytes], bytes] = Cipher(AES256(path_key), ECB()).encryptor().update  # noqa: S305  # see the line above

    def words(self, position: int, token_ids: TokenIds) -> Words:
        """The 53 high bits of each candidate's word.

        Args:
            position: Index in the sequence of the token to draw.
            token_ids: Candidates, in any order.
        """
        blocks = np.empty((token_ids.size, 2), dtype="<u8")
        blocks[:, 0] = position
        blocks[:, 1] = token_ids >> 1
        words = np.frombuffer(self.encrypt(blocks.tobytes()), dtype="<u8")
        return select_words(words.reshape(blocks.shape), token_ids)


def select_words(blocks: npt.NDArray[np.uint64], token_ids: TokenIds) -> Words:
    """Each candidate's half of its block, cut to 53 bits; ``blocks`` has one axis more, of length 2."""
    words: Words = np.where(token_ids & 1, blocks[..., 1], blocks[..., 0]) >> np.uint64(11)
    return words


def gumbel(words: Words) -> npt.NDArray[np.float64]:
    """Standard Gumbel noise from 53-bit words."""
    uniform = (words.astype(np.float64) + 0.5) * 2.0**-53
    noise: npt.NDArray[np.float64] = -np.log(-np.log(uniform))
    return noise
