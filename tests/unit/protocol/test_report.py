# SPDX-License-Identifier: Apache-2.0
"""The attestation report."""

import json
from dataclasses import replace
from typing import Any

import pytest
from aci_vectors import EXCHANGE, rejected, rejection_code
from hypothesis import given
from hypothesis import strategies as st
from wire_examples import NONCE, report

from adyton_protocol.digests import jcs
from adyton_protocol.errors import LocalProtocolError, MalformedEvidence
from adyton_protocol.media import MAX_REPORT_BYTES
from adyton_protocol.report import MAX_QUOTE_BYTES, SourceProvenance, parse_report, report_from_json
from adyton_protocol.statement import report_data

CANONICAL = report().to_bytes()


def test_our_example_stays_what_it_is_on_the_wire() -> None:
    """Built, parsed and written reports agree, in any encoding."""
    assert report().to_json() == EXCHANGE["report"]
    assert parse_report(CANONICAL) == report()
    assert parse_report(json.dumps(EXCHANGE["report"], indent=4).encode()) == report()


def test_the_quote_must_carry_the_statement_that_the_report_states() -> None:
    """report_data() is computed from keyset digest and nonce, never taken from the document."""
    assert report().report_data() == report_data(report().keyset.digest(), NONCE)
    stated = EXCHANGE["report"]["attestation"]["report_data"]
    assert report().report_data() == bytes.fromhex(stated) + bytes(32)


@pytest.mark.parametrize(
    ("name", "document"), rejected("report"), ids=[name for name, _ in rejected("report")]
)
def test_each_malformed_report_is_refused(name: str, document: Any) -> None:
    """Each vector violates one rule of the wire format, and is refused with the specified code."""
    with pytest.raises(MalformedEvidence) as caught:
        report_from_json(document)
    assert caught.value.code == rejection_code("report")


@pytest.mark.parametrize(
    "data", [b"", b"null", b"[]", b'"aci/1"', CANONICAL[:-1], b" " * (MAX_REPORT_BYTES + 1), CANONICAL + b"x"]
)
def test_what_is_no_report_at_all_is_refused(data: bytes) -> None:
    """Truncated, oversized and foreign documents are malformed evidence."""
    with pytest.raises(MalformedEvidence):
        parse_report(data)


def test_a_duplicate_member_is_refused() -> None:
    """Two readers could otherwise see two keysets under one quote."""
    with pytest.raises(MalformedEvidence):
        parse_report(CANONICAL.replace(b'"nonce":', b'"nonce":null,"nonce":', 1))


@given(st.integers(0, len(CANONICAL) - 1), st.integers(1, 255))
def test_no_byte_changes_what_is_bound(position: int, flip: int) -> None:
    """A changed byte is refused, or leaves keyset, nonce and type as they were."""
    data = bytearray(CANONICAL)
    data[position] ^= flip
    try:
        changed = parse_report(bytes(data))
    except MalformedEvidence:
        return
    assert changed.statement() == report().statement()
    assert changed.keyset == report().keyset


@given(st.binary(max_size=100))
def test_any_bytes_are_refused(data: bytes) -> None:
    """No input makes the parser fail otherwise."""
    with pytest.raises(MalformedEvidence):
        parse_report(data)


def test_unknown_members_outside_the_keyset_are_ignored() -> None:
    """The protocol asks readers to ignore capabilities that they do not know."""
    document = EXCHANGE["report"] | {"extra": [1], "service_capabilities": {"serving": "new"}}
    assert parse_report(jcs(document)) == report()


@pytest.mark.parametrize("provenance", [None, ...])
def test_provenance_may_be_missing(provenance: object) -> None:
    """It proves nothing, so its absence is the policy's question."""
    attestation = dict(EXCHANGE["report"]["attestation"])
    if provenance is None:
        attestation["source_provenance"] = None
    else:
        del attestation["source_provenance"]
    parsed = report_from_json(EXCHANGE["report"] | {"attestation": attestation})
    assert parsed.provenance == SourceProvenance()


def test_an_unchallenged_report_states_no_nonce() -> None:
    """The cacheable form round-trips with null."""
    unchallenged = replace(report(), nonce=None)
    assert parse_report(unchallenged.to_bytes()) == unchallenged
    assert unchallenged.report_data() != report().report_data()


@pytest.mark.parametrize("changes", [{"quote": b""}, {"quote": bytes(MAX_QUOTE_BYTES + 1)}, {"nonce": "00"}])
def test_what_the_parser_refuses_cannot_be_built(changes: dict[str, Any]) -> None:
    """The enclave finds its own mistakes before a client does."""
    with pytest.raises(LocalProtocolError):
        replace(report(), **changes)
