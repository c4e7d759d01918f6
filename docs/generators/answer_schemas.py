# SPDX-License-Identifier: Apache-2.0
"""JSON Schemas of what the API answers with; the suite holds every answer against them."""

from typing import Final

from response_schemas import response_schemas
from search_schemas import search_schemas, token_details

from adyton_enclave.api.types import SERVICE_TIERS
from adyton_enclave.config import ROLES
from adyton_protocol.selection.aggregate import AGGREGATES
from schema_words import Schema, answered, array, one_of, ref

_STRING: Final[Schema] = {"type": "string"}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_TIME: Final[Schema] = {"type": "integer", "minimum": 0, "description": "Unix time in seconds."}
_LOGPROB: Final[Schema] = {"type": "number", "maximum": 0}
_DIGEST: Final[Schema] = {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}
_FINGERPRINT: Final[Schema] = {"type": "string", "pattern": "^fp_[0-9a-f]{12}$"}
_FINISH: Final = ("stop", "length")
_CHAT_FINISH: Final = (*_FINISH, "tool_calls")
_NULL: Final[Schema] = {"type": "null"}


def _nullable(schema: Schema) -> Schema:
    return {"anyOf": [schema, _NULL]}


def answer_schemas() -> dict[str, Schema]:
    """Components by name."""
    return {
        **_shared(),
        **_chat(),
        **_completion(),
        **_embedding(),
        **_score(),
        **response_schemas(),
        **search_schemas(),
        **_models(),
        **_receipt(),
    }


def _shared() -> dict[str, Schema]:
    return {
        "Error": answered(
            {
                "error": answered(
                    {
                        "message": _STRING,
                        "type": one_of("invalid_request_error", "rate_limit_error", "server_error"),
                        "param": {"type": ["string", "null"], "description": "The field at fault."},
                        "code": {
                            "type": ["string", "null"],
                            "description": "Stable; see the table of errors.",
                        },
                    }
                )
            }
        ),
        "Usage": answered(
            {
                "prompt_tokens": _COUNT,
                "completion_tokens": _COUNT,
                "total_tokens": _COUNT,
                "prompt_tokens_details": answered({"cached_tokens": _COUNT}),
                "completion_tokens_details": token_details(),
            }
        ),
        "TokenLogprob": answered(
            {
                "token": _STRING,
                "bytes": array({"type": "integer", "minimum": 0, "maximum": 255}),
                "logprob": _LOGPROB,
            }
        ),
        "ChosenLogprob": answered(
            {
                "token": _STRING,
                "bytes": array({"type": "integer", "minimum": 0, "maximum": 255}),
                "logprob": _LOGPROB,
                "top_logprobs": array(ref("TokenLogprob")),
            }
        ),
        "ChatLogprobs": answered({"content": array(ref("ChosenLogprob")), "refusal": _NULL}),
    }


def _chat() -> dict[str, Schema]:
    head: dict[str, Schema] = {
        "id": {"type": "string", "pattern": "^chatcmpl-[0-9a-f]+$"},
        "created": _TIME,
        "model": _STRING,
        "system_fingerprint": _FINGERPRINT,
        "service_tier": one_of(*sorted(set(SERVICE_TIERS.values()))),
    }
    function = answered({"name": _STRING, "arguments": _STRING})
    call = answered({"id": _STRING, "type": one_of("function"), "function": function})
    message = answered(
        {
            "role": one_of("assistant"),
            "content": {"type": ["string", "null"]},
            "refusal": _NULL,
            "reasoning_content": _STRING,
            "tool_calls": array(call, low=1),
        },
        optional=("reasoning_content", "tool_calls"),
    )
    more_function = answered({"name": _STRING, "arguments": _STRING}, optional=("name",))
    more_call = answered(
        {"index": _COUNT, "id": _STRING, "type": one_of("function"), "function": more_function},
        optional=("id", "type"),
    )
    delta = answered(
        {
            "role": one_of("assistant"),
            "content": _STRING,
            "reasoning_content": _STRING,
            "tool_calls": array(more_call, low=1, high=1),
        },
        optional=("role", "content", "reasoning_content", "tool_calls"),
    )
    choice: dict[str, Schema] = {
        "index": _COUNT,
        "logprobs": _nullable(ref("ChatLogprobs")),
        "finish_reason": one_of(*_CHAT_FINISH),
    }
    return {
        "ChatCompletion": answered(
            {
                **head,
                "object": one_of("chat.completion"),
                "choices": array(answered({**choice, "message": message}), low=1),
                "usage": ref("Usage"),
                "x_report": ref("SearchReport"),
            },
            optional=("service_tier", "x_report"),
        ),
        "ChatCompletionChunk": answered(
            {
                **head,
                "object": one_of("chat.completion.chunk"),
                "choices": array(
                    answered({**choice, "delta": delta, "finish_reason": one_of(*_CHAT_FINISH, None)}), high=1
                ),
                "usage": _nullable(ref("Usage")),
                "x_progress": ref("SearchProgress"),
                "x_report": ref("SearchReport"),
            },
            optional=("service_tier", "usage", "x_progress", "x_report"),
        ),
    }


