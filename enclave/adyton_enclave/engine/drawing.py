# SPDX-License-Identifier: Apache-2.0
"""From a step's rows of logits to its tokens.

Rows that keep few candidates are drawn from together, greedy ones by a maximum, the rest one by one. How the rows
of a step are divided is worked out once and used for as long as the same sequences decode.
"""

from collections import defaultdict
from collections.abc import Sequence as Seq
from dataclasses import dataclass

import numpy as np

from adyton_enclave.engine.batch_sampler import BatchSampler, batch_width
from adyton_enclave.engine.draw_state import DrawState
from adyton_enclave.engine.llama import LlamaModel
from adyton_enclave.engine.logit_edits import LogitEdits
from adyton_enclave.engine.request import TokenLogprob, TopLogprob
from adyton_enclave.engine.sampler import Logits, RowLogprobs, draw, logprobs
from adyton_enclave.engine.sequence import Sequence
from adyton_protocol.errors import EngineError, InvalidRequest


@dataclass(frozen=True, slots=True)
class Drawn:
    """The next token of a sequence, and its log-probabilities if the request wants them."""

    token_id: int
    detail: TokenLogprob | None


class _Plan:
    """How the rows of one list of sequences are drawn."""

    def __init__(self, sequences: Seq[Sequence], n_vocab: int) -> None:
        self.sequences = tuple(sequences)
        self.states = [_state(sequence) for sequence in sequences]
        self.edited: list[tuple[int, LogitEdits]] = []
        self.detailed: list[tuple[int, int]] = []
        self.greedy: list[int] = []
        self.alone: list[int] = []
        batches: dict[int, list[int]] = defaultdict(list)
        for at, (sequence, state) in enumerate(zip(sequences, self.states, strict=True)):
            request = sequence.group.request
            if state.edits is not None:
                self.edited.append((at, state.edits))
            if request.logprobs is not None:
                self.detailed.append((at, request.logprobs))
            width = batch_width(request.sampling, n_vocab)
            if width:
                batches[width].append(at)
            elif request.sampling.temperature == 0.0:
                self.greedy.append(at)
            else:
                self.alone.append(at)
        self.batches = [
            (
                slice(None) if len(rows) == len(sequences) else np.array(rows),
                rows,
                BatchSampler(
                    [sequences[at].group.request.sampling for at in rows],
                    [self.states[at].noise for at in rows],
                    width,
                ),
            )
            for width, rows in batches.items()
        ]


class Drawer:
    """Draws for one model. Owned by the loop thread."""

    def __init__(self, model: LlamaModel) -> None:
        """Use the model's vocabulary."""
        self._pieces = model.pieces
        self._n_vocab = model.n_vocab
        self._plan = _Plan((), self._n_vocab)

    def draw(self, sequences: Seq[Sequence], rows: Logits) -> list[Drawn | EngineError]:
        """Draw the next token of each sequence, or say why there is none.

        Args:
            sequences: Each with all its tokens but the one to draw.
            rows: Raw logits, shape ``(len(sequences), n_vocab)``; edited in place.
        """
        if not sequences:
            return []
        plan = self._plan
        if plan.sequences != tuple(sequences):
            plan = self._plan = _Plan(sequences, self._n_vocab)
        broken = ~np.isfinite(rows.max(axis=1))
        raw = {at: rows[at].copy() for at, _ in plan.detailed if plan.states[at].edits is not None}
        stuck: set[int] = set()
        for at, edits in plan.edited:
            if not broken[at] and not edits.apply(rows[at]):
                broken[at] = True
                stuck.add(at)
        if broken.any():
            # Something for the arithmetic to chew on; what is drawn there is thrown away.
            rows[broken] = 0.0
        token_ids = self._draw(plan, rows)
        details: dict[int, TokenLogprob] = {}
        for at, count in plan.detailed:
            if not broken[at]:
                row = raw.get(at, rows[at])
                details[at] = self._detail(token_ids[at], logprobs(row, token_ids[at], count))
        for at, edits in plan.edited:
            if not broken[at]:
                edits.accept(token_ids[at])
        return [
            _failure(stuck=at in stuck) if broken[at] else Drawn(token_id, details.get(at))
            for at, token_id in enumerate(token_ids)
        ]

    @staticmethod
    def _draw(plan: _Plan, rows: Logits) -> list[int]:
        token_ids = [0] * len(rows)
        positions = [len(sequence.token_ids) for sequence in plan.sequences]
        for at in plan.greedy:
            # argmax returns the first, that is the lowest, of equal ids.
            token_ids[at] = int(rows[at].argmax())
        for at in plan.alone:
            sampling = plan.sequences[at].group.request.sampling
            token_ids[at] = draw(rows[at], sampling, plan.states[at].noise, positions[at])
        for index, chosen, sampler in plan.batches:
            drawn = sampler.draw(rows[index], [positions[at] for at in chosen])
            for at, token_id in zip(chosen, drawn, strict=True):
                token_ids[at] = token_id
        return token_ids

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


def _failure(*, stuck: bool) -> EngineError:
    if stuck:
        return InvalidRequest("the answer's grammar became too complex to follow", param="response_format")
    return EngineError("the model computed something that is no number")


def _state(sequence: Sequence) -> DrawState:
    if sequence.draw_state is None:
        n_prompt = sequence.group.n_prompt
        sequence.draw_state = DrawState(
            sequence.group.request,
            sequence.path,
            sequence.token_ids[:n_prompt],
            sequence.token_ids[n_prompt:],
        )
    return sequence.draw_state
