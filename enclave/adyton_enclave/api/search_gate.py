# SPDX-License-Identifier: Apache-2.0
"""How many searches one tenant may have under way.

SECURITY: a tenant is the host's unauthenticated tag. It decides whether a search begins now or later, like a place in
the queue, and nothing about its answer.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final

from adyton_protocol.errors import QueueFull

RETRY_AFTER_S: Final = 1.0


class SearchGate:
    """Counts the searches of each tenant. Used in one event loop."""

    def __init__(self, most: int) -> None:
        """Let ``most`` of each tenant in at a time."""
        self._most = most
        self._inside: Counter[str] = Counter()

    def enter(self, tenant: str) -> Callable[[], None]:
        """Count a search in; what is returned counts it out, and is to be called once.

        Raises:
            QueueFull: The tenant has as many as it may have.
        """
        if self._inside[tenant] >= self._most:
            raise QueueFull("too many searches of this caller are under way", retry_after_s=RETRY_AFTER_S)
        self._inside[tenant] += 1
        return partial(self._leave, tenant)

    def _leave(self, tenant: str) -> None:
        self._inside[tenant] -= 1
        if not self._inside[tenant]:
            del self._inside[tenant]
