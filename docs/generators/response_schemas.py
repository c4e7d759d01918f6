# SPDX-License-Identifier: Apache-2.0
"""JSON Schemas of ``POST /v1/responses``: the items of its input, its answers, and the events of its streams."""

from collections.abc import Mapping
from typing import Final

from search_schemas import token_details

from adyton_enclave.api import response_items, response_request, template_options, tools, types
from adyton_enclave.api.chat_messages import MAX_CALL_ID_CHARS
from adyton_enclave.api.fields import MAX_TEXT_CHARS
from schema_words import Schema, answered, array, asked, flag, one_of, ref, text, whole

_ANYTHING: Final[Schema] = {}
_ANY_TEXT: Final = text(high=MAX_TEXT_CHARS)
_CALL_ID: Final = text(high=MAX_CALL_ID_CHARS)
_NAME: Final[Schema] = {"type": "string", "pattern": f"^{tools.TOOL_NAME.pattern}$"}
_STRING: Final[Schema] = {"type": "string"}
_NULL: Final[Schema] = {"type": "null"}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_TIME: Final[Schema] = {"type": "integer", "minimum": 0, "description": "Unix time in seconds."}


def _either(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)}


# --- Requests -----------------------------------------------------------------------------------------


def response_shapes() -> dict[str, Schema]:
    """Optional parameters that other endpoints do not have, or have in another form."""
    return {
        "instructions": _ANY_TEXT,
        "max_output_tokens": whole(1, types.MAX_TOKENS),
        "text": asked({}, {"format": ref("TextFormat"), "verbosity": _ANYTHING}),
        "reasoning": asked(
            {},
            {
                "effort": one_of(*template_options.EFFORTS),
                "summary": text(high=32),
                "generate_summary": text(high=32),
            },
        ),
        "include": array(one_of(*sorted(response_request.INCLUDES)), high=response_request.MAX_INCLUDES),
        "top_logprobs": whole(0, types.MAX_TOP_LOGPROBS),
        "tools": array(ref("ResponseTool"), high=tools.MAX_TOOLS),
        "tool_choice": ref("ResponseToolChoice"),
        "parallel_tool_calls": flag(),
    }


def response_input() -> Schema:
    """The one parameter that has to be there."""
    return _either(_ANY_TEXT, array(ref("ResponseItem"), low=1, high=response_items.MAX_ITEMS))


def input_schemas() -> dict[str, Schema]:
    """Components of requests."""
    dropped: dict[str, Schema] = dict.fromkeys(response_items.ITEM_DROPPED, _ANYTHING)
    common = {"id": text(high=response_items.MAX_ID_CHARS), **dropped}
    silent = {
        name: one_of(*values) if values else _NULL for name, values in response_items.CALL_UNSUPPORTED.items()
    }
    named = asked({"type": one_of("function"), "name": _NAME}, {})
    schema: Schema = {"type": "object", "description": "A JSON Schema."}
    described: dict[str, Schema] = {
        "description": text(high=tools.MAX_DESCRIPTION_CHARS),
        "strict": flag(),
    }
    return {
        "ResponseText": _texts(*sorted(response_items.TEXT_PARTS)),
        "ResponseItem": _either(
            asked(
                {"role": one_of(*response_items.ROLES), "content": ref("ResponseText")},
                {"type": one_of("message"), **common},
            ),
            asked(
                {
                    "type": one_of("function_call"),
                    "call_id": _CALL_ID,
                    "name": _NAME,
                    "arguments": _ANY_TEXT,
                },
                {**common, **silent},
            ),
            asked(
                {
                    "type": one_of("function_call_output"),
                    "call_id": _CALL_ID,
                    "output": ref("ResponseText"),
                },
                {**common, **silent},
            ),
            asked(
                {"type": one_of("reasoning")},
                {
                    "content": _texts("reasoning_text"),
                    "summary": _ANYTHING,
                    "encrypted_content": _ANYTHING,
                    **common,
                },
            ),
        ),
        "ResponseTool": asked(
            {"type": one_of("function"), "name": _NAME}, {**described, "parameters": schema}
        ),
        "ResponseToolChoice": _either(
            one_of("none", "auto", "required"),
            named,
            asked(
                {
                    "type": one_of("allowed_tools"),
                    "mode": one_of("auto", "required"),
                    "tools": array(named, low=1),
                },
                {},
            ),
        ),
        "TextFormat": _either(
            asked({"type": one_of("text", "json_object")}, {}),
            asked({"type": one_of("json_schema"), "name": _NAME}, {**described, "schema": schema}),
        ),
    }


def _texts(*parts: str) -> Schema:
    dropped: dict[str, Schema] = dict.fromkeys(response_items.PART_DROPPED, _ANYTHING)
    return _either(_ANY_TEXT, array(asked({"type": one_of(*parts), "text": _ANY_TEXT}, dropped)))


