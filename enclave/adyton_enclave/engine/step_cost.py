# SPDX-License-Identifier: Apache-2.0
"""What a token costs one model, so that a step of its own can be kept short for the sake of another's streams.

A step's time is taken to grow with its tokens alone. Smaller steps are dearer than that, because weights are read for
each: what is expected of the streams is then too little and what a guest takes too much, and both make guests wait.
"""

from typing import Final

MIN_TOKENS: Final = 4
"""Of a step: with fewer it costs hardly less and does hardly anything."""

_MEMORY: Final = 0.98
"""What a step counts for when the next has come."""


class StepCost:
    """The steps of late. Owned by the loop thread."""

    def __init__(self) -> None:
        """Start knowing nothing."""
        self._tokens = 0.0
        self._time_s = 0.0

    def observe(self, n_tokens: int, elapsed_s: float) -> None:
        """Learn from a step.

        Args:
            n_tokens: Tokens computed in it, at least one.
            elapsed_s: Of all of it. Comes from a clock that the host may control, which then decides who waits for
                whom, as it can anyway.
        """
        self._tokens = _MEMORY * self._tokens + n_tokens
        self._time_s = _MEMORY * self._time_s + max(elapsed_s, 0.0)

    def expected_s(self, n_tokens: int) -> float:
        """What a step of so many tokens takes; 0 before anything was seen."""
        return n_tokens * self._time_s / self._tokens if self._tokens else 0.0

    def within(self, limit_s: float) -> int:
        """Most tokens, at least :data:`MIN_TOKENS`, of a step that is to take no longer than this."""
        return max(MIN_TOKENS, int(limit_s * self._tokens / self._time_s)) if self._time_s else MIN_TOKENS
