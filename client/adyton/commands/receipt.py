# SPDX-License-Identifier: Apache-2.0
"""``adyton receipt verify``: check a kept receipt offline, without the appliance and without the client."""

import argparse
import sys
import textwrap
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from adyton.commands.options import (
    EXIT_CODES,
    OK,
    REFUSED,
    add_trust_options,
    read_file,
    simulation,
)
from adyton.receipts import ReportFile, parse_receipt_file
from adyton.terminal import announce_simulation, emit_json, paint, print_checks, say
from adyton.trust import appraiser_for
from adyton_attestation.quote import parse_quote
from adyton_protocol.errors import AttestationError, ReceiptError
from adyton_protocol.receipt import MODEL_IDENTITY, Receipt, verify_receipt
from adyton_protocol.report import AttestationReport

_EXAMPLES: Final = """examples:
  adyton ask --simulated "..." --save-receipt receipt.json --save-report report.json
  adyton receipt verify receipt.json --report report.json --simulated

"""

_SCOPE: Final = (
    "what this shows: an enclave whose keys stand in the report signed this receipt. What it cannot show "
    "offline: the words of question and answer, which the receipt only commits to; the client compared those "
    "when it received them."
)


_COLUMNS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptCheck:
    """One line of the result."""

    number: int
    name: str
    verdict: Literal["pass", "fail", "skip"]
    detail: str


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser("receipt", help="work with kept receipts")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    verify = actions.add_parser(
        "verify",
        help="check a receipt against the evidence behind it, offline",
        description="Check a receipt against a report file. With --policy or --simulated, and endorsements "
        "in the report file, the report itself is appraised too, as of the time it was saved with.",
        epilog=_EXAMPLES + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verify.add_argument("receipt", type=Path, metavar="FILE", help="receipt file, from --save-receipt")
    verify.add_argument(
        "--report", type=Path, required=True, metavar="FILE", help="report file, from --save-report"
    )
    verify.add_argument("--json", action="store_true", help="print the result as one JSON object")
    add_trust_options(verify)
    verify.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry out ``receipt verify``."""
    evidence = ReportFile.parse(read_file(args.report, "report"))
    receipt_bytes = read_file(args.receipt, "receipt")
    receipt: Receipt | None = None
    simulated = False
    try:
        report = evidence.parse_report()
        simulated = report.tee_type != "sgx"
        receipt = parse_receipt_file(receipt_bytes)
        checks = _check(receipt, report, evidence, args)
    except (ReceiptError, AttestationError) as error:
        checks = [ReceiptCheck(number=1, name="form", verdict="fail", detail=str(error))]
    valid = all(check.verdict != "fail" for check in checks)
    appraised = any(check.name == "report" and check.verdict == "pass" for check in checks)
    if args.json:
        if simulated:
            announce_simulation()
        emit_json(
            {
                "verdict": "valid" if valid else "invalid",
                "appraised": appraised,
                "simulated": simulated,
                "checks": [asdict(check) for check in checks],
                "receipt_id": None if receipt is None else receipt.receipt_id,
            }
        )
    else:
        _print(checks, valid=valid, appraised=appraised, simulated=simulated)
    return OK if valid else REFUSED


def _check(
    receipt: Receipt, report: AttestationReport, evidence: ReportFile, args: argparse.Namespace
) -> list[ReceiptCheck]:
    """Make the checks, in the order in which they build on one another."""
    return [
        _check_report(report, evidence, args),
        _check_binding(report),
        *_check_receipt(receipt, report),
    ]


def _check_report(report: AttestationReport, evidence: ReportFile, args: argparse.Namespace) -> ReceiptCheck:
    """1. Appraise the report, as of the moment at which the client did."""
    if args.policy is None and not args.simulated:
        return _line(
            1, "report", "skip", "not appraised: neither --policy nor --simulated was given to judge it by"
        )
    endorsements = evidence.parse_endorsements()
    if endorsements is None or evidence.challenge is None or evidence.appraised_at_s is None:
        # SECURITY: whoever asks for an appraisal must not be content without one because a file lacks parts.
        return _line(
            1, "report", "fail", "cannot be appraised: the file lacks endorsements, challenge or time"
        )
    appraiser = appraiser_for(args.policy, simulation(args))
    try:
        appraiser.appraise(report, endorsements, challenge=evidence.challenge, now_s=evidence.appraised_at_s)
    except AttestationError as error:
        return _line(1, "report", "fail", f"{error.code}: {error}")
    moment = _moment(evidence.appraised_at_s)
    return _line(1, "report", "pass", f"accepted by the policy as of {moment}, the time that the file states")


def _check_binding(report: AttestationReport) -> ReceiptCheck:
    """2. Compare the quote's report data with the keyset; says nothing yet about who signed the quote."""
    try:
        quoted = parse_quote(report.quote).report.report_data
    except AttestationError as error:
        return _line(2, "binding", "fail", f"{error.code}: {error}")
    if quoted != report.report_data():
        return _line(2, "binding", "fail", "the quote in the report is about other keys")
    return _line(2, "binding", "pass", f"the quote is about keyset {report.keyset.digest()}")


def _check_receipt(receipt: Receipt, report: AttestationReport) -> list[ReceiptCheck]:
    """3. to 5. Verify the signature under the report's keys; then what it says about model and time."""
    try:
        verified = verify_receipt(receipt, report.keyset)
    except ReceiptError as error:
        return [_line(3, "signature", "fail", str(error))]
    names = [str(event.fields.get("name")) for event in receipt.events_of(MODEL_IDENTITY)]
    served = _moment(receipt.served_at)
    return [
        _line(
            3, "signature", "pass", f"Ed25519 key {verified.receipt.key_id} of that keyset signed every byte"
        ),
        _line(4, "model", "pass", f"{', '.join(names) or 'none'}; in the keyset by digest"),
        _line(5, "time", "pass", f"served {served} by the enclave's clock, before its keys ran out"),
    ]


def _line(number: int, name: str, verdict: Literal["pass", "fail", "skip"], detail: str) -> ReceiptCheck:
    return ReceiptCheck(number=number, name=name, verdict=verdict, detail=detail)


def _moment(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _print(checks: list[ReceiptCheck], *, valid: bool, appraised: bool, simulated: bool) -> None:
    out = sys.stdout
    if simulated:
        announce_simulation(out)
    print_checks(checks, out)
    say(textwrap.fill(_SCOPE, _COLUMNS), out)
    if not valid:
        say(f"receipt: {paint('INVALID', 'red', out)}", out)
    elif appraised:
        kind = " (SIMULATED evidence)" if simulated else ""
        say(f"receipt: {paint('valid', 'green', out)}{kind}", out)
    else:
        say(f"receipt: {paint('valid', 'green', out)} under this report's keys; they were not appraised", out)
