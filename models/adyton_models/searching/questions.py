# SPDX-License-Identifier: Apache-2.0
"""The problems that searches are measured on: as many as wanted of each mix, always the same ones."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from adyton_models.problem_sets import Question, from_task
from adyton_models.searching.measuring import Asked
from adyton_models.tasks import MIX, OUT_OF_DISTRIBUTION, Split, generate_mix

_SETS: Final = {
    # The first ones are those of the sets that ship; see `sets`.
    "heldout": (Split.TEST, MIX, 0),
    "ood": (Split.TEST, OUT_OF_DISTRIBUTION, 300_000),
    "validation": (Split.VALIDATION, MIX, 600_000),
}
_SEED: Final = 1
MOST: Final = 300_000


def drawn_questions(name: str, n: int) -> list[Asked]:
    """The first `n` problems of `heldout`, `ood` or `validation`; a larger `n` only appends some."""
    split, mix, first = _SETS[name]
    problems = generate_mix(split, _SEED, min(n, MOST), mix)
    return [
        Asked(id=f"{name}:{at}", number=first + at, question=from_task(problem, at))
        for at, problem in enumerate(problems, 1)
    ]


def asked_of(questions: Sequence[Question], *, any_number: bool, suffix: str = "") -> list[Asked]:
    """Problems of anybody's, numbered in their order.

    Args:
        questions: They.
        any_number: Accept the last number of a text that declares no answer.
        suffix: Text to put behind each problem.
    """
    return [
        Asked(
            id=question.id,
            number=at,
            question=replace(question, text=question.text + suffix),
            any_number=any_number,
        )
        for at, question in enumerate(questions, 1)
    ]
