# SPDX-License-Identifier: Apache-2.0
"""Fresh training rows for every batch, one problem per row, with a curriculum over the number of steps.

Rows are not packed: a row holding two problems would put the same name twice with different values in
front of the model. Rows are drawn in pools, sorted by length and cut into batches of about the same
number of tokens, so little is spent on padding.
"""

from dataclasses import dataclass
from itertools import pairwise
from random import Random  # noqa: TID251 - reproducible data, no secret

import torch
from torch import Tensor

from adyton_models.tasks.render import Problem, draw
from adyton_models.tasks.splits import Split
from adyton_models.tokenizer import END, PADDING, Tokenizer

MAX_ROW_TOKENS = 320

STAGES: tuple[tuple[float, dict[int, float]], ...] = (
    (0.00, {1: 2.0, 2: 1.0}),
    (0.05, {1: 1.0, 2: 1.0, 3: 1.0}),
    (0.12, {1: 0.6, 2: 1.0, 3: 1.0, 4: 1.0}),
    (0.25, {1: 0.4, 2: 1.0, 3: 1.0, 4: 1.0, 5: 1.0}),
    (0.45, {1: 0.4, 2: 1.0, 3: 1.0, 4: 1.2, 5: 1.4, 6: 0.4}),
)
"""From which share of the budget on which weight each number of steps has."""

HARDER_FROM = 0.6
HARDER_SHARE = 0.05
"""From this share of the budget on, this share of rows each has distractors, or shuffled facts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Token ids (rows, tokens + 1), padded right, and the weight of each predicted token (rows, tokens)."""

    token_ids: Tensor
    weights: Tensor


def encode_row(tokenizer: Tokenizer, problem: Problem) -> tuple[list[int], int]:
    """Token ids of problem and solution, and how many of them are the prompt."""
    prompt = tokenizer.prompt(problem.text)
    return [*prompt, *tokenizer.encode_known(problem.solution), tokenizer.ids[END]], len(prompt)


def make_batch(rows: list[tuple[list[int], int]], padding: int, prompt_weight: float) -> Batch:
    """Pad rows to a multiple of 16 tokens; the prompt's tokens count `prompt_weight`, the solution's 1."""
    longest = -(-(max(len(ids) for ids, _ in rows) - 1) // 16) * 16 + 1
    token_ids = torch.full((len(rows), longest), padding, dtype=torch.long)
    weights = torch.zeros((len(rows), longest - 1))
    for index, (ids, prompt_tokens) in enumerate(rows):
        token_ids[index, : len(ids)] = torch.tensor(ids)
        weights[index, : len(ids) - 1] = 1.0
        weights[index, : prompt_tokens - 1] = prompt_weight
    return Batch(token_ids=token_ids, weights=weights)


class Stream:
    """An endless stream of batches that depends only on seed, pool number and the progress asked with."""

    def __init__(
        self, tokenizer: Tokenizer, *, seed: int, batch_tokens: int, prompt_weight: float, pool: int = 0
    ) -> None:
        self.tokenizer = tokenizer
        self.seed = seed
        self.batch_tokens = batch_tokens
        self.prompt_weight = prompt_weight
        self.pool = pool
        self._ready: list[Batch] = []

    def next(self, progress: float) -> Batch:
        """The next batch, with the curriculum stage of `progress` in [0, 1]."""
        if not self._ready:
            self._ready = self._fill(progress)
            self.pool += 1
        return self._ready.pop()

    def _fill(self, progress: float) -> list[Batch]:
        rng = Random(f"rows|{self.seed}|{self.pool}")
        stage = next(weights for start, weights in reversed(STAGES) if progress >= start)
        counts = rng.choices(list(stage), weights=list(stage.values()), k=768)
        rows = sorted((self._row(rng, steps, progress) for steps in counts), key=lambda row: len(row[0]))
        cuts, longest = [0], 0
        for index, (ids, _) in enumerate(rows):
            longest = max(longest, len(ids))
            if longest * (index - cuts[-1] + 1) > self.batch_tokens:
                cuts.append(index)
        cuts.append(len(rows))
        padding = self.tokenizer.ids[PADDING]
        batches = [make_batch(rows[a:b], padding, self.prompt_weight) for a, b in pairwise(cuts) if b > a]
        rng.shuffle(batches)
        return batches

    def _row(self, rng: Random, steps: int, progress: float) -> tuple[list[int], int]:
        dice = rng.random() if progress >= HARDER_FROM else 1.0
        distractors = rng.randint(1, 2) if dice < HARDER_SHARE else 0
        shuffle = HARDER_SHARE <= dice < 2 * HARDER_SHARE
        while True:
            problem = draw(rng, Split.TRAIN, steps, distractors=distractors, shuffle=shuffle)
            row = encode_row(self.tokenizer, problem)
            if len(row[0]) <= MAX_ROW_TOKENS:
                return row
