# SPDX-License-Identifier: Apache-2.0
"""``adyton-host manifest``: render, lint, measure and sign what Gramine starts."""

import argparse
import dataclasses
import datetime as dt
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from adyton_host.catalog import choose, default_catalog, with_scorer
from adyton_host.commands.options import EXIT_CODES, FAILED, OK, Subparsers, add_catalog, port_number
from adyton_host.config import default_image_dir, default_simulation_dir
from adyton_host.enclave_config import read_overrides
from adyton_host.manifest import gramine, template
from adyton_host.manifest.budget import format_size, parse_size
from adyton_host.manifest.files import check_files
from adyton_host.manifest.interpreter import ask
from adyton_host.manifest.lint import ALL_RULES, Verdict, lint, read_manifest
from adyton_host.manifest.measured_root import requirements
from adyton_host.manifest.render import SIMULATED_NAME, Plan, Wanted, configuration, plan, write
from adyton_host.manifest.view import View, view
from adyton_host.simulation import SimulationDir, prepare
from adyton_protocol.errors import ConfigError

_PORT: Final = 8471
_MEBIBYTE: Final = 1 << 20
_ALL_SIZES: Final = "4G, 512M"
_SHOWN: Final = 8
_UNDATED: Final = dt.date(2000, 1, 1)

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

_LINT_EXAMPLES: Final = """\
examples:
  adyton-host manifest lint                      the image that `adyton-host up` would start
  adyton-host manifest lint enclave/ --json      for a pipeline
  adyton-host manifest lint --rules              every rule and its reason

Allowed files are refused, but for one kind: models whose digests the measured enclave.toml pins. To see
that, the linter reads enclave.toml beside the manifest, if it is the measured one.

"""

_MEASURE_EXAMPLES: Final = """\
examples:
  adyton-host manifest measure enclave/
  adyton-host manifest measure enclave/ --input-only --json

MRENCLAVE is computed by Gramine's own code, from the manifest and its libpal.so. The input digest is
SHA-256 of the manifest: if two renderings agree in it, the same Gramine gives them the same MRENCLAVE.

"""