def _completion() -> dict[str, Schema]:
    logprobs = answered(
        {
            "tokens": array(_STRING),
            "token_logprobs": array(_LOGPROB),
            "top_logprobs": array({"type": "object", "additionalProperties": _LOGPROB}),
            "text_offset": array(_COUNT),
        }
    )
    choice: dict[str, Schema] = {
        "index": _COUNT,
        "text": _STRING,
        "logprobs": _nullable(logprobs),
        "finish_reason": one_of(*_FINISH, None),
    }
    return {
        "Completion": answered(
            {
                "id": {"type": "string", "pattern": "^cmpl-[0-9a-f]+$"},
                "object": one_of("text_completion"),
                "created": _TIME,
                "model": _STRING,
                "system_fingerprint": _FINGERPRINT,
                "service_tier": one_of(*sorted(set(SERVICE_TIERS.values()))),
                "choices": array(answered(choice)),
                "usage": _nullable(ref("Usage")),
                "x_progress": ref("SearchProgress"),
                "x_report": ref("SearchReport"),
            },
            optional=("service_tier", "usage", "x_progress", "x_report"),
        )
    }


def _embedding() -> dict[str, Schema]:
    base64: Schema = {"type": "string", "contentEncoding": "base64", "description": "float32, little-endian."}
    vector: Schema = {"anyOf": [array({"type": "number"}, low=1), base64]}
    return {
        "EmbeddingList": answered(
            {
                "object": one_of("list"),
                "data": array(
                    answered({"object": one_of("embedding"), "index": _COUNT, "embedding": vector}), low=1
                ),
                "model": _STRING,
                "usage": answered({"prompt_tokens": _COUNT, "total_tokens": _COUNT}),
            }
        )
    }


def _score() -> dict[str, Schema]:
    share: Schema = {"type": "number", "minimum": 0, "maximum": 1}
    return {
        "Score": answered(
            {
                "id": {"type": "string", "pattern": "^score-[0-9a-f]+$"},
                "object": one_of("score"),
                "created": _TIME,
                "model": {**_STRING, "description": "The scorer."},
                "steps": array(
                    answered(
                        {
                            "index": _COUNT,
                            "text": _STRING,
                            "score": share,
                            "sound": {"type": "boolean", "description": "Whether it reaches the threshold."},
                        }
                    ),
                    low=1,
                ),
                "aggregate": answered(dict.fromkeys(AGGREGATES, share)),
                "threshold": {**share, "description": "What the scorer's adapter says."},
                "usage": answered({"prompt_tokens": _COUNT, "total_tokens": _COUNT}),
            }
        )
    }


def _models() -> dict[str, Schema]:
    return {
        "Model": answered(
            {
                "id": _STRING,
                "object": one_of("model"),
                "created": _TIME,
                "owned_by": one_of("adyton"),
                "role": one_of(*ROLES),
                "scorer": {
                    **_STRING,
                    "description": "Of a generator: who judges its answers, if anybody does.",
                },
                "identity": {**_DIGEST, "description": "Digest of everything that can change an answer."},
                "n_ctx": {"type": "integer", "minimum": 1, "description": "Tokens of prompt and answer."},
                "license": _STRING,
                "reproducible": {
                    "type": "boolean",
                    "description": "Whether logits are the same, bit for bit, whatever shares the batch.",
                },
                "not_reproducible_because": _STRING,
            },
            optional=("not_reproducible_because", "scorer"),
        ),
        "ModelList": answered({"object": one_of("list"), "data": array(ref("Model"))}),
    }


def _receipt() -> dict[str, Schema]:
    return {
        "Receipt": {
            "type": "object",
            "description": "A signed event log (aci/1); docs/protocol.md has every member.",
            "required": ["receipt_id", "event_log", "signature"],
        }
    }
