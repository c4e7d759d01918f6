# SPDX-License-Identifier: Apache-2.0
"""``adyton policy init --release``: a policy that believes signed releases."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Final

from adyton.commands.options import public_key, read_file
from adyton.edge import wall_clock_s
from adyton_attestation.policy import AppraisalPolicy
from adyton_attestation.policy_starter import STARTER_NAME, starter_policy
from adyton_protocol.errors import ConfigError

COPIED_SIGNERS: Final = (
    "TRUST ON FIRST USE. The signers' keys were copied from the release file: whoever made it may have signed it.",
    "Compare each fingerprint with its owner, over another channel, before anything confidential is sent under this",
    "policy; `adyton policy init --release FILE --signer KEY ...` takes keys that you have compared.",
)
"""What stands above a policy whose signers nobody named."""


def add_release_options(init: argparse.ArgumentParser) -> None:
    """Add ``--release`` and what goes with it."""
    group = init.add_argument_group("from a release")
    group.add_argument(
        "--release", type=Path, metavar="FILE", help="fill in [releases] from this release file (of `export`)"
    )
    group.add_argument(
        "--log-key",
        type=public_key,
        action="append",
        default=[],
        metavar="KEY",
        help="public key of the log's keeper; a release file only names it",
    )
    group.add_argument(
        "--signer",
        type=public_key,
        action="append",
        default=[],
        metavar="KEY",
        help="public key of a signer, compared with its owner; may be repeated (default: copied from the file, "
        "which is trust on first use)",
    )
    group.add_argument("--threshold", type=int, metavar="N", help="how many must have signed (default: all)")


def refuse_idle_options(args: argparse.Namespace) -> None:
    """Refuse what does nothing without ``--release``, and what does not go with it.

    Raises:
        ConfigError: There is such a thing.
    """
    if args.release is None:
        if args.signer or args.log_key or args.threshold is not None:
            raise ConfigError("--signer, --log-key and --threshold go with --release")
    elif args.from_url is not None or args.report is not None:
        raise ConfigError(
            "--release names enclaves by their signers; it does not go with --from-url or --report"
        )
    elif not args.log_key:
        raise ConfigError(
            "--release needs --log-key: the public key of the log's keeper, who publishes it beside the log"
        )


def policy_of_releases(
    args: argparse.Namespace, *, until_s: int
) -> tuple[AppraisalPolicy, tuple[str, ...], bool]:
    """Make a policy from a release file.

    Returns:
        The policy, what was found in words, and whether the signers are the file's own word.

    Raises:
        ConfigError: The file cannot be read, or the keys contradict each other.
        ReferenceValueError: It is no release file, or does not hold under these keys.
    """
    # Imported here because the other commands verify no signatures of releases.
    from adyton_attestation.release_file import parse_release_file  # noqa: PLC0415
    from adyton_attestation.release_starter import begin_releases  # noqa: PLC0415

    begun = begin_releases(
        parse_release_file(read_file(args.release, "release")),
        signers=args.signer,
        threshold=args.threshold,
        logs=args.log_key,
        now_s=wall_clock_s(),
    )
    name = f"{begun.terms.product}: add your platforms" if args.name == STARTER_NAME else args.name
    policy = replace(starter_policy(name, advisories_until_s=until_s), releases=begun.terms)
    return policy, tuple(begun.words()), begun.copied
