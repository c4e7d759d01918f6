# SPDX-License-Identifier: Apache-2.0
"""``adyton release verify | show``: the commands that only read."""

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Final

from adyton.commands.options import OK, REFUSED, public_key, read_file
from adyton.commands.release_keeping import read_statement
from adyton.commands.release_words import describe
from adyton.edge import wall_clock_s
from adyton.receipt_checks import Checks, failed
from adyton.terminal import emit_json, paint, print_checks, say
from adyton.trust import read_policy
from adyton_attestation.marks import HighWaterMarks
from adyton_attestation.private_keys import public_key_of
from adyton_attestation.release_file import (
    ReleaseFile,
    VerifiedReleases,
    check_history,
    check_log,
    check_signatures,
    parse_release_file,
)
from adyton_attestation.release_log import parse_log
from adyton_attestation.release_memory import ReleaseMark
from adyton_attestation.release_statement import SignedStatement
from adyton_attestation.release_terms import DEFAULT_AGE_S, ReleaseTerms
from adyton_attestation.signed_note import parse_note, read_checkpoint
from adyton_attestation.signing_keys import PublicKey, parse_public_key
from adyton_attestation.times import format_time
from adyton_protocol.errors import ConfigError, ReferenceValueError
from adyton_protocol.strict_json import JsonObject, JsonValue

Subparsers = argparse._SubParsersAction  # noqa: SLF001 - argparse has no public name for it.
_DAY_S: Final = 86_400


def _verify(actions: "Subparsers[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    parser = actions.add_parser(
        "verify",
        help="check a release file as a client would",
        description="Check signatures, log and time of a release file by a policy's [releases], or by keys given "
        "here, and say which releases hold. Offline. With --marks, also that nothing older is shown than that "
        "user has seen.",
        epilog="""examples:
  adyton release verify releases.json --policy policy.toml
  adyton release verify releases.json --policy policy.toml --marks ~/.local/state/adyton/marks.json
  adyton release verify releases.json --product adyton --threshold 2 --signer alice@example.org+... \\
      --signer bob@example.org+... --log-key releases.example.org/adyton+... --at 1790000000

""",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="from export, or from the appliance")
    parser.add_argument("--policy", type=Path, metavar="FILE", help="appraisal policy with [releases]")
    parser.add_argument("--product", help="without --policy: the product")
    parser.add_argument(
        "--signer",
        type=public_key,
        action="append",
        default=[],
        metavar="KEY",
        help="a signer's public key; may be repeated",
    )
    parser.add_argument("--threshold", type=int, metavar="N", help="how many must have signed (default: all)")
    parser.add_argument(
        "--log-key",
        type=public_key,
        action="append",
        default=[],
        metavar="KEY",
        help="the keeper's public key",
    )
    parser.add_argument(
        "--at", type=int, metavar="UNIX_TIME", help="time to check at, in seconds since 1970 (now)"
    )
    parser.add_argument(
        "--marks", type=Path, metavar="FILE", help="high-water marks of a client; not changed"
    )
    parser.set_defaults(run=run_verify)
    return parser


def run_verify(args: argparse.Namespace) -> int:
    """Carry out ``release verify``."""
    terms = _terms(args)
    now_s = wall_clock_s() if args.at is None else args.at
    mark = _mark(args.marks, terms)
    data = read_file(args.file, "release")
    checks = Checks()
    verified = _judge(checks, data, terms, mark, now_s)
    good = verified is not None and not failed(checks.lines)
    if args.json:
        emit_json(
            {
                "verdict": "accepted" if good else "refused",
                "checked_at": format_time(now_s),
                "checks": [asdict(check) for check in checks.lines],
                "releases": [] if verified is None else _standings(verified),
            }
        )
        return OK if good else REFUSED
    out = sys.stdout
    print_checks(checks.lines, out)
    verdict = paint("accepted", "green", out) if good else paint("REFUSED", "red", out)
    say(f"release file: {verdict}, as of {format_time(now_s)}", out)
    return OK if good else REFUSED


def _terms(args: argparse.Namespace) -> ReleaseTerms:
    if args.policy is not None:
        if args.signer or args.log_key or args.product or args.threshold is not None:
            raise ConfigError("give --policy or keys, not both")
        terms = read_policy(args.policy).releases
        if terms is None:
            raise ConfigError(f"the policy {args.policy} has no [releases]")
        return terms
    if not args.signer or not args.log_key or args.product is None:
        raise ConfigError("give --policy; or --product, --signer and --log-key")
    return ReleaseTerms(
        product=args.product,
        signers=tuple(args.signer),
        threshold=len(args.signer) if args.threshold is None else args.threshold,
        logs=tuple(args.log_key),
        max_age_s=DEFAULT_AGE_S,
    )


def _mark(path: Path | None, terms: ReleaseTerms) -> ReleaseMark:
    if path is None:
        return ReleaseMark(origin=terms.origin)
    return HighWaterMarks.from_json(read_file(path, "marks")).release_mark(terms.origin)


