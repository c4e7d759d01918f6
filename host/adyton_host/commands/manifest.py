# SPDX-License-Identifier: Apache-2.0
"""``adyton-host manifest``: render, lint, measure and sign what Gramine starts."""

import argparse
import json
import sys
from pathlib import Path
from typing import Final

from adyton_host.catalog import choose, default_catalog, with_scorer
from adyton_host.commands.options import EXIT_CODES, OK, Subparsers, add_catalog, port_number
from adyton_host.config import default_image_dir, default_simulation_dir
from adyton_host.enclave_config import read_overrides
from adyton_host.manifest import gramine, template
from adyton_host.manifest.budget import format_size, parse_size
from adyton_host.manifest.interpreter import ask
from adyton_host.manifest.measured_root import requirements
from adyton_host.manifest.render import SIMULATED_NAME, Plan, Wanted, configuration, plan, write
from adyton_host.simulation import SimulationDir, prepare
from adyton_protocol.errors import ConfigError

_PORT: Final = 8471
_MEBIBYTE: Final = 1 << 20
_ALL_SIZES: Final = "4G, 512M"

_DESCRIPTION: Final = """\
Makes what Gramine starts: a directory with the manifest, the file tree of the enclave, and links to the
model files. Each file of the tree is in the manifest with its SHA-256, and the manifest is measured."""

_EXAMPLES: Final = """\
examples:
  adyton-host manifest render                              where `adyton-host up` looks for it
  adyton-host manifest render --output enclave/            an enclave for the catalog's default model
  adyton-host manifest lint enclave/                       is anything in it unfit for production?
  adyton-host manifest measure enclave/                    the measurement that clients will see
  adyton-host manifest sign enclave/ --key signer.pem      what gramine-sgx needs beside the manifest
  adyton-host manifest render --simulated --output trial/  for gramine-direct: no protection, tests only

"""

_RENDER_EXAMPLES: Final = """\
examples:
  adyton-host manifest render --output enclave/ --model adyton-words-3m
  adyton-host manifest render --output enclave/ --enclave-config limits.toml --threads 15 --no-edmm
  adyton-host manifest render --output enclave/ --python /opt/adyton/bin/python --gramine /opt/gramine

The same files give the same manifest, byte for byte, wherever and whenever. --python is the interpreter whose own
files and packages are measured; the packages must be those that manifests/requirements-enclave.txt pins."""


