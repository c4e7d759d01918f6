# SPDX-License-Identifier: Apache-2.0
"""What a search tells of itself: to the caller in ``x_report`` and ``usage``, to everybody else in the receipt."""

from dataclasses import dataclass, field

from adyton_enclave.api.events import Json
from adyton_enclave.api.generate import Served
from adyton_enclave.api.search_work import SearchWork
from adyton_enclave.receipts import OpenReceipt
from adyton_enclave.scaling.calibration import calibration_for
from adyton_enclave.scaling.plan import NEEDS_SCORER
from adyton_enclave.scaling.report import Told, report_of


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
    scorer = served.scorer
    if scorer is None or finding.plan.strategy not in NEEDS_SCORER:
        told = Told(asked=order.asked, finding=finding, choices=work.chosen)
    else:
        told = Told(
            asked=order.asked,
            finding=finding,
            choices=work.chosen,
            scorer=scorer.name,
            threshold=scorer.threshold,
            calibration=calibration_for(scorer.adapter.scaling, served.model.content),
        )
        receipt.took_part(name=scorer.name, identity=scorer.model.identity)
    returned = sum(finding.outcome.candidates[index].n_tokens for index in work.chosen)
    generated = work.usage.completion_tokens
    details = {
        "returned_tokens": min(returned, generated),
        "discarded_tokens": max(0, generated - returned),
        "scorer_tokens": finding.spent.scorer_tokens,
    }
    return SearchReport(json=report_of(told), token_details=details)
