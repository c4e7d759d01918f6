# SPDX-License-Identifier: Apache-2.0
r"""Numbers as exact rationals: no floating point and no rounding takes part.

Read are integers (with or without separators of thousands), decimals (repeating ones with a bar), powers and scientific
notation, fractions of all these in one line or as ``\frac``, mixed numbers, and "million" and the like. Sizes are
bounded before anything is computed. No other arithmetic is done: ``3+4`` is no number.
"""

import re
from fractions import Fraction
from typing import Final

from adyton_protocol.answers.limits import MAX_DIGITS, MAX_EXPONENT, MAX_NESTING, MAX_NUMBER_BITS

_LITERAL: Final = re.compile(
    r"(?P<whole>[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9])|[1-9][0-9]{0,2}(?: [0-9]{3})+(?![0-9]| ?/)|[0-9]+)?"
    r"(?:\.(?P<part>[0-9]*)(?:\\overline ?\{?(?P<repeats>(?<=\{)[0-9]+(?=\})|(?<!\{)[0-9])\}?)?)?",
    re.ASCII,
)
_E_NOTATION: Final = re.compile(r"[eE]([-+]?[0-9]{1,4})(?![0-9A-Za-z.])", re.ASCII)
_TEN_NOTATION: Final = re.compile(" ?[\u00d7xX*] ?10(?=\\^)")
_EXPONENT: Final = re.compile(
    r" ?\^ ?(?:\{ ?([-+]?[0-9]{1,4}) ?\}|\( ?([-+]?[0-9]{1,4}) ?\)|([-+]?[0-9]{1,4}))(?![0-9.])", re.ASCII
)
_SCALE: Final = re.compile(
    r" ?(hundred|thousand|million|billion|trillion)s?(?![A-Za-z])", re.ASCII | re.IGNORECASE
)
_SCALES: Final = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SIGN: Final = re.compile("([-+]?) ?[\u20ac\u00a3\u00a5\u20b9]? ?([-+]?)")
"""A sign on either side of a currency; the dollar is gone by then, since LaTeX means another thing by it."""
_SLASH: Final = re.compile(r" ?/ ?")
_FRAC: Final = re.compile(r"\\frac ?")
_SPACED_FRAC: Final = re.compile(r" ?\\frac ?")
_DIGITS_ONLY: Final = re.compile(rf"[0-9]{{1,{MAX_DIGITS}}}", re.ASCII)
_SPACED_FRACTION: Final = re.compile(
    rf" ([0-9]{{1,{MAX_DIGITS}}}) ?/ ?([0-9]{{1,{MAX_DIGITS}}})(?![0-9.^]| ?/)", re.ASCII
)


def number_at_start(text: str) -> tuple[Fraction, int] | None:
    """The number that a settled text begins with, and where it ends; None when it begins with none.

    Args:
        text: Settled, and so at most ``MAX_ANSWER_CHARACTERS`` long.
    """
    try:
        return _signed(text, 0, 0)
    except _NoNumberError:
        return None


def number(text: str) -> Fraction | None:
    """The number that a settled text is, or None."""
    found = number_at_start(text)
    return found[0] if found is not None and found[1] == len(text) else None


def spelled(value: Fraction) -> str:
    """The one spelling of a rational: ``-7/2``, in lowest terms, without a denominator of 1."""
    return str(value)


class _NoNumberError(Exception):
    """What stands here is no number."""


def _signed(text: str, at: int, depth: int) -> tuple[Fraction, int]:
    if depth > MAX_NESTING:
        raise _NoNumberError
    sign = _SIGN.match(text, at)
    if sign is None or (sign[1] and sign[2]):
        raise _NoNumberError
    value, at = _quotient(text, sign.end(), depth)
    return -value if "-" in sign[1] + sign[2] else value, at


def _quotient(text: str, at: int, depth: int) -> tuple[Fraction, int]:
    """A factor, or one over another, or a mixed number."""
    value, end = _factor(text, at, depth)
    mixed = _mixed(text, at, end, depth)
    if mixed is not None:
        return mixed
    slash = _SLASH.match(text, end)
    if slash is None:
        scale = _SCALE.match(text, end)
        return (_scaled(value, _SCALES[scale[1].lower()]), scale.end()) if scale else (value, end)
    below, end = _factor(text, slash.end(), depth)
    if below == 0 or _SLASH.match(text, end) is not None:
        raise _NoNumberError
    return _bounded(value / below), end


