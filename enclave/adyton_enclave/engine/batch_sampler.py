# SPDX-License-Identifier: Apache-2.0
"""The draw of ``sampler`` for many rows at once, where ``top_k`` leaves few candidates.

Of a large vocabulary, each row is looked at twice: the maxima of blocks give a bound that at least ``k`` logits
reach, and what reaches it is taken out. Everything after that works on few numbers and on all rows together. It is
element-wise or along one row in a fixed order, so that a row's answer does not depend on its neighbours.

Blocks are strided (one block holds every B-th logit), because the maximum over a long first axis is a few vector
instructions where the maximum over a short last one is a loop.
"""

from collections.abc import Sequence as Seq
from typing import Final

import numpy as np
import numpy.typing as npt

from adyton_enclave.engine.noise import PathNoise, TokenIds, Words, gumbel, select_words
from adyton_enclave.engine.request import SamplingParams
from adyton_enclave.engine.sampler import Logits

MAX_CANDIDATES: Final = 256
"""Above this many, rows are drawn from one by one."""

_BLOCKS: Final = 512
_MANY: Final = 1024
_LOW_32: Final = np.uint64(2**32 - 1)
_SIGN: Final = np.uint32(1 << 31)
_LOWEST: Final = np.finfo(np.float32).min


def batch_width(params: SamplingParams, n_vocab: int) -> int:
    """Candidates that ``top_k`` leaves, or 0 when a row with these parameters has to be drawn alone."""
    k = min(params.top_k or n_vocab, n_vocab)
    return k if params.temperature > 0.0 and k <= MAX_CANDIDATES else 0


class BatchSampler:
    """Draws for a fixed list of choices that keep ``k`` candidates each. Used again while the list is the same."""

    def __init__(self, params: Seq[SamplingParams], noises: Seq[PathNoise], k: int) -> None:
        """Lay the parameters out as columns.

        Args:
            params: One per row; their :func:`batch_width` is ``k``.
            noises: One per row.
            k: Candidates, at least 1.
        """
        self._noises = tuple(noises)
        self._k = k
        self._temperature = np.array([[p.temperature] for p in params])
        # Without a cut, rounding must not cut either.
        self._wanted_mass = np.array([[p.top_p if p.top_p < 1.0 else 2.0] for p in params])
        self._cuts_mass = any(p.top_p < 1.0 for p in params)
        with np.errstate(divide="ignore"):
            self._log_min_p = np.log(np.array([[p.min_p] for p in params])).astype(np.float32)
        self._cuts_low = any(p.min_p > 0.0 for p in params)
        self._rows = np.arange(len(self._noises))

    def draw(self, rows: Logits, positions: Seq[int]) -> list[int]:
        """Pick the next token of each row.

        Args:
            rows: Shape ``(n, n_vocab)``; the best logit of each is finite.
            positions: Index in its sequence of the token to draw, per row.
        """
        if len(rows) == 1:
            return [self._draw_one(rows, positions[0])]
        ids, values = _best(rows, self._k)
        kept = self._kept(values)
        most = int(kept.max()) if kept is not None else self._k
        drawn: list[int] = ids[:, 0].tolist()
        if most > 1:
            # Candidates descend, so what is kept is a prefix, and nobody looks beyond the longest.
            ids = ids[:, :most]
            scores = values[:, :most] / self._temperature
            scores += gumbel(self._words(ids, positions))
            if kept is not None:
                scores[np.arange(most) >= kept[:, None]] = -np.inf
            drawn = ids[self._rows, scores.argmax(axis=1)].tolist()
        return drawn

    def _draw_one(self, rows: Logits, position: int) -> int:
        """The same for a single row, in half as many array operations: a lone stream waits for each of them."""
        best = _best_of_one(rows[0], self._k)
        ids, values = best if best is not None else (found[0] for found in _best(rows, self._k))
        top = values[0]
        kept = self._k
        if self._cuts_mass:
            mass = np.exp((values - top).astype(np.float64)).cumsum()
            kept = int(mass[:-1].searchsorted(self._wanted_mass[0, 0] * mass[-1])) + 1
        if self._cuts_low:
            kept = min(kept, int(np.count_nonzero(values >= top + self._log_min_p[0, 0])))
        if kept == 1:
            return int(ids[0])
        ids = ids[:kept]
        scores = values[:kept] / self._temperature[0]
        scores += gumbel(self._noises[0].words(position, ids))
        return int(ids[scores.argmax()])

    def _kept(self, values: Logits) -> npt.NDArray[np.intp] | None:
        """How many of a row's descending values top_p and min_p leave, at least one; None for all."""
        kept = None
        if self._cuts_mass:
            weights = np.exp((values - values[:, :1]).astype(np.float64))
            # A running sum, in order: its rounding does not depend on how many rows there are.
            mass = weights.cumsum(axis=1)
            wanted = self._wanted_mass * mass[:, -1:]
            kept = np.count_nonzero(mass[:, :-1] < wanted, axis=1) + 1
        if self._cuts_low:
            likely = np.count_nonzero(values >= values[:, :1] + self._log_min_p, axis=1)
            kept = likely if kept is None else np.minimum(kept, likely)
        return kept

    def _words(self, ids: TokenIds, positions: Seq[int]) -> Words:
        blocks = np.empty((*ids.shape, 2), dtype="<u8")
        blocks.T[0] = positions
        np.right_shift(ids, 1, out=blocks[..., 1], casting="unsafe")
        data, size = blocks.tobytes(), blocks.nbytes // len(ids)
        encrypted = b"".join(
            [noise.encrypt(data[at * size : at * size + size]) for at, noise in enumerate(self._noises)]
        )
        return select_words(np.frombuffer(encrypted, dtype="<u8").reshape(blocks.shape), ids)


