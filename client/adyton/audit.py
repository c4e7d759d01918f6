# SPDX-License-Identifier: Apache-2.0
"""An archive of receipts, checked again offline, years later if need be.

Each receipt is checked against the report file that was kept with it, and that file's evidence is appraised as of the
time that it states, with the endorsements of that time: they have expired since, and that is no fault of theirs. What
has ended by now is listed apart and fails nothing.

SECURITY: the time is the archive's own word. Whoever can write to it could state a time at which a platform, since
revoked, was still good. What a signature does not cover, an audit cannot show; keep the archive where it is not edited.

No network; the present time is an argument.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, TypeAlias

from adyton.archive import Archive, KeptReceipt, read_regular
from adyton.receipt_checks import Checks, ReceiptCheck, appraised, check_receipt, failed
from adyton.receipts import ReportFile
from adyton.replay import MAX_SEARCH_FILE_BYTES, SearchFile, replay_search
from adyton.session import Appraiser, Verdict
from adyton_attestation.certificates import parse_chain
from adyton_attestation.endorsements import Endorsements
from adyton_attestation.genuineness import validity_periods
from adyton_attestation.marks import NO_MARKS, HighWaterMarks
from adyton_attestation.policy import AppraisalPolicy
from adyton_attestation.quote import CERTIFICATION_PCK_CHAIN, parse_quote
from adyton_attestation.times import format_time
from adyton_protocol.errors import AdytonError
from adyton_protocol.report import AttestationReport
from adyton_protocol.strict_json import JsonObject

Outcome: TypeAlias = Literal["valid", "invalid", "damaged", "no-report"]
"""``damaged``: cannot be read. ``no-report``: no report file is about the receipt's keys. All but ``valid`` fail."""

_AHEAD_S: Final = 300
"""How far two clocks may differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """Something that was in force at the appraisal and is not any more."""

    what: str
    at_s: int

    def to_json(self) -> JsonObject:
        """Return the JSON object."""
        return {"what": self.what, "ended_at": format_time(self.at_s)}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedFile:
    """What came of one file.

    Attributes:
        file: Its path below the archive's root.
        kind: ``receipt``, ``search``, or ``unknown`` for what cannot be read.
        outcome: See :data:`Outcome`.
        code: What failed, for programs: the name of a check, or the code of an error; None if nothing did.
        reason: The same in words.
        report: Path of the report file, if one was used.
        receipt_id: Of the receipt.
        model: That the request named.
        served_at_s: Unix time, by the enclave's clock.
        appraised_at_s: Unix time that the report file states.
        appraised: Whether a policy judged the evidence and accepted it.
        simulated: Whether the evidence is simulated.
        checks: Every line.
        ended: What has ended since, the first to end first.
    """

    file: str
    kind: Literal["receipt", "search", "unknown"]
    outcome: Outcome
    code: str | None = None
    reason: str | None = None
    report: str | None = None
    receipt_id: str | None = None
    model: str | None = None
    served_at_s: int | None = None
    appraised_at_s: int | None = None
    appraised: bool = False
    simulated: bool = False
    checks: tuple[ReceiptCheck, ...] = ()
    ended: tuple[Ended, ...] = ()

    def to_json(self) -> JsonObject:
        """Return the JSON object."""
        return {
            "file": self.file,
            "kind": self.kind,
            "outcome": self.outcome,
            "code": self.code,
            "reason": self.reason,
            "report": self.report,
            "receipt_id": self.receipt_id,
            "model": self.model,
            "served_at": None if self.served_at_s is None else format_time(self.served_at_s),
            "appraised_at": None if self.appraised_at_s is None else format_time(self.appraised_at_s),
            "appraised": self.appraised,
            "simulated": self.simulated,
            "checks": [check.to_json() for check in self.checks],
            "ended_since": [item.to_json() for item in self.ended],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What came of an archive.

    Attributes:
        files: Every receipt, and every file that cannot be read.
        unused_reports: Report files that no receipt goes with.
        other_files: JSON that is something else, and links.
    """

    files: tuple[AuditedFile, ...]
    unused_reports: tuple[str, ...]
    other_files: tuple[str, ...]

    def count(self, outcome: Outcome) -> int:
        """How many files came to this."""
        return sum(item.outcome == outcome for item in self.files)

    @property
    def passed(self) -> bool:
        """Whether there is a receipt, and nothing failed."""
        return bool(self.files) and self.count("valid") == len(self.files)

    @property
    def appraised(self) -> bool:
        """Whether a policy accepted the evidence behind every receipt."""
        return bool(self.files) and all(item.appraised for item in self.files)

    @property
    def simulated(self) -> bool:
        """Whether any of the evidence is simulated."""
        return any(item.simulated for item in self.files)


