# SPDX-License-Identifier: Apache-2.0
"""Options that say where endorsements come from. What they amount to is :mod:`adyton.commands.endorsement_choice`."""

import argparse
from pathlib import Path
from typing import Final

APPLIANCE: Final = "appliance"

CHOICES: Final = """where endorsements come from:
  appliance  what the appliance's host keeps (the default)
  pcs        Intel's certification service
  pccs=URL   a caching service, for example pccs=https://pccs.example:8081
  cache      what `adyton endorsements fetch` or `import` has kept here; no network
  FILE       a collateral file, or a bundle of the carrier whom --carrier names
"""


def add_endorsement_options(parser: argparse.ArgumentParser) -> None:
    """Add the choice for commands that talk to an appliance."""
    group = parser.add_argument_group("endorsements")
    group.add_argument(
        "--endorsements",
        metavar="SOURCE",
        default=APPLIANCE,
        help="appliance (default), pcs, pccs=URL, cache, or a FILE; `adyton endorsements --help` explains",
    )
    add_source_options(group)


def add_source_options(group: "argparse._ArgumentGroup") -> None:
    """Add what goes with a source."""
    group.add_argument(
        "--source-ca", type=Path, metavar="PEM", help="the CA of a caching service that has one of its own"
    )
    group.add_argument("--source-proxy", metavar="URL", help="a proxy on the way to the source")
    group.add_argument(
        "--carrier", metavar="KEY", help="whose bundle is accepted: the public key, or a file that holds it"
    )
