# SPDX-License-Identifier: Apache-2.0
"""JSON and server-sent events, as bytes."""

import json

Json = dict[str, object]


def dump(value: Json) -> bytes:
    """The shortest JSON text; ASCII, so that no reader takes a Unicode line separator for the end of a line."""
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def event(value: Json) -> bytes:
    """An event that is known by its data."""
    return b"data: " + dump(value) + b"\n\n"


def typed_event(kind: str, value: Json) -> bytes:
    """An event that is known by its name, which is a word of ours."""
    return b"event: " + kind.encode("ascii") + b"\ndata: " + dump(value) + b"\n\n"
