# SPDX-License-Identifier: Apache-2.0
"""From a step's rows of logits to its tokens: what each row's request asked for, applied before the draw."""

import math
from collections.abc import Sequence as Seq
from dataclasses import dataclass

from adyton_enclave.engine.llama import LlamaModel
from adyton_enclave.engine.request import TokenLogprob, TopLogprob
from adyton_enclave.engine.sampler import Logits, RowLogprobs, draw, logprobs
from adyton_enclave.engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Drawn:
    """The next token of a sequence, and its log-probabilities if the request wants them."""

    token_id: int
    detail: TokenLogprob | None


class Drawer:
    """Draws for one model. Owned by the loop thread."""

    def __init__(self, model: LlamaModel) -> None:
        """Use the model's vocabulary."""
        self._pieces = model.pieces

    def draw(self, sequences: Seq[Sequence], rows: Seq[Logits]) -> list[Drawn | None]:
        """Draw the next token of each sequence; None where the model computed something that is no number."""
        return [self._one(sequence, row) for sequence, row in zip(sequences, rows, strict=True)]

    def _one(self, sequence: Sequence, row: Logits) -> Drawn | None:
        if not math.isfinite(row.max()):
            return None
        request = sequence.group.request
        token_id = draw(row, request.sampling, request.key, sequence.path, len(sequence.token_ids))
        detail = None
        if request.logprobs is not None:
            detail = self._detail(token_id, logprobs(row, token_id, request.logprobs))
        return Drawn(token_id, detail)

    def _detail(self, token_id: int, row: RowLogprobs) -> TokenLogprob:
        pieces = self._pieces
        return TokenLogprob(
            token=pieces[token_id].decode("utf-8", "replace"),
            bytes=pieces[token_id],
            logprob=row.chosen,
            top=tuple(
                TopLogprob(token=pieces[i].decode("utf-8", "replace"), bytes=pieces[i], logprob=value)
                for i, value in zip(row.top_ids, row.top, strict=True)
            ),
        )
