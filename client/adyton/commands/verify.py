# SPDX-License-Identifier: Apache-2.0
"""``adyton verify``: appraise the appliance now, and say what was checked."""

import argparse
import sys
from pathlib import Path
from typing import TextIO

from adyton.commands.options import (
    EXIT_CODES,
    OK,
    REFUSED,
    add_connection_options,
    add_trust_options,
    connect,
    save_json,
)
from adyton.receipts import ReportFile
from adyton.session import Verdict
from adyton.terminal import emit_json, paint, print_checks, say
from adyton_attestation.checks import checks_of
from adyton_protocol.errors import AttestationError

_EXAMPLES = """examples:
  adyton verify --simulated
  adyton verify --policy policy.toml --url https://appliance.example
  adyton verify --simulated --json | jq '.checks[] | select(.verdict != "pass")'

"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "verify",
        help="check what runs in the enclave, line by line",
        description="Fetch fresh evidence, appraise it, and print each check as pass, fail or skip.",
        epilog=_EXAMPLES + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.add_argument(
        "--save-report",
        type=Path,
        metavar="FILE",
        help="keep evidence, endorsements, challenge and time, to repeat the appraisal later",
    )
    add_trust_options(parser)
    add_connection_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry out the command."""
    # The verdict belongs under its banner, so the banner goes where the verdict goes.
    with connect(args, banner=sys.stderr if args.json else sys.stdout) as client:
        try:
            verdict = client.verify()
        except AttestationError as error:
            _print_refusal(error, args)
            return REFUSED
        if args.save_report is not None:
            save_json(args.save_report, ReportFile.of(client.attest()).to_json())
    if args.json:
        emit_json(verdict.to_json())
    else:
        _print_acceptance(verdict, args.url, sys.stdout)
    return OK


def _print_acceptance(verdict: Verdict, url: str, out: TextIO) -> None:
    simulated = verdict.tee_type != "sgx"
    say(paint(f"attestation of {url}", "bold", out), out)
    print_checks(verdict.checks, out)
    for model in verdict.keyset.extension.models:
        say(f"model {model.name}: {model.identity}", out)
    if simulated:
        say(paint("verdict: accepted as SIMULATED; nothing here is protected", "yellow", out), out)
    else:
        say(paint("verdict: accepted", "green", out), out)


def _print_refusal(error: AttestationError, args: argparse.Namespace) -> None:
    checks = checks_of(error)
    if args.json:
        emit_json(
            {
                "verdict": "refused",
                "error": error.code,
                "message": str(error),
                "checks": [check.to_json() for check in checks],
            }
        )
        return
    print_checks(checks, sys.stdout)
    say(paint(f"verdict: refused: {error.code}: {error}", "red", sys.stdout), sys.stdout)
    say("nothing was sent to the appliance")
