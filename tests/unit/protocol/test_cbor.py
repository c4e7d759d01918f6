# SPDX-License-Identifier: Apache-2.0
"""Deterministic CBOR: one encoding for each value, and every other spelling refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton_protocol.cbor import MAX_DEPTH, MAX_NODES, Tagged, decode, encode
from adyton_protocol.errors import LocalProtocolError, MalformedEvidence

# RFC 8949 appendix A, as far as the values are of the types that evidence needs.
RFC_8949 = [
    (0, "00"), (1, "01"), (10, "0a"), (23, "17"), (24, "1818"), (25, "1819"), (100, "1864"), (1000, "1903e8"),
    (1_000_000, "1a000f4240"), (1_000_000_000_000, "1b000000e8d4a51000"),
    (18_446_744_073_709_551_615, "1bffffffffffffffff"), (-18_446_744_073_709_551_616, "3bffffffffffffffff"),
    (-1, "20"), (-10, "29"), (-100, "3863"), (-1000, "3903e7"),
    (b"", "40"), (b"\x01\x02\x03\x04", "4401020304"), ("", "60"), ("a", "6161"), ("IETF", "6449455446"),
    ('"\\', "62225c"), ("\u00fc", "62c3bc"), ("\u6c34", "63e6b0b4"), ("\U00010151", "64f0908591"),
    ([], "80"), ([1, 2, 3], "83010203"), ([1, [2, 3], [4, 5]], "8301820203820405"),
    (list(range(1, 26)), "98190102030405060708090a0b0c0d0e0f101112131415161718181819"),
    ({}, "a0"), ({1: 2, 3: 4}, "a201020304"), ({"a": 1, "b": [2, 3]}, "a26161016162820203"),
    (["a", {"b": "c"}], "826161a161626163"),
    (Tagged(1, 1_363_896_240), "c11a514b67b0"), (Tagged(32, "http://www.example.com"),
     "d82076687474703a2f2f7777772e6578616d706c652e636f6d"),
]  # fmt: skip

INTEGERS = st.integers(-(1 << 64), (1 << 64) - 1)
KEYS = INTEGERS | st.text(max_size=8)
VALUES = st.recursive(
    INTEGERS | st.binary(max_size=300) | st.text(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.builds(Tagged, st.integers(0, (1 << 64) - 1), inner)
    ),
    max_leaves=12,
)


def read(data: bytes, *, max_bytes: int = 1 << 20) -> Any:
    """Read, or raise what the caller's documents raise."""
    return decode(data, max_bytes=max_bytes, what="test", error=MalformedEvidence)


@pytest.mark.parametrize(("value", "encoded"), RFC_8949, ids=[encoded for _, encoded in RFC_8949])
def test_values_are_written_and_read_as_the_standard_says(value: Any, encoded: str) -> None:
    """The published examples, both ways."""
    assert encode(value).hex() == encoded
    assert read(bytes.fromhex(encoded)) == value


@given(VALUES)
def test_what_was_written_is_read(value: Any) -> None:
    """Every value that has an encoding comes back, or is refused as too deep when it is written."""
    try:
        encoded = encode(value)
    except LocalProtocolError:
        return
    assert read(encoded) == value


@given(st.binary(max_size=60) | VALUES.map(encode))
def test_any_bytes_have_one_reading_or_none(data: bytes) -> None:
    """What is read is written as the very same bytes, so nothing has two spellings."""
    try:
        value = read(data)
    except MalformedEvidence:
        return
    assert encode(value) == data


@given(VALUES.map(encode), st.data())
def test_no_byte_can_be_left_out_or_added(encoded: bytes, data: st.DataObject) -> None:
    """A document ends where its value ends."""
    cut = data.draw(st.integers(0, len(encoded) - 1))
    for changed in (encoded[:cut], encoded + b"\x00"):
        with pytest.raises(MalformedEvidence):
            read(changed)


@pytest.mark.parametrize(
    "encoded",
    [
        "1800", "1817", "190017", "1900ff", "1a0000ffff", "1b00000000ffffffff", "3800", "5800", "7800", "9800", "b800",
        "d800c0", "5f4101ff", "7f6161ff", "9f01ff", "bf0102ff", "a2026161026161", "a203040102", "a2616201616102",
        "a10101a0", "a14100", "a1800", "f4", "f5", "f6", "f7", "f90000", "fa00000000", "fb0000000000000000", "f800",
        "1c", "1d", "1e", "1f", "ff", "61ff", "62c328", "9bffffffffffffffff",
        "bbffffffffffffffff", "5bffffffffffffffff",
    ],
)  # fmt: skip
def test_every_other_spelling_is_refused(encoded: str) -> None:
    """Long heads, open ends, keys out of order or twice, floats, simple values, broken text, endless lengths."""
    with pytest.raises(MalformedEvidence):
        read(bytes.fromhex(encoded if len(encoded) % 2 == 0 else encoded + "0"))


def test_nesting_and_size_are_bounded() -> None:
    """A small document cannot ask for a deep stack or a long walk."""
    assert read(b"\x81" * MAX_DEPTH + b"\x00")
    with pytest.raises(MalformedEvidence):
        read(b"\x81" * (MAX_DEPTH + 1) + b"\x00")
    with pytest.raises(MalformedEvidence):
        read(encode([0] * MAX_NODES))
    with pytest.raises(MalformedEvidence):
        read(encode(b"12345678"), max_bytes=8)


@pytest.mark.parametrize(
    "value",
    [True, None, 1.0, 1 << 64, -(1 << 64) - 1, "\ud800", {b"": 1}, {True: 1}, bytearray(b""), (1,)],
    ids=repr,
)
def test_what_has_no_encoding_is_not_written(value: Any) -> None:
    """Our own mistakes are found before somebody else's reader finds them."""
    with pytest.raises(LocalProtocolError):
        encode(value)
