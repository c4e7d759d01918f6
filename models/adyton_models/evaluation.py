# SPDX-License-Identifier: Apache-2.0
"""Accuracy of a model on problems with answers, decoded by the engine that would serve it.

This measures the model and the engine; what surrounds them (attestation, sealing, the API) is measured elsewhere.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from adyton_models.answers import Same, find_answer, right_answers, same_answer
from adyton_models.catalog import Sampling
from adyton_models.intervals import Floats, SampledScore, Score, wilson
from adyton_models.problem_sets import Question
from adyton_models.serving import Completion, Sampled, ServedModel
from adyton_models.tasks import UnreadableProblemError, Verdict, check_steps
from adyton_protocol.errors import ContextOverflow

__all__ = ["Conditions", "Evaluation", "Mark", "Score", "evaluate", "mark", "spread", "wilson"]

SPREAD_EDGES: Final = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.95)
"""Lower ends of the bins of :func:`spread`, the last of which is `always or nearly`."""
LEAST_SAMPLES_FOR_SPREAD: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """How a model is asked.

    Attributes:
        sampling: How to draw, and how much.
        samples: Answers for each problem.
        seed: Decides every draw.
        any_number: Accept the last number of a text that declares no answer.
        suffix: Text to put behind each problem, such as how to write the answer.
    """

    sampling: Sampling = field(default_factory=Sampling)
    samples: int = 1
    seed: int = 1
    any_number: bool = False
    suffix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """The samples of one problem, marked.

    Attributes:
        question: The problem.
        completions: What the model wrote; empty when the prompt did not fit.
        right: For each sample.
        sources: Where each sample's answer stood (`none` without one).
        faults: For each sample of a problem of our task, the verdict on its first wrong line; empty for others.
    """

    question: Question
    completions: tuple[Completion, ...] = field(repr=False)
    right: tuple[bool, ...]
    sources: tuple[str, ...]
    faults: tuple[str, ...]

    @property
    def share(self) -> float:
        """Share of right samples; a problem that does not fit is not solved."""
        return sum(self.right) / len(self.right) if self.right else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a run measured.

    Attributes:
        marks: One for each problem, in order.
        samples: Samples of each problem.
        tokens: Tokens generated.
        seconds: Wall time of decoding.
    """

    marks: tuple[Mark, ...]
    samples: int
    tokens: int
    seconds: float

    @property
    def shares(self) -> Floats:
        """Share of right samples of each problem, shape `(n_problems,)`."""
        return np.array([mark.share for mark in self.marks], dtype=np.float64)

    @property
    def overall(self) -> SampledScore:
        """pass@1 over all problems."""
        return SampledScore(shares=self.shares, samples=self.samples)

    @property
    def groups(self) -> dict[str, SampledScore]:
        """pass@1 by bucket or number of steps, easiest name first; problems without either are left out."""
        members: dict[str, list[Mark]] = defaultdict(list)
        for mark in self.marks:
            if mark.question.group:
                members[mark.question.group].append(mark)
        return {
            name: SampledScore(
                shares=np.array([mark.share for mark in members[name]], dtype=np.float64),
                samples=self.samples,
            )
            for name in sorted(members, key=lambda name: _order(members[name][0].question))
        }

    def counted(self, names: Callable[[Mark], Iterable[str]]) -> dict[str, int]:
        """How often each name occurs among all samples, most frequent first."""
        return dict(Counter(name for mark in self.marks for name in names(mark)).most_common())

    def as_json(self) -> dict[str, Any]:
        """Everything but the texts, for a machine."""
        cut = sum(not completion.finished for mark in self.marks for completion in mark.completions)
        document: dict[str, Any] = {
            "overall": self.overall.as_json(),
            "by_bucket": {name: score.as_json() for name, score in self.groups.items()},
            "samples_per_problem": self.samples,
            "answers_from": self.counted(lambda mark: mark.sources),
            "first_faults": self.counted(lambda mark: mark.faults),
            "cut_off": cut,
            "did_not_fit": sum(not mark.completions for mark in self.marks),
            "completion_tokens": self.tokens,
            "seconds": round(self.seconds, 1),
        }
        if self.samples >= LEAST_SAMPLES_FOR_SPREAD:
            document["spread"] = spread(self.shares)
        return document


def _order(question: Question) -> tuple[bool, int, str]:
    # Buckets in their own order of names, steps by number.
    return question.bucket is None, question.steps or 0 if question.bucket is None else 0, question.group


def spread(shares: Floats) -> dict[str, Any]:
    """How problems are spread over difficulty, by each one's share of right samples.

    Returns:
        `edges`: lower ends of the bins; `problems`: how many each holds; `between_10_and_95_percent`: the share of
        problems that are neither hopeless nor safe.
    """
    counts, _ = np.histogram(shares, bins=[*SPREAD_EDGES, 1.0])
    between = float(((shares >= 0.1) & (shares <= 0.95)).mean()) if shares.size else 0.0
    return {
        "edges": list(SPREAD_EDGES),
        "problems": counts.tolist(),
        "between_10_and_95_percent": round(between, 4),
    }


def mark(question: Question, sampled: Sampled, *, any_number: bool, same: Same = same_answer) -> Mark:
    """Judge the samples of one problem.

    Args:
        question: The problem.
        sampled: What the model wrote.
        any_number: Accept the last number of a text that declares no answer.
        same: How an answer is compared with the problem's.
    """
    answers = [find_answer(each.text, any_number=any_number) for each in sampled.completions]
    return Mark(
        question=question,
        completions=sampled.completions,
        right=right_answers(question.answer, answers, same),
        sources=tuple("none" if each is None else str(each.source) for each in answers),
        faults=_faults(question, sampled.completions),
    )


def _faults(question: Question, completions: Sequence[Completion]) -> tuple[str, ...]:
    try:
        problem = question.problem or question.text
        checked = [check_steps(problem, completion.text) for completion in completions]
    except UnreadableProblemError:
        # No problem of our task: nobody can say which step is wrong.
        return ()
    return tuple(
        str(next((step.verdict for step in steps if step.verdict is not Verdict.CORRECT), Verdict.CORRECT))
        for steps in checked
    )


def evaluate(
    model: ServedModel,
    questions: Sequence[Question],
    conditions: Conditions,
    *,
    same: Same = same_answer,
    report: Callable[[int, float], None] = lambda _done, _accuracy: None,
) -> Evaluation:
    """Sample every problem and mark the answers.

    Args:
        model: Loaded.
        questions: At least one.
        conditions: The same ones give the same answers.
        same: How an answer is compared with the problem's.
        report: Called after each problem with how many are done and the accuracy so far.
    """
    prompts = [_prompt(model, question.text + conditions.suffix) for question in questions]
    marks: dict[int, Mark] = {}
    solved = 0.0
    tokens = 0

    def take(index: int, sampled: Sampled) -> None:
        nonlocal solved, tokens
        marks[index] = mark(questions[index], sampled, any_number=conditions.any_number, same=same)
        solved += marks[index].share
        tokens += sampled.tokens
        report(len(marks), solved / len(marks))

    started = time.monotonic()
    model.sample(prompts, conditions.sampling, samples=conditions.samples, seed=conditions.seed, report=take)
    return Evaluation(
        marks=tuple(marks[index] for index in range(len(questions))),
        samples=conditions.samples,
        tokens=tokens,
        seconds=time.monotonic() - started,
    )


def _prompt(model: ServedModel, text: str) -> Sequence[int]:
    try:
        return model.prompt(text)
    except ContextOverflow:
        # As long as the context: there is no room, which is what it says.
        return range(model.model.n_ctx)
