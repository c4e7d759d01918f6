# SPDX-License-Identifier: Apache-2.0
"""``adyton quote verify``: appraise a bare SGX or TDX quote offline, at a time of the caller's choice."""

import argparse
import base64
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from adyton.commands.options import OK, REFUSED, read_file
from adyton.terminal import announce_simulation, emit_json, paint, print_checks, say
from adyton_attestation.bare_quote import QuoteAppraisal, appraise_quote
from adyton_attestation.certificates import trust_anchor
from adyton_attestation.checks import NUMBERS, Check, CheckName, checks_of, failed_check
from adyton_attestation.endorsements import Endorsements, parse_endorsements
from adyton_attestation.policy import RAW_QUOTE_POLICY, AppraisalPolicy
from adyton_attestation.quote import Quote, SgxQuoteV3, looks_like_quote
from adyton_attestation.times import format_time
from adyton_protocol.errors import AttestationError, ConfigError, EndorsementError
from adyton_protocol.strict_json import JsonObject

JSON_VERSION: Final = 1
"""Of what ``--json`` prints; ``docs/reports.md`` describes it."""

_COLLATERAL: Final = (
    "pck_crl_issuer_chain",
    "root_ca_crl",
    "pck_crl",
    "tcb_info_issuer_chain",
    "tcb_info",
    "tcb_info_signature",
    "qe_identity_issuer_chain",
    "qe_identity",
    "qe_identity_signature",
)
_URL_SAFE: Final = str.maketrans("-_", "+/")
_MAX_TIME_S: Final = 253_402_300_799

_EPILOG: Final = """Without --policy, everything is checked but what needs reference values: signatures, certificate
chains, revocation, validity at the given time, TCB status (UpToDate, or SWHardeningNeeded with
INTEL-SA-00615 and INTEL-SA-00657 at most), debug. Which enclave it is, on which machine, is then
NOT checked, and the report says so. With --policy, everything in the policy applies.

Without --root, the root is Intel's. A root of your own whose subject begins with "Simulated" must
anchor certificates with simulated names; below any other root the names must be Intel's.

exit codes:
  0  accepted
  1  refused; the failing check is named
  2  unusable input: a file that cannot be read, or that is no quote, collateral, certificate or policy
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    quote = subparsers.add_parser("quote", help="appraise a bare SGX or TDX quote, offline")
    commands = quote.add_subparsers(dest="quote_command", required=True, metavar="COMMAND")
    verify = commands.add_parser(
        "verify",
        help="appraise a quote file against collateral at a given time",
        description="Appraise a bare SGX or TDX quote offline and print each check as pass, fail or skip.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verify.add_argument(
        "--quote",
        type=Path,
        required=True,
        metavar="FILE",
        help="the quote, binary, hexadecimal or base64; - for stdin",
    )
    verify.add_argument(
        "--collateral", type=Path, required=True, metavar="FILE", help="QuoteCollateralV3 JSON"
    )
    verify.add_argument(
        "--at", type=_unix_time, required=True, metavar="UNIX_TIME", help="time of the appraisal, in seconds"
    )
    verify.add_argument("--root", type=Path, metavar="PEM", help="a root certificate instead of Intel's")
    verify.add_argument("--policy", type=Path, metavar="FILE", help="appraisal policy with reference values")
    verify.add_argument(
        "--releases", type=Path, metavar="FILE", help="release file, for a policy with [releases]"
    )
    verify.add_argument("--json", action="store_true", help="print the result as one JSON object")
    verify.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry out the command.

    Raises:
        ConfigError: An input is unusable.
    """
    quote = _read_quote(args.quote)
    policy = _read_policy(args.policy)
    root_der = None if args.root is None else _read_root(args.root)
    collateral = _read_collateral(args.collateral)
    releases = None if args.releases is None else read_file(args.releases, "release")
    if root_der is not None and trust_anchor(root_der).vendor == "Simulated":
        announce_simulation(sys.stderr if args.json else sys.stdout)
    try:
        endorsements = _parse_collateral(collateral)
        appraisal = appraise_quote(
            quote, endorsements, policy, now_s=args.at, root_der=root_der, releases=releases
        )
    except AttestationError as error:
        _print_refusal(error, as_json=args.json)
        return REFUSED
    if args.json:
        emit_json(_acceptance_json(appraisal, args.at))
    else:
        _print_acceptance(appraisal, args.at)
    return OK


def _unix_time(text: str) -> int:
    try:
        seconds = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError("write the time as whole seconds since 1970") from error
    if not 0 <= seconds <= _MAX_TIME_S:
        raise argparse.ArgumentTypeError("the time lies outside the years 1970 to 9999")
    return seconds


