# SPDX-License-Identifier: Apache-2.0
"""The attestation report as a collection of conceptual messages (RFC 9999), for verifiers that expect one.

::

    {"__cmwc_t": "urn:adyton:cmw:evidence:1",
     "quote":        [application/vnd.adyton.sgx-quote, the DCAP quote, evidence],
     "statement":    [application/vnd.adyton.aci-statement+json, the statement that the quote binds, evidence],
     "keyset":       [application/vnd.adyton.aci-keyset+json, the keyset in canonical form, evidence],
     "provenance":   [application/vnd.adyton.aci-provenance+json, claims that nothing binds, evidence],  optional
     "endorsements": [application/vnd.adyton.quote-collateral-v3+json, collateral, endorsements]}        optional

The same facts as ``report``, in JSON or CBOR. A simulated quote has a media type of its own. The collection is not
signed: the quote binds the statement, the statement the keyset, and the endorsements are signed by whoever made them.
The reader rebuilds the statement and refuses a collection that contradicts itself.
"""

from dataclasses import dataclass, field
from typing import Final

from adyton_protocol import cmw
from adyton_protocol.digests import DIGEST_CHARS, DIGEST_PATTERN, Digest, jcs
from adyton_protocol.errors import LocalProtocolError, MalformedEvidence
from adyton_protocol.keyset import parse_keyset
from adyton_protocol.media import CMW_CBOR, CMW_JSON, MAX_ENDORSEMENTS_BYTES, MAX_REPORT_BYTES
from adyton_protocol.report import (
    MAX_QUOTE_BYTES,
    AttestationReport,
    SourceProvenance,
    TeeType,
    provenance_from_json,
)
from adyton_protocol.statement import NONCE_CHARS, NONCE_PATTERN, PURPOSE, Statement
from adyton_protocol.strict_json import Members, parse_json

COLLECTION_TYPE: Final = "urn:adyton:cmw:evidence:1"
QUOTE_TYPES: Final[dict[TeeType, str]] = {
    "sgx": "application/vnd.adyton.sgx-quote",
    "simulated": "application/vnd.adyton.simulated-quote",
}
STATEMENT_TYPE: Final = "application/vnd.adyton.aci-statement+json"
KEYSET_TYPE: Final = "application/vnd.adyton.aci-keyset+json"
PROVENANCE_TYPE: Final = "application/vnd.adyton.aci-provenance+json"
ENDORSEMENTS_TYPE: Final = "application/vnd.adyton.quote-collateral-v3+json"

_LABELS: Final = frozenset({"quote", "statement", "keyset", "provenance", "endorsements"})


@dataclass(frozen=True, slots=True, kw_only=True)
class WrappedEvidence:
    """Evidence out of a collection, unappraised.

    Attributes:
        report: The attestation report.
        endorsements: Endorsements that came with it, as received and unparsed, or None.
    """

    report: AttestationReport
    endorsements: bytes | None = field(default=None, repr=False)


def wrap(evidence: WrappedEvidence) -> cmw.Collection:
    """Return the collection."""
    report = evidence.report
    items: dict[cmw.Label, cmw.Cmw] = {
        "quote": _evidence(QUOTE_TYPES[report.tee_type], report.quote),
        "statement": _evidence(STATEMENT_TYPE, report.statement().to_bytes()),
        "keyset": _evidence(KEYSET_TYPE, report.keyset.to_bytes()),
    }
    if report.provenance != SourceProvenance():
        items["provenance"] = _evidence(PROVENANCE_TYPE, jcs(report.provenance.to_json()))
    if evidence.endorsements is not None:
        items["endorsements"] = cmw.Record(
            type=ENDORSEMENTS_TYPE, value=evidence.endorsements, indicator=cmw.ENDORSEMENTS
        )
    return cmw.Collection(type=COLLECTION_TYPE, items=items)


def encode_evidence(evidence: WrappedEvidence, media_type: str) -> bytes:
    """Write evidence as a wrapper of one of the two media types.

    Raises:
        LocalProtocolError: Another media type.
    """
    match media_type:
        case "application/cmw+json":
            return cmw.to_json(wrap(evidence))
        case "application/cmw+cbor":
            return cmw.to_cbor(wrap(evidence))
        case _:
            raise LocalProtocolError(f"evidence is wrapped as {CMW_JSON} or {CMW_CBOR}")


