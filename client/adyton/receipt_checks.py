# SPDX-License-Identifier: Apache-2.0
"""The checks of a kept receipt, offline: is it signed by keys that an accepted enclave attested?

Nothing here asks the appliance, reads a clock or raises for a receipt that is no good: each check is a line that says
what was found, in the order in which they build on one another.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from adyton.receipts import ReportFile
from adyton.session import Appraiser
from adyton_attestation.quote import parse_quote
from adyton_protocol.errors import AttestationError, ReceiptError
from adyton_protocol.receipt import MODEL_IDENTITY, Receipt, VerifiedReceipt, verify_receipt
from adyton_protocol.report import AttestationReport
from adyton_protocol.strict_json import JsonObject

CheckVerdict = Literal["pass", "fail", "skip"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptCheck:
    """One line of the result.

    Attributes:
        number: Its place, from 1.
        name: What was checked.
        verdict: What came of it; ``skip`` where there was nothing to judge by.
        detail: What was found, in plain language. Holds no word of question or answer.
    """

    number: int
    name: str
    verdict: CheckVerdict
    detail: str

    def to_json(self) -> JsonObject:
        """Return the JSON object."""
        return {"number": self.number, "name": self.name, "verdict": self.verdict, "detail": self.detail}


class Checks:
    """Lines in the making, numbered as they come."""

    def __init__(self) -> None:
        self._lines: list[ReceiptCheck] = []

    def add(self, name: str, verdict: CheckVerdict, detail: str) -> None:
        """Add a line."""
        self._lines.append(
            ReceiptCheck(number=len(self._lines) + 1, name=name, verdict=verdict, detail=detail)
        )

    @property
    def lines(self) -> tuple[ReceiptCheck, ...]:
        """All of them so far."""
        return tuple(self._lines)


def failed(checks: Iterable[ReceiptCheck]) -> bool:
    """Whether any of them failed. None skipped is not asked: look at the line ``report`` for that."""
    return any(check.verdict == "fail" for check in checks)


def appraised(checks: Iterable[ReceiptCheck]) -> bool:
    """Whether the evidence behind the receipt's keys was judged by a policy, and accepted."""
    return any(check.name == "report" and check.verdict == "pass" for check in checks)


def check_receipt(
    checks: Checks, receipt: Receipt, evidence: ReportFile, appraiser: Appraiser | None
) -> VerifiedReceipt | None:
    """Check a receipt against the evidence behind it: report, binding, signature, model, time.

    Args:
        checks: Gets a line for each.
        receipt: Attacker-controlled.
        evidence: Attacker-controlled.
        appraiser: The verifier with the policy to judge by; None leaves the report unjudged, and says so.

    Returns:
        The verified receipt, if its signature is good; worth what the line ``report`` says of its keys.

    Raises:
        AttestationError: The evidence holds no attestation report.
    """
    report = evidence.parse_report()
    _check_report(checks, report, evidence, appraiser)
    _check_binding(checks, report)
    return _check_signature(checks, receipt, report)


def _check_report(
    checks: Checks, report: AttestationReport, evidence: ReportFile, appraiser: Appraiser | None
) -> None:
    """Appraise the report, as of the moment at which the client did."""
    if appraiser is None:
        detail = "not appraised: neither --policy nor --simulated was given to judge it by"
        return checks.add("report", "skip", detail)
    endorsements = evidence.parse_endorsements()
    if endorsements is None or evidence.challenge is None or evidence.appraised_at_s is None:
        # SECURITY: whoever asks for an appraisal must not be content without one because a file lacks parts.
        detail = "cannot be appraised: the file lacks endorsements, challenge or time"
        return checks.add("report", "fail", detail)
    try:
        appraiser.appraise(
            report,
            endorsements,
            challenge=evidence.challenge,
            now_s=evidence.appraised_at_s,
            releases=evidence.release_file,
        )
    except AttestationError as error:
        return checks.add("report", "fail", f"{error.code}: {error}")
    moment = _moment(evidence.appraised_at_s)
    return checks.add(
        "report", "pass", f"accepted by the policy as of {moment}, the time that the file states"
    )


def _check_binding(checks: Checks, report: AttestationReport) -> None:
    """Compare the quote's report data with the keyset; says nothing yet about who signed the quote."""
    try:
        quoted = parse_quote(report.quote).report.report_data
    except AttestationError as error:
        return checks.add("binding", "fail", f"{error.code}: {error}")
    if quoted != report.report_data():
        return checks.add("binding", "fail", "the quote in the report is about other keys")
    return checks.add("binding", "pass", f"the quote is about keyset {report.keyset.digest()}")


def _check_signature(checks: Checks, receipt: Receipt, report: AttestationReport) -> VerifiedReceipt | None:
    """Verify the signature under the report's keys; then what it says about model and time."""
    try:
        verified = verify_receipt(receipt, report.keyset)
    except ReceiptError as error:
        checks.add("signature", "fail", str(error))
        return None
    names = [str(event.fields.get("name")) for event in receipt.events_of(MODEL_IDENTITY)]
    key_id = verified.receipt.key_id
    checks.add("signature", "pass", f"Ed25519 key {key_id} of that keyset signed every byte")
    checks.add("model", "pass", f"{', '.join(names) or 'none'}; in the keyset by digest")
    served = _moment(receipt.served_at)
    checks.add("time", "pass", f"served {served} by the enclave's clock, before its keys ran out")
    return verified


def _moment(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
