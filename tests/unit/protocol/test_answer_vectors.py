# SPDX-License-Identifier: Apache-2.0
"""The readings of answers that enclave and auditor have to share, as recorded in `tests/vectors/answers.json`."""

import json
from pathlib import Path
from typing import Any

import pytest

from adyton_protocol.answers import AnswerRule, classes, read_answer
from adyton_protocol.answers.limits import MAX_ANSWER_CHARACTERS, MAX_KEY_CHARACTERS
from adyton_protocol.errors import ReceiptError

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "answers.json").read_text())["vectors"]


def text_of(vector: dict[str, Any]) -> str:
    """The candidate's text; long ones are recorded as pieces and how often each is repeated."""
    text = vector["text"]
    return text if isinstance(text, str) else "".join(piece * times for piece, times in text)


def rule_of(vector: dict[str, Any]) -> AnswerRule:
    """The rule of a vector; most have the default one."""
    return AnswerRule.parse(vector.get("rule", {}), path="rule", error=ReceiptError)


@pytest.mark.parametrize("number", range(len(VECTORS)), ids=lambda number: f"line {number + 4}")
def test_every_recorded_text_is_read_as_recorded(number: int) -> None:
    """Key and source are those of the vector, or the text abstains."""
    vector = VECTORS[number]
    found = read_answer(text_of(vector), rule_of(vector))
    assert (found and found.key) == vector["key"]
    assert (found and str(found.source)) == vector.get("source")
    if found is not None:
        assert len(found.key) <= MAX_KEY_CHARACTERS
        assert len(found.shown) <= MAX_ANSWER_CHARACTERS
        assert found.guessed == (vector["source"] in {"last-number", "last-choice"})
        found.key.encode()


def test_classes_are_those_of_the_keys_in_order_of_first_appearance() -> None:
    """Grouping all vectors at once puts every one into the class of its key, and the others into none."""
    answers = [
        read_answer(text_of(vector), rule_of(vector)) for vector in VECTORS if "{" not in vector["text"]
    ]
    grouped = classes(answers)
    assert len({each.key for each in grouped}) == len(grouped)
    assert [each.members[0] for each in grouped] == sorted(each.members[0] for each in grouped)
    placed = {place: each.key for each in grouped for place in each.members}
    assert placed == {place: answer.key for place, answer in enumerate(answers) if answer is not None}
    assert all(list(each.members) == sorted(each.members) for each in grouped)


def test_nothing_of_an_answer_shows_in_its_representation() -> None:
    """Reprs end up in logs and tracebacks, answers must not."""
    found = read_answer(r"\boxed{42}", AnswerRule())
    assert found is not None
    assert "42" not in repr(found) + repr(classes([found]))
