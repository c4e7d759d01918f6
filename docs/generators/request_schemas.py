# SPDX-License-Identifier: Apache-2.0
"""JSON Schemas of what the API takes in.

Bounds and harmless values come from the enclave's own modules; only the shapes are written here. What a schema
cannot say is listed with each operation.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from adyton_enclave.api import types
from adyton_enclave.api.fields import MAX_TEXT_CHARS
from adyton_enclave.api.types import RequestLimits
from adyton_enclave.privacy import Profile
from schema_words import Schema, array, asked, flag, one_of, real, ref, text, whole

_INT64: Final = 2**63


def request_schemas(limits: RequestLimits) -> dict[str, Schema]:
    """Components by name."""
    return {
        "TextPart": asked({"type": one_of("text"), "text": text(high=MAX_TEXT_CHARS)}, {}),
        "MessageContent": {
            "anyOf": [text(high=MAX_TEXT_CHARS), array(ref("TextPart"))],
        },
        "Message": asked(
            {"role": one_of("system", "developer", "user", "assistant"), "content": ref("MessageContent")},
            _harmless(types._MESSAGE_UNSUPPORTED),  # noqa: SLF001 - the table is the parser's own
        ),
        "StreamOptions": asked({}, {"include_usage": flag()}),
        "Stop": {
            "anyOf": [
                text(low=1, high=types.MAX_STOP_CHARS),
                array(text(low=1, high=types.MAX_STOP_CHARS), high=types.MAX_STOPS),
            ]
        },
        "TokenIds": array(whole(0, types.MAX_TOKENS - 1), low=1),
        "ChatCompletionRequest": {
            **asked(
                {"messages": array(ref("Message"), low=1)},
                {
                    **_harmless(types._CHAT_UNSUPPORTED),  # noqa: SLF001 - the table is the parser's own
                    **_common(limits),
                    "max_completion_tokens": whole(1, types.MAX_TOKENS),
                    "logprobs": flag(),
                    "top_logprobs": whole(0, types.MAX_TOP_LOGPROBS),
                },
            ),
            "dependentSchemas": {
                "stream_options": _only_with("stream_options", "stream"),
                "top_logprobs": _only_with("top_logprobs", "logprobs"),
            },
        },
        "CompletionRequest": {
            **asked(
                {
                    "prompt": {
                        "anyOf": [
                            text(high=MAX_TEXT_CHARS),
                            ref("TokenIds"),
                            array(
                                {"anyOf": [text(high=MAX_TEXT_CHARS), ref("TokenIds")]},
                                low=1,
                                high=limits.max_prompts,
                            ),
                        ]
                    }
                },
                {
                    **_harmless(types._COMPLETION_UNSUPPORTED),  # noqa: SLF001 - the table is the parser's own
                    **_common(limits),
                    "logprobs": whole(0, types.MAX_TOP_LOGPROBS),
                },
            ),
            "dependentSchemas": {"stream_options": _only_with("stream_options", "stream")},
        },
    }


def _common(limits: RequestLimits) -> dict[str, Schema]:
    return {
        "model": text(high=types.MAX_MODEL_CHARS),
        "n": whole(1, limits.max_candidates),
        "max_tokens": whole(1, types.MAX_TOKENS),
        "stop": ref("Stop"),
        "temperature": real(0, types.MAX_TEMPERATURE),
        "top_p": real(0, 1, above_low=True),
        "top_k": whole(0, types.MAX_TOP_K),
        "min_p": real(0, 1),
        "seed": whole(-_INT64, _INT64 - 1),
        "stream": flag(),
        "stream_options": ref("StreamOptions"),
        "privacy": one_of(*(profile.value for profile in Profile)),
        "user": text(high=1024),
    }


def _harmless(fields: Mapping[str, Sequence[object]]) -> dict[str, Schema]:
    """Fields that are known and not served: only what asks for nothing passes."""
    return {name: one_of(*values) if values else {"type": "null"} for name, values in fields.items()}


def _only_with(field: str, switch: str) -> Schema:
    """``field`` needs ``switch`` to be true."""
    return {
        "if": {"properties": {field: {"not": {"type": "null"}}}},
        "then": {"properties": {switch: {"const": True}}, "required": [switch]},
    }
