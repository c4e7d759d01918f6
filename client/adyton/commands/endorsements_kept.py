# SPDX-License-Identifier: Apache-2.0
"""``adyton endorsements fetch`` and ``status``: what is kept on this machine."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TextIO, cast

from adyton.commands.endorsement_choice import carrier, source_options
from adyton.commands.endorsement_options import add_source_options
from adyton.commands.options import OK, UNAVAILABLE, read_file
from adyton.edge import wall_clock_s
from adyton.endorsements import default_cache
from adyton.evidence_of import quote_of_appliance
from adyton.terminal import emit_json, paint, say
from adyton.trust import read_policy
from adyton_attestation.certificates import TrustAnchor
from adyton_attestation.policy import DAY_S, AppraisalPolicy, TcbPolicy
from adyton_attestation.sources.bundle import MAX_BUNDLE_BYTES, looks_like_bundle
from adyton_attestation.sources.cache import EndorsementCache, Kept, write_atomically
from adyton_attestation.sources.choice import PCS, choose_source, read_anchor, read_bundle
from adyton_attestation.sources.family import PlatformFamily
from adyton_attestation.sources.pcs import Channel, Update
from adyton_attestation.sources.standing import Standing
from adyton_attestation.sources.supply import EndorsementSupply
from adyton_attestation.sources.vetting import vet
from adyton_attestation.times import format_time
from adyton_protocol.errors import ConfigError, EndorsementError, EndorsementSourceError

Subparsers = argparse._SubParsersAction  # noqa: SLF001 - argparse has no public name for it.

_FETCH_EXAMPLES: Final = """examples:
  adyton endorsements fetch --url https://appliance.example
  adyton endorsements fetch --quote quote.bin --from pccs=https://pccs.example:8081 --source-ca pccs-ca.pem
  adyton endorsements fetch --platform sgx-00906ed50000-platform --platform sgx-30606a000000-processor
  adyton endorsements fetch --url http://127.0.0.1:8470 --which        inside an air gap: what to fetch outside
  adyton endorsements fetch --quote quote.bin --out collateral.json     for `adyton quote verify --collateral`

A platform is named by TEE, FMSPC and PCK CA. Whoever is asked learns these three, and that somebody asks.
"""

_STATUS_EXAMPLES: Final = """examples:
  adyton endorsements status                              what is kept here
  adyton endorsements status --policy policy.toml         against the age cap of that policy
  adyton endorsements status endorsements.bundle --carrier courier.pub
  adyton endorsements status --json | jq '.sets[] | select(.verdict != "usable")'

