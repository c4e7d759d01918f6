# SPDX-License-Identifier: Apache-2.0
"""``adyton verify``: appraise the appliance now, and say what was checked."""

import argparse
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Final, TextIO

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from adyton.commands.attestation_result import read_signing_key
from adyton.commands.options import (
    EXIT_CODES,
    OK,
    REFUSED,
    add_connection_options,
    add_trust_options,
    connect,
    save_bytes,
    save_json,
    save_text,
    simulation,
)
from adyton.edge import wall_clock_s
from adyton.receipts import ReportFile
from adyton.session import Attested, Verdict, refused_evidence
from adyton.terminal import emit_json, paint, print_explained, printable, say
from adyton.trust import appraiser_for
from adyton.verification_page import Verification, verification_page
from adyton_attestation.check_words import ExplainedCheck, explain_checks
from adyton_attestation.checks import checks_of, endorsements_at_fault, failed_check
from adyton_attestation.eat import sign_result
from adyton_attestation.policy import AppraisalPolicy
from adyton_attestation.times import format_time
from adyton_protocol.cmw_evidence import WrappedEvidence, encode_evidence
from adyton_protocol.errors import AttestationError, ConfigError
from adyton_protocol.media import CMW_CBOR, CMW_JSON
from adyton_protocol.report import parse_report

_EXAMPLES = """examples:
  adyton verify --simulated
  adyton verify --simulated --brief
  adyton verify --policy policy.toml --url https://appliance.example
  adyton verify --policy policy.toml --eat-key auditor.key --eat result.jwt
  adyton verify --policy policy.toml --html verification.html https://appliance.example
  adyton verify --simulated --json | jq '.checks[] | select(.verdict != "pass")'

"""