def _mixed(text: str, at: int, end: int, depth: int) -> tuple[Fraction, int] | None:
    r"""``3 1/2`` or ``3\frac{1}{2}``: a whole number in digits, then a proper fraction."""
    if _DIGITS_ONLY.fullmatch(text, at, end) is None:
        return None
    whole = int(text[at:end])
    spaced = _SPACED_FRACTION.match(text, end)
    frac = _SPACED_FRAC.match(text, end)
    if spaced is not None and int(spaced[2]) != 0:
        part, after = Fraction(int(spaced[1]), int(spaced[2])), spaced.end()
    elif frac is not None:
        part, after = _frac(text, frac.end(), depth)
    else:
        return None
    return (_bounded(whole + part), after) if 0 < part < 1 else None


def _factor(text: str, at: int, depth: int) -> tuple[Fraction, int]:
    r"""A literal, a ``\frac`` or something in round brackets, with a power of it or of ten behind it."""
    frac = _FRAC.match(text, at)
    if frac is not None:
        return _frac(text, frac.end(), depth)
    if text.startswith("(", at):
        value, at = _enclosed(text, at, ")", depth)
    else:
        value, at = _literal(text, at)
        notation = _E_NOTATION.match(text, at)
        if notation is not None:
            return _scaled(value, int(notation[1])), notation.end()
    return _powers(text, value, at)


def _powers(text: str, value: Fraction, at: int) -> tuple[Fraction, int]:
    power = _EXPONENT.match(text, at)
    if power is not None:
        return _power(value, int(power[1] or power[2] or power[3])), power.end()
    ten = _TEN_NOTATION.match(text, at)
    if ten is not None:
        power = _EXPONENT.match(text, ten.end())
        if power is None:
            raise _NoNumberError
        return _scaled(value, int(power[1] or power[2] or power[3])), power.end()
    return value, at


def _frac(text: str, at: int, depth: int) -> tuple[Fraction, int]:
    above, at = _argument(text, at, depth)
    below, at = _argument(text, at + (text[at : at + 1] == " "), depth)
    if below == 0:
        raise _NoNumberError
    return _bounded(above / below), at


def _argument(text: str, at: int, depth: int) -> tuple[Fraction, int]:
    """What LaTeX takes as one argument: something in braces, or a single digit."""
    if text.startswith("{", at):
        return _enclosed(text, at, "}", depth)
    if text[at : at + 1] in set("0123456789"):
        return Fraction(int(text[at])), at + 1
    raise _NoNumberError


def _enclosed(text: str, at: int, end: str, depth: int) -> tuple[Fraction, int]:
    opened = at
    value, at = _signed(text, at + 1 + (text[at + 1 : at + 2] == " "), depth + 1)
    at += text[at : at + 1] == " "
    # (1,234) is a pair, not a thousand and more.
    if not text.startswith(end, at) or (end == ")" and "," in text[opened:at]):
        raise _NoNumberError
    return value, at + 1


def _literal(text: str, at: int) -> tuple[Fraction, int]:
    found = _LITERAL.match(text, at)
    if found is None or found.end() == at:
        raise _NoNumberError
    whole = (found["whole"] or "").replace(",", "").replace(" ", "")
    part, repeats = found["part"] or "", found["repeats"] or ""
    if not whole + part + repeats or len(whole + part + repeats) > MAX_DIGITS:
        raise _NoNumberError
    value = Fraction(int(whole + part or "0"), 10 ** len(part))
    if repeats:
        value += Fraction(int(repeats), (10 ** len(repeats) - 1) * 10 ** len(part))
    return _bounded(value), found.end()


def _scaled(value: Fraction, exponent: int) -> Fraction:
    if abs(exponent) > MAX_EXPONENT:
        raise _NoNumberError
    return _bounded(value * Fraction(10) ** exponent)


def _power(value: Fraction, exponent: int) -> Fraction:
    bits = max(value.numerator.bit_length(), value.denominator.bit_length())
    # Looked at before it is computed: the bits of a power are at most the exponent's many times those of its base.
    if abs(exponent) > MAX_EXPONENT or bits * abs(exponent) > 2 * MAX_NUMBER_BITS or (value == 0 >= exponent):
        raise _NoNumberError
    return _bounded(value**exponent)


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_NUMBER_BITS:
        raise _NoNumberError
    return value