class _Listening:
    """An appraiser that keeps the last verdict of another one."""

    def __init__(self, appraiser: Appraiser) -> None:
        self._appraiser = appraiser
        self.verdict: Verdict | None = None

    def appraise(
        self,
        report: AttestationReport,
        endorsements: Endorsements,
        *,
        challenge: str,
        now_s: int,
        marks: HighWaterMarks = NO_MARKS,
        releases: bytes | None = None,
    ) -> Verdict:
        """Appraise; see :class:`~adyton.session.Appraiser`."""
        self.verdict = None
        self.verdict = self._appraiser.appraise(
            report, endorsements, challenge=challenge, now_s=now_s, marks=marks, releases=releases
        )
        return self.verdict


def audit_archive(
    archive: Archive,
    appraiser: Appraiser | None,
    policy: AppraisalPolicy | None,
    *,
    now_s: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Audit:
    """Check every receipt of an archive.

    Args:
        archive: Attacker-controlled.
        appraiser: The verifier to judge the evidence by; None leaves it unjudged, and each result says so.
        policy: The verifier's policy, for what of it has ended.
        now_s: Unix time, for what has ended since. No verdict of an appraisal depends on it.
        progress: Called with the number of receipts that are done, and of all.
    """
    audited = [
        AuditedFile(
            file=archive.name(item.path),
            kind="unknown",
            outcome="damaged",
            code=item.code,
            reason=item.reason,
        )
        for item in archive.damaged
    ]
    auditor = _Auditor(archive, appraiser, policy, now_s)
    for done, kept in enumerate(archive.receipts):
        progress(done, len(archive.receipts))
        audited.append(auditor.audit(kept))
    used = {item.report for item in audited}
    return Audit(
        files=tuple(sorted(audited, key=lambda item: item.file)),
        unused_reports=tuple(
            name for name in (archive.name(item.path) for item in archive.reports) if name not in used
        ),
        other_files=tuple(archive.name(path) for path in archive.others),
    )


class _Auditor:
    """Checks one receipt after the other."""

    def __init__(
        self, archive: Archive, appraiser: Appraiser | None, policy: AppraisalPolicy | None, now_s: int
    ) -> None:
        self._archive = archive
        self._appraiser = None if appraiser is None else _Listening(appraiser)
        self._policy = policy
        self._now_s = now_s

    def audit(self, kept: KeptReceipt) -> AuditedFile:
        """Check a receipt against the reports that go with it, until one holds."""
        if kept.is_search:
            return self._against(kept, None)
        first: AuditedFile | None = None
        for report in self._archive.reports_for(kept):
            found = self._against(kept, report)
            if found.outcome == "valid":
                return found
            first = first or found
        return first or self._result(
            kept, "no-report", "no-report", "no report file here is about the keys that the receipt names"
        )

    def _against(self, kept: KeptReceipt, report: Path | None) -> AuditedFile:
        """Check a receipt against one report file, or a search file against its own evidence."""
        checks = Checks()
        if self._appraiser is not None:
            self._appraiser.verdict = None
        evidence: ReportFile | None = None
        try:
            if report is None:
                search = SearchFile.parse(read_regular(kept.path, MAX_SEARCH_FILE_BYTES))
                evidence = search.evidence
                self._check_time(checks, evidence)
                for line in replay_search(search, self._appraiser):
                    checks.add(line.name, line.verdict, line.detail)
            else:
                evidence = ReportFile.parse(read_regular(report))
                self._check_time(checks, evidence)
                check_receipt(checks, kept.receipt, evidence, self._appraiser)
            ended = self._ended(evidence)
            simulated = evidence.parse_report().tee_type != "sgx"
        except AdytonError as error:
            # What the check before it found stays; this is the reason all the same.
            checks.add("form", "fail", f"{error.code}: {error}")
            ended, simulated = (), evidence is not None and not evidence.is_real
        except OSError as error:
            checks.add("form", "fail", f"cannot be read: {error.strerror}")
            ended, simulated = (), False
        broken = next((check for check in checks.lines if check.verdict == "fail"), None)
        return replace(
            self._result(
                kept,
                "invalid" if failed(checks.lines) else "valid",
                None if broken is None else broken.name,
                None if broken is None else broken.detail,
            ),
            report=None if report is None else self._archive.name(report),
            appraised_at_s=None if evidence is None else evidence.appraised_at_s,
            appraised=appraised(checks.lines),
            simulated=simulated,
            checks=checks.lines,
            ended=ended,
        )

    def _result(
        self, kept: KeptReceipt, outcome: Outcome, code: str | None, reason: str | None
    ) -> AuditedFile:
        return AuditedFile(
            file=self._archive.name(kept.path),
            kind="search" if kept.is_search else "receipt",
            outcome=outcome,
            code=code,
            reason=reason,
            receipt_id=kept.receipt.receipt_id,
            model=kept.receipt.model,
            served_at_s=kept.receipt.served_at,
        )

    def _check_time(self, checks: Checks, evidence: ReportFile) -> None:
        """Demand that the appraisal is said to have been in the past."""
        stated_s = evidence.appraised_at_s
        if stated_s is None:
            return checks.add("appraised-at", "skip", "the report file states no time")
        # SECURITY: nothing can be said of a time that has not come; evidence made today could be kept for it.
        if stated_s > self._now_s + _AHEAD_S:
            return checks.add(
                "appraised-at", "fail", f"the report file states {format_time(stated_s)}, ahead of now"
            )
        return checks.add("appraised-at", "pass", f"{format_time(stated_s)}, as the report file states")

    def _ended(self, evidence: ReportFile) -> tuple[Ended, ...]:
        """List what has ended by now; names in it are attacker-controlled."""
        report, endorsements = evidence.parse_report(), evidence.parse_endorsements()
        ends = [("the enclave's keys", report.keyset.not_after)]
        if endorsements is not None:
            section = parse_quote(report.quote).signature
            inside = section.certification_type == CERTIFICATION_PCK_CHAIN
            chain = parse_chain(section.certification_data, "PCK chain") if inside else ()
            ends += [(name, last_s) for name, _, last_s in validity_periods(endorsements, chain)]
        verdict = None if self._appraiser is None else self._appraiser.verdict
        if verdict is not None:
            ends += [
                (f"release {item.release} ({item.name})", item.not_after_s - 1) for item in verdict.releases
            ]
        if self._policy is not None:
            tcb = self._policy.tcb
            ends += [
                (f"the policy's exception for {item.status}", item.expires_s - 1) for item in tcb.exceptions
            ]
            ends += [
                (f"the policy's leave for {item.advisory_id}", item.expires_s - 1) for item in tcb.advisories
            ]
            ends += [
                (f"the policy's relaxation of {item.check.value}", item.expires_s - 1)
                for item in self._policy.relaxations
            ]
        found = {Ended(what=what, at_s=last_s) for what, last_s in ends if last_s < self._now_s}
        return tuple(sorted(found, key=lambda item: (item.at_s, item.what)))
