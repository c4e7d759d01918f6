# SPDX-License-Identifier: Apache-2.0
"""The letter of an option in multiple choice."""

import re
from typing import Final

_WORDS: Final = r"(?:the )?(?:(?:correct|right|best|final) )?(?:(?:option|choice|answer|letter) )?(?:is )?"
_MARKED: Final = re.compile(
    rf"{_WORDS}(?:[(\[] ?(?P<bracketed>[A-Ja-j]) ?[)\]]|(?P<closed>[A-Ja-j])\)|(?P<bare>(?-i:[A-J])))"
    r"(?P<rest>$|[ .:,;-].*)",
    re.ASCII | re.IGNORECASE | re.DOTALL,
)
_ANOTHER: Final = re.compile(
    r" ?[-+*/^=<>\u00d7\u00b1]|.*[(\[] ?[A-J] ?[)\]]", re.ASCII | re.IGNORECASE | re.DOTALL
)
"""An operation on a letter in brackets, or a second option: then the first one is not the answer."""
_SMALL: Final = re.compile(r"[a-j]", re.ASCII)


def option(text: str, *, asked: bool) -> str | None:
    """The letter of the option that a settled text names, in upper case, or None.

    ``(B)``, ``B)`` and ``option B`` name one whatever follows; a bare capital does when nothing follows.

    Args:
        text: Settled.
        asked: Whether only options are looked for. Then ``b`` and ``B. Paris`` count as well; else they might be a
            variable and the initial of a name.
    """
    if asked and _SMALL.fullmatch(text) is not None:
        return text.upper()
    found = _MARKED.fullmatch(text)
    if found is None or _ANOTHER.match(found["rest"]) is not None:
        return None
    letter = found["bracketed"] or found["closed"]
    if letter is None:
        letter = found["bare"]
        delimited = asked and found["rest"][:1] != " "
        if found["rest"] and not delimited:
            return None
    return str(letter).upper()
