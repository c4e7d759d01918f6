# SPDX-License-Identifier: Apache-2.0
"""Strict JSON: one reading for each document, or none."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton_protocol.digests import jcs
from adyton_protocol.errors import MalformedEvidence, ReceiptError
from adyton_protocol.strict_json import (
    MAX_DEPTH,
    MAX_NODES,
    MAX_SAFE_INTEGER,
    Members,
    json_value,
    parse_json,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def parse(data: bytes, max_bytes: int = 1 << 20) -> object:
    """Parse as a parser of evidence does."""
    return parse_json(data, max_bytes=max_bytes, what="document", error=MalformedEvidence)


@given(VALUES)
def test_what_json_writes_is_read_back(value: object) -> None:
    """Every value without fractions survives, whatever encoding it was served in."""
    assert parse(jcs(value)) == value
    assert parse(json.dumps(value, indent=2).encode()) == value


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER))
def test_doubles_are_read_where_they_are_wanted(number: float) -> None:
    """The canonical form of any double reads back as it; without ``doubles`` only integers have a reading."""
    written = jcs(number)
    read = parse_json(written, max_bytes=64, what="document", error=MalformedEvidence, doubles=True)
    assert read == number
    assert jcs(read) == written
    value: object = {"a": read}
    assert Members(value, "document", MalformedEvidence).number("a", minimum=-2e308, maximum=2e308) == number
    if type(number) is float and not number.is_integer():
        with pytest.raises(MalformedEvidence):
            parse(written)
        with pytest.raises(MalformedEvidence):
            json_value(number, what="document", error=MalformedEvidence)


@pytest.mark.parametrize(
    "data", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-0", b"9" * 22, b"0." + b"1" * 40, b"1e", b".5"]
)
def test_not_every_number_is_a_double(data: bytes) -> None:
    """What is infinite, no number, or longer than any canonical form is refused with ``doubles`` too."""
    with pytest.raises(MalformedEvidence):
        parse_json(data, max_bytes=64, what="document", error=MalformedEvidence, doubles=True)


@pytest.mark.parametrize("value", [True, "1", None, [1.0], 2, -0.5])
def test_a_number_has_its_range(value: object) -> None:
    """Booleans and texts are no numbers, and what is out of range is refused."""
    with pytest.raises(ReceiptError):
        Members({"a": value}, "document", ReceiptError).number("a", minimum=0.0, maximum=1.0)


@given(st.binary(max_size=200) | VALUES.map(lambda value: json.dumps(value).encode()[:-1]))
def test_any_bytes_are_read_or_refused_with_the_given_class(data: bytes) -> None:
    """No input leads to anything but a value or the caller's error class."""
    with suppress(MalformedEvidence):
        parse(data)


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":1}', b'{"x":{"a":1,"a":2}}', b'{"a":1,"\\u0061":2}', b"1.0", b"1e3", b"-0", b"NaN",
        b"Infinity", b"-Infinity", b"9007199254740992", b"-9007199254740992", b"1" * 5000, b'"\\ud800"',
        b'{"\\udc00":1}', b"\xef\xbb\xbf{}", b'"\xff"', b"", b"{}x", b'"a\nb"', b"[" * 100_000, b"'a'", b"[1,]",
        b"01", b"+1", b"[" * (MAX_DEPTH + 2) + b"]" * (MAX_DEPTH + 2), b"[" + b"1," * MAX_NODES + b"1]",
    ],
)  # fmt: skip
def test_ambiguous_or_oversized_documents_are_refused(data: bytes) -> None:
    """Duplicates, fractions, huge numbers, surrogates, byte-order marks, rubbish and bombs have no reading."""
    with pytest.raises(MalformedEvidence):
        parse(data)


def test_the_limit_counts_bytes_and_includes_itself() -> None:
    """A document of exactly the limit is read, one byte more is not."""
    assert parse(b"[11]", max_bytes=4) == [11]
    with pytest.raises(MalformedEvidence):
        parse(b"[111]", max_bytes=4)


class Sly(int):
    """Equals everything."""

    def __eq__(self, _other: object) -> bool:
        return True

    __hash__ = int.__hash__


@pytest.mark.parametrize(
    "value", [1.5, float("nan"), b"x", {1: 2}, {"a": {1}}, Sly(1), object(), {"\ud800": 1}]
)
def test_objects_that_json_cannot_produce_are_refused(value: object) -> None:
    """Values of unknown origin get the same rules as bytes; subclasses count as foreign."""
    with pytest.raises(ReceiptError):
        json_value([value], what="document", error=ReceiptError)


def test_tuples_of_our_own_side_become_arrays() -> None:
    """Frozen dataclasses hold tuples; in a document they are arrays."""
    assert json_value({"a": (1, (2,))}, what="document", error=ReceiptError) == {"a": [1, [2]]}


def test_a_copied_value_shares_nothing_with_its_source() -> None:
    """A caller who keeps the original cannot change what was checked."""
    source: dict[str, list[int]] = {"a": [1]}
    copied = json_value(source, what="document", error=ReceiptError)
    source["a"].append(2)
    assert copied == {"a": [1]}


def test_members_are_typed_and_booleans_are_no_integers() -> None:
    """Every accessor refuses the wrong type, and names the member but not its value."""
    members = Members({"t": True, "i": 1, "s": "secret", "o": {}, "l": [{}]}, "thing", MalformedEvidence)
    assert members.boolean("t") is True
    assert members.integer("i", minimum=1, maximum=1) == 1
    assert [dict(member.items()) for member in members.objects("l", max_items=1)] == [{}]
    assert dict(members.items())["o"] == {}
    for failing in (
        lambda: members.boolean("i"), lambda: members.integer("t", minimum=0, maximum=9),
        lambda: members.hex("s", min_bytes=1, max_bytes=9), lambda: members.object("s"),
        lambda: members.array("s", max_items=9), lambda: members.array("l", max_items=0),
        lambda: members.text("absent", max_chars=9), lambda: members.only(["t"]),
    ):  # fmt: skip
        with pytest.raises(MalformedEvidence, match=r"^thing") as caught:
            failing()
        assert "secret" not in str(caught.value)
