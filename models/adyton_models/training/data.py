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

from adyton_models.tasks.graph import MAX_VALUE, Operation, equation, generate_graph
from adyton_models.tasks.render import Problem, draw
from adyton_models.tasks.splits import Split
from adyton_models.tasks.templates import NAMES
from adyton_models.tokenizer import BEGIN, END, PADDING, Tokenizer

MAX_ROW_TOKENS = 512

STAGES: tuple[tuple[float, dict[int, float]], ...] = (
    (0.00, {1: 2.0, 2: 1.0}),
    (0.04, {1: 1.0, 2: 1.0, 3: 1.0}),
    (0.08, {1: 0.6, 2: 1.0, 3: 1.0, 4: 1.0}),
    (0.14, {1: 0.4, 2: 1.0, 3: 1.0, 4: 1.0, 5: 1.0}),
    (0.24, {1: 0.3, 2: 0.8, 3: 1.0, 4: 1.0, 5: 1.0, 6: 1.0, 7: 0.5}),
    (0.36, {1: 0.3, 2: 0.7, 3: 0.9, 4: 1.0, 5: 1.0, 6: 1.0, 7: 0.8, 8: 0.8, 9: 0.6, 10: 0.6}),
)
"""From which share of the budget on which weight each number of steps has."""

MAX_TRAINED_STEPS = 10

HARDER: tuple[tuple[float, float], ...] = ((0.0, 0.0), (0.14, 0.06), (0.3, 0.12))
"""From which share of the budget on which share of rows has one or two distractors, and as many shuffled facts;
a quarter as many have both."""

DRILLS: tuple[tuple[float, float, float], ...] = ((0.0, 0.2, 0.1), (0.4, 0.08, 0.02), (0.7, 0.03, 0.01))
"""From which share of the budget on which share of rows are bare equations, and bare look-ups: such rows hold
several times as much of what is hard to learn as a problem does."""

DRILL_EQUATIONS = 18
DRILL_LINES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Token ids of one row and the weight of each of them as a prediction."""

    token_ids: list[int]
    weights: list[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Token ids (rows, tokens + 1), padded right, and the weight of each predicted token (rows, tokens)."""

    token_ids: Tensor
    weights: Tensor


def stage_at(progress: float, max_steps: int = MAX_TRAINED_STEPS) -> dict[int, float]:
    """The weight of each number of steps at `progress` in [0, 1]; none above `max_steps`."""
    stage = next(weights for start, weights in reversed(STAGES) if progress >= start)
    return {steps: weight for steps, weight in stage.items() if steps <= max_steps}


def encode_row(tokenizer: Tokenizer, problem: Problem) -> tuple[list[int], int]:
    """Token ids of problem and solution, and how many of them are the prompt."""
    prompt = tokenizer.prompt(problem.text)
    return [*prompt, *tokenizer.encode_known(problem.solution), tokenizer.ids[END]], len(prompt)


def weigh_row(ids: list[int], prompt_tokens: int, prompt_weight: float) -> Row:
    """A problem's row: the prompt's tokens count `prompt_weight`, the solution's 1."""
    weights = [prompt_weight] * prompt_tokens + [1.0] * (len(ids) - prompt_tokens)
    return Row(token_ids=ids, weights=weights)


def drill_row(tokenizer: Tokenizer, rng: Random) -> Row:
    """Equations as they stand in solutions, with the task's distribution of operands; only results count."""
    ids = [tokenizer.ids[BEGIN]]
    weights = [0.0]
    written = 0
    while written < DRILL_EQUATIONS:
        nodes = generate_graph(rng, rng.randint(1, 5))
        for node in nodes:
            if node.operation is Operation.BASE:
                continue
            left, sign, right = equation(node, tuple(nodes[index].value for index in node.references))
            given = tokenizer.encode_known(f" {left} {sign} {right} =")
            result = tokenizer.encode_known(f" {node.value},")
            ids += given + result
            weights += [0.0] * len(given) + [1.0] * len(result)
            written += 1
    return Row(token_ids=ids, weights=weights)


