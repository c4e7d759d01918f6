# SPDX-License-Identifier: Apache-2.0
"""``POST /v1/completions``, parsed at the edge."""

from dataclasses import dataclass, field, replace

from adyton_enclave.api.fields import Fields, parse_object
from adyton_enclave.api.parameters import COMPLETIONS, treat
from adyton_enclave.api.scaling_request import ScalingCall, parse_scaling
from adyton_enclave.api.types import MAX_TOKENS, MAX_TOP_LOGPROBS, Options, RequestLimits, parse_options


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest:
    """``POST /v1/completions``.

    Attributes:
        prompts: Each a text, or token ids not yet compared with the vocabulary.
        echo: Repeat the prompt before the answer.
        scaling: What search was asked for, beside what the model's name may say.
    """

    options: Options
    prompts: tuple[str | tuple[int, ...], ...] = field(repr=False)
    echo: bool
    scaling: ScalingCall | None = None


def parse_completion_request(body: bytes, limits: RequestLimits) -> CompletionRequest:
    """Parse the attacker-controlled body of a plain completion.

    Raises:
        InvalidRequest: ``param`` names the field at fault.
    """
    fields = Fields(parse_object(body))
    logprobs = fields.whole("logprobs", low=0, high=MAX_TOP_LOGPROBS)
    max_tokens = fields.whole("max_tokens", low=1, high=MAX_TOKENS)
    echo = fields.flag("echo")
    if echo and logprobs is not None:
        raise fields.wrong("echo", "cannot be combined with logprobs")
    best_of = fields.whole("best_of", low=1, high=limits.max_candidates)
    prompts = _prompts(fields, limits)
    scaling = parse_scaling(fields, limits)
    ignored = treat(fields, COMPLETIONS)
    options = parse_options(fields, limits, max_tokens=max_tokens, logprobs=logprobs, ignored=ignored)
    fields.finish()
    if best_of is not None:
        if best_of < options.n:
            raise fields.wrong("best_of", "must be at least n")
        if options.stream and best_of > options.n:
            raise fields.wrong("best_of", "cannot be combined with stream")
        options = replace(options, candidates=best_of)
    return CompletionRequest(options=options, prompts=prompts, echo=echo, scaling=scaling)


def _prompts(fields: Fields, limits: RequestLimits) -> tuple[str | tuple[int, ...], ...]:
    value = fields.take("prompt")
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not value:
        raise fields.wrong("prompt", "is required: a string, token ids, or an array of either")
    if all(isinstance(item, int) for item in value):
        return (_token_ids(fields, value),)
    if len(value) > limits.max_prompts:
        raise fields.wrong("prompt", f"must have at most {limits.max_prompts} prompts")
    return tuple(item if isinstance(item, str) else _token_ids(fields, item) for item in value)


def _token_ids(fields: Fields, value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise fields.wrong("prompt", "must be a string, token ids, or an array of either")
    token_ids: list[int] = []
    for item in value:
        if not isinstance(item, int) or isinstance(item, bool) or not 0 <= item < MAX_TOKENS:
            raise fields.wrong("prompt", "holds something that is not a token id")
        token_ids.append(item)
    return tuple(token_ids)
