# SPDX-License-Identifier: Apache-2.0
"""Making the choice of a search again, offline, from a file that its caller hands to an auditor.

::

    answer = sdk.chat.completions.create(..., extra_body={"scaling": {"strategy": "rebase", "return": "all"}})
    file = SearchFile.of(client.last_receipt, SearchReport.of(answer))
    path.write_text(json.dumps(file.to_json()))                       # for the auditor, who does:
    checks = replay_search(SearchFile.parse(path.read_bytes()), Verifier(policy))

A *search file* holds ``{"receipt", "evidence", "transcript", "openings", "request", "response"}``: the receipt, the
report file behind its keys, the transcript, and the keys of just those commitments that it opens. Request and response
may be missing; then nothing links the choice to question and answer but the receipt's word that they belong together.

Whoever has the file reads every candidate. It opens nothing else of the exchange.
"""

from dataclasses import dataclass, field
from typing import Final, Self

from adyton.conversation import choices_of
from adyton.receipt_checks import Checks, ReceiptCheck, check_receipt
from adyton.receipts import MAX_FILE_BYTES, ReceiptRecord, ReportFile
from adyton.search_report import SearchReport
from adyton.session import Appraiser
from adyton_protocol.errors import (
    AttestationError,
    ConfigError,
    LocalProtocolError,
    ReceiptError,
    RemoteProtocolError,
)
from adyton_protocol.receipt import (
    REQUEST_BODY_LABEL,
    RESPONSE_BODY_LABEL,
    Receipt,
    VerifiedReceipt,
    check_opening,
    receipt_from_json,
)
from adyton_protocol.scaling_replay import LABELS, check_part, check_search_event, replay
from adyton_protocol.scaling_transcript import (
    MAX_NODES,
    MAX_TRANSCRIPT_BYTES,
    Transcript,
    transcript_from_json,
)
from adyton_protocol.strict_json import JsonObject, parse_json

MAX_SEARCH_FILE_BYTES: Final = 2 * MAX_TRANSCRIPT_BYTES + MAX_FILE_BYTES

