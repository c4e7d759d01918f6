# SPDX-License-Identifier: Apache-2.0
"""Strict JSON for documents that are digested, signed or believed.

JSON leaves room for two readers to see two documents in the same bytes: duplicate members, numbers beyond
double precision, floating point, lone surrogates. Nothing here accepts any of it, so that what was hashed is
what was read. A document of measured numbers may have ``doubles``; its parser then compares the canonical form
with what it was given, because that form writes each double in one way and reads back as the same one. Every
function takes the error class to raise, because the same rules guard evidence (``MalformedEvidence``) and
receipts (``ReceiptError``).

This module knows no document of its own and does no I/O.
"""

import json
import math
import re
from collections.abc import Collection, Iterator
from typing import Final, NoReturn, TypeAlias

from adyton_protocol.errors import AdytonError

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
"""A JSON value. Integers lie within +-(2**53 - 1); floats are finite, and there only where a parser wants doubles."""
JsonObject: TypeAlias = dict[str, JsonValue]

MAX_SAFE_INTEGER: Final = 2**53 - 1
"""RFC 8785 section 3.2.2.3 by way of RFC 7493 section 2.2: integers beyond are not interoperable."""
MAX_DEPTH: Final = 16
"""Deepest nesting of any document; ours need six."""
MAX_NODES: Final = 50_000
"""Most values in one document, members counted, unless its parser says otherwise."""

_MAX_DOUBLE_CHARS: Final = 32
"""The longest canonical form of a double has 25."""
_FIRST_WITH_EXPONENT: Final = 10**21
"""RFC 8785 section 3.2.2.3 by way of ECMAScript: smaller whole numbers are written as integers."""

_LOWER_HEX: Final = re.compile(r"(?:[0-9a-f]{2})*")


def parse_json(
    data: bytes,
    *,
    max_bytes: int,
    what: str,
    error: type[AdytonError],
    max_nodes: int = MAX_NODES,
    doubles: bool = False,
) -> JsonValue:
    """Parse attacker-controlled bytes into a value that has exactly one reading.

    Args:
        data: UTF-8 JSON text; attacker-controlled.
        max_bytes: Largest length that is looked at.
        what: Name of the document, for messages.
        error: Class to raise.
        max_nodes: Most values in it.
        doubles: Whether numbers may have fractions and exponents.

    Raises:
        AdytonError: Of class ``error``: too long, not UTF-8, not JSON, a duplicate member, a number that is
            no plain integer within double precision, a lone surrogate, or nesting beyond ``MAX_DEPTH``.
    """
    if len(data) > max_bytes:
        raise error(f"{what}: {len(data)} bytes exceed the limit of {max_bytes}")
    try:
        value: object = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_int=_number if doubles else _integer,
            parse_float=_double if doubles else _refuse_number,
            parse_constant=_refuse_number,
        )
    except (ValueError, RecursionError) as cause:
        raise error(f"{what}: not a strict JSON document") from cause
    return json_value(value, what=what, error=error, max_nodes=max_nodes, doubles=doubles)


def json_value(
    value: object, *, what: str, error: type[AdytonError], max_nodes: int = MAX_NODES, doubles: bool = False
) -> JsonValue:
    """Copy an object of unknown origin, refusing whatever :func:`parse_json` would not have produced.

    Raises:
        AdytonError: Of class ``error``.
    """
    return _Copier(what, error, max_nodes, doubles=doubles).copy(value, 0)


class _Copier:
    """Depth- and size-limited copy of a value; one per document."""

    def __init__(self, what: str, error: type[AdytonError], max_nodes: int, *, doubles: bool) -> None:
        self._what = what
        self._error = error
        self._nodes = 0
        self._max_nodes = max_nodes
        self._doubles = doubles

    def copy(self, value: object, depth: int) -> JsonValue:
        self._nodes += 1
        if depth > MAX_DEPTH or self._nodes > self._max_nodes:
            self._refuse("too deep or too large")
        # Exact types: a subclass of int or str may compare as it likes.
        if value is None or type(value) is bool:
            return value
        if type(value) is int:
            return self._integer(value)
        if type(value) is float and self._doubles and math.isfinite(value):
            return value
        if type(value) is str:
            return self._text(value)
        if type(value) is list or type(value) is tuple:
            return [self.copy(item, depth + 1) for item in value]
        if type(value) is dict:
            return {self._member(name): self.copy(item, depth + 1) for name, item in value.items()}
        return self._refuse("a value is neither null, boolean, integer, string, array nor object")

    def _integer(self, value: int) -> JsonValue:
        if abs(value) <= MAX_SAFE_INTEGER:
            return value
        if self._doubles and abs(value) < _FIRST_WITH_EXPONENT:
            # A double may be written without point and exponent.
            return float(value)
        return self._refuse("an integer exceeds double precision")

    def _text(self, value: str) -> str:
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as cause:
            raise self._error(f"{self._what}: a string is not Unicode text") from cause
        return value

    def _member(self, name: object) -> str:
        if type(name) is not str:
            self._refuse("a member name is not a string")
        return self._text(name)

    def _refuse(self, why: str) -> NoReturn:
        raise self._error(f"{self._what}: {why}")


