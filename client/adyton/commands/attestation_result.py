# SPDX-License-Identifier: Apache-2.0
"""``adyton attestation-result``: signed results of appraisals, for those who did not appraise themselves."""

import argparse
import sys
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from adyton.commands.options import OK, REFUSED, read_file
from adyton.edge import wall_clock_s
from adyton.release_files import ask_passphrase, create_key, load_key, replace_file
from adyton.terminal import Style, emit_json, paint, print_checks, say
from adyton_attestation.eat import Tier, VerifiedResult, key_id, verify_result
from adyton_protocol.errors import AttestationError, ConfigError, LocalProtocolError

_STYLES: Final[dict[Tier, Style]] = {
    "affirming": "green", "warning": "yellow", "contraindicated": "red", "none": "red",
}  # fmt: skip

_EXAMPLES: Final = """examples:
  adyton attestation-result keygen --name auditor@example.org --key auditor.key --public auditor.pub
  adyton verify --policy policy.toml --eat-key auditor.key --eat result.jwt
  adyton attestation-result verify result.jwt --key auditor.pub

A result is the word of whoever holds the key: it says what one appraisal found, check by check, until when. It is no
evidence. What comes out is a tier of the RATS vocabulary: affirming; warning (accepted, with something that the policy
lives with); contraindicated; none (a simulated enclave, of which nothing is claimed).

exit codes:
  0  the token holds and its tier is affirming or warning
  1  the token does not hold, or its tier is contraindicated or none
  2  unusable input: wrong arguments, an unreadable file, no key
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "attestation-result",
        help="make keys for signed results of appraisals, and check such results",
        description="Signed attestation results (EAT, RFC 9711, as JWT with Ed25519) for third parties.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="result_command", required=True, metavar="COMMAND")
    keygen = commands.add_parser("keygen", help="make the key of somebody who vouches for appraisals")
    keygen.add_argument("--name", default="auditor", help="whose key it is; for people (default %(default)s)")
    keygen.add_argument(
        "--key", type=Path, required=True, metavar="FILE", help="where the private key goes, mode 0600"
    )
    keygen.add_argument(
        "--public", type=Path, required=True, metavar="FILE", help="where the public key goes (PEM)"
    )
    how = keygen.add_mutually_exclusive_group()
    how.add_argument(
        "--passphrase-file", type=Path, metavar="FILE", help="take the passphrase from its first line"
    )
    how.add_argument(
        "--insecure-no-passphrase",
        action="store_true",
        help="leave the key in the clear, protected by its mode alone: for a machine that signs unattended",
    )
    keygen.set_defaults(run=_keygen)
    verify = commands.add_parser(
        "verify",
        help="check a signed result",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verify.add_argument("token", type=Path, metavar="FILE", help="the token; - for stdin")
    verify.add_argument(
        "--key", type=Path, required=True, metavar="FILE", help="public key of whoever signed"
    )
    verify.add_argument("--nonce", metavar="TEXT", help="the nonce that you asked to be stated")
    verify.add_argument("--at", type=int, metavar="UNIX_TIME", help="check as of this time instead of now")
    verify.add_argument("--json", action="store_true", help="print the result as one JSON object")
    verify.set_defaults(run=_verify)


def read_signing_key(path: Path, passphrase_file: Path | None) -> Ed25519PrivateKey:
    """Read the private key of whoever vouches, asking for its passphrase if it has one and no file gives it.

    Raises:
        ConfigError: Not a key file, readable by others, or the passphrase is wrong.
    """
    return Ed25519PrivateKey.from_private_bytes(load_key(path, passphrase_file).seed)


def _read_public_key(path: Path) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(read_file(path, "public key"))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path} holds no public key in PEM") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{path} holds no Ed25519 key")
    return key


def _keygen(args: argparse.Namespace) -> int:
    if args.public.exists():
        raise ConfigError(f"{args.public} exists already; nothing was written")
    passphrase = (
        None
        if args.insecure_no_passphrase
        else ask_passphrase("new passphrase: ", args.passphrase_file, twice=True)
    )
    try:
        made = create_key(args.key, args.name, passphrase)
    except LocalProtocolError as error:
        raise ConfigError(f"--name: {error}") from error
    # What others check tokens with: the form that their libraries for JWT read.
    key = Ed25519PublicKey.from_public_bytes(made.public.raw)
    replace_file(args.public, key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    kept = "NOT sealed" if passphrase is None else "sealed"
    say(f"key {key_id(key)}: keep {args.key} ({kept}) to yourself, hand out {args.public}")
    return OK


def _verify(args: argparse.Namespace) -> int:
    key = _read_public_key(args.key)
    token = read_file(args.token, "attestation result").strip()
    at_s = wall_clock_s() if args.at is None else args.at
    try:
        found = verify_result(token, key, now_s=at_s, nonce=args.nonce)
    except AttestationError as error:
        if args.json:
            emit_json({"verdict": "refused", "error": error.code, "message": str(error)})
        else:
            say(paint(f"verdict: refused: {error.code}: {error}", "red", sys.stdout), sys.stdout)
        return REFUSED
    if args.json:
        emit_json({"verdict": "holds", "key": key_id(key), **found.to_json()})
    else:
        _print(found, key_id(key))
    return OK if found.tier in {"affirming", "warning"} else REFUSED


def _print(found: VerifiedResult, signer: str) -> None:
    out = sys.stdout
    say(paint(f"attestation result signed by key {signer}", "bold", out), out)
    print_checks(found.checks, out)
    for category, value in found.vector.items():
        say(f"{category}: {value}", out)
    say(paint(f"tier: {found.tier}", _STYLES[found.tier], out), out)
