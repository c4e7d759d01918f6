# SPDX-License-Identifier: Apache-2.0
"""``adyton receipt verify``, ``replay`` and ``audit``: check what was kept, offline, without the appliance."""

import argparse
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from adyton.commands import receipt_audit
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
from adyton.replay import SearchFile, replay_search
from adyton.session import Appraiser
from adyton.terminal import announce_simulation, emit_json, paint, print_checks, say
from adyton.trust import appraiser_for
from adyton_protocol.errors import AttestationError, ReceiptError
from adyton_protocol.receipt import Receipt

JSON_VERSION: Final = 1
"""Of what ``receipt verify --json`` prints; ``docs/reports.md`` describes it."""

_EXAMPLES: Final = """examples:
  adyton ask --simulated "..." --save-receipt receipt.json --save-report report.json
  adyton receipt verify receipt.json --report report.json --simulated

"""

_SCOPE: Final = (
    "what this shows: an enclave whose keys stand in the report signed this receipt. What it cannot show "
    "offline: the words of question and answer, which the receipt only commits to; the client compared those "
    "when it received them."
)

_REPLAY_EXAMPLES: Final = """examples:
  adyton ask --simulated --strategy rebase-16 "..." --save-transcript search.json
  adyton receipt replay search.json --simulated
  adyton receipt replay search.json --policy policy.toml --json | jq .checks

"""

_REPLAY_SCOPE: Final = (
    "what this shows: an enclave whose keys stand in the evidence signed that it chose among these candidates, "
    "with these scores, and the rule leads to this choice. What it takes as signed: that the models of the "
    "receipt wrote and scored them. What it cannot show: that the answer is right."
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
    verify.set_defaults(run=run_verify)
    replay = actions.add_parser(
        "replay",
        help="make the choice of a search again, offline",
        description="Check the receipt in a search file, check that the transcript is the one that it commits to, "
        "and make the choice again from the candidates. With --policy or --simulated the evidence is appraised "
        "too, as of the time it was saved with. Nothing is asked of the appliance.",
        epilog=_REPLAY_EXAMPLES + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    replay.add_argument("search", type=Path, metavar="FILE", help="search file, from --save-transcript")
    replay.add_argument("--json", action="store_true", help="print the result as one JSON object")
    add_trust_options(replay)
    replay.set_defaults(run=run_replay)
    receipt_audit.register(actions)


def run_replay(args: argparse.Namespace) -> int:
    """Carry out ``receipt replay``."""
    file = SearchFile.parse(read_file(args.search, "search"))
    checks = replay_search(file, judge(args))
    same, simulated = not failed(checks), not file.evidence.is_real
    if args.json:
        if simulated:
            announce_simulation()
        emit_json(
            {
                "verdict": "same choice" if same else "refused",
                "appraised": appraised(checks),
                "simulated": simulated,
                "checks": [check.to_json() for check in checks],
            }
        )
        return OK if same else REFUSED
    out = sys.stdout
    if simulated:
        announce_simulation(out)
    print_checks(checks, out)
    say(textwrap.fill(_REPLAY_SCOPE, _COLUMNS), out)
    say(f"replay: {_replay_verdict(checks, same=same, simulated=simulated)}", out)
    return OK if same else REFUSED


def _replay_verdict(checks: Sequence[ReceiptCheck], *, same: bool, simulated: bool) -> str:
    if not same:
        names = ", ".join(check.name for check in checks if check.verdict == "fail")
        return paint(f"REFUSED by {names}", "red", sys.stdout)
    word = paint("the same choice", "green", sys.stdout)
    if not appraised(checks):
        return f"{word}, signed under the keys of this evidence; they were not appraised"
    return f"{word}{' (SIMULATED evidence)' if simulated else ''}"


def run_verify(args: argparse.Namespace) -> int:
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
                "version": JSON_VERSION,
                "verdict": "valid" if valid else "invalid",
                "appraised": appraised(checks.lines),
                "simulated": simulated,
                "checks": [check.to_json() for check in checks.lines],
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


def _print(checks: Sequence[ReceiptCheck], *, valid: bool, simulated: bool) -> None:
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
