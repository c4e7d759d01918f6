# SPDX-License-Identifier: Apache-2.0
"""``adyton-host``: what an operator types.

Exit status: 0 for success, 1 when the host or its enclave failed, 2 for a wrong command line, configuration
or machine.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import httpx

from adyton_host import doctor, tune
from adyton_host.catalog import choose, default_catalog, with_scorer
from adyton_host.config import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    HostSettings,
    default_simulation_dir,
    default_state_dir,
)
from adyton_host.enclave_config import EnclaveConfig, read_overrides
from adyton_host.errors import EnclaveStartError
from adyton_host.service import SIMULATED_ENCLAVE, Plan, Ready, up
from adyton_host.simulation import BANNER, SimulationDir, prepare
from adyton_host.state import read_record
from adyton_host.supervisor import EnclaveLaunch, free_port
from adyton_protocol.errors import AdytonError, ConfigError

_OK: Final = 0
_FAILED: Final = 1
_UNUSABLE: Final = 2
_INTERRUPTED: Final = 130
_STATUS_TIMEOUT_S: Final = 5.0
_MAX_PORT: Final = 65535

_DESCRIPTION: Final = """\
Runs the untrusted half of an Adyton appliance: a relay that carries sealed requests and a supervisor
that keeps the enclave alive. This process never sees a prompt or an answer."""

_EXAMPLES: Final = """\
examples:
  adyton-host up --simulate                     start on http://127.0.0.1:8470 with the shipped model
  adyton-host up --simulate --port 0 --json     any free port; one JSON line on stdout when ready
  adyton-host up --simulate --model NAME        another model of the catalog
  adyton-host status                            is it up, does its enclave attest?
  adyton-host doctor                            what does this machine lack?
  adyton-host tune                              which engine settings are fastest here?

then, as a client, in another terminal:
  adyton verify --simulated
  adyton ask --simulated "Leo has 12 pens. Mia has 4 more pens than Leo. How many pens does Mia have?"
"""

_UP_DESCRIPTION: Final = """\
Start an enclave, wait until it attests, and relay sealed requests to it until SIGTERM or Ctrl-C. An
enclave that dies is started again. Stopping lets running answers finish, then ends the enclave."""

_UP_EXAMPLES: Final = """\
examples:
  adyton-host up --simulate
  adyton-host up --simulate --host 0.0.0.0 --port 8470      serve the local network
  adyton-host up --simulate --enclave-config limits.toml    limits.toml: [limits] max_queue = 8

The state directory holds relay.log (one JSON line for each exchange: sizes and times, never content) and
enclave.log. The simulation directory holds what a client needs to accept this simulated appliance:
root.pem and policy.json."""

_NO_HARDWARE: Final = """\
without --simulate a real SGX enclave is wanted, and this version cannot start one: the signed Gramine \
manifests arrive with the production deployment. A real enclave also needs /dev/sgx_enclave and \
gramine-sgx; here: {found}. Nothing was started. To try the appliance without protection, \
say so: adyton-host up --simulate"""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="adyton-host",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_up(commands)
    _add_status(commands)
    _add_doctor(commands)
    _add_tune(commands)
    return parser


def _add_up(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "up",
        help="start an enclave and relay to it",
        description=_UP_DESCRIPTION,
        epilog=_UP_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--simulate", action="store_true", help="start a simulated enclave: no protection, for trials only"
    )
    parser.add_argument("--host", default=DEFAULT_HOST, help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=_port, default=DEFAULT_PORT, help="port to listen on, 0 for any (default: %(default)s)"
    )
    parser.add_argument("--model", metavar="NAME", help="model to serve (default: the catalog's default)")
    parser.add_argument(
        "--catalog", type=Path, metavar="FILE", help="catalog of models (default: models/catalog.toml)"
    )
    parser.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        default=default_state_dir(),
        help="state and logs (default: %(default)s)",
    )
    parser.add_argument(
        "--simulation-dir",
        type=Path,
        metavar="DIR",
        default=default_simulation_dir(),
        help="the simulated platform (default: %(default)s)",
    )
    parser.add_argument(
        "--enclave-config",
        type=Path,
        metavar="FILE",
        help="TOML with epoch_seconds, [privacy], [limits], [engine] for the enclave; clients see its digest",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON line on stdout when ready")
    parser.set_defaults(run=_up)


def _add_status(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("status", help="ask a running host whether its enclave attests")
    parser.add_argument(
        "--state", type=Path, metavar="DIR", default=default_state_dir(), help="its state directory"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_status)


def _add_doctor(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("doctor", help="look at this machine and say what is missing")
    parser.add_argument("--host", default=DEFAULT_HOST, help="address to try (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=DEFAULT_PORT, help="port to try (default: %(default)s)")
    parser.add_argument("--catalog", type=Path, metavar="FILE", help="catalog of models")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_doctor)


def _add_tune(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "tune",
        help="measure engine settings on this machine and find the best",
        description=tune.DESCRIPTION,
        epilog=tune.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    tune.add_arguments(parser)
    parser.set_defaults(run=tune.tune)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > _MAX_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port number from 0 to {_MAX_PORT}")
    return int(text)


def _up(arguments: argparse.Namespace) -> int:
    if not arguments.simulate:
        looked = doctor.examine(host=arguments.host, port=0, catalog=arguments.catalog)
        found = "; ".join(finding.detail for finding in looked if finding.name in {"SGX device", "Gramine"})
        raise ConfigError(_NO_HARDWARE.format(found=found))
    catalog = arguments.catalog if arguments.catalog is not None else default_catalog()
    model = choose(catalog, arguments.model)
    overrides = {} if arguments.enclave_config is None else read_overrides(arguments.enclave_config)
    print(BANNER, file=sys.stderr)
    print(f"starting {model.name} ...", file=sys.stderr, flush=True)
    simulation = SimulationDir(path=arguments.simulation_dir.absolute())
    config = EnclaveConfig(
        simulation_platform=simulation.platform, models=with_scorer(catalog, model), overrides=overrides
    )
    # Beside the relay's port where possible, so that the configuration digest stays the same next time.
    port = free_port(arguments.port + 1 if 0 < arguments.port < _MAX_PORT else 0)
    launch = EnclaveLaunch(command=SIMULATED_ENCLAVE, config=config.to_toml(port=port), port=port)
    plan = Plan(
        settings=HostSettings(
            host=arguments.host,
            port=arguments.port,
            state_dir=arguments.state.absolute(),
            simulation_dir=simulation.path,
        ),
        launch=launch,
        model=model.name,
        simulation=simulation,
        prepare=lambda: prepare(simulation, launch.config),
    )
    up(plan, _announce_json if arguments.json else _announce)
    print("stopped", file=sys.stderr)
    return _OK


def _announce_json(ready: Ready) -> None:
    line = {"event": "waiting-for-keys" if ready.waiting else "ready", **dataclasses.asdict(ready)}
    print(json.dumps(line, default=str), flush=True)


def _announce(ready: Ready) -> None:
    where = f"--url {ready.base_url}"
    if ready.simulation_dir != default_simulation_dir():
        where += f" --simulation-dir {ready.simulation_dir}"
    if ready.waiting:
        releases = "\n".join(
            f"  adyton-models release-key {name} --key KEYFILE --simulated {where}" for name in ready.waiting
        )
        print(
            f"""\