def parse_evidence(data: bytes) -> WrappedEvidence:
    """Read attacker-controlled bytes as wrapped evidence, in either encoding. Nothing in it is trusted yet.

    The first byte tells the encodings apart: a JSON object begins with ``{``, a CBOR map with 0xa0 to 0xbf.

    Raises:
        MalformedEvidence: Not a wrapper, of another type, with other parts, or contradicting itself.
    """
    wrapped = cmw.parse_json_cmw(data) if data[:1] == b"{" else cmw.parse_cbor_cmw(data)
    return unwrap(wrapped)


def unwrap(wrapped: cmw.Cmw) -> WrappedEvidence:
    """Read evidence out of a parsed wrapper; attacker-controlled.

    Raises:
        MalformedEvidence: As :func:`parse_evidence`.
    """
    if not isinstance(wrapped, cmw.Collection) or wrapped.type != COLLECTION_TYPE:
        raise MalformedEvidence(f"CMW: not a collection of type {COLLECTION_TYPE}")
    if not _LABELS.issuperset(wrapped.items):
        raise MalformedEvidence("CMW: a part that this type of collection does not have")
    quote = _part(wrapped, "quote")
    keyset = parse_keyset(
        parse_json(
            _value(wrapped, "keyset", KEYSET_TYPE),
            max_bytes=MAX_REPORT_BYTES,
            what="keyset",
            error=MalformedEvidence,
        )
    )
    stated = _value(wrapped, "statement", STATEMENT_TYPE)
    report = AttestationReport(
        tee_type=_tee_type(quote),
        quote=_sized(quote.value, "quote", MAX_QUOTE_BYTES),
        keyset=keyset,
        nonce=_statement(stated).nonce,
        provenance=_provenance(wrapped),
    )
    # SECURITY: restated facts are recomputed. Bytes that only look like the statement of this keyset are refused.
    if stated != report.statement().to_bytes():
        raise MalformedEvidence("CMW: the statement is not that of this keyset")
    endorsements = None
    if "endorsements" in wrapped.items:
        found = _part(wrapped, "endorsements", indicator=cmw.ENDORSEMENTS)
        _typed(found, "endorsements", ENDORSEMENTS_TYPE)
        endorsements = _sized(found.value, "endorsements", MAX_ENDORSEMENTS_BYTES)
    return WrappedEvidence(report=report, endorsements=endorsements)


def _evidence(media_type: str, value: bytes) -> cmw.Record:
    return cmw.Record(type=media_type, value=value, indicator=cmw.EVIDENCE)


def _part(wrapped: cmw.Collection, label: str, *, indicator: int = cmw.EVIDENCE) -> cmw.Record:
    item = wrapped.items.get(label)
    if not isinstance(item, cmw.Record):
        raise MalformedEvidence(f"CMW: {label} is missing or no record")
    if item.indicator is not None and item.indicator != indicator:
        raise MalformedEvidence(f"CMW: {label} is said to be another kind of message")
    return item


def _value(wrapped: cmw.Collection, label: str, media_type: str) -> bytes:
    return _typed(_part(wrapped, label), label, media_type).value


def _typed(record: cmw.Record, label: str, media_type: str) -> cmw.Record:
    if record.type != media_type:
        raise MalformedEvidence(f"CMW: {label} is of another media type")
    return record


def _sized(value: bytes, label: str, limit_bytes: int) -> bytes:
    if len(value) > limit_bytes:
        raise MalformedEvidence(f"CMW: {label} has more than {limit_bytes} bytes")
    return value


def _tee_type(quote: cmw.Record) -> TeeType:
    for tee_type, media_type in QUOTE_TYPES.items():
        if quote.type == media_type:
            return tee_type
    raise MalformedEvidence("CMW: the quote is of another media type")


def _statement(stated: bytes) -> Statement:
    """Read the nonce out of the statement; the rest is compared as bytes."""
    document = parse_json(stated, max_bytes=1024, what="statement", error=MalformedEvidence)
    members = Members(document, "statement", MalformedEvidence)
    if members.raw("purpose") != PURPOSE:
        members.refuse("purpose", f"not {PURPOSE}")
    nonce = members.raw("nonce")
    return Statement(
        keyset_digest=Digest(members.text("keyset_digest", max_chars=DIGEST_CHARS, pattern=DIGEST_PATTERN)),
        nonce=None if nonce is None else members.text("nonce", max_chars=NONCE_CHARS, pattern=NONCE_PATTERN),
    )


def _provenance(wrapped: cmw.Collection) -> SourceProvenance:
    if "provenance" not in wrapped.items:
        return SourceProvenance()
    claims = parse_json(
        _value(wrapped, "provenance", PROVENANCE_TYPE),
        max_bytes=MAX_REPORT_BYTES,
        what="provenance",
        error=MalformedEvidence,
    )
    return provenance_from_json(Members(claims, "provenance", MalformedEvidence))
