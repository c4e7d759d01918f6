# SPDX-License-Identifier: Apache-2.0
"""``adyton endorsements export`` and ``import``: over the air gap, in one signed file."""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adyton.commands.endorsement_choice import carrier
from adyton.commands.endorsements_kept import Subparsers, add_cache_options, platform, show
from adyton.commands.options import OK, UNAVAILABLE, read_file
from adyton.edge import wall_clock_s
from adyton.release_files import load_key
from adyton.terminal import emit_json, paint, say
from adyton_attestation.certificates import TrustAnchor
from adyton_attestation.policy import TcbPolicy
from adyton_attestation.sources.bundle import Bundle, CarriedFile, CarriedSet, make_bundle
from adyton_attestation.sources.cache import EndorsementCache, Kept, write_atomically
from adyton_attestation.sources.choice import read_anchor, read_bundle
from adyton_attestation.sources.standing import Standing
from adyton_attestation.sources.vetting import vet
from adyton_attestation.times import format_time
from adyton_protocol.errors import ConfigError, EndorsementError
from adyton_protocol.strict_json import JsonObject

_EXPORT_EXAMPLES: Final = """examples:
  adyton release keygen --name courier@example.org --out courier.key
  adyton endorsements export --key courier.key --out endorsements.bundle
  adyton endorsements export --key courier.key --out endorsements.bundle --file policy.toml --file release.json

The signature says who carried the bundle. It makes nothing in it true: endorsements count by Intel's signatures, and
files by whoever signed them.
"""

_IMPORT_EXAMPLES: Final = """examples:
  adyton endorsements import endorsements.bundle --carrier courier.pub
  adyton endorsements import endorsements.bundle --carrier courier.pub --files-to incoming/
  adyton verify --policy policy.toml --endorsements cache

Compare the carrier's fingerprint with the one that you were told before you trust the file courier.pub.
"""


def add_export(commands: "Subparsers[argparse.ArgumentParser]") -> None:
    """Register ``export``."""
    parser = commands.add_parser(
        "export",
        help="put what is kept here into one signed file",
        description="Put the endorsements that are kept here, and files that shall travel with them, into one file "
        "and sign it as its carrier.",
        epilog=_EXPORT_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="the bundle to write")
    parser.add_argument(
        "--key",
        type=Path,
        required=True,
        metavar="FILE",
        help="the carrier's private key (adyton release keygen)",
    )
    parser.add_argument(
        "--passphrase-file", type=Path, metavar="FILE", help="take the passphrase from its first line"
    )
    parser.add_argument(
        "--platform",
        type=platform,
        action="append",
        default=[],
        metavar="NAME",
        help="only this one; may be repeated (default: everything that is usable)",
    )
    parser.add_argument(
        "--file",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a file to carry; may be repeated",
    )
    add_cache_options(parser)
    parser.set_defaults(run=run_export)


def run_export(args: argparse.Namespace) -> int:
    """Carry out ``export``.

    Raises:
        ConfigError: A file cannot be read or written, or there is nothing to carry.
    """
    now_s = wall_clock_s()
    cache = EndorsementCache(args.cache, read_anchor(args.root))
    kept = [item for item in cache.all() if item.vetted.holds_at(now_s)]
    missing = set(args.platform) - {item.vetted.family for item in kept}
    if missing:
        names = ", ".join(sorted(family.label for family in missing))
        raise ConfigError(f"{args.cache} has nothing usable for {names}; adyton endorsements fetch gets it")
    chosen = [item for item in kept if not args.platform or item.vetted.family in args.platform]
    if not chosen:
        raise ConfigError(
            f"{args.cache} has nothing usable to carry; adyton endorsements fetch gets something"
        )
    key = load_key(args.key, args.passphrase_file)
    try:
        data = make_bundle(
            key,
            tuple(
                CarriedSet(
                    family=item.vetted.family,
                    source=item.source,
                    fetched_s=item.fetched_s,
                    data=item.vetted.data,
                )
                for item in chosen
            ),
            tuple(CarriedFile(name=path.name, content=read_file(path, "carried")) for path in args.file),
            made_s=now_s,
        )
    except EndorsementError as error:
        raise ConfigError(f"this does not make a bundle: {error}") from error
    write_atomically(args.out, data)
    standings = [Standing.of(item, TcbPolicy(), now_s) for item in chosen]
    if args.json:
        emit_json(
            {
                "bundle": str(args.out),
                "carrier": str(key.public),
                "fingerprint": key.public.fingerprint,
                "sets": [standing.to_json() for standing in standings],
                "files": [path.name for path in args.file],
            }
        )
        return OK
    show(standings, sys.stdout)
    say(f"wrote {args.out}: {len(chosen)} platforms, {len(args.file)} files", sys.stdout)
    say(f"carrier      {key.public}", sys.stdout)
    say(f"fingerprint  {key.public.fingerprint}", sys.stdout)
    return OK


