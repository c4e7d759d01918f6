# SPDX-License-Identifier: Apache-2.0
"""Truncation and the draw: which token follows, from one row of logits and a key.

The draw is Gumbel-max: candidate ``t`` gets the score ``logit / temperature + G(t)``, the best score wins, and
``G(t) = -ln(-ln(u(t)))`` comes from ``noise``. A replay under slightly different logits still picks the same
token nearly always.

Truncation follows llama.cpp's order and meaning: top_k, then top_p on the softmax at temperature 1 of what
top_k left, min_p relative to the best candidate, temperature last. Ties are cut in favour of low token ids, so
that a row of logits has one answer.

This module takes any row, one at a time. ``batch_sampler`` does many at once where few candidates are left.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from adyton_enclave.engine.noise import PathNoise, TokenIds, gumbel
from adyton_enclave.engine.request import SamplingParams

Logits = npt.NDArray[np.float32]

_BLOCK: Final = 64
_BUCKETS: Final = 1024
_BUCKETS_PER_LOGIT: Final = 32.0
_LUCK: Final = 5.0
_LUCKY_WORD: Final = np.uint64(int(math.exp(-math.exp(-_LUCK)) * 2.0**53) - 2**20)
"""Words below this have noise below ``_LUCK``; the margin is far above any rounding."""


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
    near = at_least_top_k(row, k)
    values = row[near]
    threshold = np.partition(values, values.size - k)[values.size - k]
    above = near[values > threshold]
    level = near[values == threshold][: k - above.size]
    return np.sort(np.concatenate((above, level)))


def at_least_top_k(row: Logits, k: int) -> TokenIds:
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


def draw(row: Logits, params: SamplingParams, noise: PathNoise, position: int) -> int:
    """Pick the next token from one row of logits, shape ``(n_vocab,)``."""
    if params.temperature == 0.0:
        # argmax returns the first, that is the lowest, of equal ids.
        return int(row.argmax())
    ids = candidates(row, params)
    if ids.size == 1:
        return int(ids[0])
    words = noise.words(position, ids)
    scores = row[ids].astype(np.float64) / params.temperature
    if ids.size > _BLOCK:
        # Who is far below the best score so far can only win by rare luck, which shows in the bits of the word:
        # logarithms are needed for a few candidates only. The result is the same, ties included.
        best = scores.argmax()
        floor = scores[best] + gumbel(words[best : best + 1])[0] - _LUCK
        possible = np.flatnonzero((scores >= floor) | (words >= _LUCKY_WORD))
        ids, words, scores = ids[possible], words[possible], scores[possible]
    return int(ids[(scores + gumbel(words)).argmax()])


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
