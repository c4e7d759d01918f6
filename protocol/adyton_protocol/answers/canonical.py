# SPDX-License-Identifier: Apache-2.0
"""From an answer as it was written to its key.

A key is a kind, a colon and a canonical form. The canonical form, read as an answer, has the same key.
"""

import hashlib
import re
from typing import Final

from adyton_protocol.answers.choice import option
from adyton_protocol.answers.collection import collection, infinity
from adyton_protocol.answers.json_answer import Absent, Json, canonical_form, parsed
from adyton_protocol.answers.limits import MAX_ANSWER_CHARACTERS, MAX_KEY_CHARACTERS
from adyton_protocol.answers.number import number_at_start, spelled
from adyton_protocol.answers.rule import Equivalence
from adyton_protocol.answers.spelling import folded, settled
from adyton_protocol.answers.units import tail

_NAMED: Final = re.compile(
    r"(?:[A-Za-z]|\\[A-Za-z]+)(?:_\{?[A-Za-z0-9]{1,8}\}?)?(?:\([A-Za-z0-9]\))? ?[=\u2208] ?"
)
"""A variable or function and the sign that says what it is."""
_ABOUT: Final = re.compile(
    "(?:(?:approximately|approx|roughly|about|around|exactly|nearly|almost|only|just)\\.? |[\u2248~] ?)",
    re.ASCII | re.IGNORECASE,
)


def key_of(text: str, equivalence: Equivalence) -> str | None:
    """The key of an answer, or None when it is none of the kind that is asked for.

    Args:
        text: As written; attacker-controlled.
        equivalence: The kind.
    """
    if equivalence == "json":
        value = parsed(text)
        return None if isinstance(value, Absent) or value is None else json_key(value)
    if len(text) > MAX_ANSWER_CHARACTERS:
        return None
    plain = settled(text)
    if not plain:
        return None
    if equivalence == "choice":
        letter = option(plain, asked=True)
        return None if letter is None else f"choice:{letter}"
    if equivalence == "number":
        return _bare(_structured(plain))
    key = _structured(plain) if equivalence == "auto" else None
    return key or _text(text, equivalence)


def json_key(value: Json) -> str:
    """The key of a JSON value."""
    return _key("json", canonical_form(value))


def _text(text: str, equivalence: Equivalence) -> str | None:
    plain = folded(text)
    if not plain:
        return None
    # Folding may show what the text is.
    key = _structured(plain) if equivalence == "auto" else None
    return key or _key("text", plain)


def _key(kind: str, form: str) -> str:
    if len(kind) + 1 + len(form) <= MAX_KEY_CHARACTERS:
        return f"{kind}:{form}"
    return f"{kind}-sha256:{hashlib.sha256(form.encode()).hexdigest()}"


def _bare(key: str | None) -> str | None:
    """The number alone, whatever is counted or measured."""
    kind, _, form = (key or "").partition(":")
    if kind == "number":
        return key
    if kind == "percent":
        return f"number:{form.removesuffix('%')}"
    return f"number:{form.partition(' ')[0]}" if kind == "quantity" else None


def _structured(text: str, depth: int = 0) -> str | None:
    """The key of a settled text that is more than a text, or None."""
    key = _quantity(text)
    if key is not None:
        return key
    endless = infinity(text)
    if endless is not None:
        return f"number:{endless}"
    letter = option(text, asked=False)
    if letter is not None:
        return f"choice:{letter}"
    key = collection(text)
    if key is not None:
        return _key(*key.split(":", 1))
    before = _NAMED.match(text) or _ABOUT.match(text)
    if before is None or depth > 1:
        return None
    return _structured(text[before.end() :], depth + 1)


def _quantity(text: str) -> str | None:
    found = number_at_start(text)
    if found is None:
        return None
    value, end = found
    behind = tail(text[end:])
    if behind is None:
        return None
    if behind.unit == "%":
        return f"percent:{spelled(value)}%"
    return f"quantity:{spelled(value)} {behind.unit}" if behind.unit else f"number:{spelled(value)}"
