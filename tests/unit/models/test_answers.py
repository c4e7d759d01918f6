# SPDX-License-Identifier: Apache-2.0
"""Finding a final answer in what a model wrote, and comparing it exactly."""

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton_models.answers import MAX_COMPLETION_CHARACTERS, extract_answer, rational, same_answer
from adyton_models.tasks import generate, parse_answer


@pytest.mark.parametrize(
    ("completion", "text", "source"),
    [
        (" Eva = 12\n The answer is: 21", "21", "declared"),
        ("The answer is 3. Wait. The answer is: 4 pears.", "4", "declared"),
        ("**Final answer:** 1,234.50", "1,234.50", "declared"),
        ("The answer is Paris.", "Paris", "declared"),
        (r"So \boxed{\frac{3}{4}}.", r"\frac{3}{4}", "boxed"),
        (r"The answer is \boxed{7}.", "7", "boxed"),
        (r"\boxed{1} was wrong. The answer is 2", "2", "declared"),
        (r"The answer is 1, no: \boxed{2}", "2", "boxed"),
        ("12 + 9 = 21 pears", "21", "last number"),
        ("It fell by -3.5", "-3.5", "last number"),
        ("10-3", "3", "last number"),
        ("$5", "$5", "last number"),
        ("about .5", ".5", "last number"),
    ],
)
def test_the_last_statement_counts_and_else_the_last_number(completion: str, text: str, source: str) -> None:
    """A sentence or a box states an answer; the later one wins; without either it is the last number."""
    found = extract_answer(completion)
    assert found is not None
    assert (found.text, found.source) == (text, source)


@pytest.mark.parametrize(
    "completion", ["", "no idea", r"\boxed{", r"\boxed{}", "The answer is:", "The answer is\n\n"]
)
def test_a_text_without_an_answer_has_none(completion: str) -> None:
    """Nothing is made up where nothing was stated."""
    assert extract_answer(completion) is None


def test_a_number_that_was_not_declared_can_be_left_out() -> None:
    """An unfinished solution of ours is not right by accident."""
    assert extract_answer("Eva = 12", any_number=False) is None


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("1.5", "3/2"), ("1.5", r"\frac{3}{2}"), ("1.5", "1 1/2"), ("1,000", "1000.00"), ("-2", "\u22122"),
        ("25%", "25"), ("$5", "5"), ("0.1", "1/10"), ("Paris", " paris. "), ("007", "7"), (".5", "1/2"),
    ],
)  # fmt: skip
def test_equal_values_are_one_answer(left: str, right: str) -> None:
    """Spelling does not matter, and no rounding takes part."""
    assert same_answer(left, right)
    assert same_answer(right, left)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("0.1", "0.10000000000000001"),
        ("7", "8"),
        ("7", "seven"),
        ("1/0", "1"),
        ("Paris", "Rome"),
        ("3", "-3"),
    ],
)
def test_other_values_are_other_answers(left: str, right: str) -> None:
    """However near they are."""
    assert not same_answer(left, right)


@given(st.fractions())
def test_every_fraction_is_read_exactly(value: Fraction) -> None:
    """What Python writes for a fraction is read back as the same number."""
    text = str(value)
    assert rational(text) == (value if len(text) <= 128 else None)


@given(st.text(max_size=200), st.text(max_size=200))
def test_any_text_is_judged_without_an_error(completion: str, expected: str) -> None:
    """Completions may be anything; an answer that was found equals itself."""
    found = extract_answer(completion)
    if found is not None:
        assert same_answer(found.text, found.text)
        assert len(found.text) <= len(completion)
        same_answer(expected, found.text)


@pytest.mark.parametrize("piece", ["answer is ", r"\boxed{", "1,234", "{", "-", "9", " ", "1/", "\\frac{1}{"])
def test_long_texts_take_linear_time(piece: str) -> None:
    """No text of a megabyte makes an expression backtrack for long."""
    started = time.process_time()
    extract_answer(piece * (MAX_COMPLETION_CHARACTERS // len(piece)))
    assert time.process_time() - started < 10.0


def test_solutions_of_the_task_are_read_like_its_checker_reads_them() -> None:
    """On our own solutions, cut anywhere, the extractor and the checker agree."""
    for problem in generate("test", 3, 40, (2, 4)):
        for end in range(0, len(problem.solution) + 1, 7):
            text = problem.solution[:end]
            found, expected = extract_answer(text, any_number=False), parse_answer(text)
            assert (None if found is None else found.text) == (None if expected is None else str(expected))
