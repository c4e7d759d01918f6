# SPDX-License-Identifier: Apache-2.0
"""From a candidate's text to its answer."""

from collections.abc import Callable, Iterator
from typing import Final

from adyton_protocol.answers import extraction
from adyton_protocol.answers.answer import Answer, Source
from adyton_protocol.answers.canonical import key_of
from adyton_protocol.answers.limits import MAX_TEXT_CHARACTERS
from adyton_protocol.answers.rule import AnswerRule, Extract

_FINDERS: Final[dict[Extract, tuple[tuple[Source, Callable[[str], str | None]], ...]]] = {
    "auto": (
        (Source.BOXED, extraction.last_box),
        (Source.STATED, extraction.last_statement),
        (Source.LAST_NUMBER, extraction.last_number),
    ),
    "boxed": ((Source.BOXED, extraction.last_box),),
    "the-answer-is": ((Source.STATED, extraction.last_statement),),
    "last-number": ((Source.LAST_NUMBER, extraction.last_number),),
    "whole": ((Source.WHOLE, lambda text: text.strip(" \t\r\n")),),
}


def read_answer(text: str, rule: AnswerRule) -> Answer | None:
    """The answer of a candidate, or None when it has none that can be read, so that it abstains.

    The first place where something is stated decides: what stands there and cannot be read is not made up for by a
    place that says less. Never raises.

    Args:
        text: As generated; attacker-controlled.
        rule: Where to look, and for what.
    """
    for source, shown in _found(text[-MAX_TEXT_CHARACTERS:], rule):
        key = key_of(shown, rule.equivalence)
        return None if key is None else Answer(key=key, shown=shown, source=source)
    return None


def _found(text: str, rule: AnswerRule) -> Iterator[tuple[Source, str]]:
    for source, find in _FINDERS.get(rule.extract, ()):
        shown = find(text)
        if shown:
            yield source, shown
