# SPDX-License-Identifier: Apache-2.0
"""Marking: whether what a completion answers is the answer of the problem."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton_models.answers import find_answer, right_answers, same_answer
from adyton_models.tasks import generate, parse_answer
from adyton_protocol.answers import Answer


def answered(text: str) -> Answer:
    """An answer, as a completion states it."""
    found = find_answer(rf"So it is \boxed{{{text}}}.")
    assert found is not None
    return found


def test_a_number_that_was_not_declared_can_be_left_out() -> None:
    """An unfinished solution of ours is not right by accident."""
    assert find_answer("Eva = 12", any_number=False) is None
    guess = find_answer("Eva = 12")
    assert guess is not None
    assert guess.guessed
    assert find_answer("The answer is: 12", any_number=False) is not None


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        ("1.5", "3/2"), ("1.5", r"\frac{3}{2}"), ("1.5", "1 1/2"), ("1,000", "1000.00"), ("-2", "\u22122"),
        ("25%", "25"), ("25", "25%"), ("$5", "5"), ("5", "5 dollars"), ("12", "12 km"), ("12 km", "12"),
        ("0.1", "1/10"), ("Paris", " paris. "), ("007", "7"), (".5", "1/2"), ("B", "(B)"), ("{1,2}", r"\{2, 1\}"),
    ],
)  # fmt: skip
def test_equal_answers_are_right(expected: str, found: str) -> None:
    """Spelling does not matter, no rounding takes part, and a bare reference asks for the number alone."""
    assert same_answer(expected, answered(found))


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        ("0.1", "0.10000000000000001"), ("7", "8"), ("7", "seven"), ("1/0", "1"), ("Paris", "Rome"), ("3", "-3"),
        ("12 km", "12 m"), ("50%", "50 km"), ("0.5", "50%"), ("(1,2)", "(2,1)"), ("B", "(C)"),
        ("x" * 600, "7"), ("", "7"),
    ],
)  # fmt: skip
def test_other_answers_are_wrong(expected: str, found: str) -> None:
    """However near they are; and nothing equals a reference that cannot be read."""
    assert not same_answer(expected, answered(found))


@given(st.fractions(), st.fractions())
def test_fractions_are_equal_when_their_values_are(one: Fraction, other: Fraction) -> None:
    """What Python writes for a fraction is read back as the same number."""
    assert same_answer(str(one), answered(str(one)))
    assert same_answer(str(one), answered(str(other))) == (one == other)


def test_one_of_each_class_is_compared() -> None:
    """However many completions there are, and the others share its verdict."""
    compared: list[tuple[str, str]] = []

    def same(expected: str, found: Answer) -> bool:
        compared.append((expected, found.shown))
        return same_answer(expected, found)

    answers = [answered("2"), None, answered("3"), answered("4/2"), answered("3.0"), answered("2.00")]
    assert right_answers("2", answers, same) == (True, False, False, True, False, True)
    assert compared == [("2", "2"), ("2", "3")]


def test_solutions_of_the_task_are_read_like_its_checker_reads_them() -> None:
    """On our own solutions, cut anywhere, the extractor and the checker agree."""
    for problem in generate("test", 3, 40, (2, 4)):
        for end in range(0, len(problem.solution) + 1, 7):
            text = problem.solution[:end]
            found, expected = find_answer(text, any_number=False), parse_answer(text)
            assert (None if found is None else found.key) == (
                None if expected is None else f"number:{expected}"
            )