# --- Answers ------------------------------------------------------------------------------------------


def response_schemas() -> dict[str, Schema]:
    """Components of answers."""
    status = one_of("in_progress", "completed", "incomplete")
    return {
        "OutputText": answered(
            {
                "type": one_of("output_text"),
                "text": _STRING,
                "annotations": array(_ANYTHING, high=0),
                "logprobs": array(ref("ChosenLogprob")),
            }
        ),
        "ReasoningText": answered({"type": one_of("reasoning_text"), "text": _STRING}),
        "OutputItem": _either(
            answered(
                {
                    "id": _STRING,
                    "type": one_of("message"),
                    "status": status,
                    "role": one_of("assistant"),
                    "content": array(ref("OutputText")),
                }
            ),
            answered(
                {
                    "id": _STRING,
                    "type": one_of("reasoning"),
                    "status": status,
                    "summary": array(_ANYTHING, high=0),
                    "content": array(ref("ReasoningText")),
                }
            ),
            answered(
                {
                    "id": _STRING,
                    "type": one_of("function_call"),
                    "status": status,
                    "call_id": _STRING,
                    "name": _STRING,
                    "arguments": _STRING,
                }
            ),
        ),
        "Response": _response(),
        "ResponseEvent": _either(*_events()),
    }


def _response() -> Schema:
    usage = answered(
        {
            "input_tokens": _COUNT,
            "input_tokens_details": answered({"cached_tokens": _COUNT, "cache_write_tokens": _COUNT}),
            "output_tokens": _COUNT,
            "output_tokens_details": token_details(),
            "total_tokens": _COUNT,
        }
    )
    return answered(
        {
            "id": {"type": "string", "pattern": "^resp_[0-9a-f]+$"},
            "object": one_of("response"),
            "created_at": _TIME,
            "completed_at": _TIME,
            "status": one_of("in_progress", "completed", "incomplete", "failed"),
            "model": _STRING,
            "output": array(ref("OutputItem")),
            "usage": _either(usage, _NULL),
            "error": _either(answered({"code": _STRING, "message": _STRING}), _NULL),
            "incomplete_details": _either(answered({"reason": one_of("max_output_tokens")}), _NULL),
            "background": one_of(False),
            "store": one_of(False),
            "max_tool_calls": _NULL,
            "metadata": {"type": "object", "maxProperties": 0},
            "previous_response_id": _NULL,
            "service_tier": one_of(*types.SERVICE_TIERS),
            "temperature": {"type": "number"},
            "top_p": {"type": "number"},
            "top_logprobs": _COUNT,
            "truncation": one_of("disabled"),
            "user": _NULL,
            "instructions": {"type": ["string", "null"]},
            "max_output_tokens": {"type": ["integer", "null"]},
            "reasoning": answered({"effort": {"type": ["string", "null"]}, "summary": _NULL}),
            "text": answered({"format": {"type": "object", "required": ["type"]}}),
            "parallel_tool_calls": flag(),
            "tool_choice": _either(_STRING, {"type": "object"}),
            "tools": array({"type": "object", "required": ["type", "name", "parameters"]}),
            "x_report": ref("SearchReport"),
        },
        optional=("completed_at", "x_report"),
    )


def _events() -> list[Schema]:
    item: Mapping[str, Schema] = {"output_index": _COUNT, "item": ref("OutputItem")}
    at: Mapping[str, Schema] = {"item_id": _STRING, "output_index": _COUNT}
    inside = {**at, "content_index": _COUNT}
    part = {**inside, "part": _either(ref("OutputText"), ref("ReasoningText"))}
    logprobs = {"logprobs": array(ref("ChosenLogprob"))}
    members: dict[str, Mapping[str, Schema]] = {
        **{
            f"response.{status}": {"response": ref("Response")}
            for status in ("created", "in_progress", "completed", "incomplete", "failed")
        },
        "response.output_item.added": item,
        "response.output_item.done": item,
        "response.content_part.added": part,
        "response.content_part.done": part,
        "response.output_text.delta": {**inside, "delta": _STRING, **logprobs},
        "response.output_text.done": {**inside, "text": _STRING, **logprobs},
        "response.reasoning_text.delta": {**inside, "delta": _STRING},
        "response.reasoning_text.done": {**inside, "text": _STRING},
        "response.function_call_arguments.delta": {**at, "delta": _STRING},
        "response.function_call_arguments.done": {**at, "name": _STRING, "arguments": _STRING},
    }
    members["response.in_progress"] = {**members["response.in_progress"], "x_progress": ref("SearchProgress")}
    return [
        answered({"type": one_of(kind), "sequence_number": _COUNT, **each}, optional=("x_progress",))
        for kind, each in members.items()
    ]
