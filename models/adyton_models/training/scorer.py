# SPDX-License-Identifier: Apache-2.0
"""Training of a process scorer: behind every line it says, by one of two tags, whether all is right so far.

Four losses share one pass. The tag's cross-entropy at `<step>` is what counts. A flag at every token, read from the
same two tag logits, says where a line goes wrong, which is many times as dense. Each token's own fault, asked one layer
behind the text, leaves the layers after it only to collect. The next token of right paths makes the scorer learn the
look-ups and the arithmetic by which it judges; the tags take no part in that distribution.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random  # noqa: TID251 - reproducible data, no secret
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from adyton_models.tasks.checker import label_steps
from adyton_models.tasks.render import draw
from adyton_models.tasks.splits import Split
from adyton_models.tokenizer import STEP_BAD, STEP_GOOD, Tokenizer
from adyton_models.training.architecture import Transformer, grow
from adyton_models.training.budgeted import BudgetedTrainer, Lesson, Schedule, load_model
from adyton_models.training.data import DRILLS, HARDER, drill_row, look_up_row, stage_at
from adyton_models.training.planted import planted_model
from adyton_models.training.sampled import SampledProblem, SampleFiles
from adyton_models.training.scorer_rows import (
    UNKNOWN,
    Node,
    TreeBatch,
    TreeRow,
    add_corruptions,
    add_labelled,
    add_solution,
    batch_rows,
    lay_out,
    row_of_drill,
)

Labels = Literal["trees", "checker", "rollouts"]

MAX_TREE_TOKENS = 900
MAX_POSITIONS = 640


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerPlan(Schedule):
    """Everything that decides a scorer's run besides the hardware and the samples."""

    width: int = 128
    layers: int = 5
    heads: int = 4
    feed_forward: int = 128
    start_from: Path | None = None
    """A checkpoint whose shape and weights training begins with, instead of planted heads; `layers` more than it has
    are put behind."""
    samples: Path | None = None
    """Directory of sampled solutions; more may arrive while training runs."""
    sampled_share: float = 0.4
    """Of rows, once there are samples; the others are made from fresh problems."""
    corrupted_share: float = 0.7
    """Of right lines in made rows, beside which a wrong one is put; a third of it in sampled rows."""
    labels: Labels = "trees"
    """What sampled rows are labelled with. `trees`: the checker, wrong lines ending their path, corruptions beside
    right ones. `checker` and `rollouts` show every line of every sample as it is and nothing else, labelled by the
    checker or by rollouts (good if any was right); they differ in the labels alone."""
    text_after: int = 0
    """Layers after which the text is predicted; those behind compare and collect. 0 is after all."""
    fault_weight: float = 0.5
    """Of judging each token by itself, one layer behind `text_after`."""
    text_weight: float = 0.5
    text_weight_end: float = 0.1
    flag_weight: float = 0.5
    max_steps: int = 10
    curriculum_from: float = 0.0
    """Progress at which the curriculum begins: a model that already reads needs no easy problems."""


def _fitting(row: TreeRow) -> TreeRow | None:
    """The row, or None when it is too long."""
    fits = len(row.token_ids) <= MAX_TREE_TOKENS and max(row.positions) < MAX_POSITIONS
    return row if fits else None


def made_row(tokenizer: Tokenizer, rng: Random, plan: ScorerPlan, progress: float) -> TreeRow:
    """A fresh training problem with its true solution and corruptions of it."""
    stage = stage_at(progress, plan.max_steps)
    share = next(share for start, share in reversed(HARDER) if progress >= start)
    while True:
        steps = rng.choices(list(stage), weights=list(stage.values()))[0]
        dice = rng.random()
        problem = draw(
            rng,
            Split.TRAIN,
            steps,
            distractors=rng.randint(1, 2) if dice < 1.25 * share else 0,
            shuffle=share <= dice < 2.25 * share,
        )
        facts = problem.facts()
        root = Node(line="", good=1.0)
        add_solution(root, facts, problem.solution)
        # First to read, then to judge.
        add_corruptions(root, facts, rng, plan.corrupted_share * min(1.0, 0.2 + 4 * progress))
        row = _fitting(lay_out(tokenizer, problem.text, root, facts))
        if row is not None:
            return row


def sampled_row(
    tokenizer: Tokenizer, rng: Random, plan: ScorerPlan, sampled: SampledProblem
) -> TreeRow | None:
    """A problem with solutions that the generator wrote for it, or None when they are too long."""
    facts, root = sampled.facts(), Node(line="", good=1.0)
    if plan.labels != "trees":
        for number, solution in enumerate(sampled.solutions):
            shares = sampled.shares[number] if plan.labels == "rollouts" else label_steps(facts, solution)
            add_labelled(root, solution, [float(share > 0) for share in shares])
        return _fitting(lay_out(tokenizer, sampled.problem, root, None))
    for solution in sampled.solutions:
        # In a third of the paths the scorer also sees what comes after a first wrong line.
        add_solution(root, facts, solution, beyond=rng.choice((0, 0, 2)))
    add_corruptions(root, facts, rng, plan.corrupted_share / 3)
    return _fitting(lay_out(tokenizer, sampled.problem, root, facts))


