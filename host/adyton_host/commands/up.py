# SPDX-License-Identifier: Apache-2.0
"""``adyton-host up``: start an enclave, wait until it attests, relay to it.

Without ``--simulate`` it is a real one or none: what the machine lacks is said, with what mends it, and nothing starts.
"""

import argparse
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Final

from adyton_host.catalog import choose, default_catalog, with_scorer
from adyton_host.commands.announce import announce, announce_json
from adyton_host.commands.doctor import wishes_of
from adyton_host.commands.options import EXIT_CODES, MAX_PORT, OK, Subparsers, port_number
from adyton_host.config import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    HostSettings,
    default_image_dir,
    default_simulation_dir,
    default_state_dir,
)
from adyton_host.doctor.machine import Machine
from adyton_host.enclave_config import EnclaveConfig, read_overrides
from adyton_host.endorsements import NOT_REFRESHED, RefreshSettings
from adyton_host.image import EnclaveImage, load_image
from adyton_host.launching import gramine_direct, gramine_sgx, simulated
from adyton_host.preflight import preflight
from adyton_host.service import Plan, up
from adyton_host.simulation import BANNER, SimulationDir, prepare
from adyton_host.supervisor import EnclaveLaunch, free_port
from adyton_protocol.errors import ConfigError

_DESCRIPTION: Final = """\
Start an enclave, wait until it attests, and relay sealed requests to it until SIGTERM or Ctrl-C. An
enclave that dies is started again. Stopping lets running answers finish, then ends the enclave.

Without --simulate the enclave is a signed image in SGX hardware: this machine and the image are looked at first, as
`adyton-host doctor` does, and nothing starts while something is missing. Nothing ever falls back to simulation."""

_EXAMPLES: Final = """\
examples:
  adyton-host up                                            the image in the default directory, under gramine-sgx
  adyton-host up --enclave /srv/adyton/2026-11 --host 0.0.0.0
  adyton-host up --simulate                                 no protection: for trials only
  adyton-host up --simulate --enclave-config limits.toml    limits.toml: [limits] max_queue = 8
  adyton-host up --simulate --enclave DIR                   an unsigned image under gramine-direct, no protection

The state directory holds relay.log (one JSON line for each exchange: sizes and times, never content) and
enclave.log. The simulation directory holds what a client needs to accept a simulated appliance.

"""


def add_parser(commands: "Subparsers[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = commands.add_parser(
        "up",
        help="start an enclave and relay to it",
        description=_DESCRIPTION,
        epilog=_EXAMPLES + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--simulate", action="store_true", help="start a simulated enclave: no protection, for trials only"
    )
    parser.add_argument("--host", default=DEFAULT_HOST, help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port",
        type=port_number,
        default=DEFAULT_PORT,
        help="port to listen on, 0 for any (default: %(default)s)",
    )
    parser.add_argument(
        "--ra-tls-port",
        type=port_number,
        metavar="PORT",
        help="also pass TLS that ends in the enclave through, on this port, 0 for any (default: no second channel)",
    )
    parser.add_argument(
        "--enclave",
        type=Path,
        metavar="DIR",
        help=f"enclave image that `adyton-host manifest` made (default without --simulate: {default_image_dir()})",
    )
    parser.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        default=default_state_dir(),
        help="state and logs (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON line on stdout when ready")
    _add_real(parser.add_argument_group("a real enclave"))
    _add_simulated(parser.add_argument_group("a simulated enclave without an image"))
    parser.set_defaults(run=run)


def _add_real(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--endorsements",
        type=Path,
        metavar="FILE",
        help="document with endorsements for clients to fetch (default: endorsements.json in the state directory)",
    )
    group.add_argument(
        "--endorsements-from",
        metavar="SOURCE",
        default="pcs",
        help="keep it fresh from pcs (Intel, the default), pccs=URL, or the FILE of a bundle; none leaves it alone",
    )
    group.add_argument(
        "--endorsements-ca", type=Path, metavar="PEM", help="CA of a PCCS that has one of its own"
    )
    group.add_argument("--endorsements-proxy", metavar="URL", help="proxy on the way to pcs or pccs")
    group.add_argument("--endorsements-carrier", metavar="KEY", help="whose bundle FILE may be: a public key")


