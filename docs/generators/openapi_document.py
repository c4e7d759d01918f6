# SPDX-License-Identifier: Apache-2.0
"""Writes ``docs/openapi.json``: the API inside the seal, as OpenAPI 3.1.

``make openapi`` runs this. The enclave does not serve the document: it would be measured for no use.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from adyton_enclave.api.app import (
    CHAT_PATH,
    COMPLETIONS_PATH,
    EMBEDDINGS_PATH,
    MODELS_PATH,
    RECEIPTS_PREFIX,
    RESPONSES_PATH,
    SCORE_PATH,
)
from adyton_enclave.api.errors import (
    InternalError,
    NoSuchRoute,
    UnknownParameter,
    UnsupportedParameter,
    WrongMediaType,
    WrongMethod,
)
from adyton_enclave.api.parameters import NOT_REPRODUCIBLE, WARNING_HEADER
from adyton_enclave.api.types import RequestLimits
from adyton_enclave.config import Limits
from adyton_protocol.errors import (
    ContextOverflow,
    DeadlineExceeded,
    EngineError,
    EngineStopped,
    InvalidRequest,
    ModelKeyMissing,
    OutOfMemory,
    QueueFull,
    UnknownModel,
    UnsuitableModel,
)
from adyton_protocol.receipt import RECEIPT_HEADER, RECEIPT_ID_HEADER
from answer_schemas import answer_schemas
from request_schemas import request_schemas
from schema_words import Schema, ref

OUTPUT: Final = Path(__file__).resolve().parents[1] / "openapi.json"

ERRORS: Final[tuple[type[EngineError], ...]] = (
    InvalidRequest,
    UnknownParameter,
    UnsupportedParameter,
    ContextOverflow,
    DeadlineExceeded,
    UnknownModel,
    UnsuitableModel,
    NoSuchRoute,
    WrongMethod,
    WrongMediaType,
    QueueFull,
    InternalError,
    OutOfMemory,
    ModelKeyMissing,
    EngineStopped,
)
"""Everything that a sealed answer can report."""

_RETRY_AFTER: Final[Schema] = {
    "retry-after": {
        "description": "Seconds after which a place is likely.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    }
}
_ANSWER_HEADERS: Final[Schema] = {
    RECEIPT_HEADER: {
        "description": "The signed receipt of a whole answer, unpadded base64url. A stream carries it as a "
        "comment before [DONE].",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"},
    },
    RECEIPT_ID_HEADER: {
        "description": "Names the receipt of a whole answer.",
        "schema": {"type": "string", "pattern": "^rcpt-[0-9a-f]+$"},
    },
    WARNING_HEADER: {
        "description": "Names the parameters that were ignored, and says when a seed cannot be kept.",
        "schema": {
            "type": "string",
            "pattern": f"^(ignored: [a-z_.]+(, [a-z_.]+)*|{NOT_REPRODUCIBLE})(; {NOT_REPRODUCIBLE})?$",
        },
    },
}
_REFINEMENTS: Final = {
    "logit_bias": "Tokens must be of the model's vocabulary, and none is named twice.",
    "max_tokens": "Must fit into the context beside the prompt.",
    "model": "Behind @, a strategy that the model can run, at most as wide as the operator allows.",
    "n": "At most the candidates of a search.",
    "scaling": "Must name a strategy that the model can run, unless its name does, and contradict neither that name "
    "nor n, seed, stream, best_of, tools or log-probabilities; see docs/api.md.",
    "temperature": "Above 0 in a search of several candidates.",
}
_CHAT_REFINEMENTS: Final = {
    **_REFINEMENTS,
    "max_tokens": _REFINEMENTS["max_tokens"] + " Must equal max_completion_tokens when both are given.",
    "messages": "Must suit the model's chat template.",
    "response_format": "The schema must be one that can be enforced.",
    "tools": "Names must differ, and the schemas of strict ones must be such that can be enforced. Not with a search.",
    "tool_choice": "Must name functions that are among the tools.",
}
_COMPLETION_REFINEMENTS: Final = {
    **_REFINEMENTS,
    "best_of": "Must be at least n, and n itself with stream.",
    "prompt": "Token ids must be of the model's vocabulary; a search takes one prompt.",
}
_RESPONSE_REFINEMENTS: Final = {
    "input": "Must hold something to answer, and suit the model's chat template.",
    **{name: _REFINEMENTS[name] for name in ("logit_bias", "model", "scaling", "temperature")},
    "max_output_tokens": _REFINEMENTS["max_tokens"],
    "text": _CHAT_REFINEMENTS["response_format"],
    "tools": _CHAT_REFINEMENTS["tools"],
    "tool_choice": _CHAT_REFINEMENTS["tool_choice"],
    "top_logprobs": "Above 0 only if include holds message.output_text.logprobs.",
}
_EMBEDDING_REFINEMENTS: Final = {
    "dimensions": "At most the model's own, and fewer only if it was trained for it.",
    "input": "Token ids must be of the model's vocabulary, and all tokens within the operator's bound.",
}
_SCORE_REFINEMENTS: Final = {
    "problem": "Must not be blank.",
    "steps": "Must not be blank, and a text must fall into at most as many steps as the operator allows.",
}
"""What makes a request invalid and a schema cannot say, by field."""


def standard_limits() -> RequestLimits:
    """The bounds of an enclave whose configuration sets none."""
    limits = Limits()
    return RequestLimits(
        max_candidates=limits.max_candidates,
        max_prompts=limits.max_prompts,
        max_inputs=limits.max_inputs,
        max_input_tokens=limits.max_input_tokens,
        max_steps=limits.max_steps,
        max_search_width=limits.max_search_width,
        max_search_tokens=limits.max_search_tokens,
        search_in_flight=limits.search_in_flight,
    )


def openapi_document(limits: RequestLimits | None = None) -> Schema:
    """The document for these bounds, or for the standard ones."""
    bounds = standard_limits() if limits is None else limits
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Adyton",
            "version": "1",
            "summary": "The API of the enclave.",
            "description": "Every request and every answer travels sealed inside Oblivious HTTP; nothing of "
            "this exists in the clear on the host. docs/api.md explains it, docs/protocol.md the seal.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "https://adyton.invalid", "description": "Only inside the seal."}],
        "paths": _paths(),
        "components": {"schemas": {**request_schemas(bounds), **answer_schemas()}},
    }


def _paths() -> Schema:
    return {
        CHAT_PATH: {
            "post": _generation(
                "createChatCompletion",
                "Answer a conversation.",
                request="ChatCompletionRequest",
                answer="ChatCompletion",
                event="ChatCompletionChunk",
                refinements=_CHAT_REFINEMENTS,
            )
        },
        COMPLETIONS_PATH: {
            "post": _generation(
                "createCompletion",
                "Continue a text.",
                request="CompletionRequest",
                answer="Completion",
                event="Completion",
                refinements=_COMPLETION_REFINEMENTS,
            )
        },
        RESPONSES_PATH: {
            "post": _generation(
                "createResponse",
                "Answer a conversation, in items; stateless.",
                request="ResponseRequest",
                answer="Response",
                event="ResponseEvent",
                refinements=_RESPONSE_REFINEMENTS,
            )
        },
        EMBEDDINGS_PATH: {
            "post": _generation(
                "createEmbedding",
                "Vectors of texts.",
                request="EmbeddingRequest",
                answer="EmbeddingList",
                refinements=_EMBEDDING_REFINEMENTS,
            )
        },
        SCORE_PATH: {
            "post": _generation(
                "createScore",
                "What a scorer thinks of each step of an answer.",
                request="ScoreRequest",
                answer="Score",
                refinements=_SCORE_REFINEMENTS,
            )
        },
        MODELS_PATH: {
            "get": {
                "operationId": "listModels",
                "summary": "All models that are loaded.",
                "responses": {"200": _json("The models.", "ModelList"), **_refusals(InternalError)},
            }
        },
        MODELS_PATH + "/{model}": {
            "get": {
                "operationId": "retrieveModel",
                "summary": "One model.",
                "parameters": [_path_parameter("model", "Its name; slashes stand as they are.")],
                "responses": {
                    "200": _json("The model.", "Model"),
                    **_refusals(UnknownModel, NoSuchRoute, InternalError),
                },
            }
        },
        RECEIPTS_PREFIX + "{receipt}": {
            "get": {
                "operationId": "retrieveReceipt",
                "summary": "The receipt of an earlier answer; the latest are kept.",
                "parameters": [_path_parameter("receipt", "Its id.")],
                "responses": {
                    "200": _json("The receipt.", "Receipt"),
                    **_refusals(NoSuchRoute, InternalError),
                },
            }
        },
    }


def _path_parameter(name: str, description: str) -> Schema:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": {"type": "string", "minLength": 1},
    }


def _json(description: str, schema: str) -> Schema:
    return {"description": description, "content": {"application/json": {"schema": ref(schema)}}}


def _generation(
    name: str, summary: str, *, request: str, answer: str, event: str = "", refinements: Mapping[str, str]
) -> Schema:
    refused = (
        InvalidRequest,
        UnknownParameter,
        UnsupportedParameter,
        ContextOverflow,
        DeadlineExceeded,
        UnknownModel,
        UnsuitableModel,
        WrongMediaType,
        QueueFull,
        InternalError,
        OutOfMemory,
        EngineStopped,
    )
    return {
        "operationId": name,
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": ref(request)}}},
        "responses": {
            "200": {
                "description": "The answer, whole or as server-sent events." if event else "The answer.",
                "headers": _ANSWER_HEADERS,
                "content": {
                    "application/json": {"schema": ref(answer)},
                    **({"text/event-stream": {"schema": _event(event)}} if event else {}),
                },
            },
            **_refusals(*refused),
        },
        "x-refinements": dict(refinements),
    }


def _event(schema: str) -> Schema:
    """One server-sent event; what OpenAPI 3.1 says of a stream it says of each of its events."""
    return {
        "type": "object",
        "required": ["data"],
        "properties": {
            "data": {
                "type": "string",
                "if": {"const": "[DONE]"},
                "else": {
                    "contentMediaType": "application/json",
                    "contentSchema": {"anyOf": [ref(schema), ref("Error")]},
                },
            }
        },
    }


def _refusals(*errors: type[EngineError]) -> dict[str, object]:
    by_status: dict[int, list[str]] = {}
    for error in errors:
        by_status.setdefault(error.status, []).append(error.code.replace("-", "_"))
    responses: dict[str, object] = {}
    for status, codes in sorted(by_status.items()):
        responses[str(status)] = {
            "description": "Refused: " + ", ".join(codes) + ".",
            "content": {"application/json": {"schema": ref("Error")}},
            **({"headers": _RETRY_AFTER} if status == QueueFull.status else {}),
        }
    return responses


def as_text(document: Schema) -> str:
    """The bytes of the file."""
    return json.dumps(document, indent=1, ensure_ascii=True) + "\n"


if __name__ == "__main__":
    OUTPUT.write_text(as_text(openapi_document()), encoding="utf-8")