def _judge(
    checks: Checks, data: bytes, terms: ReleaseTerms, mark: ReleaseMark, now_s: int
) -> VerifiedReleases | None:
    name = "form"
    try:
        file = parse_release_file(data)
        checks.add(name, "pass", ", ".join(str(item.signed.statement) for item in file.releases))
        name = "signatures"
        check_signatures(file, terms)
        checks.add(name, "pass", f"at least {terms.threshold} of {len(terms.signers)} signers on each")
        name = "log"
        check_log(file, terms, now_s)
        size, time = file.checkpoint.size, format_time(file.checkpoint.time_s)
        checks.add(name, "pass", f"in {terms.origin}, the newest of {size} among them, as of {time}")
        name = "history"
        verified = check_history(file, terms, mark, now_s)
        seen = f"contains the {mark.size} entries seen before" if mark.size else "nothing was seen before"
        checks.add(name, "pass" if mark.size else "skip", seen)
    except ReferenceValueError as error:
        checks.add(name, "fail", f"{error.code}: {error}")
        return None
    checks.add("standing", "pass" if verified.in_force() else "fail", verified.explain())
    return verified


def _standings(verified: VerifiedReleases) -> list[JsonObject]:
    return [
        {
            "release": item.release,
            "name": item.name,
            "standing": verified.standing(item),
            "not_before": format_time(item.not_before_s),
            "not_after": format_time(item.not_after_s),
        }
        for item in verified.statements
    ]


def _show(actions: "Subparsers[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    parser = actions.add_parser(
        "show",
        help="say in words what a file of this kind says, believing nothing",
        description="Say what a key file, public key, statement, log, checkpoint or release file says. Signatures "
        "are compared with the keys that they name; whether those keys are anybody's is for `verify`.",
        epilog="""examples:
  adyton release show alice.key          name and fingerprint; asks no passphrase
  adyton release show release-7.json
  adyton release show releases.log

""",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="any file that adyton release makes")
    parser.set_defaults(run=run_show)
    return parser


def run_show(args: argparse.Namespace) -> int:
    """Carry out ``release show``."""
    data = read_file(args.file, "release")
    for kind, show in _KINDS:
        try:
            document, lines = show(data)
        except (ConfigError, ReferenceValueError):
            continue
        if args.json:
            emit_json({"kind": kind, **document})
            return OK
        say(paint(f"{args.file}: {kind}", "bold", sys.stdout), sys.stdout)
        for line in lines:
            say(line, sys.stdout)
        return OK
    raise ConfigError(
        f"{args.file} is no key, statement, log, checkpoint or release file; if it was meant to be one, "
        "it was damaged: see what `adyton release verify`, `sign` or `append` says about it"
    )


Shown = tuple[JsonObject, list[str]]


def _show_key(data: bytes) -> Shown:
    public, sealed = public_key_of(data)
    return _public(public, f"sealed: {'yes' if sealed else 'NO, the seed is in the clear'}")


def _show_public(data: bytes) -> Shown:
    return _public(parse_public_key(data.decode("utf-8", "replace")))


def _public(key: PublicKey, *more: str) -> Shown:
    lines = [f"  name         {key.name}", f"  public key   {key}", f"  fingerprint  {key.fingerprint}"]
    document: JsonObject = {
        "name": key.name,
        "public_key": str(key),
        "fingerprint": key.fingerprint,
    }
    return document, [*lines, *(f"  {line}" for line in more)]


def _show_statement(data: bytes) -> Shown:
    signed = read_statement(data)
    return signed.to_json(), list(describe(signed))


def _show_file(data: bytes) -> Shown:
    file = parse_release_file(data)
    return file.to_json(), [*_head(file), *_all(item.signed for item in file.releases)]


def _head(file: ReleaseFile) -> Iterator[str]:
    checkpoint = file.checkpoint
    yield f"log {checkpoint.origin}, size {checkpoint.size}, as of {format_time(checkpoint.time_s)}"
    yield f"  root {checkpoint.root.hex()}"
    if file.consistency:
        sizes = [size for size, _ in file.consistency]
        yield f"  proves growth from {len(sizes)} sizes, {min(sizes)} to {max(sizes)}"


def _show_log(data: bytes) -> Shown:
    log = parse_log(data)
    if not log.entries:
        raise ConfigError("an empty file")
    root = log.checkpoint("", 0).root.hex()
    entries: list[JsonValue] = [entry.to_json() for entry in log.entries]
    document: JsonObject = {"size": len(log.entries), "root": root, "entries": entries}
    return document, [f"size {len(log.entries)}, root {root}", *_all(log.entries)]


def _all(statements: "Iterator[SignedStatement] | tuple[SignedStatement, ...]") -> Iterator[str]:
    for signed in statements:
        yield from describe(signed)


def _show_checkpoint(data: bytes) -> Shown:
    note = parse_note(data.decode("utf-8", "replace"))
    checkpoint = read_checkpoint(note)
    signers = [f"{name}+{key_id.hex()}" for name, key_id, _ in note.signatures]
    document: JsonObject = {
        "origin": checkpoint.origin,
        "size": checkpoint.size,
        "root": checkpoint.root.hex(),
        "time": format_time(checkpoint.time_s),
        "keys": [*signers],
    }
    return document, [
        f"log {checkpoint.origin}, size {checkpoint.size}, as of {format_time(checkpoint.time_s)}",
        f"  root {checkpoint.root.hex()}",
        *(f"  claims a signature by {signer}" for signer in signers),
    ]


_KINDS: Final[tuple[tuple[str, Callable[[bytes], Shown]], ...]] = (
    ("public key", _show_public),
    ("private key", _show_key),
    ("release file", _show_file),
    ("checkpoint", _show_checkpoint),
    # Before statements: a log of one entry is a signed statement, in its one form.
    ("log", _show_log),
    ("statement", _show_statement),
)

PARSERS: Final[tuple[Callable[["Subparsers[argparse.ArgumentParser]"], argparse.ArgumentParser], ...]] = (
    _verify,
    _show,
)
"""What :mod:`adyton.commands.release` registers."""
