# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share, and how they turn into a client."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

from adyton.commands.endorsement_options import add_endorsement_options
from adyton.terminal import announce_simulation
from adyton_protocol.errors import ConfigError

if TYPE_CHECKING:
    # The client brings an HTTP client along; it is imported when one is made, since not every command does.
    from adyton.client import Client
    from adyton.simulation import Simulation
    from adyton_attestation.signing_keys import PublicKey

DEFAULT_URL: Final = "http://127.0.0.1:8470"

OK: Final = 0
REFUSED: Final = 1
UNUSABLE: Final = 2
FAILED: Final = 3
UNAVAILABLE: Final = 4

EXIT_CODES: Final = """exit codes:
  0  success
  1  verification failed: the evidence, the appliance or the receipt was refused
  2  unusable input: wrong arguments, an unreadable file, no policy
  3  the appliance cannot be reached, or the request failed
  4  endorsements could not be had: nothing is known about the platform, good or bad
"""


def add_trust_options(parser: argparse.ArgumentParser) -> None:
    """Add the choice between a real and a simulated appliance; there is no default."""
    from adyton.simulation import default_directory  # noqa: PLC0415 - see above

    group = parser.add_argument_group("trust (choose one; there is no default)")
    group.add_argument(
        "--policy", type=Path, metavar="FILE", help="appraisal policy that came with the appliance's release"
    )
    group.add_argument(
        "--simulated", action="store_true", help="accept a simulated appliance, which protects nothing"
    )
    group.add_argument(
        "--simulation-dir",
        type=Path,
        metavar="DIR",
        help=f"where the simulated installation lives (with --simulated; default {default_directory()})",
    )


def add_connection_options(parser: argparse.ArgumentParser) -> None:
    """Add where the appliance is."""
    group = parser.add_argument_group("connection")
    group.add_argument("--url", default=DEFAULT_URL, help="address of the appliance (default %(default)s)")
    group.add_argument(
        "--api-key-file", type=Path, metavar="FILE", help="file with the key that the host asks for"
    )
    group.add_argument(
        "--releases",
        type=Path,
        metavar="FILE",
        help="release file, for a policy with [releases] (default: the one that the appliance carries)",
    )
    add_endorsement_options(parser)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add what is asked of the model."""
    group = parser.add_argument_group("model")
    group.add_argument("--model", help="name of the model (default: the first that the enclave attests)")
    group.add_argument("--temperature", type=float, metavar="T", help="0 always takes the likeliest token")
    group.add_argument("--seed", type=int, metavar="N", help="makes sampling repeatable")
    group.add_argument("--max-tokens", type=int, metavar="N", help="longest answer, in tokens")


def simulation(args: argparse.Namespace) -> "Simulation | None":
    """Return the simulated installation, if the caller chose one.

    Raises:
        ConfigError: The directory is unusable, or was given without ``--simulated``.
    """
    if not args.simulated:
        if args.simulation_dir is not None:
            raise ConfigError("--simulation-dir does nothing without --simulated")
        return None
    from adyton.simulation import Simulation  # noqa: PLC0415 - see above

    return Simulation.from_dir(args.simulation_dir)


def connect(args: argparse.Namespace, *, banner: TextIO | None = None) -> "Client":
    """Make the client that the options describe; announce a simulation, by default on standard error.

    Raises:
        ConfigError: The options are unusable.
    """
    from adyton.client import Client  # noqa: PLC0415 - see above
    from adyton.commands.endorsement_choice import supply  # noqa: PLC0415 - see above

    chosen = simulation(args)
    api_key = None
    if args.api_key_file is not None:
        api_key = read_file(args.api_key_file, "API key").decode("utf-8", "replace").strip()
    client = Client(
        args.url,
        policy=args.policy,
        simulation=chosen,
        endorsements=supply(args, chosen),
        releases=args.releases,
        api_key=api_key,
    )
    if chosen is not None:
        announce_simulation(banner)
    return client


def sampling(args: argparse.Namespace) -> dict[str, float | int]:
    """Collect the sampling options that were given."""
    given = {"temperature": args.temperature, "seed": args.seed, "max_tokens": args.max_tokens}
    return {name: value for name, value in given.items() if value is not None}


def public_key(text: str) -> "PublicKey":
    """Read the public key of a signer or a log, as the type of an argument.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    from adyton_attestation.signing_keys import parse_public_key  # noqa: PLC0415 - few commands take keys

    try:
        return parse_public_key(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def read_file(path: Path, what: str) -> bytes:
    """Read a file, or standard input for ``-``.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise ConfigError(f"the {what} file {path} cannot be read: {error.strerror}") from error


def save_json(path: Path, document: object) -> None:
    """Write a JSON file.

    Raises:
        ConfigError: It cannot be written.
    """
    try:
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def save_text(path: Path, text: str) -> None:
    """Write a file in UTF-8.

    Raises:
        ConfigError: It cannot be written.
    """
    save_bytes(path, text.encode("utf-8"))


def save_bytes(path: Path, data: bytes) -> None:
    """Write a file.

    Raises:
        ConfigError: It cannot be written.
    """
    try:
        path.write_bytes(data)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
