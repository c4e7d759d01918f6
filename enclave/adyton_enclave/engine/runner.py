# SPDX-License-Identifier: Apache-2.0
"""Turns a step's plan into one ``llama_decode`` and hands back the rows of outputs it asked for."""

from collections.abc import Sequence

from adyton_enclave.engine.llama import LlamaBatch, LlamaContext
from adyton_enclave.engine.outputs import Outputs
from adyton_enclave.engine.scheduler import Work


class BatchRunner:
    """One context and its batch. Owned by the loop thread."""

    def __init__(self, context: LlamaContext) -> None:
        """Make a batch as large as the context takes."""
        self._context = context
        self._batch = LlamaBatch(context.n_batch)

    def run(self, work: Sequence[Work]) -> Outputs:
        """Compute the work.

        Returns:
            One row for each item that ``wants_logits`` and for each position that a probe reads, in order; views
            that the next call overwrites, if not copies.

        Raises:
            NoKvSlot: Nothing was computed and nothing changed.
            EngineStopped: The context is unusable.
        """
        batch = self._batch
        batch.clear()
        rows: list[int] = []
        for item in work:
            wants = item.wants_logits
            token_ids = item.sequence.token_ids[item.start : item.start + item.count]
            at = () if item.sequence.probe is None else item.probed
            rows += (batch.n_tokens + offset for offset in at)
            if wants:
                rows.append(batch.n_tokens + item.count - 1)
            if self._context.outputs_all:
                batch.add(
                    token_ids, item.start, item.sequence.seq_id, wants_logits=False, at=range(item.count)
                )
            else:
                batch.add(token_ids, item.start, item.sequence.seq_id, wants_logits=wants, at=at)
        self._context.decode(batch)
        if not self._context.outputs_all:
            return Outputs.of(self._context.logits(len(rows)))
        hidden = self._context.hidden(batch.n_tokens)
        found = Outputs(self._context.logits(batch.n_tokens), hidden).rows(rows)
        # SECURITY: llama.cpp would keep them until the next step, and hidden states are as good as the text.
        hidden[:] = 0.0
        return found
