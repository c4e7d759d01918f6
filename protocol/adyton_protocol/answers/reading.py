# SPDX-License-Identifier: Apache-2.0
"""From a candidate's text to its answer."""

import re
from collections.abc import Callable
from typing import Final

from adyton_protocol.answers import extraction
from adyton_protocol.answers.answer import Answer, Source
from adyton_protocol.answers.canonical import json_key, key_of
from adyton_protocol.answers.json_answer import Absent, Maybe, canonical_form, field_of, parsed
from adyton_protocol.answers.limits import MAX_ANSWER_CHARACTERS, MAX_TEXT_CHARACTERS
from adyton_protocol.answers.rule import AnswerRule, Equivalence
from adyton_protocol.answers.statement import statement_key

_Finder = Callable[[str], str | None]

_LIKE_JSON: Final = re.compile(r"[ \t\r\n]*(?:[\[{]|```)", re.ASCII)


def _whole(text: str) -> str:
    return text.strip(" \t\r\n")


_FINDERS: Final[dict[str, tuple[tuple[Source, _Finder], ...]]] = {
    "auto": (
        (Source.BOXED, extraction.last_box),
        (Source.STATED, extraction.last_statement),
        (Source.LAST_NUMBER, extraction.last_number),
    ),
    "auto choice": (
        (Source.BOXED, extraction.last_box),
        (Source.STATED, extraction.last_statement),
        (Source.LAST_CHOICE, extraction.last_option),
    ),
    "auto json": ((Source.WHOLE, _whole),),
    "field": (),
    "boxed": ((Source.BOXED, extraction.last_box),),
    "the-answer-is": ((Source.STATED, extraction.last_statement),),
    "last-number": ((Source.LAST_NUMBER, extraction.last_number),),
    "whole": ((Source.WHOLE, _whole),),
}


def read_answer(text: str, rule: AnswerRule) -> Answer | None:
    """The answer of a candidate, or None when it has none that can be read, so that it abstains.

    The first place where something is stated decides: what stands there and cannot be read is not made up for by a
    place that says less. Never raises, and takes time linear in the text.

    Args:
        text: As generated; attacker-controlled.
        rule: Where to look, and for what.
    """
    text = text[-MAX_TEXT_CHARACTERS:]
    if rule.field is not None:
        document = parsed(text)
        if not isinstance(document, Absent):
            return _in_field(field_of(document, rule.field), rule.equivalence)
        if _LIKE_JSON.match(text) is not None:
            # Cut off, or with two readings: its last number is nobody's answer.
            return None
    for source, find in _finders(rule):
        shown = find(text)
        if shown:
            return _answer(shown, source, rule.equivalence)
    return None


def _finders(rule: AnswerRule) -> tuple[tuple[Source, _Finder], ...]:
    return _FINDERS.get(f"{rule.extract} {rule.equivalence}", _FINDERS[rule.extract])


def _answer(shown: str, source: Source, equivalence: Equivalence) -> Answer | None:
    if source is Source.STATED:
        stated = statement_key(shown, equivalence)
        return None if stated is None else Answer(key=stated[0], shown=stated[1], source=source)
    key = key_of(shown, equivalence)
    return None if key is None else Answer(key=key, shown=shown[:MAX_ANSWER_CHARACTERS], source=source)


def _in_field(value: Maybe, equivalence: Equivalence) -> Answer | None:
    """The answer that a field is: its text, read like any other, or JSON."""
    if isinstance(value, Absent) or value is None:
        return None
    shown = value if isinstance(value, str) else canonical_form(value)
    if equivalence == "json" or (equivalence == "auto" and not isinstance(value, str)):
        key: str | None = json_key(value)
    elif isinstance(value, list | dict):
        key = None
    else:
        key = key_of(shown, equivalence)
    if key is None:
        return None
    return Answer(key=key, shown=str(shown)[:MAX_ANSWER_CHARACTERS], source=Source.FIELD)
