# SPDX-License-Identifier: Apache-2.0
"""``POST /v1/responses``, stateless: a chat in other words.

Nothing is stored, so what refers to something stored is refused by name, and ``store`` is false in every answer.
"""

from dataclasses import replace
from typing import Final

from adyton_enclave.api.answer import Desk, Job, serve
from adyton_enclave.api.chat_task import prepare_chat, problem_of
from adyton_enclave.api.generate import Served
from adyton_enclave.api.response_presenter import ResponsePresenter
from adyton_enclave.api.response_request import parse_response_request
from adyton_enclave.api.search_order import Occasion, find_searched, order_search
from adyton_enclave.api.types import RequestLimits
from adyton_enclave.exchange import ExchangeFacts, InnerRequest, InnerResponse
from adyton_protocol.errors import EngineError

_ID_BYTES: Final = 12
_OWN_NAMES: Final = {
    "messages": "input",
    "response_format": "text.format",
    "max_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
}
"""What a chat calls differently, for what is found while it is prepared."""


async def respond(
    desk: Desk,
    served: dict[str, Served],
    limits: RequestLimits,
    request: InnerRequest,
    facts: ExchangeFacts,
) -> InnerResponse:
    """Answer a request for a response.

    Raises:
        EngineError: The request is wrong or cannot be served.
    """
    task = parse_response_request(request.body, limits)
    model, alias = find_searched(served, task.chat.options.model)
    try:
        order, options = order_search(
            task.chat.scaling, alias, replace(Occasion.of_chat(task.chat, model, limits), one_choice=True)
        )
        prepared = await prepare_chat(task.chat, model, desk.entropy)
        presenter = ResponsePresenter(
            task, model, prepared.reader, unique=desk.entropy(_ID_BYTES).hex(), wall_s=desk.wall_s
        )
        job = Job(
            request=request,
            facts=facts,
            options=options,
            served=model,
            prompts=(prepared.prompt,),
            presenter=presenter,
            reader=prepared.reader,
            guidance=prepared.guidance,
            warnings=tuple(_OWN_NAMES.get(name, name) for name in prepared.ignored),
            order=order,
            problem=problem_of(task.chat.messages),
            follow_up=prepared.follow_up,
        )
        return await serve(desk, job)
    except EngineError as error:
        error.param = _OWN_NAMES.get(error.param or "", error.param)
        raise
