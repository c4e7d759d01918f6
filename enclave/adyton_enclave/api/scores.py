# SPDX-License-Identifier: Apache-2.0
"""``POST /v1/score``: what a process reward model thinks of each step of an answer.

A score is a trained model's opinion and no proof. The receipt names the scorer, and commits to problem and steps and
to the scores, each for itself, so that one can be shown without the other.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from adyton_enclave.api.answer import Desk
from adyton_enclave.api.events import Json, dump
from adyton_enclave.api.fields import parse_aside
from adyton_enclave.api.generate import Served
from adyton_enclave.api.parameters import warning_headers
from adyton_enclave.api.ports import Scorer
from adyton_enclave.api.score_request import ScoreCall, parse_score_call
from adyton_enclave.api.types import DEFAULT_MODEL, RequestLimits
from adyton_enclave.engine import Usage
from adyton_enclave.exchange import ExchangeFacts, InnerRequest, InnerResponse
from adyton_enclave.scoring.terms import ScoringTerms
from adyton_protocol.errors import InvalidRequest, UnknownModel, UnsuitableModel
from adyton_protocol.receipt import RECEIPT_HEADER, RECEIPT_ID_HEADER
from adyton_protocol.selection.aggregate import AGGREGATES, aggregate

_ID_BYTES: Final = 12


async def score(
    desk: Desk,
    served: dict[str, Served],
    limits: RequestLimits,
    request: InnerRequest,
    facts: ExchangeFacts,
) -> InnerResponse:
    """Answer a request for scores.

    Raises:
        EngineError: The request is wrong or cannot be served.
    """
    call = await parse_aside(parse_score_call, request.body, limits)
    scorer = _find(served, call.model)
    steps = call.steps if isinstance(call.steps, tuple) else _split(scorer, call.steps, limits)
    scores, usage = await scorer.score(call.problem, steps, _terms(desk, call, facts))
    model = served[scorer.name].model
    receipt = desk.book.open(request, facts, model=model.name, identity=model.identity)
    body = dump(_answer(desk, scorer, steps, scores, usage))
    receipt.scored(name=model.name, problem=call.problem, steps=steps, scores=scores)
    receipt.response_data(body)
    signed = receipt.finish(finish_reasons=[], usage=_usage_json(usage), streamed=False, chat_id=None)
    headers = (
        ("content-type", "application/json"),
        (RECEIPT_HEADER, signed.header_value()),
        (RECEIPT_ID_HEADER, signed.receipt_id),
        *warning_headers(call.ignored),
    )
    return InnerResponse(status=200, headers=headers, body=body, profile=desk.profile(call.privacy))


def _find(served: Mapping[str, Served], name: str) -> Scorer:
    """The scorer of this name, or that of the generator of this name; ``default`` is the first.

    Raises:
        UnknownModel: There is none.
        UnsuitableModel: The model is there, but nothing judges its answers.
    """
    found = served.get(name)
    if found is None:
        scorer = next((each.scorer for each in served.values() if each.scorer is not None), None)
        if scorer is None or name != DEFAULT_MODEL:
            raise UnknownModel("the model does not exist; GET /v1/models lists those that do", param="model")
        return scorer
    if found.scorer is None:
        raise UnsuitableModel("the operator lets no scorer judge the answers of this model", param="model")
    return found.scorer


def _split(scorer: Scorer, text: str, limits: RequestLimits) -> tuple[str, ...]:
    steps = tuple(scorer.split(text))
    if not 0 < len(steps) <= limits.max_steps:
        raise InvalidRequest(f"steps must have 1 to {limits.max_steps} steps", param="steps")
    return steps


def _terms(desk: Desk, call: ScoreCall, facts: ExchangeFacts) -> ScoringTerms:
    return ScoringTerms(
        tenant=facts.tenant,
        timeout_s=desk.timeout_s if call.deadline_s is None else min(desk.timeout_s, call.deadline_s),
        priority="low" if call.service_tier == "flex" else "normal",
    )


def _usage_json(usage: Usage) -> dict[str, int]:
    return {"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.prompt_tokens}


def _answer(desk: Desk, scorer: Scorer, steps: Sequence[str], scores: Sequence[float], usage: Usage) -> Json:
    return {
        "id": "score-" + desk.entropy(_ID_BYTES).hex(),
        "object": "score",
        "created": desk.wall_s(),
        "model": scorer.name,
        "steps": [
            {"index": index, "text": step, "score": value, "sound": value >= scorer.threshold}
            for index, (step, value) in enumerate(zip(steps, scores, strict=True))
        ],
        "aggregate": {how: aggregate(scores, how) for how in AGGREGATES},
        "threshold": scorer.threshold,
        "usage": _usage_json(usage),
    }
