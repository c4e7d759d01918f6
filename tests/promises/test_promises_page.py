# SPDX-License-Identifier: Apache-2.0
"""The page that lists promises, tests and lines says what is true today."""

from pathlib import Path

import pytest

from prove import Mutation, load, table

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_shows_the_table() -> None:
    """docs/promises.md holds the table that mutations.toml gives."""
    assert table(load()) in (ROOT / "docs" / "promises.md").read_text()


@pytest.mark.parametrize("mutation", load(), ids=lambda mutation: mutation.name)
def test_every_line_is_there_exactly_once(mutation: Mutation) -> None:
    """Each protecting line stands exactly once where the table says, and the named test exists."""
    assert (ROOT / mutation.file).read_text().count(mutation.line) == 1
    path, _, name = mutation.test.partition("::")
    assert not name or f"def {name.partition('[')[0]}(" in (ROOT / path).read_text()


def test_every_promise_has_a_row() -> None:
    """No promise is left to trust."""
    assert {mutation.promise for mutation in load()} == set(range(1, 9))
