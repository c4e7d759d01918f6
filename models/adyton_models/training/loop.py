# SPDX-License-Identifier: Apache-2.0
"""Training of a generator: the next token of problems with their solutions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from adyton_models.tasks.render import generate
from adyton_models.tasks.splits import Split
from adyton_models.tokenizer import PADDING, Tokenizer
from adyton_models.training.architecture import Transformer
from adyton_models.training.budgeted import BudgetedTrainer, Lesson, Schedule, load_model
from adyton_models.training.data import MAX_TRAINED_STEPS, Stream, encode_row, make_batch, weigh_row
from adyton_models.training.planted import planted_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(Schedule):
    """Everything that decides a generator's run besides the hardware."""

    width: int = 256
    layers: int = 4
    heads: int = 8
    feed_forward: int = 512
    prompt_weight: float = 0.03
    start_from: Path | None = None
    """A checkpoint whose shape and weights training begins with, instead of planted heads."""
    curriculum_from: float = 0.0
    """Progress at which the curriculum begins: a model that already reads needs no easy problems."""
    max_steps: int = MAX_TRAINED_STEPS
    """Most operations of a training problem."""


@torch.no_grad()
def forced_accuracy(
    model: Transformer,
    tokenizer: Tokenizer,
    split: Split,
    *,
    n: int,
    steps: tuple[int, ...],
    temperature: float = 0.8,
) -> dict[int, tuple[float, float]]:
    """Per step count: share of solutions written exactly when greedy, and mean probability of writing them.

    One forward pass: every token of the true solution is checked given the true ones before it. The
    probability is at `temperature` without truncation, so a lower bound of the accuracy of sampling.
    """
    device = next(model.parameters()).device
    results: dict[int, tuple[float, float]] = {}
    model.eval()
    for count in steps:
        encoded = [encode_row(tokenizer, problem) for problem in generate(split, 77, n, (count,))]
        batch = make_batch([weigh_row(*row, 0.0) for row in encoded], tokenizer.ids[PADDING])
        token_ids, weights = batch.token_ids.to(device), batch.weights.to(device) > 0
        logits = model(token_ids[:, :-1]).float()
        targets = token_ids[:, 1:]
        right = ((logits.argmax(-1) == targets) | ~weights).all(dim=1).float().mean().item()
        chosen = (logits / temperature).log_softmax(-1).gather(-1, targets[..., None])[..., 0]
        likely = (chosen * weights).sum(dim=1).exp().mean().item()
        results[count] = (right, likely)
    model.train()
    return results


class Trainer(BudgetedTrainer):
    """Owns the model, the optimisers and the data of one run."""

    def __init__(self, plan: Plan, out: Path) -> None:
        self.plan = plan
        super().__init__(plan, out)

    @property
    def holds_planted(self) -> bool:  # type: ignore[override]
        """Planted heads are held unless weights come from elsewhere."""
        return self.plan.start_from is None

    def make_model(self) -> Transformer:
        """A new model with planted heads, or the one to start from."""
        if self.plan.start_from is not None:
            return load_model(self.plan.start_from)
        return planted_model(self.plan, self.tokenizer)

    def start_data(self) -> None:
        """Begin the stream of rows at the pool that progress says."""
        self.stream = Stream(
            self.tokenizer,
            seed=self.plan.seed,
            member=self.team.rank,
            batch_tokens=self.plan.batch_tokens,
            prompt_weight=self.plan.prompt_weight,
            pool=self.progress.pool,
            max_steps=self.plan.max_steps,
        )

    @property
    def pool(self) -> int:
        """The pool that the stream fills next."""
        return self.stream.pool

    def loss(self, token_ids: Tensor, weights: Tensor) -> Tensor:
        """Weighted cross-entropy in nats per weighted token."""
        with torch.autocast(self.device.type, torch.bfloat16):
            logits = self.model(token_ids[:, :-1])
        each = functional.cross_entropy(
            logits.float().flatten(0, 1), token_ids[:, 1:].flatten(), reduction="none"
        )
        flat = weights.flatten()
        return (each * flat).sum() / flat.sum()

    def lesson(self, done: float) -> Lesson:
        """The next batch of rows."""
        begun = self.plan.curriculum_from
        batch = self.stream.next(begun + (1.0 - begun) * done)
        return Lesson(
            loss=self.loss(batch.token_ids.to(self.device), batch.weights.to(self.device)),
            tokens=int(batch.token_ids.ne(self.tokenizer.ids[PADDING]).sum()),
            problems=batch.token_ids.shape[0],
        )

    def measure(self) -> dict[str, Any]:
        """Validation accuracy by number of steps."""
        steps = tuple(count for count in (1, 2, 4, 6, 8, 10) if count <= self.plan.max_steps)
        accuracy = forced_accuracy(self.model, self.tokenizer, Split.VALIDATION, n=48, steps=steps)
        return {
            "greedy": {str(count): round(values[0], 4) for count, values in accuracy.items()},
            "probability": {str(count): round(values[1], 4) for count, values in accuracy.items()},
        }

    def in_words(self, evaluation: dict[str, Any]) -> str:
        """Exact solutions by number of steps."""
        exact = "  ".join(f"{steps}: {value:.0%}" for steps, value in evaluation["greedy"].items())
        return f"exact by steps: {exact}"
