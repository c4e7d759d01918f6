# SPDX-License-Identifier: Apache-2.0
"""Many answers to one prompt, each beginning that several of them share computed once.

A small generator says the same again and again: of 64 answers to an easy problem, two may be different. The engine
computes each of them; here, answers are kept in groups that have said the same so far, and a group is computed as one.
Every answer still draws with a noise of its own. Weights, kernels, cache, truncation and draw are the engine's; where
logits do not depend on the batch, what comes out is what the engine gives, token for token. A test holds it to that.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from adyton_enclave.engine import EngineConfig, LoadedModel, SamplingParams
from adyton_enclave.engine.batch_sampler import BatchSampler, batch_width
from adyton_enclave.engine.llama import LlamaBatch, LlamaContext
from adyton_enclave.engine.noise import PathNoise
from adyton_enclave.engine.sampler import Logits, draw, logprobs
from adyton_protocol.selection.candidate import Candidate

MOST_ANSWERS: Final = 250
"""Each may come to be a sequence of its own, and llama.cpp has 256."""
_CELLS: Final = 49_152
_BATCH: Final = 512


@dataclass(slots=True)
class _Group:
    """Answers that have said the same so far."""

    seq_id: int
    members: list[int]
    token_ids: list[int] = field(default_factory=list)
    logprob: float = 0.0


class SharedSampler:
    """Samples answers with a context of its own. Not thread-safe. Close it before the model."""

    def __init__(self, model: LoadedModel, config: EngineConfig, sampling: SamplingParams) -> None:
        """Make room for :data:`MOST_ANSWERS` answers.

        Args:
            model: Loaded.
            config: Of its engine; threads and the types of the cache are taken over.
            sampling: How every token is drawn.
        """
        self._model = model
        self._sampling = sampling
        self._width = batch_width(sampling, model.n_vocab)
        self._log_min_p = np.float32(math.log(sampling.min_p)) if sampling.min_p > 0 else np.float32(-np.inf)
        self._context = LlamaContext(
            model.llama,
            EngineConfig(
                threads=config.threads,
                n_ctx_total=_CELLS,
                n_batch=_BATCH,
                n_ubatch=_BATCH,
                max_sequences=MOST_ANSWERS,
                cache_cells=0,
                kv_type_k=config.kv_type_k,
                kv_type_v=config.kv_type_v,
                flash_attention=config.flash_attention,
                batch_invariant=config.batch_invariant,
            ),
        )
        self._batch = LlamaBatch(self._context.n_batch)

    def close(self) -> None:
        """Free the context. Idempotent."""
        self._context.close()

    def sample(
        self, prompt: Sequence[int], noises: Sequence[PathNoise], max_tokens: int
    ) -> tuple[Candidate, ...]:
        """An answer for each noise, in their order.

        Raises:
            ValueError: More noises than :data:`MOST_ANSWERS`.
            OutOfMemory: The answers do not fit into the cache together.
        """
        if len(noises) > MOST_ANSWERS:
            message = f"at most {MOST_ANSWERS} answers are sampled together"
            raise ValueError(message)
        answers: dict[int, Candidate] = {}
        n_sequences = 1
        try:
            rows = self._prefill(prompt)
            groups = [_Group(0, list(range(len(noises))))]
            while groups:
                position = len(prompt) + len(groups[0].token_ids)
                split = self._step(groups, rows, noises, position)
                groups = []
                for group, parts in split:
                    going = self._finished(group, parts, max_tokens, answers)
                    for index, (token_id, logprob, members) in enumerate(going):
                        seq_id = group.seq_id
                        if index:
                            seq_id, n_sequences = n_sequences, n_sequences + 1
                            self._context.copy(group.seq_id, seq_id, position)
                        groups.append(
                            _Group(seq_id, members, [*group.token_ids, token_id], group.logprob + logprob)
                        )
                rows = self._decode(groups, position)
        finally:
            # Only now, so that no hole is left while anybody computes: logits depend on the order of cells.
            for seq_id in range(n_sequences):
                self._context.remove(seq_id)
        return tuple(answers[index] for index in range(len(noises)))

    def _prefill(self, prompt: Sequence[int]) -> Logits:
        for start in range(0, len(prompt), self._batch.capacity):
            part = prompt[start : start + self._batch.capacity]
            self._batch.clear()
            self._batch.add(part, start, 0, wants_logits=start + len(part) == len(prompt))
            self._context.decode(self._batch)
        return self._context.logits(1)

    def _decode(self, groups: Sequence[_Group], position: int) -> Logits:
        if not groups:
            return self._context.logits(0)
        self._batch.clear()
        for group in groups:
            self._batch.add(group.token_ids[-1:], position, group.seq_id, wants_logits=True)
        self._context.decode(self._batch)
        return self._context.logits(len(groups))

    def _step(
        self, groups: Sequence[_Group], rows: Logits, noises: Sequence[PathNoise], position: int
    ) -> list[tuple[_Group, list[tuple[int, float, list[int]]]]]:
        """Next tokens of all answers: for each group those that its members drew, with log-probability."""
        found = []
        best = rows.argmax(axis=1)
        for at, group in enumerate(groups):
            row = rows[at]
            token_id = int(best[at])
            drawn: dict[int, list[int]] = defaultdict(list)
            if self._is_certain(row, token_id):
                drawn[token_id] = group.members
            else:
                tokens = self._draw(row, [noises[member] for member in group.members], position)
                for member, token in zip(group.members, tokens, strict=True):
                    drawn[token].append(member)
            found.append(
                (
                    group,
                    [(token, logprobs(row, token, 0).chosen, members) for token, members in drawn.items()],
                )
            )
        return found

    def _is_certain(self, row: Logits, best: int) -> bool:
        """Whether min-p leaves nothing but the best token, whatever the noise."""
        bound = row[best] + self._log_min_p
        return int(np.count_nonzero(row >= bound)) == 1

    def _draw(self, row: Logits, noises: Sequence[PathNoise], position: int) -> list[int]:
        if not self._width:
            return [draw(row.copy(), self._sampling, noise, position) for noise in noises]
        sampler = BatchSampler([self._sampling] * len(noises), noises, self._width)
        rows: Logits = np.repeat(row[None, :], len(noises), axis=0)
        return sampler.draw(rows, [position] * len(noises))

    def _finished(
        self,
        group: _Group,
        parts: Sequence[tuple[int, float, list[int]]],
        max_tokens: int,
        answers: dict[int, Candidate],
    ) -> list[tuple[int, float, list[int]]]:
        """Note the answers that end with this token; return what goes on."""
        going = []
        for token_id, logprob, members in parts:
            ends = token_id in self._model.llama.eog
            if not ends and len(group.token_ids) + 1 < max_tokens:
                going.append((token_id, logprob, members))
                continue
            token_ids = group.token_ids if ends else [*group.token_ids, token_id]
            candidate = Candidate(
                text=self._model.detokenize(token_ids).decode("utf-8", "replace"),
                n_tokens=len(group.token_ids) + 1,
                logprob=min(0.0, group.logprob + logprob),
                complete=ends,
            )
            for member in members:
                answers[member] = candidate
        return going
