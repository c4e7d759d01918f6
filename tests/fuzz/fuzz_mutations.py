# SPDX-License-Identifier: Apache-2.0
"""Structure-aware mutations: what a careful forger would try first, drawn by Hypothesis.

Bytes are turned, exchanged, cut, repeated and spliced, and little-endian lengths are made to lie. JSON is taken apart
and put together again with members missing, doubled, exchanged or of another type, with edges of numbers, text and
depth.
"""

import json
from collections.abc import Callable
from typing import Any, Final

from hypothesis import strategies as st

_EDGE_NUMBERS: Final = (0, 1, -1, 2**16, 2**31, 2**32 - 1, 2**32, 2**53, 2**63, 10**400, 0.5, -0.0, 1e308)
_EDGE_TEXTS: Final = (
    "",
    "\x00",
    "0" * 70_000,
    "\ud800",
    "ﬀ",
    "1e999",
    "9999-12-31T23:59:59Z",
    "2026-02-30T00:00:00Z",
)
_LENGTHS: Final = (0, 1, 2, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF)
_MAX_STEPS: Final = 4


def mutated(seeds: list[bytes], *, text: bool) -> st.SearchStrategy[bytes]:
    """Return inputs near genuine ones."""
    chosen = st.sampled_from(seeds)
    changed = chosen.flatmap(_bytes_near)
    if not text:
        return changed
    documents = [json.loads(seed) for seed in seeds if _is_json(seed)]
    return st.one_of(changed, st.sampled_from(documents).flatmap(_json_near)) if documents else changed


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except ValueError:
        return False
    return True


@st.composite
def _bytes_near(draw: Callable[[Any], Any], seed: bytes) -> bytes:
    data = bytearray(seed)
    for _ in range(draw(st.integers(1, _MAX_STEPS))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.sampled_from(("bit", "byte", "cut", "drop", "repeat", "splice", "length", "grow"))):
            case "bit" if data:
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "byte" if data:
                data[at] = draw(st.integers(0, 255))
            case "cut":
                del data[at:]
            case "drop":
                del data[at : at + draw(st.integers(1, 64))]
            case "repeat":
                data[at:at] = data[at : at + draw(st.integers(1, 64))]
            case "splice":
                other = draw(st.integers(0, max(0, len(data) - 1)))
                size = draw(st.integers(1, 64))
                data[at : at + size] = data[other : other + size]
            case "length":
                size = draw(st.sampled_from((2, 4)))
                value = draw(st.sampled_from(_LENGTHS)) & ((1 << 8 * size) - 1)
                data[at : at + size] = value.to_bytes(size, "little")
            case _:
                data += draw(st.binary(max_size=64))
    return bytes(data)


@st.composite
def _json_near(draw: Callable[[Any], Any], seed: Any) -> bytes:
    document = json.loads(json.dumps(seed))
    for _ in range(draw(st.integers(1, _MAX_STEPS))):
        document = draw(_edited(document))
    data = json.dumps(document).encode()
    match draw(st.sampled_from(("plain", "spaced", "doubled", "nested"))):
        case "spaced":
            return json.dumps(document, indent=1).encode()
        case "doubled" if isinstance(document, dict) and document:
            # A member twice, with two values: what one reader takes first another takes last.
            name = draw(st.sampled_from(sorted(document)))
            return data[:-1] + b", " + json.dumps(name).encode() + b': ""}'
        case "nested":
            return b"[" * draw(st.integers(1, 20_000)) + data
        case _:
            return data


@st.composite
def _edited(draw: Callable[[Any], Any], value: Any) -> Any:
    """Go down to one place of a document and change what is there."""
    if isinstance(value, dict) and value and draw(st.integers(0, 3)):
        name = draw(st.sampled_from(sorted(value)))
        match draw(st.sampled_from(("down", "down", "down", "drop", "add", "rename"))):
            case "down":
                return value | {name: draw(_edited(value[name]))}
            case "drop":
                return {key: item for key, item in value.items() if key != name}
            case "add":
                return value | {draw(st.text(max_size=20)): draw(_anything())}
            case _:
                return {(key + "_" if key == name else key): item for key, item in value.items()}
    if isinstance(value, list) and value and draw(st.integers(0, 3)):
        at = draw(st.integers(0, len(value) - 1))
        match draw(st.sampled_from(("down", "drop", "repeat", "reverse"))):
            case "down":
                return [*value[:at], draw(_edited(value[at])), *value[at + 1 :]]
            case "drop":
                return [*value[:at], *value[at + 1 :]]
            case "repeat":
                return [*value, value[at]]
            case _:
                return value[::-1]
    if isinstance(value, str) and value and draw(st.booleans()):
        at = draw(st.integers(0, len(value) - 1))
        return (
            value[:at]
            + draw(st.sampled_from(("", "0", "f", "g", "\n", "A", "=", '"', "\\")))
            + value[at + 1 :]
        )
    return draw(_anything())


def _anything() -> st.SearchStrategy[Any]:
    return st.one_of(
        st.none(),
        st.booleans(),
        st.sampled_from(_EDGE_NUMBERS),
        st.sampled_from(_EDGE_TEXTS),
        st.text(max_size=40),
        st.just([]),
        st.just({}),
        st.just([[]] * 3),
    )
