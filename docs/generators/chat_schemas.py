# SPDX-License-Identifier: Apache-2.0
"""JSON Schemas of a conversation: messages, tools, and the form of the answer."""

from typing import Final

from adyton_enclave.api import chat_messages, response_format, tools
from adyton_enclave.api.fields import MAX_TEXT_CHARS
from schema_words import Schema, array, asked, flag, one_of, ref, text

_ANY_TEXT: Final = text(high=MAX_TEXT_CHARS)
_NAME: Final[Schema] = {"type": "string", "pattern": f"^{tools.TOOL_NAME.pattern}$"}
_FUNCTION: Final = one_of("function")


def message_schemas() -> dict[str, Schema]:
    """Components of ``messages``."""
    call_id = text(high=chat_messages.MAX_CALL_ID_CHARS)
    assistant = {"role": one_of("assistant")}
    calls = array(ref("ToolCall"), high=chat_messages.MAX_CALLS)
    content = {"content": ref("MessageContent")}
    reasoning = {"reasoning_content": _ANY_TEXT}
    return {
        "TextPart": asked({"type": one_of("text"), "text": _ANY_TEXT}, {}),
        "MessageContent": {"anyOf": [_ANY_TEXT, array(ref("TextPart"))]},
        "ToolCall": asked(
            {
                "id": call_id,
                "type": _FUNCTION,
                "function": asked({"name": _NAME, "arguments": _ANY_TEXT}, {}),
            },
            {"index": {"description": "As in gathered stream deltas; not looked at."}},
        ),
        "Message": {
            "anyOf": [
                _message({"role": one_of(*chat_messages.PLAIN_ROLES), **content}, {}),
                _message({**assistant, **content}, {**reasoning, "tool_calls": calls}),
                _message({**assistant, "tool_calls": {**calls, "minItems": 1}}, {**reasoning, **content}),
                _message(
                    {"role": one_of("tool"), **content, "tool_call_id": call_id},
                    {"name": text(high=chat_messages.MAX_CALL_ID_CHARS)},
                ),
            ]
        },
    }


def _message(required: dict[str, Schema], optional: dict[str, Schema]) -> Schema:
    """A message of some role; what other roles have may be there if it says nothing."""
    neutral: dict[str, Schema] = {
        name: one_of(*values) if values else {"type": "null"}
        for name, values in chat_messages.UNSUPPORTED.items()
        if name not in required
    }
    return asked(required, {**neutral, **optional})


def tool_schemas() -> dict[str, Schema]:
    """Components of ``tools``, ``tool_choice`` and ``response_format``."""
    named = asked({"type": _FUNCTION, "function": asked({"name": _NAME}, {})}, {})
    description = text(high=tools.MAX_DESCRIPTION_CHARS)
    schema: Schema = {"type": "object", "description": "A JSON Schema; see the guide for what is supported."}
    return {
        "Tool": asked(
            {
                "type": _FUNCTION,
                "function": asked(
                    {"name": _NAME},
                    {"description": description, "parameters": schema, "strict": flag()},
                ),
            },
            {},
        ),
        "ToolChoice": {
            "anyOf": [
                one_of("none", "auto", "required"),
                named,
                asked(
                    {
                        "type": one_of("allowed_tools"),
                        "allowed_tools": asked(
                            {"mode": one_of("auto", "required"), "tools": array(named, low=1)}, {}
                        ),
                    },
                    {},
                ),
            ]
        },
        "ResponseFormat": {
            "anyOf": [
                asked({"type": one_of("text", "json_object")}, {}),
                asked(
                    {
                        "type": one_of("json_schema"),
                        "json_schema": asked(
                            {"name": {"type": "string", "pattern": f"^{response_format.NAME.pattern}$"}},
                            {"description": description, "schema": schema, "strict": flag()},
                        ),
                    },
                    {},
                ),
            ]
        },
    }
