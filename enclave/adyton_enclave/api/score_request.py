# SPDX-License-Identifier: Apache-2.0
"""``POST /v1/score``, parsed at the edge."""

from dataclasses import dataclass, field
from typing import Final

from adyton_enclave.api.fields import Fields, parse_object
from adyton_enclave.api.parameters import SCORE, treat
from adyton_enclave.api.types import (
    DEFAULT_MODEL,
    MAX_MODEL_CHARS,
    RequestLimits,
    ServiceTier,
    parse_deadline_s,
    parse_privacy,
    parse_service_tier,
)
from adyton_enclave.privacy import Profile

MAX_SCORED_CHARS: Final = 1 << 20
"""Of a problem, of a step, and of an answer in one text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreCall:
    """A parsed request.

    Attributes:
        model: Name of a scorer or of a generator that has one, not yet looked up.
        steps: At least one, none of them blank; or a text that has yet to be cut.
        service_tier: ``flex`` gives way to others; None is the ordinary tier.
        deadline_s: Seconds after which the caller does not want the answer any more.
        ignored: Names of parameters that the caller gave in vain.
    """

    model: str
    problem: str = field(repr=False)
    steps: tuple[str, ...] | str = field(repr=False)
    privacy: Profile | None
    service_tier: ServiceTier | None
    deadline_s: float | None
    ignored: tuple[str, ...]


def parse_score_call(body: bytes, limits: RequestLimits) -> ScoreCall:
    """Parse the attacker-controlled body of a request for scores.

    Raises:
        InvalidRequest: ``param`` names the field at fault.
    """
    fields = Fields(parse_object(body))
    call = ScoreCall(
        model=fields.text("model", max_chars=MAX_MODEL_CHARS) or DEFAULT_MODEL,
        problem=_problem(fields),
        steps=_steps(fields, limits),
        privacy=parse_privacy(fields),
        service_tier=parse_service_tier(fields),
        deadline_s=parse_deadline_s(fields),
        ignored=treat(fields, SCORE),
    )
    fields.finish()
    return call


def _problem(fields: Fields) -> str:
    problem = fields.required_text("problem", max_chars=MAX_SCORED_CHARS)
    if not problem.strip():
        raise fields.wrong("problem", "must not be blank")
    return problem


def _steps(fields: Fields, limits: RequestLimits) -> tuple[str, ...] | str:
    value = fields.take("steps")
    if isinstance(value, str):
        return _text(fields, value)
    if not isinstance(value, list) or not value:
        raise fields.wrong("steps", "is required: an array of steps, or a text to cut into steps, not empty")
    if len(value) > limits.max_steps:
        raise fields.wrong("steps", f"must have at most {limits.max_steps} steps")
    return tuple(_text(fields, step) for step in value)


def _text(fields: Fields, value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_SCORED_CHARS:
        raise fields.wrong("steps", f"must be texts of at most {MAX_SCORED_CHARS} characters")
    if not value.strip():
        raise fields.wrong("steps", "must not be blank")
    return value
