# SPDX-License-Identifier: Apache-2.0
"""How good a process scorer is: judged on solutions a generator wrote, against the symbolic checker.

Labels are prefix-correctness: a line is good while it and all before it are right. A score for a line is the lowest
so far, because a solution does not become right again. What is counted:

* step AUC, over lines up to and with the first wrong one. Lines behind it are left out: they are wrong by
  definition and a scorer that keeps the lowest score gets them for nothing.
* first wrong line found exactly: of the solutions with a fault, those where the first line below the threshold is the
  first wrong one.
* solutions judged exactly: of all solutions, those and the faultless ones in which no line is below the threshold.

Intervals are bootstrap percentiles over problems, since solutions of one problem go wrong together.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adyton_models.tasks.checker import Verdict, check_steps
from adyton_models.tasks.facts import Facts
from adyton_models.training.sampled import lines_of

Judge = Callable[[str, Sequence[Sequence[str]]], list[list[float]]]
"""For a problem and the lines of some solutions, the probability behind each line that all is right so far."""

RESAMPLES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A problem and what a generator answered."""

    problem: str
    facts: Facts
    group: str
    """Under what its figures are also shown, such as a bucket."""
    solutions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One solution with what the scorer said."""

    problem: int
    group: str
    scores: tuple[float, ...]
    """Of the lines up to the first wrong one; each the lowest so far."""
    faulty: bool
    """Whether the last of these lines is wrong."""
    fault: str
    """The checker's verdict on it, or `correct`."""
    lines: int
    """Of the whole solution."""


def judge_all(
    judge: Judge, answered: Sequence[Answered], report: Callable[[float], None] = lambda _: None
) -> list[Judged]:
    """Ask the scorer about every solution."""
    judged: list[Judged] = []
    for index, each in enumerate(answered):
        texts = [lines_of(solution) for solution in each.solutions]
        for lines, scores in zip(texts, judge(each.problem, texts), strict=True):
            verdicts = [step.verdict for step in check_steps(each.facts, "\n".join(lines))]
            wrong = next((i for i, verdict in enumerate(verdicts) if verdict is not Verdict.CORRECT), None)
            if not lines:
                continue
            until = len(lines) if wrong is None else wrong + 1
            judged.append(
                Judged(
                    problem=index,
                    group=each.group,
                    scores=tuple(np.minimum.accumulate(scores[:until]).tolist()),
                    faulty=wrong is not None,
                    fault=str(Verdict.CORRECT if wrong is None else verdicts[wrong]),
                    lines=len(lines),
                )
            )
        report((index + 1) / len(answered))
    return judged


def auc(good: NDArray[np.float64], bad: NDArray[np.float64]) -> float:
    """Probability that a good line scores above a bad one; ties count half."""
    if not len(good) or not len(bad):
        return float("nan")
    ordered = np.sort(bad)
    below = np.searchsorted(ordered, good, side="left")
    ties = np.searchsorted(ordered, good, side="right") - below
    return float((below + 0.5 * ties).sum() / (len(good) * len(bad)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """The judged solutions as arrays, so that resampling is quick."""

    first_alarm_right: NDArray[np.bool_]
    faulty: NDArray[np.bool_]
    good: list[NDArray[np.float64]]
    bad: list[NDArray[np.float64]]

    def figures(self, chosen: NDArray[np.int64]) -> tuple[float, float, float]:
        """AUC, faults found exactly, solutions judged exactly, of the solutions `chosen`."""
        good = np.concatenate([self.good[index] for index in chosen])
        bad = np.concatenate([self.bad[index] for index in chosen])
        right, faulty = self.first_alarm_right[chosen], self.faulty[chosen]
        found = float(right[faulty].mean()) if faulty.any() else float("nan")
        return auc(good, bad), found, float(right.mean())


def _exact(each: Judged, threshold: float) -> bool:
    alarm = next((index for index, score in enumerate(each.scores) if score < threshold), None)
    return alarm == (len(each.scores) - 1 if each.faulty else None)


def _table(judged: Sequence[Judged], threshold: float) -> _Table:
    return _Table(
        first_alarm_right=np.array([_exact(each, threshold) for each in judged]),
        faulty=np.array([each.faulty for each in judged]),
        good=[np.array(each.scores[:-1] if each.faulty else each.scores) for each in judged],
        bad=[np.array(each.scores[-1:] if each.faulty else ()) for each in judged],
    )


def best_threshold(judged: Sequence[Judged]) -> float:
    """The threshold under which most solutions are judged exactly; to be taken from validation problems."""
    candidates = 1 / (1 + np.exp(-np.linspace(-5, 5, 101)))
    shares = [np.mean([_exact(each, threshold) for each in judged]) for threshold in candidates]
    best = np.flatnonzero(np.array(shares) >= max(shares) - 1e-12)
    return round(float(candidates[best[len(best) // 2]]), 4)


def _interval(values: NDArray[np.float64]) -> list[float] | None:
    """The middle 95 %; None where nothing could be counted."""
    if np.isnan(values).all():
        return None
    return [round(float(each), 4) for each in np.nanpercentile(values, (2.5, 97.5))]


def figures(judged: Sequence[Judged], threshold: float, *, resamples: int = RESAMPLES) -> dict[str, Any]:
    """AUC, share of first faults found exactly, share of solutions judged exactly, each with a 95 % interval.

    With no `resamples` there are no intervals.
    """
    table = _table(judged, threshold)
    problems = np.array([each.problem for each in judged])
    groups = [np.flatnonzero(problems == problem) for problem in np.unique(problems)]
    rng = np.random.default_rng(1)
    resampled = np.array(
        [
            table.figures(np.concatenate([groups[i] for i in rng.integers(0, len(groups), len(groups))]))
            for _ in range(resamples)
        ]
    )
    values = table.figures(np.arange(len(judged)))
    names = ("step_auc", "first_fault_found", "judged_exactly")
    return {
        "problems": len(groups),
        "solutions": len(judged),
        "faulty_solutions": int(table.faulty.sum()),
        **{
            name: {"value": round(value, 4), "ci95": _interval(resampled[:, index]) if resamples else None}
            for index, (name, value) in enumerate(zip(names, values, strict=True))
        },
    }


def by(judged: Sequence[Judged], threshold: float, key: Callable[[Judged], str]) -> dict[str, dict[str, Any]]:
    """Counts and exactness of each group that `key` names."""
    groups: dict[str, list[Judged]] = {}
    for each in judged:
        groups.setdefault(key(each), []).append(each)
    return {
        name: {
            "solutions": len(group),
            "judged_exactly": round(float(np.mean([_exact(each, threshold) for each in group])), 4),
        }
        for name, group in sorted(groups.items())
    }


def evaluate_scorer(judged: Sequence[Judged], threshold: float) -> dict[str, Any]:
    """Everything that is said about a scorer on one set of solutions."""
    return {
        "threshold": threshold,
        **figures(judged, threshold),
        "by_group": by(judged, threshold, lambda each: each.group),
        "by_fault": by(judged, threshold, lambda each: each.fault),
    }
