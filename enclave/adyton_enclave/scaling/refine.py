# SPDX-License-Identifier: Apache-2.0
"""``refine``, iterative agent decoding: attempts that are shown the best and the worst of those before.

Each round samples ``branching`` answers and has them scored; the next round's prompt holds the best answer so far and
the worst of the last round. All of them remain candidates, so that the best is kept even when later rounds are worse,
which they often are. It is meant for tasks whose output can be checked: with a scorer that merely has a taste it
polishes what the scorer likes.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from adyton_enclave.scaling.line import Line
from adyton_enclave.scaling.search import Feedback, Outcome, Search
from adyton_protocol.errors import ContextOverflow
from adyton_protocol.selection.ballot import reward
from adyton_protocol.selection.candidate import Candidate, SelectionRule
from adyton_protocol.selection.stopping import decided

BETTER: Final = (
    "This is the best answer so far, but it may be wrong. Check it, and answer the question again."
)
WORSE: Final = "The following answer was judged the worst. Do not repeat its mistakes:\n\n"


async def run(search: Search) -> Outcome:
    """Sample up to ``n`` answers in rounds."""
    plan = search.plan
    lines: list[Line] = []
    while True:
        new = search.root.fork(min(plan.branching, plan.n - len(lines)))
        await search.finish(new)
        lines += new
        candidates = [line.candidate() for line in lines]
        if len(lines) >= plan.n:
            return search.outcome(lines)
        if search.ledger.exhausted:
            return search.outcome(lines, search.spent_reason)
        if decided(candidates, plan.rule, plan.stop):
            return search.outcome(lines, "agreed")
        try:
            await search.replant(_feedback(candidates, len(new), plan.rule))
        except ContextOverflow:
            return search.outcome(lines, "context")


def feedback_messages(feedback: Feedback) -> Sequence[Mapping[str, str]]:
    """What follows on a conversation to ask for another attempt: an assistant's turn and a user's."""
    request = BETTER if feedback.worst is None else f"{BETTER}\n\n{WORSE}{feedback.worst}"
    return ({"role": "assistant", "content": feedback.best}, {"role": "user", "content": request})


def _feedback(candidates: Sequence[Candidate], n_last: int, rule: SelectionRule) -> Feedback:
    def merit(candidate: Candidate) -> tuple[bool, float]:
        return candidate.complete, reward(candidate, rule)

    best = max(candidates, key=merit)
    worst = min(candidates[-n_last:], key=merit)
    return Feedback(best=best.text, worst=None if merit(worst) == merit(best) else worst.text)
