# SPDX-License-Identifier: Apache-2.0
"""Tools and calls as a model's chat template wants to see them.

SECURITY: what stands here as text of tools, arguments and results is the caller's, or comes from whatever the tools
read. It goes through the template as data and through :mod:`adyton_enclave.engine.chat_template`, which lets none of
it become a control token or the token of a mark.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Final

from adyton_enclave.api.tools import Tool
from adyton_enclave.engine.dialect import Dialect, ToolFormat

Message = Mapping[str, object]

_MISTRAL_ID: Final = re.compile(r"[a-zA-Z0-9]{9}")
_INTRODUCTION: Final = (
    "You can call functions. Each line between <tools> and </tools> describes one of them:\n<tools>\n{tools}\n"
    "</tools>\nTo call a function, write a JSON object with its name and arguments between <tool_call> and "
    '</tool_call>, like this:\n<tool_call>\n{{"name": "...", "arguments": {{...}}}}\n</tool_call>\n'
    "Results come back between <tool_response> and </tool_response>."
)


def with_tools(
    messages: Sequence[Message], tools: Sequence[Tool], dialect: Dialect
) -> tuple[list[Message], list[dict[str, object]] | None]:
    """Messages and tool definitions for the template.

    Args:
        messages: In OpenAI's shape, with arguments of calls as objects; attacker-controlled.
        tools: Those that may be called; perhaps none.
        dialect: The model's.
    """
    definitions = [tool.definition() for tool in tools]
    match dialect.tool_format:
        case ToolFormat.GENERIC:
            return _generic(messages, definitions, system_role=dialect.system_role), None
        case ToolFormat.MISTRAL:
            return [_mistral(message) for message in messages], definitions or None
        case ToolFormat.HERMES | ToolFormat.LLAMA3:
            return list(messages), definitions or None


def _generic(
    messages: Sequence[Message], definitions: Sequence[object], *, system_role: bool
) -> list[Message]:
    """Everything about tools as text in the roles that every template knows."""
    plain: list[dict[str, object]] = []
    for message in messages:
        match message["role"]:
            case "tool":
                text = f"<tool_response>\n{message['content']}\n</tool_response>"
                if plain and plain[-1].get("results"):
                    plain[-1]["content"] = f"{plain[-1]['content']}\n{text}"
                else:
                    plain.append({"role": "user", "content": text, "results": True})
            case "assistant" if calls := message.get("tool_calls"):
                plain.append({"role": "assistant", "content": _written(message["content"], calls)})
            case _:
                plain.append(dict(message))
    for message in plain:
        message.pop("results", None)
    if definitions:
        lines = "\n".join(json.dumps(definition, ensure_ascii=False) for definition in definitions)
        text = _INTRODUCTION.format(tools=lines)
        first = plain[0]["role"]
        if first == "system":
            plain[0]["content"] = f"{plain[0]['content']}\n\n{text}"
        elif first == "user" and not system_role:
            plain[0]["content"] = f"{text}\n\n{plain[0]['content']}"
        else:
            plain.insert(0, {"role": "system", "content": text})
    return list(plain)


def _written(content: object, calls: object) -> str:
    """An assistant's message with its calls as the generic form writes them."""
    lines = [content] if isinstance(content, str) and content else []
    for call in calls if isinstance(calls, list) else []:
        function = call["function"]
        body = json.dumps({"name": function["name"], "arguments": function["arguments"]}, ensure_ascii=False)
        lines.append(f"<tool_call>\n{body}\n</tool_call>")
    return "\n".join(lines)


def _mistral(message: Message) -> Message:
    """Its templates demand ids of nine letters and digits."""
    changed = dict(message)
    if isinstance(call_id := message.get("tool_call_id"), str):
        changed["tool_call_id"] = _mistral_id(call_id)
    if isinstance(calls := message.get("tool_calls"), list):
        changed["tool_calls"] = [{**call, "id": _mistral_id(call["id"])} for call in calls]
    return changed


def _mistral_id(call_id: str) -> str:
    if _MISTRAL_ID.fullmatch(call_id):
        return call_id
    return hashlib.sha256(call_id.encode()).hexdigest()[:9]
