# SPDX-License-Identifier: Apache-2.0
"""Times as people and documents write them: RFC 3339, in UTC, to the second."""

from datetime import UTC, datetime


def format_time(seconds: int) -> str:
    """Return a Unix time as RFC 3339 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
