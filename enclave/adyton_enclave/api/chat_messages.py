# SPDX-License-Identifier: Apache-2.0
"""The messages of a conversation, parsed at the edge into the shape that chat templates take."""

import json
from collections.abc import Mapping
from typing import Final

from adyton_enclave.api.errors import UnsupportedParameter
from adyton_enclave.api.fields import Fields
from adyton_enclave.api.tools import TOOL_NAME
from adyton_protocol.errors import InvalidRequest

Message = Mapping[str, object]
"""In OpenAI's shape with content as one string, and with arguments of calls as objects: what templates take."""

MAX_CALL_ID_CHARS: Final = 128
MAX_CALLS: Final = 128
UNSUPPORTED: Final[dict[str, tuple[object, ...]]] = {
    # What a message of a role that has no use for it may hold nevertheless: the SDK dumps null or empty members.
    "annotations": ([],),
    "audio": (),
    "function_call": (),
    "name": (),
    "reasoning_content": (),
    "refusal": (),
    "tool_call_id": (),
    "tool_calls": ([],),
}
PLAIN_ROLES: Final = {"system": "system", "developer": "system", "user": "user"}


def parse_messages(fields: Fields) -> tuple[Message, ...]:
    """Take the attacker-controlled ``messages``; roles are system, user, assistant and tool.

    Raises:
        InvalidRequest: ``param`` names the field at fault.
    """
    values = fields.array("messages")
    if not values:
        raise fields.wrong("messages", "is required and must not be empty")
    messages: list[Message] = []
    for index, value in enumerate(values):
        if not isinstance(value, dict):
            raise fields.wrong(f"messages[{index}]", "must be an object")
        messages.append(_message(Fields(value, f"messages[{index}]")))
    return tuple(messages)


def _message(fields: Fields) -> Message:
    role = fields.required_text("role", max_chars=32)
    message: dict[str, object]
    if role in PLAIN_ROLES:
        message = {"role": PLAIN_ROLES[role], "content": _content(fields)}
    elif role == "assistant":
        message = _assistant(fields)
    elif role == "tool":
        call_id = fields.required_text("tool_call_id", max_chars=MAX_CALL_ID_CHARS)
        message = {"role": "tool", "tool_call_id": call_id, "content": _content(fields)}
        if name := fields.text("name", max_chars=MAX_CALL_ID_CHARS):
            message["name"] = name
    elif role == "function":
        raise UnsupportedParameter(
            f"{fields.name('role')}: functions are deprecated; use tools", param=fields.name("role")
        )
    else:
        raise fields.wrong("role", "must be one of system, developer, user, assistant, tool")
    fields.refuse_unsupported(UNSUPPORTED)
    fields.finish()
    return message


def _assistant(fields: Fields) -> dict[str, object]:
    calls = fields.array("tool_calls") or []
    if len(calls) > MAX_CALLS:
        raise fields.wrong("tool_calls", f"must have at most {MAX_CALLS} calls")
    message: dict[str, object] = {"role": "assistant", "content": _content(fields, optional=bool(calls))}
    if calls:
        message["tool_calls"] = [
            _call(value, f"{fields.name('tool_calls')}[{at}]") for at, value in enumerate(calls)
        ]
    if reasoning := fields.text("reasoning_content"):
        message["reasoning_content"] = reasoning
    return message


def _call(value: object, path: str) -> Message:
    if not isinstance(value, dict):
        raise InvalidRequest(f"{path} must be an object", param=path)
    members = Fields(value, path)
    if members.required_text("type", max_chars=32) != "function":
        raise UnsupportedParameter(f"{path}.type: only functions are supported", param=f"{path}.type")
    call_id = members.required_text("id", max_chars=MAX_CALL_ID_CHARS)
    members.take("index")  # Gathered stream deltas carry it.
    function = members.members("function")
    if function is None:
        raise members.wrong("function", "is required")
    name = function.required_text("name")
    if not TOOL_NAME.fullmatch(name):
        raise function.wrong("name", "must have 1 to 64 letters, digits, _ or -")
    arguments = function.required_text("arguments")
    function.finish()
    members.finish()
    return {
        "id": call_id,
        "type": "function",
        "function": {"name": name, "arguments": arguments_of(arguments)},
    }


def arguments_of(arguments: str) -> object:
    """Arguments as an object; as they are where an answer broke off inside of them."""
    try:
        value: object = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return value if isinstance(value, dict) else arguments


def _content(fields: Fields, *, optional: bool = False) -> str:
    content = fields.take("content")
    if isinstance(content, list):
        return "".join(_part(part, f"{fields.name('content')}[{at}]") for at, part in enumerate(content))
    if isinstance(content, str):
        return content
    if content is None and optional:
        return ""
    raise fields.wrong("content", "must be a string or an array of text parts")


def _part(value: object, path: str) -> str:
    if not isinstance(value, dict):
        raise InvalidRequest(f"{path} must be an object", param=path)
    part = Fields(value, path)
    if part.required_text("type", max_chars=32) != "text":
        raise UnsupportedParameter(f"{path}.type: only text is supported", param=f"{path}.type")
    text = part.required_text("text")
    part.finish()
    return text
