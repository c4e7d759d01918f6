# SPDX-License-Identifier: Apache-2.0
"""The command ``adyton``: parse arguments, run a command, turn errors into words and exit codes."""

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Final

from adyton.commands import ask, chat, models, quote, receipt, verify
from adyton.commands.options import EXIT_CODES, FAILED, REFUSED, UNUSABLE
from adyton.terminal import emit_json, paint, printable, say
from adyton_attestation.simulation import SimulatedAttestationWarning
from adyton_protocol.errors import AdytonError, AttestationError, ConfigError, ReceiptError

INTERRUPTED: Final = 130
"""As a shell reports a command ended by Ctrl-C."""

_EPILOG = """examples:
  adyton verify --simulated                      what runs there, check by check
  adyton ask --simulated "Leo has 12 pens. Mia has 4 more pens than Leo. How many pens does Mia have?"
  adyton chat --policy policy.toml --url https://appliance.example
  adyton receipt verify receipt.json --report report.json --simulated

"""


def make_parser() -> argparse.ArgumentParser:
    """Build the parser with all commands."""
    parser = argparse.ArgumentParser(
        prog="adyton",
        description="Talk to a language model inside an attested enclave. Nothing is sent before the enclave "
        "is verified, everything is sealed to it, every answer has a signed receipt.",
        epilog=_EPILOG + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"adyton {version('adyton')}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (ask, chat, verify, receipt, models, quote):
        command.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = make_parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = args.run
    try:
        with warnings.catch_warnings():
            # The commands announce a simulation themselves, in a form that cannot be missed.
            warnings.simplefilter("ignore", SimulatedAttestationWarning)
            return run(args)
    except AdytonError as error:
        if getattr(args, "json", False):
            emit_json({"error": _describe(error)})
        say(paint(f"adyton: {error.code}: {printable(str(error))}", "red", sys.stderr))
        if error.retry_safe and error.fault != "caller" and not isinstance(error, AttestationError):
            say("nothing was executed; the same request may be sent again")
        return exit_code(error)
    except KeyboardInterrupt:
        say("\ninterrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output left; keep the interpreter from complaining when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _describe(error: AdytonError) -> dict[str, object]:
    """The machine-readable form of an error."""
    return {
        "code": error.code,
        "message": str(error),
        "fault": error.fault,
        "retry_safe": error.retry_safe,
        "check": getattr(error, "check", None),
    }


def exit_code(error: AdytonError) -> int:
    """Map an error to the documented exit code."""
    if isinstance(error, ConfigError):
        return UNUSABLE
    if isinstance(error, AttestationError | ReceiptError):
        return REFUSED
    return FAILED
