# SPDX-License-Identifier: Apache-2.0
"""Strict, deterministic CBOR (RFC 8949 section 4.2.1), as much of it as evidence needs.

Integers, byte and text strings, arrays, maps with integer or text keys, and tags; no floats, no simple values, no
indefinite lengths. A value has exactly one encoding: shortest heads, map keys in bytewise order, each once. The
reader refuses every other spelling, so that what was hashed is what was read. Libraries read duplicate keys and long
heads without a word, and this is too small to be worth one of them in the measured set.

No I/O and no document of its own; every function that reads takes the error class to raise.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NoReturn, TypeAlias

from adyton_protocol.errors import AdytonError, LocalProtocolError

CborKey: TypeAlias = "int | str"
CborValue: TypeAlias = "int | bytes | str | list[CborValue] | dict[CborKey, CborValue] | Tagged"
"""A CBOR value. Integers lie within -2**64 to 2**64 - 1."""

MAX_DEPTH: Final = 8
"""Deepest nesting of arrays, maps and tags that is read or written."""
MAX_NODES: Final = 4096
"""Most values in one document, keys counted."""

_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG = range(7)
_INLINE: Final = 24
"""Arguments below stand in the initial byte; 24 to 27 announce 1, 2, 4 or 8 bytes."""
_ARGUMENT_BYTES: Final = {24: 1, 25: 2, 26: 4, 27: 8}
_END: Final = 1 << 64


@dataclass(frozen=True, slots=True)
class Tagged:
    """A value under a tag (RFC 8949 section 3.4).

    Attributes:
        tag: Number of the tag.
        value: What it marks.
    """

    tag: int
    value: "CborValue"


def encode(value: CborValue) -> bytes:
    """Write a value in its one encoding.

    Raises:
        LocalProtocolError: It has none: another type, an integer out of range, text that is no Unicode, or nesting
            beyond :data:`MAX_DEPTH`.
    """
    return b"".join(_write(value, 0))


def decode(data: bytes, *, max_bytes: int, what: str, error: type[AdytonError]) -> CborValue:
    """Read exactly one value.

    Args:
        data: Attacker-controlled bytes.
        max_bytes: Largest length that is looked at.
        what: Name of the document, for messages.
        error: Class to raise.

    Raises:
        AdytonError: Of class ``error``: too long, cut off, followed by anything, not in deterministic form, of a type
            that is not read here, or nested beyond :data:`MAX_DEPTH`.
    """
    if len(data) > max_bytes:
        raise error(f"{what}: {len(data)} bytes exceed the limit of {max_bytes}")
    reader = _Reader(data, what, error)
    value = reader.value(0)
    reader.end()
    return value


def _head(major: int, argument: int) -> bytes:
    if argument < _INLINE:
        return bytes((major << 5 | argument,))
    for additional, size in _ARGUMENT_BYTES.items():
        if argument < 1 << 8 * size:
            return bytes((major << 5 | additional,)) + argument.to_bytes(size, "big")
    raise LocalProtocolError("CBOR: an integer exceeds 64 bits")


def _write(value: object, depth: int) -> Iterator[bytes]:
    if depth > MAX_DEPTH:
        raise LocalProtocolError("CBOR: nested too deeply")
    # Exact types: a boolean is an integer in Python and none here.
    if type(value) is int:
        yield _head(_UNSIGNED, value) if value >= 0 else _head(_NEGATIVE, -1 - value)
    elif type(value) is bytes:
        yield _head(_BYTES, len(value))
        yield value
    elif type(value) is str:
        yield _text(value)
    elif type(value) is list:
        yield _head(_ARRAY, len(value))
        for item in value:
            yield from _write(item, depth + 1)
    elif type(value) is dict:
        yield from _write_map(value, depth)
    elif type(value) is Tagged:
        yield _head(_TAG, value.tag)
        yield from _write(value.value, depth + 1)
    else:
        raise LocalProtocolError(f"CBOR: no encoding for {type(value).__name__}")


def _write_map(value: dict[object, object], depth: int) -> Iterator[bytes]:
    encoded: dict[bytes, object] = {}
    for key, item in value.items():
        if type(key) is not int and type(key) is not str:
            raise LocalProtocolError("CBOR: a map key is neither integer nor text")
        encoded[b"".join(_write(key, depth + 1))] = item
    yield _head(_MAP, len(encoded))
    for name in sorted(encoded):
        yield name
        yield from _write(encoded[name], depth + 1)


def _text(value: str) -> bytes:
    try:
        octets = value.encode("utf-8")
    except UnicodeEncodeError as cause:
        raise LocalProtocolError("CBOR: a string is not Unicode text") from cause
    return _head(_TEXT, len(octets)) + octets


class _Reader:
    """A position in attacker-controlled bytes."""

    def __init__(self, data: bytes, what: str, error: type[AdytonError]) -> None:
        self._data = data
        self._at = 0
        self._what = what
        self._error = error
        self._nodes = 0

    def end(self) -> None:
        if self._at != len(self._data):
            self._refuse("bytes follow the value")

    def value(self, depth: int) -> CborValue:
        self._nodes += 1
        if depth > MAX_DEPTH or self._nodes > MAX_NODES:
            self._refuse("too deep or too large")
        major, argument = self._read_head()
        match major:
            case 0:
                return argument
            case 1:
                return -1 - argument
            case 2:
                return self._take(argument)
            case 3:
                return self._read_text(argument)
            case 4:
                return [self.value(depth + 1) for _ in range(self._count(argument))]
            case 5:
                return self._read_map(self._count(argument), depth)
            case 6:
                return Tagged(argument, self.value(depth + 1))
            case _:
                return self._refuse("floats and simple values are not read")

    def _read_head(self) -> tuple[int, int]:
        first = self._take(1)[0]
        major, additional = first >> 5, first & 0x1F
        if additional < _INLINE:
            return major, additional
        size = _ARGUMENT_BYTES.get(additional)
        if size is None:
            self._refuse("indefinite or reserved length")
        argument = int.from_bytes(self._take(size), "big")
        # SECURITY: one spelling for each number, or two readers of one hash could see two documents.
        if argument < _INLINE or (size > 1 and argument < 1 << 4 * size):
            self._refuse("a number is not in its shortest form")
        return major, argument

    def _count(self, argument: int) -> int:
        # Every item takes a byte at least; a longer announcement would only make us wait for the end of input.
        if argument > len(self._data) - self._at:
            self._refuse("cut off")
        return argument

    def _read_text(self, length: int) -> str:
        try:
            return self._take(length).decode("utf-8")
        except UnicodeDecodeError as cause:
            raise self._error(f"{self._what}: a string is not UTF-8") from cause

    def _read_map(self, count: int, depth: int) -> dict[CborKey, CborValue]:
        found: dict[CborKey, CborValue] = {}
        previous = b""
        for _ in range(count):
            start = self._at
            key = self.value(depth + 1)
            if type(key) is not int and type(key) is not str:
                self._refuse("a map key is neither integer nor text")
            encoded = self._data[start : self._at]
            # SECURITY: ascending order forbids a second value for the same key.
            if encoded <= previous:
                self._refuse("map keys are not in order, or one is there twice")
            previous = encoded
            found[key] = self.value(depth + 1)
        return found

    def _take(self, length: int) -> bytes:
        taken = self._data[self._at : self._at + length]
        if len(taken) != length:
            self._refuse("cut off")
        self._at += length
        return taken

    def _refuse(self, why: str) -> NoReturn:
        raise self._error(f"{self._what}: {why}")
