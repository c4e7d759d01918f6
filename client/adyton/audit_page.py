# SPDX-License-Identifier: Apache-2.0
"""What ``adyton receipt audit --html`` writes: an audited archive as a page for people."""

from collections.abc import Iterator
from typing import Final

from adyton.audit import Audit, AuditedFile, Outcome
from adyton.html import Content, Markup, Style, element, facts, joined, listed, page, section, table
from adyton_attestation.times import format_time

AUDIT_SCOPE: Final = (
    "What this shows: enclaves whose keys stand in these reports signed these receipts, and, where a policy judged "
    "them, that it accepted those enclaves at the times that the report files state. What it cannot show: receipts "
    "that were taken away, the words of question and answer, and that the stated times are true."
)
_STYLES: Final[dict[Outcome, Style]] = {
    "valid": "pass",
    "invalid": "fail",
    "damaged": "fail",
    "no-report": "fail",
}


def summary(audit: Audit) -> tuple[tuple[str, int], ...]:
    """Count what came of an archive, in the order in which people ask."""
    return (
        ("valid", audit.count("valid")),
        ("valid, and appraised by the policy", sum(x.appraised for x in audit.files if x.outcome == "valid")),
        ("invalid", audit.count("invalid")),
        ("damaged", audit.count("damaged")),
        ("without a report", audit.count("no-report")),
        ("something has ended since", sum(bool(item.ended) for item in audit.files)),
        ("reports without a receipt", len(audit.unused_reports)),
        ("other files", len(audit.other_files)),
    )


def audit_page(audit: Audit, directory: str, *, at_s: int, policy: str | None, build: str) -> str:
    """Write the page; every name and detail is text in it and nothing else."""
    return page(
        f"Audit of {directory}",
        _verdict(audit),
        section(
            "This audit",
            facts(
                (
                    ("Archive", directory),
                    ("Audited at", format_time(at_s)),
                    ("Policy", policy or "none: the evidence was not appraised"),
                    ("Audited by", build),
                )
            ),
            table(
                "What came of the files", ("Result", "Files"), [(word, str(n)) for word, n in summary(audit)]
            ),
        ),
        section(
            "Receipts",
            table(
                "Every receipt, and every file that cannot be read",
                ("File", "Result", "Receipt", "Served", "Appraised as of", "Why", "Ended since"),
                [_row(item) for item in audit.files],
            ),
        ),
        *_failures(audit),
        section("Not audited", element("p", "Reports without a receipt, and other files:"), _rest(audit)),
        element("footer", element("p", AUDIT_SCOPE, style="quiet")),
        simulated=audit.simulated,
    )


def _verdict(audit: Audit) -> Markup:
    if not audit.passed:
        wrong = len(audit.files) - audit.count("valid")
        return element(
            "p", element("strong", f"FAILED: {wrong} of {len(audit.files)} files"), style="verdict fail"
        )
    if not audit.appraised:
        return element("p", element("strong", "Valid, but not appraised by any policy"), style="verdict skip")
    if audit.simulated:
        return element(
            "p",
            element("strong", "Valid, with SIMULATED evidence; nothing was protected"),
            style="verdict skip",
        )
    return element("p", element("strong", "Valid"), style="verdict pass")


def _row(item: AuditedFile) -> tuple[Content, ...]:
    return (
        item.file,
        element("span", item.outcome, style=_STYLES[item.outcome]),
        f"{item.receipt_id or 'none'}, {item.model or 'no model named'}",
        "unknown" if item.served_at_s is None else format_time(item.served_at_s),
        format_time(item.appraised_at_s)
        if item.appraised and item.appraised_at_s is not None
        else "not appraised",
        "" if item.reason is None else f"{item.code}: {item.reason}",
        listed([f"{ended.what}, {format_time(ended.at_s)}" for ended in item.ended])
        if item.ended
        else "nothing",
    )


def _failures(audit: Audit) -> Iterator[Markup]:
    for item in audit.files:
        if item.outcome != "valid" and item.checks:
            yield section(
                f"Why {item.file} failed",
                table(
                    "Every check that was made",
                    ("No.", "Verdict", "Check", "Found"),
                    [
                        (
                            str(c.number),
                            element("span", c.verdict, style=c.verdict),
                            element("code", c.name),
                            c.detail,
                        )
                        for c in item.checks
                    ],
                ),
            )


def _rest(audit: Audit) -> Markup:
    names = (*audit.unused_reports, *audit.other_files)
    return listed(names) if len(names) > 1 else joined([element("p", names[0] if names else "none")])
