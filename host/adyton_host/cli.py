# SPDX-License-Identifier: Apache-2.0
"""``adyton-host``: what an operator types.

Exit status: 0 for success, 1 when the host or its enclave failed, 2 for a wrong command line, configuration
or machine.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from adyton_host import tune
from adyton_host.commands import doctor, manifest, status, up
from adyton_host.commands.options import EXIT_CODES, FAILED, INTERRUPTED, UNUSABLE, Subparsers
from adyton_host.errors import EnclaveStartError
from adyton_protocol.errors import AdytonError, ConfigError

_DESCRIPTION: Final = """\
Runs the untrusted half of an Adyton appliance: a relay that carries sealed requests and a supervisor
that keeps the enclave alive. This process never sees a prompt or an answer."""

_EXAMPLES: Final = """\
examples:
  adyton-host doctor                            what does this machine lack for a real enclave?
  adyton-host up                                start the signed enclave image under gramine-sgx
  adyton-host up --simulate                     start on http://127.0.0.1:8470 with the shipped model, unprotected
  adyton-host up --simulate --port 0 --json     any free port; one JSON line on stdout when ready
  adyton-host manifest render                   make the enclave image that `up` starts
  adyton-host status                            is it up, does its enclave attest?
  adyton-host tune                              which engine settings are fastest here?

then, as a client, in another terminal:
  adyton verify --simulated
  adyton ask --simulated "Leo has 12 pens. Mia has 4 more pens than Leo. How many pens does Mia have?"

"""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="adyton-host",
        description=_DESCRIPTION,
        epilog=_EXAMPLES + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (up, status, doctor, manifest):
        command.add_parser(commands)
    _add_tune(commands)
    return parser


def _add_tune(commands: "Subparsers[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "tune",
        help="measure engine settings on this machine and find the best",
        description=tune.DESCRIPTION,
        epilog=tune.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    tune.add_arguments(parser)
    parser.set_defaults(run=tune.tune)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    return finish(build_parser().parse_args(argv))


def finish(arguments: argparse.Namespace) -> int:
    """Carry out what was parsed; errors become words and an exit status."""
    try:
        outcome: int = arguments.run(arguments)
    except ConfigError as error:
        print(f"adyton-host: {error}", file=sys.stderr)
        return UNUSABLE
    except EnclaveStartError as error:
        print(f"adyton-host: {error}", file=sys.stderr)
        if error.log_tail:
            print("--- last lines of the enclave ---\n" + error.log_tail, file=sys.stderr)
        return FAILED
    except AdytonError as error:
        print(f"adyton-host: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        # Only before the relay runs, which takes Ctrl-C as the wish to stop in order.
        return INTERRUPTED
    return outcome
