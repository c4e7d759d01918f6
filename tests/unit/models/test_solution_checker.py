# SPDX-License-Identifier: Apache-2.0
"""The symbolic checker: accepts the truth, finds the first wrong step, survives any text."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adyton_models.tasks import (
    UnreadableProblemError,
    Verdict,
    check_answer,
    check_steps,
    generate,
    parse_answer,
    read_problem,
)

PROBLEM = (
    "Eva has 12 pears. Tom has 9 more pears than Eva. Sam has twice as many pears as Tom. "
    "How many pears does Sam have?"
)
SOLUTION = """ Eva = 12
 Tom: Eva = 12, 12 + 9 = 21, Tom = 21
 Sam: Tom = 21, 21 x 2 = 42, Sam = 42
 The answer is: 42"""


@pytest.mark.parametrize("variant", [{}, {"distractors": 2}, {"shuffle": True}])
def test_generated_solutions_are_correct_in_every_line(variant: dict[str, int]) -> None:
    """What the generator calls a solution, the checker, which knows only texts, agrees with."""
    for problem in generate("train", 11, 150, (1, 2, 3, 4, 5, 6), **variant):
        steps = check_steps(problem.text, problem.solution)
        assert {step.verdict for step in steps} == {Verdict.CORRECT}
        assert check_answer(problem.text, problem.solution)
        assert check_answer(problem, problem.solution)


@pytest.mark.parametrize(
    ("right", "wrong", "line", "verdict"),
    [
        ("Eva = 12\n", "Eva = 13\n", 0, Verdict.WRONG_LOOKUP),
        ("Eva = 12\n", "Eve = 12\n", 0, Verdict.UNKNOWN_NAME),
        ("Eva = 12,", "Eva = 14,", 1, Verdict.WRONG_LOOKUP),
        ("Tom: Eva = 12", "Tom: Sam = 12", 1, Verdict.WRONG_RELATION),
        ("12 + 9 = 21", "12 - 9 = 3", 1, Verdict.WRONG_RELATION),
        ("12 + 9 = 21", "12 + 8 = 20", 1, Verdict.WRONG_RELATION),
        ("12 + 9 = 21", "12 + 9 = 22", 1, Verdict.WRONG_ARITHMETIC),
        (", Tom = 21\n", ", Tom = 12\n", 1, Verdict.WRONG_VALUE),
        (", Tom = 21\n", ", Sam = 21\n", 1, Verdict.UNKNOWN_NAME),
        ("Sam: Tom = 21, 21 x 2", "Sam: 21 x 2", 2, Verdict.UNREADABLE),
        ("is: 42", "is: 43", 3, Verdict.WRONG_VALUE),
    ],
)
def test_each_kind_of_fault_is_named_where_it_stands(
    right: str, wrong: str, line: int, verdict: Verdict
) -> None:
    """A corrupted line gets its own verdict and leaves the other lines' verdicts alone."""
    assert right in SOLUTION
    steps = check_steps(PROBLEM, SOLUTION.replace(right, wrong, 1))
    assert [step.verdict for step in steps] == [
        verdict if index == line else Verdict.CORRECT for index in range(4)
    ]


def test_any_changed_number_is_caught() -> None:
    """Whichever number of a solution is changed, some line is no longer correct."""
    for problem in generate("test", 13, 25):
        for found in re.finditer(r"\d+", problem.solution):
            changed = (
                problem.solution[: found.start()]
                + str(int(found.group()) + 1)
                + problem.solution[found.end() :]
            )
            assert any(step.verdict is not Verdict.CORRECT for step in check_steps(problem, changed))


def test_sums_and_products_may_be_written_either_way_round() -> None:
    """Commuted operands are right for + and x, and wrong for -."""
    swapped = SOLUTION.replace("12 + 9", "9 + 12").replace("21 x 2", "2 x 21")
    assert {step.verdict for step in check_steps(PROBLEM, swapped)} == {Verdict.CORRECT}


def test_the_last_stated_answer_counts() -> None:
    """A model that corrects itself is judged by what it says last."""
    assert parse_answer("The answer is: 3\nThe answer is: 42") == 42
    assert parse_answer("42") is None
    assert parse_answer("The answer is: 1234567") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Hello.",
        "How many pears does Sam have?",
        "Eva has 12 pears. Eva has 13 pears. How many pears does Eva have?",
        "Eva has 12 pears. How many pears does Tom have?",
        "Eva has 9 more pears than Tom. Tom has 9 more pears than Eva. How many pears does Tom have?",
        "Eva has 9 more pears than Ghost. How many pears does Eva have?",
        "Eva has 12 pears. Why?",
        "Eva has 12 pears. " * 1000,
    ],
)
def test_what_is_no_problem_is_refused(text: str) -> None:
    """Texts outside the task raise, and are never solved by guessing."""
    with pytest.raises(UnreadableProblemError):
        read_problem(text)


@given(st.text())
@example("The answer is: \u0664\u0662")
@example("The answer is: 42")
def test_the_answer_parser_takes_any_text(completion: str) -> None:
    """Any completion yields a number it really states, or none; only ASCII digits are digits."""
    answer = parse_answer(completion)
    if answer is not None:
        assert re.search(rf"The answer is: 0*{answer}(?![0-9])", completion)


@given(st.text(alphabet=st.sampled_from("EvaTomSam =:,+-x/0123456789\n"), max_size=200))
def test_the_step_checker_takes_any_text(completion: str) -> None:
    """Any completion gets one verdict for each line that is not blank."""
    steps = check_steps(PROBLEM, completion)
    assert len(steps) == sum(1 for line in completion.splitlines() if line.split())


@given(st.text(max_size=300))
def test_the_problem_reader_takes_any_text(text: str) -> None:
    """Any text is either a problem with a value for the asked name, or refused with the one error."""
    try:
        facts = read_problem(text)
    except UnreadableProblemError:
        return
    assert facts.asked in facts.values
