# SPDX-License-Identifier: Apache-2.0
"""What a request does to a choice's logits before truncation: bias, penalties, grammar. In this order.

The state follows from the tokens alone, so that a choice that was computed again, or forked from another,
continues with the same logits.
"""

from collections.abc import Sequence as Seq

import numpy as np

from adyton_enclave.engine.request import GenerationRequest, Matcher, SamplingParams
from adyton_enclave.engine.sampler import Logits

_FIRST_CAPACITY = 64


class _Counts:
    """How often each token occurred: growing arrays that index straight into a row of logits."""

    def __init__(self) -> None:
        self._slot: dict[int, int] = {}
        self._ids = np.empty(_FIRST_CAPACITY, dtype=np.intp)
        self._counts = np.zeros(_FIRST_CAPACITY, dtype=np.float32)

    @property
    def ids(self) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
        """Distinct tokens."""
        return self._ids[: len(self._slot)]

    @property
    def counts(self) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        """Occurrences of each of ``ids``."""
        return self._counts[: len(self._slot)]

    def add(self, token_id: int) -> None:
        """Count one token."""
        slot = self._slot.setdefault(token_id, len(self._slot))
        if slot == self._ids.size:
            self._ids = np.concatenate((self._ids, np.empty_like(self._ids)))
            self._counts = np.concatenate((self._counts, np.zeros_like(self._counts)))
        self._ids[slot] = token_id
        self._counts[slot] += 1


class LogitEdits:
    """Everything that one choice's request changes about its logits."""

    def __init__(self, request: GenerationRequest, prompt: Seq[int], answer: Seq[int]) -> None:
        """Start after ``answer`` tokens, none for a fresh choice."""
        sampling = request.sampling
        self._sampling = sampling
        bias = dict(request.logit_bias)
        self._bias_ids = np.fromiter(bias, dtype=np.intp, count=len(bias))
        self._bias = np.fromiter(bias.values(), dtype=np.float32, count=len(bias))
        self._answer = _Counts() if sampling.frequency_penalty or sampling.presence_penalty else None
        self._seen = _Counts() if sampling.repetition_penalty != 1.0 else None
        if self._seen is not None:
            for token_id in prompt:
                self._seen.add(token_id)
        self._matcher: Matcher | None = None if request.constraint is None else request.constraint.matcher()
        for token_id in answer:
            self.accept(token_id)

    @staticmethod
    def wanted(request: GenerationRequest) -> bool:
        """False for the many requests that leave logits alone."""
        return bool(request.logit_bias) or request.constraint is not None or _penalises(request.sampling)

    def apply(self, row: Logits) -> bool:
        """Edit a row of raw logits, shape ``(n_vocab,)``, in place; false when the grammar allows no token."""
        if self._bias_ids.size:
            row[self._bias_ids] += self._bias
        if self._seen is not None:
            values = row[self._seen.ids]
            penalty = np.float32(self._sampling.repetition_penalty)
            row[self._seen.ids] = np.where(values > 0, values / penalty, values * penalty)
        if self._answer is not None:
            row[self._answer.ids] -= (
                self._answer.counts * np.float32(self._sampling.frequency_penalty)
                + np.float32(self._sampling.presence_penalty)
            )  # fmt: skip
        if self._matcher is None:
            return True
        mask = self._matcher.allowed()
        if not mask.any():
            return False
        allowed = np.unpackbits(mask.view(np.uint8), count=row.size, bitorder="little")
        row[allowed == 0] = -np.inf
        return True

    def accept(self, token_id: int) -> None:
        """Move past a token that was drawn."""
        if self._answer is not None:
            self._answer.add(token_id)
        if self._seen is not None:
            self._seen.add(token_id)
        if self._matcher is not None:
            self._matcher.accept(token_id)


def _penalises(sampling: SamplingParams) -> bool:
    return bool(sampling.frequency_penalty or sampling.presence_penalty or sampling.repetition_penalty != 1.0)
