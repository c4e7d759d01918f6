# SPDX-License-Identifier: Apache-2.0
"""What holds of the reading of every text, hostile ones first."""

import importlib
import json
import pkgutil
import re
import sys
import unicodedata
from fractions import Fraction
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any, get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import adyton_protocol.answers
from adyton_protocol.answers import Answer, AnswerRule, Equivalence, classes, read_answer
from adyton_protocol.answers.canonical import key_of
from adyton_protocol.answers.json_answer import canonical_form, parsed
from adyton_protocol.answers.limits import (
    MAX_ANSWER_CHARACTERS,
    MAX_JSON_DEPTH,
    MAX_KEY_CHARACTERS,
    MAX_TEXT_CHARACTERS,
)
from adyton_protocol.answers.rule import EQUIVALENCES, EXTRACTS
from adyton_protocol.answers.spelling import folded, settled

_WORDS = r"""
    \boxed{ \fbox{ \frac{ \frac12 \dfrac \text{ \left \right \{ \} \pm \infty \cup \times \overline{ \circ \$
    \% \, \! \( \[ \\ \ { } ( ) [ ] , ; : . .. ... = + - * / ^ _ ^{ ^2 % $ # ! ? ' " ` ** ``` ```json 0 1 7 12 1,234 0.5
    1e3 1e999 10^ 2^{10} 1/2 x B (B) B) A. and or a b e E inf km m/s
    m^2 square meters per degrees Celsius percent apples
    million dozen The answer is answer: not because text: set:{ json: null true {"a": "a" [1, ] ~ & @ < > |
"""
_SIGNS = (
    " ", "  ", "\n", "\t", "\xa0", "\u200b", "\u0301", "\ud800", "\x00", "\u1c90", "\u3000", "\xbd", "\xb2", "\u207b",
    "\u2082", "\u2212", "\u2013", "\u221e", "\xb1", "\xd7", "\xb7", "\u222a", "\u2205", "\u2248", "\xb0", "\u2103",
    "\xb5", "\u03a9", "\xdf", "\u017f", "\u0130", "\ufb01", "\ufdfa", "\u0663", "\uff11", "\uff0c",
    "\u2264", "\U0001f642",
)  # fmt: skip
PIECES = st.sampled_from([*_WORDS.split(), *_SIGNS])
TEXTS = st.lists(PIECES, max_size=14).map("".join) | st.text(max_size=40)
RULES = st.builds(
    AnswerRule,
    extract=st.sampled_from([extract for extract in EXTRACTS if extract != "field"]),
    equivalence=st.sampled_from(EQUIVALENCES),
) | st.builds(
    AnswerRule,
    extract=st.sampled_from(["auto", "field"]),
    field=st.sampled_from(["", "a", "/a", "/0", "/a/b/0"]),
    equivalence=st.sampled_from(EQUIVALENCES),
)


@given(TEXTS, st.sampled_from(get_args(Equivalence)))
@example("{(1,2),(3,4)}", "auto")
@example("1, 234", "auto")
@example("[7]", "auto")
@example("7 KM", "auto")
@example("2\u2103", "auto")
def test_a_canonical_form_is_its_own_canonical_form(text: str, equivalence: Equivalence) -> None:
    """Reading a key's form gives the key, so that a class can be named by a form that anybody can read."""
    key = key_of(text, equivalence)
    if key is not None and "-sha256:" not in key:
        assert key_of(key.partition(":")[2], equivalence) == key


@given(TEXTS, RULES)
def test_any_text_is_read_or_abstains(text: str, rule: AnswerRule) -> None:
    """Nothing raises, and everything is bounded and encodable."""
    found = read_answer(text, rule)
    assert found == read_answer(text, rule)
    if found is not None:
        assert 0 < len(found.key.encode()) <= 4 * MAX_KEY_CHARACTERS
        assert len(found.shown) <= MAX_ANSWER_CHARACTERS
        assert len(found.key) <= MAX_KEY_CHARACTERS


@settings(max_examples=10)
@given(TEXTS, RULES)
def test_only_the_end_of_a_text_counts(text: str, rule: AnswerRule) -> None:
    """What stands before the last quarter of a million characters cannot be seen, so it cannot cost anything."""
    filler = "." * (MAX_TEXT_CHARACTERS - len(text))
    for before in ("", "The answer is 5. ", r"\boxed{6}"):
        assert read_answer(before + filler + text, rule) == read_answer(filler + text, rule)


@given(TEXTS)
def test_simplifying_settles_or_the_text_is_no_answer(text: str) -> None:
    """What has settled stays what it is."""
    for simplify in (settled, folded):
        plain = simplify(text)
        assert plain is None or simplify(plain) == plain


@given(TEXTS, TEXTS)
def test_keys_of_different_kinds_never_meet(one: str, other: str) -> None:
    """A text cannot be written so that its key is that of a number."""
    key = key_of(one, "text")
    assert key is None or key.startswith(("text:", "text-sha256:"))
    number = key_of(other, "number")
    assert number is None or re.fullmatch(r"number:(-?[0-9]+(/[0-9]+)?|-?inf)", number, re.ASCII)


