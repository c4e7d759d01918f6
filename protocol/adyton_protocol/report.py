# SPDX-License-Identifier: Apache-2.0
"""The attestation report of ``GET /v1/aci/attestation`` (``aci/1`` section 4).

A report is evidence with its keyset beside it. It is not signed as a whole: what holds is what the quote
binds, the SHA-256 of the statement over the keyset digest and the challenge. Everything restated (keyset
digest, report data) is recomputed while parsing, and a mismatch is an error. What parsing does *not* do,
because it is the appraisal's work: look into the quote, compare the nonce with the challenge that was sent,
judge ``not_after``.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

from adyton_protocol.digests import DIGEST_CHARS, DIGEST_PATTERN, jcs
from adyton_protocol.errors import LocalProtocolError, MalformedEvidence
from adyton_protocol.keyset import ALGO_OHTTP, Keyset, parse_keyset
from adyton_protocol.media import MAX_REPORT_BYTES
from adyton_protocol.statement import NONCE_CHARS, NONCE_PATTERN, Statement
from adyton_protocol.strict_json import JsonObject, Members, parse_json

API_VERSION: Final = "aci/1"
TeeType: TypeAlias = Literal["sgx", "simulated"]
"""``sgx`` is an Intel SGX DCAP quote; ``simulated`` proves nothing, and has a verifier of its own."""
MAX_QUOTE_BYTES: Final = 64 * 1024

_TEE_TYPES: Final[tuple[TeeType, ...]] = get_args(TeeType)
_MAX_PROVENANCE_CHARS: Final = 512
_COMMIT: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_REPORT_DATA: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceProvenance:
    """Where the attested code comes from, as the service claims.

    Nothing binds it into the quote, so it helps to find reference values and proves nothing.

    Attributes:
        repo_url: Where the source lives, or None.
        repo_commit: Git commit, 40 or 64 lower-case hexadecimal digits, or None.
        image_digest: Digest of the image, ``sha256:<hex>``, or None.
    """

    repo_url: str | None = None
    repo_commit: str | None = None
    image_digest: str | None = None

    def to_json(self) -> JsonObject:
        """Return the JSON object; unknown facts are null."""
        return {
            "repo_url": self.repo_url,
            "repo_commit": self.repo_commit,
            "image_digest": self.image_digest,
            "image_provenance": None,
        }


_NO_PROVENANCE: Final = SourceProvenance()


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationReport:
    """Evidence, unappraised.

    Attributes:
        tee_type: Which verifier the evidence is for.
        quote: The quote, raw bytes; not looked into here.
        keyset: The keyset that the quote is said to bind.
        nonce: The challenge that the quote is said to answer, 64 lower-case hexadecimal digits, or None.
            Compare it with the challenge that was sent; stated, it proves nothing.
        provenance: Where the code comes from, as claimed.
    """

    tee_type: TeeType
    quote: bytes
    keyset: Keyset
    nonce: str | None
    provenance: SourceProvenance = _NO_PROVENANCE

    def __post_init__(self) -> None:
        """Refuse what could not be sent.

        Raises:
            LocalProtocolError: The quote is empty or too long, or the nonce is not of its form.
        """
        if not 0 < len(self.quote) <= MAX_QUOTE_BYTES:
            raise LocalProtocolError(f"a quote has 1 to {MAX_QUOTE_BYTES} bytes")
        self.statement()

    def statement(self) -> Statement:
        """Return the statement that the quote must bind, for the nonce that the report states."""
        return Statement(keyset_digest=self.keyset.digest(), nonce=self.nonce)

    def report_data(self) -> bytes:
        """Return the 64 bytes that the quote must carry, for the nonce that the report states."""
        return self.statement().report_data()

    def to_json(self) -> JsonObject:
        """Return the JSON object."""
        return {
            "api_version": API_VERSION,
            "workload_keyset_digest": self.keyset.digest(),
            "attestation": {
                "tee_type": self.tee_type,
                "workload_keyset": self.keyset.to_json(),
                "report_data": self.statement().digest().hex(),
                "source_provenance": self.provenance.to_json(),
                "evidence": {"quote": self.quote.hex(), "nonce": self.nonce},
            },
            "service_capabilities": {"supported_e2ee_versions": [ALGO_OHTTP], "serving": "direct"},
        }

    def to_bytes(self) -> bytes:
        """Return the report as it is served."""
        return jcs(self.to_json())


def parse_report(data: bytes) -> AttestationReport:
    """Parse attacker-controlled bytes as a report. Nothing in the result is trusted yet.

    Members unknown to us are ignored, except in the keyset, which see.

    Raises:
        MalformedEvidence: Not a report, of another API version or TEE type, or contradicting itself.
    """
    return report_from_json(
        parse_json(data, max_bytes=MAX_REPORT_BYTES, what="attestation report", error=MalformedEvidence)
    )


def report_from_json(value: object) -> AttestationReport:
    """Read a report from a parsed JSON value, for example out of a saved receipt file; attacker-controlled.

    Raises:
        MalformedEvidence: As :func:`parse_report`.
    """
    report = Members(value, "report", MalformedEvidence)
    if report.raw("api_version") != API_VERSION:
        report.refuse("api_version", f"not {API_VERSION}")
    attestation = report.object("attestation")
    evidence = attestation.object("evidence")
    nonce = evidence.raw("nonce")
    parsed = AttestationReport(
        tee_type=_tee_type(attestation),
        quote=evidence.hex("quote", min_bytes=1, max_bytes=MAX_QUOTE_BYTES),
        keyset=parse_keyset(attestation.raw("workload_keyset")),
        nonce=None if nonce is None else evidence.text("nonce", max_chars=NONCE_CHARS, pattern=NONCE_PATTERN),
        provenance=_provenance(attestation),
    )
    # Restated facts are recomputed; a report that contradicts itself is not believed in any part.
    digest = report.text("workload_keyset_digest", max_chars=DIGEST_CHARS, pattern=DIGEST_PATTERN)
    if digest != parsed.keyset.digest():
        report.refuse("workload_keyset_digest", "not the digest of the keyset")
    stated = attestation.text("report_data", max_chars=NONCE_CHARS, pattern=_REPORT_DATA)
    if stated != parsed.statement().digest().hex():
        report.refuse("attestation.report_data", "not the digest of the statement")
    return parsed


def _tee_type(attestation: Members) -> TeeType:
    """Read the type of the evidence; there is no default."""
    stated = attestation.raw("tee_type")
    for known in _TEE_TYPES:
        if stated == known:
            return known
    return attestation.refuse("tee_type", "neither sgx nor simulated")


def _provenance(attestation: Members) -> SourceProvenance:
    """Read the provenance claims; the object may be missing."""
    if "source_provenance" not in attestation or attestation.raw("source_provenance") is None:
        return _NO_PROVENANCE
    return provenance_from_json(attestation.object("source_provenance"))


def provenance_from_json(claims: Members) -> SourceProvenance:
    """Read provenance claims; attacker-controlled.

    Raises:
        AdytonError: Of the class of ``claims``, when one of them is not of its form.
    """
    return SourceProvenance(
        repo_url=claims.optional_text("repo_url", max_chars=_MAX_PROVENANCE_CHARS),
        repo_commit=claims.optional_text("repo_commit", max_chars=64, pattern=_COMMIT),
        image_digest=claims.optional_text("image_digest", max_chars=DIGEST_CHARS, pattern=DIGEST_PATTERN),
    )
