# SPDX-License-Identifier: Apache-2.0
"""``adyton receipt verify``: check a kept receipt offline, without the appliance and without the client."""

import argparse
import sys
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import Final

from adyton.commands.options import (
    EXIT_CODES,
    OK,
    REFUSED,
    add_trust_options,
    read_file,
    simulation,
)
from adyton.receipt_checks import Checks, ReceiptCheck, appraised, check_receipt, failed
from adyton.receipts import ReportFile, parse_receipt_file
from adyton.session import Appraiser
from adyton.terminal import announce_simulation, emit_json, paint, print_checks, say
from adyton.trust import appraiser_for
from adyton_protocol.errors import AttestationError, ReceiptError
from adyton_protocol.receipt import Receipt

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
    checks = Checks()
    try:
        simulated = evidence.parse_report().tee_type != "sgx"
        receipt = parse_receipt_file(receipt_bytes)
        check_receipt(checks, receipt, evidence, judge(args))
    except (ReceiptError, AttestationError) as error:
        checks.add("form", "fail", str(error))
    valid = not failed(checks.lines)
    if args.json:
        if simulated:
            announce_simulation()
        emit_json(
            {
                "verdict": "valid" if valid else "invalid",
                "appraised": appraised(checks.lines),
                "simulated": simulated,
                "checks": [asdict(check) for check in checks.lines],
                "receipt_id": None if receipt is None else receipt.receipt_id,
            }
        )
    else:
        _print(checks.lines, valid=valid, simulated=simulated)
    return OK if valid else REFUSED


def judge(args: argparse.Namespace) -> Appraiser | None:
    """The verifier that the options choose; None if they choose none."""
    if args.policy is None and not args.simulated:
        return None
    return appraiser_for(args.policy, simulation(args))


def _print(checks: tuple[ReceiptCheck, ...], *, valid: bool, simulated: bool) -> None:
    out = sys.stdout
    if simulated:
        announce_simulation(out)
    print_checks(checks, out)
    say(textwrap.fill(_SCOPE, _COLUMNS), out)
    if not valid:
        say(f"receipt: {paint('INVALID', 'red', out)}", out)
    elif appraised(checks):
        kind = " (SIMULATED evidence)" if simulated else ""
        say(f"receipt: {paint('valid', 'green', out)}{kind}", out)
    else:
        say(f"receipt: {paint('valid', 'green', out)} under this report's keys; they were not appraised", out)
