# SPDX-License-Identifier: Apache-2.0
"""``adyton receipt verify``: check a kept receipt offline, without the appliance and without the client."""

import argparse
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

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
from adyton_protocol.errors import AttestationError, ReceiptError
from adyton_protocol.receipt import MODEL_IDENTITY, Receipt, verify_receipt
from adyton_protocol.report import AttestationReport

_EXAMPLES = """examples:
  adyton ask --simulated "..." --save-receipt receipt.json --save-report report.json
  adyton receipt verify receipt.json --report report.json --simulated

"""

_SCOPE = (
    "what this shows: an enclave whose keys stand in the report signed this receipt. What it cannot show "
    "offline: the words of question and answer, which the receipt only commits to; the client compared those "
    "when it received them."
)


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
    return [_check_report(report, evidence, args), *_check_receipt(receipt, report)]


def _check_report(report: AttestationReport, evidence: ReportFile, args: argparse.Namespace) -> ReceiptCheck:
    """1. Appraise the report, as of the moment at which the client did."""
    if args.policy is None and not args.simulated:
        return _skipped_report("neither --policy nor --simulated was given to judge it by")
    endorsements = evidence.parse_endorsements()
    if endorsements is None or evidence.challenge is None or evidence.appraised_at_s is None:
        return _skipped_report("the report file holds no endorsements, challenge and time")
    appraiser = appraiser_for(args.policy, simulation(args))
    try:
        appraiser.appraise(report, endorsements, challenge=evidence.challenge, now_s=evidence.appraised_at_s)
    except AttestationError as error:
        return ReceiptCheck(number=1, name="report", verdict="fail", detail=f"{error.code}: {error}")
    detail = f"accepted by the policy as of {_moment(evidence.appraised_at_s)}"
    return ReceiptCheck(number=1, name="report", verdict="pass", detail=detail)


def _skipped_report(why: str) -> ReceiptCheck:
    return ReceiptCheck(number=1, name="report", verdict="skip", detail=f"not appraised; {why}")


def _check_receipt(receipt: Receipt, report: AttestationReport) -> list[ReceiptCheck]:
    """2. to 4. Verify the signature under the report's keys; then what it says about model and time."""
    try:
        verified = verify_receipt(receipt, report.keyset)
    except ReceiptError as error:
        return [ReceiptCheck(number=2, name="signature", verdict="fail", detail=str(error))]
    names = [str(event.fields.get("name")) for event in receipt.events_of(MODEL_IDENTITY)]
    facts = (
        ("signature", f"Ed25519 key {verified.receipt.key_id} of the report's keyset signed every byte"),
        ("model", f"{', '.join(names) or 'none'}; in the keyset by digest"),
        ("time", f"served {_moment(receipt.served_at)} by the enclave's clock, before its keys ran out"),
    )
    return [
        ReceiptCheck(number=number, name=name, verdict="pass", detail=detail)
        for number, (name, detail) in enumerate(facts, start=2)
    ]


def _moment(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _print(checks: list[ReceiptCheck], *, valid: bool, appraised: bool, simulated: bool) -> None:
    out = sys.stdout
    if simulated:
        announce_simulation(out)
    print_checks(checks, out)
    say(_SCOPE, out)
    if not valid:
        say(f"receipt: {paint('INVALID', 'red', out)}", out)
    elif appraised:
        kind = " (SIMULATED evidence)" if simulated else ""
        say(f"receipt: {paint('valid', 'green', out)}{kind}", out)
    else:
        say(f"receipt: {paint('valid', 'green', out)} under this report's keys; they were not appraised", out)
