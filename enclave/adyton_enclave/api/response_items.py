# SPDX-License-Identifier: Apache-2.0
"""The ``input`` of ``POST /v1/responses``, as the messages of a conversation.

Items are what an answer consists of and what a caller adds to it: messages, function calls, their outputs, reasoning.
Calls and reasoning belong to a message of the assistant; here they are put back into one, as chat templates know it.
"""

from collections.abc import Mapping
from typing import Final

from adyton_enclave.api.chat_messages import MAX_CALL_ID_CHARS, MAX_CALLS, Message, arguments_of
from adyton_enclave.api.errors import UnsupportedParameter
from adyton_enclave.api.fields import Fields
from adyton_enclave.api.tools import TOOL_NAME

MAX_ITEMS: Final = 4096
MAX_ID_CHARS: Final = 128
ROLES: Final = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
TEXT_PARTS: Final = frozenset({"input_text", "output_text", "text"})
# What the SDK's dumps of an answer's items carry beside the fields that mean something here.
PART_DROPPED: Final = ("annotations", "logprobs", "parsed")
ITEM_DROPPED: Final = ("status", "phase", "parsed_arguments")
CALL_UNSUPPORTED: Final[dict[str, tuple[object, ...]]] = {
    "async": (False,),
    "caller": ({"type": "direct"},),
    "namespace": (),
}


class _Conversation:
    """Messages as they grow."""

    def __init__(self) -> None:
        self.messages: list[dict[str, object]] = []
        self._reasoning = ""

    def say(self, role: str, text: str) -> None:
        """A message of its own, but for instructions, which templates expect once and first."""
        last = self.messages[-1] if self.messages else None
        if role == "system" and last is not None and last["role"] == "system":
            last["content"] = f"{last['content']}\n\n{text}"
            return
        message: dict[str, object] = {"role": role, "content": text}
        if role == "assistant":
            self._take_reasoning(message)
        self.messages.append(message)

    def reason(self, text: str) -> None:
        """What the assistant thought before its next message."""
        self._reasoning += text

    def call(self, call: Mapping[str, object]) -> bool:
        """A call of the assistant's last message, or of one without words; False when it has too many."""
        last = self.messages[-1] if self.messages else None
        if last is None or last["role"] != "assistant":
            last = {"role": "assistant", "content": ""}
            self._take_reasoning(last)
            self.messages.append(last)
        calls = last.setdefault("tool_calls", [])
        if not isinstance(calls, list) or len(calls) >= MAX_CALLS:
            return False
        calls.append(call)
        return True

    def answer(self, call_id: str, text: str) -> None:
        """The output of a call."""
        self.messages.append({"role": "tool", "tool_call_id": call_id, "content": text})

    def _take_reasoning(self, message: dict[str, object]) -> None:
        if self._reasoning:
            message["reasoning_content"] = self._reasoning
            self._reasoning = ""


def parse_input(fields: Fields) -> tuple[Message, ...]:
    """Take the attacker-controlled ``instructions`` and ``input``.

    Raises:
        InvalidRequest: ``param`` names the field at fault.
    """
    conversation = _Conversation()
    if instructions := fields.text("instructions"):
        conversation.say("system", instructions)
    value = fields.take("input")
    if isinstance(value, str):
        conversation.say("user", value)
    elif isinstance(value, list) and 0 < len(value) <= MAX_ITEMS:
        for at, item in enumerate(value):
            if not isinstance(item, dict):
                raise fields.wrong(f"input[{at}]", "must be an object")
            _item(Fields(item, f"input[{at}]"), conversation)
    else:
        raise fields.wrong("input", f"is required: a string, or an array of 1 to {MAX_ITEMS} items")
    if not conversation.messages:
        raise fields.wrong("input", "holds nothing to answer")
    return tuple(conversation.messages)


def _item(fields: Fields, conversation: _Conversation) -> None:
    kind = fields.text("type", max_chars=64) or "message"
    fields.text("id", max_chars=MAX_ID_CHARS)
    for name in ITEM_DROPPED:
        fields.take(name)
    match kind:
        case "message":
            _message(fields, conversation)
        case "function_call":
            _call(fields, conversation)
        case "function_call_output":
            call_id = fields.required_text("call_id", max_chars=MAX_CALL_ID_CHARS)
            fields.refuse_unsupported(CALL_UNSUPPORTED)
            conversation.answer(call_id, _text(fields, "output"))
        case "reasoning":
            # Summaries are made for people; what another service encrypted means nothing here.
            fields.take("summary")
            fields.take("encrypted_content")
            if fields.has("content"):
                conversation.reason(_text(fields, "content", parts=frozenset({"reasoning_text"})))
        case "item_reference":
            raise UnsupportedParameter(
                f"{fields.name('type')}: nothing is stored that could be referred to; send the item itself",
                param=fields.name("type"),
            )
        case _:
            raise UnsupportedParameter(
                f"{fields.name('type')}: only messages, function calls, their outputs and reasoning are supported",
                param=fields.name("type"),
            )
    fields.finish()


def _message(fields: Fields, conversation: _Conversation) -> None:
    role = fields.required_text("role", max_chars=32)
    if role not in ROLES:
        raise fields.wrong("role", "must be one of system, developer, user, assistant")
    conversation.say(ROLES[role], _text(fields, "content"))


def _call(fields: Fields, conversation: _Conversation) -> None:
    call_id = fields.required_text("call_id", max_chars=MAX_CALL_ID_CHARS)
    name = fields.required_text("name")
    if not TOOL_NAME.fullmatch(name):
        raise fields.wrong("name", "must have 1 to 64 letters, digits, _ or -")
    arguments = fields.required_text("arguments")
    fields.refuse_unsupported(CALL_UNSUPPORTED)
    function = {"name": name, "arguments": arguments_of(arguments)}
    if not conversation.call({"id": call_id, "type": "function", "function": function}):
        raise fields.wrong("type", f"is the call number {MAX_CALLS + 1} in a row")


def _text(fields: Fields, field: str, *, parts: frozenset[str] = TEXT_PARTS) -> str:
    """A string, or the texts of an array of parts."""
    value = fields.take(field)
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise fields.wrong(field, "must be a string or an array of text parts")
    return "".join(_part(fields, part, f"{field}[{at}]", parts) for at, part in enumerate(value))


def _part(fields: Fields, value: object, path: str, parts: frozenset[str]) -> str:
    if not isinstance(value, dict):
        raise fields.wrong(path, "must be an object")
    part = Fields(value, fields.name(path))
    if part.required_text("type", max_chars=32) not in parts:
        raise UnsupportedParameter(f"{part.name('type')}: only text is supported", param=part.name("type"))
    text = part.required_text("text")
    for name in PART_DROPPED:
        part.take(name)
    part.finish()
    return text
