# SPDX-License-Identifier: Apache-2.0
"""Engines with a generator and a scorer, stopped whatever happens."""

from collections.abc import Iterator

import pytest
from search_engines import Files, Pair, Start, make_files


@pytest.fixture(scope="session")
def search_files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A generator and a scorer."""
    return make_files(tmp_path_factory.mktemp("search"))


@pytest.fixture
def start_pair(search_files: Files) -> Iterator[Start]:
    """Start engines with both."""
    pairs: list[Pair] = []

    def start(**settings: object) -> Pair:
        pairs.append(search_files.start(**settings))
        return pairs[-1]

    yield start
    for pair in pairs:
        pair.engine.stop()
