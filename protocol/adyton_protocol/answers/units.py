# SPDX-License-Identifier: Apache-2.0
"""What stands behind a number: nothing, a percent sign, a unit, or what is counted.

What is counted, apples or dollars, is left out: a problem asks for one thing, and its answers differ in the number.
What scales the number, a kilometre against a metre, cents against dollars, percent against parts of one, stays in the
key, and nothing is ever converted. What is not understood makes the whole answer a text.
"""

import re
from dataclasses import dataclass
from typing import Final

from adyton_protocol.answers.unit_names import ALIASES, NAMES, NOT_COUNTED, PREPOSITION, SYMBOLS

_PERCENT: Final = re.compile(r" ?(?:%|(?:percent|per cent|pct)(?![A-Za-z]))", re.ASCII | re.IGNORECASE)
_POWERS_BEFORE: Final = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_POWERS_BEHIND: Final = {"squared": 2, "cubed": 3}
_MAX_FACTORS: Final = 8
_UNIT_WORD: Final = re.compile("[A-Za-z\u00b0\u03bc\u03a9\u03c9\u00a2]+")
_DEGREES_OF: Final = re.compile(r" ?(?:(C|[Cc]elsius)|(F|[Ff]ahrenheit))(?![A-Za-z])", re.ASCII)
_UNIT_POWER: Final = re.compile(r"\^\{?(-?[0-9])\}?", re.ASCII)
_UNIT_JOINT: Final = re.compile(" ?(/|\u00d7|per(?= )) ?")
_LETTER: Final = "[A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u02af\u0370-\u1fff\u3040-\ud7ff\uf900-\ufdff]"
_COUNTED: Final = re.compile(
    rf" (?:{_LETTER}{{2,}}(?:['-]{_LETTER}+)?)(?: {_LETTER}{{2,}}(?:['-]{_LETTER}+)?){{0,4}}"
)


@dataclass(frozen=True, slots=True)
class Tail:
    """What stands behind a number.

    Attributes:
        unit: One spelling of the unit; ``%``; empty for a bare or counted number.
    """

    unit: str


def tail(text: str) -> Tail | None:
    """What stands behind a number, or None for what is neither a unit nor counted things.

    Args:
        text: The settled text from the end of the number on.
    """
    if not text:
        return Tail("")
    percent = _PERCENT.match(text)
    if percent is not None:
        return Tail("%") if _nothing_but_words(text[percent.end() :]) else None
    spaced = text.startswith(" ")
    unit, end = _unit(text, 1 if spaced else 0)
    if unit is not None and (unit != PREPOSITION or end == len(text)):
        return Tail(unit) if _nothing_but_words(text[end:]) else None
    return Tail("") if spaced and _nothing_but_words(text) else None


def _nothing_but_words(text: str) -> bool:
    """Whether the rest names things or says where and when, without a number, an operation or another unit."""
    if not text:
        return True
    if _COUNTED.fullmatch(text) is None:
        return False
    words = text.replace("-", " ").split()
    return all(
        word.lower() not in NOT_COUNTED and (word == PREPOSITION or _base(word) is None) for word in words
    )


def _unit(text: str, at: int) -> tuple[str | None, int]:
    """The unit that begins at a place, in its one spelling, and where it ends."""
    first, end = _factor(text, at)
    if first is None:
        return None, at
    factors = [first]
    while (joint := _UNIT_JOINT.match(text, end)) is not None and len(factors) < _MAX_FACTORS:
        further, after = _factor(text, joint.end())
        if further is None:
            break
        factors += ["\u00d7" if joint[1] == "\u00d7" else "/", further]
        end = after
    return "".join(factors), end


def _factor(text: str, at: int) -> tuple[str | None, int]:
    word = _UNIT_WORD.match(text, at)
    if word is None:
        return None, at
    power = _POWERS_BEFORE.get(word.group().lower())
    if power is not None:
        word = _UNIT_WORD.match(text, word.end() + 1)
        if word is None:
            return None, at
    base, end = _spelled(text, word)
    if base is None:
        return None, at
    if power is None:
        power, end = _power_behind(text, end)
    return (base if power == 1 else f"{base}^{power}"), end


def _spelled(text: str, word: re.Match[str]) -> tuple[str | None, int]:
    """A base unit; `degrees Celsius` is the one that has two words."""
    base = _base(word.group())
    if base == "\u00b0":
        scale = _DEGREES_OF.match(text, word.end())
        if scale is not None:
            return "\u00b0C" if scale[1] else "\u00b0F", scale.end()
    return base, word.end()


def _power_behind(text: str, at: int) -> tuple[int, int]:
    raised = _UNIT_POWER.match(text, at)
    if raised is not None:
        return int(raised[1]), raised.end()
    word = _UNIT_WORD.match(text, at + 1) if text.startswith(" ", at) else None
    power = _POWERS_BEHIND.get(word.group().lower()) if word is not None else None
    return (1, at) if word is None or power is None else (power, word.end())


def _base(word: str) -> str | None:
    """The one spelling of a unit without powers, or None for a word that is no unit."""
    if word in SYMBOLS:
        return word
    name = word.lower()
    for spelling in (word, name):
        if spelling in ALIASES:
            return ALIASES[spelling]
    return NAMES.get(name) or NAMES.get(name.removesuffix("s"))