Sets come in the order in which they stop to be usable; the first is the one to renew first.
"""


def add_cache_options(parser: argparse.ArgumentParser) -> None:
    """Add where sets are kept, and below which root."""
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        default=default_cache(),
        help="where endorsements are kept (default %(default)s)",
    )
    parser.add_argument("--root", type=Path, metavar="PEM", help="a root certificate instead of Intel's")
    parser.add_argument("--json", action="store_true", help="print JSON")


def platform(text: str) -> PlatformFamily:
    """Read the name of a platform family.

    Raises:
        ArgumentTypeError: It is none.
    """
    found = PlatformFamily.parse(text)
    if found is None:
        raise argparse.ArgumentTypeError(
            "write a platform as TEE-FMSPC-CA, for example sgx-00906ed50000-platform"
        )
    return found


def add_fetch(commands: "Subparsers[argparse.ArgumentParser]") -> None:
    """Register ``fetch``."""
    parser = commands.add_parser(
        "fetch",
        help="get endorsements from a certification service and keep them",
        description="Ask Intel or a caching service for the endorsements of some platforms, check that they are "
        "genuine and about these, and keep them.",
        epilog=_FETCH_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("for which platforms (one of these)")
    what.add_argument("--quote", type=Path, metavar="FILE", help="that of a quote, binary; - for stdin")
    what.add_argument("--url", help="that of an appliance, whose report is read and not appraised")
    what.add_argument(
        "--platform",
        type=platform,
        action="append",
        default=[],
        metavar="NAME",
        help="by name; may be repeated",
    )
    what.add_argument(
        "--which",
        action="store_true",
        help="only print their names, and ask nobody; for the far side of an air gap",
    )
    source = parser.add_argument_group("from where")
    source.add_argument(
        "--from", dest="source", default=PCS, metavar="SOURCE", help="pcs (default), pccs=URL, or a FILE"
    )
    source.add_argument(
        "--update",
        choices=("standard", "early"),
        default="standard",
        help="which set to ask for (default %(default)s)",
    )
    source.add_argument(
        "--evaluation-number", type=int, metavar="N", help="ask for this TCB evaluation data number instead"
    )
    add_source_options(source)
    add_cache_options(parser)
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="also write the one set as a collateral file"
    )
    parser.set_defaults(run=run_fetch)


def run_fetch(args: argparse.Namespace) -> int:
    """Carry out ``fetch``.

    Raises:
        ConfigError: The arguments contradict each other.
        EndorsementsUnavailable: They could not be had.
    """
    families, now_s = _families(args), wall_clock_s()
    if args.which:
        labels = [family.label for family in families]
        if args.json:
            emit_json({"platforms": labels})
        else:
            say("\n".join(labels), sys.stdout)
        return OK
    if args.out is not None and len(families) != 1:
        raise ConfigError("--out takes the endorsements of one platform")
    anchor = read_anchor(args.root)
    channel = Channel(update=cast("Update", args.update), evaluation_number=args.evaluation_number)
    supply = EndorsementSupply(
        choose_source(args.source, source_options(args, channel)),
        anchor,
        EndorsementCache(args.cache, anchor),
        # Whoever types this wants the newest.
        refetch_after_s=0,
    )
    supplied = [supply.obtain(family, now_s) for family in families]
    if args.out is not None:
        write_atomically(args.out, supplied[0].data)
    standings = [Standing.of(item.kept, TcbPolicy(), now_s) for item in supplied]
    if args.json:
        rows = [
            standing.to_json() | {"fresh": item.fresh, "notice": item.notice}
            for standing, item in zip(standings, supplied, strict=True)
        ]
        emit_json({"sets": rows})
        return OK
    show(standings, sys.stdout)
    for item in supplied:
        if item.notice is not None:
            say(paint(f"note: {item.notice}", "yellow", sys.stderr))
    return OK


def _families(args: argparse.Namespace) -> list[PlatformFamily]:
    given = [args.quote is not None, args.url is not None, bool(args.platform)]
    if given.count(True) != 1:
        raise ConfigError("say for which platform: one of --quote, --url and --platform")
    if args.quote is not None:
        return [PlatformFamily.of_quote(read_file(args.quote, "quote"))]
    if args.url is not None:
        return [PlatformFamily.of_quote(quote_of_appliance(args.url))]
    return list(dict.fromkeys(args.platform))


def add_status(commands: "Subparsers[argparse.ArgumentParser]") -> None:
    """Register ``status``."""
    parser = commands.add_parser(
        "status",
        help="show what is kept, how old it is, and what ends first",
        description="Show each set of endorsements: when it was issued, when its next update is due, its numbers, "
        "its age against a policy, and what ends it first.",
        epilog=_STATUS_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "file",
        nargs="?",
        type=Path,
        metavar="FILE",
        help="a collateral file or a bundle instead of the cache",
    )
    parser.add_argument("--policy", type=Path, metavar="FILE", help="whose age cap and numbers count")
    parser.add_argument("--carrier", metavar="KEY", help="whose bundle FILE may be")
    add_cache_options(parser)
    parser.set_defaults(run=run_status)


def run_status(args: argparse.Namespace) -> int:
    """Carry out ``status``.

    Raises:
        ConfigError: A file cannot be read, or the policy is none.
        EndorsementSourceError: FILE holds no endorsements.
    """
    anchor, now_s = read_anchor(args.root), wall_clock_s()
    policy = AppraisalPolicy(name="defaults") if args.policy is None else read_policy(args.policy)
    kept = (
        _of_file(args, anchor) if args.file is not None else list(EndorsementCache(args.cache, anchor).all())
    )
    standings = sorted(
        (Standing.of(item, policy.tcb, now_s) for item in kept), key=lambda standing: standing.usable_until_s
    )
    if args.json:
        emit_json(
            {
                "at": format_time(now_s),
                "policy": policy.name,
                "max_age_s": policy.tcb.max_endorsement_age_s,
                "sets": [standing.to_json() for standing in standings],
            }
        )
    elif not standings:
        say(f"nothing is kept in {args.cache}; get some with: adyton endorsements fetch", sys.stdout)
    else:
        show(standings, sys.stdout, details=True)
    return OK if standings and all(standing.usable for standing in standings) else UNAVAILABLE


def _of_file(args: argparse.Namespace, anchor: TrustAnchor) -> list[Kept]:
    data, name = read_file(args.file, "endorsements")[: MAX_BUNDLE_BYTES + 1], f"file {args.file}"
    try:
        if not looks_like_bundle(data):
            vetted = vet(data, anchor)
            issued_s = vetted.endorsements.tcb_info.issued_s
            return [Kept(vetted=vetted, source=name, channel="unknown", fetched_s=issued_s)]
        bundle = read_bundle(data, carrier(args.carrier), name)
        return [
            Kept(
                vetted=vet(item.data, anchor, item.family),
                source=item.source,
                channel="carried",
                fetched_s=item.fetched_s,
            )
            for item in bundle.sets
        ]
    except EndorsementError as cause:
        raise EndorsementSourceError(f"{name}: {cause}", source=name) from cause


def show(standings: Sequence[Standing], out: TextIO, *, details: bool = False) -> None:
    """Print sets as text."""
    for standing in standings:
        vetted = standing.kept.vetted
        say(paint(vetted.family.label, "bold", out), out)
        text = f"{standing.verdict}; until {format_time(standing.usable_until_s)} ({standing.ended_by})"
        say(f"  {paint(text, 'green' if standing.usable else 'red', out)}", out)
        say(f"  {standing.age_s / DAY_S:.1f} days old, evaluation number {vetted.evaluation_number}", out)
        say(f"  from {standing.kept.source}, {format_time(standing.kept.fetched_s)}", out)
        if details:
            known = vetted.endorsements
            for part in (known.tcb_info, known.qe_identity, known.root_crl, known.pck_crl):
                issued, due = format_time(part.issued_s), format_time(part.next_update_s)
                say(f"    {part.name:<12} issued {issued}  next update {due}", out)
