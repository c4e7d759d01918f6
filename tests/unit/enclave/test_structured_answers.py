# SPDX-License-Identifier: Apache-2.0
"""JSON, tools and reasoning through the whole enclave, with a model of random weights that knows none of it.

What such a model says is valid because nothing else is possible.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from tiny_gguf import TEMPLATE, make_tiny_gguf
from unit.enclave.harness import Enclave, Inner

from adyton_enclave.engine import Engine, EngineConfig, ModelSpec, SamplingParams

MARKS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
CONTROLS = ("[TOOL_CALLS]", "<|python_tag|>")
_CALLS = "{% for call in message.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}"
_TURNS = TEMPLATE.replace("{{ message.content }}", "{{ message.content }}" + _CALLS)
TEMPLATES = {
    "hermes": "{% if tools %}{{ tools | tojson }} use <tool_call> {% endif %}" + _TURNS,
    "mistral": "{% if tools %}{{ tools | tojson }} use [TOOL_CALLS] {% endif %}" + _TURNS,
    "llama3": '{% if tools %}{{ tools | tojson }} use "parameters" <|python_tag|> {% endif %}' + _TURNS,
    "generic": TEMPLATE,
    "thinking": "{% if tools %}{{ tools | tojson }} use <tool_call> {% endif %}"
    + _TURNS.replace(
        "<|assistant|>", "<|assistant|>{% if enable_thinking is not false %}<think>\n{% endif %}"
    ),
}
SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["hop", "step"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["kind", "count"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "jump", "description": "Jump.", "parameters": SCHEMA}}
OTHER = {"type": "function", "function": {"name": "rest"}}
JSON_FORMAT = {"type": "json_schema", "json_schema": {"name": "jump", "schema": SCHEMA}}
CHAT: dict[str, object] = {
    "messages": [{"role": "user", "content": "jump"}], "temperature": 2, "max_tokens": 200, "seed": 3
}  # fmt: skip


@contextmanager
def enclave_of(template: str, directory: Path) -> Iterator[Enclave]:
    """An enclave over the real engine and a model with this template."""
    model = make_tiny_gguf(
        directory / f"{template}.gguf",
        ends=True,
        n_ctx=4096,
        template=TEMPLATES[template],
        marks=MARKS if template != "generic" else (),
        controls=CONTROLS if template != "generic" else (),
    )
    spec = ModelSpec(name="fake", path=str(model.path), pin=model.pin, n_ctx=4096, sampling=SamplingParams())
    engine = Engine(EngineConfig(threads=1, n_ctx_total=16384), [spec]).start()
    try:
        yield Enclave(engine=engine)  # type: ignore[arg-type]  # the real one fits as well
    finally:
        engine.stop()


@pytest.fixture(scope="module", params=list(TEMPLATES))
def enclave(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Enclave]:
    """One enclave per dialect."""
    with enclave_of(request.param, tmp_path_factory.mktemp("models")) as made:
        yield made


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Enclave]:
    """The dialect that reasons."""
    with enclave_of("thinking", tmp_path_factory.mktemp("models")) as made:
        yield made


def gathered(inner: Inner) -> list[dict[str, Any]]:
    """The choices of a stream as a whole answer would have them."""
    choices: dict[int, dict[str, Any]] = {}
    for event in inner.data():
        if event == "[DONE]":
            continue
        ChatCompletionChunk.model_validate(event, strict=True)
        for piece in event["choices"]:
            choice = choices.setdefault(
                piece["index"], {"content": "", "reasoning": "", "calls": [], "why": None}
            )
            delta = piece["delta"]
            choice["content"] += delta.get("content") or ""
            choice["reasoning"] += delta.get("reasoning_content") or ""
            for call in delta.get("tool_calls", []):
                if "id" in call:
                    assert call["index"] == len(choice["calls"])
                    choice["calls"].append([call["function"]["name"], ""])
                choice["calls"][call["index"]][1] += call["function"]["arguments"]
            choice["why"] = piece["finish_reason"] or choice["why"]
    return [choices[index] for index in sorted(choices)]


def whole(inner: Inner) -> list[dict[str, Any]]:
    """The same of a whole answer."""
    answer = ChatCompletion.model_validate(inner.json(), strict=True)
    return [
        {
            "content": choice.message.content or "",
            "reasoning": getattr(choice.message, "reasoning_content", ""),
            "calls": [
                [call.function.name, call.function.arguments]  # type: ignore[union-attr]
                for call in choice.message.tool_calls or []
            ],
            "why": choice.finish_reason,
        }
        for choice in answer.choices
    ]


async def ask(enclave: Enclave, **extra: object) -> list[dict[str, Any]]:
    """Ask whole and streamed; both must say the same."""
    inner = await enclave.ask(CHAT | extra)
    assert inner.status == 200, inner.body
    choices = whole(inner)
    streamed = await enclave.ask(CHAT | extra | {"stream": True})
    assert gathered(streamed) == choices
    return choices


def check_calls(choice: dict[str, Any]) -> None:
    """Complete calls are valid."""
    for name, arguments in choice["calls"]:
        assert name in {"jump", "rest"}
        value = json.loads(arguments)
        assert isinstance(value, dict)
        if name == "jump":
            jsonschema_rs.validator_for(SCHEMA).validate(value)


async def test_required_tools_are_called(enclave: Enclave) -> None:
    """In every dialect: valid calls, of declared functions, and no other text."""
    choices = await ask(enclave, tools=[TOOL, OTHER], tool_choice="required", parallel_tool_calls=False, n=4)
    for choice in choices:
        if choice["why"] == "length":
            continue  # Random reasoning or arguments without end.
        assert choice["why"] == "tool_calls"
        assert len(choice["calls"]) == 1
        assert choice["content"] == ""
        check_calls(choice)


async def test_a_named_tool_is_called(enclave: Enclave) -> None:
    """And no other."""
    named = {"type": "function", "function": {"name": "jump"}}
    choices = await ask(enclave, tools=[TOOL, OTHER], tool_choice=named, n=4)
    done = [choice for choice in choices if choice["why"] != "length"]
    for choice in done:
        assert {name for name, _ in choice["calls"]} == {"jump"}
        check_calls(choice)


async def test_tools_may_be_left_alone(enclave: Enclave) -> None:
    """With ``auto`` text comes through; with ``none`` nothing is a call."""
    for choice in await ask(enclave, tools=[TOOL], n=2, max_tokens=40):
        if choice["why"] == "tool_calls":
            check_calls(choice)
    for choice in await ask(enclave, tools=[TOOL], tool_choice="none", n=2, max_tokens=40):
        assert choice["calls"] == []


async def test_documents_are_valid(enclave: Enclave) -> None:
    """A schema, or any object: what ends with ``stop`` parses and validates."""
    for choice in await ask(enclave, response_format=JSON_FORMAT, n=4):
        if choice["why"] == "stop":
            jsonschema_rs.validator_for(SCHEMA).validate(json.loads(choice["content"]))
    for choice in await ask(enclave, response_format={"type": "json_object"}, n=2):
        if choice["why"] == "stop":
            assert isinstance(json.loads(choice["content"]), dict)


async def test_a_document_or_calls(enclave: Enclave) -> None:
    """With both, the answer is one of them."""
    for choice in await ask(enclave, response_format=JSON_FORMAT, tools=[TOOL], n=4):
        if choice["why"] == "stop":
            jsonschema_rs.validator_for(SCHEMA).validate(json.loads(choice["content"]))
        elif choice["why"] == "tool_calls":
            check_calls(choice)
            assert choice["content"] == ""


async def test_conversations_with_calls_go_on(enclave: Enclave) -> None:
    """Calls and their results are rendered in every dialect."""
    call = {"id": "call_1", "type": "function", "function": {"name": "jump", "arguments": '{"count": 3}'}}
    messages = [
        {"role": "user", "content": "jump"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "done"},
    ]
    await ask(enclave, messages=messages, tools=[TOOL], max_tokens=10)


async def test_reasoning_comes_apart(thinking: Enclave) -> None:
    """The prompt opened it, so the answer begins inside; its tokens are counted."""
    inner = await thinking.ask(CHAT | {"max_tokens": 5})
    message = inner.json()["choices"][0]["message"]
    assert message["content"] == ""
    usage = inner.json()["usage"]
    assert usage["completion_tokens_details"]["reasoning_tokens"] == usage["completion_tokens"] == 5
    (choice,) = await ask(thinking, reasoning_effort="none", max_tokens=5)
    assert choice["reasoning"] == ""
    (choice,) = await ask(thinking, chat_template_kwargs={"enable_thinking": False}, max_tokens=5)
    assert choice["reasoning"] == ""


async def test_switches_that_mean_nothing_are_named(enclave: Enclave) -> None:
    """A template that reads no such variable cannot obey, and the answer says so."""
    inner = await enclave.ask(CHAT | {"chat_template_kwargs": {"no_such": True}, "max_tokens": 1})
    assert inner.headers["adyton-warning"] == "ignored: chat_template_kwargs"


def function(**members: object) -> dict[str, object]:
    """A request with one tool."""
    return {"tools": [{"type": "function", "function": {"name": "f", **members}}]}


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}},
            "response_format",
        ),
        (function(strict=True, parameters={"not": {}}), "tools"),
        (function(parameters={"type": "array"}), "tools[0].function.parameters"),
    ],
)
async def test_what_cannot_be_enforced_is_refused(
    thinking: Enclave, extra: dict[str, object], param: str
) -> None:
    """Before anything is generated, with the field's name."""
    inner = await thinking.ask(CHAT | extra)
    assert (inner.status, inner.error()["param"]) == (400, param)


async def test_a_tool_that_is_not_strict_may_say_more_than_can_be_enforced(thinking: Enclave) -> None:
    """What can be enforced is."""
    parameters = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "not": {}}
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    inner = await thinking.ask(CHAT | {"tools": [tool], "max_tokens": 3})
    assert inner.status == 200
