# SPDX-License-Identifier: Apache-2.0
"""What goes into the engine and what comes out: plain frozen values, no behaviour, no llama.cpp.

Prompts and texts appear here in the clear. None of these types has a ``repr`` that shows them, so that an
exception or a stray log line cannot.
"""

from dataclasses import dataclass, field
from typing import Literal, Protocol, Self

import numpy as np
import numpy.typing as npt

from adyton_protocol.errors import InvalidRequest

MAX_TEMPERATURE = 100.0
MAX_PENALTY = 100.0
MAX_LOGIT_BIAS = 100.0
KEY_BYTES = 32
"""Length of a sampling key."""

FinishReason = Literal["stop", "length"]
Priority = Literal["low", "normal"]

TokenMask = npt.NDArray[np.uint32]
"""One bit per token of the vocabulary, least significant first: shape ``(ceil(n_vocab / 32),)``."""


class Matcher(Protocol):
    """Where one choice stands in a grammar."""

    def allowed(self) -> TokenMask:
        """The tokens that may follow, the end of text included where the grammar can end.

        None at all when the grammar can no longer be followed: the choice has to end in an error.
        """
        ...

    def accept(self, token_id: int) -> None:
        """Move past a token that was drawn from :meth:`allowed`."""
        ...

    def fork(self) -> Self:
        """The same state, to go on from independently."""
        ...


