# SPDX-License-Identifier: Apache-2.0
"""The requests of the API, parsed at the edge: what comes out is complete, typed and within bounds.

Field names and meanings are OpenAI's. Fields of theirs that this enclave does not serve are refused by name unless
they ask for nothing, and fields that nobody knows are refused, because a misspelt ``max_tokens`` must not become
an answer without a limit.
"""

from dataclasses import dataclass, field
from typing import Final

from adyton_enclave.api.errors import UnsupportedParameter
from adyton_enclave.api.fields import Fields, parse_object
from adyton_enclave.privacy import Profile
from adyton_protocol.errors import InvalidRequest

DEFAULT_MODEL: Final = "default"
"""What a request means that names no model: the first one that is configured."""
MAX_MODEL_CHARS: Final = 128
MAX_STOPS: Final = 16
MAX_STOP_CHARS: Final = 256
MAX_TOP_LOGPROBS: Final = 20
MAX_TOKENS: Final = 2**31 - 1
MAX_TEMPERATURE: Final = 2.0
MAX_TOP_K: Final = 1 << 20

_NEVER: Final[tuple[object, ...]] = ()
_COMMON_UNSUPPORTED: Final[dict[str, tuple[object, ...]]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "logit_bias": ({},),
    "scaling": _NEVER,
    "validation": _NEVER,
}
_CHAT_UNSUPPORTED: Final[dict[str, tuple[object, ...]]] = {
    **_COMMON_UNSUPPORTED,
    "audio": _NEVER,
    "function_call": ("none",),
    "functions": ([],),
    "metadata": ({},),
    "modalities": (["text"],),
    "parallel_tool_calls": (True, False),
    "prediction": _NEVER,
    "reasoning_effort": _NEVER,
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "tool_choice": ("none",),
    "tools": ([],),
    "verbosity": _NEVER,
    "web_search_options": _NEVER,
}
_COMPLETION_UNSUPPORTED: Final[dict[str, tuple[object, ...]]] = {
    **_COMMON_UNSUPPORTED,
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
}
_MESSAGE_UNSUPPORTED: Final[dict[str, tuple[object, ...]]] = {
    # The SDK's own dumps of an assistant message carry these as null or empty.
    "annotations": ([],),
    "audio": _NEVER,
    "function_call": _NEVER,
    "name": _NEVER,
    "refusal": _NEVER,
    "tool_call_id": _NEVER,
    "tool_calls": ([],),
}
_ROLES: Final = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLimits:
    """Bounds that the operator sets."""

    max_candidates: int
    max_prompts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What chat and plain completions have in common. None means: the model's default.

    Attributes:
        model: Name of a model, not yet looked up, or ``default``.
        logprobs: Number of alternatives to report with each token, or None for no log-probabilities.
        stream: Answer as server-sent events.
        include_usage: End the stream with an event that holds the usage.
    """

    model: str
    n: int
    max_tokens: int | None
    stop: tuple[str, ...] = field(repr=False)
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    seed: int | None
    logprobs: int | None
    stream: bool
    include_usage: bool
    privacy: Profile | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """``POST /v1/chat/completions``. Messages are pairs of role and text."""

    options: Options
    messages: tuple[tuple[str, str], ...] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest:
    """``POST /v1/completions``. A prompt is a text, or token ids not yet compared with the vocabulary."""

    options: Options
    prompts: tuple[str | tuple[int, ...], ...] = field(repr=False)


def parse_chat_request(body: bytes, limits: RequestLimits) -> ChatRequest:
    """Parse the attacker-controlled body of a chat completion.

    Raises:
        InvalidRequest: ``param`` names the field at fault.
    """
    fields = Fields(parse_object(body))
    wants_logprobs = fields.flag("logprobs")
    top_logprobs = fields.whole("top_logprobs", low=0, high=MAX_TOP_LOGPROBS)
    if top_logprobs is not None and not wants_logprobs:
        raise fields.wrong("top_logprobs", "requires logprobs to be true")
    max_tokens = _max_tokens(fields)
    options = _options(
        fields, limits, max_tokens=max_tokens, logprobs=(top_logprobs or 0) if wants_logprobs else None
    )
    messages = _messages(fields)
    fields.refuse_unsupported(_CHAT_UNSUPPORTED)
    fields.finish()
    return ChatRequest(options=options, messages=messages)


def parse_completion_request(body: bytes, limits: RequestLimits) -> CompletionRequest:
    """Parse the attacker-controlled body of a plain completion.

    Raises:
        InvalidRequest: ``param`` names the field at fault.
    """
    fields = Fields(parse_object(body))
    logprobs = fields.whole("logprobs", low=0, high=MAX_TOP_LOGPROBS)
    max_tokens = fields.whole("max_tokens", low=1, high=MAX_TOKENS)
    options = _options(fields, limits, max_tokens=max_tokens, logprobs=logprobs)
    prompts = _prompts(fields, limits)
    fields.refuse_unsupported(_COMPLETION_UNSUPPORTED)
    fields.finish()
    return CompletionRequest(options=options, prompts=prompts)


def _options(
    fields: Fields, limits: RequestLimits, *, max_tokens: int | None, logprobs: int | None
) -> Options:
    stream = fields.flag("stream")
    # Accepted and dropped: nothing here keeps anything about an end user.
    fields.text("user", max_chars=1024)
    return Options(
        model=fields.text("model", max_chars=MAX_MODEL_CHARS) or DEFAULT_MODEL,
        n=fields.whole("n", low=1, high=limits.max_candidates) or 1,
        max_tokens=max_tokens,
        stop=_stop(fields),
        temperature=fields.real("temperature", low=0.0, high=MAX_TEMPERATURE),
        top_p=fields.real("top_p", low=0.0, high=1.0, above_low=True),
        top_k=fields.whole("top_k", low=0, high=MAX_TOP_K),
        min_p=fields.real("min_p", low=0.0, high=1.0),
        seed=fields.whole("seed", low=-(2**63), high=2**63 - 1),
        logprobs=logprobs,
        stream=stream,
        include_usage=_include_usage(fields, stream=stream),
        privacy=_privacy(fields),
    )


def _max_tokens(fields: Fields) -> int | None:
    current = fields.whole("max_completion_tokens", low=1, high=MAX_TOKENS)
    deprecated = fields.whole("max_tokens", low=1, high=MAX_TOKENS)
    if current is not None and deprecated is not None and current != deprecated:
        raise fields.wrong("max_tokens", "contradicts max_completion_tokens")
    return deprecated if current is None else current


def _stop(fields: Fields) -> tuple[str, ...]:
    value = fields.take("stop")
    if value is None:
        return ()
    stops = value if isinstance(value, list) else [value]
    if len(stops) > MAX_STOPS:
        raise fields.wrong("stop", f"must have at most {MAX_STOPS} strings")
    texts: list[str] = []
    for stop in stops:
        if not isinstance(stop, str) or not 0 < len(stop) <= MAX_STOP_CHARS:
            raise fields.wrong(
                "stop", f"must be a string of 1 to {MAX_STOP_CHARS} characters, or an array of them"
            )
        texts.append(stop)
    return tuple(texts)


def _include_usage(fields: Fields, *, stream: bool) -> bool:
    options = fields.members("stream_options")
    if options is None:
        return False
    if not stream:
        raise fields.wrong("stream_options", "requires stream to be true")
    include = options.flag("include_usage")
    options.finish()
    return include


def _privacy(fields: Fields) -> Profile | None:
    value = fields.text("privacy", max_chars=16)
    if value is None:
        return None
    try:
        return Profile(value)
    except ValueError as error:
        raise fields.wrong("privacy", "must be one of off, size, cadence") from error


def _messages(fields: Fields) -> tuple[tuple[str, str], ...]:
    values = fields.array("messages")
    if not values:
        raise fields.wrong("messages", "is required and must not be empty")
    messages: list[tuple[str, str]] = []
    for index, value in enumerate(values):
        if not isinstance(value, dict):
            raise fields.wrong(f"messages[{index}]", "must be an object")
        messages.append(_message(Fields(value, f"messages[{index}]")))
    return tuple(messages)


def _message(fields: Fields) -> tuple[str, str]:
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
    return _ROLES[role], text


def _part(value: object, path: str) -> str:
    if not isinstance(value, dict):
        raise InvalidRequest(f"{path} must be an object", param=path)
    part = Fields(value, path)
    if part.required_text("type", max_chars=32) != "text":
        raise UnsupportedParameter(f"{path}.type: only text is supported", param=f"{path}.type")
    text = part.required_text("text")
    part.finish()
    return text


def _prompts(fields: Fields, limits: RequestLimits) -> tuple[str | tuple[int, ...], ...]:
    value = fields.take("prompt")
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not value:
        raise fields.wrong("prompt", "is required: a string, token ids, or an array of either")
    if all(isinstance(item, int) for item in value):
        return (_token_ids(fields, value),)
    if len(value) > limits.max_prompts:
        raise fields.wrong("prompt", f"must have at most {limits.max_prompts} prompts")
    return tuple(item if isinstance(item, str) else _token_ids(fields, item) for item in value)


def _token_ids(fields: Fields, value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise fields.wrong("prompt", "must be a string, token ids, or an array of either")
    token_ids: list[int] = []
    for item in value:
        if not isinstance(item, int) or isinstance(item, bool) or not 0 <= item < MAX_TOKENS:
            raise fields.wrong("prompt", "holds something that is not a token id")
        token_ids.append(item)
    return tuple(token_ids)
