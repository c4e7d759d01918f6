# SPDX-License-Identifier: Apache-2.0
"""``POST /v1/responses``: items in, items and typed events out, nothing stored."""

import contextlib
import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from unit.enclave.harness import Enclave, FakeEngine, FakeModel, Inner

from adyton_enclave.api.generate import Served
from adyton_enclave.api.pieces import Choice, Delta, Ended, PlainReader, ReasoningDelta, ToolCallDelta
from adyton_enclave.api.response_presenter import ResponsePresenter
from adyton_enclave.api.response_request import parse_response_request
from adyton_enclave.api.types import RequestLimits
from adyton_enclave.engine import (
    Event,
    Finished,
    GenerationRequest,
    TextDelta,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from adyton_enclave.engine.dialect import Dialect
from adyton_enclave.privacy import Profile
from adyton_protocol.errors import EngineError, EngineStopped, InvalidRequest
from adyton_protocol.sse import is_comment

PATH = {"path": "/v1/responses"}
ASK: dict[str, object] = {"model": "fake", "input": "hello"}
STREAM = ASK | {"stream": True}
LIMITS = RequestLimits(max_candidates=4, max_prompts=1)
EVENTS: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
USAGE = Usage(prompt_tokens=7, completion_tokens=9)
TOOL = {"type": "function", "name": "add", "parameters": {"type": "object"}}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
ITEM_FIELDS = st.sampled_from(
    [
        "type",
        "role",
        "content",
        "id",
        "status",
        "call_id",
        "name",
        "arguments",
        "output",
        "summary",
        "text",
        "other",
    ]
)
WORDS = st.sampled_from(
    ["message", "function_call", "function_call_output", "reasoning", "user", "assistant", "system", "input_text",
     "output_text", "reasoning_text", "x", "{}", '{"a": 1}']
)  # fmt: skip
ITEMS = st.lists(
    st.dictionaries(
        ITEM_FIELDS,
        WORDS
        | JSON
        | st.lists(st.dictionaries(st.sampled_from(["type", "text"]), WORDS, max_size=2), max_size=2),
        max_size=6,
    ),
    max_size=4,
)
FIELDS = st.sampled_from(
    ["model", "input", "instructions", "max_output_tokens", "text", "tools", "tool_choice", "reasoning", "include",
     "top_logprobs", "stream", "store", "parallel_tool_calls", "n", "truncation", "other"]
)  # fmt: skip


@pytest.fixture
def enclave() -> Enclave:
    """An enclave over a scripted engine."""
    return Enclave()


def parse(body: object) -> tuple[dict[str, object], ...]:
    """The messages that a request means."""
    return tuple(
        dict(message) for message in parse_response_request(json.dumps(body).encode(), LIMITS).chat.messages
    )


def visible(inner: Inner) -> list[bytes]:
    """The groups of a stream without receipt and padding."""
    return [group for group in inner.groups() if not is_comment(group)]


def typed(inner: Inner) -> list[ResponseStreamEvent]:
    """The events of a stream, as the SDK's types, after ``[DONE]`` was taken off."""
    *groups, done = visible(inner)
    assert done == b"data: [DONE]\n\n"
    assert inner.body.count(b": adyton-receipt ") == 1
    events = []
    for group in groups:
        name, data, *rest = group.split(b"\n")
        assert rest == [b"", b""]
        value = json.loads(data.removeprefix(b"data: "))
        assert name == b"event: " + value["type"].encode()
        events.append(EVENTS.validate_python(value))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    return events


# --- Answers ------------------------------------------------------------------------------------------


async def test_the_answer_is_what_the_sdk_expects(enclave: Enclave) -> None:
    """The SDK's own type validates it; text, usage and status are there, and nothing is stored."""
    inner = await enclave.ask(ASK | {"instructions": "be brief", "max_output_tokens": 9}, **PATH)
    answer = Response.model_validate(inner.json())
    assert answer.output_text == "one two three"
    assert answer.id.startswith("resp_")
    assert (answer.status, answer.error, answer.incomplete_details) == ("completed", None, None)
    assert answer.created_at == answer.completed_at == enclave.clock.wall
    assert (answer.instructions, answer.max_output_tokens) == ("be brief", 9)
    assert (answer.temperature, answer.top_p) == (0.5, 1.0)
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    assert inner.json()["store"] is False
    prompt = enclave.engine.generations[0].request.prompt_token_ids
    assert bytes(prompt).decode() == "<system>be brief<user>hello"


async def test_a_stream_says_what_the_whole_answer_says(enclave: Enclave) -> None:
    """Every event is one of the SDK's, in OpenAI's order, and the last one holds the answer."""
    whole = (await enclave.ask(ASK, **PATH)).json()
    events = typed(await enclave.ask(STREAM, **PATH))
    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * 3,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == "one two three"
    last = events[-1]
    assert last.type == "response.completed"
    final = last.response.model_dump(mode="json", exclude_unset=True)
    assert final["output"][0]["content"] == whole["output"][0]["content"]
    assert final.keys() == whole.keys()
    assert final["usage"] == whole["usage"]


@pytest.mark.parametrize("body", [ASK, STREAM])
async def test_the_receipt_covers_the_answer(enclave: Enclave, body: dict[str, object]) -> None:
    """Whole or streamed, exactly what the caller sees."""
    sealed = enclave.seal(body, **PATH)
    inner = sealed.open(await enclave.post(sealed.bytes, sealed.media_type))
    verified = sealed.check_receipt(inner, enclave.keyset)
    assert verified.receipt.endpoint == "/v1/responses"
    assert str(verified.receipt.chat_id).startswith("resp_")


async def test_an_answer_that_broke_off_says_so() -> None:
    """The length limit is ``incomplete`` with its reason, in the response, its last item and its last event."""

    def script(request: GenerationRequest) -> list[Event | Exception]:
        return [TextDelta(index=0, text="on"), Finished(index=0, finish_reason="length", usage=USAGE)]

    enclave = Enclave(engine=FakeEngine(script))
    whole = Response.model_validate((await enclave.ask(ASK, **PATH)).json())
    last = typed(await enclave.ask(STREAM, **PATH))[-1]
    assert last.type == "response.incomplete"
    for answer in (whole, last.response):
        assert answer.status == answer.output[-1].status == "incomplete"
        assert answer.incomplete_details is not None
        assert answer.incomplete_details.reason == "max_output_tokens"
        assert answer.completed_at is None


async def test_an_answer_without_a_word_is_an_empty_message() -> None:
    """An end at once is complete all the same."""

    def script(request: GenerationRequest) -> list[Event | Exception]:
        return [Finished(index=0, finish_reason="stop", usage=USAGE)]

    enclave = Enclave(engine=FakeEngine(script))
    assert Response.model_validate((await enclave.ask(ASK, **PATH)).json()).output_text == ""
    last = typed(await enclave.ask(STREAM, **PATH))[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == ""


async def test_reasoning_is_an_item_of_its_own() -> None:
    """Before the message, with its text, and counted."""
    engine = FakeEngine(
        lambda _: [
            TextDelta(index=0, text="<think>so"),
            TextDelta(index=0, text=" be it</think>done"),
            Finished(index=0, finish_reason="stop", usage=USAGE),
        ]
    )
    engine.models = {"fake": FakeModel(dialect=Dialect(control_ids={}, reasoning=("<think>", "</think>")))}
    enclave = Enclave(engine=engine)
    whole = Response.model_validate((await enclave.ask(ASK, **PATH)).json())
    last = typed(await enclave.ask(STREAM, **PATH))[-1]
    assert last.type == "response.completed"
    for answer in (whole, last.response):
        reasoning, message = answer.output
        assert reasoning.type == "reasoning"
        assert reasoning.content is not None
        assert [part.text for part in reasoning.content] == ["so be it"]
        assert answer.output_text == "done"
        assert message.type == "message"


async def test_logprobs_come_where_they_are_asked_for() -> None:
    """``include`` decides; both forms hold the same."""
    entry = TokenLogprob(
        token="a", bytes=b"a", logprob=-0.5, top=(TopLogprob(token="b", bytes=b"b", logprob=-0.7),)
    )
    engine = FakeEngine(
        lambda _: [
            TextDelta(index=0, text="a", logprobs=(entry,)),
            Finished(index=0, finish_reason="stop", usage=USAGE),
        ]
    )
    enclave = Enclave(engine=engine)
    wish = {"include": ["message.output_text.logprobs"], "top_logprobs": 1}
    whole = (await enclave.ask(ASK | wish, **PATH)).json()
    (found,) = whole["output"][0]["content"][0]["logprobs"]
    assert (found["token"], found["top_logprobs"][0]["token"]) == ("a", "b")
    events = typed(await enclave.ask(STREAM | wish, **PATH))
    delta = next(event for event in events if event.type == "response.output_text.delta")
    assert delta.logprobs[0].token == "a"
    assert enclave.engine.generations[0].request.logprobs == 1
    plain = await enclave.ask(ASK, **PATH)
    assert plain.json()["output"][0]["content"][0]["logprobs"] == []


@pytest.mark.parametrize(
    ("error", "code"), [(EngineStopped("gone"), "server_error"), (EngineError("broken"), "server_error")]
)
async def test_a_failure_in_mid_stream_is_told_twice(error: EngineError, code: str) -> None:
    """As ``response.failed`` with what there is, and as the error object by which clients know; no receipt follows."""
    engine = FakeEngine(lambda _: [TextDelta(index=0, text="on"), error])
    inner = await Enclave(engine=engine).ask(STREAM, **PATH)
    *_, failed, last = visible(inner)
    event = EVENTS.validate_python(json.loads(failed.split(b"\n")[1].removeprefix(b"data: ")))
    assert event.type == "response.failed"
    assert event.response.status == "failed"
    assert event.response.error is not None
    assert event.response.error.code == code
    assert event.response.output_text == "on"
    assert last.startswith(b'data: {"error"')
    assert b"[DONE]" not in inner.body
    assert b"adyton-receipt" not in inner.body


async def test_long_answers_fit_into_their_events() -> None:
    """The last events repeat the whole text; readers take it."""
    text = "\N{SNOWMAN}" * 400_000
    engine = FakeEngine(
        lambda _: [
            TextDelta(index=0, text=text),
            Finished(index=0, finish_reason="stop", usage=USAGE),
        ]
    )
    events = typed(await Enclave(engine=engine).ask(STREAM, **PATH))
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == text


# --- Presentation -------------------------------------------------------------------------------------


@st.composite
def answers(draw: st.DrawFn) -> list[Delta]:
    """Pieces of an answer in any order that a reader may give them."""
    pieces: list[Delta] = []
    call = -1
    for kind in draw(st.lists(st.sampled_from(["text", "reasoning", "call", "arguments"]), max_size=12)):
        text = draw(st.text(max_size=5))
        match kind:
            case "text":
                pieces.append(TextDelta(index=0, text=text))
            case "reasoning":
                pieces.append(ReasoningDelta(index=0, text=text))
            case "call":
                call += 1
                pieces.append(ToolCallDelta(index=0, call=call, call_id=f"call_{call}", name="add"))
            case _ if pieces and isinstance(pieces[-1], ToolCallDelta):
                pieces.append(ToolCallDelta(index=0, call=call, arguments=text))
    return pieces


def presenter() -> ResponsePresenter:
    """For a request with a tool."""
    task = parse_response_request(json.dumps(ASK | {"tools": [TOOL]}).encode(), LIMITS)
    served = Served(model=FakeModel(), max_tokens=9, license="CC0-1.0")
    return ResponsePresenter(task, served, PlainReader(), unique="00", wall_s=lambda: 1)


def _events(data: bytes) -> list[ResponseStreamEvent]:
    lines = [line for line in data.split(b"\n") if line.startswith(b"data: ")]
    return [EVENTS.validate_json(line.removeprefix(b"data: ")) for line in lines]


@given(answers(), st.sampled_from(["stop", "length", "tool_calls"]))
def test_any_answer_is_the_same_whole_and_streamed(pieces: Sequence[Delta], reason: str) -> None:
    """The SDK follows the stream without a complaint, and both forms have the same items in the same order."""
    end = Ended(index=0, finish_reason=reason, usage=USAGE)  # type: ignore[arg-type]
    choice = Choice()
    for piece in (*pieces, end):
        choice.add(piece)
    whole = presenter().whole([choice], USAGE)
    streamed = presenter()
    data = streamed.opening(0) + b"".join(streamed.delta(piece) for piece in pieces)
    events = _events(data + streamed.finished(end) + streamed.closing(USAGE))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    state = ResponseStreamState(input_tools=[], text_format=omit)  # type: ignore[var-annotated]
    for event in events:
        state.handle_event(event)
    last = events[-1]
    assert last.type == ("response.incomplete" if reason == "length" else "response.completed")
    assert last.response == Response.model_validate(whole)
    done = [event.item for event in events if event.type == "response.output_item.done"]
    assert done == last.response.output
    for at, item in enumerate(last.response.output):
        deltas = "".join(
            event.delta
            for event in events
            if event.type
            in {
                "response.output_text.delta",
                "response.reasoning_text.delta",
                "response.function_call_arguments.delta",
            }
            and event.output_index == at
        )
        match item.type:
            case "message":
                assert "".join(part.text for part in item.content if part.type == "output_text") == deltas
            case "reasoning":
                assert "".join(part.text for part in item.content or []) == deltas
            case "function_call":
                assert item.arguments == deltas


# --- Requests -----------------------------------------------------------------------------------------


def test_items_become_the_messages_of_a_conversation() -> None:
    """Calls and reasoning are put back into the assistant's message; instructions come first, and once."""
    assert parse({"input": "hello"}) == ({"role": "user", "content": "hello"},)
    messages = parse(
        {
            "instructions": "be brief",
            "input": [
                {"role": "developer", "content": "be kind"},
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "add 1 and 2"}]},
                {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
                {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a": 1}', "status": "x"},
                {"type": "function_call", "call_id": "c2", "name": "add", "arguments": "cut o"},
                {"type": "function_call_output", "call_id": "c1", "output": "3"},
                {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "4"}]},
                {"role": "assistant", "content": [{"type": "output_text", "text": "3", "annotations": []}]},
            ],
        }
    )  # fmt: skip
    assert messages == (
        {"role": "system", "content": "be brief\n\nbe kind"},
        {"role": "user", "content": "add 1 and 2"},
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "hm",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}},
                {"id": "c2", "type": "function", "function": {"name": "add", "arguments": "cut o"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
        {"role": "tool", "tool_call_id": "c2", "content": "4"},
        {"role": "assistant", "content": "3"},
    )


@given(answers())
def test_an_answers_items_are_input_again(pieces: Sequence[Delta]) -> None:
    """What the SDK dumps of an output is taken as input, every text of it."""
    choice = Choice()
    for piece in (*pieces, Ended(index=0, finish_reason="stop", usage=USAGE)):
        choice.add(piece)
    answer = Response.model_validate(presenter().whole([choice], USAGE))
    for unset in (True, False):
        items = [item.model_dump(mode="json", by_alias=True, exclude_unset=unset) for item in answer.output]
        messages = parse({"input": [*items, {"role": "user", "content": "go on"}]})
        assert "".join(str(m["content"]) for m in messages[:-1]) == "".join(choice.text)


def test_every_field_is_taken() -> None:
    """What is served arrives as it was meant."""
    body = ASK | {
        "max_output_tokens": 7, "temperature": 0, "top_p": 0.5, "seed": 3, "top_k": 4, "min_p": 0.1,
        "include": ["message.output_text.logprobs", "reasoning.encrypted_content"], "top_logprobs": 2, "stream": True,
        "stream_options": {"include_obfuscation": False}, "privacy": "cadence", "service_tier": "auto",
        "tools": [TOOL | {"description": "adds", "strict": True}], "tool_choice": {"type": "function", "name": "add"},
        "parallel_tool_calls": False, "reasoning": {"effort": "low", "summary": "auto"}, "user": "somebody",
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}, "verbosity": "low"},
        "store": False, "background": False, "truncation": "disabled", "n": 1, "metadata": {"a": "b"},
        "previous_response_id": None,
    }  # fmt: skip
    task = parse_response_request(json.dumps(body).encode(), LIMITS)
    options, tools = task.chat.options, task.chat.tools
    assert (options.max_tokens, options.temperature, options.top_p, options.seed) == (7, 0.0, 0.5, 3)
    assert (options.logprobs, options.stream, options.include_usage) == (2, True, False)
    assert options.privacy is Profile.CADENCE
    assert options.ignored == ("user", "metadata", "text.verbosity", "reasoning.summary")
    assert tools is not None
    assert ([tool.name for tool in tools.tools], tools.choice.value, tools.parallel) == (
        ["add"],
        "required",
        False,
    )
    assert task.chat.document == {"type": "object"}
    assert task.chat.template_options.effort == "low"
    echo = Response.model_validate(
        {"id": "x", "object": "response", "created_at": 1, "model": "m", "output": [], **task.echo}
    )
    assert echo.text is not None
    assert echo.text.format is not None
    assert echo.text.format.type == "json_schema"
    assert echo.tools[0].type == "function"


