# SPDX-License-Identifier: Apache-2.0
"""Spending what is left of a budget, so that effort says nothing of the question.

SECURITY: how long a search works and what it costs follows its difficulty: a unanimous vote stops early, a short answer
is soon over. With ``pad_to_budget`` candidates that nobody looks at are generated and scored until the budget is
spent. They go on from the same prompt, as many at a time as the strategy had, so the work is alike. It is not the same:
the scorer reads what candidates have in common once, and they have more in common where the question is easy. Where
that is too much, a bound of time as well holds the answer back until then. What an observer of the machine's caches
or memory may still see is out of scope.
"""

from adyton_enclave.scaling.search import Search


async def pad(search: Search) -> None:
    """Generate, score and drop until nothing may be spent any more, if the plan says so.

    Args:
        search: Whose answer is chosen already.
    """
    while search.blank is not None and not search.ledger.exhausted:
        lines = search.blank.fork(search.plan.n)
        await search.finish(lines)
        for line in lines:
            line.drop()