class Members:
    """Typed access to the members of one attacker-controlled object; every miss raises the given class.

    ``path`` names the object in messages, for example ``keyset.adyton``. Names of members are public, values
    never appear.
    """

    def __init__(self, value: object, path: str, error: type[AdytonError]) -> None:
        """Demand an object.

        Raises:
            AdytonError: Of class ``error``, when ``value`` is anything else.
        """
        if type(value) is not dict:
            raise error(f"{path}: not an object")
        self._value: JsonObject = value
        self._path = path
        self._error = error

    def refuse(self, name: str, why: str) -> NoReturn:
        """Raise the error class, naming the member."""
        raise self._error(f"{self._path}.{name}: {why}")

    def only(self, names: Collection[str]) -> None:
        """Refuse every member that is not listed."""
        if not self._value.keys() <= set(names):
            raise self._error(f"{self._path}: unknown member")

    def items(self) -> Iterator[tuple[str, JsonValue]]:
        """Yield all members."""
        yield from self._value.items()

    def __contains__(self, name: str) -> bool:
        return name in self._value

    def raw(self, name: str) -> JsonValue:
        """Return a member of any type, which must be there."""
        if name not in self._value:
            self.refuse(name, "missing")
        return self._value[name]

    def text(
        self, name: str, *, max_chars: int, min_chars: int = 1, pattern: re.Pattern[str] | None = None
    ) -> str:
        """Return a string of ``min_chars`` to ``max_chars`` characters that matches ``pattern`` whole."""
        value = self.raw(name)
        if type(value) is not str:
            self.refuse(name, "not a string")
        if not min_chars <= len(value) <= max_chars:
            self.refuse(name, f"not between {min_chars} and {max_chars} characters long")
        if pattern is not None and pattern.fullmatch(value) is None:
            self.refuse(name, "not of the required form")
        return value

    def optional_text(
        self, name: str, *, max_chars: int, pattern: re.Pattern[str] | None = None
    ) -> str | None:
        """Return a string as :meth:`text` does, or None when the member is null or missing."""
        if self._value.get(name) is None:
            return None
        return self.text(name, max_chars=max_chars, pattern=pattern)

    def integer(self, name: str, *, minimum: int, maximum: int) -> int:
        """Return an integer within the closed range; booleans are no integers."""
        value = self.raw(name)
        if type(value) is not int:
            self.refuse(name, "not an integer")
        if not minimum <= value <= maximum:
            self.refuse(name, f"not between {minimum} and {maximum}")
        return value

    def number(self, name: str, *, minimum: float, maximum: float) -> float:
        """Return a number within the closed range, as a double; the document was parsed with ``doubles``."""
        value = self.raw(name)
        if type(value) is not int and type(value) is not float:
            self.refuse(name, "not a number")
        if not minimum <= value <= maximum:
            self.refuse(name, f"not between {minimum} and {maximum}")
        # A zero has no sign, as in the canonical form.
        return float(value) + 0.0

    def boolean(self, name: str) -> bool:
        """Return true or false."""
        value = self.raw(name)
        if type(value) is not bool:
            self.refuse(name, "not a boolean")
        return value

    def hex(self, name: str, *, min_bytes: int, max_bytes: int) -> bytes:
        """Return the bytes of a lower-case hexadecimal string; their number lies in the closed range."""
        value = self.text(name, max_chars=2 * max_bytes, pattern=_LOWER_HEX)
        if len(value) < 2 * min_bytes:
            self.refuse(name, f"shorter than {min_bytes} bytes")
        return bytes.fromhex(value)

    def array(self, name: str, *, max_items: int) -> list[JsonValue]:
        """Return an array of at most ``max_items`` values."""
        value = self.raw(name)
        if type(value) is not list:
            self.refuse(name, "not an array")
        if len(value) > max_items:
            self.refuse(name, f"more than {max_items} items")
        return value

    def object(self, name: str) -> "Members":
        """Return a member that is an object."""
        return Members(self.raw(name), f"{self._path}.{name}", self._error)

    def objects(self, name: str, *, max_items: int) -> Iterator["Members"]:
        """Yield the objects of an array of at most ``max_items`` items."""
        for index, item in enumerate(self.array(name, max_items=max_items)):
            yield Members(item, f"{self._path}.{name}[{index}]", self._error)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Build an object, refusing duplicate member names (RFC 7493 section 2.3)."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("duplicate member")
    return result


def _integer(text: str) -> int:
    """Read an integer literal; ``-0`` is refused because no canonical form writes it."""
    if len(text) > len(str(-MAX_SAFE_INTEGER)) or text == "-0":
        raise ValueError("not a canonical integer")
    return int(text)


def _number(text: str) -> int:
    """Read an integer literal, which may stand for a double."""
    if len(text) > _MAX_DOUBLE_CHARS or text == "-0":
        raise ValueError("not a canonical number")
    return int(text)


def _double(text: str) -> float:
    """Read a literal with a fraction or an exponent."""
    if len(text) > _MAX_DOUBLE_CHARS:
        raise ValueError("not a canonical number")
    return float(text)


def _refuse_number(_text: str) -> NoReturn:
    """Refuse fractions, exponents, NaN and the infinities."""
    raise ValueError("not an integer")
