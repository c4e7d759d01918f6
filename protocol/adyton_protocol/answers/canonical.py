# SPDX-License-Identifier: Apache-2.0
"""From an answer as it was written to its key."""

import re
from fractions import Fraction
from typing import Final
from unicodedata import ucd_3_2_0

from adyton_protocol.answers.limits import MAX_ANSWER_CHARACTERS, MAX_DIGITS
from adyton_protocol.answers.rule import Equivalence

_NUMBER: Final = re.compile(
    r"(?P<sign>[-+]?)[$]?(?P<above>[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?|\.[0-9]+)(?:/(?P<below>[0-9]+))?(?P<percent>%?)",
    re.ASCII,
)
_EDGES: Final = " \t\r\n.,;:!?*_`'\"$"


def key_of(text: str, equivalence: Equivalence) -> str | None:
    """The key of an answer, or None when it is none of that kind."""
    if len(text) > MAX_ANSWER_CHARACTERS:
        return None
    plain = ucd_3_2_0.normalize("NFKC", text).replace("\u2212", "-").strip(_EDGES)
    found = None if equivalence in {"text", "choice"} else _NUMBER.fullmatch(plain)
    if found is not None and len(plain) <= MAX_DIGITS and int(found["below"] or "1"):
        value = Fraction(found["above"].replace(",", "")) / int(found["below"] or "1")
        value = -value if found["sign"] == "-" else value
        return f"number:{value}" if equivalence == "number" or not found["percent"] else f"percent:{value}%"
    option = re.fullmatch(r"\(?([A-J])\)?", plain, re.ASCII)
    if option is not None and equivalence in {"auto", "choice"}:
        return f"choice:{option[1]}"
    if equivalence in {"auto", "text"} and plain:
        return "text:" + " ".join(plain.casefold().split())
    return None
