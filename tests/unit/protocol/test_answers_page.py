# SPDX-License-Identifier: Apache-2.0
"""The page about answers says what the code does."""

import re
from pathlib import Path

import pytest

from adyton_protocol.answers import AnswerRule, limits, read_answer
from adyton_protocol.answers.rule import EQUIVALENCES, EXTRACTS

PAGE = (Path(__file__).parents[3] / "docs" / "answers.md").read_text()
ROWS = re.findall(r"^\| (`.+`) \| `([a-z]+:.+)` \|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("written", "key"), ROWS)
def test_every_spelling_of_the_table_has_the_key_beside_it(written: str, key: str) -> None:
    """In a box, behind a statement, and alone."""
    spellings = re.findall(r"`([^`]+)`", written)
    assert spellings
    for spelling in spellings:
        found = read_answer(spelling, AnswerRule(extract="whole"))
        assert (found and found.key) == key, spelling


def test_every_rule_is_explained() -> None:
    """No value of a rule is missing from the page, and there are rows to check."""
    for name in (*EXTRACTS, *EQUIVALENCES):
        assert f"`{name}`" in PAGE
    assert len(ROWS) > 20


def test_the_bounds_are_those_of_the_code() -> None:
    """The numbers of the page are the constants."""
    assert limits.MAX_TEXT_CHARACTERS == 2**18
    assert limits.MAX_JSON_CHARACTERS == 2**16
    for value in (
        limits.MAX_ANSWER_CHARACTERS,
        limits.MAX_JSON_DEPTH,
        limits.MAX_DIGITS,
        limits.MAX_EXPONENT,
        limits.MAX_NESTING,
        limits.MAX_ITEMS,
        limits.MAX_KEY_CHARACTERS,
    ):
        assert re.search(rf"\b{value}\b", PAGE)