def _add_simulated(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--model", metavar="NAME", help="model to serve (default: the catalog's default)")
    group.add_argument(
        "--catalog", type=Path, metavar="FILE", help="catalog of models (default: models/catalog.toml)"
    )
    group.add_argument(
        "--enclave-config",
        type=Path,
        metavar="FILE",
        help="TOML with epoch_seconds, [privacy], [limits], [engine] for the enclave; clients see its digest",
    )
    group.add_argument(
        "--simulation-dir",
        type=Path,
        metavar="DIR",
        default=default_simulation_dir(),
        help="the simulated platform (default: %(default)s)",
    )


def run(arguments: argparse.Namespace, machine: Machine | None = None) -> int:
    """Carry out the command.

    Args:
        arguments: As parsed.
        machine: What is looked at before a real enclave is started; this one, unless a test brings another.
    """
    if arguments.simulate:
        print(BANNER, file=sys.stderr)
    plan = _simulated_plan(arguments) if arguments.simulate else _real_plan(arguments, machine or Machine())
    print(f"starting {plan.model} ...", file=sys.stderr, flush=True)
    up(plan, announce_json if arguments.json else announce)
    print("stopped", file=sys.stderr)
    return OK


def _real_plan(arguments: argparse.Namespace, machine: Machine) -> Plan:
    _refuse_beside_an_image(arguments)
    wishes = wishes_of(arguments)
    preflight(machine, wishes, _say)
    image = load_image(wishes.image, signed=True)
    return Plan(
        settings=HostSettings(
            host=wishes.host, port=wishes.port, state_dir=wishes.state, ra_tls_port=arguments.ra_tls_port
        ),
        launch=gramine_sgx(image, program=machine.find_program("gramine-sgx")),
        model=_served(image),
        endorsements=wishes.endorsements,
        refresh=_refresh(arguments, wishes.endorsements, wishes.state),
        mrenclave=image.mrenclave,
    )


def _refresh(arguments: argparse.Namespace, out: Path, state: Path) -> RefreshSettings | None:
    if arguments.endorsements_from == NOT_REFRESHED:
        return None
    ca = arguments.endorsements_ca
    return RefreshSettings(
        out=out,
        cache=state / "endorsements",
        source=arguments.endorsements_from,
        source_ca=None if ca is None else ca.absolute(),
        proxy=arguments.endorsements_proxy,
        carrier=arguments.endorsements_carrier,
    )


def _simulated_plan(arguments: argparse.Namespace) -> Plan:
    if arguments.endorsements is not None:
        raise ConfigError("--endorsements belongs to a real enclave; a simulated platform has its own")
    simulation = SimulationDir(path=arguments.simulation_dir.absolute())
    model, launch = (
        _simulated_image(arguments) if arguments.enclave else _simulated_process(arguments, simulation)
    )
    return Plan(
        settings=HostSettings(
            host=arguments.host,
            port=arguments.port,
            state_dir=arguments.state.absolute(),
            simulation_dir=simulation.path,
            ra_tls_port=arguments.ra_tls_port,
        ),
        launch=launch,
        model=model,
        simulation=simulation,
        prepare=lambda: prepare(simulation, launch.config),
        endorsements=simulation.endorsements,
    )


def _simulated_image(arguments: argparse.Namespace) -> tuple[str, EnclaveLaunch]:
    _refuse_beside_an_image(arguments)
    image = load_image(arguments.enclave, signed=False)
    return _served(image), gramine_direct(image)


def _simulated_process(arguments: argparse.Namespace, simulation: SimulationDir) -> tuple[str, EnclaveLaunch]:
    catalog = arguments.catalog if arguments.catalog is not None else default_catalog()
    model = choose(catalog, arguments.model)
    overrides = {} if arguments.enclave_config is None else read_overrides(arguments.enclave_config)
    # Beside the relay's port where possible, so that the configuration digest stays the same next time.
    port = free_port(arguments.port + 1 if 0 < arguments.port < MAX_PORT else 0)
    taken = {arguments.port, arguments.ra_tls_port, port}
    config = EnclaveConfig(
        simulation_platform=simulation.platform,
        models=with_scorer(catalog, model),
        overrides=overrides,
        ra_tls_port=None if arguments.ra_tls_port is None else _free_beside(port, taken),
    )
    return model.name, simulated(config.to_toml(port=port), port)


def _free_beside(port: int, taken: Collection[int | None]) -> int:
    """A free loopback port for the enclave's second channel, near ``port`` and none of those that are spoken for."""
    wanted = port
    while True:
        wanted = wanted + 1 if wanted < MAX_PORT else 0
        if wanted not in taken and (found := free_port(wanted)) not in taken:
            return found


def _refuse_beside_an_image(arguments: argparse.Namespace) -> None:
    given = [
        option
        for option, value in (
            ("--model", arguments.model),
            ("--catalog", arguments.catalog),
            ("--enclave-config", arguments.enclave_config),
        )
        if value is not None
    ]
    if given:
        raise ConfigError(
            f"{' and '.join(given)} cannot change an enclave image: what it serves is measured. Give them to "
            "`adyton-host manifest render`, or say --simulate for an unprotected enclave without an image"
        )


def _served(image: EnclaveImage) -> str:
    return image.models[0].name if image.models else image.name


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
