# SPDX-License-Identifier: Apache-2.0
"""The stand-in for MRENCLAVE."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton_protocol.errors import LocalProtocolError
from adyton_protocol.measurement import simulated_mrenclave

FILES = st.dictionaries(
    st.from_regex(r"[a-z_]{1,8}(/[a-z_]{1,8}){1,2}\.py", fullmatch=True), st.binary(max_size=20), min_size=1
)


def test_the_measurement_is_what_its_documentation_says() -> None:
    """A computation by hand over two files agrees, and length and order are as written."""
    state = b"adyton simulated mrenclave v1\x00"
    for name, content in ((b"a/b.py", b"1"), (b"a/c.py", b"")):
        state += len(name).to_bytes(4, "big") + name + hashlib.sha256(content).digest()
    assert simulated_mrenclave({"a/c.py": b"", "a/b.py": b"1"}) == hashlib.sha256(state).digest()


@given(FILES, FILES)
def test_two_sets_of_files_measure_alike_only_when_they_are_alike(
    one: dict[str, bytes], two: dict[str, bytes]
) -> None:
    """Any file added, removed, renamed or changed changes the value; the order of the mapping does not."""
    assert (simulated_mrenclave(one) == simulated_mrenclave(two)) == (one == two)
    assert simulated_mrenclave(dict(reversed(one.items()))) == simulated_mrenclave(one)


@pytest.mark.parametrize(
    "name", ["/a/b.py", "a/../b.py", "b.py", "", "a//b.py", "a/b.py\n", "a\\b.py", "a/\u00e4.py"]
)
def test_names_are_plain_relative_paths(name: str) -> None:
    """A path that two systems could read differently has no place in a measurement."""
    with pytest.raises(LocalProtocolError):
        simulated_mrenclave({name: b""})


def test_nothing_has_no_measurement() -> None:
    """A mistaken path in the list of files is not a measurement of nothing."""
    with pytest.raises(LocalProtocolError):
        simulated_mrenclave({})
