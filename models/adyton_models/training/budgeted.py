# SPDX-License-Identifier: Apache-2.0
"""Training with a wall-clock budget: the learning rate always decays to zero exactly when the time is up.

Progress is time used over time given, kept in the checkpoint, so a run that was interrupted continues
where it was. Uses a CUDA device when there is one; otherwise bfloat16 autocast on the CPU, which on
processors with AVX512-BF16 is about 1.7 times as fast as float32. What is learned is a subclass's business.
"""

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from adyton_models.tokenizer import Tokenizer
from adyton_models.training.architecture import Shape, Transformer
from adyton_models.training.muon import Muon
from adyton_models.training.parallel import Team
from adyton_models.training.planted import Held

FORMAT = 1

Report = Callable[[float, dict[str, Any] | None, float], None]
"""Called after each update with progress, the evaluation if there was one, and the smoothed loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """What decides a run whatever is learned, besides the hardware."""

    minutes: float
    seed: int = 1
    batch_tokens: int = 2048
    """In each process."""
    muon_lr: float = 0.02
    adam_lr: float = 3e-3
    warmup: float = 0.01
    decay_from: float = 0.4
    hold_planted: float = 0.15
    """Share of the budget during which planted weights are held fixed, in a model that has some."""
    threads: int = 2
    checkpoint_every_s: float = 180.0
    evaluate_every_s: float = 120.0
    stop_after_steps: int | None = None

    def at_rate(self, factor: float) -> Self:
        """The same with both learning rates multiplied."""
        return replace(self, muon_lr=self.muon_lr * factor, adam_lr=self.adam_lr * factor)


@dataclass(slots=True, kw_only=True)
class Progress:
    """Where a run is; saved with the checkpoint."""

    used_s: float = 0.0
    steps: int = 0
    tokens: int = 0
    problems: int = 0
    pool: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """The loss of one batch, with how much was in it."""

    loss: Tensor
    tokens: int
    problems: int


def learning_rate_factor(progress: float, warmup: float, decay_from: float) -> float:
    """Warm up linearly, stay at 1, decay linearly to 0 at progress 1."""
    if progress < warmup:
        return max(progress / warmup, 0.02)
    if progress < decay_from:
        return 1.0
    return max(0.0, (1.0 - progress) / (1.0 - decay_from))


def read_weights(path: Path) -> dict[str, Any]:
    """A checkpoint of ours; loading it executes no code."""
    saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return saved


def load_model(path: Path) -> Transformer:
    """The model of a checkpoint of ours."""
    saved = read_weights(path)
    model = Transformer(Shape(**saved["shape"]))
    model.load_state_dict(saved["model"])
    return model


def save_model(model: Transformer, path: Path) -> None:
    """Write a checkpoint that holds a model and no run."""
    document = {"format": FORMAT, "shape": model.shape.as_dict(), "progress": asdict(Progress())}
    torch.save({**document, "model": model.state_dict()}, path)


class BudgetedTrainer(ABC):
    """Owns the model, the optimisers and the clock of one run; subclasses bring data, loss and evaluation."""

    def __init__(self, schedule: Schedule, out: Path) -> None:
        self.schedule, self.out = schedule, out
        out.mkdir(parents=True, exist_ok=True)
        torch.set_num_threads(schedule.threads)
        torch.manual_seed(schedule.seed)
        self.team = Team()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer = Tokenizer()
        self.progress = Progress()
        self._already_s, self._started = 0.0, time.monotonic()
        self.model = self.make_model().to(self.device)
        self.held = self._hold()
        self.optimisers = self._optimisers()
        self.start_data()

    holds_planted = True
    """Whether the model has planted heads that are held fixed at first."""

    @abstractmethod
    def make_model(self) -> Transformer:
        """A new model, as training begins with it."""

    @abstractmethod
    def start_data(self) -> None:
        """Begin the data at `self.progress.pool`."""

    @abstractmethod
    def lesson(self, done: float) -> Lesson:
        """The loss of the next batch at progress `done`."""

    @abstractmethod
    def measure(self) -> dict[str, Any]:
        """What a line of the learning curve says besides time and loss."""

    def in_words(self, evaluation: dict[str, Any]) -> str:
        """A line of the curve for people."""
        return ", ".join(f"{name} {value}" for name, value in evaluation.items() if name != "minutes")

    @property
    def pool(self) -> int:
        """Where the data is; kept in the checkpoint."""
        return self.progress.pool

    def _hold(self) -> Held | None:
        return Held(self.model, self.schedule.hold_planted) if self.holds_planted else None

    def _optimisers(self) -> tuple[torch.optim.Optimizer, ...]:
        named = [(name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad]
        matrices = [w for n, w in named if w.dim() == 2 and not n.startswith("embedding")]
        others = [w for n, w in named if w.dim() != 2 or n.startswith("embedding")]
        return (
            Muon(matrices, lr=self.schedule.muon_lr, decay=0.01, team=self.team),
            torch.optim.AdamW(others, lr=self.schedule.adam_lr, betas=(0.9, 0.98), weight_decay=0.0),
        )

    def resume(self) -> bool:
        """Continue from `checkpoint.pt` in the output directory; False when there is none."""
        path = self.out / "checkpoint.pt"
        if not path.exists():
            return False
        saved: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(saved["model"])
        self.held = self._hold()
        for optimiser, state in zip(self.optimisers, saved["optimisers"], strict=True):
            optimiser.load_state_dict(state)
        self.progress = Progress(**saved["progress"])
        self.start_data()
        return True

    def save(self, name: str = "checkpoint.pt") -> Path:
        """Write a checkpoint, replacing the old one in one step."""
        self.progress.pool = self.pool
        path, partial = self.out / name, self.out / f"{name}.partial"
        torch.save(
            {
                "format": FORMAT,
                "shape": self.model.shape.as_dict(),
                "plan": {
                    name: str(value) if isinstance(value, Path) else value
                    for name, value in asdict(self.schedule).items()
                },
                "progress": asdict(self.progress),
                "model": self.model.state_dict(),
                "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            },
            partial,
        )
        partial.replace(path)
        return path

    def step(self, done: float) -> float:
        """One update at progress `done`; returns the loss."""
        factor = learning_rate_factor(done, self.schedule.warmup, self.schedule.decay_from)
        rates = (self.schedule.muon_lr, self.schedule.adam_lr)
        for optimiser, rate in zip(self.optimisers, rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor
        lesson = self.lesson(done)
        lesson.loss.backward()  # type: ignore[no-untyped-call]
        counts = (float(lesson.tokens), float(lesson.problems))
        weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        shared = self.team.average(weights, (self.used_s(), *counts, lesson.loss.item()))
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad()
        if self.held is not None:
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
        line = {
            "minutes": round(self.progress.used_s / 60, 2),
            "steps": self.progress.steps,
            "tokens": self.progress.tokens,
            "problems": self.progress.problems,
            "loss": round(loss, 4),
            **self.measure(),
        }
        with (self.out / "curve.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        return line

    def finished(self) -> bool:
        """Whether to stop before the time is up."""
        stop = self.schedule.stop_after_steps
        return stop is not None and self.progress.steps >= stop

    def run(self, report: Report) -> Path:
        """Train until the time is up; after each update call `report(progress, evaluation or None, loss)`."""
        budget_s = self.schedule.minutes * 60
        self._already_s, self._started = self.progress.used_s, time.monotonic()
        saved_s = evaluated_s = self._already_s
        smooth = math.nan
        while self.progress.used_s < budget_s:
            loss = self.step(self.progress.used_s / budget_s)
            smooth = loss if math.isnan(smooth) else 0.98 * smooth + 0.02 * loss
            evaluation = None
            if self.team.rank == 0 and self.progress.used_s - evaluated_s >= self.schedule.evaluate_every_s:
                evaluation, evaluated_s = self.evaluate(smooth), self.progress.used_s
            if self.team.rank == 0 and self.progress.used_s - saved_s >= self.schedule.checkpoint_every_s:
                self.save()
                saved_s = self.progress.used_s
            report(self.progress.used_s / budget_s, evaluation, smooth)
            if self.finished():
                break
        if self.team.rank == 0:
            report(1.0, self.evaluate(smooth), smooth)
            self.save()
        return self.out / "checkpoint.pt"
