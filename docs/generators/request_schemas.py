# SPDX-License-Identifier: Apache-2.0
"""JSON Schemas of what the API takes in.

Names, treatment and notes come from the enclave's table of parameters, bounds from its parsers; only the shapes are
written here. A parameter without a shape, or a shape without a parameter, is an error.
"""

from collections.abc import Mapping
from typing import Final

from chat_schemas import message_schemas, tool_schemas
from response_schemas import input_schemas, response_input, response_shapes

from adyton_enclave.api import scaling_request, template_options, tools, types
from adyton_enclave.api.embedding_request import MAX_DIMENSIONS
from adyton_enclave.api.fields import MAX_TEXT_CHARS
from adyton_enclave.api.parameters import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    PARAMETERS,
    RESPONSES,
    SCORE,
    Parameter,
    Treatment,
)
from adyton_enclave.api.score_request import MAX_SCORED_CHARS
from adyton_enclave.api.types import RequestLimits
from adyton_enclave.privacy import Profile
from adyton_enclave.scaling.plan import STOP_KINDS, STRATEGIES
from adyton_protocol.answers.limits import MAX_FIELD_CHARACTERS
from adyton_protocol.answers.rule import EQUIVALENCES, EXTRACTS
from adyton_protocol.selection.aggregate import AGGREGATES
from schema_words import ABSENT, Schema, array, asked, flag, one_of, or_null, real, ref, text, whole

_INT64: Final = 2**63
_ANY_TEXT: Final = text(high=MAX_TEXT_CHARS)
_PRIVACY: Final = one_of(*(profile.value for profile in Profile))


def request_schemas(limits: RequestLimits) -> dict[str, Schema]:
    """Components by name."""
    return {
        **message_schemas(),
        **tool_schemas(),
        "StreamOptions": asked({}, {"include_usage": flag(), "include_obfuscation": flag()}),
        "Stop": {
            "anyOf": [
                text(low=1, high=types.MAX_STOP_CHARS),
                array(text(low=1, high=types.MAX_STOP_CHARS), high=types.MAX_STOPS),
            ]
        },
        "LogitBias": {
            "type": "object",
            "propertyNames": {"pattern": "^[0-9]{1,10}$"},
            "additionalProperties": real(-types.MAX_BIAS, types.MAX_BIAS),
            "maxProperties": types.MAX_BIASES,
        },
        "TokenIds": array(whole(0, types.MAX_TOKENS - 1), low=1),
        "Scaling": _scaling(limits),
        "ChatCompletionRequest": _chat(limits),
        "CompletionRequest": _completion(limits),
        "EmbeddingRequest": _embedding(limits),
        "ScoreRequest": _score(limits),
        **input_schemas(),
        "ResponseRequest": {
            **_request(RESPONSES, {"input": response_input()}, {**_shared(), **response_shapes()}),
            "dependentSchemas": {"stream_options": _only_with("stream_options", "stream")},
        },
    }


def _chat(limits: RequestLimits) -> Schema:
    shapes = {
        **_common(limits),
        "max_completion_tokens": whole(1, types.MAX_TOKENS),
        "logprobs": flag(),
        "top_logprobs": whole(0, types.MAX_TOP_LOGPROBS),
        "response_format": ref("ResponseFormat"),
        "tools": array(ref("Tool"), high=tools.MAX_TOOLS),
        "tool_choice": ref("ToolChoice"),
        "parallel_tool_calls": flag(),
        "reasoning_effort": one_of(*template_options.EFFORTS),
        "chat_template_kwargs": {
            "type": "object",
            "additionalProperties": {
                "anyOf": [flag(), {"type": "number"}, text(high=template_options.MAX_OPTION_CHARS)]
            },
            "maxProperties": template_options.MAX_OPTIONS,
        },
    }
    required = {"messages": array(ref("Message"), low=1)}
    return {
        **_request(CHAT, required, shapes),
        "dependentSchemas": {
            "stream_options": _only_with("stream_options", "stream"),
            "top_logprobs": _only_with("top_logprobs", "logprobs"),
        },
    }


def _completion(limits: RequestLimits) -> Schema:
    several = array({"anyOf": [_ANY_TEXT, ref("TokenIds")]}, low=1, high=limits.max_prompts)
    shapes = {
        **_common(limits),
        "logprobs": whole(0, types.MAX_TOP_LOGPROBS),
        "best_of": whole(1, limits.max_candidates),
        "echo": flag(),
    }
    required: dict[str, Schema] = {"prompt": {"anyOf": [_ANY_TEXT, ref("TokenIds"), several]}}
    return {
        **_request(COMPLETIONS, required, shapes),
        "dependentSchemas": {
            "stream_options": _only_with("stream_options", "stream"),
            "echo": {
                "if": {"properties": {"echo": {"const": True}}},
                "then": {"properties": {"logprobs": {"type": "null"}}},
            },
        },
    }


def _embedding(limits: RequestLimits) -> Schema:
    full = text(low=1, high=MAX_TEXT_CHARS)
    token_ids = array(whole(0, types.MAX_TOKENS - 1), low=1, high=limits.max_input_tokens)
    several = array({"anyOf": [full, token_ids]}, low=1, high=limits.max_inputs)
    shapes = {
        "model": text(high=types.MAX_MODEL_CHARS),
        "encoding_format": one_of("float", "base64"),
        "dimensions": whole(1, MAX_DIMENSIONS),
        "privacy": _PRIVACY,
    }
    return _request(EMBEDDINGS, {"input": {"anyOf": [full, token_ids, several]}}, shapes)