def _read_quote(path: Path) -> bytes:
    data = read_file(path, "quote")
    for decoded in (data, *_decoded("".join(data.decode("latin-1").split()))):
        if looks_like_quote(decoded):
            return decoded
    raise ConfigError(f"{path} is not a quote, neither binary nor hexadecimal nor base64")


def _decoded(text: str) -> Iterator[bytes]:
    """Text without white space as it may be meant: hexadecimal, also after 0x, or base64 of either alphabet."""
    with contextlib.suppress(ValueError):
        yield bytes.fromhex(text[2:] if text[:2].lower() == "0x" else text)
    with contextlib.suppress(ValueError):
        padded = text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4)
        yield base64.b64decode(padded.translate(_URL_SAFE), validate=True)


def _read_policy(path: Path | None) -> AppraisalPolicy:
    return RAW_QUOTE_POLICY if path is None else AppraisalPolicy.from_toml(read_file(path, "policy"))


def _read_root(path: Path) -> bytes:
    try:
        (root,) = x509.load_pem_x509_certificates(read_file(path, "root certificate"))
        der = root.public_bytes(Encoding.DER)
        trust_anchor(der)
    except (ValueError, EndorsementError) as error:
        raise ConfigError(f"{path} does not hold exactly one root certificate in PEM") from error
    return der


def _read_collateral(path: Path) -> bytes:
    """Read a file that is meant to be collateral: the right members, whatever they hold."""
    data = read_file(path, "collateral")
    try:
        document: object = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path} is not a JSON object")
    missing = [name for name in _COLLATERAL if not isinstance(document.get(name), str)]
    if missing:
        raise ConfigError(f"{path} is not QuoteCollateralV3 JSON; as a string, it lacks {', '.join(missing)}")
    return data


def _parse_collateral(data: bytes) -> Endorsements:
    try:
        return parse_endorsements(data)
    except EndorsementError as error:
        check = CheckName.ENDORSEMENTS_FORMAT
        failed = Check(number=NUMBERS[check], name=check.value, verdict="fail", detail=str(error))
        vars(error).update(check=check.value, checks=(failed,))
        raise


def _not_checked(appraisal: QuoteAppraisal) -> list[str]:
    return [check.name for check in appraisal.checks if check.verdict == "skip"]


def _print_acceptance(appraisal: QuoteAppraisal, at_s: int) -> None:
    out = sys.stdout
    say(paint(f"quote appraised as of {format_time(at_s)}", "bold", out), out)
    print_checks(appraisal.checks, out)
    say(f"policy: {appraisal.policy_name} ({appraisal.policy_digest})", out)
    say(f"root:   sha256:{appraisal.root_sha256}", out)
    skipped = _not_checked(appraisal)
    if skipped:
        say(paint(f"NOT CHECKED: {', '.join(skipped)}", "yellow", out), out)
    verdict = "accepted as SIMULATED; nothing here is protected" if appraisal.simulated else "accepted"
    say(paint(f"verdict: {verdict}", "yellow" if appraisal.simulated else "green", out), out)


def _acceptance_json(appraisal: QuoteAppraisal, at_s: int) -> JsonObject:
    return {
        "version": JSON_VERSION,
        "verdict": "accepted",
        "simulated": appraisal.simulated,
        "appraised_at": format_time(at_s),
        "policy": {"name": appraisal.policy_name, "digest": appraisal.policy_digest},
        "root_sha256": appraisal.root_sha256,
        "checks": [check.to_json() for check in appraisal.checks],
        "not_checked": [*_not_checked(appraisal)],
        "quote": _quote_json(appraisal.quote),
        **appraisal.claims.to_json(),
        "marks": appraisal.marks.to_json(),
    }


def _quote_json(quote: Quote) -> JsonObject:
    common: JsonObject = {"version": quote.header.version, "report_data": quote.report.report_data.hex()}
    if isinstance(quote, SgxQuoteV3):
        return common | {
            "tee": "sgx",
            "mr_enclave": quote.report.mr_enclave.hex(),
            "mr_signer": quote.report.mr_signer.hex(),
            "isv_prod_id": quote.report.isv_prod_id,
            "isv_svn": quote.report.isv_svn,
        }
    return common | {
        "tee": "tdx",
        "mr_td": quote.report.mr_td.hex(),
        "rt_mr": [value.hex() for value in quote.report.rt_mrs],
    }


def _print_refusal(error: AttestationError, *, as_json: bool) -> None:
    checks = checks_of(error)
    if as_json:
        emit_json(
            {
                "version": JSON_VERSION,
                "verdict": "refused",
                "error": error.code,
                "check": failed_check(error),
                "message": str(error),
                "checks": [check.to_json() for check in checks],
            }
        )
        return
    print_checks(checks, sys.stdout)
    say(paint(f"verdict: refused: {error.code}: {error}", "red", sys.stdout), sys.stdout)
