# SPDX-License-Identifier: Apache-2.0
"""Times as people and documents write them: RFC 3339, in UTC, to the second; and durations in words."""

from datetime import UTC, datetime
from typing import Final

_UNITS: Final = ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def format_time(seconds: int) -> str:
    """Return a Unix time as RFC 3339 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def in_words(seconds: int) -> str:
    """Return a duration exactly, in the largest unit that divides it: ``14 days``, ``90 minutes``."""
    return next(_count(seconds // unit_s, unit) for unit_s, unit in _UNITS if seconds % unit_s == 0)


def roughly(seconds: int) -> str:
    """Return a duration rounded down, in the largest unit that it reaches: ``13 days``."""
    return next(
        (_count(seconds // unit_s, unit) for unit_s, unit in _UNITS if seconds >= unit_s), "0 seconds"
    )


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"
