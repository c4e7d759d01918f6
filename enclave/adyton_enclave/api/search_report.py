# SPDX-License-Identifier: Apache-2.0
"""What a search tells of itself: to the caller in ``x_report`` and ``usage``, to everybody else in the receipt."""

from dataclasses import dataclass, field, replace

from adyton_enclave.api.events import Json
from adyton_enclave.api.generate import Served
from adyton_enclave.api.search_work import SearchWork
from adyton_enclave.receipts import OpenReceipt
from adyton_enclave.scaling.calibration import calibration_for
from adyton_enclave.scaling.plan import NEEDS_SCORER
from adyton_enclave.scaling.report import Told, report_of
from adyton_protocol.scaling_transcript import Transcript


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchReport:
    """What presenters add to an answer.

    Attributes:
        json: The member ``x_report``.
        token_details: Further members of the usage's details about generated tokens.
    """

    json: Json = field(repr=False)
    token_details: dict[str, int]


def members_of(report: SearchReport | None) -> Json:
    """What a report adds to a JSON object of an answer."""
    return {} if report is None else {"x_report": report.json}


def report_search(work: SearchWork, served: Served, receipt: OpenReceipt) -> SearchReport:
    """Report a search that is over, and note it in the receipt."""
    finding, order = work.finding, work.order
    scorer = served.scorer if finding.plan.strategy in NEEDS_SCORER else None
    told = Told(asked=order.asked, finding=finding, choices=work.chosen)
    if scorer is not None:
        receipt.took_part(name=scorer.name, identity=scorer.model.identity)
        told = replace(
            told,
            scorer=scorer.name,
            threshold=scorer.threshold,
            calibration=calibration_for(scorer.adapter.scaling, served.model.content),
        )
    transcript = _transcript(told)
    scorer_tokens = finding.spent.scorer_tokens
    generated = work.usage.completion_tokens
    receipt.searched(transcript, policy_tokens=generated, scorer_tokens=scorer_tokens)
    returned = min(generated, sum(finding.outcome.candidates[index].n_tokens for index in work.chosen))
    return SearchReport(
        json=report_of(told, transcript=transcript.to_json() if order.returns == "all" else None),
        token_details={
            "returned_tokens": returned,
            "discarded_tokens": generated - returned,
            "scorer_tokens": scorer_tokens,
        },
    )


def _transcript(told: Told) -> Transcript:
    plan, outcome = told.finding.plan, told.finding.outcome
    return Transcript(
        strategy=plan.strategy,
        n=plan.n,
        scorer=told.scorer,
        rule=plan.rule,
        budget=plan.budget,
        stop=plan.stop,
        stop_reason=outcome.stop_reason,
        candidates=outcome.candidates,
        selection=outcome.selection,
    )
