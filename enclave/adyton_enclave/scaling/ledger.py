# SPDX-License-Identifier: Apache-2.0
"""What a search has spent, and what it may still spend.

FLOPs are counted as everywhere in the literature: two for each parameter and token. What counts is exact:

* of the generator, the prompt once and every generated token, those of discarded candidates too. A token costs one
  pass through the model, whichever branch it is on; the prompt's tokens that were found in the caller's own cache are
  reported as not spent.
* of the scorer, every token that it was given: the problem once, and each distinct step with its framing. A scorer
  that is the generator under another name is a pass of its own.

Not counted are the single tokens that a fork computes anew, what is computed again when others needed the memory, and
a scorer's head, which is small beside its model.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from adyton_enclave.scaling.plan import Budget


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """FLOPs of one token.

    Attributes:
        generator: Of a prompt's or generated token.
        scorer: Of a token that the scorer reads; 0 without one.
    """

    generator: float
    scorer: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What was spent so far.

    Attributes:
        policy_tokens: Generated.
        prompt_tokens: Of prompts, each computed once; those found in the caller's cache are not among them.
        scorer_tokens: Read by the scorer.
        policy_flops: Of prompt and generated tokens.
        scorer_flops: Of what the scorer read.
        time_s: Since the beginning.
    """

    policy_tokens: int
    prompt_tokens: int
    scorer_tokens: int
    policy_flops: float
    scorer_flops: float
    time_s: float

    @property
    def total_flops(self) -> float:
        """Of both models."""
        return self.policy_flops + self.scorer_flops


class Ledger:
    """Counts for one search. Tokens are booked by :class:`~adyton_enclave.scaling.search.Search` alone.

    Bounds are kept as if nothing had been found in a cache, so that no answer depends on what is there.
    """

    def __init__(
        self,
        budget: Budget,
        prices: Prices,
        *,
        prompt_tokens: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the clock.

        Args:
            budget: The bounds.
            prices: Of a token.
            prompt_tokens: Of the prompt.
            clock: Seconds, monotonic.
        """
        self.budget = budget
        self.prices = prices
        self._clock = clock
        self._began_s = clock()
        self._prompt_tokens = prompt_tokens
        self._cached_tokens = 0
        self._policy_tokens = 0
        self._scorer_tokens = 0

    def prompted(self, n_tokens: int) -> None:
        """Book another prompt."""
        self._prompt_tokens += n_tokens

    def found(self, n_tokens: int) -> None:
        """Say how many of the prompt's tokens were found in a cache."""
        self._cached_tokens = n_tokens

    def generated(self, n_tokens: int) -> None:
        """Book generated tokens."""
        self._policy_tokens += n_tokens

    def scored(self, n_tokens: int) -> None:
        """Book tokens that the scorer read."""
        self._scorer_tokens += n_tokens

    @property
    def spent(self) -> Spent:
        """So far."""
        prompt_tokens = self._prompt_tokens - self._cached_tokens
        return Spent(
            policy_tokens=self._policy_tokens,
            prompt_tokens=prompt_tokens,
            scorer_tokens=self._scorer_tokens,
            policy_flops=self.prices.generator * (prompt_tokens + self._policy_tokens),
            scorer_flops=self.prices.scorer * self._scorer_tokens,
            time_s=self._clock() - self._began_s,
        )

    @property
    def tokens_left(self) -> int | None:
        """Tokens that may still be generated, were each also scored; None without a bound."""
        left: list[int] = []
        if self.budget.policy_tokens is not None:
            left.append(self.budget.policy_tokens - self._policy_tokens)
        if (flops := self._flops_left) is not None:
            left.append(math.floor(flops / (self.prices.generator + self.prices.scorer)))
        return max(0, min(left)) if left else None

    @property
    def scorer_tokens_left(self) -> int | None:
        """Tokens that the scorer may still read; None without a bound."""
        if (flops := self._flops_left) is None or not self.prices.scorer:
            return None
        return max(0, math.floor(flops / self.prices.scorer))

    @property
    def time_is_up(self) -> bool:
        """Whether the budget's time has passed."""
        return self.budget.time_s is not None and self._clock() - self._began_s >= self.budget.time_s

    @property
    def exhausted(self) -> bool:
        """Whether nothing may be generated any more."""
        return self.time_is_up or self.tokens_left == 0

    @property
    def _flops_left(self) -> float | None:
        if self.budget.total_flops is None:
            return None
        generator = self.prices.generator * (self._prompt_tokens + self._policy_tokens)
        return self.budget.total_flops - generator - self.prices.scorer * self._scorer_tokens
