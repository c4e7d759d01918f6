# SPDX-License-Identifier: Apache-2.0
"""Tool calls and reasoning are found in growing text, and nothing that is neither gets lost."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton_enclave.api.chat_reader import ChatReader
from adyton_enclave.api.pieces import Choice
from adyton_enclave.api.reasoning import ReasoningSplitter
from adyton_enclave.api.tool_calls import Arguments, CallParser, CallStart, Part, Text
from adyton_enclave.engine import Finished, TextDelta, TokenLogprob, Usage
from adyton_enclave.engine.dialect import ToolFormat

NAMES = ("get", "get_weather")
WEATHER = '{"city": "Thebes", "x": ["}", "\\"{"]}'
UNDECLARED = '<tool_call>{"name": "rm", "arguments": {}}'
NO_OBJECT = '<tool_call>{"name": "get", "arguments": "x"}'
TWO_CALLS = (
    f'Well.\n<tool_call>{{"name":"get_weather","arguments":{WEATHER}}}</tool_call>\n'
    '<tool_call>\n{"name": "get", "arguments": {"a": 1}}\n</tool_call>\n'
)
FRAGMENTS = st.sampled_from(
    [
        "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "<tool_", "call>", "\n", " ",
        "{", "}", "[", "]",
        ",", '"', '{"name": "get", "arguments": ', '{"name": "get", "parameters": ', '"name"', ": ", "get_weather",
        '"arguments"', WEATHER, "{}", "\\", "hello", "<", "é", '{"name": "other", "arguments": {}}',
    ]
)  # fmt: skip
TEXTS = st.lists(FRAGMENTS, max_size=14).map("".join)
FORMATS = st.sampled_from(list(ToolFormat))


def cut(text: str, places: list[int]) -> list[str]:
    """The text in pieces."""
    ends = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[a:b] for a, b in pairwise(ends)]


def parse(tool_format: ToolFormat, pieces: list[str]) -> tuple[str, list[tuple[str, str]]]:
    """Text and calls, gathered."""
    parser = CallParser(tool_format, NAMES)
    parts: list[Part] = [part for piece in pieces for part in parser.push(piece)] + parser.finish()
    text, calls = "", list[tuple[str, str]]()
    for part in parts:
        match part:
            case Text():
                text += part.text
            case CallStart():
                calls.append((part.name, ""))
            case Arguments():
                calls[-1] = (calls[-1][0], calls[-1][1] + part.text)
    assert parser.calls == len(calls)
    return text, calls


@pytest.mark.parametrize(
    ("tool_format", "text", "said", "calls"),
    [
        (ToolFormat.HERMES, '<tool_call>\n{"name": "get", "arguments": {}}\n</tool_call>', "", [("get", "{}")]),
        (ToolFormat.HERMES, TWO_CALLS, "Well.\n", [("get_weather", WEATHER), ("get", '{"a": 1}')]),
        (ToolFormat.HERMES, '\n<tool_call>{"name": "get", "arguments": {"a', "", [("get", '{"a')]),
        (ToolFormat.HERMES, '<tool_call>\n{"name": "ge', '<tool_call>\n{"name": "ge', []),
        (ToolFormat.HERMES, UNDECLARED, UNDECLARED, []),
        (ToolFormat.HERMES, "a <tool_call> b </tool_call>", "a <tool_call> b </tool_call>", []),
        (ToolFormat.HERMES, NO_OBJECT, NO_OBJECT, []),
        (ToolFormat.HERMES, '{"name": "get", "arguments": {}}', '{"name": "get", "arguments": {}}', []),
        (
            ToolFormat.MISTRAL,
            '[TOOL_CALLS][{"name": "get", "arguments": {}}, {"name": "get", "arguments": {"b": []}}]',
            "",
            [("get", "{}"), ("get", '{"b": []}')],
        ),
        (ToolFormat.MISTRAL, "see [TOOL_CALLS] here", "see [TOOL_CALLS] here", []),
        (ToolFormat.LLAMA3, '{"name": "get", "parameters": {}}', "", [("get", "{}")]),
        (ToolFormat.LLAMA3, '<|python_tag|>{"name": "get", "parameters": {}}', "", [("get", "{}")]),
        (ToolFormat.LLAMA3, '{"name": "Ann", "age": 3}', '{"name": "Ann", "age": 3}', []),
        (ToolFormat.LLAMA3, 'No: {"name": "get", "parameters": {}}', 'No: {"name": "get", "parameters": {}}', []),
        (ToolFormat.GENERIC, "  \n", "  \n", []),
    ],
)  # fmt: skip
def test_calls_are_found(tool_format: ToolFormat, text: str, said: str, calls: list[tuple[str, str]]) -> None:
    """Whole, or character by character."""
    assert parse(tool_format, [text]) == (said, calls)
    assert parse(tool_format, list(text)) == (said, calls)


@given(FORMATS, TEXTS, st.lists(st.integers(0, 500), max_size=8))
def test_pieces_make_no_difference(tool_format: ToolFormat, text: str, places: list[int]) -> None:
    """A stream says what the whole answer says."""
    assert parse(tool_format, cut(text, places)) == parse(tool_format, [text])


@given(FORMATS, TEXTS)
def test_text_without_calls_comes_back_unchanged(tool_format: ToolFormat, text: str) -> None:
    """Whatever it looks like. With calls, what is missing is the calls, their syntax and white space."""
    said, calls = parse(tool_format, list(text))
    if not calls:
        assert said == text
    for name, arguments in calls:
        assert f'"{name}"' in text
        assert arguments in text
    letters = [character for character in said if character not in " \n"]
    remaining = iter(text)
    assert all(character in remaining for character in letters), "text is kept in order"


def split(pieces: list[str], *, open_already: bool) -> tuple[str, str]:
    """Reasoning and answer, gathered."""
    splitter = ReasoningSplitter(("<think>", "</think>"), open_already=open_already)
    parts = [splitter.push(piece) for piece in pieces] + [splitter.finish()]
    return "".join(part[0] for part in parts), "".join(part[1] for part in parts)


@pytest.mark.parametrize(
    ("text", "open_already", "reasoning", "answer"),
    [
        ("<think>\nI see. \n</think>\n\nYes.", False, "I see.", "Yes."),
        ("I see.</think>Yes.", True, "I see.", "Yes."),
        ("Yes. <think> is a word", False, "", "Yes. <think> is a word"),
        ("  Yes.", False, "", "  Yes."),
        ("\n<think>\n\n</think>\n\nYes.", False, "", "Yes."),
        ("<think>and so on, </thin", False, "and so on, </thin", ""),
        ("a </think> b </think> c", True, "a", "b </think> c"),
        ("<thi", False, "", "<thi"),
        ("", True, "", ""),
    ],
)
def test_reasoning_is_split_off(text: str, open_already: bool, reasoning: str, answer: str) -> None:
    """At the start of an answer or nowhere; white space around the marks goes, all else stays."""
    assert split([text], open_already=open_already) == (reasoning, answer)
    assert split(list(text), open_already=open_already) == (reasoning, answer)


THOUGHTS = st.lists(
    st.sampled_from(["<think>", "</think>", "<thi", "nk>", "</", "\n", " ", "word", "é"]), max_size=10
).map("".join)


@given(THOUGHTS, st.booleans(), st.lists(st.integers(0, 200), max_size=6))
def test_reasoning_does_not_depend_on_pieces(text: str, open_already: bool, places: list[int]) -> None:
    """However the text is cut; and apart from one pair of marks and white space, nothing is lost."""
    whole = split([text], open_already=open_already)
    assert split(cut(text, places), open_already=open_already) == whole
    kept = "".join("".join(whole).split())
    squeezed = "".join(text.split())
    without = squeezed if open_already else squeezed.removeprefix("<think>")
    assert kept in {squeezed, without, without.replace("</think>", "", 1)}


USAGE = Usage(prompt_tokens=1, completion_tokens=1)


def reader() -> ChatReader:
    """A reader for a reasoning model with tools."""
    ids = iter(range(100))
    return ChatReader(
        splitter=lambda: ReasoningSplitter(("<think>", "</think>"), open_already=False),
        parser=lambda: CallParser(ToolFormat.HERMES, NAMES),
        new_call_id=lambda: f"call_{next(ids)}",
    )


def read(pieces: list[str], reason: str = "stop", *, join: bool = False) -> tuple[Choice, int]:
    """Run tokens of these texts through the reader; ``join`` as if nobody had read the stream in between."""
    tokens = [
        TextDelta(
            index=0,
            text=piece,
            logprobs=(TokenLogprob(token=piece, bytes=piece.encode(), logprob=-1.0, top=()),),
            steps=((len(piece), at + 1),),
        )
        for at, piece in enumerate(pieces)
    ]
    if join and tokens:
        tokens = [
            TextDelta(
                index=0,
                text="".join(pieces),
                logprobs=tuple(token.logprobs[0] for token in tokens),
                steps=tuple(token.steps[0] for token in tokens),
            )
        ]
    choice = Choice()
    wanted = reader()
    for event in (*tokens, Finished(index=0, finish_reason=reason, usage=USAGE)):  # type: ignore[arg-type]
        for piece in wanted.read(event):
            choice.add(piece)
    return choice, wanted.reasoning_tokens


def test_an_answer_of_everything() -> None:
    """Reasoning, text, two calls; the finish reason says that tools were called; every token is reported."""
    text = (
        "<think>\nhm\n</think>\n\nI ask. "
        '<tool_call>\n{"name": "get", "arguments": {"a": 1}}\n</tool_call>\n'
        f'<tool_call>\n{{"name": "get_weather", "arguments": {WEATHER}}}\n</tool_call>'
    )
    for join in (False, True):
        choice, reasoning_tokens = read(list(text), join=join)
        assert "".join(choice.reasoning) == "hm"
        assert "".join(choice.text) == "I ask. "
        assert [(call.name, "".join(call.arguments)) for call in choice.tool_calls] == [
            ("get", '{"a": 1}'),
            ("get_weather", WEATHER),
        ]
        assert len({call.call_id for call in choice.tool_calls}) == 2
        assert choice.finish_reason == "tool_calls"
        assert "".join(entry.token for entry in choice.logprobs) == text
        assert reasoning_tokens == len("<think>\nhm\n</think>")


def test_a_cut_off_call_says_length() -> None:
    """Its arguments are as far as they came."""
    choice, _ = read(list('<tool_call>\n{"name": "get", "arguments": {"a'), "length")
    assert "".join(choice.tool_calls[0].arguments) == '{"a'
    assert choice.finish_reason == "length"


@given(st.lists(FRAGMENTS | st.sampled_from(["<think>", "</think>"]), max_size=12))
def test_unread_tokens_may_be_joined(pieces: list[str]) -> None:
    """What comes out, tokens of reasoning included, is the same."""
    one, counted = read(pieces)
    other, counted_joined = read(pieces, join=True)
    assert ("".join(one.text), "".join(one.reasoning)) == ("".join(other.text), "".join(other.reasoning))
    assert [(call.name, "".join(call.arguments)) for call in one.tool_calls] == [
        (call.name, "".join(call.arguments)) for call in other.tool_calls
    ]
    assert one.logprobs == other.logprobs
    assert counted == counted_joined
    for call in one.tool_calls:
        assert call.name in NAMES
        if one.finish_reason == "tool_calls" and "".join(call.arguments) == WEATHER:
            json.loads("".join(call.arguments))
