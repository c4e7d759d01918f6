# SPDX-License-Identifier: Apache-2.0
"""``adyton release keygen | draft | sign | append | export``: the commands that write files."""

import argparse
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from adyton.commands.options import OK, read_file
from adyton.commands.release_words import describe
from adyton.edge import wall_clock_s
from adyton.release_files import (
    append_line,
    ask_passphrase,
    checkpoint_path,
    create_key,
    load_key,
    open_log,
    replace_file,
)
from adyton.terminal import emit_json, paint, say
from adyton_attestation.private_keys import PrivateKey
from adyton_attestation.release_log import ReleaseLog, sign_checkpoint
from adyton_attestation.release_statement import (
    SignedStatement,
    parse_signed_statement,
    parse_statement,
    statement_document,
)
from adyton_attestation.signed_note import SignedNote
from adyton_protocol.digests import jcs
from adyton_protocol.errors import ConfigError, LocalProtocolError, ReferenceValueError
from adyton_protocol.strict_json import JsonObject, JsonValue, parse_json

Subparsers = argparse._SubParsersAction  # noqa: SLF001 - argparse has no public name for it.
_DAY_S: Final = 86_400
_DEFAULT_DAYS: Final = 180
_MAX_BYTES: Final = 128 * 1024


def _keygen(actions: "Subparsers[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    parser = actions.add_parser(
        "keygen",
        help="make a key for a signer or for the log's keeper",
        description="Make an Ed25519 key, sealed under a passphrase, and print its public half and its "
        "fingerprint. Do it on a machine without a network; read the fingerprint aloud to a witness.",
        epilog="""examples:
  adyton release keygen --name alice@example.org --out alice.key
  adyton release keygen --name releases.example.org/adyton --out keeper.key

""",
    )
    parser.add_argument("--name", required=True, help="whose key it is; for the keeper: the name of the log")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="key file, made with mode 0600"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--passphrase-file", type=Path, metavar="FILE", help="take the passphrase from its first line"
    )
    how.add_argument(
        "--insecure-no-passphrase",
        action="store_true",
        help="leave the key in the clear, protected by its mode alone: for a keeper's machine that signs unattended",
    )
    parser.set_defaults(run=run_keygen)
    return parser


def run_keygen(args: argparse.Namespace) -> int:
    """Carry out ``release keygen``."""
    passphrase = (
        None
        if args.insecure_no_passphrase
        else ask_passphrase("new passphrase: ", args.passphrase_file, twice=True)
    )
    try:
        key = create_key(args.out, args.name, passphrase)
    except LocalProtocolError as error:
        raise ConfigError(f"--name: {error}") from error
    public = args.out.with_name(args.out.name + ".pub")
    replace_file(public, f"{key.public}\n".encode())
    if args.json:
        emit_json(
            {"key": str(args.out), "public_key": str(key.public), "fingerprint": key.public.fingerprint}
        )
        return OK
    out = sys.stdout
    say(f"private key  {args.out}  {'NOT sealed' if passphrase is None else 'sealed'}, mode 0600", out)
    say(f"public key   {public}", out)
    say(f"             {key.public}", out)
    say(f"fingerprint  {paint(key.public.fingerprint, 'bold', out)}", out)
    say("next: read the fingerprint aloud, write it on paper, copy the key file to two places", out)
    return OK


