# SPDX-License-Identifier: Apache-2.0
"""Reads TOML tables key by key: what is missing, misspelt, of another type or out of range is an error.

Messages name the file and the key, never the value.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

from adyton_protocol.errors import ConfigError

_MAX_KEY_SHOWN: Final = 64

C = TypeVar("C", bound=str)


class Table:
    """One TOML table whose keys are taken one by one; what is left over is an error."""

    def __init__(
        self,
        file: str,
        members: Mapping[str, object],
        *,
        name: str = "",
        error: type[ConfigError] = ConfigError,
    ) -> None:
        """Read from ``members``, attacker-controlled.

        Args:
            file: What errors call the file.
            members: As ``tomllib`` gives them.
            name: Of the table; empty for the whole document.
            error: Class to raise.
        """
        self._file = file
        self._name = name
        self._members = dict(members)
        self._error = error

    def fail(self, key: str, problem: str) -> ConfigError:
        """An error that names the key at fault."""
        where = f"{self._name}.{key}" if self._name else key
        return self._error(f"{self._file}: {where} {problem}")

    def has(self, key: str) -> bool:
        """True when the key is there and was not taken yet."""
        return key in self._members

    def text(self, key: str, default: str | None = None, *, max_chars: int | None = None) -> str:
        """A string that is not empty."""
        value = self._members.pop(key, default)
        if value is None:
            raise self.fail(key, "is missing")
        if not isinstance(value, str) or not value:
            raise self.fail(key, "must be a non-empty string")
        if max_chars is not None and len(value) > max_chars:
            raise self.fail(key, f"must have at most {max_chars} characters")
        return value

    def choice(self, key: str, choices: Sequence[C], default: C | None = None) -> C:
        """One of a few words."""
        value = self.text(key, default)
        for each in choices:
            if each == value:
                return each
        raise self.fail(key, f"must be one of {', '.join(choices)}")

    def whole(self, key: str, default: int | None = None, *, low: int = 1, high: int = 2**31 - 1) -> int:
        """A whole number within a closed range."""
        value = self._members.pop(key, default)
        if value is None:
            raise self.fail(key, "is missing")
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.fail(key, f"must be a whole number from {low} to {high}")
        return value

    def real(self, key: str, default: float | None = None, *, low: float, high: float) -> float:
        """A number within a closed range."""
        value = self._members.pop(key, default)
        if value is None:
            raise self.fail(key, "is missing")
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise self.fail(key, f"must be a number from {low} to {high}")
        return float(value)

    def reals(self, key: str, *, low: float, high: float, max_items: int) -> tuple[float, ...]:
        """A list of numbers, each within a closed range."""
        values = self._list(key, "numbers", max_items)
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise self.fail(key, "must be a non-empty list of numbers")
            if not low <= value <= high:
                raise self.fail(key, f"must hold numbers from {low} to {high}")
        return tuple(float(value) for value in values if isinstance(value, int | float))

    def flag(self, key: str, *, default: bool) -> bool:
        """True or false."""
        value = self._members.pop(key, default)
        if not isinstance(value, bool):
            raise self.fail(key, "must be true or false")
        return value

    def texts(
        self,
        key: str,
        default: tuple[str, ...] | None = None,
        *,
        max_items: int | None = None,
        max_chars: int | None = None,
    ) -> tuple[str, ...]:
        """A list of strings that is not empty."""
        if default is not None and key not in self._members:
            return default
        values = self._list(key, "strings", max_items)
        texts = tuple(value for value in values if isinstance(value, str))
        if len(texts) != len(values):
            raise self.fail(key, "must be a non-empty list of strings")
        if max_chars is not None and max(map(len, texts)) > max_chars:
            raise self.fail(key, f"must hold strings of at most {max_chars} characters")
        return texts

    def _list(self, key: str, what: str, max_items: int | None) -> list[object]:
        value = self._members.pop(key, None)
        if not isinstance(value, list) or not value:
            raise self.fail(key, f"must be a non-empty list of {what}")
        if max_items is not None and len(value) > max_items:
            raise self.fail(key, f"must have at most {max_items} items")
        return value

    def table(self, key: str) -> "Table":
        """A table; an empty one where there is none."""
        value = self._members.pop(key, {})
        if not isinstance(value, dict):
            raise self.fail(key, "must be a table")
        return self._inner(f"{self._name}.{key}" if self._name else key, value)

    def tables(self, key: str) -> list["Table"]:
        """An array of at least one table."""
        value = self._members.pop(key, [])
        if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
            raise self.fail(key, f"must be given at least once, as [[{key}]]")
        return [self._inner(f"{key}[{index}]", item) for index, item in enumerate(value)]

    def finish(self) -> None:
        """Refuse whatever nobody asked for: a misspelt limit must not silently be no limit."""
        if self._members:
            key = min(self._members)[:_MAX_KEY_SHOWN].encode("unicode_escape").decode("ascii")
            raise self.fail(key, "is not a key of this version")

    def _inner(self, name: str, members: Mapping[str, object]) -> "Table":
        return Table(self._file, members, name=name, error=self._error)