def _best_of_one(row: Logits, k: int) -> tuple[TokenIds, Logits] | None:
    """The ``k`` highest logits of a row and their ids, best first; None when level ones make the plain way unsure."""
    ids: TokenIds | None = None
    if row.size > 2 * _BLOCKS:
        ids = _contenders(row, k)
        row = row[ids]
    if row.size < k:
        return None
    order = np.argpartition(row, row.size - k)[row.size - k :] if row.size > k else np.arange(k)
    values = row[order]
    ranks = (-values).argsort()
    values = values[ranks]
    if np.count_nonzero(row >= values[-1]) != k or np.count_nonzero(values[1:] == values[:-1]):
        return None
    order = order[ranks]
    return (order if ids is None else ids[order]), values


def _best(rows: Logits, k: int) -> tuple[TokenIds, Logits]:
    """The ``k`` highest logits of each row and their ids, best first, equal ones by id."""
    n_vocab = rows.shape[1]
    if n_vocab <= 2 * _BLOCKS:
        return _highest(rows, np.arange(n_vocab, dtype=np.uint64), k)
    contenders = [_contenders(row, k) for row in rows]
    shape = (len(rows), max(k, *(ids.size for ids in contenders)))
    # Whoever has fewer than others is filled up with what no draw can choose.
    values = np.full(shape, -np.inf, dtype=np.float32)
    padded = np.zeros(shape, dtype=np.uint64)
    for at, ids in enumerate(contenders):
        values[at, : ids.size] = rows[at, ids]
        padded[at, : ids.size] = ids
    return _highest(values, padded, k)


def _contenders(row: Logits, k: int) -> TokenIds:
    """Ids of few logits among which the ``k`` highest are, less those at minus infinity."""
    size = row.size // _BLOCKS
    peaks = row[: size * _BLOCKS].reshape(size, _BLOCKS).max(axis=0)
    edge = max(np.partition(peaks, _BLOCKS - k)[_BLOCKS - k], _LOWEST)
    ids = np.flatnonzero(row >= edge)
    if ids.size > _MANY:
        # A large part of the vocabulary is level.
        values = row[ids]
        edge = np.partition(values, ids.size - k)[ids.size - k]
        above, level = ids[values > edge], ids[values == edge]
        ids = np.concatenate((above, level[: k - above.size]))
    return ids


def _highest(values: Logits, ids: npt.NDArray[np.uint64], k: int) -> tuple[TokenIds, Logits]:
    """The ``k`` highest of each row and their ids, best first, equal ones by id.

    Value and id become one integer that sorts the same way, so that one selection settles ties as well.
    """
    # Adding zero turns minus zero into zero, which it equals.
    bits = (values + np.float32(0)).view(np.uint32)
    ordered = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    keys = (ordered.astype(np.uint64) << np.uint64(32)) | (_LOW_32 - ids)
    if keys.shape[1] > k:
        keys = np.partition(keys, keys.shape[1] - k, axis=1)[:, -k:]
    keys.sort(axis=1)
    keys = keys[:, ::-1]
    chosen: TokenIds = (_LOW_32 - (keys & _LOW_32)).astype(np.intp)
    ordered = (keys >> np.uint64(32)).astype(np.uint32)
    return chosen, np.where(ordered & _SIGN, ordered ^ _SIGN, ~ordered).view(np.float32)
