# SPDX-License-Identifier: Apache-2.0
"""From the options of a command line to a supply of endorsements."""

import argparse
from pathlib import Path

from adyton.commands.endorsement_options import APPLIANCE
from adyton.endorsements import SourceOptions, endorsements_from
from adyton.simulation import Simulation
from adyton_attestation.signing_keys import MAX_KEY_TEXT, PublicKey, parse_public_key
from adyton_attestation.sources.fetching import Dial
from adyton_attestation.sources.pcs import STANDARD, Channel
from adyton_attestation.sources.supply import EndorsementSupply
from adyton_protocol.errors import ConfigError


def carrier(text: str | None) -> PublicKey | None:
    """Read the key of a carrier: as one word, or a file that holds it.

    Raises:
        ConfigError: It is neither.
    """
    if text is None:
        return None
    path = Path(text).expanduser()
    if len(text) > MAX_KEY_TEXT or not path.is_file():
        return parse_public_key(text)
    try:
        with path.open("rb") as file:
            return parse_public_key(file.read(MAX_KEY_TEXT + 1).decode("utf-8", "replace"))
    except OSError as error:
        raise ConfigError(f"the carrier's key file {path} cannot be read: {error.strerror}") from error


def source_options(args: argparse.Namespace, channel: Channel = STANDARD) -> SourceOptions:
    """Collect what goes with a source.

    Raises:
        ConfigError: The carrier's key is unusable.
    """
    dial = Dial(ca_file=args.source_ca, proxy=args.source_proxy)
    return SourceOptions(dial=dial, channel=channel, carrier=carrier(args.carrier))


def supply(args: argparse.Namespace, simulation: Simulation | None) -> EndorsementSupply | None:
    """Return the supply that the options of an appliance's command name; None for the appliance's own.

    Raises:
        ConfigError: They name none, or contradict each other.
    """
    if args.endorsements == APPLIANCE:
        if (args.source_ca, args.source_proxy, args.carrier) != (None, None, None):
            raise ConfigError("--source-ca, --source-proxy and --carrier need --endorsements with a source")
        return None
    return endorsements_from(args.endorsements, source_options(args), simulation=simulation)