class TreeStream:
    """An endless stream of batches of trees; depends on seed, pool number, progress and the samples there are."""

    def __init__(self, tokenizer: Tokenizer, plan: ScorerPlan, *, member: int, pool: int) -> None:
        self.tokenizer, self.plan, self.member, self.pool = tokenizer, plan, member, pool
        self.samples = None if plan.samples is None else SampleFiles(plan.samples)
        self._ready: list[TreeBatch] = []

    def next(self, progress: float) -> TreeBatch:
        """The next batch."""
        if not self._ready:
            self._ready = self._fill(progress)
            self.pool += 1
        return self._ready.pop()

    def _row(self, rng: Random, progress: float) -> TreeRow:
        if self.plan.labels != "trees":
            return self._sampled(rng) or made_row(self.tokenizer, rng, self.plan, progress)
        equations, look_ups = next(shares for start, *shares in reversed(DRILLS) if progress >= start)
        dice = rng.random()
        if dice < equations + look_ups:
            drill = drill_row if dice < equations else look_up_row
            return row_of_drill(drill(self.tokenizer, rng))
        row = self._sampled(rng) if rng.random() < self.plan.sampled_share else None
        return row or made_row(self.tokenizer, rng, self.plan, progress)

    def _sampled(self, rng: Random) -> TreeRow | None:
        """A row of a sampled problem; None while there is none."""
        if self.samples is None or not self.samples.problems:
            return None
        rows = (sampled_row(self.tokenizer, rng, self.plan, self.samples.choose(rng)) for _ in range(20))
        return next((row for row in rows if row is not None), None)

    def _fill(self, progress: float) -> list[TreeBatch]:
        rng = Random(f"trees|{self.plan.seed}|{self.member}|{self.pool}")
        if self.samples is not None:
            self.samples.refresh()
        rows = sorted((self._row(rng, progress) for _ in range(192)), key=lambda row: len(row.token_ids))
        cuts, longest = [0], 0
        for index, row in enumerate(rows):
            longest = max(longest, len(row.token_ids))
            if index > cuts[-1] and longest * (index - cuts[-1] + 1) > self.plan.batch_tokens:
                cuts.append(index)
        cuts.append(len(rows))
        batches = [batch_rows(rows[a:b], self.tokenizer) for a, b in pairwise(cuts) if b > a]
        rng.shuffle(batches)
        return batches


def tag_logits(hidden: Tensor, embedding: Tensor, tokenizer: Tokenizer) -> Tensor:
    """Logit of `<+>` minus logit of `<->`, for hidden states (..., width)."""
    return hidden @ (embedding[tokenizer.ids[STEP_GOOD]] - embedding[tokenizer.ids[STEP_BAD]])


def _where(values: Tensor, wanted: Tensor) -> Tensor:
    """Mean of `values` where `wanted`; zero where nothing is."""
    return (values * wanted).sum() / wanted.sum().clamp(min=1)


