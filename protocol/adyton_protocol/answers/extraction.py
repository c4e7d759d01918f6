# SPDX-License-Identifier: Apache-2.0
r"""Where in a candidate's text its answer stands.

Each function looks for one way to say so, in time linear in the text, and gives what it found as it was written.
Texts come from a model and may be anything.

Expressions here are ASCII only: what ``\s`` or ``\b`` mean for the rest of Unicode depends on Python's version.
"""

import re
from typing import Final

from adyton_protocol.answers.limits import MAX_ANSWER_CHARACTERS

_BRACE: Final = re.compile(r"\\(?:boxed|fbox)[ \t]*\{|\\.|[{}]", re.ASCII | re.DOTALL)
_STATEMENT: Final = re.compile(
    r"(?<![A-Za-z])answers?(?:[ \t*_]{1,4}(?:is|are)(?![A-Za-z])|[ \t*_]{0,4}[:=])", re.ASCII | re.IGNORECASE
)
_BEFORE_ANSWER: Final = re.compile(r"(?:[ \t\r\n*_:=]|\\[\[(]|\$\$){0,64}", re.ASCII)
_BOX_OPEN: Final = re.compile(r"\\(?:boxed|fbox)[ \t]*\{", re.ASCII)
_NUMBER: Final = re.compile(
    # A sign is a sign only where it cannot be an operator: `10-3` ends in 3.
    r"(?:(?<![\w)\]}.])[-+\u2212] ?)?\\?[$\u20ac\u00a3]?(?:[0-9]{1,9} (?=[0-9]{1,9} ?/ ?[0-9]))?"
    r"(?:(?:[0-9]{1,9} ?)?\\[dtc]?frac ?(?:\{[^{}]{1,64}\}|[0-9]) ?(?:\{[^{}]{1,64}\}|[0-9])"
    r"|(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|(?<!\w)\.[0-9]+)"
    r"(?:[eE][-+]?[0-9]{1,4}(?!\w)|(?: ?(?:[\u00d7x*]|\\times|\\cdot) ?10)?\^(?:\{-?[0-9]{1,4}\}|-?[0-9]{1,4}))?"
    r"(?: ?/ ?[0-9]+(?![0-9.]))?)"
    r"(?: ?\\?%| (?:hundred|thousand|[mbtr]{1,2}illion)(?![A-Za-z]))?",
    re.ASCII,
)
_OPTION: Final = re.compile(r"\(([A-J])\)", re.ASCII)


def last_box(text: str) -> str | None:
    r"""What stands in the ``\boxed{}`` that begins last, of those that are closed and short enough.

    A stack of all braces, so that a megabyte of them is read once.
    """
    opened: list[int | None] = []
    best_start, best = -1, None
    for found in _BRACE.finditer(text):
        mark = found.group()
        if mark == "}":
            start = opened.pop() if opened else None
            if start is not None and best_start < start and found.start() - start <= MAX_ANSWER_CHARACTERS:
                best_start, best = start, text[start : found.start()]
        elif mark == "{":
            opened.append(None)
        elif _BOX_OPEN.match(mark):
            opened.append(found.end())
    return best


def last_statement(text: str) -> str | None:
    """The line behind the last "the answer is" or "answer:" that says something."""
    for found in reversed(list(_STATEMENT.finditer(text))):
        skipped = _BEFORE_ANSWER.match(text, found.end())
        start = found.end() if skipped is None else skipped.end()
        line = text[start : start + MAX_ANSWER_CHARACTERS].partition("\n")[0].strip(" \t\r*_")
        line = line if line.endswith("...") else line.rstrip(". ")
        if line:
            return line
    return None


def numbers(text: str) -> list[str]:
    """All numbers of a text, in order, as written, with sign, currency and percent sign."""
    return [found.group().strip() for found in _NUMBER.finditer(text)]


def last_number(text: str) -> str | None:
    """The last number of a text, or None."""
    last = None
    for last in _NUMBER.finditer(text):  # noqa: B007 - the last one is what is wanted
        pass
    return None if last is None else last.group().strip()


def last_option(text: str) -> str | None:
    """The last option letter in brackets, such as ``(B)``, or None."""
    last = None
    for last in _OPTION.finditer(text):  # noqa: B007 - the last one is what is wanted
        pass
    return None if last is None else last.group()
