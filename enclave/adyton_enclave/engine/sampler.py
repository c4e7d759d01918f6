# SPDX-License-Identifier: Apache-2.0
"""Truncation and the draw: which token follows, from one row of logits and a key.

The draw is Gumbel-max. Candidate ``t`` gets the score ``logit / temperature + G``, where ``G = -ln(-ln(u))`` and
``u`` comes from a keyed pseudo-random function of (request key, path of the choice, position, ``t``) alone.
So a request draws the same tokens whatever else is in the batch and however often it is computed again, and a
replay under slightly different logits still picks the same token nearly always.

::

    step key = BLAKE2b-256(key = request key, person = "adyton gumbel 1", path || position), little-endian
    u(t)     = (53 high bits of the t-th 64-bit little-endian word of AES-256-CTR(step key) + 1/2) / 2^53

Truncation follows llama.cpp's order and meaning: top_k, then top_p on the softmax at temperature 1 of what
top_k left, min_p relative to the best candidate, temperature last. Ties are cut in favour of low token ids, so
that a row of logits has one answer.
"""

import hashlib
import math
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR

from adyton_enclave.engine.request import KEY_BYTES, SamplingParams

Logits = npt.NDArray[np.float32]
TokenIds = npt.NDArray[np.intp]

_PERSON: Final = b"adyton gumbel 1"
_SEED_PERSON: Final = b"adyton seed 1"
_WORD_BYTES: Final = 8
_BLOCK: Final = 64
_BUCKETS: Final = 1024
_BUCKETS_PER_LOGIT: Final = 32.0
_LUCK: Final = 5.0
_LUCKY_WORD: Final = np.uint64(int(math.exp(-math.exp(-_LUCK)) * 2.0**53) - 2**20)
"""Words below this have noise below ``_LUCK``; the margin is far above any rounding."""


def sampling_key(seed: int | None, entropy: Callable[[int], bytes] = os.urandom) -> bytes:
    """The 32-byte key of a request: derived from its seed, or random without one.

    Args:
        seed: Any integer from the caller; equal seeds give equal keys, on every machine.
        entropy: Source of random bytes, called with their number.
    """
    if seed is None:
        return entropy(KEY_BYTES)
    return hashlib.blake2b(str(seed).encode("ascii"), digest_size=KEY_BYTES, person=_SEED_PERSON).digest()


def step_key(key: bytes, path: tuple[int, ...], position: int) -> bytes:
    """The AES key of one draw.

    Args:
        key: 32 bytes, secret.
        path: Which choice, and in a tree search which branch of it; each below 2**32.
        position: Index in the sequence of the token to draw; below 2**64.
    """
    where = struct.pack(f"<I{len(path)}IQ", len(path), *path, position)
    return hashlib.blake2b(where, key=key, digest_size=32, person=_PERSON).digest()


def uniforms(key: bytes, token_ids: TokenIds) -> npt.NDArray[np.float64]:
    """``u(t)`` in (0, 1) of every candidate; ``token_ids`` must ascend and not be empty."""
    return _as_uniforms(_words(key, token_ids))


def _words(key: bytes, token_ids: TokenIds) -> npt.NDArray[np.uint64]:
    """The 53 high bits of each candidate's word of the keystream."""
    encryptor = Cipher(AES256(key), CTR(bytes(16))).encryptor()
    stream = np.frombuffer(encryptor.update(bytes((int(token_ids[-1]) + 1) * _WORD_BYTES)), dtype="<u8")
    words: npt.NDArray[np.uint64] = stream[token_ids] >> np.uint64(11)
    return words


