# SPDX-License-Identifier: Apache-2.0
"""What a search has spent, and what it may still spend.

FLOPs are counted as everywhere in the literature: two for each parameter and token. Tokens of the generator are those
of the prompt that had to be computed, once, and every generated one, of discarded candidates too; tokens of the
scorer are all that it read. A forked branch's common tokens were computed once and count once.
"""

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
        prompt_tokens: Of the prompt, computed once; those found in the caller's cache are not among them.
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
    """Counts for one search. Tokens are booked by :class:`~adyton_enclave.scaling.search.Search` alone."""

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
            prompt_tokens: Of the prompt that have to be computed.
            clock: Seconds, monotonic.
        """
        self.budget = budget
        self.prices = prices
        self._clock = clock
        self._began_s = clock()
        self._prompt_tokens = prompt_tokens
        self._policy_tokens = 0
        self._scorer_tokens = 0

    def computed(self, n_tokens: int) -> None:
        """Say how many of the prompt's tokens had to be computed."""
        self._prompt_tokens = n_tokens

    def generated(self, n_tokens: int) -> None:
        """Book generated tokens."""
        self._policy_tokens += n_tokens

    def scored(self, n_tokens: int) -> None:
        """Book tokens that the scorer read."""
        self._scorer_tokens += n_tokens

    @property
    def spent(self) -> Spent:
        """So far."""
        generator = self._prompt_tokens + self._policy_tokens
        return Spent(
            policy_tokens=self._policy_tokens,
            prompt_tokens=self._prompt_tokens,
            scorer_tokens=self._scorer_tokens,
            policy_flops=self.prices.generator * generator,
            scorer_flops=self.prices.scorer * self._scorer_tokens,
            time_s=self._clock() - self._began_s,
        )

    @property
    def tokens_left(self) -> int | None:
        """Tokens that may still be generated, were each also scored; None without a bound."""
        left: list[int] = []
        if self.budget.policy_tokens is not None:
            left.append(self.budget.policy_tokens - self._policy_tokens)
        if self.budget.total_flops is not None:
            price = self.prices.generator + self.prices.scorer
            left.append(int((self.budget.total_flops - self.spent.total_flops) / price))
        return max(0, min(left)) if left else None

    @property
    def time_is_up(self) -> bool:
        """Whether the budget's time has passed."""
        return self.budget.time_s is not None and self.spent.time_s >= self.budget.time_s

    @property
    def exhausted(self) -> bool:
        """Whether nothing may be generated any more."""
        return self.time_is_up or self.tokens_left == 0
