# SPDX-License-Identifier: Apache-2.0
"""``adyton-host doctor``: look at this machine and say what is missing, with the command that mends it."""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Final

from adyton_host.commands.options import EXIT_CODES, FAILED, OK, Subparsers, add_catalog, port_number
from adyton_host.config import DEFAULT_HOST, DEFAULT_PORT, default_image_dir, default_state_dir
from adyton_host.doctor.examination import Wishes, examine_hardware, examine_simulation
from adyton_host.doctor.finding import Finding
from adyton_host.doctor.machine import Machine

_DESCRIPTION: Final = """\
Look at this machine and say what a real enclave lacks on it, from the processor to the signed image, with the command
that mends each. Nothing is changed; a connection to the PCCS is opened, and nothing sent.

pass  in order            warn  works, and could be better
fail  nothing starts      skip  nothing to look at"""

_EXAMPLES: Final = """\
examples:
  adyton-host doctor                              everything that `adyton-host up` needs
  adyton-host doctor --simulate                   only what `adyton-host up --simulate` needs
  adyton-host doctor --enclave /srv/adyton/next   another image, before it is started
  adyton-host doctor --json | jq '.[] | select(.verdict == "fail") | .fix'

"""


def add_parser(commands: "Subparsers[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = commands.add_parser(
        "doctor",
        help="look at this machine and say what is missing",
        description=_DESCRIPTION,
        epilog=_EXAMPLES + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--simulate", action="store_true", help="look only at what simulation needs")
    parser.add_argument("--host", default=DEFAULT_HOST, help="address to try (default: %(default)s)")
    parser.add_argument(
        "--port",
        type=port_number,
        default=DEFAULT_PORT,
        help="port to try, 0 for none (default: %(default)s)",
    )
    add_catalog(parser)
    parser.add_argument(
        "--enclave",
        type=Path,
        metavar="DIR",
        default=default_image_dir(),
        help="enclave image (default: %(default)s)",
    )
    parser.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        default=default_state_dir(),
        help="state directory (default: %(default)s)",
    )
    parser.add_argument("--endorsements", type=Path, metavar="FILE", help="what clients are to be served")
    parser.add_argument(
        "--json", action="store_true", help="print JSON: an array of name, verdict, detail, fix"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Carry out the command."""
    examine = examine_simulation if arguments.simulate else examine_hardware
    findings = examine(Machine(), wishes_of(arguments))
    if arguments.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings]))
    else:
        _show(findings)
    return FAILED if any(finding.verdict == "fail" for finding in findings) else OK


def wishes_of(arguments: argparse.Namespace) -> Wishes:
    """What is to be looked at, by the options that ``doctor`` and ``up`` share."""
    state = arguments.state.absolute()
    return Wishes(
        host=arguments.host,
        port=arguments.port,
        state=state,
        catalog=arguments.catalog,
        image=(arguments.enclave or default_image_dir()).absolute(),
        endorsements=(arguments.endorsements or state / "endorsements.json").absolute(),
    )


def _show(findings: tuple[Finding, ...]) -> None:
    for finding in findings:
        print(f"{finding.verdict:5} {finding.name}: {finding.detail}")
        if finding.fix:
            print(f"      fix: {finding.fix}")
    failures = [finding.name for finding in findings if finding.verdict == "fail"]
    print(f"\n{len(failures)} to mend: {', '.join(failures)}" if failures else "\nnothing is in the way")