def _as_uniforms(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    return (words.astype(np.float64) + 0.5) * 2.0**-53


def _gumbel(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    noise: npt.NDArray[np.float64] = -np.log(-np.log(_as_uniforms(words)))
    return noise


def candidates(row: Logits, params: SamplingParams) -> TokenIds:
    """Token ids, ascending, that truncation leaves; never empty.

    Args:
        row: Raw logits, shape ``(n_vocab,)``; not changed.
        params: Only ``top_k``, ``top_p`` and ``min_p`` matter here.
    """
    kept = _top_k(row, params.top_k)
    if params.top_p < 1.0:
        kept = _top_p(row, kept, params.top_p)
    if params.min_p > 0.0:
        values = row if kept is None else row[kept]
        mask = values >= values.max() + np.float32(np.log(params.min_p))
        kept = np.flatnonzero(mask) if kept is None else kept[mask]
    return np.arange(row.size) if kept is None else kept


def _top_k(row: Logits, k: int) -> TokenIds | None:
    """Ids of the ``k`` highest logits, or None for all."""
    if not 0 < k < row.size:
        return None
    near = _at_least_top_k(row, k)
    values = row[near]
    threshold = np.partition(values, values.size - k)[values.size - k]
    above = near[values > threshold]
    level = near[values == threshold][: k - above.size]
    return np.sort(np.concatenate((above, level)))


def _at_least_top_k(row: Logits, k: int) -> TokenIds:
    """Ids, ascending, of few logits among which the ``k`` highest are, with all their ties.

    The k-th highest of the maxima of blocks is no more than the k-th highest of all: one cheap pass instead of
    a selection over the whole vocabulary.
    """
    blocks = row.size // _BLOCK
    if blocks <= k:
        return np.arange(row.size)
    peaks = row[: blocks * _BLOCK].reshape(blocks, _BLOCK).max(axis=1)
    return np.flatnonzero(row >= np.partition(peaks, blocks - k)[blocks - k])


def _top_p(row: Logits, kept: TokenIds | None, top_p: float) -> TokenIds:
    """Smallest set of highest candidates whose mass reaches ``top_p``."""
    values = (row if kept is None else row[kept]).astype(np.float64)
    peak = values.max()
    weights = np.exp(values - peak)
    wanted = top_p * weights.sum()
    # Sorting a whole vocabulary would be the dearest step there is. Only the bucket of logits in which the mass
    # is reached needs sorting.
    bucket = np.minimum((peak - values) * _BUCKETS_PER_LOGIT, _BUCKETS - 1).astype(np.intp)
    reached = np.cumsum(np.bincount(bucket, weights=weights))
    edge = int(np.searchsorted(reached, wanted))
    on_edge = np.flatnonzero(bucket == edge)
    on_edge = on_edge[np.argsort(-values[on_edge], kind="stable")]
    missing = wanted - (reached[edge - 1] if edge else 0.0)
    count = int(np.searchsorted(np.cumsum(weights[on_edge]), missing)) + 1
    chosen = np.sort(np.concatenate((np.flatnonzero(bucket < edge), on_edge[:count])))
    return chosen if kept is None else kept[chosen]


def draw(row: Logits, params: SamplingParams, key: bytes, path: tuple[int, ...], position: int) -> int:
    """Pick the next token from one row of raw logits, shape ``(n_vocab,)``."""
    if params.temperature == 0.0:
        # argmax returns the first, that is the lowest, of equal ids.
        return int(row.argmax())
    ids = candidates(row, params)
    if ids.size == 1:
        return int(ids[0])
    words = _words(step_key(key, path, position), ids)
    scores = row[ids].astype(np.float64) / params.temperature
    if ids.size > _BLOCK:
        # Who is far below the best score so far can only win by rare luck, which shows in the bits of the word:
        # logarithms are needed for a few candidates only. The result is the same, ties included.
        best = scores.argmax()
        floor = scores[best] + _gumbel(words[best : best + 1])[0] - _LUCK
        possible = np.flatnonzero((scores >= floor) | (words >= _LUCKY_WORD))
        ids, words, scores = ids[possible], words[possible], scores[possible]
    return int(ids[(scores + _gumbel(words)).argmax()])


@dataclass(frozen=True, slots=True)
class RowLogprobs:
    """Log-probabilities at one position: the drawn token's and the best alternatives', best first."""

    chosen: float
    top_ids: tuple[int, ...]
    top: tuple[float, ...]


def logprobs(row: Logits, token_id: int, count: int) -> RowLogprobs:
    """Log-softmax of the raw logits at ``token_id`` and at the ``count`` highest, ties by token id."""
    values = row.astype(np.float64)
    peak = values.max()
    norm = peak + np.log(np.exp(values - peak).sum())
    best = _top_k(row, count) if count else np.empty(0, dtype=np.intp)
    if best is None:
        best = np.arange(row.size)
    best = best[np.argsort(-values[best], kind="stable")]
    return RowLogprobs(
        chosen=float(values[token_id] - norm),
        top_ids=tuple(best.tolist()),
        top=tuple((values[best] - norm).tolist()),
    )
