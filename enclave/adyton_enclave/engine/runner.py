# SPDX-License-Identifier: Apache-2.0
"""Turns a step's plan into one ``llama_decode`` and hands back the rows of logits it asked for."""

from collections.abc import Sequence

from adyton_enclave.engine.llama import LlamaBatch, LlamaContext
from adyton_enclave.engine.sampler import Logits
from adyton_enclave.engine.scheduler import Work


class BatchRunner:
    """One context and its batch. Owned by the loop thread."""

    def __init__(self, context: LlamaContext) -> None:
        """Make a batch as large as the context takes."""
        self._context = context
        self._batch = LlamaBatch(context.n_batch)

    def run(self, work: Sequence[Work]) -> Logits:
        """Compute the work.

        Returns:
            One row for each item that ``wants_logits`` and for each position that a probe reads, in order: shape
            ``(n, n_vocab)``, a view that the next call overwrites.

        Raises:
            NoKvSlot: Nothing was computed and nothing changed.
            EngineStopped: The context is unusable.
        """
        batch = self._batch
        batch.clear()
        n_rows = 0
        for item in work:
            wants = item.wants_logits
            token_ids = item.sequence.token_ids[item.start : item.start + item.count]
            at = () if item.sequence.probe is None else item.probed
            batch.add(token_ids, item.start, item.sequence.seq_id, wants_logits=wants, at=at)
            n_rows += wants + len(at)
        self._context.decode(batch)
        return self._context.logits(n_rows)
