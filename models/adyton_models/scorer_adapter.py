# SPDX-License-Identifier: Apache-2.0
"""From a trained scorer to its adapter file: calibration fitted on validation answers, golden vectors, checked.

The convention's file (`models/adapters/adyton-words-scorer.toml`) says how the scorer is asked. What only this
scorer has is added here: a Platt curve from raw scores to chances, the threshold under which most solutions are judged
exactly, the AUC measured, and golden vectors that notice a wrong read position or swapped labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adyton_enclave.scoring.calibration import Calibration, Platt
from adyton_models.golden import Vector, make_golden, with_calibration, with_golden
from adyton_models.scorer_evaluation import Answered, Judge, Judged, best_threshold, figures, judge_all
from adyton_models.scoring import ScorerRunner
from adyton_models.training.sampled import lines_of

_EDGE = 1e-9
_NEWTON_STEPS = 50
_RIDGE = 1e-3
_SMALLEST_STEP = 1e-9
_GOLDEN_EACH = 2


def fit_platt(raw: NDArray[np.float64], good: NDArray[np.bool_]) -> Platt:
    """Logistic regression of labels on log-odds, by Newton's method with a slight pull to the identity.

    Args:
        raw: Scores, shape `(n,)`.
        good: Labels, shape `(n,)`.
    """
    clipped = raw.clip(_EDGE, 1 - _EDGE)
    features = np.stack([np.log(clipped / (1 - clipped)), np.ones(len(raw))], axis=1)
    identity = np.array([1.0, 0.0])

    def cost(weights: NDArray[np.float64]) -> float:
        odds = features @ weights
        fit = np.logaddexp(0.0, odds) - good * odds
        return float(fit.sum() + _RIDGE / 2 * ((weights - identity) ** 2).sum())

    weights = identity.copy()
    for _ in range(_NEWTON_STEPS):
        chance = 1 / (1 + np.exp(-(features @ weights).clip(-40, 40)))
        slope = features.T @ (chance - good) + _RIDGE * (weights - identity)
        curvature = (features * (chance * (1 - chance))[:, None]).T @ features + _RIDGE * np.eye(2)
        step = np.linalg.solve(curvature, slope)
        # Far from the optimum the curve is flat and a whole step leaps over it.
        while cost(weights - step) > cost(weights) and np.abs(step).max() > _SMALLEST_STEP:
            step = step / 2
        weights = weights - step
    return Platt(a=round(max(float(weights[0]), 0.01), 6), b=round(float(weights[1]), 6))


def calibration_of(judged: Sequence[Judged]) -> Calibration:
    """The calibration that validation answers give."""
    raw = np.array([score for each in judged for score in each.scores])
    good = np.array(
        [
            not (each.faulty and at == len(each.scores) - 1)
            for each in judged
            for at in range(len(each.scores))
        ]
    )
    curve = fit_platt(raw, good)
    calibrated = [replace(each, scores=tuple(map(curve.apply, each.scores))) for each in judged]
    threshold = best_threshold(calibrated)
    measured = figures(calibrated, threshold, resamples=0)
    return Calibration(curve=curve, auc=measured["step_auc"]["value"], threshold=threshold, n_steps=len(raw))


def runner_judge(runner: ScorerRunner) -> Judge:
    """A loaded scorer as a judge."""

    def judge(problem: str, solutions: Sequence[Sequence[str]]) -> list[list[float]]:
        return runner.score_many([(problem, list(lines)) for lines in solutions])

    return judge


def _vectors(answered: Sequence[Answered], judged: Sequence[Judged]) -> list[Vector]:
    """The solutions the scorer is surest about, faultless ones and faulty ones."""
    solutions = [
        (each.problem, tuple(lines_of(text)))
        for each in answered
        for text in each.solutions
        if lines_of(text)
    ]
    ranked = sorted(zip(judged, solutions, strict=True), key=lambda pair: pair[0].scores[-1])
    faulty = [solution for each, solution in ranked if each.faulty][:_GOLDEN_EACH]
    faultless = [solution for each, solution in reversed(ranked) if not each.faulty][:_GOLDEN_EACH]
    return [Vector(problem=problem, steps=steps) for problem, steps in (*faultless, *faulty)]


def finish_adapter(
    model: Path,
    convention: bytes,
    answered: Sequence[Answered],
    report: Callable[[float], None] = lambda _: None,
) -> bytes:
    """The convention's adapter with calibration and golden vectors for the scorer in `model`.

    Args:
        model: The scorer's GGUF.
        convention: An adapter without either.
        answered: Answers to validation problems.
        report: Called with the share that is judged.

    Raises:
        ConfigError: The files do not go together, or no vectors were found that notice faults.
    """
    with ScorerRunner(model, convention) as runner:
        judged = judge_all(runner_judge(runner), answered, report)
    calibrated = with_calibration(convention, calibration_of(judged))
    with ScorerRunner(model, calibrated) as runner:
        golden = make_golden(runner, _vectors(answered, judged))
    return with_golden(calibrated, golden)