def _draft(actions: "Subparsers[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    parser = actions.add_parser(
        "draft",
        help="write the statement that people will review and sign",
        description="Write an unsigned statement. Nothing in it is secret; edit it, review it, then sign it. What "
        "is left out (configurations, models) is left to each client's policy.",
        epilog="""examples:
  adyton release draft --product adyton --release 7 --name 0.7.0 --mr-enclave 5f0c... \\
      --configuration sha256:91ab... --model abacus=sha256:77fe... --minimum-release 6 --out release-7.json
  adyton release draft --product adyton --release 8 --name withdraw-7 --minimum-release 8 --out release-8.json

The second names no enclave: it only withdraws.

""",
    )
    parser.add_argument("--product", required=True, help="what the log is of, for example adyton")
    parser.add_argument(
        "--release", type=int, required=True, metavar="N", help="number; higher than all before"
    )
    parser.add_argument("--name", required=True, help="version for people, for example 0.7.0")
    parser.add_argument(
        "--minimum-release",
        type=int,
        required=True,
        metavar="N",
        help="withdraw every release below this one",
    )
    parser.add_argument(
        "--mr-enclave", action="append", default=[], metavar="HEX", help="a measurement; may be repeated"
    )
    parser.add_argument(
        "--mr-signer",
        metavar="HEX:PRODUCT:SVN",
        help="instead of measurements: a signer, its product id and its lowest security version",
    )
    parser.add_argument(
        "--configuration", action="append", default=[], metavar="DIGEST", help="may be repeated"
    )
    parser.add_argument(
        "--model", action="append", default=[], metavar="NAME=DIGEST", help="an identity; may be repeated"
    )
    parser.add_argument(
        "--from",
        dest="begin",
        type=_moment,
        metavar="TIME",
        help="when it begins, as 2026-11-21T00:00:00Z (now)",
    )
    parser.add_argument(
        "--days", type=int, default=_DEFAULT_DAYS, help="how long it holds (default %(default)s)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the statement")
    parser.set_defaults(run=run_draft)
    return parser


def run_draft(args: argparse.Namespace) -> int:
    """Carry out ``release draft``."""
    begin_s = wall_clock_s() if args.begin is None else args.begin
    document = statement_document(
        product=args.product,
        release=args.release,
        name=args.name,
        not_before_s=begin_s,
        not_after_s=begin_s + args.days * _DAY_S,
        minimum_release=args.minimum_release,
        enclaves=_enclaves(args),
    )
    draft = parse_statement(json.dumps(document).encode())
    replace_file(args.out, json.dumps(document, indent=2).encode() + b"\n")
    if args.json:
        emit_json({"written": str(args.out), "statement": draft.document})
        return OK
    for line in describe(draft):
        say(line, sys.stdout)
    say(f"written to {args.out}; next, on the signers' machines: adyton release sign {args.out}", sys.stdout)
    return OK


def _enclaves(args: argparse.Namespace) -> list[JsonObject]:
    stated: JsonObject = {}
    if args.configuration:
        stated["configurations"] = list(args.configuration)
    models: dict[str, list[JsonValue]] = {}
    for text in args.model:
        name, equals, digest = text.partition("=")
        if not equals:
            raise ConfigError("--model is written NAME=DIGEST")
        models.setdefault(name, []).append(digest)
    if models:
        stated["models"] = {name: list(digests) for name, digests in models.items()}
    found: list[JsonObject] = [{"mr_enclave": text, **stated} for text in args.mr_enclave]
    if args.mr_signer is not None:
        signer, _, rest = args.mr_signer.partition(":")
        product, colon, svn = rest.partition(":")
        if not colon or not product.isdecimal() or not svn.isdecimal():
            raise ConfigError("--mr-signer is written HEX:PRODUCT:SVN")
        found.append(
            {
                "mr_signer": {
                    "mr_signer": signer,
                    "isv_prod_id": int(product),
                    "min_isv_svn": int(svn),
                },
                **stated,
            }
        )
    if stated and not found:
        raise ConfigError("configurations and models belong to an enclave; give --mr-enclave or --mr-signer")
    return found


def _moment(text: str) -> int:
    try:
        return int(datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())
    except ValueError as error:
        raise argparse.ArgumentTypeError("write the time as 2026-11-21T00:00:00Z") from error


