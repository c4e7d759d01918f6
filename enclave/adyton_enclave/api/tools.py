# SPDX-License-Identifier: Apache-2.0
"""The tools of a request, parsed at the edge: ``tools``, ``tool_choice``, ``parallel_tool_calls``."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from adyton_enclave.api.errors import UnsupportedParameter
from adyton_enclave.api.fields import Fields
from adyton_enclave.api.json_schema import check_schema

MAX_TOOLS: Final = 128
MAX_DESCRIPTION_CHARS: Final = 16 * 1024
TOOL_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class ToolChoice(Enum):
    """Whether the model calls."""

    AUTO = "auto"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function that the model may call.

    Attributes:
        name: Letters, digits, ``_`` and ``-``; at most 64.
        parameters: JSON schema of the arguments, an object's; bounded.
        strict: Refuse a schema that cannot be enforced to the letter.
    """

    name: str
    description: str | None = field(repr=False)
    parameters: Mapping[str, object] = field(repr=False)
    strict: bool

    def definition(self) -> dict[str, object]:
        """The tool as chat templates know it."""
        function: dict[str, object] = {"name": self.name, "description": self.description or ""}
        return {"type": "function", "function": {**function, "parameters": self.parameters}}


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSet:
    """The tools that may be called now, at least one.

    Attributes:
        parallel: More than one call is allowed.
    """

    tools: tuple[Tool, ...]
    choice: ToolChoice
    parallel: bool


def parse_tools(fields: Fields) -> ToolSet | None:
    """Take the attacker-controlled members that are about tools; None when the model must not call any.

    Raises:
        InvalidRequest: ``param`` names the field at fault.
    """
    tools = _tools(fields)
    parallel = fields.take("parallel_tool_calls")
    if parallel is not None and not isinstance(parallel, bool):
        raise fields.wrong("parallel_tool_calls", "must be true or false")
    value = fields.take("tool_choice")
    if value is None:
        value = "auto" if tools else "none"
    if not tools:
        if value not in ("none", "auto"):
            raise fields.wrong("tool_choice", "requires tools")
        return None
    if value == "none":
        return None
    chosen, choice = choose(fields, value, tools, _wanted)
    return ToolSet(tools=chosen, choice=choice, parallel=parallel is not False)


def choose(
    fields: Fields,
    value: object,
    tools: tuple[Tool, ...],
    wanted: Callable[[Fields], tuple[list[str], ToolChoice]],
) -> tuple[tuple[Tool, ...], ToolChoice]:
    """Which of the tools may be called, and whether one must be.

    Args:
        fields: Whom errors name.
        value: Of ``tool_choice``, attacker-controlled; not ``none``.
        tools: Those of the request, at least one.
        wanted: Takes the members of an object that names functions: their names, and whether one must be called.

    Raises:
        InvalidRequest: ``param`` names the field at fault.
    """
    if value == "auto":
        return tools, ToolChoice.AUTO
    if value == "required":
        return tools, ToolChoice.REQUIRED
    if not isinstance(value, dict):
        raise fields.wrong("tool_choice", "must be none, auto, required, or an object that names a function")
    members = Fields(value, "tool_choice")
    names, choice = wanted(members)
    members.finish()
    chosen = tuple(tool for tool in tools if tool.name in names)
    if not names or len(chosen) != len(set(names)):
        raise fields.wrong("tool_choice", "names a function that is not among the tools")
    return chosen, choice


def _wanted(members: Fields) -> tuple[list[str], ToolChoice]:
    kind = members.required_text("type", max_chars=32)
    if kind == "function":
        return [_named(members)], ToolChoice.REQUIRED
    if kind != "allowed_tools":
        raise UnsupportedParameter("tool_choice.type: only functions are supported", param="tool_choice.type")
    allowed = members.members("allowed_tools")
    if allowed is None:
        raise members.wrong("allowed_tools", "is required")
    mode = allowed.required_text("mode", max_chars=16)
    if mode not in {"auto", "required"}:
        raise allowed.wrong("mode", "must be auto or required")
    names = [_allowed(allowed, item, at) for at, item in enumerate(allowed.array("tools") or [])]
    allowed.finish()
    return names, ToolChoice(mode)


def _allowed(allowed: Fields, item: object, at: int) -> str:
    name = f"{allowed.name('tools')}[{at}]"
    if not isinstance(item, dict):
        raise allowed.wrong(f"tools[{at}]", "must be an object")
    entry = Fields(item, name)
    if entry.required_text("type", max_chars=32) != "function":
        raise UnsupportedParameter(f"{name}.type: only functions are supported", param=f"{name}.type")
    found = _named(entry)
    entry.finish()
    return found


def _named(members: Fields) -> str:
    function = members.members("function")
    if function is None:
        raise members.wrong("function", "is required")
    name = function.required_text("name")
    function.finish()
    return name


def _tools(fields: Fields) -> tuple[Tool, ...]:
    values = fields.array("tools") or []
    if len(values) > MAX_TOOLS:
        raise fields.wrong("tools", f"must have at most {MAX_TOOLS} tools")
    tools: list[Tool] = []
    for at, value in enumerate(values):
        if not isinstance(value, dict):
            raise fields.wrong(f"tools[{at}]", "must be an object")
        tools.append(_tool(Fields(value, f"tools[{at}]")))
    if len({tool.name for tool in tools}) != len(tools):
        raise fields.wrong("tools", "must have names that differ")
    return tuple(tools)


def _tool(fields: Fields) -> Tool:
    if fields.required_text("type", max_chars=32) != "function":
        raise UnsupportedParameter(
            f"{fields.name('type')}: only functions are supported", param=fields.name("type")
        )
    function = fields.members("function")
    if function is None:
        raise fields.wrong("function", "is required")
    fields.finish()
    tool = parse_function(function)
    function.finish()
    return tool


def parse_function(function: Fields) -> Tool:
    """Take a function's own members.

    Raises:
        InvalidRequest: ``param`` names the field at fault.
    """
    name = function.required_text("name")
    if not TOOL_NAME.fullmatch(name):
        raise function.wrong("name", "must have 1 to 64 letters, digits, _ or -")
    return Tool(
        name=name,
        description=function.text("description", max_chars=MAX_DESCRIPTION_CHARS),
        parameters=_parameters(function),
        strict=function.flag("strict"),
    )


def _parameters(function: Fields) -> dict[str, object]:
    param = function.name("parameters")
    value = function.take("parameters")
    schema = check_schema({} if value is None else value, param)
    if schema.get("type", "object") != "object":
        raise function.wrong("parameters", 'must be a schema of "type": "object"')
    return {"type": "object", "properties": {}, **schema} if "$ref" not in schema else schema
