# SPDX-License-Identifier: Apache-2.0
"""What goes into the engine and what comes out: plain frozen values, no behaviour, no llama.cpp.

Prompts and texts appear here in the clear. None of these types has a ``repr`` that shows them, so that an
exception or a stray log line cannot.
"""

from dataclasses import dataclass, field
from typing import Literal

from adyton_protocol.errors import InvalidRequest

MAX_TEMPERATURE = 100.0
KEY_BYTES = 32
"""Length of a sampling key."""

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How candidates are cut off and weighted, in llama.cpp's order: top_k, top_p, min_p, temperature.

    Attributes:
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
    """

    prompt_tokens: int
    completion_tokens: int

    @property
    def total_tokens(self) -> int:
        """Both together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDelta:
    """More text of choice ``index``; whole UTF-8 characters, never part of a stop string."""

    index: int
    text: str = field(repr=False)
    logprobs: tuple[TokenLogprob, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """Choice ``index`` is complete. ``usage`` is the request's count so far, final on its last choice."""

    index: int
    finish_reason: FinishReason
    usage: Usage


Event = TextDelta | Finished
