# SPDX-License-Identifier: Apache-2.0
"""Conceptual message wrappers (RFC 9999), and our evidence in them."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_examples import report

from adyton_protocol import cbor, cmw
from adyton_protocol.cmw import Collection, Record
from adyton_protocol.cmw_evidence import (
    COLLECTION_TYPE,
    ENDORSEMENTS_TYPE,
    KEYSET_TYPE,
    QUOTE_TYPES,
    WrappedEvidence,
    encode_evidence,
    parse_evidence,
    unwrap,
    wrap,
)
from adyton_protocol.errors import LocalProtocolError, MalformedEvidence
from adyton_protocol.media import CMW_CBOR, CMW_JSON, EVIDENCE_TYPES, REPORT_JSON, evidence_type
from adyton_protocol.report import AttestationReport, SourceProvenance

EXAMPLE = "application/vnd.example.rats-conceptual-msg"
VALUE = bytes.fromhex("2347da55")

# The examples of the standard, in the diagnostic notation that it prints, carried over to values.
CBOR_EXAMPLES: list[tuple[str, Any, cmw.Cmw]] = [
    ("content format", [64999, VALUE], Record(type=64999, value=VALUE)),
    ("media type", [EXAMPLE, VALUE], Record(type=EXAMPLE, value=VALUE)),
    ("tag", cbor.Tagged(1668612070, VALUE), Record(type=64999, value=VALUE, tagged=True)),
    (
        "indicator",
        ["application/rim+cose", bytes.fromhex("d28440a044d901f5a040"), 3],
        Record(
            type="application/rim+cose",
            value=bytes.fromhex("d28440a044d901f5a040"),
            indicator=cmw.REFERENCE_VALUES | cmw.ENDORSEMENTS,
        ),
    ),
    (
        "collection",
        {
            "__cmwc_t": "tag:example.com,2024:composite-attester",
            0: [64999, VALUE, 4],
            1: cbor.Tagged(1668612070, VALUE),
            2: ["application/eat+jwt", bytes.fromhex("2e2e2e"), 8],
        },
        Collection(
            type="tag:example.com,2024:composite-attester",
            items={
                0: Record(type=64999, value=VALUE, indicator=cmw.EVIDENCE),
                1: Record(type=64999, value=VALUE, tagged=True),
                2: Record(type="application/eat+jwt", value=b"...", indicator=cmw.ATTESTATION_RESULTS),
            },
        ),
    ),
]
JSON_EXAMPLES: list[tuple[str, str, cmw.Cmw]] = [
    ("record", f'["{EXAMPLE}", "I0faVQ"]', Record(type=EXAMPLE, value=VALUE)),
    (
        "collection",
        """{"__cmwc_t": "tag:example.com,2024:another-composite-attester",
            "attester A": ["application/eat-ucs+json", "e30K", 4],
            "attester B": ["application/eat-ucs+cbor", "oA", 4]}""",
        Collection(
            type="tag:example.com,2024:another-composite-attester",
            items={
                "attester A": Record(type="application/eat-ucs+json", value=b"{}\n", indicator=cmw.EVIDENCE),
                "attester B": Record(type="application/eat-ucs+cbor", value=b"\xa0", indicator=cmw.EVIDENCE),
            },
        ),
    ),
]


@pytest.mark.parametrize(("name", "diagnostic", "expected"), CBOR_EXAMPLES, ids=[x[0] for x in CBOR_EXAMPLES])
def test_the_standards_cbor_examples(name: str, diagnostic: Any, expected: cmw.Cmw) -> None:
    """Each is read as what it says and written as it stands there."""
    encoded = cbor.encode(diagnostic)
    assert cmw.parse_cbor_cmw(encoded) == expected
    assert cmw.to_cbor(expected) == encoded


@pytest.mark.parametrize(("name", "text", "expected"), JSON_EXAMPLES, ids=[x[0] for x in JSON_EXAMPLES])
def test_the_standards_json_examples(name: str, text: str, expected: cmw.Cmw) -> None:
    """Each is read as what it says, whatever its white space, and written in canonical form."""
    assert cmw.parse_json_cmw(text.encode()) == expected
    assert json.loads(cmw.to_json(expected)) == json.loads(text)


TYPES = st.sampled_from(["application/eat+jwt", 'text/plain; charset="utf-8"', "a/b;c=d"])
RECORDS = st.builds(
    Record, type=TYPES, value=st.binary(min_size=1, max_size=40), indicator=st.none() | st.integers(1, 31)
)
LABELS = st.text("abc xyz-09", min_size=1, max_size=6)
COLLECTIONS = st.builds(
    Collection,
    type=st.none() | st.sampled_from(["urn:x:y", "1.3.6.1", "tag:a,2026:b"]),
    items=st.dictionaries(
        LABELS,
        RECORDS
        | st.builds(
            Collection, type=st.none(), items=st.dictionaries(LABELS, RECORDS, min_size=1, max_size=2)
        ),
        min_size=1,
        max_size=3,
    ),
)


@given(RECORDS | COLLECTIONS)
def test_what_was_wrapped_is_unwrapped(wrapped: cmw.Cmw) -> None:
    """Both encodings carry the same thing."""
    assert cmw.parse_json_cmw(cmw.to_json(wrapped)) == wrapped
    assert cmw.parse_cbor_cmw(cmw.to_cbor(wrapped)) == wrapped


@given(st.binary(max_size=80) | (RECORDS | COLLECTIONS).map(cmw.to_cbor))
def test_any_cbor_is_one_wrapper_or_refused(data: bytes) -> None:
    """No input makes the parser fail otherwise, and none has two spellings."""
    try:
        wrapped = cmw.parse_cbor_cmw(data)
    except MalformedEvidence:
        return
    assert cmw.to_cbor(wrapped) == data


@given(
    st.binary(max_size=80)
    | st.recursive(
        st.none() | st.integers(-2, 40) | st.sampled_from(["", "a/b", "oA", "oB", "o"]),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(["a", "__cmwc_t", ""]), inner, max_size=3)
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_json_is_a_wrapper_or_refused(data: bytes) -> None:
    """No input makes the parser fail otherwise."""
    try:
        wrapped = cmw.parse_json_cmw(data)
    except MalformedEvidence:
        return
    assert json.loads(cmw.to_json(wrapped)) == json.loads(data)


@pytest.mark.parametrize(
    "text",
    [
        "{}", '{"__cmwc_t":"urn:x:y"}', '{"__cmwc_t":"relative/uri","a":["a/b","oA"]}',
        '{"__cmwc_t":".1","a":["a/b","oA"]}',
        '{"__cmwc_t":1,"a":["a/b","oA"]}', '{"__cmwc_t":null,"a":["a/b","oA"]}', '{"a":["a/b","oA"],"a":["a/b","oA"]}',
        '{"":["a/b","oA"]}', '["a/b"]', '["a/b","oA",4,4]', '["a/b","oA",0]', '["a/b","oA",32]', '["a/b","oA",null]',
        '["a/b","oA",true]', '["a/b",""]', '["a/b","oA=="]', '["a/b","oB"]', '["a/b","o"]', '["a/b","+/8"]',
        '[64999,"oA"]',
        '["application","oA"]', '["a/b ;; c","oA"]', '["a/b","oA"]x', '{"a":{"b":{"c":["a/b","oA"]}}}', '"a"', "null",
        "{" + ",".join(f'"{n}":["a/b","oA"]' for n in range(17)) + "}",
    ],
)  # fmt: skip
def test_what_the_standard_forbids_in_json_is_refused(text: str) -> None:
    """Empty collections, relative types, duplicate labels, padding, unknown indicators, deep nesting."""
    with pytest.raises(MalformedEvidence):
        cmw.parse_json_cmw(text.encode())


@pytest.mark.parametrize(
    "value",
    [
        {}, {"__cmwc_t": "urn:x:y"}, {"a": 1}, [], [64999], [65536, b"x"], [-1, b"x"], [64999, "x"], [64999, b""],
        [64999, b"x", 0], [64999, b"x", "4"], ["no", b"x"], cbor.Tagged(1668612096, b"x"),
        cbor.Tagged(1668546816, b"x"),
        cbor.Tagged(1668546817 + 255, b"x"), cbor.Tagged(1668612070, "x"), cbor.Tagged(1668612070, b""), b"x", "x", 1,
        {"__cmwc_t": 1, "a": [64999, b"x"]}, {0: {1: {2: [64999, b"x"]}}},
    ],
    ids=repr,
)  # fmt: skip
def test_what_the_standard_forbids_in_cbor_is_refused(value: Any) -> None:
    """Content formats beyond 16 bits, tags outside their range, values that are no byte strings, empty ones."""
    with pytest.raises(MalformedEvidence):
        cmw.parse_cbor_cmw(cbor.encode(value))


@pytest.mark.parametrize(
    "build",
    [
        lambda: Record(type="a/b", value=b""),
        lambda: Record(type="a/b", value=b"x", tagged=True),
        lambda: Record(type=1, value=b"x", indicator=4, tagged=True),
        lambda: Collection(type=None, items={}),
        lambda: Collection(type=None, items={"__cmwc_t": Record(type="a/b", value=b"x")}),
        lambda: cmw.to_json(Record(type=64999, value=b"x")),
        lambda: cmw.to_json(Collection(type=None, items={0: Record(type="a/b", value=b"x")})),
    ],
)
def test_what_the_parser_refuses_cannot_be_built(build: Any) -> None:
    """Our own mistakes are found before somebody else's reader finds them."""
    with pytest.raises(LocalProtocolError):
        build()