def look_up_row(tokenizer: Tokenizer, rng: Random) -> Row:
    """Lines like those of solutions, but only with look-ups of earlier values; only the looked-up numbers count."""
    ids = [tokenizer.ids[BEGIN]]
    weights = [0.0]

    def write(text: str, weight: float) -> None:
        added = tokenizer.encode_known(text)
        ids.extend(added)
        weights.extend([weight] * len(added))

    values: dict[str, int] = {}
    for name in rng.sample(NAMES, DRILL_LINES):
        if values and rng.random() < 0.7:
            write(f" {name}:", 0.0)
            for other in rng.sample(sorted(values), min(len(values), rng.randint(1, 3))):
                write(f" {other} =", 0.0)
                write(f" {values[other]}", 1.0)
                write(",", 1.0)
        values[name] = rng.randint(2, MAX_VALUE) if rng.random() < 0.2 else rng.randint(2, 99)
        write(f" {name} = {values[name]}\n", 0.0)
    return Row(token_ids=ids, weights=weights)


def make_batch(rows: list[Row], padding: int) -> Batch:
    """Pad rows on the right to a multiple of 16 tokens."""
    longest = -(-(max(len(row.token_ids) for row in rows) - 1) // 16) * 16 + 1
    token_ids = torch.full((len(rows), longest), padding, dtype=torch.long)
    weights = torch.zeros((len(rows), longest - 1))
    for index, row in enumerate(rows):
        token_ids[index, : len(row.token_ids)] = torch.tensor(row.token_ids)
        weights[index, : len(row.token_ids) - 1] = torch.tensor(row.weights[1:])
    return Batch(token_ids=token_ids, weights=weights)


class Stream:
    """An endless stream of batches that depends only on seed, pool number and the progress asked with."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        seed: int,
        batch_tokens: int,
        prompt_weight: float,
        pool: int = 0,
        member: int = 0,
        max_steps: int = MAX_TRAINED_STEPS,
    ) -> None:
        self.tokenizer = tokenizer
        self.seed = seed
        self.member = member
        self.batch_tokens = batch_tokens
        self.prompt_weight = prompt_weight
        self.pool = pool
        self.max_steps = max_steps
        self._ready: list[Batch] = []

    def next(self, progress: float) -> Batch:
        """The next batch, with the curriculum stage of `progress` in [0, 1]."""
        if not self._ready:
            self._ready = self._fill(progress)
            self.pool += 1
        return self._ready.pop()

    def _fill(self, progress: float) -> list[Batch]:
        rng = Random(f"rows|{self.seed}|{self.member}|{self.pool}")
        stage = stage_at(progress, self.max_steps)
        counts = rng.choices(list(stage), weights=list(stage.values()), k=768)
        rows = [self._any_row(rng, steps, progress) for steps in counts]
        rows.sort(key=lambda row: len(row.token_ids))
        cuts, longest = [0], 0
        for index, row in enumerate(rows):
            longest = max(longest, len(row.token_ids))
            if longest * (index - cuts[-1] + 1) > self.batch_tokens:
                cuts.append(index)
        cuts.append(len(rows))
        padding = self.tokenizer.ids[PADDING]
        batches = [make_batch(rows[a:b], padding) for a, b in pairwise(cuts) if b > a]
        rng.shuffle(batches)
        return batches

    def _any_row(self, rng: Random, steps: int, progress: float) -> Row:
        equations, look_ups = next(shares for start, *shares in reversed(DRILLS) if progress >= start)
        dice = rng.random()
        if dice < equations:
            return drill_row(self.tokenizer, rng)
        if dice < equations + look_ups:
            return look_up_row(self.tokenizer, rng)
        return self._row(rng, steps, progress)

    def _row(self, rng: Random, steps: int, progress: float) -> Row:
        share = next(share for start, share in reversed(HARDER) if progress >= start)
        dice = rng.random()
        distractors = rng.randint(1, 2) if dice < 1.25 * share else 0
        shuffle = share <= dice < 2.25 * share
        while True:
            problem = draw(rng, Split.TRAIN, steps, distractors=distractors, shuffle=shuffle)
            ids, prompt_tokens = encode_row(self.tokenizer, problem)
            if len(ids) <= MAX_ROW_TOKENS:
                return weigh_row(ids, prompt_tokens, self.prompt_weight)
