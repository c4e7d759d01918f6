# SPDX-License-Identifier: Apache-2.0
"""What all generation endpoints have in common, parsed at the edge: complete, typed and within bounds.

Field names and meanings are OpenAI's. ``parameters`` says which of theirs are ignored or refused; fields that nobody
knows are refused, because a misspelt ``max_tokens`` must not become an answer without a limit.
"""

from dataclasses import dataclass, field
from typing import Final, Literal

from adyton_enclave.api.fields import Fields
from adyton_enclave.privacy import Profile

DEFAULT_MODEL: Final = "default"
"""What a request means that names no model: the first one that is configured."""
MAX_MODEL_CHARS: Final = 128
MAX_STOPS: Final = 16
MAX_STOP_CHARS: Final = 256
MAX_TOP_LOGPROBS: Final = 20
MAX_TOKENS: Final = 2**31 - 1
MAX_TEMPERATURE: Final = 2.0
GREEDY_BELOW: Final = 1e-6
"""A temperature below this is 0: a logit divided by it would not be a number."""
MAX_TOP_K: Final = 1 << 20
MAX_PENALTY: Final = 2.0
MIN_REPETITION_PENALTY: Final = 0.01
MAX_BIAS: Final = 100.0
MAX_BIASES: Final = 1024
MAX_SEED: Final = 2**63 - 1
MAX_DEADLINE_MS: Final = 24 * 3600 * 1000
MIN_SALT_CHARS: Final = 16
"""A salt is a secret: 16 characters are the least that can hold one that is not guessed."""
MAX_SALT_CHARS: Final = 256
ServiceTier = Literal["default", "flex"]
SERVICE_TIERS: Final[dict[str, ServiceTier]] = {"auto": "default", "default": "default", "flex": "flex"}
"""What a caller may ask for, and what the answer says that it got."""
_MAX_TOKEN_DIGITS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLimits:
    """Bounds that the operator sets.

    Attributes:
        max_candidates: Choices of each prompt.
        max_prompts: Prompts of a plain completion.
        max_inputs: Texts to embed.
        max_input_tokens: Tokens of all texts to embed.
        max_steps: Steps of an answer to score.
        max_search_width: Candidates of a search, or width of its tree.
        max_search_tokens: Tokens that a search may generate.
        search_in_flight: Lines of a search that are extended at a time.
    """

    max_candidates: int
    max_prompts: int
    max_inputs: int = 2048
    max_input_tokens: int = 300_000
    max_steps: int = 256
    max_search_width: int = 64
    max_search_tokens: int = 65_536
    search_in_flight: int = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What all generation endpoints have in common. None means: the model's default.

    Attributes:
        model: Name of a model, not yet looked up, or ``default``.
        n: Choices in the answer.
        candidates: Choices to generate for each prompt, at least ``n``; the best ``n`` are the answer.
        logit_bias: Token ids, not yet compared with the vocabulary, and what is added to their logits.
        logprobs: Number of alternatives to report with each token, or None for no log-probabilities.
        stream: Answer as server-sent events.
        include_usage: End the stream with an event that holds the usage.
        ignored: Names of parameters that the caller gave in vain.
        service_tier: What the answer calls the tier that it was served in, when the caller named one.
        deadline_s: Seconds after which the caller does not want the answer any more.
        cache_salt: Secret of those who may share cached prefixes; None caches nothing.
    """

    model: str
    n: int
    candidates: int
    max_tokens: int | None
    stop: tuple[str, ...] = field(repr=False)
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    frequency_penalty: float | None
    presence_penalty: float | None
    repetition_penalty: float | None
    logit_bias: tuple[tuple[int, float], ...] = field(repr=False)
    seed: int | None
    logprobs: int | None
    stream: bool
    include_usage: bool
    privacy: Profile | None
    ignored: tuple[str, ...]
    service_tier: ServiceTier | None
    deadline_s: float | None
    cache_salt: str | None = field(repr=False)


def parse_options(
    fields: Fields,
    limits: RequestLimits,
    *,
    max_tokens: int | None,
    logprobs: int | None,
    ignored: tuple[str, ...],
) -> Options:
    """Parse what all endpoints share.

    Args:
        fields: Attacker-controlled.
        limits: The operator's.
        max_tokens: Named differently from endpoint to endpoint, so parsed there.
        logprobs: Likewise.
        ignored: What ``parameters.treat`` gave back.

    Raises:
        InvalidRequest: ``param`` names the field at fault.
    """
    stream = fields.flag("stream")
    n = fields.whole("n", low=1, high=limits.max_candidates) or 1
    return Options(
        model=fields.text("model", max_chars=MAX_MODEL_CHARS) or DEFAULT_MODEL,
        n=n,
        candidates=n,
        max_tokens=max_tokens,
        stop=_stop(fields),
        temperature=_temperature(fields),
        top_p=fields.real("top_p", low=0.0, high=1.0, above_low=True),
        top_k=fields.whole("top_k", low=0, high=MAX_TOP_K),
        min_p=fields.real("min_p", low=0.0, high=1.0),
        frequency_penalty=fields.real("frequency_penalty", low=-MAX_PENALTY, high=MAX_PENALTY),
        presence_penalty=fields.real("presence_penalty", low=-MAX_PENALTY, high=MAX_PENALTY),
        repetition_penalty=fields.real("repetition_penalty", low=MIN_REPETITION_PENALTY, high=MAX_PENALTY),
        logit_bias=_logit_bias(fields),
        seed=fields.whole("seed", low=-MAX_SEED - 1, high=MAX_SEED),
        logprobs=logprobs,
        stream=stream,
        include_usage=_include_usage(fields, stream=stream),
        privacy=parse_privacy(fields),
        ignored=ignored,
        service_tier=parse_service_tier(fields),
        deadline_s=parse_deadline_s(fields),
        cache_salt=_cache_salt(fields),
    )


def parse_service_tier(fields: Fields) -> ServiceTier | None:
    """What the answer calls the tier that it was served in, when the caller named one."""
    value = fields.text("service_tier", max_chars=16)
    if value is None:
        return None
    if value not in SERVICE_TIERS:
        raise fields.wrong("service_tier", f"must be one of {', '.join(SERVICE_TIERS)}")
    return SERVICE_TIERS[value]


def parse_deadline_s(fields: Fields) -> float | None:
    """Seconds after which the caller does not want the answer any more."""
    value = fields.whole("deadline_ms", low=1, high=MAX_DEADLINE_MS)
    return None if value is None else value / 1000


def _cache_salt(fields: Fields) -> str | None:
    value = fields.text("cache_salt", max_chars=MAX_SALT_CHARS)
    if value is not None and len(value) < MIN_SALT_CHARS:
        raise fields.wrong("cache_salt", f"must have at least {MIN_SALT_CHARS} characters")
    return value


def _temperature(fields: Fields) -> float | None:
    value = fields.real("temperature", low=0.0, high=MAX_TEMPERATURE)
    return 0.0 if value is not None and value < GREEDY_BELOW else value


def _logit_bias(fields: Fields) -> tuple[tuple[int, float], ...]:
    value = fields.take("logit_bias")
    if value is None:
        return ()
    if not isinstance(value, dict):
        raise fields.wrong("logit_bias", "must be an object")
    if len(value) > MAX_BIASES:
        raise fields.wrong("logit_bias", f"must have at most {MAX_BIASES} members")
    biases: dict[int, float] = {}
    for name, bias in value.items():
        if not (name.isascii() and name.isdigit() and len(name) <= _MAX_TOKEN_DIGITS):
            raise fields.wrong("logit_bias", "has a name that is not a token id")
        if isinstance(bias, bool) or not isinstance(bias, int | float) or not -MAX_BIAS <= bias <= MAX_BIAS:
            raise fields.wrong("logit_bias", f"must have values from {-MAX_BIAS:g} to {MAX_BIAS:g}")
        if int(name) in biases:
            raise fields.wrong("logit_bias", "names a token twice")
        biases[int(name)] = float(bias)
    return tuple(sorted(biases.items()))


def _stop(fields: Fields) -> tuple[str, ...]:
    value = fields.take("stop")
    if value is None:
        return ()
    stops = value if isinstance(value, list) else [value]
    if len(stops) > MAX_STOPS:
        raise fields.wrong("stop", f"must have at most {MAX_STOPS} strings")
    texts: list[str] = []
    for stop in stops:
        if not isinstance(stop, str) or not 0 < len(stop) <= MAX_STOP_CHARS:
            raise fields.wrong(
                "stop", f"must be a string of 1 to {MAX_STOP_CHARS} characters, or an array of them"
            )
        texts.append(stop)
    return tuple(texts)


def _include_usage(fields: Fields, *, stream: bool) -> bool:
    options = fields.members("stream_options")
    if options is None:
        return False
    if not stream:
        raise fields.wrong("stream_options", "requires stream to be true")
    include = options.flag("include_usage")
    options.flag("include_obfuscation")
    options.finish()
    return include


def parse_privacy(fields: Fields) -> Profile | None:
    """The privacy profile that a request wishes for.

    Raises:
        InvalidRequest: It is none.
    """
    value = fields.text("privacy", max_chars=16)
    if value is None:
        return None
    try:
        return Profile(value)
    except ValueError as error:
        raise fields.wrong("privacy", "must be one of off, size, cadence") from error
