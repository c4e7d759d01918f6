# SPDX-License-Identifier: Apache-2.0
"""Requests with tools and templates' switches: parsed at the edge, and put as each dialect wants them."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.enclave.harness import CHAT, FakeModel

from adyton_enclave.api.chat_request import parse_chat_request
from adyton_enclave.api.chat_task import ChatTask, prepare_chat
from adyton_enclave.api.generate import Served
from adyton_enclave.api.template_options import TemplateOptions
from adyton_enclave.api.tool_prompt import with_tools
from adyton_enclave.api.tools import Tool, ToolChoice
from adyton_enclave.api.types import RequestLimits
from adyton_enclave.engine.dialect import Dialect, ToolFormat
from adyton_protocol.errors import InvalidRequest

LIMITS = RequestLimits(max_candidates=16, max_prompts=4)
F = {"type": "function", "function": {"name": "f"}}
G = {"type": "function", "function": {"name": "g", "description": "G.", "strict": True}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}


def chat(**extra: object) -> ChatTask:
    """Parse a chat request."""
    return parse_chat_request(json.dumps(CHAT | extra).encode(), LIMITS)


def allowed(**names: object) -> dict[str, object]:
    """A choice among some of the tools."""
    return {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [F]} | names}


@pytest.mark.parametrize(
    ("choice", "names", "meaning"),
    [
        (None, ["f", "g"], ToolChoice.AUTO),
        ("auto", ["f", "g"], ToolChoice.AUTO),
        ("required", ["f", "g"], ToolChoice.REQUIRED),
        ({"type": "function", "function": {"name": "g"}}, ["g"], ToolChoice.REQUIRED),
        (allowed(), ["f"], ToolChoice.REQUIRED),
        (allowed(mode="auto"), ["f"], ToolChoice.AUTO),
    ],
)
def test_who_may_be_called(choice: object, names: list[str], meaning: ToolChoice) -> None:
    """Every way to choose."""
    tools = chat(tools=[F, G], tool_choice=choice).tools
    assert tools is not None
    assert [tool.name for tool in tools.tools] == names
    assert tools.choice is meaning
    assert tools.parallel


@pytest.mark.parametrize(
    "extra", [{}, {"tools": []}, {"tools": [F], "tool_choice": "none"}, {"tool_choice": "none"}]
)
def test_nobody_may_be_called(extra: dict[str, object]) -> None:
    """No tools, or none wanted."""
    assert chat(**extra).tools is None


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"tools": [1]}, "tools[0]"),
        ({"tools": [{"type": "custom"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "f", "x": 1}}]}, "tools[0].function.x"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]},
            "tools[0].function.parameters",
        ),
        ({"tools": [F, F]}, "tools"),
        ({"tools": [F] * 129}, "tools"),
        ({"tools": [F], "tool_choice": "maybe"}, "tool_choice"),
        ({"tools": [F], "tool_choice": {"type": "function", "function": {"name": "h"}}}, "tool_choice"),
        ({"tools": [F], "tool_choice": {"type": "function"}}, "tool_choice.function"),
        ({"tools": [F], "tool_choice": allowed(tools=[])}, "tool_choice"),
        ({"tools": [F], "tool_choice": allowed(mode="x")}, "tool_choice.allowed_tools.mode"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [F], "parallel_tool_calls": 1}, "parallel_tool_calls"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema.name"),
        ({"response_format": {"type": "text", "x": 1}}, "response_format.x"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
        ({"chat_template_kwargs": {"a": []}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {str(i): 1 for i in range(17)}}, "chat_template_kwargs"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "assistant", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "assistant", "tool_calls": [1]}]}, "messages[0].tool_calls[0]"),
        ({"messages": [{"role": "assistant", "tool_calls": [CALL | {"id": None}]}]}, "messages[0].tool_calls[0].id"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": [CALL]}]}, "messages[0].tool_calls"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(extra: dict[str, object], param: str) -> None:
    """With its whole path."""
    with pytest.raises(InvalidRequest) as caught:
        chat(**extra)
    assert caught.value.param == param


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from([F, G, CALL, "auto", "tool"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["type", "function", "name", "arguments", "role", "content", "tool_calls", "id", "tool_call_id", "schema",
             "parameters", "json_schema", "allowed_tools", "mode", "tools", "x"]
        ), inner, max_size=4,
    ),
    max_leaves=10,
)  # fmt: skip
NAMES = st.sampled_from(["messages", "tools", "tool_choice", "response_format", "chat_template_kwargs"])


@given(st.dictionaries(NAMES, JSON | st.lists(JSON, max_size=3), max_size=4))
def test_anything_is_parsed_or_refused(extra: dict[str, object]) -> None:
    """Nothing else can come of nearly valid requests."""
    with contextlib.suppress(InvalidRequest):
        chat(**extra)


MESSAGES = [
    {"role": "user", "content": "go"},
    {"role": "assistant", "content": "Well.", "tool_calls": [CALL, CALL | {"id": "123456789"}]},
    {"role": "tool", "tool_call_id": "call_1", "content": "one"},
    {"role": "tool", "tool_call_id": "123456789", "content": "two"},
]


def put(tool_format: ToolFormat, *, system_role: bool = True) -> tuple[list[dict[str, object]], object]:
    """The conversation as a dialect wants it."""
    task = chat(messages=MESSAGES, tools=[F, G])
    assert task.tools is not None
    dialect = Dialect(tool_format=tool_format, control_ids={}, system_role=system_role)
    messages, definitions = with_tools(task.messages, task.tools.tools, dialect)
    return [dict(message) for message in messages], definitions


def test_templates_with_tools_get_them_as_they_are() -> None:
    """Definitions beside the messages, arguments as objects."""
    messages, definitions = put(ToolFormat.HERMES)
    assert messages[1]["tool_calls"][0]["function"]["arguments"] == {"a": 1}  # type: ignore[index]
    assert [item["function"]["name"] for item in definitions] == ["f", "g"]  # type: ignore[attr-defined]


def test_mistral_wants_ids_of_nine() -> None:
    """The same new one in the call and in its result; one that fits stays."""
    messages, _ = put(ToolFormat.MISTRAL)
    ids = [call["id"] for call in messages[1]["tool_calls"]]  # type: ignore[attr-defined]
    assert ids == [message["tool_call_id"] for message in messages[2:]]
    assert [len(call_id) for call_id in ids] == [9, 9]
    assert ids[1] == "123456789"


def test_other_templates_get_text() -> None:
    """Tools in the system message, calls in the assistant's, results as the user's."""
    messages, definitions = put(ToolFormat.GENERIC)
    assert definitions is None
    system, user, assistant, results = messages
    assert (system["role"], user["content"], results["role"]) == ("system", "go", "user")
    assert '"name": "g"' in str(system["content"])
    line = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
    assert assistant == {"role": "assistant", "content": f"Well.\n{line}\n{line}"}
    assert results["content"] == (
        "<tool_response>\none\n</tool_response>\n<tool_response>\ntwo\n</tool_response>"
    )
    messages, _ = put(ToolFormat.GENERIC, system_role=False)
    assert messages[0]["role"] == "user"
    assert str(messages[0]["content"]).endswith("\n\ngo")


def test_arguments_that_broke_off_stay_text() -> None:
    """An answer that was cut by its length can be sent back."""
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a'}}
    task = chat(messages=[{"role": "assistant", "content": None, "tool_calls": [call]}])
    assert task.messages[0]["tool_calls"][0]["function"]["arguments"] == '{"a'  # type: ignore[index]


@pytest.mark.parametrize(
    ("options", "variables", "resolved", "ignored"),
    [
        (TemplateOptions(effort="low"), {"reasoning_effort"}, {"reasoning_effort": "low"}, ()),
        (TemplateOptions(effort="none"), {"enable_thinking"}, {"enable_thinking": False}, ()),
        (TemplateOptions(effort="high"), {"thinking"}, {"thinking": True}, ()),
        (TemplateOptions(effort="high"), set(), {}, ("reasoning_effort",)),
        (TemplateOptions(extra={"a": 1}), {"a"}, {"a": 1}, ()),
        (TemplateOptions(extra={"a": 1, "b": 2}), {"a"}, {"a": 1}, ("chat_template_kwargs",)),
        (TemplateOptions(extra={"messages": 1}), {"messages"}, {}, ("chat_template_kwargs",)),
        (
            TemplateOptions(effort="none", extra={"thinking": True}),
            {"thinking"},
            {"thinking": True},
            (),
        ),
    ],
)
def test_switches_reach_templates_that_have_them(
    options: TemplateOptions, variables: set[str], resolved: dict[str, object], ignored: tuple[str, ...]
) -> None:
    """Others are named as ignored, and nothing replaces what the template itself is given."""
    dialect = Dialect(control_ids={}, variables=frozenset(variables))
    assert options.resolve(dialect) == (resolved, ignored)


async def test_earlier_reasoning_is_cut_off() -> None:
    """Of the assistant's messages only: a user may write about marks."""
    model = FakeModel(dialect=Dialect(reasoning=("<think>", "</think>"), control_ids={}))
    served = Served(model=model, max_tokens=8, license="")
    messages = [
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes."},
        {"role": "user", "content": "What is </think>?"},
    ]
    prepared = await prepare_chat(chat(messages=messages), served, bytes)
    assert bytes(prepared.prompt) == b"<assistant>Yes.<user>What is </think>?"


def test_a_tool_is_shown_as_it_was_defined() -> None:
    """Without parameters it takes none."""
    tool = Tool(name="f", description=None, parameters={"type": "object"}, strict=False)
    assert tool.definition() == {
        "type": "function",
        "function": {"name": "f", "description": "", "parameters": {"type": "object"}},
    }
