# SPDX-License-Identifier: Apache-2.0
"""``POST /v1/responses``, parsed at the edge into the conversation that it asks to go on with."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from adyton_enclave.api.chat_task import ChatTask
from adyton_enclave.api.errors import UnsupportedParameter
from adyton_enclave.api.events import Json
from adyton_enclave.api.fields import Fields, parse_object
from adyton_enclave.api.parameters import RESPONSES, treat
from adyton_enclave.api.response_format import parse_named_schema
from adyton_enclave.api.response_items import parse_input
from adyton_enclave.api.scaling_request import parse_scaling
from adyton_enclave.api.template_options import EFFORTS, TemplateOptions
from adyton_enclave.api.tools import MAX_TOOLS, Tool, ToolChoice, ToolSet, choose, parse_function
from adyton_enclave.api.types import MAX_TOKENS, MAX_TOP_LOGPROBS, RequestLimits, parse_options

MAX_INCLUDES: Final = 16
_LOGPROBS: Final = "message.output_text.logprobs"
INCLUDES: Final = frozenset({_LOGPROBS, "reasoning.encrypted_content"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseTask:
    """A parsed request.

    Attributes:
        echo: Members of the request that OpenAI's answers repeat, in their form.
    """

    chat: ChatTask
    echo: Json = field(repr=False)


def parse_response_request(body: bytes, limits: RequestLimits) -> ResponseTask:
    """Parse the attacker-controlled body.

    Raises:
        InvalidRequest: ``param`` names the field at fault.
    """
    fields = Fields(parse_object(body))
    max_output_tokens = fields.whole("max_output_tokens", low=1, high=MAX_TOKENS)
    logprobs = _logprobs(fields)
    ignored = list(treat(fields, RESPONSES))
    instructions = fields.peek("instructions")
    messages = parse_input(fields)
    document, text_echo = _text(fields, ignored)
    tools = _tools(fields)
    chosen, tools_echo = _tool_set(fields, tools)
    effort = _reasoning(fields, ignored)
    options = parse_options(
        fields, limits, max_tokens=max_output_tokens, logprobs=logprobs, ignored=tuple(ignored)
    )
    scaling = parse_scaling(fields, limits)
    fields.finish()
    chat = ChatTask(
        options=replace(options, include_usage=False),
        messages=messages,
        document=document,
        tools=chosen,
        template_options=TemplateOptions(effort=effort),
        size_bytes=len(body),
        scaling=scaling,
    )
    echo: Json = {
        "instructions": instructions,
        "max_output_tokens": max_output_tokens,
        "reasoning": {"effort": effort, "summary": None},
        "text": text_echo,
        "top_logprobs": logprobs or 0,
        **tools_echo,
    }
    return ResponseTask(chat=chat, echo=echo)


def _logprobs(fields: Fields) -> int | None:
    includes = fields.array("include") or []
    if len(includes) > MAX_INCLUDES:
        raise fields.wrong("include", f"must have at most {MAX_INCLUDES} members")
    for at, name in enumerate(includes):
        # Encrypted reasoning is for services that hide it; here it is in the answer.
        if not isinstance(name, str) or name not in INCLUDES:
            raise UnsupportedParameter(
                f"include[{at}]: only {' and '.join(sorted(INCLUDES))} are supported", param=f"include[{at}]"
            )
    top_logprobs = fields.whole("top_logprobs", low=0, high=MAX_TOP_LOGPROBS)
    if _LOGPROBS in includes:
        return top_logprobs or 0
    if top_logprobs:
        raise fields.wrong("top_logprobs", f"requires include to hold {_LOGPROBS}")
    return None


def _text(fields: Fields, ignored: list[str]) -> tuple[Mapping[str, object] | None, Json]:
    """The schema that the answer has to follow, if any, and the echo of ``text``."""
    plain: Json = {"format": {"type": "text"}}
    text = fields.members("text")
    if text is None:
        return None, plain
    if text.take("verbosity") is not None:
        ignored.append("text.verbosity")
    members = text.members("format")
    text.finish()
    if members is None:
        return None, plain
    kind = members.required_text("type", max_chars=32)
    schema: Mapping[str, object] | None = None
    echo = plain
    match kind:
        case "text":
            pass
        case "json_object":
            schema, echo = {"type": "object"}, {"format": {"type": kind}}
        case "json_schema":
            name, description = members.peek("name"), members.peek("description")
            strict = members.peek("strict")
            schema = parse_named_schema(members)
            named: Json = {"type": kind, "name": name, "schema": schema, "description": description}
            echo = {"format": {**named, "strict": strict is True}}
        case _:
            raise members.wrong("type", "must be one of text, json_object, json_schema")
    members.finish()
    return schema, echo


def _tools(fields: Fields) -> tuple[Tool, ...]:
    values = fields.array("tools") or []
    if len(values) > MAX_TOOLS:
        raise fields.wrong("tools", f"must have at most {MAX_TOOLS} tools")
    tools: list[Tool] = []
    for at, value in enumerate(values):
        if not isinstance(value, dict):
            raise fields.wrong(f"tools[{at}]", "must be an object")
        members = Fields(value, f"tools[{at}]")
        if members.required_text("type", max_chars=64) != "function":
            raise UnsupportedParameter(
                f"{members.name('type')}: only functions are supported", param=members.name("type")
            )
        tools.append(parse_function(members))
        members.finish()
    if len({tool.name for tool in tools}) != len(tools):
        raise fields.wrong("tools", "must have names that differ")
    return tuple(tools)


def _tool_set(fields: Fields, tools: tuple[Tool, ...]) -> tuple[ToolSet | None, Json]:
    """What may be called now, and the echo of all that is about tools."""
    parallel = fields.take("parallel_tool_calls")
    if parallel is not None and not isinstance(parallel, bool):
        raise fields.wrong("parallel_tool_calls", "must be true or false")
    value = fields.take("tool_choice")
    echo: Json = {
        "parallel_tool_calls": parallel is not False,
        "tool_choice": "auto" if value is None else value,
        "tools": [
            {
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters,
                "strict": tool.strict,
            }
            for tool in tools
        ],
    }
    if value == "none" or (not tools and value in (None, "auto")):
        return None, echo
    if not tools:
        raise fields.wrong("tool_choice", "requires tools")
    chosen, choice = choose(fields, "auto" if value is None else value, tools, _wanted)
    return ToolSet(tools=chosen, choice=choice, parallel=parallel is not False), echo


def _wanted(members: Fields) -> tuple[list[str], ToolChoice]:
    kind = members.required_text("type", max_chars=64)
    if kind == "function":
        return [members.required_text("name")], ToolChoice.REQUIRED
    if kind != "allowed_tools":
        raise UnsupportedParameter("tool_choice.type: only functions are supported", param="tool_choice.type")
    mode = members.required_text("mode", max_chars=16)
    if mode not in {"auto", "required"}:
        raise members.wrong("mode", "must be auto or required")
    allowed = members.array("tools") or []
    return [_allowed(members, item, at) for at, item in enumerate(allowed)], ToolChoice(mode)


def _allowed(members: Fields, item: object, at: int) -> str:
    if not isinstance(item, dict):
        raise members.wrong(f"tools[{at}]", "must be an object")
    entry = Fields(item, members.name(f"tools[{at}]"))
    if entry.required_text("type", max_chars=64) != "function":
        raise UnsupportedParameter(
            f"{entry.name('type')}: only functions are supported", param=entry.name("type")
        )
    name = entry.required_text("name")
    entry.finish()
    return name


def _reasoning(fields: Fields, ignored: list[str]) -> str | None:
    """How much the model shall think."""
    members = fields.members("reasoning")
    if members is None:
        return None
    effort = members.text("effort", max_chars=16)
    if effort is not None and effort not in EFFORTS:
        raise members.wrong("effort", f"must be one of {', '.join(EFFORTS)}")
    # A summary stands in for reasoning that is hidden; here it is in the answer.
    ignored += [
        members.name(name)
        for name in ("summary", "generate_summary")
        if members.text(name, max_chars=32) is not None
    ]
    members.finish()
    return effort
