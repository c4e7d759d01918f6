# SPDX-License-Identifier: Apache-2.0
"""The symbolic checker: accepts the truth, finds the first wrong step, survives any text."""

import re
from random import Random  # noqa: TID251 - reproducible data, no secret

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adyton_models.tasks import (
    Facts,
    Split,
    UnreadableProblemError,
    Verdict,
    check_answer,
    check_steps,
    generate,
    label_steps,
    parse_answer,
    read_problem,
)
from adyton_models.tasks.graph import MAX_STEPS, Operation
from adyton_models.tasks.render import draw

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


VARIANTS = (
    {},
    {"distractors": 1},
    {"distractors": 3},
    {"shuffle": True},
    {"distractors": 2, "shuffle": True},
)


@given(st.integers(0, 10**6), st.integers(1, MAX_STEPS), st.sampled_from(VARIANTS), st.sampled_from(Split))
def test_every_generated_problem_reads_back_and_its_solution_is_right_in_each_line(
    seed: int, steps: int, variant: dict[str, int], split: Split
) -> None:
    """Text and graph say the same, and the checker, given either, accepts each line of the solution."""
    problem = draw(Random(seed), split, steps, **variant)
    facts = read_problem(problem.text)
    assert facts == problem.facts()
    assert facts.values[facts.asked] == problem.answer == parse_answer(problem.solution)
    for given_as in (problem, facts, problem.text):
        assert set(label_steps(given_as, problem.solution)) == {True}
        assert check_answer(given_as, problem.solution)


def _still_true(facts: Facts, line: str, before: list[str]) -> bool:
    """Whether a changed line repeats a number that was given, or was derived before: equal by chance, so true."""
    found = re.fullmatch(r"([A-Z][a-z]+) = (\d+)", line)
    if found is None or facts.values.get(found[1]) != int(found[2]):
        return False
    given_number = facts.by_name[found[1]].operation is Operation.BASE
    return given_number or any(each.strip().startswith(f"{found[1]}:") for each in before)


@given(st.integers(0, 10**6), st.integers(1, 8), st.sampled_from(VARIANTS), st.data())
def test_any_single_changed_number_or_name_is_caught_in_its_line(
    seed: int, steps: int, variant: dict[str, int], data: st.DataObject
) -> None:
    """Whatever number or name of a solution is replaced, that line is no longer correct, unless it is still true."""
    problem = draw(Random(seed), Split.TEST, steps, **variant)
    lines = problem.solution.splitlines()
    at = data.draw(st.integers(0, len(lines) - 1))
    words = [found for found in re.finditer(r"\d+|[A-Z][a-z]+", lines[at]) if found.group() != "The"]
    word = data.draw(st.sampled_from(words))
    others = (
        st.sampled_from([*problem.names, "Ghost"])
        if word.group().isalpha()
        else st.integers(0, 999).map(str) | st.sampled_from([str(node.value) for node in problem.nodes])
    )
    other = data.draw(others.filter(lambda each: each != word.group()))
    changed = lines[at][: word.start()] + other + lines[at][word.end() :]
    verdict = check_steps(problem, "\n".join([*lines[:at], changed]))[at].verdict
    same = _still_true(problem.facts(), changed.strip(), lines[:at])
    assert (verdict is Verdict.CORRECT) == same
    labels = label_steps(problem, "\n".join([*lines[:at], changed, *lines[at + 1 :]]))
    assert labels[:at] == [True] * at
    assert set(labels[at:]) == {True} if same else not any(labels[at:])


@pytest.mark.parametrize(
    ("solution", "labels"),
    [
        (SOLUTION.replace(" The answer is: 42", ""), [True] * 3),
        (SOLUTION.replace(" Sam:", " Eva = 12\n Tom = 21\n Sam:"), [True] * 6),
        (SOLUTION.replace(" The", " Sam: Tom = 21, 21 x 2 = 42, Sam = 42\n The"), [True] * 5),
        (SOLUTION.replace(" Eva = 12\n", ""), [True] * 3),
        (SOLUTION.replace(" Tom: Eva = 12, 12 + 9 = 21, Tom = 21\n", ""), [True, False, False]),
        (SOLUTION.replace(" Tom: Eva = 12, 12 + 9 = 21, Tom", " Tom"), [True, False, False, False]),
        (SOLUTION.replace("Eva = 12, 12", "Eva = 12, Eva = 12, 12"), [True, False, False, False]),
        (SOLUTION.replace("Tom: Eva = 12, 12", "Tom: Eva = 13, Eva = 12, 12"), [True, False, False, False]),
        (SOLUTION + "\n\n The answer is: 41", [True] * 4 + [False]),
        (" The answer is: 42", [True]),
        ("", []),
    ],
    ids=[
        "unfinished",
        "repeated",
        "derived twice",
        "given number not restated",
        "skipped derivation",
        "conjured value",
        "look-up twice",
        "contradicting look-ups",
        "second answer",
        "bare answer",
        "empty",
    ],
)
def test_unusual_solutions_have_defined_labels(solution: str, labels: list[bool]) -> None:
    """Longer than needed is fine, a value from nowhere is not, and an answer that is not there is no step."""
    assert label_steps(PROBLEM, solution) == labels


def test_lines_about_people_nobody_needs_are_correct() -> None:
    """A true line stays true when the answer does not depend on it."""
    text = PROBLEM.replace("How", "Kim has 5 pears. Leo has half as many pears as Tom. How")
    facts = read_problem(text.replace("Eva has 12", "Eva has 13"))
    extra = " Kim = 5\n Leo: Tom = 22, 22 / 2 = 11, Leo = 11\n"
    solution = " Eva = 13\n Tom: Eva = 13, 13 + 9 = 22, Tom = 22\n" + extra
    assert label_steps(facts, solution) == [True] * 4


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