# --- Evidence -----------------------------------------------------------------------------------------------------

WRAPPED = WrappedEvidence(report=report(), endorsements=b'{"tcb_info": "..."}')
BOTH = pytest.mark.parametrize("media_type", [CMW_JSON, CMW_CBOR])


@BOTH
@pytest.mark.parametrize(
    "evidence",
    [
        WRAPPED,
        WrappedEvidence(report=replace(report(), nonce=None, provenance=SourceProvenance())),
        WrappedEvidence(report=replace(report(), tee_type="sgx")),
    ],
    ids=["all", "least", "sgx"],
)
def test_evidence_comes_out_as_it_went_in(evidence: WrappedEvidence, media_type: str) -> None:
    """Report and endorsements survive either encoding, and a reader need not be told which it is."""
    assert parse_evidence(encode_evidence(evidence, media_type)) == evidence


@BOTH
def test_no_cut_or_flipped_byte_changes_the_keyset(
    media_type: str,
) -> None:
    """A keyset cannot be exchanged under its statement; that the statement holds is for the quote to say."""
    data = encode_evidence(WRAPPED, media_type)
    for position in range(0, len(data), 7):
        for changed in (
            data[:position],
            data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :],
        ):
            try:
                found = parse_evidence(changed).report
            except MalformedEvidence:
                continue
            assert found.keyset == report().keyset


