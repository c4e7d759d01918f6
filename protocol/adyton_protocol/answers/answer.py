# SPDX-License-Identifier: Apache-2.0
"""An answer that was read, and the classes that equal answers form."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum


class Source(StrEnum):
    """Where in a candidate's text its answer stood, surest first."""

    FIELD = "field"
    BOXED = "boxed"
    STATED = "the-answer-is"
    WHOLE = "whole"
    LAST_CHOICE = "last-choice"
    """The last option letter in brackets: nothing was stated, so this is a guess."""
    LAST_NUMBER = "last-number"
    """The last number of the text: nothing was stated, so this is a guess."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a candidate says its answer is.

    Attributes:
        key: The class: two answers are equal exactly when their keys are. A kind, a colon and the canonical form,
            such as ``number:7/2``; at most ``limits.MAX_KEY_CHARACTERS`` characters.
        shown: The answer as it was written; no part of the class, and as confidential as the text it came from.
        source: Where it stood.
    """

    key: str = field(repr=False)
    shown: str = field(repr=False)
    source: Source

    @property
    def guessed(self) -> bool:
        """Whether the candidate stated no answer, and this is only the last thing that could be one."""
        return self.source in {Source.LAST_CHOICE, Source.LAST_NUMBER}


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerClass:
    """Answers that are equal.

    Attributes:
        key: Theirs.
        members: Their places in what was grouped, ascending.
    """

    key: str = field(repr=False)
    members: tuple[int, ...]


def classes(answers: Iterable[Answer | None]) -> tuple[AnswerClass, ...]:
    """Group answers by class, in one pass.

    Args:
        answers: In the order of their candidates; None, for a candidate without an answer, joins no class.

    Returns:
        The classes in the order of their first members.
    """
    members: dict[str, list[int]] = {}
    for place, answer in enumerate(answers):
        if answer is not None:
            members.setdefault(answer.key, []).append(place)
    return tuple(AnswerClass(key=key, members=tuple(places)) for key, places in members.items())
