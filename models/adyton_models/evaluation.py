# SPDX-License-Identifier: Apache-2.0
"""Accuracy of a GGUF on held-out problems, run in this process through llama-cpp-python.

This measures the model and nothing around it; the appliance's own answers are measured through its
sealed API.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp

from adyton_models.catalog import Sampling
from adyton_models.tasks import Problem, Verdict, check_answer, check_steps

_Z95 = 1.959964
_CONTEXT_TOKENS = 1024


def wilson(right: int, n: int) -> tuple[float, float]:
    """95 % confidence interval of a share (Wilson score)."""
    if n == 0:
        return 0.0, 1.0
    share, z2 = right / n, _Z95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Right answers out of n."""

    right: int
    n: int

    def as_json(self) -> dict[str, Any]:
        """Counts, share and 95 % interval."""
        low, high = wilson(self.right, self.n)
        share = self.right / self.n if self.n else 0.0
        ci95 = [round(low, 4), round(high, 4)]
        return {"right": self.right, "n": self.n, "accuracy": round(share, 4), "ci95": ci95}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a run measured."""

    overall: Score
    by_steps: dict[int, Score]
    first_faults: dict[str, int]
    """How often each verdict was the first that was not `correct`."""
    tokens: int
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Everything, for a machine."""
        return {
            "overall": self.overall.as_json(),
            "by_steps": {str(steps): score.as_json() for steps, score in self.by_steps.items()},
            "first_faults": self.first_faults,
            "completion_tokens": self.tokens,
            "seconds": round(self.seconds, 1),
        }


class Solver:
    """A loaded GGUF that answers one problem at a time."""

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        self._llama = llama_cpp.Llama(
            str(path), n_ctx=_CONTEXT_TOKENS, n_threads=threads, n_threads_batch=threads, verbose=False
        )

    def solve(self, problem: str, sampling: Sampling, seed: int) -> tuple[str, int]:
        """One completion through the file's own chat template, and its number of tokens."""
        answer: Any = self._llama.create_chat_completion(
            [{"role": "user", "content": problem}],
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            repeat_penalty=1.0,
            max_tokens=sampling.max_tokens,
            seed=seed,
        )
        return str(answer["choices"][0]["message"]["content"]), int(answer["usage"]["completion_tokens"])


def evaluate(
    solver: Solver,
    problems: Sequence[Problem],
    sampling: Sampling,
    *,
    seed: int,
    report: Callable[[int, int], None],
) -> Evaluation:
    """One sample for each problem; `report(done, right)` is called after each."""
    right: Counter[int] = Counter()
    asked: Counter[int] = Counter()
    faults: Counter[str] = Counter()
    tokens, started = 0, time.monotonic()
    for index, problem in enumerate(problems):
        completion, used = solver.solve(problem.text, sampling, seed + index)
        tokens += used
        asked[problem.steps] += 1
        right[problem.steps] += check_answer(problem, completion)
        verdicts = [step.verdict for step in check_steps(problem, completion)]
        faults[
            next((verdict for verdict in verdicts if verdict is not Verdict.CORRECT), Verdict.CORRECT)
        ] += 1
        report(index + 1, right.total())
    return Evaluation(
        overall=Score(right=right.total(), n=asked.total()),
        by_steps={steps: Score(right=right[steps], n=asked[steps]) for steps in sorted(asked)},
        first_faults={str(verdict): count for verdict, count in faults.most_common()},
        tokens=tokens,
        seconds=time.monotonic() - started,
    )
