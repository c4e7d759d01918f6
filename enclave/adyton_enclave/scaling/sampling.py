# SPDX-License-Identifier: Apache-2.0
"""Strategies that sample whole answers and then choose: they differ in the rule by which they do.

``single``, ``majority``, ``weighted``, ``best-of-n``, ``bom``, ``rpc`` and ``pairwise`` are this one module. All
candidates go on from one prompt, which is computed once.
"""

from adyton_enclave.scaling.search import Outcome, Search


async def run(search: Search) -> Outcome:
    """Sample ``n`` answers side by side."""
    lines = search.root.fork(search.plan.n)
    await search.finish(lines)
    return search.outcome(lines)


async def run_single(search: Search) -> Outcome:
    """Give the answer of the ordinary request: the root draws what its only choice would."""
    await search.finish([search.root])
    return search.outcome([search.root])
