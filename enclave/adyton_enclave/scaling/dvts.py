# SPDX-License-Identifier: Apache-2.0
"""Diverse verifier tree search: independent trees of ``branching`` lines, in each of which the best one goes on.

Beams of one tree come to resemble each other; trees that do not compete keep to what they began with.
"""

from adyton_enclave.scaling.growth import grow
from adyton_enclave.scaling.search import Outcome, Search
from adyton_protocol.selection import allocation


async def run(search: Search) -> Outcome:
    """Search by independent trees."""
    plan = search.plan
    return await grow(search, allocation.subtrees(plan.n, plan.branching), allocation.dvts)