@given(st.lists(st.none() | st.sampled_from(["1", "2.0", "2", r"\frac{2}{1}", "x"]), max_size=20))
def test_classes_partition_the_answers(texts: list[str | None]) -> None:
    """Every answer is in exactly one class, with its equals; None is in none."""
    rule = AnswerRule(extract="whole")
    answers = [None if text is None else read_answer(text, rule) for text in texts]
    grouped = classes(answers)
    members = sorted(place for each in grouped for place in each.members)
    assert members == [place for place, answer in enumerate(answers) if answer is not None]
    for each in grouped:
        assert {answer.key for place in each.members if (answer := answers[place]) is not None} == {each.key}
        assert isinstance(answers[each.members[0]], Answer)


def test_shuffled_answers_form_the_same_classes() -> None:
    """Only the order of the classes depends on the order of the answers."""
    rule = AnswerRule(extract="whole")
    answers = [read_answer(text, rule) for text in ("1", "x", "1.0", "7 km", "7", "2/2")]
    turned = {each.key: {5 - place for place in each.members} for each in classes(answers[::-1])}
    assert turned == {each.key: set(each.members) for each in classes(answers)}


def patterns() -> dict[str, re.Pattern[str]]:
    """Every compiled expression of the package."""
    found = {}
    for module in pkgutil.iter_modules(adyton_protocol.answers.__path__, "adyton_protocol.answers."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, re.Pattern):
                found[f"{module.name}.{name}"] = value
    return found


def loops(parsed_pattern: Any, *, within: bool = False) -> list[bool]:
    """For each unbounded repetition, whether it stands within another one."""
    found: list[bool] = []
    for operation, argument in parsed_pattern:
        unbounded = within
        if operation in {_constants.MAX_REPEAT, _constants.MIN_REPEAT, _constants.POSSESSIVE_REPEAT}:
            unbounded = within or argument[1] is _constants.MAXREPEAT
            if argument[1] is _constants.MAXREPEAT:
                found.append(within)
        pieces = argument if isinstance(argument, list | tuple) else [argument]
        for piece in pieces:
            for inner in piece if isinstance(piece, list) else [piece]:
                if isinstance(inner, _parser.SubPattern):
                    found += loops(inner, within=unbounded)
    return found


@pytest.mark.parametrize("name", sorted(patterns()))
def test_no_expression_repeats_a_repetition_without_end(name: str) -> None:
    """A loop within a loop is how an expression takes quadratic or exponential time; none is there to begin with."""
    pattern = patterns()[name]
    assert not any(loops(_parser.parse(pattern.pattern, pattern.flags)))


def test_the_search_for_loops_finds_them() -> None:
    """The check above is not blind."""
    assert any(loops(_parser.parse(r"x(?:[ab]+c)*")))
    assert not any(loops(_parser.parse(r"a+(?:b{1,3}c)*")))


@pytest.mark.parametrize("name", sorted(patterns()))
def test_no_expression_means_another_thing_under_another_unicode(name: str) -> None:
    """Classes such as word characters, and matching without case, are those of ASCII."""
    pattern = patterns()[name]
    if re.search(r"\\[wWdDsSbB]", pattern.pattern) or pattern.flags & re.IGNORECASE:
        assert pattern.flags & re.ASCII


def test_characters_younger_than_unicode_3_2_stay_what_they_are() -> None:
    """Python 3.11 and 3.13 know different versions of Unicode, and have to read the same."""
    assigned_by_us = "\ufe0e\ufe0f\u2150\u2151\u2152"
    young = [
        chr(code)
        for code in range(0x20, sys.maxunicode + 1)
        if unicodedata.ucd_3_2_0.category(chr(code)) == "Cn" and chr(code) not in assigned_by_us
    ]
    assert len(young) > 800_000
    for start in range(0, len(young), 500):
        text = f"q{''.join(young[start : start + 500])}q"
        assert folded(text) == text


def test_json_is_refused_for_its_depth_before_it_is_parsed() -> None:
    """How deep Python's parser goes depends on the stack that is left, so it is never asked."""
    rule = AnswerRule(equivalence="json")

    def at_depth(frames: int, text: str) -> Answer | None:
        return at_depth(frames - 1, text) if frames else read_answer(text, rule)

    for depth in (MAX_JSON_DEPTH, MAX_JSON_DEPTH + 1, 100_000):
        text = "[" * depth + "]" * depth
        assert at_depth(0, text) == at_depth(600, text)
        assert (at_depth(0, text) is None) == (depth > MAX_JSON_DEPTH)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=9),
        lambda values: (
            st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=9), values, max_size=3)
        ),
        max_leaves=12,
    ),
    st.sampled_from([None, 1, "\t"]),
)
def test_json_has_one_form_whatever_its_layout(value: Any, indent: int | str | None) -> None:
    """White space, order of members and escapes do not matter; values do."""

    def turned(part: Any) -> Any:
        if isinstance(part, dict):
            return {name: turned(part[name]) for name in reversed(part)}
        return [turned(each) for each in part] if isinstance(part, list) else part

    one = parsed(json.dumps(value))
    other = parsed(json.dumps(turned(value), indent=indent, ensure_ascii=False))
    assert canonical_form(one) == canonical_form(other)  # type: ignore[arg-type]
    exactly = {"parse_int": Fraction, "parse_float": Fraction}
    assert json.loads(canonical_form(one), **exactly) == json.loads(json.dumps(value), **exactly)  # type: ignore[arg-type]
