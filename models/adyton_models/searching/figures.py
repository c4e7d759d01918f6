# SPDX-License-Identifier: Apache-2.0
"""From runs to figures: accuracy and cost of each search with intervals, and paired differences between two.

What is drawn again in the bootstrap is problems, with all their seeds: runs of one problem are not independent. Two
searches are compared on the problems, and on the seeds of each, that both were run on.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from adyton_models.intervals import Floats, bootstrap, wilson
from adyton_models.searching.measuring import Run

Key = tuple[str, int]
"""Problem and seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Of two shares, paired.

    Attributes:
        value: First less second.
        low: Of the 95 % interval.
        high: Likewise.
        n: Problems.
    """

    value: float
    low: float
    high: float
    n: int

    def as_json(self) -> dict[str, Any]:
        """In the words of the other figures."""
        return {
            "value": round(self.value, 4),
            "ci95": [round(self.low, 4), round(self.high, 4)],
            "problems": self.n,
        }


class Series:
    """All runs of one search with one scorer."""

    def __init__(self, runs: Iterable[Run]) -> None:
        """Take the runs; of several of one problem and seed, the last."""
        self.runs: Mapping[Key, Run] = {(run.question_id, run.seed): run for run in runs}

    def only(self, wanted: Callable[[Key], bool]) -> "Series":
        """The runs of some problems and seeds."""
        return Series(run for key, run in self.runs.items() if wanted(key))

    def per_problem(self, value: Callable[[Run], float]) -> Floats:
        """Means over the seeds of each problem, shape `(n_problems,)`."""
        return _by_problem({key: value(run) for key, run in self.runs.items()})

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return _mean(self.per_problem(lambda run: run.right))

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy."""
        shares = self.per_problem(lambda run: run.right)
        if shares.size < 2 or float(shares.min()) == float(shares.max()):
            return wilson(round(_mean(shares) * shares.size), shares.size)
        return bootstrap(shares)

    def mean(self, value: Callable[[Run], float]) -> float:
        """Mean over problems of a cost."""
        return _mean(self.per_problem(value))

    def quantile(self, value: Callable[[Run], float], share: float) -> float:
        """A quantile over all runs of a cost."""
        values = [value(run) for run in self.runs.values()]
        return float(np.quantile(np.array(values, dtype=np.float64), share)) if values else 0.0

    def as_json(self) -> dict[str, Any]:
        """All figures."""
        low, high = self.interval
        return {
            "problems": len({question for question, _ in self.runs}),
            "runs": len(self.runs),
            "accuracy": round(self.accuracy, 4),
            "ci95": [round(low, 4), round(high, 4)],
            "policy_tokens": round(self.mean(lambda run: run.policy_tokens), 1),
            "prompt_tokens": round(self.mean(lambda run: run.prompt_tokens), 1),
            "scorer_tokens": round(self.mean(lambda run: run.scorer_tokens), 1),
            "total_flops": float(f"{self.mean(lambda run: run.total_flops):.5g}"),
        }


def group_runs(runs: Iterable[Run]) -> dict[tuple[str, str], Series]:
    """Runs by search and scorer."""
    found: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        found[run.spec, run.scorer].append(run)
    return {key: Series(group) for key, group in found.items()}


def difference(one: Series, other: Series) -> Difference:
    """Accuracy of one less that of the other, on what both were run on."""
    shared = one.runs.keys() & other.runs.keys()
    differences = _by_problem(
        {key: float(one.runs[key].right) - float(other.runs[key].right) for key in sorted(shared)}
    )
    low, high = bootstrap(differences) if differences.size else (-1.0, 1.0)
    return Difference(value=_mean(differences), low=low, high=high, n=int(differences.size))


def ratio(one: Series, other: Series, value: Callable[[Run], float]) -> float:
    """Cost of one over that of the other, on what both were run on; NaN without any."""
    shared = one.runs.keys() & other.runs.keys()
    below = sum(value(other.runs[key]) for key in shared)
    return sum(value(one.runs[key]) for key in shared) / below if below else float("nan")


def pass_rates(rates: Mapping[Key, tuple[int, int]]) -> dict[Key, float]:
    """How hard each problem is, by the candidates of its *other* seeds, so that no run decides in which band it counts.

    Args:
        rates: Right candidates and all candidates of each pool.

    Returns:
        A share for each pool whose problem has another one.
    """
    seeds: dict[str, list[int]] = defaultdict(list)
    for question, seed in rates:
        seeds[question].append(seed)
    found: dict[Key, float] = {}
    for question, seed in rates:
        others = [rates[question, other] for other in seeds[question] if other != seed]
        if others:
            found[question, seed] = sum(right for right, _ in others) / sum(n for _, n in others)
    return found


def _by_problem(values: Mapping[Key, float]) -> Floats:
    grouped: dict[str, list[float]] = defaultdict(list)
    for (question, _), value in values.items():
        grouped[question].append(value)
    return np.array([sum(group) / len(group) for group in grouped.values()], dtype=np.float64)


def _mean(values: Floats) -> float:
    return float(values.mean()) if values.size else 0.0