def add_import(commands: "Subparsers[argparse.ArgumentParser]") -> None:
    """Register ``import``."""
    parser = commands.add_parser(
        "import",
        help="take over what somebody carried here",
        description="Check who carried a bundle, check each set of endorsements in it as if it came from anywhere, "
        "and keep what is genuine, holds now and is not older than what is kept.",
        epilog=_IMPORT_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle")
    parser.add_argument(
        "--carrier",
        required=True,
        metavar="KEY",
        help="the public key whose bundle it must be, or a file with it",
    )
    parser.add_argument(
        "--files-to",
        type=Path,
        metavar="DIR",
        help="write the carried files there; without it they stay where they are",
    )
    add_cache_options(parser)
    parser.set_defaults(run=run_import)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taken:
    """What became of one set."""

    label: str
    outcome: str
    kept: Kept | None = None

    def to_json(self) -> JsonObject:
        """Return the JSON object."""
        return {"platform": self.label, "taken": self.kept is not None, "outcome": self.outcome}


def run_import(args: argparse.Namespace) -> int:
    """Carry out ``import``.

    Raises:
        EndorsementSourceError: It is no bundle, was changed on its way, or is somebody else's.
        ConfigError: A file cannot be read or written.
    """
    anchor, now_s = read_anchor(args.root), wall_clock_s()
    bundle = read_bundle(read_file(args.bundle, "bundle"), carrier(args.carrier), f"bundle {args.bundle}")
    cache = EndorsementCache(args.cache, anchor)
    taken = [_take(item, bundle, cache, anchor, now_s) for item in bundle.sets]
    files = _unpack(bundle, args.files_to)
    if args.json:
        emit_json(
            {
                "carrier": str(bundle.carrier),
                "fingerprint": bundle.carrier.fingerprint,
                "made_at": format_time(bundle.made_s),
                "sets": [item.to_json() for item in taken],
                "files": files,
            }
        )
    else:
        say(
            f"carried by {bundle.carrier.name} ({bundle.carrier.fingerprint}), {format_time(bundle.made_s)}",
            sys.stdout,
        )
        for item in taken:
            outcome = paint(item.outcome, "green" if item.kept is not None else "yellow", sys.stdout)
            say(
                f"  {paint(item.label, 'bold', sys.stdout)}  {outcome}",
                sys.stdout,
            )
        for name in files:
            say(f"  file {name}" if args.files_to is None else f"  wrote {args.files_to / name}", sys.stdout)
    return OK if any(item.kept for item in taken) or not taken else UNAVAILABLE


def _take(
    item: CarriedSet, bundle: Bundle, cache: EndorsementCache, anchor: TrustAnchor, now_s: int
) -> _Taken:
    label = item.family.label
    try:
        vetted = vet(item.data, anchor, item.family)
    except EndorsementError as error:
        return _Taken(label=label, outcome=f"refused: {error}")
    span = vetted.not_holding_at(now_s)
    if span is not None:
        return _Taken(label=label, outcome=f"refused: {span.name} ends at {format_time(span.last_s)}")
    before = cache.load(item.family)
    if before is not None and vetted.older_than(before.vetted):
        return _Taken(label=label, outcome="left: what is kept is newer")
    source = f"{item.source} (carried by {bundle.carrier.name})"
    kept = Kept(vetted=vetted, source=source, channel="carried", fetched_s=item.fetched_s)
    cache.store(kept)
    return _Taken(label=label, outcome=f"kept, until {format_time(vetted.first_to_expire.last_s)}", kept=kept)


def _unpack(bundle: Bundle, directory: Path | None) -> list[str]:
    """Write the carried files; none replaces another that is there already."""
    names = [file.name for file in bundle.files]
    if directory is None:
        return names
    for file in bundle.files:
        path = directory / file.name
        if path.exists() and path.read_bytes() != file.content:
            raise ConfigError(f"{path} is there already and differs; choose an empty directory")
    for file in bundle.files:
        write_atomically(directory / file.name, file.content)
    return names
