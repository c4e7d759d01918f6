# SPDX-License-Identifier: Apache-2.0
"""``POST /v1/chat/completions``, parsed at the edge."""

from typing import Final

from adyton_enclave.api.chat_task import ChatTask, Message
from adyton_enclave.api.errors import UnsupportedParameter
from adyton_enclave.api.fields import Fields, parse_object
from adyton_enclave.api.parameters import CHAT, treat
from adyton_enclave.api.types import MAX_TOKENS, MAX_TOP_LOGPROBS, RequestLimits, parse_options
from adyton_protocol.errors import InvalidRequest

_MESSAGE_UNSUPPORTED: Final[dict[str, tuple[object, ...]]] = {
    # The SDK's own dumps of an assistant message carry these as null or empty.
    "annotations": ([],),
    "audio": (),
    "function_call": (),
    "name": (),
    "refusal": (),
    "tool_call_id": (),
    "tool_calls": ([],),
}
_ROLES: Final = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


def parse_chat_request(body: bytes, limits: RequestLimits) -> ChatTask:
    """Parse the attacker-controlled body of a chat completion.

    Raises:
        InvalidRequest: ``param`` names the field at fault.
    """
    fields = Fields(parse_object(body))
    wants_logprobs = fields.flag("logprobs")
    top_logprobs = fields.whole("top_logprobs", low=0, high=MAX_TOP_LOGPROBS)
    if top_logprobs is not None and not wants_logprobs:
        raise fields.wrong("top_logprobs", "requires logprobs to be true")
    options = parse_options(
        fields,
        limits,
        max_tokens=_max_tokens(fields),
        logprobs=(top_logprobs or 0) if wants_logprobs else None,
        ignored=treat(fields, CHAT),
    )
    messages = _messages(fields)
    fields.finish()
    return ChatTask(options=options, messages=messages, size_bytes=len(body))


def _max_tokens(fields: Fields) -> int | None:
    current = fields.whole("max_completion_tokens", low=1, high=MAX_TOKENS)
    deprecated = fields.whole("max_tokens", low=1, high=MAX_TOKENS)
    if current is not None and deprecated is not None and current != deprecated:
        raise fields.wrong("max_tokens", "contradicts max_completion_tokens")
    return deprecated if current is None else current


def _messages(fields: Fields) -> tuple[Message, ...]:
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
    if role in {"tool", "function"}:
        raise UnsupportedParameter(
            f"{fields.name('role')}: tools are not supported", param=fields.name("role")
        )
    if role not in _ROLES:
        raise fields.wrong("role", "must be one of system, developer, user, assistant")
    fields.refuse_unsupported(_MESSAGE_UNSUPPORTED)
    content = fields.take("content")
    if isinstance(content, list):
        text = "".join(_part(part, f"{fields.name('content')}[{at}]") for at, part in enumerate(content))
    elif isinstance(content, str):
        text = content
    else:
        raise fields.wrong("content", "must be a string or an array of text parts")
    fields.finish()
    return {"role": _ROLES[role], "content": text}


def _part(value: object, path: str) -> str:
    if not isinstance(value, dict):
        raise InvalidRequest(f"{path} must be an object", param=path)
    part = Fields(value, path)
    if part.required_text("type", max_chars=32) != "text":
        raise UnsupportedParameter(f"{path}.type: only text is supported", param=f"{path}.type")
    text = part.required_text("text")
    part.finish()
    return text
