# SPDX-License-Identifier: Apache-2.0
"""What a search tells its caller about itself, as JSON: what ran, how the vote went, what it cost.

All of it is the caller's own and travels sealed beside the answer; answers in it are words of the model.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from adyton_enclave.scaling.calibration import ScalingCalibration
from adyton_enclave.scaling.ledger import Spent
from adyton_enclave.scaling.plan import Budget, StopRule, Strategy
from adyton_enclave.scaling.search import Outcome
from adyton_enclave.scaling.strategies import Finding
from adyton_protocol.selection.aggregate import aggregate
from adyton_protocol.selection.candidate import Method, Vote
from adyton_protocol.selection.stopping import confidence

Json = dict[str, object]
ConfidenceKind = Literal["vote-share", "score", "none"]

MAX_SHOWN_CHARS: Final = 256
"""Of an answer in the vote table; the transcript has them whole."""
_VOTES: Final[frozenset[Method]] = frozenset({"majority", "weighted", "rpc", "pairwise"})
_COUNTED: Final[frozenset[Method]] = frozenset({"majority", "weighted"})
"""Those whose weights are votes, whole or in part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A search that is over, and what is told of it.

    Attributes:
        asked: The strategy that was asked for; ``auto`` stands for another.
        finding: What came of it.
        choices: The candidate of each choice of the answer.
        scorer: Name of the model that scored; None if nobody did.
        threshold: Score from which a step counts as sound.
        calibration: What was measured with this generator and this scorer.
    """

    asked: Strategy
    finding: Finding
    choices: Sequence[int]
    scorer: str | None = None
    threshold: float = 0.5
    calibration: ScalingCalibration | None = None


def report_of(search: Told, *, transcript: Mapping[str, object] | None = None) -> Json:
    """The member ``x_report`` of an answer.

    Args:
        search: What it is about.
        transcript: Everything from which the choice can be made again, for callers who asked for it.
    """
    finding = search.finding
    outcome, plan = finding.outcome, finding.plan
    selection = outcome.selection
    report: Json = {
        "strategy": plan.strategy,
        "asked": search.asked,
        "n": plan.n,
        "method": plan.rule.method,
        "aggregate": plan.rule.aggregate,
        "stop_reason": outcome.stop_reason,
        "scorer": search.scorer,
        "candidates": {
            "made": len(outcome.candidates),
            "complete": sum(candidate.complete for candidate in outcome.candidates),
            "abstained": len(selection.abstained),
        },
        "choices": list(search.choices),
        "votes": _votes(selection.votes),
        "winner": _winner(search),
        "confidence": _confidence(search),
        "budget": _budget(plan.budget),
        "spent": _spent(finding.spent),
    }
    if outcome.nodes:
        report["tree"] = _tree(outcome)
    if transcript is not None:
        report["transcript"] = dict(transcript)
    return report


def _votes(votes: Sequence[Vote]) -> list[Json]:
    total = math.fsum(vote.weight for vote in votes)
    return [
        {
            "answer": vote.shown[:MAX_SHOWN_CHARS],
            "candidates": list(vote.members),
            "weight": vote.weight,
            "share": vote.weight / total if total > 0.0 else 0.0,
        }
        for vote in votes
    ]


def _winner(search: Told) -> Json:
    outcome, plan = search.finding.outcome, search.finding.plan
    index = outcome.selection.winners[0]
    candidate = outcome.candidates[index]
    scores = candidate.scores
    vote = _vote_of(outcome, index)
    return {
        "candidate": index,
        "answer": None if vote is None else vote.shown[:MAX_SHOWN_CHARS],
        "tokens": candidate.n_tokens,
        "logprob": candidate.logprob,
        "score": aggregate(scores, plan.rule.aggregate) if scores else None,
        "steps": [{"score": score, "sound": score >= search.threshold} for score in scores],
    }


def _vote_of(outcome: Outcome, index: int) -> Vote | None:
    return next((vote for vote in outcome.selection.votes if index in vote.members), None)


def _confidence(search: Told) -> Json:
    """How sure the search is of its winner, and what that number is; nothing here says that an answer is right.

    ``value`` is what ``is`` says: the winner's share of the votes' weight, or the scorer's score of its steps.
    ``settled`` is the probability that more candidates would not overturn the vote (Beta posterior). ``measured`` is
    how often such a search was right where somebody knew.
    """
    outcome, plan = search.finding.outcome, search.finding.plan
    selection = outcome.selection
    winner = selection.winners[0]
    total = math.fsum(vote.weight for vote in selection.votes)
    vote = _vote_of(outcome, winner)
    scores = outcome.candidates[winner].scores
    kind: ConfidenceKind = "none"
    value: float | None = None
    if plan.rule.method in _VOTES and vote is not None and total > 0.0:
        kind, value = "vote-share", vote.weight / total
    elif scores:
        kind, value = "score", aggregate(scores, plan.rule.aggregate)
    settled = None
    if plan.rule.method in _COUNTED and selection.votes:
        settled = confidence([vote.weight for vote in selection.votes], StopRule(kind="beta"))
    return {"value": value, "is": kind, "settled": settled, "measured": _measured(search)}


def _measured(search: Told) -> Json | None:
    """How often this strategy was right at this width where the truth was known."""
    plan, calibration = search.finding.plan, search.calibration
    if calibration is None:
        return None
    for point in calibration.points:
        if (point.strategy, point.n, point.stop) == (plan.strategy, plan.n, plan.stop.kind):
            return {"accuracy": point.accuracy, "problems": calibration.n_problems}
    return None


def _budget(budget: Budget) -> Json:
    ms = None if budget.time_s is None else round(1000 * budget.time_s)
    return {"policy_tokens": budget.policy_tokens, "total_flops": budget.total_flops, "ms": ms}


def _spent(spent: Spent) -> Json:
    return {
        "policy_tokens": spent.policy_tokens,
        "prompt_tokens": spent.prompt_tokens,
        "scorer_tokens": spent.scorer_tokens,
        "policy_flops": spent.policy_flops,
        "scorer_flops": spent.scorer_flops,
        "total_flops": spent.total_flops,
        "ms": round(1000 * spent.time_s),
    }


def _tree(outcome: Outcome) -> Json:
    """The shape of a tree: how many steps there were at each depth, and how many lines were given up."""
    widths = Counter(node.depth for node in outcome.nodes)
    return {
        "nodes": len(outcome.nodes),
        "widths": [widths[depth] for depth in range(1, max(widths) + 1)],
        "given_up": sum(node.n_children == 0 and not node.candidates for node in outcome.nodes),
    }
