# SPDX-License-Identifier: Apache-2.0
"""Who waits for admission, in the order in which they should get it.

Normal priority goes before low. Within a priority the tenant goes first that has had the least work done, counted in
computed tokens, so that neither many requests, nor many choices, nor long prompts buy more than an equal share.
Within a tenant it is first come, first served, among those whom the scheduler does not rank.

A tenant that comes back after a pause starts where the least served of those at work stands: idling earns no credit
(virtual time; after Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024). Tenants are the host's
opaque tags; equal tags share a turn, and that is all that they do.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import takewhile

from adyton_enclave.engine.request import Priority
from adyton_enclave.engine.sequence import Sequence

Rank = Callable[[Sequence], int | None]
"""How far a sequence stands behind others of its tenant, 0 being first; None: not now."""

_NO_WORK: Mapping[str, int] = {}


def _first_come(_sequence: Sequence) -> int:
    return 0


class FairQueue:
    """The waiting sequences of one model, and the work done for each tenant. Owned by the loop thread."""

    def __init__(self) -> None:
        """Start empty."""
        self._lines: dict[Priority, dict[str, deque[Sequence]]] = {"normal": {}, "low": {}}
        self._served: dict[str, int] = {}

    def __bool__(self) -> bool:
        return any(self._lines.values())

    @property
    def tenants(self) -> set[str]:
        """Tenants that wait."""
        return {tenant for lines in self._lines.values() for tenant in lines}

    def welcome(self, tenant: str, working: Collection[str]) -> None:
        """A request arrives.

        Args:
            tenant: Whose.
            working: Tenants that have something running or held; those that wait are known here.
        """
        active = self.tenants.union(working)
        if tenant in active:
            return
        floor = min((self.served(other) for other in active), default=0)
        # Whoever is gone and stands no higher than a newcomer would is a newcomer when he is back.
        self._served = {
            other: served for other, served in self._served.items() if other in active or served > floor
        }
        if not active:
            self._served.clear()
        self._served[tenant] = max(self.served(tenant), floor)

    def charge(self, tenant: str, tokens: int) -> None:
        """Count work done for a tenant; negative for work that was thrown away."""
        self._served[tenant] = self.served(tenant) + tokens

    def served(self, tenant: str) -> int:
        """Tokens computed for a tenant, up to a constant that all tenants share."""
        return self._served.get(tenant, 0)

    def push(self, sequence: Sequence, *, front: bool = False) -> None:
        """Let a sequence wait behind its tenant's others, or before them."""
        request = sequence.group.request
        line = self._lines[request.priority].setdefault(request.tenant, deque())
        if front:
            line.appendleft(sequence)
        else:
            line.append(sequence)

    def push_returning(self, sequence: Sequence) -> None:
        """Let a sequence that ran before wait behind the first others of whose requests something ran already."""
        request = sequence.group.request
        line = self._lines[request.priority].setdefault(request.tenant, deque())
        started = takewhile(lambda other: other.group.started, line)
        line.insert(sum(1 for _ in started), sequence)

    def remove(self, sequence: Sequence) -> None:
        """Take a waiting sequence out."""
        request = sequence.group.request
        lines = self._lines[request.priority]
        line = lines[request.tenant]
        line.remove(sequence)
        # A tenant that was served goes behind those who stand as high.
        del lines[request.tenant]
        if line:
            lines[request.tenant] = line

    def heads(self, promised: Mapping[str, int] = _NO_WORK, rank: Rank = _first_come) -> Iterator[Sequence]:
        """The first sequence of each line, in order of admission. Start anew after any change.

        Args:
            promised: Tokens of admitted sequences, by tenant, that were not computed yet. They count as served.
            rank: Who goes before others of the same tenant who came earlier.
        """
        for lines in self._lines.values():
            order = list(lines)
            if len(order) > 1:
                order.sort(key=lambda tenant: self.served(tenant) + promised.get(tenant, 0))
            for tenant in order:
                head = _foremost(lines[tenant], rank)
                if head is not None:
                    yield head


def _foremost(line: Collection[Sequence], rank: Rank) -> Sequence | None:
    """The first of those with the lowest rank; None if nobody may go."""
    best, lowest = None, 0
    for sequence in line:
        standing = rank(sequence)
        if standing == 0:
            return sequence
        if standing is not None and (best is None or standing < lowest):
            best, lowest = sequence, standing
    return best
