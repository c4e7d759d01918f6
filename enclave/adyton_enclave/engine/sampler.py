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
_SURE_MASS_LOGITS: Final = 12.0
"""How far below the best logit the first guess at top_p's candidates reaches; e**-12 per candidate."""


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
    words = int(token_ids[-1]) + 1
    encryptor = Cipher(AES256(key), CTR(bytes(16))).encryptor()
    stream = np.frombuffer(encryptor.update(bytes(words * _WORD_BYTES)), dtype="<u8")
    picked: npt.NDArray[np.uint64] = stream[token_ids] >> np.uint64(11)
    return (picked.astype(np.float64) + 0.5) * 2.0**-53


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
    threshold = np.partition(row, row.size - k)[row.size - k]
    above = np.flatnonzero(row > threshold)
    level = np.flatnonzero(row == threshold)[: k - above.size]
    return np.sort(np.concatenate((above, level)))


def _top_p(row: Logits, kept: TokenIds | None, top_p: float) -> TokenIds:
    """Smallest set of highest candidates whose mass reaches ``top_p``."""
    values = (row if kept is None else row[kept]).astype(np.float64)
    ids = np.arange(row.size) if kept is None else kept
    weights = np.exp(values - values.max())
    wanted = top_p * weights.sum()
    # Sorting a whole vocabulary is the dearest step there is, and the likely candidates are few.
    likely = np.flatnonzero(values >= values.max() - _SURE_MASS_LOGITS)
    if weights[likely].sum() < wanted:
        likely = np.arange(values.size)
    order = likely[np.argsort(-values[likely], kind="stable")]
    count = int(np.searchsorted(np.cumsum(weights[order]), wanted)) + 1
    return np.sort(ids[order[:count]])


def draw(row: Logits, params: SamplingParams, key: bytes, path: tuple[int, ...], position: int) -> int:
    """Pick the next token from one row of raw logits, shape ``(n_vocab,)``."""
    if params.temperature == 0.0:
        # argmax returns the first, that is the lowest, of equal ids.
        return int(row.argmax())
    ids = candidates(row, params)
    if ids.size == 1:
        return int(ids[0])
    noise = -np.log(-np.log(uniforms(step_key(key, path, position), ids)))
    scores = row[ids].astype(np.float64) / params.temperature + noise
    return int(ids[scores.argmax()])


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
