# SPDX-License-Identifier: Apache-2.0
"""Admission control: a bounded number of exchanges at a time, and no queue.

A queue at the host would hold sealed bytes in memory and hide overload from clients; refusing at once with
``Retry-After`` does neither.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from adyton_host import problems
from adyton_host.problems import Refusal


class Gate:
    """Lets at most ``limit`` exchanges through at the same time."""

    def __init__(self, limit: int, *, retry_after_s: int) -> None:
        """Start empty."""
        self._limit = limit
        self._retry_after_s = retry_after_s
        self._inside = 0

    @property
    def inside(self) -> int:
        """How many exchanges are under way."""
        return self._inside

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Hold a place.

        Raises:
            Refusal: All places are taken.
        """
        if self._inside >= self._limit:
            raise Refusal(problems.busy(self._limit, self._retry_after_s))
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