waiting for keys (SIMULATED)
  base URL    {ready.base_url}
  sealed      {", ".join(ready.waiting)}
  processes   host {ready.pid}, enclave {ready.enclave_pid}
  logs        {ready.state_dir}

The enclave attests and answers nothing else yet. Whoever holds the key releases it, from a machine of their own:
{releases}

Ctrl-C stops the relay and the enclave.""",
            flush=True,
        )
        return
    print(
        f"""\
ready (SIMULATED)
  base URL    {ready.base_url}
  model       {ready.model}
  processes   host {ready.pid}, enclave {ready.enclave_pid}
  logs        {ready.state_dir}

next, in another terminal:
  adyton verify --simulated {where}
  adyton ask --simulated {where} "Leo has 12 pens. Mia has 4 more pens than Leo. How many pens does Mia have?"

Ctrl-C stops the relay and the enclave.""",
        flush=True,
    )


def _status(arguments: argparse.Namespace) -> int:
    record = read_record(arguments.state)
    if record is None:
        raise ConfigError(f"no adyton-host runs on the state directory {arguments.state}")
    try:
        response = httpx.get(f"{record.get('base_url')}/readyz", trust_env=False, timeout=_STATUS_TIMEOUT_S)
        document = response.json()
    except (httpx.HTTPError, ValueError) as error:
        document = {"ready": False, "error": type(error).__name__}
    ready = document.get("ready") is True
    if arguments.json:
        print(json.dumps({**record, **document}))
    else:
        verdict = "ready" if ready else "NOT READY"
        simulated = " (SIMULATED)" if document.get("simulated") else ""
        print(f"{verdict}{simulated}: {record.get('base_url')}, host process {record.get('pid')}")
        for enclave in document.get("enclaves", []):
            state = "attests" if enclave.get("ready") else "does not attest"
            if waiting := enclave.get("waiting_for_keys"):
                state += f", waits for the keys of {', '.join(waiting)} (adyton-models release-key)"
            print(
                f"  enclave {state}; key ids {enclave.get('key_ids')}, keys until {enclave.get('not_after')}"
            )
    return _OK if ready else _FAILED


def _doctor(arguments: argparse.Namespace) -> int:
    findings = doctor.examine(host=arguments.host, port=arguments.port, catalog=arguments.catalog)
    if arguments.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            print(f"{finding.verdict:5} {finding.name}: {finding.detail}")
    return _FAILED if any(finding.verdict == "fail" for finding in findings) else _OK


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    arguments = build_parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
    except ConfigError as error:
        print(f"adyton-host: {error}", file=sys.stderr)
        return _UNUSABLE
    except EnclaveStartError as error:
        print(f"adyton-host: {error}", file=sys.stderr)
        if error.log_tail:
            print("--- last lines of the enclave ---\n" + error.log_tail, file=sys.stderr)
        return _FAILED
    except AdytonError as error:
        print(f"adyton-host: {error}", file=sys.stderr)
        return _FAILED
    except KeyboardInterrupt:
        # Only before the relay runs, which takes Ctrl-C as the wish to stop in order.
        return _INTERRUPTED
    return status