_MEMBERS: Final = frozenset({"receipt", "evidence", "transcript", "openings", "request", "response"})
_BODIES: Final = (REQUEST_BODY_LABEL, RESPONSE_BODY_LABEL)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchFile:
    """A search at rest; nothing of it is trusted before :func:`replay_search`.

    Attributes:
        receipt: The receipt, as JSON.
        evidence: What its keys were appraised with.
        transcript: The transcript, as JSON.
        openings: Opening keys by label.
        request: The body that was sent, if it is disclosed.
        response: The body that came back, if it is.
    """

    receipt: JsonObject
    evidence: ReportFile
    transcript: JsonObject = field(repr=False)
    openings: dict[str, bytes] = field(repr=False)
    request: bytes | None = field(default=None, repr=False)
    response: bytes | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls,
        record: ReceiptRecord,
        report: SearchReport | None,
        *,
        request: bytes | None = None,
        response: bytes | None = None,
    ) -> Self:
        """Put together what an auditor needs.

        Args:
            record: The checked receipt of the answer.
            report: Of the search; the request asked for ``"return": "all"``.
            request: The exact body that was sent, to disclose it as well.
            response: The exact body that came back; of a stream, all events before the last marker.

        Raises:
            ConfigError: There was no search, the answer does not hold its transcript, or a body is no text.
        """
        if report is None or report.transcript is None:
            raise ConfigError(
                'only a search that was asked for with "return": "all" has a transcript to keep'
            )
        try:
            b"".join(body for body in (request, response) if body is not None).decode("utf-8")
        except UnicodeDecodeError as error:
            raise ConfigError("a body that is not UTF-8 cannot be kept in a search file") from error
        disclosed = [
            label for label, body in zip(_BODIES, (request, response), strict=True) if body is not None
        ]
        openings = record.openings([*LABELS.values(), *disclosed])
        return cls(
            receipt=record.receipt.to_json(),
            evidence=ReportFile.of(record.attested),
            transcript=report.transcript,
            openings={label: bytes.fromhex(key) for label, key in openings.items()},
            request=request,
            response=response,
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a search file.

        Raises:
            ConfigError: It is none.
        """
        document = parse_json(
            data,
            max_bytes=MAX_SEARCH_FILE_BYTES,
            what="search file",
            error=ConfigError,
            max_nodes=MAX_NODES,
            doubles=True,
        )
        if not isinstance(document, dict) or "transcript" not in document:
            raise ConfigError("this is no search file; adyton ask --save-transcript makes one")
        if unknown := document.keys() - _MEMBERS:
            raise ConfigError(f"the search file has an unknown member {min(unknown)!r}")
        openings = _object(document, "openings")
        try:
            keys = {label: bytes.fromhex(key) for label, key in openings.items() if isinstance(key, str)}
        except ValueError as error:
            raise ConfigError("an opening key of the search file is not hexadecimal") from error
        return cls(
            receipt=_object(document, "receipt"),
            evidence=ReportFile.of_json(_object(document, "evidence")),
            transcript=_object(document, "transcript"),
            openings=keys,
            request=_body(document, "request"),
            response=_body(document, "response"),
        )

    def to_json(self) -> JsonObject:
        """Make the JSON object of the file."""
        openings: JsonObject = {label: key.hex() for label, key in self.openings.items()}
        document: JsonObject = {
            "receipt": self.receipt,
            "evidence": self.evidence.to_json(),
            "transcript": self.transcript,
            "openings": openings,
        }
        for name, body in (("request", self.request), ("response", self.response)):
            if body is not None:
                document[name] = body.decode("utf-8")
        return document


def replay_search(file: SearchFile, appraiser: Appraiser | None) -> tuple[ReceiptCheck, ...]:
    """Check a search file, each check on a line of its own; the choice is made again whatever the others say.

    1. to 5.: the receipt, as :func:`~adyton.receipt_checks.check_receipt` does.
    6. ``transcript``: it can be read.
    7. ``search``: the receipt is about a search with this strategy, width, number of candidates and reason to stop.
    8. to 10. ``candidates``, ``votes``, ``selection``: the receipt commits to these very ones.
    11. ``choice``: made again from candidates and rule, votes and winner are the same.
    12. ``question``, 13. ``answer``: the receipt commits to both bodies, and what came back is the winner.

    Args:
        file: Attacker-controlled.
        appraiser: The verifier to judge the evidence by; None leaves it unjudged, and the first line says so.

    Returns:
        The lines. :func:`~adyton.receipt_checks.failed` says whether one of them is a refusal.
    """
    checks = Checks()
    verified = _receipt(checks, file, appraiser)
    try:
        transcript = transcript_from_json(file.transcript)
    except ReceiptError as error:
        checks.add("transcript", "fail", str(error))
        return checks.lines
    n = len(transcript.candidates)
    checks.add("transcript", "pass", f"{transcript.strategy}, {n} candidates, by {transcript.rule.method}")
    if verified is not None:
        _commitments(checks, verified, transcript, file)
    _choice(checks, transcript)
    if verified is not None:
        _bodies(checks, verified, transcript, file)
    return checks.lines


def _receipt(checks: Checks, file: SearchFile, appraiser: Appraiser | None) -> VerifiedReceipt | None:
    try:
        receipt: Receipt = receipt_from_json(file.receipt)
        return check_receipt(checks, receipt, file.evidence, appraiser)
    except (ReceiptError, AttestationError) as error:
        checks.add("form", "fail", str(error))
        return None


def _commitments(checks: Checks, verified: VerifiedReceipt, transcript: Transcript, file: SearchFile) -> None:
    try:
        event = check_search_event(verified, transcript)
    except ReceiptError as error:
        return checks.add("search", "fail", str(error))
    checks.add(
        "search", "pass", f"signed for {transcript.strategy} {transcript.n}, ended: {transcript.stop_reason}"
    )
    for part, label in LABELS.items():
        try:
            check_part(event, transcript, part, file.openings.get(label, b""))
        except (ReceiptError, LocalProtocolError) as error:
            checks.add(part, "fail", str(error))
        else:
            checks.add(part, "pass", "the receipt commits to every bit of them")
    return None


def _choice(checks: Checks, transcript: Transcript) -> None:
    result = replay(transcript)
    if result.differences:
        # SECURITY: this is the check that an enclave with another rule, or with a favourite, cannot pass.
        differences = ", ".join(result.differences)
        return checks.add("choice", "fail", f"made again from the candidates, it differs in: {differences}")
    winners = ", ".join(map(str, result.selection.winners))
    return checks.add("choice", "pass", f"made again, it is the same bit for bit: candidate {winners} of "
                      f"{len(transcript.candidates)}, counted from 0")  # fmt: skip


def _bodies(checks: Checks, verified: VerifiedReceipt, transcript: Transcript, file: SearchFile) -> None:
    """Link the choice to question and answer, where the caller disclosed them."""
    if _opened(checks, verified, "question", REQUEST_BODY_LABEL, file.request, file):
        checks.add("question", "pass", "the receipt commits to the request in this file")
    response = file.response
    if not _opened(checks, verified, "answer", RESPONSE_BODY_LABEL, response, file) or response is None:
        return None
    try:
        text = choices_of(response).get(0, "")
    except RemoteProtocolError as error:
        return checks.add("answer", "fail", str(error))
    winner = transcript.candidates[transcript.selection.winners[0]].text
    if not text or text not in winner:
        return checks.add(
            "answer", "fail", "the response in this file is signed, and is not the winner's text"
        )
    whole = "is" if text == winner else "is a part of"
    return checks.add(
        "answer", "pass", f"the receipt commits to the response, and that {whole} the winner's text"
    )


def _opened(
    checks: Checks, verified: VerifiedReceipt, name: str, label: str, body: bytes | None, file: SearchFile
) -> bool:
    if body is None:
        checks.add(name, "skip", "not in this file")
        return False
    try:
        check_opening(verified, label, file.openings.get(label, b""), body)
    except (ReceiptError, LocalProtocolError) as error:
        checks.add(name, "fail", str(error))
        return False
    return True


def _object(document: JsonObject, name: str) -> JsonObject:
    value = document.get(name)
    if not isinstance(value, dict):
        raise ConfigError(f"{name} of a search file is a JSON object")
    return value


def _body(document: JsonObject, name: str) -> bytes | None:
    value = document.get(name)
    if not isinstance(value, str | None):
        raise ConfigError(f"{name} of a search file is a string")
    return None if value is None else value.encode("utf-8")
