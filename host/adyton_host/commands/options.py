# SPDX-License-Identifier: Apache-2.0
"""What the commands share: exit statuses, and arguments that several of them take."""

import argparse
from pathlib import Path
from typing import Final

OK: Final = 0
FAILED: Final = 1
UNUSABLE: Final = 2
INTERRUPTED: Final = 130
MAX_PORT: Final = 65535

EXIT_CODES: Final = """\
exit codes:
  0  success
  1  the host or its enclave failed, or something that was looked at is not in order
  2  unusable input: wrong arguments, a wrong configuration, or a machine that lacks what is needed
"""

Subparsers = argparse._SubParsersAction  # noqa: SLF001 -- argparse has no public name for what add_subparsers returns


def port_number(text: str) -> int:
    """A TCP port, 0 for any free one.

    Raises:
        ArgumentTypeError: It is none.
    """
    if not text.isdecimal() or int(text) > MAX_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port number from 0 to {MAX_PORT}")
    return int(text)


def add_catalog(parser: argparse.ArgumentParser) -> None:
    """``--catalog FILE``."""
    parser.add_argument(
        "--catalog", type=Path, metavar="FILE", help="catalog of models (default: models/catalog.toml)"
    )
