# SPDX-License-Identifier: Apache-2.0
"""The bounded queue of one model: who may still join it, and when a place is likely for whom it refused.

A tenant may hold as many places as are free. Alone it gets half of them, one of two a third each, and so on; however
many one tenant sends, there is a place for the next one.

Advice is what was measured: the time between two departures while anybody waited, and no less than the time since the
last one, so that it grows when nothing moves.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Final

from adyton_protocol.errors import QueueFull

MIN_RETRY_S: Final = 1.0
MAX_RETRY_S: Final = 60.0
"""SDKs follow advice of up to a minute; beyond that they would come back when they please."""
_SMOOTHING: Final = 0.2


class Turnstile:
    """Counts; the caller brings the lock. Times are seconds of one monotonic clock."""

    def __init__(self, places: int, now_s: float) -> None:
        """Start empty; one more than ``places`` may wait, because whoever finds nobody is served at once."""
        self._places = places
        self._waiting: Counter[str] = Counter()
        self._total = 0
        self._interval_s = 0.0
        self._moved_s = now_s

    def enter(self, tenant: str, now_s: float) -> None:
        """Take a place.

        Raises:
            QueueFull: There is none, or the tenant has its share; nothing changed.
        """
        free = self._places - self._total
        if free < 0 or self._waiting[tenant] > free:
            message = "too many requests wait" if free < 0 else "too many requests of this caller wait"
            raise QueueFull(message, retry_after_s=self.retry_after_s(now_s))
        if not self._total:
            self._moved_s = now_s
        self._waiting[tenant] += 1
        self._total += 1

    def observe(self, waiting: Mapping[str, int], now_s: float) -> None:
        """Learn who waits now, and from that how fast the queue moves."""
        total = sum(waiting.values())
        departed = self._total - total
        if departed > 0:
            interval_s = (now_s - self._moved_s) / departed
            self._interval_s += _SMOOTHING * (interval_s - self._interval_s)
            self._moved_s = now_s
        self._waiting = Counter(waiting)
        self._total = total

    def retry_after_s(self, now_s: float) -> float:
        """Seconds until half of those who wait are gone."""
        interval_s = max(self._interval_s, now_s - self._moved_s if self._total else 0.0)
        return min(max(interval_s * (self._total + 1) / 2, MIN_RETRY_S), MAX_RETRY_S)
