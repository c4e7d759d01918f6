# SPDX-License-Identifier: Apache-2.0
"""A quarter-size student of the generator, by knowledge distillation that unfreezes from the last layer on.

After Fides (arXiv 2304.00083), whose greedy distillation transfer learning starts from a pretrained small model,
trains its last layer alone and lets one layer more follow whenever the approximation of the service model no longer
improves, until it is close enough or costs too much. Here the pretrained model is a small one that already reads the
task (such as a scorer's checkpoint, which learnt the text beside its tags), the measure is the divergence of
next-token distributions, and a layer that brings less than a set gain for its minutes ends the run.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from adyton_models.tasks.render import generate
from adyton_models.tasks.splits import Split
from adyton_models.tokenizer import PADDING
from adyton_models.training.architecture import Transformer
from adyton_models.training.budgeted import BudgetedTrainer, Lesson, Schedule, load_model
from adyton_models.training.curves import read_curve
from adyton_models.training.data import Batch, Stream, encode_row, make_batch, weigh_row


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentPlan(Schedule):
    """Everything that decides a student's run besides the hardware."""

    teacher: Path
    start_from: Path
    close_enough: float = 0.01
    """Divergence in nats per token at which the run ends: the student approximates the generator."""
    least_gain: float = 0.03
    """Relative improvement between two evaluations below which the next layer is unfrozen; and the end, when there is
    none left."""


class StudentTrainer(BudgetedTrainer):
    """Owns student and teacher of one run; one process, because layers are unfrozen by what is measured."""

    holds_planted = False

    def __init__(self, plan: StudentPlan, out: Path) -> None:
        self.plan = plan
        self.teacher = load_model(plan.teacher).eval().requires_grad_(requires_grad=False)
        super().__init__(plan, out)
        if self.team.size > 1:
            raise ValueError("a student is trained by one process")
        self.teacher.to(self.device)
        self.stages = [*reversed([list(block.parameters()) for block in self.model.blocks])]
        self.stages[0] += list(self.model.final_norm.parameters())
        self.stages.append(list(self.model.embedding.parameters()))
        self._validation = self._problems()
        self._best = float("inf")
        self._over = False
        self.progress_stage = 0
        self._thaw(1)

    def make_model(self) -> Transformer:
        """The pretrained small model."""
        model = load_model(self.plan.start_from)
        if model.shape.vocabulary != self.teacher.shape.vocabulary:
            raise ValueError("student and teacher have different vocabularies")
        return model

    def start_data(self) -> None:
        """Begin the stream of rows, as they are at the end of a generator's training."""
        self.stream = Stream(
            self.tokenizer,
            seed=self.plan.seed + 1000,
            batch_tokens=self.plan.batch_tokens,
            prompt_weight=0.0,
            pool=self.progress.pool,
        )

    @property
    def pool(self) -> int:
        """The pool that the stream fills next."""
        return self.stream.pool

    def _thaw(self, stages: int) -> None:
        """Let the last `stages` parts learn: layers from the last on, then the embedding."""
        self.progress_stage = stages
        for index, stage in enumerate(self.stages):
            for weight in stage:
                weight.requires_grad_(index < stages)

    def _problems(self) -> list[Batch]:
        encoded = [
            encode_row(self.tokenizer, problem)
            for problem in generate(Split.VALIDATION, 78, 96, (1, 2, 3, 4, 5, 6))
        ]
        encoded.sort(key=lambda row: len(row[0]))
        rows = [weigh_row(*row, 0.0) for row in encoded]
        padding = self.tokenizer.ids[PADDING]
        return [make_batch(rows[start : start + 16], padding) for start in range(0, len(rows), 16)]

    def divergence(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Of each counted token: KL(generator, student) in nats, and whether both choose the same token."""
        token_ids, wanted = batch.token_ids.to(self.device)[:, :-1], batch.weights.to(self.device) > 0
        with torch.autocast(self.device.type, torch.bfloat16):
            ours = self.model(token_ids)[wanted]
            with torch.no_grad():
                theirs = self.teacher(token_ids)[wanted]
        ours, theirs = ours.float().log_softmax(-1), theirs.float().log_softmax(-1)
        each = functional.kl_div(ours, theirs, reduction="none", log_target=True).sum(-1)
        return each, ours.argmax(-1) == theirs.argmax(-1)

    def lesson(self, done: float) -> Lesson:
        """The next batch, at the last stage of the curriculum whatever the progress."""
        del done
        batch = self.stream.next(1.0)
        each, _ = self.divergence(batch)
        return Lesson(
            loss=each.mean(),
            tokens=int(batch.token_ids.ne(self.tokenizer.ids[PADDING]).sum()),
            problems=batch.token_ids.shape[0],
        )

    @torch.no_grad()
    def measure(self) -> dict[str, Any]:
        """Divergence and agreement on validation solutions; unfreezes, or ends, by what it finds."""
        self.model.eval()
        parts = [self.divergence(batch) for batch in self._validation]
        self.model.train()
        divergence = torch.cat([each for each, _ in parts]).mean().item()
        agreement = torch.cat([same for _, same in parts]).float().mean().item()
        stage = self.progress_stage
        if divergence <= self.plan.close_enough:
            self._over = True
        elif divergence > self._best * (1 - self.plan.least_gain):
            self._over = stage == len(self.stages)
            self._thaw(min(stage + 1, len(self.stages)))
        self._best = min(self._best, divergence)
        return {
            "divergence": round(divergence, 4),
            "agreement": round(agreement, 4),
            "unfrozen": stage,
            "of": len(self.stages),
        }

    def resume(self) -> bool:
        """Continue; as many parts are unfrozen again as the curve says."""
        if not super().resume():
            return False
        self._best = float("inf")
        self._thaw(read_curve(self.out / "curve.jsonl")[-1]["unfrozen"])
        return True

    def finished(self) -> bool:
        """Whether the student is close enough, or no part is left to unfreeze."""
        return self._over or super().finished()

    def in_words(self, evaluation: dict[str, Any]) -> str:
        """How close the student is."""
        return (
            f"KL {evaluation['divergence']:.3f} nats, same token {evaluation['agreement']:.1%}, "
            f"{evaluation['unfrozen']} of {evaluation['of']} parts unfrozen"
        )
