# SPDX-License-Identifier: Apache-2.0
"""``adyton policy``: begin a policy, say in words what one accepts, and find what deserves a second look."""

import argparse
import sys
import textwrap
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Final

from adyton.commands.options import OK, REFUSED, read_file, simulation
from adyton.commands.policy_releases import (
    COPIED_SIGNERS,
    add_release_options,
    policy_of_releases,
    refuse_idle_options,
)
from adyton.edge import wall_clock_s
from adyton.terminal import Style, announce_simulation, emit_json, paint, printable, say
from adyton.trust import read_policy
from adyton_attestation.checks import NUMBERS
from adyton_attestation.policy import DAY_S, NO_EXPIRY_S, AppraisalPolicy
from adyton_attestation.policy_lint import Finding, lint_policy
from adyton_attestation.policy_starter import (
    STARTER_NAME,
    first_use_policy,
    policy_as_seen,
    starter_policy,
)
from adyton_attestation.policy_words import Standing, explain_policy
from adyton_attestation.times import format_time
from adyton_protocol.errors import ConfigError

_COLUMNS: Final = 96
_REVIEW_AFTER_S: Final = 365 * DAY_S
_STANDINGS: Final[dict[Standing, tuple[str, Style]]] = {
    "demanded": ("", "green"),
    "laxer": ("LAXER: ", "yellow"),
    "nothing": ("ACCEPTS NOTHING: ", "red"),
    "relaxed": ("RELAXED: ", "yellow"),
}
_LEVELS: Final[dict[str, Style]] = {"error": "red", "warning": "yellow"}

FIRST_USE: Final = (
    "TRUST ON FIRST USE. These values were copied from whoever answered: a genuine enclave, but not necessarily yours.",
    "Compare MRENCLAVE with the release, the configuration and the models with what the operator announced, and the",
    "machine with its custodian, over another channel, before anything confidential is sent under this policy.",
)
"""What stands above a policy that was filled in from evidence."""

