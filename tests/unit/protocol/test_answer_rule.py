# SPDX-License-Identifier: Apache-2.0
"""The rule by which answers are read, as it stands in requests and transcripts."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton_protocol.answers import AnswerRule
from adyton_protocol.answers.limits import MAX_FIELD_CHARACTERS
from adyton_protocol.answers.rule import EQUIVALENCES, EXTRACTS
from adyton_protocol.errors import InvalidRequest, LocalProtocolError, ReceiptError

RULES = st.builds(
    AnswerRule,
    extract=st.sampled_from(["auto", "field"]),
    field=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="~"), max_size=20),
    equivalence=st.sampled_from(EQUIVALENCES),
) | st.builds(
    AnswerRule,
    extract=st.sampled_from([extract for extract in EXTRACTS if extract != "field"]),
    equivalence=st.sampled_from(EQUIVALENCES),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=12), values, max_size=4),
)


@given(RULES)
def test_a_rule_survives_being_written_and_read(rule: AnswerRule) -> None:
    """What stands in a transcript is the rule that was asked for."""
    document = json.loads(json.dumps(rule.as_json()))
    assert AnswerRule.parse(document, path="answer", error=ReceiptError) == rule


def test_what_is_left_out_or_null_has_its_default() -> None:
    """An empty object is the default rule."""
    for document in ({}, {"extract": None, "field": None, "equivalence": None}):
        assert AnswerRule.parse(document, path="answer", error=ReceiptError) == AnswerRule()


@pytest.mark.parametrize(
    "document",
    [
        None, [], "auto", 7, {"extract": "guess"}, {"extract": 1}, {"extract": ["auto"]}, {"extract": {}},
        {"equivalence": "sympy"}, {"equivalence": False}, {"unknown": 1}, {"extract": "field"}, {"field": 7},
        {"field": "a" * (MAX_FIELD_CHARACTERS + 1)}, {"field": "\ud800"}, {"field": "/a~2"}, {"field": "/~"},
        {"field": "a", "extract": "boxed"}, {"field": "a", "extract": "whole"},
    ],
)  # fmt: skip
def test_a_rule_that_means_nothing_is_refused(document: object) -> None:
    """The class of error is the caller's, the member at fault is named and its value is not."""
    for error in (InvalidRequest, ReceiptError):
        with pytest.raises(error, match=r"^scaling\.answer") as caught:
            AnswerRule.parse(document, path="scaling.answer", error=error)
        assert len(str(caught.value)) < 200
        assert "aaa" not in str(caught.value)
        assert "sympy" not in str(caught.value)


@given(JSON | st.fixed_dictionaries({}, optional={"extract": JSON, "field": JSON, "equivalence": JSON}))
def test_any_json_is_a_rule_or_the_callers_error(document: object) -> None:
    """No value raises anything else."""
    try:
        AnswerRule.parse(document, path="answer", error=InvalidRequest)
    except InvalidRequest:
        return
    assert isinstance(document, dict)


def test_code_cannot_make_a_rule_that_a_request_could_not_ask_for() -> None:
    """The same check guards construction."""
    with pytest.raises(LocalProtocolError):
        AnswerRule(extract="field")
    with pytest.raises(LocalProtocolError):
        AnswerRule(extract="guess")  # type: ignore[arg-type]


def test_a_pointer_may_escape_and_a_name_need_not() -> None:
    """The tilde escapes only in pointers."""
    assert AnswerRule(field="/a~1b~0").field == "/a~1b~0"
    assert AnswerRule(field="a~b").field == "a~b"