def add_parser(commands: "Subparsers[argparse.ArgumentParser]") -> None:
    """Add ``manifest`` and what comes after it."""
    parser = commands.add_parser(
        "manifest",
        help="render, lint, measure and sign the enclave's Gramine manifest",
        description=_DESCRIPTION,
        epilog=_EXAMPLES + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    steps = parser.add_subparsers(required=True, metavar="STEP")
    _add_render(steps)


def _add_render(steps: "Subparsers[argparse.ArgumentParser]") -> None:
    parser = steps.add_parser(
        "render",
        help="lay out the enclave's files and write the manifest over them",
        epilog=_RENDER_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help=f"where; an earlier rendering is replaced (default: {default_image_dir()}, and with --simulated "
        f"{_default_image(simulated=True).name} beside it)",
    )
    parser.add_argument("--model", metavar="NAME", help="model to serve (default: the catalog's default)")
    add_catalog(parser)
    parser.add_argument(
        "--enclave-config",
        type=Path,
        metavar="FILE",
        help="TOML with epoch_seconds, [privacy], [limits], [engine] for the enclave; it is measured",
    )
    parser.add_argument(
        "--port",
        type=port_number,
        default=_PORT,
        help="loopback port of the enclave, measured (default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=_positive,
        metavar="N",
        help="compute threads, measured (default: [engine] threads, or one less than this machine has)",
    )
    parser.add_argument(
        "--edmm",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="add memory when it is needed (default); wants a processor with EDMM and Linux 6.0",
    )
    parser.add_argument(
        "--enclave-size",
        metavar="SIZE",
        help=f"a power of two such as {_ALL_SIZES} (default: from model and KV cache)",
    )
    parser.add_argument(
        "--python",
        type=Path,
        default=Path(sys.executable),
        metavar="FILE",
        help="interpreter to measure (default: this one)",
    )
    parser.add_argument(
        "--gramine", type=Path, metavar="DIR", help="prefix of Gramine (default: where gramine-sgx is)"
    )
    parser.add_argument(
        "--manifests", type=Path, metavar="DIR", help="template and lists (default: of this checkout)"
    )
    parser.add_argument(
        "--simulated",
        action="store_true",
        help="a variant for gramine-direct with the simulated attester: no protection",
    )
    parser.add_argument(
        "--simulation-dir",
        type=Path,
        metavar="DIR",
        default=default_simulation_dir(),
        help="with --simulated: the simulated platform, made if need be (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_render)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def _default_image(*, simulated: bool) -> Path:
    """SECURITY: apart, so that no enclave of the one kind is started as the other by default."""
    image = default_image_dir()
    return image.with_name(f"{image.name}-simulated") if simulated else image


def default_manifests() -> Path:
    """``manifests/`` of the checkout that this package is installed from.

    Raises:
        ConfigError: The package is not installed from a checkout.
    """
    for parent in Path(__file__).resolve().parents:
        if (parent / "manifests" / template.TEMPLATE).is_file():
            return parent / "manifests"
    raise ConfigError(
        "the manifest's template is not beside this package; name its directory with --manifests"
    )


def _render(arguments: argparse.Namespace) -> int:
    if arguments.port == 0:
        raise ConfigError(
            "the port of an enclave is measured, so it cannot be any free one; name it with --port"
        )
    manifests = default_manifests() if arguments.manifests is None else arguments.manifests.absolute()
    catalog = arguments.catalog if arguments.catalog is not None else default_catalog()
    overrides = {} if arguments.enclave_config is None else read_overrides(arguments.enclave_config)
    found = gramine.find(arguments.gramine)
    simulation = SimulationDir(path=arguments.simulation_dir.absolute()) if arguments.simulated else None
    wanted = Wanted(
        manifests=manifests,
        interpreter=ask(arguments.python, tuple(requirements(manifests))),
        gramine=found,
        models=with_scorer(catalog, choose(catalog, arguments.model)),
        overrides=overrides,
        port=arguments.port,
        threads=arguments.threads,
        edmm=arguments.edmm,
        enclave_bytes=None if arguments.enclave_size is None else parse_size(arguments.enclave_size),
        simulation_platform=None if simulation is None else simulation.platform,
    )
    if simulation is not None:
        # Its policy names the configuration, and the platform has to be there before it can be part of the tree.
        prepare(simulation, configuration(wanted))
    made = plan(wanted)
    output = arguments.output or _default_image(simulated=arguments.simulated)
    write(made, output)
    _report(made, output, found, as_json=arguments.json)
    return OK


def _report(made: Plan, directory: Path, found: gramine.GramineFiles | None, *, as_json: bool) -> None:
    manifest = directory / f"{made.name}.manifest"
    if as_json:
        facts = {
            "manifest": str(manifest),
            "measurement_input_digest": made.input_digest,
            "measured_files": len(made.root),
            "measured_bytes": made.root_bytes,
            "enclave_bytes": made.budget.enclave_bytes,
            "budget_bytes": dict(made.budget.parts),
            "max_threads": made.budget.threads,
            "model_files": {name: str(path) for name, path in made.models.items()},
            "gramine": None if found is None else str(found.directory),
            "simulated": made.name == SIMULATED_NAME,
        }
        print(json.dumps(facts))
        return
    simulated = " (SIMULATED: no protection, refused by the linter)" if made.name == SIMULATED_NAME else ""
    parts = "".join(f"\n    {size / _MEBIBYTE:8.1f} MiB  {what}" for what, size in made.budget.parts.items())
    print(f"""\
rendered{simulated}
  manifest        {manifest}
  input digest    {made.input_digest}
  measured        {len(made.root)} files, {made.root_bytes / _MEBIBYTE:.1f} MiB
  models          {", ".join(made.models)} (not measured; pinned in the measured enclave.toml)
  enclave         {format_size(made.budget.enclave_bytes)}, {made.budget.threads} threads{parts}
  Gramine         {"none found" if found is None else found.directory}""")
    if found is None:
        print(
            "\nGramine is not installed here, so neither its library OS nor its C library is in the manifest: it can "
            "be compared, and neither signed nor started. --gramine DIR names an installation.",
            file=sys.stderr,
        )
