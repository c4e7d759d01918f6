# SPDX-License-Identifier: Apache-2.0
"""Tools and JSON schemas through OpenAI's own Python SDK, unmodified, sealed to a running appliance.

The model is tiny and random, so whatever is well-formed here was made so by the grammar.
"""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel, Field

from appliance import Appliance
from tiny_appliance import TINY

MESSAGES: Any = [{"role": "user", "content": "hello"}]


class Weather(BaseModel):
    """What an answer has to be."""

    city: Literal["Thebes", "Delphi"]
    warm: bool
    degrees: int = Field(ge=-20, le=50)


TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather of a city.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"enum": ["Thebes", "Delphi"]},
                    "unit": {"enum": ["C", "F"]},
                },
                "required": ["city", "unit"],
                "additionalProperties": False,
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "ask_oracle",
            "parameters": {
                "type": "object",
                "properties": {"again": {"type": "boolean"}},
                "required": ["again"],
                "additionalProperties": False,
            },
        },
    },
]
NAMED: Any = {"type": "function", "function": {"name": "ask_oracle"}}


@pytest.fixture(scope="module")
def sdk(tiny_appliance: Appliance) -> Iterator[openai.OpenAI]:
    """The synchronous SDK."""
    with tiny_appliance.client() as client:
        yield client.openai()


@pytest.fixture
async def async_sdk(tiny_appliance: Appliance) -> AsyncIterator[openai.AsyncOpenAI]:
    """The asynchronous SDK."""
    async with tiny_appliance.async_client() as client:
        yield client.async_openai()


def check_weather(arguments: str) -> None:
    """Arguments are what the tool's schema demands."""
    given = json.loads(arguments)
    assert set(given) == {"city", "unit"}
    assert given["city"] in {"Thebes", "Delphi"}
    assert given["unit"] in {"C", "F"}


@pytest.mark.parametrize("seed", range(3))
def test_a_parsed_answer_is_an_object_of_its_class(sdk: openai.OpenAI, seed: int) -> None:
    """`parse` turns a pydantic class into a schema, and the answer into an object of it."""
    answer = sdk.chat.completions.parse(
        model=TINY, messages=MESSAGES, response_format=Weather, max_tokens=300, seed=seed
    )
    assert isinstance(answer.choices[0].message.parsed, Weather)
    assert answer.choices[0].finish_reason == "stop"


async def test_a_parsed_stream_is_an_object_of_its_class(async_sdk: openai.AsyncOpenAI) -> None:
    """The same, streamed and asynchronous."""
    async with async_sdk.chat.completions.stream(
        model=TINY, messages=MESSAGES, response_format=Weather, max_tokens=300, seed=1
    ) as stream:
        answer = await stream.get_final_completion()
    assert isinstance(answer.choices[0].message.parsed, Weather)


def test_json_mode_answers_with_an_object(sdk: openai.OpenAI) -> None:
    """`json_object` gives some JSON object, as long as it is allowed to end."""
    answer = sdk.chat.completions.create(
        model=TINY, messages=MESSAGES, response_format={"type": "json_object"}, max_tokens=400,
        logit_bias={str(5 + ord("}")): 100}, seed=1,
    )  # fmt: skip
    assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)


def test_a_schema_that_cannot_be_enforced_is_refused(sdk: openai.OpenAI) -> None:
    """A caller is told before any work, not by an answer that breaks the schema."""
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.chat.completions.create(
            model=TINY,
            messages=MESSAGES,
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"type": "object", "not": {}}},
            },
        )
    assert str(refused.value.param).startswith("response_format")


def test_a_required_tool_is_called(sdk: openai.OpenAI) -> None:
    """`required` leaves no answer but a call, with arguments of the tool's schema."""
    answer = sdk.chat.completions.create(
        model=TINY, messages=MESSAGES, tools=TOOLS[:1], tool_choice="required", parallel_tool_calls=False,
        max_tokens=300, seed=1,
    )  # fmt: skip
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls or ()
    assert call.type == "function"
    assert call.id
    assert call.function.name == "get_weather"
    check_weather(call.function.arguments)


def test_a_named_tool_is_called(sdk: openai.OpenAI) -> None:
    """A named function is called, whatever else is there."""
    answer = sdk.chat.completions.create(
        model=TINY, messages=MESSAGES, tools=TOOLS, tool_choice=NAMED, parallel_tool_calls=False,
        max_tokens=300, seed=2,
    )  # fmt: skip
    (call,) = answer.choices[0].message.tool_calls or ()
    assert call.type == "function"
    assert call.function.name == "ask_oracle"
    assert set(json.loads(call.function.arguments)) == {"again"}


def test_a_streamed_call_adds_up(sdk: openai.OpenAI) -> None:
    """Name and id come first, arguments in pieces, and together they are the whole call."""
    stream = sdk.chat.completions.create(
        model=TINY, messages=MESSAGES, tools=TOOLS[:1], tool_choice="required", parallel_tool_calls=False,
        max_tokens=300, seed=3, stream=True,
    )  # fmt: skip
    chunks = [chunk.choices[0] for chunk in stream]
    deltas = [call for chunk in chunks for call in chunk.delta.tool_calls or ()]
    assert deltas[0].id
    assert {delta.index for delta in deltas} == {0}
    assert [delta.function.name for delta in deltas if delta.function and delta.function.name] == [
        "get_weather"
    ]
    check_weather("".join((delta.function and delta.function.arguments) or "" for delta in deltas))
    assert chunks[-1].finish_reason == "tool_calls"


async def test_the_stream_helper_parses_a_strict_tool(async_sdk: openai.AsyncOpenAI) -> None:
    """A tool made of a pydantic class comes back as an object of it."""
    tool = openai.pydantic_function_tool(Weather)
    async with async_sdk.chat.completions.stream(
        model=TINY, messages=MESSAGES, tools=[tool], tool_choice="required", parallel_tool_calls=False,
        max_tokens=300, seed=4,
    ) as stream:  # fmt: skip
        answer = await stream.get_final_completion()
    (call,) = answer.choices[0].message.tool_calls or ()
    assert isinstance(call.function.parsed_arguments, Weather)


def test_a_tools_result_goes_back_into_the_conversation(sdk: openai.OpenAI) -> None:
    """The whole round: a call, its result under its id, and an answer; the SDK's own dump is accepted."""
    asked: Any = {"model": TINY, "tools": TOOLS[:1], "seed": 5}
    first = sdk.chat.completions.create(
        **asked, messages=MESSAGES, tool_choice="required", parallel_tool_calls=False, max_tokens=300
    )
    message = first.choices[0].message
    (call,) = message.tool_calls or ()
    messages = [
        *MESSAGES,
        message,
        {"role": "tool", "tool_call_id": call.id, "content": '{"degrees": 31}'},
    ]
    second = sdk.chat.completions.create(**asked, messages=messages, tool_choice="none", max_tokens=6)
    assert second.choices[0].message.content
    assert not second.choices[0].message.tool_calls


def test_a_tool_choice_without_its_tool_is_refused(sdk: openai.OpenAI) -> None:
    """A name that is not among the tools is the caller's mistake."""
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.chat.completions.create(model=TINY, messages=MESSAGES, tools=TOOLS[:1], tool_choice=NAMED)
    assert refused.value.param == "tool_choice"
