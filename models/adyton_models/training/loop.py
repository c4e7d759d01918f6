# SPDX-License-Identifier: Apache-2.0
"""Training with a wall-clock budget: the learning rate always decays to zero exactly when the time is up.

Progress is time used over time given, kept in the checkpoint, so a run that was interrupted continues
where it was. Uses a CUDA device when there is one; otherwise bfloat16 autocast on the CPU, which on
processors with AVX512-BF16 is about 1.7 times as fast as float32.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from adyton_models.tasks.render import generate
from adyton_models.tasks.splits import Split
from adyton_models.tokenizer import PADDING, Tokenizer
from adyton_models.training.architecture import Shape, Transformer
from adyton_models.training.data import Stream, encode_row, make_batch, weigh_row
from adyton_models.training.muon import Muon
from adyton_models.training.parallel import Team
from adyton_models.training.planted import Held, plant_heads

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that decides a run besides the hardware."""

    minutes: float
    seed: int = 1
    width: int = 256
    layers: int = 4
    heads: int = 8
    feed_forward: int = 512
    batch_tokens: int = 2048
    """In each process."""
    muon_lr: float = 0.02
    adam_lr: float = 3e-3
    prompt_weight: float = 0.03
    warmup: float = 0.01
    decay_from: float = 0.4
    threads: int = 2
    checkpoint_every_s: float = 180.0
    evaluate_every_s: float = 120.0
    stop_after_steps: int | None = None


@dataclass(slots=True, kw_only=True)
class Progress:
    """Where a run is; saved with the checkpoint."""

    used_s: float = 0.0
    steps: int = 0
    tokens: int = 0
    problems: int = 0
    pool: int = 0


def learning_rate_factor(progress: float, warmup: float, decay_from: float) -> float:
    """Warm up linearly, stay at 1, decay linearly to 0 at progress 1."""
    if progress < warmup:
        return max(progress / warmup, 0.02)
    if progress < decay_from:
        return 1.0
    return max(0.0, (1.0 - progress) / (1.0 - decay_from))


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