JSON_VERSION: Final = 1
"""Of what ``--json`` prints; ``docs/reports.md`` describes it and says what a new number would mean."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "verify",
        help="check what runs in the enclave, line by line",
        description="Fetch fresh evidence, appraise it, and print each check as pass, fail or skip, with what was "
        "found and the rule that it was held to.",
        epilog=_EXAMPLES + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("address", nargs="?", metavar="URL", help="address of the appliance; same as --url")
    parser.add_argument(
        "--brief",
        action="store_true",
        help="one line for a check that passed, without the rule that it was held to",
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.add_argument(
        "--html",
        type=Path,
        metavar="FILE",
        help="write the result, accepted or refused, as one page that fetches nothing and holds no script",
    )
    parser.add_argument(
        "--save-report",
        type=Path,
        metavar="FILE",
        help="keep evidence, endorsements, challenge and time, to repeat the appraisal later",
    )
    group = parser.add_argument_group("for third parties")
    group.add_argument(
        "--eat",
        type=Path,
        metavar="FILE",
        help="write the result as a signed token (EAT as JWT), with --eat-key; check it with attestation-result verify",
    )
    group.add_argument(
        "--eat-key",
        type=Path,
        metavar="KEY",
        help="private key of whoever vouches (attestation-result keygen)",
    )
    group.add_argument(
        "--eat-passphrase-file",
        type=Path,
        metavar="FILE",
        help="take the passphrase of --eat-key from its first line",
    )
    group.add_argument(
        "--eat-nonce", metavar="TEXT", help="nonce that the third party wants to see in the token"
    )
    group.add_argument(
        "--save-cmw",
        type=Path,
        metavar="FILE",
        help="write evidence and endorsements as one RFC 9999 collection, in CBOR if FILE ends in .cbor, else in JSON",
    )
    add_trust_options(parser)
    add_connection_options(parser)
    parser.set_defaults(run=run)


def _signing_key(args: argparse.Namespace) -> Ed25519PrivateKey | None:
    """The key of whoever vouches for the result, if somebody does.

    Raises:
        ConfigError: The options are unusable, or the key is.
    """
    if (args.eat is None) != (args.eat_key is None):
        raise ConfigError("--eat FILE and --eat-key KEY go together")
    if args.eat_passphrase_file is not None and args.eat_key is None:
        raise ConfigError("--eat-passphrase-file does nothing without --eat-key")
    if args.eat_nonce is not None and not 8 <= len(args.eat_nonce) <= 88:  # noqa: PLR2004 - RFC 9711 section 4.1
        raise ConfigError("--eat-nonce takes 8 to 88 characters")
    return None if args.eat_key is None else read_signing_key(args.eat_key, args.eat_passphrase_file)


def run(args: argparse.Namespace) -> int:
    """Carry out the command.

    Raises:
        ConfigError: The options are unusable, or a file cannot be read or written.
    """
    # Before anything is asked for, so that a missing key is found at once.
    key = _signing_key(args)
    if args.address is not None:
        args.url = args.address
    policy = appraiser_for(args.policy, simulation(args)).policy
    # The verdict belongs under its banner, so the banner goes where the verdict goes.
    with connect(args, banner=sys.stderr if args.json else sys.stdout) as client:
        try:
            verdict = client.verify()
        except AttestationError as error:
            _report_refusal(error, policy, args)
            return REFUSED
        if args.save_report is not None:
            save_json(args.save_report, ReportFile.of(client.attest()).to_json())
        attested = client.attest()
        if args.save_cmw is not None:
            _save_cmw(args.save_cmw, attested)
        if key is not None:
            token = sign_result(verdict, key, now_s=wall_clock_s(), build=_build(), nonce=args.eat_nonce)
            save_bytes(args.eat, token.encode("ascii") + b"\n")
    checks = explain_checks(verdict.checks, policy, attested.appraised_at_s)
    if args.html is not None:
        save_text(
            args.html,
            verification_page(
                Verification(
                    url=args.url,
                    policy=policy,
                    at_s=attested.appraised_at_s,
                    build=_build(),
                    simulated=verdict.tee_type != "sgx",
                    checks=checks,
                    attested=attested,
                )
            ),
        )
    if args.json:
        emit_json(
            {"version": JSON_VERSION, "url": args.url}
            | verdict.to_json()
            | {
                "simulated": verdict.tee_type != "sgx",
                "checks": [check.to_json() for check in checks],
                "endorsements": {"from": attested.origin, "notice": attested.notice},
            }
        )
    else:
        _print_acceptance(verdict, checks, attested, args, sys.stdout)
    return OK


def _build() -> str:
    return f"adyton {version('adyton')}"


def _save_cmw(path: Path, attested: Attested) -> None:
    media_type = CMW_CBOR if path.suffix == ".cbor" else CMW_JSON
    evidence = WrappedEvidence(report=parse_report(attested.report), endorsements=attested.endorsements)
    save_bytes(path, encode_evidence(evidence, media_type))


def _print_acceptance(
    verdict: Verdict,
    checks: tuple[ExplainedCheck, ...],
    attested: Attested,
    args: argparse.Namespace,
    out: TextIO,
) -> None:
    simulated = verdict.tee_type != "sgx"
    say(paint(f"attestation of {args.url}", "bold", out), out)
    print_explained(checks, out, brief=args.brief)
    for model in verdict.keyset.extension.models:
        say(f"model {model.name}: {model.identity}", out)
    say(f"endorsements: from {attested.origin}", out)
    if attested.notice is not None:
        say(paint(f"note: {attested.notice}", "yellow", out), out)
    if simulated:
        say(paint("verdict: accepted as SIMULATED; nothing here is protected", "yellow", out), out)
    else:
        say(paint("verdict: accepted", "green", out), out)


def _report_refusal(error: AttestationError, policy: AppraisalPolicy, args: argparse.Namespace) -> None:
    evidence, simulated = refused_evidence(error), args.simulated
    at_s = wall_clock_s() if evidence is None else evidence.appraised_at_s
    checks = explain_checks(checks_of(error), policy, at_s)
    if args.html is not None:
        save_text(
            args.html,
            verification_page(
                Verification(
                    url=args.url,
                    policy=policy,
                    at_s=at_s,
                    build=_build(),
                    simulated=simulated,
                    checks=checks,
                    error=error,
                    evidence=evidence,
                )
            ),
        )
    if args.json:
        emit_json(
            {
                "version": JSON_VERSION,
                "url": args.url,
                "verdict": "refused",
                "simulated": simulated,
                "error": error.code,
                "check": failed_check(error),
                "message": str(error),
                "endorsements_at_fault": endorsements_at_fault(error),
                "appraised_at": format_time(at_s),
                "policy": {"name": policy.name, "digest": policy.digest()},
                "checks": [check.to_json() for check in checks],
            }
        )
        return
    print_explained(checks, sys.stdout, brief=args.brief)
    say(paint(f"verdict: refused: {error.code}: {printable(str(error))}", "red", sys.stdout), sys.stdout)
    if endorsements_at_fault(error):
        say(
            "The endorsements are at fault, and nothing is known about the platform. Another source may have",
            sys.stdout,
        )
        say("better ones: --endorsements pcs, pccs=URL, or a FILE.", sys.stdout)
    say("nothing was sent to the appliance")
