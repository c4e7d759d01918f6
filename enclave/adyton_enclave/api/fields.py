# SPDX-License-Identifier: Apache-2.0
"""Reading attacker-controlled JSON objects field by field, with errors that name the field.

Nothing is coerced and nothing is ignored: a field of the wrong type is an error, and so is a field that nobody
took. Messages name fields and bounds, never values.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Concatenate, Final, NoReturn, ParamSpec, TypeVar

from adyton_enclave.api.errors import UnknownParameter, UnsupportedParameter
from adyton_protocol.errors import InvalidRequest

LARGE_REQUEST_BYTES: Final = 16 * 1024
"""A body from this size on takes long enough to parse to be felt by others."""
MAX_TEXT_CHARS: Final = 16 * 1024 * 1024
_MAX_NAME_SHOWN: Final = 64


_Rest = ParamSpec("_Rest")
_Call = TypeVar("_Call")


async def parse_aside(
    parse: Callable[Concatenate[bytes, _Rest], _Call], body: bytes, *rest: _Rest.args, **named: _Rest.kwargs
) -> _Call:
    """``parse(body, ...)``, beside the event loop if the body (attacker-controlled) is large.

    Raises:
        EngineError: What ``parse`` raises.
    """
    if len(body) < LARGE_REQUEST_BYTES:
        return parse(body, *rest, **named)
    return await asyncio.to_thread(parse, body, *rest, **named)


def parse_object(body: bytes) -> dict[str, object]:
    """Parse a request body.

    Args:
        body: Attacker-controlled.

    Raises:
        InvalidRequest: Not UTF-8, not JSON, not an object, a duplicate member, a number that JSON does not have,
            a lone surrogate, or nested too deeply.
    """
    try:
        text = body.decode("utf-8")
        value: object = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
        if "\\u" in text:
            # Only an escape can smuggle in a lone surrogate, which has no UTF-8 form and so no tokens.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        # SECURITY: the cause quotes the body.
        raise InvalidRequest("the body is not a valid JSON document in UTF-8") from None
    if not isinstance(value, dict):
        raise InvalidRequest("the body must be a JSON object")
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError("not a JSON number")


def _shown(name: str) -> str:
    """A field name that the caller chose, cut and printable."""
    cut = name if len(name) <= _MAX_NAME_SHOWN else name[:_MAX_NAME_SHOWN] + "..."
    return cut.encode("unicode_escape").decode("ascii")


class Fields:
    """The members of one object. Each ``take`` removes a member; null counts as absent."""

    def __init__(self, members: Mapping[str, object], path: str = "") -> None:
        self._members = {name: value for name, value in members.items() if value is not None}
        self._path = path

    def name(self, field: str) -> str:
        """How errors call a field."""
        return f"{self._path}.{field}" if self._path else field

    def wrong(self, field: str, problem: str) -> InvalidRequest:
        """An error about a field."""
        return InvalidRequest(f"{self.name(field)} {problem}", param=self.name(field))

    def take(self, field: str) -> object:
        """The value of a field of any type, or None."""
        return self._members.pop(field, None)

    def has(self, field: str) -> bool:
        """True when the field is there and was not taken yet."""
        return field in self._members

    def peek(self, field: str) -> object:
        """The value of a field, for whoever takes it next to check."""
        return self._members.get(field)

    def text(self, field: str, *, max_chars: int = MAX_TEXT_CHARS) -> str | None:
        """A string, or None."""
        value = self.take(field)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self.wrong(field, "must be a string")
        if len(value) > max_chars:
            raise self.wrong(field, f"must have at most {max_chars} characters")
        return value

    def required_text(self, field: str, *, max_chars: int = MAX_TEXT_CHARS) -> str:
        """A string that must be there."""
        value = self.text(field, max_chars=max_chars)
        if value is None:
            raise self.wrong(field, "is required")
        return value

    def flag(self, field: str) -> bool:
        """True, or False when absent."""
        value = self.take(field)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise self.wrong(field, "must be true or false")
        return value

    def whole(self, field: str, *, low: int, high: int) -> int | None:
        """A whole number within bounds, or None."""
        value = self.take(field)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.wrong(field, "must be a whole number")
        if not low <= value <= high:
            raise self.wrong(field, f"must be from {low} to {high}")
        return value

    def real(self, field: str, *, low: float, high: float, above_low: bool = False) -> float | None:
        """A finite number within bounds, the lower one excluded on request, or None."""
        value = self.take(field)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(field, "must be a number")
        if not low <= value <= high or (above_low and value == low):
            raise self.wrong(field, f"must be {'above' if above_low else 'from'} {low:g} to {high:g}")
        return float(value)

    def array(self, field: str) -> list[object] | None:
        """An array, or None."""
        value = self.take(field)
        if value is None:
            return None
        if not isinstance(value, list):
            raise self.wrong(field, "must be an array")
        return value

    def members(self, field: str) -> "Fields | None":
        """The fields of a nested object, or None."""
        value = self.take(field)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.wrong(field, "must be an object")
        return Fields(value, self.name(field))

    def refuse_unsupported(self, neutral: Mapping[str, Sequence[object]]) -> None:
        """Refuse known fields that are not served, unless their value asks for nothing.

        Args:
            neutral: Field names, each with the values that change nothing.
        """
        for field, harmless in neutral.items():
            value = self.take(field)
            if value is not None and not any(same(value, other) for other in harmless):
                raise UnsupportedParameter(
                    f"{self.name(field)} is not supported by this model server", param=self.name(field)
                )

    def finish(self) -> None:
        """Refuse whatever was not taken."""
        if self._members:
            name = self.name(_shown(min(self._members)))
            raise UnknownParameter(f"{name} is not a known field", param=name)


def same(value: object, other: object) -> bool:
    """Equality that does not take false for zero."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)
