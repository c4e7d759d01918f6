# SPDX-License-Identifier: Apache-2.0
"""The command ``adyton``: parse arguments, run a command, turn errors into words and exit codes."""

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Final

from adyton.commands.options import EXIT_CODES, FAILED, REFUSED, UNAVAILABLE, UNUSABLE
from adyton.terminal import emit_json, paint, printable, say
from adyton_attestation.simulation.warning import SimulatedAttestationWarning
from adyton_protocol.errors import (
    AdytonError,
    AttestationError,
    ConfigError,
    EndorsementsUnavailable,
    ReceiptError,
)

COMMANDS: Final = (
    "ask",
    "chat",
    "verify",
    "receipt",
    "models",
    "quote",
    "policy",
    "endorsements",
    "attestation-result",
    "release",
)
"""The commands, each a module of ``adyton.commands`` with ``_`` for ``-``, in the order of the help."""

INTERRUPTED: Final = 130
"""As a shell reports a command ended by Ctrl-C."""

_EPILOG = """examples:
  adyton verify --simulated                      what runs there, check by check
  adyton ask --simulated "Leo has 12 pens. Mia has 4 more pens than Leo. How many pens does Mia have?"
  adyton chat --policy policy.toml --url https://appliance.example
  adyton receipt verify receipt.json --report report.json --simulated
  adyton policy init --out policy.toml           begin a policy; then: adyton policy explain policy.toml

"""


class _Version(argparse.Action):
    """Prints the version; looks it up only then, because that takes as long as everything else here together."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version  # noqa: PLC0415 - see above

        say(f"adyton {version('adyton')}", sys.stdout)
        parser.exit()


def make_parser(command: str | None = None) -> argparse.ArgumentParser:
    """Build the parser, with one command or with all.

    Args:
        command: The only command that is needed: the others, with an HTTP client among what they import, are then
            left alone. Anything that is no command's name gives all of them.
    """
    parser = argparse.ArgumentParser(
        prog="adyton",
        description="Talk to a language model inside an attested enclave. Nothing is sent before the enclave "
        "is verified, everything is sealed to it, every answer has a signed receipt.",
        epilog=_EPILOG + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, help="show program's version number and exit")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in (command,) if command in COMMANDS else COMMANDS:
        import_module(f"adyton.commands.{name.replace('-', '_')}").add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = sys.argv[1:] if argv is None else argv
    args = make_parser(words[0] if words else None).parse_args(words)
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
        if isinstance(error, EndorsementsUnavailable):
            say("nothing is known about the platform, good or bad, and nothing was sent to it")
        elif error.retry_safe and error.fault != "caller" and not isinstance(error, AttestationError):
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
    if isinstance(error, EndorsementsUnavailable):
        return UNAVAILABLE
    return FAILED
