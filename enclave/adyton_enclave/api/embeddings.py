# SPDX-License-Identifier: Apache-2.0
"""``POST /v1/embeddings``: vectors of length one, each of one text.

Vectors reveal their texts nearly as well as the texts themselves do; they leave sealed like any answer, and the
receipt commits to the whole body.
"""

import asyncio
import base64
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from adyton_enclave.api.answer import Desk
from adyton_enclave.api.embedding_request import EmbeddingCall, Input, parse_embedding_call
from adyton_enclave.api.errors import UnsupportedParameter
from adyton_enclave.api.events import Json, dump
from adyton_enclave.api.fields import LARGE_REQUEST_BYTES, parse_aside
from adyton_enclave.api.generate import Served, find_model
from adyton_enclave.api.parameters import warning_headers
from adyton_enclave.api.types import RequestLimits
from adyton_enclave.engine import EmbeddingRequest, Embeddings
from adyton_enclave.exchange import ExchangeFacts, InnerRequest, InnerResponse
from adyton_protocol.errors import ContextOverflow, InvalidRequest
from adyton_protocol.receipt import RECEIPT_HEADER, RECEIPT_ID_HEADER

_LARGE_ANSWER_NUMBERS: Final = 16 * 1024


async def embed(
    desk: Desk,
    served: dict[str, Served],
    limits: RequestLimits,
    request: InnerRequest,
    facts: ExchangeFacts,
) -> InnerResponse:
    """Answer a request for embeddings.

    Raises:
        EngineError: The request is wrong or cannot be served.
    """
    call = await parse_aside(parse_embedding_call, request.body, limits)
    model = find_model(served, call.model, lambda each: each.embedding_width > 0)
    length = _length(call, model)
    if call.size_bytes < LARGE_REQUEST_BYTES:
        inputs = _tokenize(model, call.inputs, limits)
    else:
        inputs = await asyncio.to_thread(_tokenize, model, call.inputs, limits)
    result = await desk.engine.embed(
        EmbeddingRequest(model=model.model.name, inputs=inputs, tenant=facts.tenant, timeout_s=desk.timeout_s)
    )
    if len(inputs) * length < _LARGE_ANSWER_NUMBERS:
        body = _body(result, model, length, call.encoding)
    else:
        body = await asyncio.to_thread(_body, result, model, length, call.encoding)
    receipt = desk.book.open(request, facts, model=model.model.name, identity=model.model.identity)
    receipt.response_data(body)
    signed = receipt.finish(finish_reasons=[], usage=_usage_json(result), streamed=False, chat_id=None)
    headers = (
        ("content-type", "application/json"),
        (RECEIPT_HEADER, signed.header_value()),
        (RECEIPT_ID_HEADER, signed.receipt_id),
        *warning_headers(call.ignored),
    )
    return InnerResponse(status=200, headers=headers, body=body, profile=desk.profile(call.privacy))


def _length(call: EmbeddingCall, model: Served) -> int:
    """Length of the vectors of an answer."""
    width = model.model.embedding_width
    if call.dimensions is None or call.dimensions == width:
        return width
    if call.dimensions > width:
        raise InvalidRequest(f"dimensions must be at most {width}", param="dimensions")
    if not model.matryoshka:
        # A vector that was not trained for it loses its meaning when it is cut, and nobody would notice.
        raise UnsupportedParameter(
            f"dimensions: this model's vectors have {width} and cannot be cut", param="dimensions"
        )
    return call.dimensions


def _tokenize(model: Served, inputs: Sequence[Input], limits: RequestLimits) -> tuple[tuple[int, ...], ...]:
    """Token ids of all inputs; stops as soon as they are too many."""
    tokenized: list[tuple[int, ...]] = []
    left = limits.max_input_tokens
    for one in inputs:
        try:
            token_ids = tuple(model.model.tokenize(one)) if isinstance(one, str) else one
        except ContextOverflow as error:
            raise ContextOverflow(str(error), param="input") from None
        left -= len(token_ids)
        if left < 0:
            raise InvalidRequest(
                f"input must have at most {limits.max_input_tokens} tokens altogether", param="input"
            )
        tokenized.append(token_ids)
    return tuple(tokenized)


def _usage_json(result: Embeddings) -> dict[str, int]:
    tokens = result.usage.prompt_tokens
    return {"prompt_tokens": tokens, "total_tokens": tokens}


def _body(result: Embeddings, model: Served, length: int, encoding: Literal["float", "base64"]) -> bytes:
    data: list[Json] = [
        {"object": "embedding", "index": index, "embedding": _written(_unit(vector[:length]), encoding)}
        for index, vector in enumerate(result.vectors)
    ]
    answer: Json = {"object": "list", "data": data, "model": model.model.name, "usage": _usage_json(result)}
    return dump(answer)


def _unit(vector: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The vector at length one; zero has no direction and stays."""
    exact = vector.astype(np.float64)
    norm = np.linalg.norm(exact)
    return (exact / norm if norm else exact).astype(np.float32)


def _written(vector: npt.NDArray[np.float32], encoding: Literal["float", "base64"]) -> object:
    if encoding == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
    return vector.tolist()
