# SPDX-License-Identifier: Apache-2.0
"""``adyton endorsements fetch | status | export | import``: endorsements ahead of need, and over an air gap."""

import argparse
from typing import Final

from adyton.commands import endorsements_carried, endorsements_kept
from adyton.commands.endorsement_options import CHOICES

_DESCRIPTION: Final = """Endorsements are what Intel signs about platforms: TCB levels, the quoting enclave's identity,
revocation lists. An appraisal needs them and takes them from anywhere, because only the signatures count. These
commands get them, show how long they last, and carry them to places without a network."""

_EXAMPLES: Final = """examples:
  adyton endorsements fetch --url https://appliance.example      for the platform of that appliance, from Intel
  adyton endorsements status                                     what is kept here, and until when it serves
  adyton endorsements export --key courier.key --out endorsements.bundle --file policy.toml
  adyton endorsements import endorsements.bundle --carrier courier.pub
  adyton verify --policy policy.toml --endorsements cache

"""

EXIT_CODES: Final = """
exit codes:
  0  success; for status: every set is usable now
  1  refused: the evidence does not say what it needs
  2  unusable input: wrong arguments, an unreadable file
  3  the appliance cannot be reached
  4  endorsements could not be had, or (status) a set is not usable now
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the commands."""
    parser = subparsers.add_parser(
        "endorsements",
        help="fetch, inspect and carry what Intel signs about platforms",
        description=_DESCRIPTION,
        epilog=_EXAMPLES + CHOICES + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="endorsements_command", required=True, metavar="COMMAND")
    endorsements_kept.add_fetch(commands)
    endorsements_kept.add_status(commands)
    endorsements_carried.add_export(commands)
    endorsements_carried.add_import(commands)
