# SPDX-License-Identifier: Apache-2.0
"""What is said about a scorer: its figures are what they are called, and its calibration is a calibration."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton_models.scorer_adapter import calibration_of, fit_platt
from adyton_models.scorer_evaluation import (
    Answered,
    Judged,
    auc,
    best_threshold,
    evaluate_scorer,
    judge_all,
)
from adyton_models.tasks import generate
from adyton_models.training.pipeline import BUDGETS, SCORER, stages
from adyton_models.training.sampled import lines_of

PROBLEMS = list(generate("test", 3, 12, (2, 4)))


def judged(scores: tuple[float, ...], *, faulty: bool, problem: int = 0) -> Judged:
    """A solution as it was judged."""
    fault = "wrong relation" if faulty else "correct"
    return Judged(problem=problem, group="g", scores=scores, faulty=faulty, fault=fault, lines=len(scores))


@given(
    st.lists(st.sampled_from((0.1, 0.2, 0.5, 0.9)), min_size=1, max_size=20),
    st.lists(st.sampled_from((0.1, 0.2, 0.5, 0.9)), min_size=1, max_size=20),
)
def test_auc_counts_pairs(good: list[float], bad: list[float]) -> None:
    """The share of pairs in which the good one scores higher, ties counting half."""
    pairs = [(a > b) + 0.5 * (a == b) for a in good for b in bad]
    assert auc(np.array(good), np.array(bad)) == pytest.approx(sum(pairs) / len(pairs))


def test_a_scorer_that_knows_the_checker_has_full_marks_and_a_blind_one_has_none() -> None:
    """Judged by the checker itself, everything is exact; judged alike everywhere, nothing is told apart."""
    answered = []
    for problem in PROBLEMS:
        lines = lines_of(problem.solution)
        wrong = "\n".join([*lines[:1], f"{lines[1]}9", *lines[2:]])
        answered.append(
            Answered(
                problem=problem.text,
                facts=problem.facts(),
                group="all",
                solutions=(problem.solution, wrong),
            )
        )
    truth = {problem.text: lines_of(problem.solution) for problem in PROBLEMS}

    def knows(problem: str, solutions: list[list[str]]) -> list[list[float]]:
        return [[0.9 if line in truth[problem] else 0.1 for line in lines] for lines in solutions]

    known = evaluate_scorer(judge_all(knows, answered), 0.5)
    assert known["step_auc"] == {"value": 1.0, "ci95": [1.0, 1.0]}
    assert known["first_fault_found"]["value"] == known["judged_exactly"]["value"] == 1.0
    assert known["faulty_solutions"] == len(PROBLEMS)
    blind = judge_all(lambda _, solutions: [[0.7] * len(lines) for lines in solutions], answered)
    found = evaluate_scorer(blind, 0.5)
    assert found["step_auc"]["value"] == 0.5
    assert found["first_fault_found"]["value"] == 0.0
    assert found["judged_exactly"]["value"] == 0.5


def test_a_solution_does_not_become_right_again() -> None:
    """A line counts with the lowest score so far, and lines behind the first wrong one do not count."""
    problem = PROBLEMS[0]
    lines = lines_of(problem.solution)
    wrong = "\n".join([lines[0], f"{lines[1]}9", *lines[2:]])
    answered = [
        Answered(problem=problem.text, facts=problem.facts(), group="", solutions=(wrong, problem.solution))
    ]
    rising = [0.2 + 0.1 * at for at in range(len(lines))]
    first, second = judge_all(lambda _, texts: [rising[: len(text)] for text in texts], answered)
    assert first.faulty
    assert first.scores == (0.2, 0.2)
    assert second.scores == (0.2,) * len(lines)


def test_an_early_or_missed_alarm_is_not_exact() -> None:
    """Only an alarm at the first wrong line itself counts, and no alarm where nothing is wrong."""
    cases = [
        (judged((0.9, 0.1), faulty=True), True),
        (judged((0.1, 0.1), faulty=True), False),
        (judged((0.9, 0.9), faulty=True), False),
        (judged((0.9, 0.9), faulty=False), True),
        (judged((0.9, 0.1), faulty=False), False),
    ]
    for each, exact in cases:
        assert evaluate_scorer([each], 0.5)["judged_exactly"]["value"] == exact


def test_the_best_threshold_separates_what_can_be_separated() -> None:
    """With right lines above 0.8 and wrong ones below 0.7, it lies between."""
    rows = [judged((0.95, 0.85), faulty=False), judged((0.9, 0.68), faulty=True)]
    assert 0.68 < best_threshold(rows) <= 0.85


def test_calibration_undoes_overconfidence() -> None:
    """Scores whose log-odds are three times too large come back to the chances they were made from."""
    rng = np.random.default_rng(1)
    odds = rng.normal(1.0, 1.5, 20_000)
    good = rng.random(20_000) < 1 / (1 + np.exp(-odds))
    curve = fit_platt(1 / (1 + np.exp(-3 * odds)), good)
    assert curve.a == pytest.approx(1 / 3, abs=0.02)
    assert curve.b == pytest.approx(0.0, abs=0.05)
    rows = [
        judged((score,), faulty=not label, problem=at)
        for at, (score, label) in enumerate(
            zip((1 / (1 + np.exp(-odds[:500]))).tolist(), good[:500].tolist(), strict=True)
        )
    ]
    calibration = calibration_of(rows)
    assert calibration.auc is not None
    assert 0.7 < calibration.auc < 0.95
    assert calibration.n_steps == 500


@pytest.mark.parametrize("name", sorted(BUDGETS))
def test_stages_have_names_of_their_own_and_read_what_earlier_ones_write(name: str) -> None:
    """Both budgets run the same kinds of stages; files below the directory come from an earlier stage."""
    planned = list(stages(BUDGETS[name], Path("run")))
    assert len({stage.name for stage in planned}) == len(planned)
    written: set[str] = set()
    for stage in planned:
        arguments = list(stage.arguments)
        out = arguments[arguments.index("--out") + 1] if "--out" in arguments else None
        for argument in arguments:
            if argument.startswith("run/") and argument != out:
                assert any(
                    argument == made or argument.startswith(f"{made}/") or made.startswith(f"{argument}/")
                    for made in written
                ), stage
        if out is not None:
            written.add(out)
    assert f"run/{SCORER}.toml" in written
