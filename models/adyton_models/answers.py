# SPDX-License-Identifier: Apache-2.0
r"""Finds the final answer in a completion and compares it exactly, as a rational number where it is one.

Models say where their answer is in a few ways: a sentence (`The answer is: 7`), a box (`\boxed{7}`), or just the last
number. Completions come from a model and may be anything, so everything here is bounded, and what cannot be read is
no answer.

>>> extract_answer(r"Half of 3 is \boxed{\frac{3}{2}}.")
Answer(text='\\frac{3}{2}', source=<Source.BOXED: 'boxed'>)
>>> same_answer("1.5", r"\frac{3}{2}")
True
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Final

MAX_ANSWER_CHARACTERS: Final = 128
"""Longer answers are not compared as numbers, and not extracted as texts."""
MAX_COMPLETION_CHARACTERS: Final = 1_000_000
"""Of a longer completion, only the end is looked at."""

_INTEGER: Final = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
_NUMBER: Final = re.compile(
    # A sign is a sign only where it cannot be an operator: `10-3` ends in 3.
    rf"(?:(?<![\w)\]}}.])[-+]\s?)?[$€£]?(?:{_INTEGER}(?:\.[0-9]+)?|(?<!\w)\.[0-9]+)(?:\s?/\s?[0-9]+(?![0-9.]))?"
)
_DECLARED: Final = re.compile(r"\banswer(?:\s+is\b\s?:?|\s?[:=])", re.IGNORECASE)
_BOX: Final = re.compile(r"\\(?:boxed|fbox)\s?\{")
_FRACTION: Final = re.compile(r"(?P<sign>[-+]?)\\[dt]?frac\{(?P<above>[0-9,]+)\}\{(?P<below>[0-9,]+)\}")
_PLAIN: Final = re.compile(
    rf"(?P<sign>[-+]?)(?P<above>{_INTEGER}(?:\.[0-9]+)?|\.[0-9]+)(?:/(?P<below>[0-9]+))?"
)
_MIXED: Final = re.compile(r"(?P<sign>[-+]?)(?P<whole>[0-9]+)\s+(?P<above>[0-9]+)/(?P<below>[0-9]+)")
_DRESSING: Final = str.maketrans(
    {"\u2212": "-", "\u2013": "-", "$": None, "€": None, "£": None, "\u00a0": " "}
)
_EDGES: Final = " \t\r\n.,;:!?*_`'\"()[]"


class Source(StrEnum):
    """Where an answer stood."""

    DECLARED = "declared"
    BOXED = "boxed"
    LAST_NUMBER = "last number"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a completion says its answer is."""

    text: str
    source: Source


def extract_answer(completion: str, *, any_number: bool = True) -> Answer | None:
    """The final answer of a completion, or None when there is none.

    The last statement counts, be it a sentence or a box; without one, the last number.

    Args:
        completion: Anything.
        any_number: Take the last number where nothing was stated.
    """
    text = completion[-MAX_COMPLETION_CHARACTERS:]
    found = max(
        (each for each in (_declared(text), _boxed(text)) if each is not None),
        key=lambda each: each[0],
        default=None,
    )
    if found is not None:
        return found[1]
    numbers = [match.group() for match in _NUMBER.finditer(text)] if any_number else []
    return Answer(numbers[-1].strip(), Source.LAST_NUMBER) if numbers else None


def same_answer(expected: str, found: str) -> bool:
    """Whether two answers are one: equal as rational numbers, or else equal as texts, but for case and edges."""
    left, right = rational(expected), rational(found)
    if left is not None or right is not None:
        return left == right
    return _words(expected) == _words(found)


def rational(text: str) -> Fraction | None:
    r"""The exact value of `1,234`, `-2.50`, `3/4`, `1 1/2`, `\frac{3}{4}`, `$5` or `25%` (as 25); None for all else."""
    if len(text) > MAX_ANSWER_CHARACTERS:
        return None
    plain = text.translate(_DRESSING).replace(r"\%", "").replace("%", "").replace(r"\!", "")
    plain = re.sub(
        r"(?<=[-+])\s+|\s*(?=/)|(?<=/)\s*", "", plain.rstrip(_EDGES).lstrip(_EDGES.replace(".", ""))
    )
    for pattern in (_FRACTION, _PLAIN, _MIXED):
        match = pattern.fullmatch(plain)
        if match is not None:
            return _value(match.groupdict())
    return None


def _value(parts: dict[str, str | None]) -> Fraction | None:
    below = int((parts.get("below") or "1").replace(",", "") or "0")
    above = (parts["above"] or "").replace(",", "")
    if below == 0 or not above:
        return None
    value = Fraction(above) / below + int(parts.get("whole") or "0")
    return -value if parts["sign"] == "-" else value


def _declared(text: str) -> tuple[int, Answer] | None:
    statements = list(_DECLARED.finditer(text))
    if not statements:
        return None
    last = statements[-1]
    line = text[last.end() :].lstrip(" \t\n*:").partition("\n")[0][: 2 * MAX_ANSWER_CHARACTERS]
    number = _NUMBER.search(line)
    said = number.group() if number is not None else line.strip(_EDGES)
    if not said or len(said) > MAX_ANSWER_CHARACTERS:
        return None
    return last.start(), Answer(said.strip(), Source.DECLARED)


def _boxed(text: str) -> tuple[int, Answer] | None:
    boxes = list(_BOX.finditer(text))
    if not boxes:
        return None
    start = boxes[-1].end()
    depth = 1
    for position in range(start, min(len(text), start + MAX_ANSWER_CHARACTERS + 1)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            inside = text[start:position].strip()
            return (boxes[-1].start(), Answer(inside, Source.BOXED)) if inside else None
    return None


def _words(text: str) -> str:
    return " ".join(text.translate(_DRESSING).strip(_EDGES).casefold().split())
