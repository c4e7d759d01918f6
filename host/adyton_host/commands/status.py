# SPDX-License-Identifier: Apache-2.0
"""``adyton-host status``: ask a running host whether its enclave attests."""

import argparse
import json
from pathlib import Path
from typing import Final

import httpx

from adyton_host.commands.options import EXIT_CODES, FAILED, OK, Subparsers
from adyton_host.config import default_state_dir
from adyton_host.state import read_record
from adyton_protocol.errors import ConfigError

_TIMEOUT_S: Final = 5.0


def add_parser(commands: "Subparsers[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = commands.add_parser(
        "status",
        help="ask a running host whether its enclave attests",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--state", type=Path, metavar="DIR", default=default_state_dir(), help="its state directory"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Carry out the command."""
    record = read_record(arguments.state)
    if record is None:
        raise ConfigError(f"no adyton-host runs on the state directory {arguments.state}")
    try:
        response = httpx.get(f"{record.get('base_url')}/readyz", trust_env=False, timeout=_TIMEOUT_S)
        document = response.json()
    except (httpx.HTTPError, ValueError) as error:
        document = {"ready": False, "error": type(error).__name__}
    ready = document.get("ready") is True
    if arguments.json:
        print(json.dumps({**record, **document}))
    else:
        _show(record, document, ready=ready)
    return OK if ready else FAILED


def _show(record: dict[str, object], document: dict[str, object], *, ready: bool) -> None:
    verdict = "ready" if ready else "NOT READY"
    simulated = " (SIMULATED)" if document.get("simulated") else ""
    print(f"{verdict}{simulated}: {record.get('base_url')}, host process {record.get('pid')}")
    enclaves = document.get("enclaves", [])
    for enclave in enclaves if isinstance(enclaves, list) else []:
        state = "attests" if enclave.get("ready") else "does not attest"
        if waiting := enclave.get("waiting_for_keys"):
            state += f", waits for the keys of {', '.join(waiting)} (adyton-models release-key)"
        print(f"  enclave {state}; key ids {enclave.get('key_ids')}, keys until {enclave.get('not_after')}")
