# SPDX-License-Identifier: Apache-2.0
"""Strategies that sample whole answers and then choose: they differ in the rule by which they do.

``single``, ``majority``, ``weighted``, ``best-of-n``, ``bom``, ``rpc`` and ``pairwise`` are this one module. All
candidates go on from one prompt, which is computed once. With a stopping rule they come in windows, and the last
windows only if the vote is not decided before.
"""

from adyton_enclave.scaling.line import Line
from adyton_enclave.scaling.search import Outcome, Search
from adyton_protocol.selection.stopping import decided


async def run(search: Search) -> Outcome:
    """Sample up to ``n`` answers side by side."""
    plan = search.plan
    window = plan.n if plan.stop.kind == "none" else plan.stop.window
    lines: list[Line] = []
    while len(lines) < plan.n:
        if lines and search.ledger.exhausted:
            return search.outcome(lines, search.spent_reason)
        new = search.root.fork(min(window, plan.n - len(lines)))
        await search.finish(new)
        lines += new
        if len(lines) < plan.n and decided([line.candidate() for line in lines], plan.rule, plan.stop):
            return search.outcome(lines, "agreed")
    return search.outcome(lines)


async def run_single(search: Search) -> Outcome:
    """Give the answer of the ordinary request: the root draws what its only choice would."""
    await search.finish([search.root])
    return search.outcome([search.root])
