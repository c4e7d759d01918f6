# SPDX-License-Identifier: Apache-2.0
"""Reads what an evaluation asks for out of rows of outputs, a few rows at a time as steps compute them."""

from bisect import bisect_left
from collections.abc import Sequence as Seq

import numpy as np
import numpy.typing as npt

from adyton_enclave.engine.evaluation import Evaluation, Question
from adyton_enclave.engine.noise import TokenIds
from adyton_enclave.engine.outputs import Outputs
from adyton_enclave.engine.sampler import Logits, at_least_top_k


class Probe:
    """One evaluation under way. Owned by the loop thread."""

    __slots__ = (
        "_count",
        "_hidden",
        "_label_ids",
        "_label_logits",
        "_n_top",
        "_next",
        "_norms",
        "_top",
        "_wants_hidden",
        "positions",
    )

    def __init__(self, question: Question, length: int) -> None:
        """Start with nothing read.

        Args:
            question: Checked by whoever took it in: its positions lie in the sequence, its labels in the
                vocabulary.
            length: Tokens of the sequence.
        """
        self.positions = sorted({at % length for at in question.positions})
        rows = len(self.positions)
        self._count = 0
        self._label_ids = np.array(question.label_ids, dtype=np.intp)
        self._n_top = question.n_top
        self._label_logits = np.empty((rows, len(question.label_ids)), dtype=np.float32)
        self._next = np.full(rows, np.nan, dtype=np.float32)
        self._norms = np.empty(rows, dtype=np.float64)
        self._top = (
            np.empty((rows, question.n_top), dtype=np.intp),
            np.empty((rows, question.n_top), np.float32),
        )
        self._wants_hidden = question.hidden
        self._hidden: list[npt.NDArray[np.float32]] = []

    @property
    def first(self) -> int:
        """The first position that was not read yet; past all of them, the end of time."""
        return self.positions[self._count] if self._count < len(self.positions) else self.positions[-1] + 1

    def within(self, start: int, count: int) -> list[int]:
        """Positions to read among ``count`` tokens from ``start``, as offsets into these."""
        positions = self.positions
        begin = max(self._count, bisect_left(positions, start))
        return [at - start for at in positions[begin : bisect_left(positions, start + count)]]

    def fit(self, start: int, count: int, rows: int) -> int:
        """As many of ``count`` tokens from ``start`` as ask for no more than ``rows`` rows."""
        wanted = self.within(start, count)
        return count if len(wanted) <= rows else wanted[rows]

    def read(self, outputs: Outputs, token_ids: Seq[int]) -> bool:
        """Take the next rows; False if they are no numbers."""
        if self._wants_hidden:
            if not np.isfinite(outputs.hidden).all():
                return False
            self._hidden += [row.copy() for row in outputs.hidden]
        for row in outputs.logits:
            values = row.astype(np.float64)
            peak = values.max()
            if not np.isfinite(peak):
                return False
            at = self._count
            self._norms[at] = peak + np.log(np.exp(values - peak).sum())
            self._label_logits[at] = row[self._label_ids]
            following = self.positions[at] + 1
            if following < len(token_ids):
                self._next[at] = row[token_ids[following]]
            if self._n_top:
                ids, logits = self._top
                ids[at] = top = _highest(row, self._n_top)
                logits[at] = row[top]
            self._count += 1
        return True

    def result(self) -> Evaluation:
        """Everything, once all rows were read."""
        return Evaluation(
            positions=tuple(self.positions),
            label_logits=self._label_logits,
            next_logits=self._next,
            logsumexp=self._norms,
            top_ids=self._top[0].astype(np.int64),
            top_logits=self._top[1],
            hidden=np.stack(self._hidden) if self._hidden else np.empty((len(self.positions), 0), np.float32),
        )


def _highest(row: Logits, count: int) -> TokenIds:
    """Ids of the ``count`` highest logits, best first, ties by id."""
    near = at_least_top_k(row, count)
    return near[np.argsort(-row[near], kind="stable")][:count]
