# SPDX-License-Identifier: Apache-2.0
r"""Whether what a completion answers is the answer of the problem. Answers are read as the enclave reads them.

A reference tells which kind of answer is meant: where it is a bare number, the unit of a completion's number does not
count, and the other way round.

>>> found = find_answer(r"Half of 3 is \boxed{\frac{3}{2}} km.")
>>> same_answer("1.5", found)
True
"""

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from adyton_protocol.answers import Answer, AnswerRule, classes, read_answer

Same: TypeAlias = Callable[[str, Answer], bool]
"""Whether a reference and an answer that was found are one; deterministic."""

_STATED: Final = AnswerRule()
_WHOLE: Final = AnswerRule(extract="whole")
_NUMBER: Final = AnswerRule(extract="whole", equivalence="number")
_BARE: Final = "number:"


def find_answer(completion: str, *, any_number: bool = True) -> Answer | None:
    """The answer of a completion, or None when there is none.

    Args:
        completion: Anything.
        any_number: Take the last number where nothing was stated.
    """
    found = read_answer(completion, _STATED)
    return None if found is not None and found.guessed and not any_number else found


def same_answer(expected: str, found: Answer) -> bool:
    """Whether an answer is the reference: of the same class, or the same number where one of them has no unit."""
    wanted = read_answer(expected, _WHOLE)
    if wanted is None:
        return False
    if wanted.key == found.key or not (wanted.key.startswith(_BARE) or found.key.startswith(_BARE)):
        return wanted.key == found.key
    numbers = [read_answer(text, _NUMBER) for text in (expected, found.shown)]
    return numbers[0] is not None and numbers[1] is not None and numbers[0].key == numbers[1].key


def right_answers(
    expected: str, answers: Sequence[Answer | None], same: Same = same_answer
) -> tuple[bool, ...]:
    """Which answers to one problem are right. One of each class is compared, since comparing may be slow.

    Args:
        expected: The reference.
        answers: None is no answer, and wrong.
        same: How to compare.
    """
    right = {
        place
        for each in classes(answers)
        if (first := answers[each.members[0]]) is not None and same(expected, first)
        for place in each.members
    }
    return tuple(place in right for place in range(len(answers)))
