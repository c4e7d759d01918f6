# SPDX-License-Identifier: Apache-2.0
"""Size buckets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton_protocol.errors import LocalProtocolError
from adyton_protocol.padding import bucket


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (0, 512),
        (512, 512),
        (513, 1024),
        (1024, 1024),
        (1025, 2048),
        (8193, 16384),
        (16384, 16384),
        (16385, 32768),
        (32768, 32768),
        (32769, 49152),
        (1 << 20, 1 << 20),
        ((1 << 20) + 1, (1 << 20) + 16384),
    ],
)
def test_edges(length: int, expected: int) -> None:
    """Buckets double from 512 B to 16 KiB and are multiples of 16 KiB from there on."""
    assert bucket(length) == expected


@given(length=st.integers(0, 1 << 40))
def test_a_bucket_holds_its_length_and_is_stable(length: int) -> None:
    """Padding never cuts, never exceeds 16 KiB or doubling, and a padded message is already padded."""
    size = bucket(length)
    assert length <= size < max(513, 2 * length, 0) + 1
    assert size - length <= 16384
    assert bucket(size) == size


@given(first=st.integers(0, 1 << 24), second=st.integers(0, 1 << 24))
def test_buckets_keep_order(first: int, second: int) -> None:
    """A larger message never gets a smaller bucket, so buckets partition the lengths."""
    assert (bucket(first) <= bucket(second)) or first > second


def test_negative_lengths_are_refused() -> None:
    """A negative length is a mistake of ours, not a small message."""
    with pytest.raises(LocalProtocolError):
        bucket(-1)
