# SPDX-License-Identifier: Apache-2.0
"""Answers of several parts: intervals and their unions, sets, tuples and lists, and plus-minus."""

import re
from collections.abc import Iterable
from fractions import Fraction
from typing import Final, TypeAlias

from adyton_protocol.answers.limits import MAX_ITEMS, MAX_NESTING
from adyton_protocol.answers.number import number, spelled
from adyton_protocol.answers.spelling import folded

_INFINITY: Final = re.compile("([-+]?) ?(?:\u221e|inf|infinity)", re.ASCII | re.IGNORECASE)
_UNION: Final = re.compile("(?<=[)\\]]) ?[\u222aU] ?(?=[(\\[])")
_OR: Final = re.compile(r",? (?:or|and) ", re.ASCII | re.IGNORECASE)
_NAMED: Final = re.compile(r"([A-Za-z](?:_[A-Za-z0-9])?) ?= ?", re.ASCII)
_SHAPES: Final = frozenset({"()", "(]", "[)", "[]", "{}"})
_ENDS: Final = 2
"""An interval has two."""
_EMPTY: Final = frozenset({"{}", "{ }", "\u2205"})

_ENDLESS: Final = {"-inf": 0, "inf": 2}
_IS_NUMBER: Final = 1
_IS_TEXT: Final = 3
_Order: TypeAlias = tuple[int, Fraction, str]


def infinity(text: str) -> str | None:
    """``inf`` or ``-inf``, or None for anything else."""
    found = _INFINITY.fullmatch(text)
    return None if found is None else f"{'-' if found[1] == '-' else ''}inf"


def collection(text: str) -> str | None:
    """The key of an answer that has several parts, or None.

    Args:
        text: Settled.
    """
    if text in _EMPTY:
        return "set:{}"
    return _plus_minus(text) or _union(text) or _bracketed(text, 0) or _alternatives(text) or _bare_list(text)


def _plus_minus(text: str) -> str | None:
    """Both values of `a \u00b1 b`, which are a set."""
    before, sign, after = text.partition("\u00b1")
    middle, spread = number(before.rstrip(" ") or "0"), number(after.lstrip(" "))
    if not sign or middle is None or spread is None:
        return None
    return _set([spelled(middle - spread), spelled(middle + spread)])


def _union(text: str) -> str | None:
    parts = _UNION.split(text)
    if not 1 < len(parts) <= MAX_ITEMS:
        return None
    intervals: dict[str, _Order] = {}
    for part in parts:
        key = _bracketed(part, 0, interval=True)
        if key is None or not key.startswith("interval:"):
            return None
        body = key.removeprefix("interval:")
        intervals[body] = _order(body[1:].partition(",")[0])
    return "union:" + "\u222a".join(sorted(intervals, key=lambda body: (intervals[body], body)))


def _bracketed(text: str, depth: int, *, interval: bool = False) -> str | None:
    """What stands in one pair of brackets: a set, an interval, a tuple or a list.

    Args:
        text: Settled.
        depth: 0, or 1 for a tuple within something else.
        interval: Whether two numbers in round brackets are an interval rather than a pair.
    """
    shape = text[:1] + text[1:][-1:]
    if shape not in _SHAPES:
        return None
    parts = _split(text[1:-1])
    items = [None] if parts is None else [_item(part, depth) for part in parts]
    read = [item for item in items if item is not None]
    if len(read) != len(items):
        return None
    if shape == "{}":
        return _set(read)
    if len(read) == _ENDS:
        return _of_two(shape, read, interval=interval)
    body = ",".join(read)
    if shape == "[]":
        # A list of three numbers is no interval, so its brackets say nothing.
        bare = len(read) > _ENDS and all(_order(item)[0] == _IS_NUMBER for item in read)
        return f"list:{', '.join(read)}" if bare else f"list:[{body}]"
    # One thing in round brackets is that thing, and no tuple.
    return f"tuple:({body})" if shape == "()" and len(read) > 1 else None


def _of_two(shape: str, items: list[str], *, interval: bool) -> str:
    body = ",".join(items)
    numeric = all(_order(item)[0] != _IS_TEXT for item in items)
    endless = any(_order(item)[0] != _IS_NUMBER for item in items)
    if shape in {"[)", "(]"} or (numeric and (shape == "[]" or interval or endless)):
        return f"interval:{shape[0]}{body}{shape[1]}"
    return f"tuple:({body})" if shape == "()" else f"list:[{body}]"


def _set(items: list[str]) -> str:
    """Without order, and without what is there twice."""
    return "set:{" + ",".join(sorted(set(items), key=_order)) + "}"


def _alternatives(text: str) -> str | None:
    """Numbers between `or` or `and`, of one variable if any: all of them, so a set."""
    if _OR.search(text) is None:
        return None
    parts = _OR.sub(", ", text).split(", ")
    named = [_NAMED.match(part) for part in parts]
    if len({None if name is None else name[1] for name in named}) != 1:
        return None
    read = _numbers(
        part if name is None else part[name.end() :] for part, name in zip(parts, named, strict=True)
    )
    return _set(read) if read else None


def _bare_list(text: str) -> str | None:
    """Numbers between commas; their order is kept, since nothing says that it does not count."""
    parts = _split(text)
    values = [] if parts is None or len(parts) == 1 else _numbers(parts)
    return f"list:{', '.join(values)}" if values else None


def _numbers(parts: Iterable[str]) -> list[str]:
    """The numbers that the parts are; none at all when one of them is something else."""
    values = [number(part) for part in parts]
    read = [spelled(value) for value in values if value is not None]
    return read if len(read) == len(values) <= MAX_ITEMS else []


def _split(text: str) -> list[str] | None:
    """The parts between commas, or else semicolons, outside of brackets; None for too many, or empty ones."""
    separator = ";" if ";" in text else ","
    parts: list[str] = []
    depth = start = 0
    for at, character in enumerate(text):
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == separator and depth == 0:
            parts.append(text[start:at].strip(" "))
            start = at + 1
        if depth < 0 or depth > MAX_NESTING:
            return None
    parts.append(text[start:].strip(" "))
    return parts if depth == 0 and all(parts) and len(parts) <= MAX_ITEMS else None


def _item(text: str, depth: int) -> str | None:
    """One part in its canonical form: a number, an infinity, a tuple of such, or a short text."""
    value = number(text)
    if value is not None:
        return spelled(value)
    endless = infinity(text)
    if endless is not None:
        return endless
    if text[:1] == "(" and depth == 0:
        inner = _bracketed(text, depth + 1)
        return None if inner is None else inner.partition(":")[2]
    plain = folded(text)
    if not plain or set(plain) & set("()[]{},;"):
        return None
    # What folding made a number of is one.
    value = number(plain)
    return infinity(plain) or (plain if value is None else spelled(value))


def _order(item: str) -> _Order:
    """By value, and texts behind the numbers."""
    value = number(item)
    if value is not None:
        return _IS_NUMBER, value, ""
    if item in _ENDLESS:
        return _ENDLESS[item], Fraction(0), ""
    return _IS_TEXT, Fraction(0), item