def _changed(**items: cmw.Cmw | None) -> Collection:
    kept = {label: item for label, item in {**wrap(WRAPPED).items, **items}.items() if item is not None}
    return Collection(type=COLLECTION_TYPE, items=kept)


def _evidence(media_type: str, value: bytes, indicator: int = cmw.EVIDENCE) -> Record:
    return Record(type=media_type, value=value, indicator=indicator)


@pytest.mark.parametrize(
    "wrapped",
    [
        Record(type="a/b", value=b"x"),
        Collection(type=None, items=wrap(WRAPPED).items),
        Collection(type="urn:adyton:cmw:evidence:2", items=wrap(WRAPPED).items),
        _changed(quote=None),
        _changed(statement=None),
        _changed(keyset=None),
        _changed(other=Record(type="a/b", value=b"x")),
        _changed(quote=_evidence("application/octet-stream", b"quote")),
        _changed(quote=_evidence(QUOTE_TYPES["sgx"], b"quote", cmw.ENDORSEMENTS)),
        _changed(quote=_evidence(QUOTE_TYPES["sgx"], bytes(64 * 1024 + 1))),
        _changed(quote=Collection(type=None, items={"a": Record(type="a/b", value=b"x")})),
        _changed(keyset=_evidence(KEYSET_TYPE, b"{}")),
        _changed(keyset=_evidence(ENDORSEMENTS_TYPE, report().keyset.to_bytes())),
        _changed(endorsements=_evidence(ENDORSEMENTS_TYPE, b"{}")),
        _changed(endorsements=_evidence("a/b", b"{}", cmw.ENDORSEMENTS)),
    ],
)
def test_a_collection_of_other_parts_is_refused(wrapped: cmw.Cmw) -> None:
    """Type, labels, media types, kinds and sizes are exactly those of the profile."""
    with pytest.raises(MalformedEvidence):
        unwrap(wrapped)


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text + b" ",
        lambda text: text.replace(b"aci.report_data.v1", b"aci.report_data.v2"),
        lambda text: text.replace(b'"nonce":"00', b'"nonce":"0'),
        lambda text: text.replace(b'"keyset_digest":"sha256:', b'"keyset_digest":"sha256:0')[:-2] + b'"}',
        lambda text: text[:-1] + b',"x":1}',
        lambda _text: b"[]",
        lambda _text: (
            AttestationReport.statement(replace(report(), keyset=report().keyset, nonce="1" * 64))
            .to_bytes()
            .replace(b"sha256:9", b"sha256:8")
        ),
    ],
)
def test_a_statement_that_is_not_the_keysets_is_refused(edit: Any) -> None:
    """It is compared byte for byte with the one that the reader builds."""
    edited = edit(report().statement().to_bytes())
    with pytest.raises(MalformedEvidence):
        unwrap(_changed(statement=_evidence("application/vnd.adyton.aci-statement+json", edited)))