def _sign(actions: "Subparsers[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    parser = actions.add_parser(
        "sign",
        help="sign a statement, or add a signature to a signed one",
        description="Show what a statement says, ask, and sign it. The second signer signs what the first one "
        "wrote; a key that is new adds its signature to a release that is out already, without a new log entry.",
        epilog="""examples:
  adyton release sign release-7.json --key alice.key --out release-7.signed.json
  adyton release sign release-7.signed.json --key bob.key --out release-7.signed.json

""",
    )
    parser.add_argument("statement", type=Path, metavar="STATEMENT", help="from draft, or from sign")
    _add_key(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the signed statement")
    parser.add_argument(
        "--yes", action="store_true", help="do not ask; you have read the statement elsewhere"
    )
    parser.set_defaults(run=run_sign)
    return parser


def run_sign(args: argparse.Namespace) -> int:
    """Carry out ``release sign``."""
    release = read_statement(read_file(args.statement, "statement"))
    # What is about to be signed belongs in front of eyes even when a program reads the result.
    shown = sys.stderr if args.json else sys.stdout
    for line in describe(release):
        say(line, shown)
    if not args.yes:
        _confirm(release)
    key = load_key(args.key, args.passphrase_file)
    signed = release.signed(key)
    replace_file(args.out, json.dumps(signed.to_json(), indent=2).encode() + b"\n")
    if args.json:
        emit_json({"written": str(args.out), **_facts(signed)})
        return OK
    say(f"signed by {key.name}, fingerprint {key.public.fingerprint}", sys.stdout)
    say(f"written to {args.out} , signatures: {len(signed.signatures)}", sys.stdout)
    return OK


def _confirm(release: SignedStatement) -> None:
    if not sys.stdin.isatty():
        raise ConfigError("there is no terminal to ask on; read the statement, then give --yes")
    number = release.statement.release
    say(f"type the number of the release, {number}, to sign it:", sys.stdout)
    if sys.stdin.readline().strip() != str(number):
        raise ConfigError("not signed")


def read_statement(data: bytes) -> SignedStatement:
    """Read a statement, bare or signed.

    Raises:
        ConfigError: Neither.
    """
    value = parse_json(data, max_bytes=_MAX_BYTES, what="statement", error=ConfigError)
    if not isinstance(value, dict) or "statement" not in value:
        return parse_statement(data)
    try:
        return parse_signed_statement(data)
    except ReferenceValueError as error:
        raise ConfigError(f"the signed statement is unusable: {error}") from error


def _append(actions: "Subparsers[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    parser = actions.add_parser(
        "append",
        help="enter a signed statement into the log, and sign the log's new checkpoint",
        description="Append a signed statement to the log and sign a new checkpoint beside it (FILE.checkpoint). "
        "What is in the log stays there. Clients refuse a checkpoint that is older than their policy's max_age_s: "
        "sign a fresh one in time with --refresh.",
        epilog="""examples:
  adyton release append release-7.signed.json --log releases.log --key keeper.key
  adyton release append --refresh --log releases.log --key keeper.key
  adyton release append --refresh --log releases.log --key keeper.key --key next-keeper.key

The last signs with two keys, while clients go over from one to the other.

""",
    )
    parser.add_argument("statement", type=Path, nargs="?", metavar="SIGNED", help="from sign")
    parser.add_argument("--refresh", action="store_true", help="append nothing; date the checkpoint now")
    parser.add_argument("--log", type=Path, required=True, metavar="FILE", help="the log; made if missing")
    _add_key(parser, many=True)
    parser.set_defaults(run=run_append)
    return parser


def run_append(args: argparse.Namespace) -> int:
    """Carry out ``release append``."""
    if (args.statement is None) != args.refresh:
        raise ConfigError("give either a signed statement or --refresh")
    kept = open_log(args.log)
    if kept.unsigned and not args.refresh:
        raise ConfigError(
            f"an append was interrupted: {kept.unsigned} entries have no checkpoint; finish it with --refresh"
        )
    log = kept.log
    new: SignedStatement | None = None
    if args.statement is not None:
        new = read_statement(read_file(args.statement, "statement"))
        log = log.appended(new)
    if not log.entries:
        raise ConfigError("the log is empty; there is nothing to sign")
    keys = [load_key(path, args.passphrase_file) for path in args.key]
    _check_keeper(kept.note, keys)
    if new is not None:
        append_line(args.log, log.line(len(log.entries) - 1))
    note = _signed_checkpoint(log, keys)
    replace_file(checkpoint_path(args.log), str(note).encode())
    if args.json:
        emit_json(
            {
                "log": str(args.log),
                "size": len(log.entries),
                "checkpoint": str(note),
                "appended": None if new is None else _facts(new),
            }
        )
        return OK
    say(
        f"{args.log}: size {len(log.entries)}" + ("" if new is None else f", the last is {new.statement}"),
        sys.stdout,
    )
    say(str(note).rstrip("\n"), sys.stdout)
    say(f"next: adyton release export --log {args.log} --out releases.json", sys.stdout)
    return OK


def _check_keeper(note: SignedNote | None, keys: list[PrivateKey]) -> None:
    """The log keeps its name; and, one after the other, its keys."""
    if len({key.name for key in keys}) != 1:
        raise ConfigError("the keeper's keys must share one name, which is the log's")
    if note is None:
        return
    origin = note.text.partition("\n")[0]
    if origin != keys[0].name:
        raise ConfigError(f"the log is {origin}; the key is named {keys[0].name}")
    known = {(name, key_id) for name, key_id, _ in note.signatures}
    if known.isdisjoint((key.name, key.public.key_id) for key in keys):
        raise ConfigError(
            "none of these keys signed the log before; to change its key, sign with the old and the new one "
            "(--key OLD --key NEW) until every client's policy names the new one"
        )


def _signed_checkpoint(log: ReleaseLog, keys: list[PrivateKey]) -> SignedNote:
    note = sign_checkpoint(log, keys[0], now_s=wall_clock_s())
    for key in keys[1:]:
        note = note.with_signature(key)
    return note


def _export(actions: "Subparsers[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    parser = actions.add_parser(
        "export",
        help="write the release file that clients get",
        description="Write the release file: every statement that is neither withdrawn nor expired, and the newest "
        "one, each with the proof that it is in the log; the checkpoint; and proofs that the log grew from each of "
        "its last 64 sizes. Needs no key. Copy it to the appliance's state directory as releases.json.",
        epilog="""examples:
  adyton release export --log releases.log --out releases.json
  adyton release export --log releases.log --out releases.json --since 3
  adyton release export --log releases.log --out releases.json --statement release-6.resigned.json

""",
    )
    parser.add_argument("--log", type=Path, required=True, metavar="FILE", help="the log")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the release file")
    parser.add_argument(
        "--since",
        type=int,
        action="append",
        default=[],
        metavar="SIZE",
        help="prove growth from this size, too; a client that was away for long names it",
    )
    parser.add_argument(
        "--statement",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a statement of the log with further signatures; may be repeated",
    )
    parser.set_defaults(run=run_export)
    return parser


def run_export(args: argparse.Namespace) -> int:
    """Carry out ``release export``."""
    kept = open_log(args.log)
    if kept.note is None:
        raise ConfigError(f"there is no log {args.log}")
    more = [read_statement(read_file(path, "statement")) for path in args.statement]
    file = kept.log.with_signatures_of(more).export(kept.note, now_s=wall_clock_s(), since=args.since)
    replace_file(args.out, jcs(file.to_json()) + b"\n")
    stated = [item.signed for item in file.releases]
    if args.json:
        emit_json({"written": str(args.out), "releases": [_facts(item) for item in stated]})
        return OK
    say(f"{args.out}: {', '.join(str(item.statement) for item in stated)}", sys.stdout)
    say(f"check it as a client would: adyton release verify {args.out} --policy policy.toml", sys.stdout)
    return OK


def _facts(signed: SignedStatement) -> JsonObject:
    return {
        "product": signed.statement.product,
        "release": signed.statement.release,
        "name": signed.statement.name,
        "signers": [str(key) for key, _ in signed.signatures],
    }


def _add_key(parser: argparse.ArgumentParser, *, many: bool = False) -> None:
    parser.add_argument(
        "--key",
        type=Path,
        required=True,
        metavar="FILE",
        action="append" if many else "store",
        help="key file from keygen",
    )
    parser.add_argument(
        "--passphrase-file", type=Path, metavar="FILE", help="take the passphrase from its first line"
    )


PARSERS: Final[tuple[Callable[["Subparsers[argparse.ArgumentParser]"], argparse.ArgumentParser], ...]] = (
    _keygen,
    _draft,
    _sign,
    _append,
    _export,
)
"""What :mod:`adyton.commands.release` registers."""