class Trainer:
    """Owns the model, the optimisers and the data of one run."""

    def __init__(self, plan: Plan, out: Path) -> None:
        self.plan, self.out = plan, out
        out.mkdir(parents=True, exist_ok=True)
        torch.set_num_threads(plan.threads)
        torch.manual_seed(plan.seed)
        self.team = Team()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer = Tokenizer()
        shape = Shape(
            vocabulary=self.tokenizer.trained,
            width=plan.width,
            layers=plan.layers,
            heads=plan.heads,
            feed_forward=plan.feed_forward,
        )
        self.model = Transformer(shape, seed=plan.seed)
        plant_heads(self.model, self.tokenizer, seed=plan.seed)
        self.model.to(self.device)
        self.held = Held(self.model)
        matrices = [
            w for n, w in self.model.named_parameters() if w.dim() == 2 and not n.startswith("embedding")
        ]
        others = [w for n, w in self.model.named_parameters() if w.dim() != 2 or n.startswith("embedding")]
        self.optimisers: tuple[torch.optim.Optimizer, ...] = (
            Muon(matrices, lr=plan.muon_lr, decay=0.01, team=self.team),
            torch.optim.AdamW(others, lr=plan.adam_lr, betas=(0.9, 0.98), weight_decay=0.0),
        )
        self.progress = Progress()
        self._already_s, self._started = 0.0, time.monotonic()
        self.stream = self._stream()

    def _stream(self) -> Stream:
        return Stream(
            self.tokenizer,
            seed=self.plan.seed,
            member=self.team.rank,
            batch_tokens=self.plan.batch_tokens,
            prompt_weight=self.plan.prompt_weight,
            pool=self.progress.pool,
        )

    def resume(self) -> bool:
        """Continue from `checkpoint.pt` in the output directory; False when there is none."""
        path = self.out / "checkpoint.pt"
        if not path.exists():
            return False
        saved: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(saved["model"])
        self.held = Held(self.model)
        for optimiser, state in zip(self.optimisers, saved["optimisers"], strict=True):
            optimiser.load_state_dict(state)
        self.progress = Progress(**saved["progress"])
        self.stream = self._stream()
        return True

    def save(self, name: str = "checkpoint.pt") -> Path:
        """Write a checkpoint, replacing the old one in one step."""
        self.progress.pool = self.stream.pool
        path, partial = self.out / name, self.out / f"{name}.partial"
        torch.save(
            {
                "format": FORMAT,
                "shape": self.model.shape.as_dict(),
                "plan": asdict(self.plan),
                "progress": asdict(self.progress),
                "model": self.model.state_dict(),
                "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            },
            partial,
        )
        partial.replace(path)
        return path

    def loss(self, token_ids: Tensor, weights: Tensor) -> Tensor:
        """Weighted cross-entropy in nats per weighted token."""
        with torch.autocast(self.device.type, torch.bfloat16):
            logits = self.model(token_ids[:, :-1])
        each = functional.cross_entropy(
            logits.float().flatten(0, 1), token_ids[:, 1:].flatten(), reduction="none"
        )
        flat = weights.flatten()
        return (each * flat).sum() / flat.sum()

    def step(self, done: float) -> float:
        """One update at progress `done`; returns the loss."""
        batch = self.stream.next(done)
        factor = learning_rate_factor(done, self.plan.warmup, self.plan.decay_from)
        for optimiser, rate in zip(self.optimisers, (self.plan.muon_lr, self.plan.adam_lr), strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor
        loss = self.loss(batch.token_ids.to(self.device), batch.weights.to(self.device))
        loss.backward()  # type: ignore[no-untyped-call]
        counts = (
            float(batch.token_ids.ne(self.tokenizer.ids[PADDING]).sum()),
            float(batch.token_ids.shape[0]),
        )
        shared = self.team.average(list(self.model.parameters()), (self.used_s(), *counts, loss.item()))
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad()
        self.held.restore(done)
        self.progress.steps += 1
        self.progress.used_s = shared[0]
        self.progress.tokens += round(shared[1]) * self.team.size
        self.progress.problems += round(shared[2]) * self.team.size
        return shared[3]

    def used_s(self) -> float:
        """Seconds of the budget that are used, those before a resumption included."""
        return self._already_s + time.monotonic() - self._started

    def evaluate(self, loss: float) -> dict[str, Any]:
        """Measure on validation problems and append a line to `curve.jsonl`."""
        accuracy = forced_accuracy(
            self.model, self.tokenizer, Split.VALIDATION, n=48, steps=(1, 2, 4, 6, 8, 10)
        )
        line = {
            "minutes": round(self.progress.used_s / 60, 2),
            "steps": self.progress.steps,
            "tokens": self.progress.tokens,
            "problems": self.progress.problems,
            "loss": round(loss, 4),
            "greedy": {str(count): round(values[0], 4) for count, values in accuracy.items()},
            "probability": {str(count): round(values[1], 4) for count, values in accuracy.items()},
        }
        with (self.out / "curve.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        return line

    def run(self, report: Callable[[float, dict[str, Any] | None, float], None]) -> Path:
        """Train until the time is up; after each update call `report(progress, evaluation or None, loss)`."""
        budget_s = self.plan.minutes * 60
        self._already_s, self._started = self.progress.used_s, time.monotonic()
        saved_s = evaluated_s = self._already_s
        smooth = math.nan
        while self.progress.used_s < budget_s:
            loss = self.step(self.progress.used_s / budget_s)
            smooth = loss if math.isnan(smooth) else 0.98 * smooth + 0.02 * loss
            evaluation = None
            if self.team.rank == 0 and self.progress.used_s - evaluated_s >= self.plan.evaluate_every_s:
                evaluation, evaluated_s = self.evaluate(smooth), self.progress.used_s
            if self.team.rank == 0 and self.progress.used_s - saved_s >= self.plan.checkpoint_every_s:
                self.save()
                saved_s = self.progress.used_s
            report(self.progress.used_s / budget_s, evaluation, smooth)
            if self.plan.stop_after_steps is not None and self.progress.steps >= self.plan.stop_after_steps:
                break
        if self.team.rank == 0:
            report(1.0, self.evaluate(smooth), smooth)
            self.save()
        return self.out / "checkpoint.pt"
