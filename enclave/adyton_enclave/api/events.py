# SPDX-License-Identifier: Apache-2.0
"""JSON and server-sent events, as bytes."""

import json
from collections.abc import Callable
from typing import Final

Json = dict[str, object]

_encode: Final = json.JSONEncoder(separators=(",", ":")).encode
_BLANK: Final = "\x00"


def dump(value: Json) -> bytes:
    """The shortest JSON text; ASCII, so that no reader takes a Unicode line separator for the end of a line."""
    return _encode(value).encode("ascii")


def event(value: Json) -> bytes:
    """An event that is known by its data."""
    return b"data: " + dump(value) + b"\n\n"


def typed_event(kind: str, value: Json) -> bytes:
    """An event that is known by its name, which is a word of ours."""
    return b"event: " + kind.encode("ascii") + b"\ndata: " + dump(value) + b"\n\n"


class TextFrame:
    """An event that differs from others in one text only, such as a delta: everything around it is encoded once."""

    def __init__(self, make: Callable[[str], bytes]) -> None:
        """Take the frame out of ``make``, which words the event around any text."""
        self._head, _, self._tail = make(_BLANK).partition(dump_text(_BLANK))

    def fill(self, text: str) -> bytes:
        """The event with this text."""
        return self._head + dump_text(text) + self._tail


def dump_text(text: str) -> bytes:
    """A JSON string."""
    return _encode(text).encode("ascii")
