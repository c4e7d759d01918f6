# SPDX-License-Identifier: Apache-2.0
"""Checked receipts: kept in memory by a client, saved to files, read back by somebody else.

A *receipt file* holds ``{"receipt": ...}``. A *report file* holds what the receipt's keys were appraised with:
``{"report", "endorsements", "challenge", "appraised_at", "releases"}``, all as received, so that the same appraisal
can be repeated offline at the same moment.
"""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from adyton.session import Attested
from adyton_attestation.endorsements import Endorsements, parse_endorsements
from adyton_protocol.digests import jcs
from adyton_protocol.errors import ConfigError
from adyton_protocol.keyset import MAX_NOT_AFTER_S
from adyton_protocol.receipt import Receipt, VerifiedReceipt, openings, receipt_from_json
from adyton_protocol.report import AttestationReport, report_from_json
from adyton_protocol.strict_json import JsonObject, parse_json

KEPT_RECEIPTS: Final = 32
"""How many receipts a client keeps; a caller that needs all of them takes each as it comes."""

MAX_FILE_BYTES: Final = 4 << 20
"""Largest receipt or report file that is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptRecord:
    """A receipt that was checked against the exchange it came from.

    Attributes:
        verified: The receipt, its signature verified under an attested key.
        attested: The appraisal whose keys signed it.
        secret: The receipt secret of the exchange, 32 bytes; it opens every commitment of the receipt.
    """

    verified: VerifiedReceipt
    attested: Attested
    secret: bytes = field(repr=False)

    @property
    def receipt(self) -> Receipt:
        """The receipt itself."""
        return self.verified.receipt

    def to_json(self) -> JsonObject:
        """Make the receipt file."""
        return {"receipt": self.receipt.to_json()}

    def openings(self, labels: Sequence[str]) -> dict[str, str]:
        """Return the opening keys of some commitments, in hexadecimal; disclose them to whoever shall check these.

        Each opens one text and tells nothing about the others.

        Raises:
            LocalProtocolError: A label is malformed.
        """
        return openings(self.secret, labels)

    def report_to_json(self) -> JsonObject:
        """Make the report file that the receipt can be checked against."""
        return ReportFile.of(self.attested).to_json()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFile:
    """Evidence at rest.

    Attributes:
        report: The attestation report.
        endorsements: The endorsements saved beside it, if any.
        challenge: The challenge that the report answers, if known.
        appraised_at_s: Unix time of the original appraisal, if known.
        releases: The release file that it was appraised with, if any.
    """

    report: JsonObject
    endorsements: JsonObject | None = None
    challenge: str | None = None
    appraised_at_s: int | None = None
    releases: JsonObject | None = None

    @classmethod
    def of(cls, attested: Attested) -> Self:
        """Take the evidence of an appraisal."""
        return cls(
            report=_object(attested.report, "attestation report"),
            endorsements=_object(attested.endorsements, "endorsements document"),
            challenge=attested.challenge,
            appraised_at_s=attested.appraised_at_s,
            releases=None if attested.releases is None else _object(attested.releases, "release file"),
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a report file, or a bare attestation report as the appliance serves it.

        Raises:
            ConfigError: The file is neither.
        """
        return cls.of_json(_object(data, "report file"))

    @classmethod
    def of_json(cls, document: JsonObject) -> Self:
        """As :meth:`parse`, from the parsed object.

        Raises:
            ConfigError: It is neither.
        """
        if "report" not in document:
            return cls(report=document)
        if unknown := document.keys() - {"report", "endorsements", "challenge", "appraised_at", "releases"}:
            raise ConfigError(f"the report file has an unknown member {min(unknown)!r}")
        report, endorsements = document["report"], document.get("endorsements")
        challenge, appraised_at = document.get("challenge"), document.get("appraised_at")
        releases = document.get("releases")
        if not isinstance(report, dict) or not isinstance(endorsements, dict | None):
            raise ConfigError("report and endorsements of a report file are JSON objects")
        if not isinstance(releases, dict | None):
            raise ConfigError("releases of a report file are a JSON object")
        if not isinstance(challenge, str | None) or not isinstance(appraised_at, int | None):
            raise ConfigError("a report file's challenge is a string and its appraised_at an integer")
        # A truth value is an integer to Python, and a time beyond year 9999 is one that no calendar here has.
        if isinstance(appraised_at, bool) or not 0 <= (appraised_at or 0) <= MAX_NOT_AFTER_S:
            raise ConfigError("a report file's appraised_at is no Unix time up to the year 9999")
        return cls(
            report=report,
            endorsements=endorsements,
            challenge=challenge,
            appraised_at_s=appraised_at,
            releases=releases,
        )

    def to_json(self) -> JsonObject:
        """Make the JSON object of the file."""
        return {
            "report": self.report,
            "endorsements": self.endorsements,
            "challenge": self.challenge,
            "appraised_at": self.appraised_at_s,
            "releases": self.releases,
        }

    @property
    def release_file(self) -> bytes | None:
        """The release file as an appraisal takes it."""
        return None if self.releases is None else jcs(self.releases)

    @property
    def is_real(self) -> bool:
        """Whether the report claims to come from hardware; only an appraisal says whether it does."""
        attestation = self.report.get("attestation")
        return isinstance(attestation, dict) and attestation.get("tee_type") == "sgx"

    def parse_report(self) -> AttestationReport:
        """Parse the report; nothing of it is trusted yet.

        Raises:
            MalformedEvidence: It is not an attestation report.
        """
        return report_from_json(self.report)

    def parse_endorsements(self) -> Endorsements | None:
        """Parse the endorsements, if there are any.

        Raises:
            EndorsementError: They are not endorsements.
        """
        return None if self.endorsements is None else parse_endorsements(jcs(self.endorsements))


def parse_receipt_file(data: bytes) -> Receipt:
    """Read a receipt file, or a bare receipt.

    Raises:
        ConfigError: The file is neither.
        ReceiptError: What it holds is not a receipt.
    """
    document = _object(data, "receipt file")
    return receipt_from_json(document.get("receipt", document))


class ReceiptLedger:
    """The last receipts of one client; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: deque[ReceiptRecord] = deque(maxlen=KEPT_RECEIPTS)

    def add(self, record: ReceiptRecord) -> None:
        """Keep a record, dropping the oldest when there are too many."""
        with self._lock:
            self._records.append(record)

    def all(self) -> tuple[ReceiptRecord, ...]:
        """Return the kept records, oldest first."""
        with self._lock:
            return tuple(self._records)

    def last(self) -> ReceiptRecord | None:
        """Return the newest record."""
        with self._lock:
            return self._records[-1] if self._records else None


def _object(data: bytes, what: str) -> JsonObject:
    document = parse_json(data, max_bytes=MAX_FILE_BYTES, what=what, error=ConfigError)
    if not isinstance(document, dict):
        raise ConfigError(f"{what}: not an object")
    return document