def test_there_are_two_encodings_of_a_wrapper() -> None:
    """A report in plain JSON is none."""
    with pytest.raises(LocalProtocolError):
        encode_evidence(WRAPPED, REPORT_JSON)


# --- Negotiation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", REPORT_JSON),
        ("*/*", REPORT_JSON),
        ("application/*", REPORT_JSON),
        ("application/json", REPORT_JSON),
        ("application/cmw+json", CMW_JSON),
        ("application/cmw+cbor", CMW_CBOR),
        ("APPLICATION/CMW+CBOR", CMW_CBOR),
        ("application/cmw+cbor, application/json;q=0.5", CMW_CBOR),
        ("application/cmw+cbor;q=0.5, application/json", REPORT_JSON),
        ("*/*, application/json;q=0", CMW_JSON),
        ("text/html, */*;q=0.1", REPORT_JSON),
        ("application/cmw+json;q=0.3, application/cmw+cbor;q=0.7", CMW_CBOR),
        ("application/cmw+cbor;q=2", None),
        ("application/json;q=0", None),
        ("text/html", None),
        (",;,", None),
    ],
)
def test_the_encoding_is_what_the_client_prefers(accept: str, chosen: str | None) -> None:
    """Quality decides, then our order; the most specific range wins; zero means no."""
    assert evidence_type(accept) == chosen


@given(st.text(max_size=60) | st.text("application/cmw+jsonbr;q=01.,* ", max_size=60))
def test_any_accept_field_means_something(accept: str) -> None:
    """No field makes the choice fail otherwise."""
    assert evidence_type(accept) in {None, *EVIDENCE_TYPES}
