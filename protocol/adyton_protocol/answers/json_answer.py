# SPDX-License-Identifier: Apache-2.0
"""Answers in JSON: a declared field, or a whole document in one canonical form.

The form is that of RFC 8785 (JCS), with one difference: a number that double precision cannot tell from its
neighbour keeps all its digits, so that no two values share a form. A document with duplicate members has two readings,
so it has none.
"""

import json
import math
import re
from fractions import Fraction
from typing import Final, NoReturn, TypeAlias

import rfc8785

from adyton_protocol.answers.limits import MAX_DIGITS, MAX_EXPONENT, MAX_JSON_CHARACTERS, MAX_JSON_DEPTH

_FENCE: Final = "```"
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
_LITERAL: Final = re.compile(r"(-?[0-9]+)(?:\.([0-9]+))?(?:[eE]([-+]?[0-9]{1,4}))?", re.ASCII)
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,5}", re.ASCII)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class JsonNumber(str):
    """A number as it was written."""

    __slots__ = ()


class Absent:
    """What a document or a field is that is not there."""


Json: TypeAlias = "bool | str | JsonNumber | list[Json] | dict[str, Json] | None"
Maybe: TypeAlias = "Json | Absent"
ABSENT: Final = Absent()


def parsed(text: str) -> Maybe:
    """The JSON value of a text, be it the whole text or what its last code fence holds; else ``ABSENT``.

    Args:
        text: Attacker-controlled.
    """
    for part in (text.strip(" \t\r\n"), _fenced(text)):
        if not part or len(part) > MAX_JSON_CHARACTERS or not _is_shallow(part):
            continue
        try:
            value: Json = json.loads(
                part,
                object_pairs_hook=_unique,
                parse_int=_number,
                parse_float=_number,
                parse_constant=_refuse,
            )
        except ValueError:
            continue
        if _is_unicode(value):
            return value
    return ABSENT


def field_of(document: Json, field: str) -> Maybe:
    """A member of a document by its name, or any part of it by RFC 6901 pointer; ``ABSENT`` when it is not there."""
    if not field:
        return document
    if not field.startswith("/"):
        return document.get(field, ABSENT) if isinstance(document, dict) else ABSENT
    found: Maybe = document
    for step in field[1:].split("/"):
        found = _step(found, step.replace("~1", "/").replace("~0", "~"))
    return found


def canonical_form(value: Json) -> str:
    """The one spelling of a value."""
    if isinstance(value, JsonNumber):
        return _number_form(value)
    if isinstance(value, list):
        return "[" + ",".join(map(canonical_form, value)) + "]"
    if isinstance(value, dict):
        # RFC 8785 section 3.2.3: members are sorted by UTF-16 code units.
        names = sorted(value, key=lambda name: name.encode("utf-16-be"))
        return "{" + ",".join(f"{_text_form(name)}:{canonical_form(value[name])}" for name in names) + "}"
    if isinstance(value, str):
        return _text_form(value)
    return {None: "null", True: "true", False: "false"}[value]


def _step(value: Maybe, step: str) -> Maybe:
    if isinstance(value, dict):
        return value.get(step, ABSENT)
    if isinstance(value, list) and _INDEX.fullmatch(step) is not None and int(step) < len(value):
        return value[int(step)]
    return ABSENT


def _fenced(text: str) -> str:
    """What the last pair of code fences holds, if the first says nothing or that it is JSON."""
    end = text.rfind(_FENCE)
    start = text.rfind(_FENCE, 0, max(end, 0))
    if start < 0:
        return ""
    language, _, body = text[start + len(_FENCE) : end].partition("\n")
    return body.strip(" \t\r\n") if language.strip(" \t\r") in {"", "json", "JSON"} else ""


def _is_shallow(text: str) -> bool:
    depth = 0
    for token in _TOKEN.finditer(text):
        if token.group() in {"[", "{"}:
            depth += 1
            if depth > MAX_JSON_DEPTH:
                return False
        elif token.group() in {"]", "}"}:
            depth -= 1
    return True


def _is_unicode(value: Json) -> bool:
    """Whether no text has half a surrogate pair, which JSON can escape and UTF-8 cannot encode."""
    if isinstance(value, str):
        return _SURROGATE.search(value) is None
    if isinstance(value, list):
        return all(map(_is_unicode, value))
    return not isinstance(value, dict) or all(map(_is_unicode, [*value, *value.values()]))


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("duplicate member")
    return result


def _number(literal: str) -> JsonNumber:
    found = _LITERAL.fullmatch(literal)
    if found is None or len(literal) > MAX_DIGITS or abs(int(found[3] or "0")) > MAX_EXPONENT:
        raise ValueError("number out of bounds")
    return JsonNumber(literal)


def _refuse(_literal: str) -> NoReturn:
    raise ValueError("not JSON")


def _text_form(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _number_form(literal: JsonNumber) -> str:
    exact = Fraction(literal)
    near = float(literal)
    if math.isfinite(near) and Fraction(repr(near)) == exact:
        return rfc8785.dumps(near).decode()
    found = _LITERAL.fullmatch(literal)
    whole, part, exponent = ("0", "", "0") if found is None else (found[1], found[2] or "", found[3] or "0")
    digits = (whole + part).rstrip("0")
    return f"{int(digits)}e{int(exponent) - len(part) + len(whole + part) - len(digits)}"
