# SPDX-License-Identifier: Apache-2.0
"""``adyton receipt audit``: check an archive of receipts again, offline, however long ago it was made."""

import argparse
import os
import sys
import textwrap
from importlib.metadata import version
from pathlib import Path
from typing import Final

from adyton.archive import read_archive
from adyton.audit import Audit, AuditedFile, audit_archive
from adyton.audit_page import AUDIT_SCOPE, audit_page, summary
from adyton.commands.options import (
    EXIT_CODES,
    OK,
    REFUSED,
    add_trust_options,
    save_text,
    simulation,
)
from adyton.edge import wall_clock_s
from adyton.terminal import ProgressLine, Style, announce_simulation, emit_json, one_line, paint, say
from adyton.trust import appraiser_for
from adyton_attestation.policy import NO_EXPIRY_S, AppraisalPolicy
from adyton_attestation.times import format_time
from adyton_protocol.errors import ConfigError

JSON_VERSION: Final = 1
"""Of what ``--json`` prints; ``docs/reports.md`` describes it."""

_EXAMPLES: Final = """examples:
  adyton ask ... --save-receipt kept/1.receipt.json --save-report kept/1.report.json
  adyton receipt audit kept --policy policy.toml
  adyton receipt audit kept --policy policy.toml --html audit.html --json > audit.json

Receipts, reports and search files are found by what is in them, in the directory and below it. A receipt
goes with the report that is about the keys that it names. Use the policy of the time: a policy of today
may no longer name the enclaves of years ago.

"""
_COLUMNS: Final = 100
_BAR: Final = 24
_PATH_COLUMNS: Final = 60
_REASON_COLUMNS: Final = 160


def register(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register ``receipt audit``."""
    parser = actions.add_parser(
        "audit",
        help="check an archive of receipts again, offline",
        description="Check every receipt below a directory against the report that was kept with it, and its evidence "
        "as of the time that the report file states. Says apart what has expired since. Goes on over damaged files.",
        epilog=_EXAMPLES + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="the archive")
    parser.add_argument(
        "--at", type=_unix_time, metavar="UNIX_TIME", help="what counts as now, for what has expired since"
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write the result as one self-contained page, too"
    )
    add_trust_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry out ``receipt audit``.

    Raises:
        ConfigError: The directory holds nothing to audit, or the options are unusable.
    """
    at_s = wall_clock_s() if args.at is None else args.at
    chosen = args.policy is not None or args.simulated
    appraiser = appraiser_for(args.policy, simulation(args)) if chosen else None
    policy = None if appraiser is None else appraiser.policy
    progress = ProgressLine()
    progress.show("looking for receipts")
    try:
        archive = read_archive(args.directory)
        if not archive.receipts and not archive.damaged:
            raise ConfigError(f"no receipt in {args.directory}; adyton ask --save-receipt FILE keeps one")
        audit = audit_archive(
            archive,
            appraiser,
            policy,
            now_s=at_s,
            progress=lambda done, total: progress.show(_bar(done, total)),
        )
    finally:
        progress.clear()
    if args.html is not None:
        save_text(
            args.html,
            audit_page(
                audit,
                _name(args.directory),
                at_s=at_s,
                policy=None if policy is None else f"{policy.name} ({policy.digest()})",
                build=f"adyton {version('adyton')}",
            ),
        )
    if audit.simulated:
        announce_simulation(sys.stderr if args.json else sys.stdout)
    if args.json:
        emit_json(_json(audit, _name(args.directory), policy, at_s))
    else:
        _print(audit)
    return OK if audit.passed else REFUSED


def _json(audit: Audit, directory: str, policy: AppraisalPolicy | None, at_s: int) -> dict[str, object]:
    return {
        "version": JSON_VERSION,
        "verdict": "valid" if audit.passed else "invalid",
        "directory": directory,
        "audited_at": format_time(at_s),
        "policy": None if policy is None else {"name": policy.name, "digest": policy.digest()},
        "appraised": audit.appraised,
        "simulated": audit.simulated,
        "summary": {
            "valid": audit.count("valid"),
            "invalid": audit.count("invalid"),
            "damaged": audit.count("damaged"),
            "no_report": audit.count("no-report"),
        },
        "files": [item.to_json() for item in audit.files],
        "unused_reports": list(audit.unused_reports),
        "other_files": list(audit.other_files),
    }


def _print(audit: Audit) -> None:
    out = sys.stdout
    for item in audit.files:
        style: Style = "green" if item.outcome == "valid" else "red"
        say(
            f"{paint(f'{item.outcome:<9}', style, out)}  {one_line(item.file, _PATH_COLUMNS)}: {_about(item)}",
            out,
        )
    say("", out)
    counts = summary(audit)
    width = max(len(word) for word, _ in counts)
    for word, number in counts:
        say(f"{word:<{width}}  {number:>6}", out)
    say("", out)
    say(textwrap.fill(AUDIT_SCOPE, _COLUMNS), out)
    say(f"audit: {_verdict(audit)}", out)


def _about(item: AuditedFile) -> str:
    if item.reason is not None:
        return one_line(f"{item.code}: {item.reason}", _REASON_COLUMNS)
    served = "" if item.served_at_s is None else f"served {format_time(item.served_at_s)}, "
    if item.appraised and item.appraised_at_s is not None:
        judged = f"accepted by the policy as of {format_time(item.appraised_at_s)}"
    else:
        judged = "not appraised"
    ended = f"; {len(item.ended)} ended since, first {item.ended[0].what}" if item.ended else ""
    return one_line(f"{served}{judged}{ended}", _REASON_COLUMNS)


def _verdict(audit: Audit) -> str:
    out, total = sys.stdout, len(audit.files)
    if not audit.passed:
        return paint(f"FAILED: {total - audit.count('valid')} of {total} files", "red", out)
    word = paint(f"all {total} valid", "green", out)
    if not audit.appraised:
        return f"{word} under their reports' keys; not all were appraised"
    return f"{word}{' (SIMULATED evidence)' if audit.simulated else ''}"


def _bar(done: int, total: int) -> str:
    filled = _BAR * done // total
    return f"[{'#' * filled}{'.' * (_BAR - filled)}] {done} of {total} receipts"


def _name(path: Path) -> str:
    return os.fsencode(path).decode("utf-8", "replace")


def _unix_time(text: str) -> int:
    try:
        seconds = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError("write the time as whole seconds since 1970") from error
    if not 0 <= seconds <= NO_EXPIRY_S:
        raise argparse.ArgumentTypeError("the time lies outside the years 1970 to 9999")
    return seconds