def _score(limits: RequestLimits) -> Schema:
    full = text(low=1, high=MAX_SCORED_CHARS)
    required: dict[str, Schema] = {
        "problem": full,
        "steps": {"anyOf": [array(full, low=1, high=limits.max_steps), full]},
    }
    shapes = {
        "model": text(high=types.MAX_MODEL_CHARS),
        "privacy": _PRIVACY,
        "service_tier": one_of(*types.SERVICE_TIERS),
        "deadline_ms": whole(1, types.MAX_DEADLINE_MS),
    }
    return _request(SCORE, required, shapes)


def _common(limits: RequestLimits) -> dict[str, Schema]:
    return {
        **_shared(),
        "n": whole(1, limits.max_candidates),
        "max_tokens": whole(1, types.MAX_TOKENS),
    }


def _shared() -> dict[str, Schema]:
    return {
        "model": text(high=types.MAX_MODEL_CHARS),
        "stop": ref("Stop"),
        "temperature": real(0, types.MAX_TEMPERATURE),
        "top_p": real(0, 1, above_low=True),
        "top_k": whole(0, types.MAX_TOP_K),
        "min_p": real(0, 1),
        "frequency_penalty": real(-types.MAX_PENALTY, types.MAX_PENALTY),
        "presence_penalty": real(-types.MAX_PENALTY, types.MAX_PENALTY),
        "repetition_penalty": real(types.MIN_REPETITION_PENALTY, types.MAX_PENALTY),
        "logit_bias": ref("LogitBias"),
        "seed": whole(-_INT64, _INT64 - 1),
        "stream": flag(),
        "stream_options": ref("StreamOptions"),
        "service_tier": one_of(*types.SERVICE_TIERS),
        "deadline_ms": whole(1, types.MAX_DEADLINE_MS),
        "cache_salt": text(low=types.MIN_SALT_CHARS, high=types.MAX_SALT_CHARS),
        "privacy": _PRIVACY,
        "scaling": ref("Scaling"),
    }


def _scaling(limits: RequestLimits) -> Schema:
    width = limits.max_search_width
    return asked(
        {},
        {
            "strategy": one_of(*STRATEGIES),
            "n": whole(1, width),
            "k": whole(1, width),
            "budget": asked(
                {},
                {
                    "policy_tokens": whole(1, limits.max_search_tokens),
                    "total_flops": real(0, scaling_request.MAX_FLOPS, above_low=True),
                    "ms": whole(1, types.MAX_DEADLINE_MS),
                },
            ),
            "aggregate": one_of(*AGGREGATES),
            "stop": asked(
                {"kind": one_of(*STOP_KINDS)},
                {
                    "p": real(scaling_request.MIN_CERTAINTY, scaling_request.MAX_CERTAINTY, above_low=True),
                    "window": whole(scaling_request.MIN_WINDOW, max(scaling_request.MIN_WINDOW, width)),
                },
            ),
            "answer": asked(
                {},
                {
                    "extract": one_of(*EXTRACTS),
                    "field": text(high=MAX_FIELD_CHARACTERS),
                    "equivalence": one_of(*EQUIVALENCES),
                },
            ),
            "seed": whole(-types.MAX_SEED - 1, types.MAX_SEED),
            "pad_to_budget": flag(),
            "return": one_of(*scaling_request.RETURNS),
            "balance": real(0, scaling_request.MAX_BALANCE, above_low=True),
            "branching": whole(1, width),
            "experimental": flag(),
        },
    )


def _request(endpoint: str, required: Mapping[str, Schema], shapes: Mapping[str, Schema]) -> Schema:
    """The body of an endpoint, in the table's order."""
    written = {**required, **shapes}
    table = [parameter for parameter in PARAMETERS if endpoint in parameter.endpoints]
    supported = {entry.name for entry in table if entry.treatment is Treatment.SUPPORTED}
    if supported != set(written):
        raise LookupError(f"{endpoint}: shapes and table differ in {sorted(supported ^ set(written))}")
    properties = {entry.name: _property(entry, written.get(entry.name), required) for entry in table}
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": ABSENT,
    }


def _property(entry: Parameter, shape: Schema | None, required: Mapping[str, Schema]) -> Schema:
    said: Schema = {"description": entry.note, "x-treatment": entry.treatment.value}
    match entry.treatment:
        case Treatment.IGNORED:
            return said
        case Treatment.REFUSED:
            return {**said, "enum": [*entry.neutral, None]}
        case Treatment.SUPPORTED:
            if shape is None:
                raise LookupError(f"{entry.name} has no shape")
            return {**said, **(shape if entry.name in required else or_null(shape))}


def _only_with(field: str, switch: str) -> Schema:
    """``field`` needs ``switch`` to be true."""
    return {
        "if": {"properties": {field: {"not": {"type": "null"}}}},
        "then": {"properties": {switch: {"const": True}}, "required": [switch]},
    }
