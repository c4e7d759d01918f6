# SPDX-License-Identifier: Apache-2.0
"""Beam search over steps: the best lines go on, each in ``branching`` ways; a comparator of REBASE."""

from collections.abc import Sequence

from adyton_enclave.scaling.growth import grow
from adyton_enclave.scaling.search import Outcome, Search
from adyton_protocol.selection import allocation


async def run(search: Search) -> Outcome:
    """Search by beams."""
    plan = search.plan

    def allocate(rewards: Sequence[float], trees: Sequence[int], widths: Sequence[int]) -> Sequence[int]:
        del trees  # There is but one.
        return allocation.beam(rewards, sum(widths), plan.branching)

    return await grow(search, [plan.n], allocate)
