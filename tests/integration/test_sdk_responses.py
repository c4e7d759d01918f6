# SPDX-License-Identifier: Apache-2.0
"""The Responses API through the unmodified SDK, sealed, from a running appliance."""

from typing import Literal

import openai
import pytest
from pydantic import BaseModel

from appliance import Appliance
from tiny_appliance import TINY


class Verdict(BaseModel):
    """What a model with random weights can say within a few tokens."""

    mood: Literal["good", "bad"]
    sure: bool


TOOL = {
    "type": "function",
    "name": "look_up",
    "description": "looks something up",
    "parameters": {
        "type": "object",
        "properties": {"where": {"type": "string", "enum": ["here", "there"]}},
        "required": ["where"],
        "additionalProperties": False,
    },
    "strict": True,
}


def test_the_sdk_creates_and_streams(tiny_appliance: Appliance) -> None:
    """Typed events in order, the whole answer at the end, a receipt for each; a seed makes both the same."""
    with tiny_appliance.client() as client:
        sdk = client.openai()
        wish = {"model": TINY, "input": "hello", "max_output_tokens": 12, "extra_body": {"seed": 7}}
        whole = sdk.responses.create(**wish)
        assert whole.store is False
        assert whole.status == "incomplete"
        events = list(sdk.responses.create(**wish, stream=True))
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert events[0].type == "response.created"
        last = events[-1]
        assert last.type == "response.incomplete"
        assert last.response.output_text == whole.output_text
        deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
        assert "".join(deltas) == whole.output_text
        assert len(client.receipts) == 2


def test_the_sdk_parses_by_schema(tiny_appliance: Appliance) -> None:
    """``responses.parse`` and ``responses.stream`` with a Pydantic model."""
    with tiny_appliance.client() as client:
        sdk = client.openai()
        parsed = sdk.responses.parse(model=TINY, input="hello", text_format=Verdict, max_output_tokens=200)
        assert isinstance(parsed.output_parsed, Verdict)
        with sdk.responses.stream(
            model=TINY, input="hello", text_format=Verdict, max_output_tokens=200
        ) as stream:
            kinds = [event.type for event in stream]
            final = stream.get_final_response()
        assert kinds[-1] == "response.completed"
        assert isinstance(final.output_parsed, Verdict)


def test_the_sdk_calls_tools(tiny_appliance: Appliance) -> None:
    """A forced call, streamed, whose output goes back together with it."""
    with tiny_appliance.client() as client:
        sdk = client.openai()
        with sdk.responses.stream(
            model=TINY,
            input="hello",
            tools=[TOOL],
            tool_choice={"type": "function", "name": "look_up"},
            parallel_tool_calls=False,
            max_output_tokens=300,
        ) as stream:
            deltas = [e.delta for e in stream if e.type == "response.function_call_arguments.delta"]
            final = stream.get_final_response()
        call = next(item for item in final.output if item.type == "function_call")
        assert "".join(deltas) == call.arguments
        assert call.parsed_arguments["where"] in {"here", "there"}
        answer = sdk.responses.create(
            model=TINY,
            input=[
                {"role": "user", "content": "hello"},
                *final.output,
                {"type": "function_call_output", "call_id": call.call_id, "output": "nothing"},
            ],
            tools=[TOOL],
            max_output_tokens=4,
        )
        assert answer.output


async def test_the_async_sdk_streams(tiny_appliance: Appliance) -> None:
    """The same on an event loop."""
    async with tiny_appliance.async_client() as client:
        stream = await client.async_openai().responses.create(
            model=TINY, input=[{"role": "user", "content": "hello"}], max_output_tokens=4, stream=True
        )
        kinds = [event.type async for event in stream]
        assert kinds[:2] == ["response.created", "response.in_progress"]
        assert len(client.receipts) == 1


def test_refusals_are_the_sdks_own_errors(tiny_appliance: Appliance) -> None:
    """State, and what does not fit."""
    with tiny_appliance.client() as client:
        sdk = client.openai()
        with pytest.raises(openai.BadRequestError) as caught:
            sdk.responses.create(model=TINY, input="and then?", previous_response_id="resp_1")
        assert caught.value.param == "previous_response_id"
        assert "input" in caught.value.message
        with pytest.raises(openai.BadRequestError) as caught:
            sdk.responses.create(model=TINY, input="hello", max_output_tokens=4000)
        assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "max_output_tokens")