_EXAMPLES: Final = """examples:
  adyton policy init --out policy.toml
  adyton policy init --release releases.json --log-key releases.example.org/adyton+... \\
      --signer alice@example.org+... --signer bob@example.org+... --out policy.toml
  adyton policy init --from-url https://appliance.example --custodian "Ann, rack team" --place "hall 2, rack 7"
  adyton policy explain policy.toml
  adyton policy lint policy.toml --strict

exit codes:
  0  done; lint found no error
  1  lint found an error (with --strict: or a warning); the evidence of --from-url or --report, or
     the release file, was refused
  2  unusable input: no policy, or one that contradicts itself
  3  the appliance cannot be reached
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "policy",
        help="write, explain and check appraisal policies",
        description="A policy says what an enclave must prove before anything is sent to it. It is a TOML file that "
        "you own; docs/policy.md explains each member.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="policy_command", required=True, metavar="COMMAND")
    _add_init(commands)
    explain = commands.add_parser(
        "explain",
        help="say in plain words what a policy accepts, and what is relaxed until when",
        description="Say for each rule of a policy, in plain words, what it accepts at a time.",
    )
    lint = commands.add_parser(
        "lint",
        help="find what accepts nothing, what is lax and what ends soon",
        description="Find what deserves a second look. Errors are what nobody can have meant: a rule that nothing "
        "passes, a value that was never filled in. Warnings are choices to make again now and then.",
    )
    lint.add_argument("--strict", action="store_true", help="exit with 1 on warnings, too")
    for command in (explain, lint):
        command.add_argument("file", type=Path, metavar="FILE", help="the policy")
        command.add_argument(
            "--at", type=_unix_time, metavar="UNIX_TIME", help="at this time instead of now, in seconds"
        )
        command.add_argument("--json", action="store_true", help="print one JSON object")
    explain.set_defaults(run=run_explain)
    lint.set_defaults(run=run_lint)


def _add_init(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    init = commands.add_parser(
        "init",
        help="begin a policy: strict, with a comment on every member",
        description="Write a strict policy with a comment on every member. It names no enclave and therefore accepts "
        "none; fill in what the release and the operator state. It can be filled in from a release file and the "
        "keys of those who signed it; or from what an appliance shows, which is trust on first use: compare before "
        "you rely on it.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    init.add_argument(
        "--out", type=Path, metavar="FILE", help="write here, mode 0644 (default: standard output)"
    )
    init.add_argument("--force", action="store_true", help="replace FILE when it exists")
    init.add_argument("--name", default=STARTER_NAME, help="a name for people; part of the policy's digest")
    add_release_options(init)
    seen = init.add_argument_group("trust on first use")
    choice = seen.add_mutually_exclusive_group()
    choice.add_argument("--from-url", metavar="URL", help="copy the values that this appliance attests now")
    choice.add_argument(
        "--report", type=Path, metavar="FILE", help="copy them from what `adyton verify --save-report` kept"
    )
    seen.add_argument("--custodian", metavar="WHO", help="who keeps the machine")
    seen.add_argument("--place", metavar="WHERE", help="where it stands")
    seen.add_argument(
        "--simulated", action="store_true", help="the appliance is a simulated one, which protects nothing"
    )
    seen.add_argument("--simulation-dir", type=Path, metavar="DIR", help="where the simulation lives")
    init.add_argument("--json", action="store_true", help="print the policy's values as one JSON object, too")
    init.set_defaults(run=run_init)


def run_init(args: argparse.Namespace) -> int:
    """Carry out ``adyton policy init``.

    Raises:
        ConfigError: The file exists, or the input is unusable.
        AttestationError: The evidence to copy from is not genuine, or the release file does not hold.
    """
    if args.out is not None and args.out.exists() and not args.force:
        raise ConfigError(f"{args.out} exists; choose another name, or replace it with --force")
    # To the day, so that the file reads well; after a year somebody shall look again.
    until_s = (wall_clock_s() + _REVIEW_AFTER_S) // DAY_S * DAY_S
    refuse_idle_options(args)
    first_use = args.from_url is not None or args.report is not None
    if not first_use and (args.simulated or args.custodian or args.place):
        raise ConfigError("--simulated, --custodian and --place go with --from-url or --report")
    if first_use:
        _emit(_seen(args, until_s=until_s), args, warning=FIRST_USE)
    elif args.release is not None:
        policy, found, copied = policy_of_releases(args, until_s=until_s)
        _emit(policy, args, warning=COPIED_SIGNERS if copied else (), found=found)
    else:
        _emit(starter_policy(args.name, advisories_until_s=until_s), args)
    return OK


def _emit(
    policy: AppraisalPolicy,
    args: argparse.Namespace,
    *,
    warning: tuple[str, ...] = (),
    found: tuple[str, ...] = (),
) -> None:
    """Write the policy where it was asked for, and above it and on standard error a warning and what was found."""
    text = policy.to_toml()
    if warning or found:
        text = "".join(f"# {printable(line)}\n" for line in (*warning, *found)) + "#\n" + text
    if args.out is not None:
        _write(args.out, text)
    if args.json:
        document = {
            "policy": policy.to_json(),
            "digest": policy.digest(),
            "trust_on_first_use": bool(warning),
        }
        emit_json(document)
    elif args.out is None:
        sys.stdout.write(text)
    for line in warning:
        say(paint(line, "yellow", sys.stderr))
    for line in found:
        say(printable(line))
    if args.out is not None:
        say(f"wrote {args.out}; next: adyton policy lint {args.out}")


def run_explain(args: argparse.Namespace) -> int:
    """Carry out ``adyton policy explain``."""
    policy, at_s = read_policy(args.file), wall_clock_s() if args.at is None else args.at
    statements = explain_policy(policy, at_s)
    if args.json:
        emit_json(
            {
                "name": policy.name,
                "digest": policy.digest(),
                "at": format_time(at_s),
                "rules": [item.to_json() for item in statements],
            }
        )
        return OK
    out = sys.stdout
    say(paint(f"{printable(policy.name)}", "bold", out), out)
    say(f"{policy.digest()}, as of {format_time(at_s)}", out)
    for rule, group in groupby(statements, key=lambda item: (item.rule, item.check)):
        path, check = rule
        say(f"\n{path}{'' if check is None else f' (check {NUMBERS[check]}, {check.value})'}", out)
        for item in group:
            word, style = _STANDINGS[item.standing]
            lines = textwrap.wrap(
                printable(item.text), _COLUMNS, break_long_words=False, break_on_hyphens=False
            )
            say(f"  {paint(word, style, out)}" + "\n    ".join(lines), out)
    say(
        "\nWhatever a policy says: genuine signatures below Intel's root, no debugger, nothing revoked, no endorsement "
        "older than one seen before, an answer to this very challenge, keys that the quote binds.",
        out,
    )
    return OK


def run_lint(args: argparse.Namespace) -> int:
    """Carry out ``adyton policy lint``."""
    policy, at_s = read_policy(args.file), wall_clock_s() if args.at is None else args.at
    findings = lint_policy(policy, at_s)
    errors = [item for item in findings if item.level == "error"]
    failed = bool(findings if args.strict else errors)
    if args.json:
        emit_json(
            {
                "name": policy.name,
                "digest": policy.digest(),
                "at": format_time(at_s),
                "passed": not failed,
                "findings": [item.to_json() for item in findings],
            }
        )
    else:
        _print_findings(findings)
        say(f"{args.file}: {len(errors)} errors, {len(findings) - len(errors)} warnings", sys.stdout)
    return REFUSED if failed else OK


def _print_findings(findings: tuple[Finding, ...]) -> None:
    for item in findings:
        level = paint(item.level, _LEVELS[item.level], sys.stdout)
        say(f"{level} {item.rule} ({item.code}): {printable(item.message)}", sys.stdout)


def _seen(args: argparse.Namespace, *, until_s: int) -> AppraisalPolicy:
    """Look at an appliance, or at what somebody kept of one, and copy what it shows.

    Raises:
        AttestationError: The evidence is not genuine, or not sound by the strict rules that need no reference value.
        ConfigError: The report file is unusable.
        TransportError: The appliance cannot be reached.
    """
    # Imported here because the other commands need no HTTP client.
    from adyton.client import Client  # noqa: PLC0415
    from adyton.receipts import ReportFile  # noqa: PLC0415
    from adyton.trust import appraiser_for  # noqa: PLC0415

    installed = simulation(args)
    kept = None if args.report is None else ReportFile.parse(read_file(args.report, "report"))
    at_s = wall_clock_s() if kept is None or kept.appraised_at_s is None else kept.appraised_at_s
    look = first_use_policy(advisories_until_s=until_s, now_s=at_s)
    real = look if installed is None else None
    simulated = None if installed is None else replace(installed, policy=look)
    if simulated is not None:
        announce_simulation()
    if kept is None:
        with Client(args.from_url, policy=real, simulation=simulated) as client:
            verdict = client.verify()
    else:
        endorsements = kept.parse_endorsements()
        if endorsements is None or kept.challenge is None:
            raise ConfigError(
                f"{args.report} lacks the endorsements or the challenge; keep one by --save-report"
            )
        verdict = appraiser_for(real, simulated).appraise(
            kept.parse_report(), endorsements, challenge=kept.challenge, now_s=at_s
        )
    return policy_as_seen(
        verdict,
        name=args.name,
        custodian=args.custodian,
        place=args.place,
        advisories_until_s=until_s,
    )


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def _unix_time(text: str) -> int:
    try:
        seconds = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError("write the time as whole seconds since 1970") from error
    if not 0 <= seconds <= NO_EXPIRY_S:
        raise argparse.ArgumentTypeError("the time lies outside the years 1970 to 9999")
    return seconds
