# SPDX-License-Identifier: Apache-2.0
"""``adyton release``: make, sign, log, publish and check signed reference values."""

import argparse
import textwrap
from typing import Final

from adyton.commands import release_checking, release_keeping
from adyton.commands.options import EXIT_CODES

_DESCRIPTION: Final = """Signed reference values: a statement says which enclaves are release 7, which models they
hold, how long that is good for and which older releases are withdrawn. People sign it on
machines without a network, a log records it, and clients whose policy names the signers
accept release 6 and 7 side by side until a later statement withdraws 6.

Roles, best held by different people on different machines:
  signer   signs statements                       offline   the policy names its key
  keeper   appends them to the log, and re-signs  attended  the policy names its key
  carrier  serves the exported file to clients    anywhere  nobody has to trust it
"""

_CEREMONY: Final = """a key ceremony, in short (docs/reference-values.md has a transcript):
  1. Two people, a machine that has no network and never had one, two USB sticks.
  2. adyton release keygen --name alice@example.org --out alice.key
     Choose a passphrase of five or more dice words. It is not written beside the key.
  3. Alice reads the fingerprint aloud, the other one writes it on paper with the date.
  4. Copy alice.key to both sticks; adyton release show on each copy must print the same
     fingerprint. One stick goes into the safe, one to another building.
  5. Carry alice.key.pub out. Whoever writes the policy compares the fingerprint with the
     paper before the line goes into [releases] signers.
The keeper's key is made the same way; its name is the name of the log.

a release, in short:
  adyton release draft --product adyton --release 7 --name 0.7.0 --mr-enclave HEX \\
      --minimum-release 6 --out release-7.json
  adyton release sign release-7.json --key alice.key --out release-7.signed.json     offline
  adyton release sign release-7.signed.json --key bob.key --out release-7.signed.json
  adyton release append release-7.signed.json --log releases.log --key keeper.key
  adyton release export --log releases.log --out releases.json
  adyton release verify releases.json --policy policy.toml
  cp releases.json ~/.local/share/adyton/host/releases.json          clients get it from here

"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "release",
        help="sign, log, publish and check reference values",
        description=_DESCRIPTION,
        epilog=_CEREMONY + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for register in (*release_keeping.PARSERS, *release_checking.PARSERS):
        action = register(actions)
        action.formatter_class = argparse.RawDescriptionHelpFormatter
        action.description = textwrap.fill(action.description or "", 90)
        action.epilog = f"{action.epilog or ''}{EXIT_CODES}"
        action.add_argument("--json", action="store_true", help="print the result as one JSON object")