class Constraint(Protocol):
    """A compiled grammar. Several choices may share it."""

    def matcher(self) -> Matcher:
        """Start at the beginning of an answer."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How candidates are weighted and cut off: penalties, then llama.cpp's order: top_k, top_p, min_p, temperature.

    Attributes:
        repetition_penalty: Positive logits of tokens that occur in the prompt or the answer are divided by this,
            others multiplied; 1 is off.
        frequency_penalty: Taken off a token's logit for each time that it occurs in the answer; 0 is off.
        presence_penalty: Taken off a token's logit once if it occurs in the answer; 0 is off.
        temperature: 0 is greedy: the highest logit, the lowest token id on ties.
        top_p: Smallest set of candidates whose probabilities (at temperature 1) sum to this; 1 is off.
        top_k: Most candidates; 0 is off.
        min_p: Least probability relative to the best candidate; 0 is off.
        seed: Where the sampling key came from, when the caller gave one. The engine itself only looks at
            ``GenerationRequest.key``.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Refuse values outside the domain; NaN fails every comparison and so is refused as well."""
        if not 0.0 <= self.temperature <= MAX_TEMPERATURE:
            raise InvalidRequest(
                f"temperature must lie between 0 and {MAX_TEMPERATURE:g}", param="temperature"
            )
        if not 0.0 < self.top_p <= 1.0:
            raise InvalidRequest("top_p must lie in (0, 1]", param="top_p")
        if self.top_k < 0:
            raise InvalidRequest("top_k must not be negative", param="top_k")
        if not 0.0 <= self.min_p <= 1.0:
            raise InvalidRequest("min_p must lie in [0, 1]", param="min_p")
        if not 0.0 < self.repetition_penalty <= MAX_PENALTY:
            raise InvalidRequest(
                f"repetition_penalty must lie in (0, {MAX_PENALTY:g}]", param="repetition_penalty"
            )
        for name in ("frequency_penalty", "presence_penalty"):
            if not -MAX_PENALTY <= getattr(self, name) <= MAX_PENALTY:
                raise InvalidRequest(f"{name} must lie within {MAX_PENALTY:g}", param=name)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One prompt, ``n`` answers.

    Attributes:
        model: Name of a loaded model.
        prompt_token_ids: The whole prompt, with the beginning-of-text token where the model wants one.
        n: Number of choices; they share the prompt's KV cells.
        max_tokens: Most tokens of each choice, at least one.
        stop: Strings that end a choice and are not part of it.
        sampling: See there.
        logprobs: How many top alternatives to report with each token; None reports nothing.
        tenant: Who shares a place in the queue; not content.
        key: 32 secret bytes from which every draw follows (``sampler.sampling_key``).
        first_choice: Index of the first choice in the draw's path, so that one choice of a bigger request
            can be replayed alone.
        timeout_s: Seconds from submission after which the work is dropped; None is never.
        priority: ``low`` gives way to ``normal`` in the queue and when cells run out.
        logit_bias: Token ids and what is added to their logits; each id once.
        constraint: A grammar that every choice has to follow.
        visible_control_ids: Control tokens that appear in the text instead of vanishing, for callers that parse
            what the model marks with them (tool calls).
        cache_namespace: Prefixes are shared with other requests that give the same bytes, and with nobody when
            this is None. Whoever derives it must bind the tenant's secret and the key epoch into it.
    """

    model: str
    prompt_token_ids: tuple[int, ...] = field(repr=False)
    max_tokens: int
    key: bytes = field(repr=False)
    n: int = 1
    stop: tuple[str, ...] = field(default=(), repr=False)
    sampling: SamplingParams = field(default_factory=SamplingParams)
    logprobs: int | None = None
    tenant: str = ""
    first_choice: int = 0
    timeout_s: float | None = None
    priority: Priority = "normal"
    logit_bias: tuple[tuple[int, float], ...] = field(default=(), repr=False)
    constraint: Constraint | None = field(default=None, repr=False)
    visible_control_ids: frozenset[int] = frozenset()
    cache_namespace: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Check what needs no model."""
        if not self.prompt_token_ids:
            raise InvalidRequest("the prompt has no tokens", param="prompt")
        if self.n < 1:
            raise InvalidRequest("n must be at least 1", param="n")
        if self.max_tokens < 1:
            raise InvalidRequest("max_tokens must be at least 1", param="max_tokens")
        if len(self.key) != KEY_BYTES:
            raise InvalidRequest(f"a sampling key has {KEY_BYTES} bytes")
        if any(not text for text in self.stop):
            raise InvalidRequest("a stop string must not be empty", param="stop")
        if self.logprobs is not None and self.logprobs < 0:
            raise InvalidRequest("logprobs must not be negative", param="logprobs")
        if self.first_choice < 0:
            raise InvalidRequest("first_choice must not be negative")
        if any(not -MAX_LOGIT_BIAS <= bias <= MAX_LOGIT_BIAS for _, bias in self.logit_bias):
            raise InvalidRequest(f"a logit bias must lie within {MAX_LOGIT_BIAS:g}", param="logit_bias")


@dataclass(frozen=True, slots=True, kw_only=True)
class TopLogprob:
    """One alternative at one position."""

    token: str = field(repr=False)
    bytes: bytes = field(repr=False)
    logprob: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """A generated token with its log-probability under the raw logits: temperature 1, before truncation."""

    token: str = field(repr=False)
    bytes: bytes = field(repr=False)
    logprob: float
    top: tuple[TopLogprob, ...] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one request: the prompt once, however many choices share it; completions of all choices.

    Every generated token counts, the end-of-text token and tokens cut off by a stop string included.
    ``cached_prompt_tokens`` of the prompt's tokens were found in the request's own cache namespace.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_prompt_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Both together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDelta:
    """More text of choice ``index``; whole UTF-8 characters, never part of a stop string.

    Unread deltas are joined. ``steps`` has, for each of the joined ones in order, the characters of its text and the
    tokens that the choice had drawn by then, so that tokens can be told apart by the text that they wrote.
    """

    index: int
    text: str = field(repr=False)
    logprobs: tuple[TokenLogprob, ...] = field(default=(), repr=False)
    steps: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """Choice ``index`` is complete. ``usage`` is the request's count so far, final on its last choice."""

    index: int
    finish_reason: FinishReason
    usage: Usage


Event = TextDelta | Finished