@pytest.mark.parametrize(
    ("wish", "param", "code"),
    [
        ({"store": True}, "store", "unsupported_parameter"),
        ({"previous_response_id": "resp_1"}, "previous_response_id", "unsupported_parameter"),
        ({"conversation": {"id": "conv_1"}}, "conversation", "unsupported_parameter"),
        ({"background": True}, "background", "unsupported_parameter"),
        ({"prompt": {"id": "p"}}, "prompt", "unsupported_parameter"),
        ({"truncation": "auto"}, "truncation", "unsupported_parameter"),
        ({"n": 2}, "n", "unsupported_parameter"),
        ({"include": ["file_search_call.results"]}, "include[0]", "unsupported_parameter"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "unsupported_parameter"),
        ({"tool_choice": {"type": "mcp"}, "tools": [TOOL]}, "tool_choice.type", "unsupported_parameter"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].type", "unsupported_parameter"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input[0].content[0].type",
            "unsupported_parameter",
        ),
        ({"input": [{"type": "web_search_call", "id": "x"}]}, "input[0].type", "unsupported_parameter"),
        ({"input": []}, "input", "invalid_request"),
        ({"input": None}, "input", "invalid_request"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role", "invalid_request"),
        ({"input": [{"role": "user"}]}, "input[0].content", "invalid_request"),
        ({"input": [{"type": "reasoning", "summary": []}]}, "input", "invalid_request"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type", "invalid_request"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name", "invalid_request"),
        ({"tools": [TOOL, TOOL]}, "tools", "invalid_request"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_request"),
        (
            {"tool_choice": {"type": "function", "name": "sub"}, "tools": [TOOL]},
            "tool_choice",
            "invalid_request",
        ),
        ({"reasoning": {"effort": "immense"}}, "reasoning.effort", "invalid_request"),
        ({"top_logprobs": 3}, "top_logprobs", "invalid_request"),
        ({"max_output_tokens": 0}, "max_output_tokens", "invalid_request"),
        ({"input": "x" * 300}, "input", "context_length_exceeded"),
        ({"input": [{"role": "assistant", "content": "x"}]}, "input", "invalid_request"),
        ({"max_tokens": 5}, "max_tokens", "unknown_parameter"),
        ({"tools": [TOOL | {"surprise": 1}]}, "tools[0].surprise", "unknown_parameter"),
        ({"text": {"format": {"type": "json_object"}}}, "text.format", "invalid_request"),
    ],
)
async def test_what_is_not_served_is_refused_by_name(
    enclave: Enclave, wish: dict[str, object], param: str, code: str
) -> None:
    """With the names of this endpoint, before any work."""
    inner = await enclave.ask(ASK | wish, **PATH)
    assert inner.status == 400
    assert (inner.error()["param"], inner.error()["code"]) == (param, code)
    assert enclave.engine.generations == []


@given(st.dictionaries(FIELDS, JSON, max_size=5), ITEMS | JSON)
def test_no_body_raises_anything_else(body: dict[str, object], items: object) -> None:
    """Every body is a conversation or an InvalidRequest."""
    with contextlib.suppress(InvalidRequest):
        messages = parse(body | {"input": items})
        assert messages
        for message in messages:
            assert message["role"] in {"system", "user", "assistant", "tool"}
            assert isinstance(message["content"], str)
