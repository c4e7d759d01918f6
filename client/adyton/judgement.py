# SPDX-License-Identifier: Apache-2.0
"""A scorer's verdict on an answer that is there already (``POST /v1/score``), for the command line.

A search whose rule needs no scorer has no scores to show. The verdict is then asked for in a request of its own, which
has a receipt of its own; it had no part in the choice.
"""

from dataclasses import dataclass, field
from typing import Final, cast

import httpx

from adyton.refusals import engine_error
from adyton.search_report import ScoredStep
from adyton_protocol.errors import ContextOverflow, InvalidRequest, RemoteProtocolError, UnsuitableModel
from adyton_protocol.strict_json import JsonObject, Members, json_value

SCORE_PATH: Final = "/v1/score"

_MAX_STEPS: Final = 4096
_MAX_NAME_CHARS: Final = 256
_MAX_STEP_CHARS: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a scorer thinks of an answer.

    Attributes:
        scorer: Name of its model.
        steps: Text of each step, with its score; words of a model.
        document: All of it, as it came.
    """

    scorer: str
    steps: tuple[tuple[str, ScoredStep], ...] = field(repr=False)
    document: JsonObject = field(repr=False)


def judge_answer(http: httpx.Client, *, model: str, problem: str, answer: str) -> Judgement | None:
    """Ask the scorer of a model what it thinks of an answer.

    Args:
        http: Sealed.
        model: Who answered; a search behind ``@`` in the name is left out.
        problem: The question.
        answer: The answer, which the scorer cuts into steps.

    Returns:
        None if nobody judges this model's answers, or not such as this one: blank, or too long.

    Raises:
        EngineError: The enclave could not.
        AdytonError: Whatever else goes wrong on the way; see :mod:`adyton.transport`.
    """
    body = {"model": model.rpartition("@")[0] or model, "problem": problem, "steps": answer}
    response = http.post(SCORE_PATH, json=body)
    if response.status_code != httpx.codes.OK:
        error = engine_error(response.status_code, response.content, response.headers.get("retry-after"))
        if isinstance(error, UnsuitableModel | ContextOverflow | InvalidRequest):
            return None
        raise error
    try:
        found = response.json()
    except (ValueError, RecursionError) as cause:
        raise RemoteProtocolError("the scores are not JSON") from cause
    return _parse(found)


def _parse(value: object) -> Judgement:
    document = json_value(value, what="scores", error=RemoteProtocolError, doubles=True)
    scores = Members(document, "scores", RemoteProtocolError)
    return Judgement(
        scorer=scores.text("model", max_chars=_MAX_NAME_CHARS),
        steps=tuple(
            (
                step.text("text", max_chars=_MAX_STEP_CHARS),
                ScoredStep(score=step.number("score", minimum=0.0, maximum=1.0), sound=step.boolean("sound")),
            )
            for step in scores.objects("steps", max_items=_MAX_STEPS)
        ),
        document=cast("JsonObject", document),
    )
