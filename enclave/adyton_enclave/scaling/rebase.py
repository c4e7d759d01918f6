# SPDX-License-Identifier: Apache-2.0
"""REBASE, reward balanced search (Wu et al., arXiv 2408.00724, section 3.2): width goes where the scorer sees promise.

``n`` first steps; then at every depth the width that finished lines have left over is shared out among the others by
a softmax over their rewards. No rollouts and no backing up: every generated token belongs to a line that may become an
answer. The leaves vote.
"""

from collections.abc import Sequence

from adyton_enclave.scaling.growth import grow
from adyton_enclave.scaling.search import Outcome, Search
from adyton_protocol.selection import allocation


async def run(search: Search) -> Outcome:
    """Search by REBASE."""
    plan = search.plan

    def allocate(rewards: Sequence[float], trees: Sequence[int], widths: Sequence[int]) -> Sequence[int]:
        del trees  # There is but one.
        return allocation.rebase(rewards, sum(widths), plan.balance)

    return await grow(search, [plan.n], allocate)
