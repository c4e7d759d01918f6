# SPDX-License-Identifier: Apache-2.0
"""Variable-length integers of RFC 9000 section 16."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton_protocol.errors import LocalProtocolError
from adyton_protocol.varint import MAX_VARINT, encode_varint, read_varint


@pytest.mark.parametrize(
    ("encoded", "value"),
    [
        ("c2197c5eff14e88c", 151_288_809_941_952_652),
        ("9d7f3e7d", 494_878_333),
        ("7bbd", 15_293),
        ("25", 37),
    ],
)
def test_examples_of_the_rfc(encoded: str, value: int) -> None:
    """The four examples of RFC 9000 appendix A.1 hold in both directions."""
    assert encode_varint(value).hex() == encoded
    assert read_varint(bytes.fromhex(encoded), 0) == (value, len(encoded) // 2)


@pytest.mark.parametrize("encoded", ["25", "4025", "80000025", "c000000000000025"])
def test_longer_encodings_are_read(encoded: str) -> None:
    """Neither Binary HTTP nor chunked OHTTP demands the shortest encoding."""
    assert read_varint(bytes.fromhex(encoded), 0) == (0x25, len(encoded) // 2)


@given(value=st.integers(0, MAX_VARINT), before=st.binary(max_size=3), after=st.binary(max_size=3))
def test_round_trip(value: int, before: bytes, after: bytes) -> None:
    """Every value is read back, wherever it stands, and any cut is noticed."""
    encoded = encode_varint(value)
    assert read_varint(before + encoded + after, len(before)) == (value, len(before) + len(encoded))
    for end in range(len(encoded)):
        assert read_varint(encoded[:end], 0) is None


@given(value=st.integers())
def test_shortest_encoding_or_an_error(value: int) -> None:
    """Writers use the shortest form, and refuse what has none."""
    if not 0 <= value <= MAX_VARINT:
        with pytest.raises(LocalProtocolError):
            encode_varint(value)
        return
    length = next(size for size in (1, 2, 4, 8) if value < 1 << (8 * size - 2))
    assert len(encode_varint(value)) == length