class ScorerTrainer(BudgetedTrainer):
    """Owns the model, the optimisers and the data of one scorer's run."""

    def __init__(self, plan: ScorerPlan, out: Path, validation: Sequence[SampledProblem] = ()) -> None:
        self.plan = plan
        super().__init__(plan, out)
        self._validation = self._validation_rows(validation)

    @property
    def holds_planted(self) -> bool:  # type: ignore[override]
        """Planted heads are held unless weights come from elsewhere."""
        return self.plan.start_from is None

    def make_model(self) -> Transformer:
        """A planted model, or the one to start from, with layers behind that compare and collect."""
        if self.plan.start_from is None:
            return planted_model(self.plan, self.tokenizer)
        model = load_model(self.plan.start_from)
        return grow(model, max(self.plan.layers, model.shape.layers), seed=self.plan.seed)

    def start_data(self) -> None:
        """Begin the stream of trees at the pool that progress says."""
        self.stream = TreeStream(self.tokenizer, self.plan, member=self.team.rank, pool=self.progress.pool)

    @property
    def pool(self) -> int:
        """The pool that the stream fills next."""
        return self.stream.pool

    def losses(self, batch: TreeBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Cross-entropy of the tags, of the flags, of single tokens' faults, and of the text, each in nats."""
        layers = self.model.shape.layers
        read = min(self.plan.text_after or layers, layers)
        compared = min(read + 1, layers)
        with torch.autocast(self.device.type, torch.bfloat16):
            states = dict(
                zip(
                    sorted({read, compared, layers}),
                    self.model.states(
                        batch.token_ids,
                        sorted({read, compared, layers}),
                        positions=batch.positions,
                        mask=batch.mask,
                    ),
                    strict=True,
                )
            )
            wanted = batch.following != UNKNOWN
            logits = functional.linear(states[read][wanted], self.model.embedding.weight)
        embedding = self.model.embedding.weight
        verdicts = tag_logits(states[layers].float(), embedding, self.tokenizer)
        each = functional.binary_cross_entropy_with_logits(
            verdicts, batch.tags.clamp(min=0), reduction="none"
        )
        tags = _where(each, batch.tags != UNKNOWN)
        each = functional.binary_cross_entropy_with_logits(
            verdicts, batch.flags.clamp(min=0), reduction="none"
        )
        flags = _where(each, batch.flags != UNKNOWN)
        verdicts = tag_logits(states[compared].float(), embedding, self.tokenizer)
        each = functional.binary_cross_entropy_with_logits(
            verdicts, batch.faults.clamp(min=0), reduction="none"
        )
        # Wrong tokens are few, one for a line at the most: both kinds count alike.
        faults = (_where(each, batch.faults == 1) + _where(each, batch.faults == 0)) / 2
        logits = logits.float()
        logits[:, [self.tokenizer.ids[STEP_GOOD], self.tokenizer.ids[STEP_BAD]]] = -1e4
        # Where every line is wrong there is no text to learn, and the mean of nothing would be no number.
        text = functional.cross_entropy(
            logits, batch.following[wanted], reduction="sum"
        ) / wanted.sum().clamp(min=1)
        return tags, flags, faults, text

    def lesson(self, done: float) -> Lesson:
        """The next batch of trees."""
        begun = self.plan.curriculum_from
        batch = self.stream.next(begun + (1.0 - begun) * done).to(self.device)
        tags, flags, faults, text = self.losses(batch)
        plan = self.plan
        text_weight = plan.text_weight + (plan.text_weight_end - plan.text_weight) * done
        return Lesson(
            loss=tags + plan.flag_weight * flags + plan.fault_weight * faults + text_weight * text,
            tokens=int((batch.positions > 0).sum()),
            problems=batch.token_ids.shape[0],
        )

    def _validation_rows(self, sampled: Sequence[SampledProblem]) -> list[TreeBatch]:
        """Trees of sampled solutions of validation problems, or made ones where there are no samples."""
        rng = Random("validation trees")
        rows: list[TreeRow] = []
        for each in sampled:
            root = Node(line="", good=1.0)
            for solution in each.solutions:
                add_solution(root, each.facts(), solution)
            rows.append(lay_out(self.tokenizer, each.problem, root, None))
        while not sampled and len(rows) < 96:
            problem = draw(rng, Split.VALIDATION, 1 + len(rows) % self.plan.max_steps)
            facts, root = problem.facts(), Node(line="", good=1.0)
            add_solution(root, facts, problem.solution)
            add_corruptions(root, facts, rng, 1.0)
            rows.append(lay_out(self.tokenizer, problem.text, root, facts))
        rows.sort(key=lambda row: len(row.token_ids))
        return [batch_rows(rows[start : start + 8], self.tokenizer) for start in range(0, len(rows), 8)]

    @torch.no_grad()
    def measure(self) -> dict[str, Any]:
        """Of validation lines: share judged rightly, of right and of wrong ones; and the losses."""
        good: list[Tensor] = []
        bad: list[Tensor] = []
        losses = torch.zeros(4)
        self.model.eval()
        for batch in (each.to(self.device) for each in self._validation):
            losses += torch.stack([loss.cpu() for loss in self.losses(batch)])
            with torch.autocast(self.device.type, torch.bfloat16):
                hidden = self.model.hidden(batch.token_ids, positions=batch.positions, mask=batch.mask)
            verdicts = tag_logits(hidden.float(), self.model.embedding.weight, self.tokenizer)
            good.append(verdicts[batch.tags == 1])
            bad.append(verdicts[batch.tags == 0])
        self.model.train()
        losses /= len(self._validation)
        above, below = torch.cat(good), torch.cat(bad)
        return {
            "good_kept": round((above > 0).float().mean().item(), 4),
            "bad_found": round((below <= 0).float().mean().item(), 4),
            "auc": round((above[:, None] > below[None, :]).float().mean().item(), 4),
            "tag_loss": round(losses[0].item(), 4),
            "flag_loss": round(losses[1].item(), 4),
            "fault_loss": round(losses[2].item(), 4),
            "text_loss": round(losses[3].item(), 4),
        }

    def in_words(self, evaluation: dict[str, Any]) -> str:
        """How well it tells right lines from wrong ones."""
        return (
            f"AUC {evaluation['auc']:.4f}, kept {evaluation['good_kept']:.1%} of right lines, "
            f"found {evaluation['bad_found']:.1%} of wrong ones"
        )
