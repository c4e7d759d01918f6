# SPDX-License-Identifier: Apache-2.0
"""Routing of opened requests. Exact paths, exact methods, no queries; every failure is a sealed answer."""

import json
from collections.abc import Awaitable, Callable
from typing import Final

from adyton_enclave.api.answer import Desk
from adyton_enclave.api.chat import complete_chat
from adyton_enclave.api.completions import complete_text
from adyton_enclave.api.embeddings import embed
from adyton_enclave.api.errors import (
    InternalError,
    NoSuchRoute,
    WrongMediaType,
    WrongMethod,
    error_body,
    error_headers,
)
from adyton_enclave.api.generate import Served
from adyton_enclave.api.model_list import list_models, show_model
from adyton_enclave.api.responses import respond
from adyton_enclave.api.scores import score
from adyton_enclave.api.types import RequestLimits
from adyton_enclave.exchange import ExchangeFacts, InnerRequest, InnerResponse
from adyton_enclave.log import Happening, note
from adyton_protocol.errors import EngineError

MODELS_PATH: Final = "/v1/models"
CHAT_PATH: Final = "/v1/chat/completions"
COMPLETIONS_PATH: Final = "/v1/completions"
EMBEDDINGS_PATH: Final = "/v1/embeddings"
RESPONSES_PATH: Final = "/v1/responses"
SCORE_PATH: Final = "/v1/score"
RECEIPTS_PREFIX: Final = "/v1/aci/receipts/"

_Handler = Callable[
    [Desk, dict[str, Served], RequestLimits, InnerRequest, ExchangeFacts], Awaitable[InnerResponse]
]
_POSTS: Final[dict[str, _Handler]] = {
    CHAT_PATH: complete_chat,
    COMPLETIONS_PATH: complete_text,
    EMBEDDINGS_PATH: embed,
    RESPONSES_PATH: respond,
    SCORE_PATH: score,
}


class Api:
    """The application behind the gateway."""

    def __init__(self, desk: Desk, served: dict[str, Served], limits: RequestLimits) -> None:
        self._desk = desk
        self._served = served
        self._limits = limits
        self._created = desk.wall_s()

    async def __call__(self, request: InnerRequest, facts: ExchangeFacts) -> InnerResponse:
        """Answer one opened request; nothing but cancellation is raised."""
        try:
            return await self._route(request, facts)
        except EngineError as error:
            return self._refusal(error)
        except Exception as error:  # noqa: BLE001 - no failure may leave the enclave but as a sealed answer
            note(Happening.INTERNAL_ERROR, error=error)
            return self._refusal(InternalError("the request could not be served"))

    async def _route(self, request: InnerRequest, facts: ExchangeFacts) -> InnerResponse:
        path = request.path
        handler = _POSTS.get(path)
        if handler is not None:
            _require(request, "POST")
            media_type = request.headers.get("content-type", "application/json").partition(";")[0]
            if media_type.strip().lower() != "application/json":
                raise WrongMediaType("the body must be application/json")
            return await handler(self._desk, self._served, self._limits, request, facts)
        if path == MODELS_PATH:
            _require(request, "GET")
            return self._json(list_models(self._served, created=self._created))
        if path.startswith(MODELS_PATH + "/"):
            _require(request, "GET")
            name = path.removeprefix(MODELS_PATH + "/")
            return self._json(show_model(self._served, name, created=self._created))
        if path.startswith(RECEIPTS_PREFIX):
            _require(request, "GET")
            receipt = self._desk.book.find(path.removeprefix(RECEIPTS_PREFIX))
            if receipt is None:
                raise NoSuchRoute("no such receipt; only the latest are kept")
            return self._json(receipt)
        raise NoSuchRoute("no such path")

    def _json(self, body: bytes) -> InnerResponse:
        return InnerResponse(
            status=200,
            headers=(("content-type", "application/json"),),
            body=body,
            profile=self._desk.profile(None),
        )

    def _refusal(self, error: EngineError) -> InnerResponse:
        return InnerResponse(
            status=error.status,
            headers=error_headers(error),
            body=json.dumps(error_body(error)).encode("ascii"),
            profile=self._desk.profile(None),
        )


def _require(request: InnerRequest, method: str) -> None:
    if request.method != method:
        raise WrongMethod(method)