_SIGN_EXAMPLES: Final = """\
examples:
  gramine-sgx-gen-private-key signer.pem
  adyton-host manifest sign enclave/ --key signer.pem

Signs only what the linter passes and whose files are those of the manifest. The key decides MRSIGNER and
nothing else; keep it where releases are made, not on the server.

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
    _add_lint(steps)
    _add_measure(steps)
    _add_sign(steps)


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


def _add_lint(steps: "Subparsers[argparse.ArgumentParser]") -> None:
    parser = steps.add_parser(
        "lint",
        help="refuse what is unfit for production, each for a named reason",
        epilog=_LINT_EXAMPLES + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_image(parser)
    parser.add_argument("--rules", action="store_true", help="list all rules and why they exist, and stop")
    parser.add_argument(
        "--waive",
        action="append",
        default=[],
        metavar="RULE",
        help="accept this rule as broken (`sign` never does)",
    )
    parser.set_defaults(run=_lint)


def _add_measure(steps: "Subparsers[argparse.ArgumentParser]") -> None:
    parser = steps.add_parser(
        "measure",
        help="the measurement that clients will see",
        epilog=_MEASURE_EXAMPLES + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_image(parser)
    parser.add_argument(
        "--input-only", action="store_true", help="only the digest of what is measured; needs no Gramine"
    )
    parser.add_argument(
        "--gramine", type=Path, metavar="DIR", help="prefix of Gramine (default: where gramine-sgx is)"
    )
    parser.set_defaults(run=_measure)


def _add_sign(steps: "Subparsers[argparse.ArgumentParser]") -> None:
    parser = steps.add_parser(
        "sign",
        help="write what gramine-sgx needs beside the manifest",
        epilog=_SIGN_EXAMPLES + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_image(parser)
    parser.add_argument(
        "--key", type=Path, required=True, metavar="FILE", help="RSA-3072 key with exponent 3, in PEM"
    )
    parser.add_argument(
        "--date",
        type=_date,
        default=_UNDATED,
        metavar="YYYY-MM-DD",
        help="date in the signature; it is not measured (default: %(default)s, so that signing again gives the same)",
    )
    parser.add_argument(
        "--gramine", type=Path, metavar="DIR", help="prefix of Gramine (default: where gramine-sgx is)"
    )
    parser.set_defaults(run=_sign)


def _add_image(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "image",
        type=Path,
        nargs="?",
        default=default_image_dir(),
        metavar="IMAGE",
        help="directory that `render` made, or a manifest (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _date(text: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date such as 2026-11-21") from error


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


def _lint(arguments: argparse.Namespace) -> int:
    if arguments.rules:
        _print_rules(as_json=arguments.json)
        return OK
    data, directory = read_manifest(arguments.image)
    verdict = lint(data, name=str(arguments.image), directory=directory, waive=arguments.waive)
    if arguments.json:
        facts = {"manifest": str(arguments.image), "passed": verdict.passed, **dataclasses.asdict(verdict)}
        print(json.dumps(facts))
    else:
        _print_verdict(verdict)
    return OK if verdict.passed else FAILED


def _print_rules(*, as_json: bool) -> None:
    if as_json:
        print(json.dumps([{"rule": rule.name, "reason": rule.reason} for rule in ALL_RULES]))
        return
    for rule in ALL_RULES:
        print(f"{rule.name:28} {rule.reason}")


def _print_verdict(verdict: Verdict) -> None:
    for each in verdict.waived:
        print(f"waived  {each.rule} ({each.waiver}): {each.reason}")
        _print_found(each.found)
    for finding in verdict.refused:
        print(f"REFUSED {finding.rule}: {finding.reason}")
        _print_found(finding.found)
    broken = len(verdict.refused)
    print(
        f"{verdict.rules} rules, "
        + ("none broken" if not broken else f"{broken} broken: unfit for production")
    )


def _print_found(found: Sequence[str]) -> None:
    for line in found[:_SHOWN]:
        print(f"        {line}")
    if len(found) > _SHOWN:
        print(f"        and {len(found) - _SHOWN} more")


def _measure(arguments: argparse.Namespace) -> int:
    data, directory = read_manifest(arguments.image)
    manifest = view(data, str(arguments.image), directory)
    facts: dict[str, object] = {"measurement_input_digest": template.input_digest(data)}
    facts["configuration_digest"] = _configuration_digest(manifest)
    if not arguments.input_only:
        with tempfile.TemporaryDirectory(prefix="adyton-measure-") as scratch:
            file = Path(scratch, "measured.manifest.sgx")
            file.write_bytes(data)
            facts |= _facts(_measured(file, arguments.gramine, _UNDATED))
    _print_facts(facts, as_json=arguments.json)
    return OK


def _sign(arguments: argparse.Namespace) -> int:
    data, directory = read_manifest(arguments.image)
    verdict = lint(data, name=str(arguments.image), directory=directory)
    if not verdict.passed:
        # SECURITY: what is unfit for production is never signed; there is no switch for it.
        _print_verdict(verdict)
        print(f"adyton-host: {arguments.image} is not signed", file=sys.stderr)
        return FAILED
    manifest = view(data, str(arguments.image), directory)
    check_files(manifest, directory)
    name = next(path.name for path in sorted(directory.glob("*.manifest"))).removesuffix(".manifest")
    signed, signature = directory / f"{name}.manifest.sgx", directory / f"{name}.sig"
    # Gramine's own signer would write the manifest anew, in its own style; what is signed here is what was rendered.
    signed.write_bytes(data)
    measured = _measured(signed, arguments.gramine, arguments.date)
    signature.write_bytes(gramine.sign(measured, arguments.key))
    facts = {
        "signed": str(signed),
        "measurement_input_digest": template.input_digest(data),
        "configuration_digest": _configuration_digest(manifest),
        **_facts(measured),
    }
    _print_facts(facts, as_json=arguments.json)
    return OK


def _measured(manifest: Path, prefix: Path | None, date: dt.date) -> gramine.Measured:
    found = gramine.find(prefix)
    if found is None:
        raise ConfigError(gramine.HOW_TO_INSTALL)
    return gramine.measure(manifest, found.libpal, date)


def _facts(measured: gramine.Measured) -> dict[str, object]:
    return {
        "mr_enclave": measured.mr_enclave.hex(),
        "isv_prod_id": measured.isv_prod_id,
        "isv_svn": measured.isv_svn,
    }


def _configuration_digest(manifest: View) -> str | None:
    """SHA-256 of ``enclave.toml``, which the enclave attests beside its measurement."""
    digest = next((digest for uri, digest in manifest.trusted if uri == manifest.configuration_uri), None)
    return None if digest is None else f"sha256:{digest}"


def _print_facts(facts: Mapping[str, object], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(facts))
        return
    for name, value in facts.items():
        print(f"{name.replace('_', ' '):26} {value}")


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
