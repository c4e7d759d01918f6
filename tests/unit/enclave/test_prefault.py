# SPDX-License-Identifier: Apache-2.0
"""Memory that a model is about to fill is backed ahead of it; memory that is nobody's business is left alone."""

import mmap
from pathlib import Path

import pytest

from adyton_enclave.weights.prefault import Prefault

LARGE = 48 * 1024 * 1024
SMALL = 4 * 1024 * 1024


def resident_bytes() -> int:
    """Of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def populated(limit_bytes: int, *, before: int = 0, after: int = 0, read: int = LARGE) -> int:
    """How much becomes resident when mappings of these sizes appear before and after the first look."""
    old = mmap.mmap(-1, before or SMALL, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    prefault = Prefault(limit_bytes)
    new = mmap.mmap(-1, after or SMALL, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    was = resident_bytes()
    prefault.note_read(1)
    prefault.note_read(read)
    thread = prefault._thread
    assert thread is not None
    thread.join(0.5)
    grown = resident_bytes() - was
    prefault.close()
    prefault.close()
    old.close()
    new.close()
    return grown


def test_new_large_memory_is_populated() -> None:
    """Where the kernel can; elsewhere nothing happens."""
    grown = populated(2 * LARGE, after=LARGE)
    if grown < SMALL:
        pytest.skip("this kernel does not populate on request")
    assert grown >= LARGE * 0.9


def test_old_and_small_memory_is_left_alone() -> None:
    """It is not the model's."""
    assert populated(2 * LARGE, before=LARGE) < LARGE / 2


def test_no_more_is_populated_than_the_model_fills() -> None:
    """Peak memory stays that of the model, however large a new mapping is."""
    assert populated(LARGE // 3, after=LARGE) < LARGE / 2


def test_no_more_is_populated_than_a_little_ahead_of_what_was_read() -> None:
    """A large tensor in a temporary buffer meets weights that are not resident yet."""
    assert populated(LARGE, after=LARGE, read=0) < LARGE / 2


def test_closing_without_having_begun_is_fine() -> None:
    """A model may be refused before anything is read."""
    Prefault(LARGE).close()
