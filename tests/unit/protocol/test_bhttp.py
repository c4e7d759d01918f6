# SPDX-License-Identifier: Apache-2.0
"""Binary HTTP: vectors, round trips, hostile input."""

import contextlib
import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton_protocol import bhttp
from adyton_protocol.bhttp import (
    Content,
    End,
    Event,
    Request,
    Response,
    ResponseHead,
    ResponseParser,
    ResponseWriter,
    encode_request,
    encode_response,
    parse_request,
    parse_response,
)
from adyton_protocol.bhttp_reader import MAX_INFORMATIONAL
from adyton_protocol.errors import (
    AdytonError,
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
    TruncatedMessage,
)
from adyton_protocol.fields import CONNECTION_FIELDS, MAX_CONTROL_BYTES, MAX_FIELDS, MAX_SECTION_BYTES
from adyton_protocol.padding import bucket
from adyton_protocol.varint import encode_varint

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "bhttp.json").read_text())["vectors"]

SPECIAL = {*CONNECTION_FIELDS, b"content-length", b"host", b"expect"}
NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=12).map(str.encode)
VALUES = st.binary(max_size=40).map(
    lambda value: value.translate(None, b"\0\r\n").strip(b" \t")  # Any other byte is allowed.
)
FIELDS = st.lists(st.tuples(NAMES.filter(lambda name: name not in SPECIAL), VALUES), max_size=5).map(tuple)
TRAILERS = FIELDS.map(
    lambda fields: tuple(f for f in fields if f[0] not in {b"content-type", b"content-encoding"})
)
PATHS = st.text([chr(code) for code in range(0x21, 0x7F) if chr(code) != "#"], max_size=30).map("/".__add__)
REQUESTS = st.builds(
    Request,
    method=st.sampled_from(["GET", "POST", "DELETE", "M-SEARCH"]),
    scheme=st.sampled_from(["https", "http", "x+y.z-1"]),
    authority=st.sampled_from(["", "a", "example.com:8470", "[::1]:80"]),
    path=PATHS,
    headers=FIELDS,
    content=st.binary(max_size=300),
    trailers=TRAILERS,
)
RESPONSES = st.builds(
    Response,
    status=st.integers(200, 599),
    headers=FIELDS,
    content=st.binary(max_size=300),
    trailers=TRAILERS,
)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    """``data`` in pieces, at ``cuts`` modulo its length."""
    edges = sorted({0, len(data), *(position % (len(data) + 1) for position in cuts)})
    return [data[start:end] for start, end in pairwise(edges)]


def streamed(response: Response, cuts: list[int]) -> bytes:
    """``response`` at indeterminate length, its content in pieces."""
    writer = ResponseWriter()
    parts = [writer.head(response.status, response.headers)]
    parts += [writer.content(piece) for piece in cut(response.content, cuts)]
    return b"".join([*parts, writer.finish(response.trailers)])


def joined(events: list[Event]) -> tuple[list[Event], bytes]:
    """The events that are not content, and all content."""
    content = b"".join(event.data for event in events if isinstance(event, Content))
    return [event for event in events if not isinstance(event, Content)], content


def outcome(pieces: list[bytes]) -> tuple[list[Event], bytes] | type[ProtocolError]:
    """What reading a response in these pieces comes to."""
    parser = ResponseParser()
    events: list[Event] = []
    try:
        for piece in pieces:
            events += parser.push(piece)
        events += parser.finish()
    except ProtocolError as error:
        return type(error)
    return joined(events)


# --- Vectors ----------------------------------------------------------------------------------------


def pairs(fields: tuple[bhttp.Field, ...]) -> list[list[str]]:
    """Fields as the vectors write them."""
    return [[name.decode(), value.decode()] for name, value in fields]


def as_json(message: Request | Response) -> dict[str, Any]:
    """A message as the vectors write it."""
    common = {
        "headers": pairs(message.headers),
        "content": message.content.decode(),
        "trailers": pairs(message.trailers),
    }
    if isinstance(message, Response):
        return {"status": message.status, **common}
    control = {"method": message.method, "scheme": message.scheme}
    return {**control, "authority": message.authority, "path": message.path, **common}


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_vectors(vector: dict[str, Any]) -> None:
    """Each message is read as written down, or refused with the written code."""
    parse = parse_request if vector["kind"] == "request" else parse_response
    data = bytes.fromhex(vector["input"])
    if "accepted" in vector:
        assert as_json(parse(data)) == vector["accepted"]
        return
    with pytest.raises(RemoteProtocolError) as caught:
        parse(data)
    assert caught.value.code == vector["rejected"]


def test_we_write_the_known_length_examples_of_the_rfc() -> None:
    """The request and the response that RFC 9292 gives at known length come out byte for byte."""
    by_name = {vector["name"]: vector["input"] for vector in VECTORS}
    request = bytes.fromhex(by_name["RFC 9292 section 5.1, known length"])
    assert encode_request(parse_request(request)) == request
    response = bytes.fromhex(by_name["RFC 9292 section 5.2, known length, trailers"])
    assert encode_response(parse_response(response)) == response


# --- Round trips ------------------------------------------------------------------------------------


@given(request=REQUESTS, padding=st.integers(0, 2000))
def test_requests_round_trip(request: Request, padding: int) -> None:
    """A request survives, padded or not, and padding reaches the length asked for."""
    bare = encode_request(request)
    padded = encode_request(request, pad_to=padding)
    assert parse_request(bare) == parse_request(padded) == request
    assert len(padded) == max(len(bare), padding)
    assert len(encode_request(request, pad_to=bucket)) == bucket(len(bare))


@given(response=RESPONSES, padding=st.integers(0, 2000), cuts=st.lists(st.integers(0, 400)))
def test_responses_round_trip(response: Response, padding: int, cuts: list[int]) -> None:
    """A response survives at both framings."""
    assert parse_response(encode_response(response, pad_to=padding)) == response
    assert parse_response(streamed(response, cuts)) == response
    assert parse_response(streamed(response, cuts) + bytes(padding)) == response


@given(response=RESPONSES, chunks=st.lists(st.integers(0, 400)), cuts=st.lists(st.integers(0, 1000)))
def test_reading_does_not_depend_on_the_pieces(
    response: Response, chunks: list[int], cuts: list[int]
) -> None:
    """However the bytes arrive, the same head, content and end come out."""
    for encoded in (encode_response(response), streamed(response, chunks) + bytes(3)):
        whole = outcome([encoded])
        assert outcome(cut(encoded, cuts)) == whole
        assert outcome([encoded[i : i + 1] for i in range(len(encoded))]) == whole


@given(response=RESPONSES, cuts=st.lists(st.integers(0, 400)))
def test_content_is_delivered_as_it_arrives(response: Response, cuts: list[int]) -> None:
    """A streamed piece of content is readable at once, long before the end."""
    writer, parser = ResponseWriter(), ResponseParser()
    head = ResponseHead(status=response.status, headers=response.headers)
    assert parser.push(writer.head(response.status, response.headers)) == [head]
    for piece in cut(response.content, cuts):
        assert parser.push(writer.content(piece)) == [Content(piece)]
    assert parser.push(writer.finish(response.trailers)) == []
    assert parser.finish() == [End(trailers=response.trailers)]


# --- Truncation -------------------------------------------------------------------------------------


@given(response=RESPONSES, cuts=st.lists(st.integers(0, 400)), known=st.booleans())
def test_truncation(response: Response, cuts: list[int], known: bool) -> None:
    """A response may end where a section would begin, and nowhere else (RFC 9292 section 3.8).

    Such an end reads as empty sections. That is why only the sealed layer may say that the input is complete.
    """
    no_headers = Response(status=response.status)
    no_content = Response(status=response.status, headers=response.headers)
    no_trailers = Response(status=response.status, headers=response.headers, content=response.content)
    if known:
        encoded = encode_response(response)
        after_head = len(encode_response(no_content)) - 2
        after_content = len(encode_response(no_trailers)) - 1
    else:
        encoded = streamed(response, cuts)
        after_head = len(ResponseWriter().head(response.status, response.headers))
        after_content = len(streamed(no_trailers, cuts)) - 1
    expected = {3: no_headers, after_head: no_content, after_content: no_trailers}
    for end in range(len(encoded)):
        if end in expected:
            assert parse_response(encoded[:end]) == expected[end]
            continue
        with pytest.raises(TruncatedMessage):
            parse_response(encoded[:end])


@pytest.mark.parametrize("content", [b"", b"abc"])
def test_end_comes_only_from_finish(content: bytes) -> None:
    """A complete message is not called complete before the input is: the sealed layer decides."""
    parser = ResponseParser()
    events = parser.push(encode_response(Response(status=200, content=content), pad_to=512))
    assert not any(isinstance(event, End) for event in events)
    assert isinstance(parser.finish()[-1], End)


# --- Hostile input ----------------------------------------------------------------------------------


@given(
    data=st.one_of(
        st.binary(), st.binary().map(lambda d: b"\x01\x40\xc8" + d), st.binary().map(b"\2\1A\1b\0\1/".__add__)
    )
)
def test_arbitrary_bytes(data: bytes) -> None:
    """Attacker-controlled bytes give a message or an error of our tree, for every reader."""
    for parse in (parse_request, parse_response):
        with contextlib.suppress(RemoteProtocolError):
            parse(data)
    assert outcome([data]) == outcome([data[i : i + 1] for i in range(len(data))])


@given(request=REQUESTS, position=st.integers(0, 10_000), value=st.integers(0, 255))
def test_mutated_requests(request: Request, position: int, value: int) -> None:
    """A request with one byte changed is refused, or is one that we could have written ourselves."""
    encoded = bytearray(encode_request(request))
    encoded[position % len(encoded)] = value
    with contextlib.suppress(RemoteProtocolError):
        parsed = parse_request(bytes(encoded))
        assert parse_request(encode_request(parsed)) == parsed


@given(fields=st.lists(st.tuples(st.binary(min_size=1, max_size=8), st.binary(max_size=8)), max_size=3))
def test_writer_and_reader_have_the_same_rules(fields: list[tuple[bytes, bytes]]) -> None:
    """Fields that the reader refuses the writer refuses too, so that we never send what we would not take."""
    lines = b"".join(encode_varint(len(part)) + part for field in fields for part in field)
    raw = b"\x01\x40\xc8" + encode_varint(len(lines)) + lines
    try:
        read = parse_response(raw)
    except RemoteProtocolError:
        with pytest.raises(LocalProtocolError):
            encode_response(Response(status=200, headers=tuple(fields)))
        return
    written = encode_response(Response(status=200, headers=tuple(fields)))
    assert parse_response(written) == read


def field(name: bytes, value: bytes) -> bytes:
    """An encoded field line."""
    return encode_varint(len(name)) + name + encode_varint(len(value)) + value


@pytest.mark.parametrize("known", [True, False])
def test_section_limits(known: bool) -> None:
    """Field sections are bounded in lines and in bytes, at both framings."""

    def message(lines: bytes) -> bytes:
        if known:
            return b"\x01\x40\xc8" + encode_varint(len(lines)) + lines
        return b"\x03\x40\xc8" + lines + b"\0"

    parse_response(message(field(b"a", b"") * MAX_FIELDS))
    parse_response(message(field(b"a", b"v" * (MAX_SECTION_BYTES - 10))))
    for lines in (
        field(b"a", b"") * (MAX_FIELDS + 1),
        field(b"a", b"v" * MAX_SECTION_BYTES),
        field(b"a", b"v" * 40_000) * 2,
    ):
        with pytest.raises(RemoteProtocolError):
            parse_response(message(lines))


def test_announced_sizes_are_refused_before_their_bytes_arrive() -> None:
    """A length beyond the limit is an error at once; nobody waits for, or buffers, what it announces."""
    for prefix in (b"\x00", b"\x00\x03GET", b"\x00\x03GET\x05https\x01a"):
        with pytest.raises(RemoteProtocolError, match="exceeds") as caught:
            parse_request(prefix + encode_varint(MAX_CONTROL_BYTES + 1))
        assert caught.value.code == "remote-protocol"
    for framing in (b"\x01", b"\x03"):
        with pytest.raises(RemoteProtocolError, match="exceeds"):
            ResponseParser().push(framing + b"\x40\xc8" + encode_varint(MAX_SECTION_BYTES + 1))


def test_an_endless_field_section_is_refused_as_it_arrives() -> None:
    """Field lines without an end are refused at the limit, not gathered until an end comes."""
    parser = ResponseParser()
    parser.push(b"\x03\x40\xc8")
    line = field(b"a", b"v" * 999)
    for _ in range(MAX_SECTION_BYTES // 1000):
        parser.push(line)
    with pytest.raises(RemoteProtocolError, match="exceeds"):
        parser.push(line)


def test_content_limit() -> None:
    """Content beyond the caller's limit is refused, by its announcement or by its sum."""
    whole = encode_response(Response(status=200, content=bytes(101)))
    with pytest.raises(RemoteProtocolError):
        ResponseParser(max_content_bytes=100).push(whole[:8])
    writer, parser = ResponseWriter(), ResponseParser(max_content_bytes=100)
    parser.push(writer.head(200) + writer.content(bytes(60)) + writer.content(bytes(40)))
    with pytest.raises(RemoteProtocolError):
        parser.push(writer.content(b"x"))


def test_informational_responses() -> None:
    """Informational responses are skipped, up to a limit."""
    one = b"\x40\x66" + b"\0"
    final = ResponseHead(status=200, headers=())
    assert ResponseParser().push(b"\x01" + one * MAX_INFORMATIONAL + b"\x40\xc8\x00") == [final]
    with pytest.raises(RemoteProtocolError):
        ResponseParser().push(b"\x01" + one * (MAX_INFORMATIONAL + 1) + b"\x40\xc8\x00")


def test_many_small_pieces_cost_linear_time() -> None:
    """A large message that arrives byte by byte costs time in proportion to its size."""
    headers = ((b"a", b"v" * 60_000),)
    writer = ResponseWriter()
    encoded = writer.head(200, headers) + writer.content(bytes(100_000)) + writer.finish()
    began = time.perf_counter()
    result = outcome([encoded[i : i + 1] for i in range(len(encoded))])
    assert not isinstance(result, type)
    assert len(result[1]) == 100_000
    assert time.perf_counter() - began < 10


# --- Misuse -----------------------------------------------------------------------------------------


def test_writer_order() -> None:
    """Head, content, end: anything else is our mistake and produces no byte."""
    writer = ResponseWriter()
    with pytest.raises(LocalProtocolError):
        writer.content(b"x")
    with pytest.raises(LocalProtocolError):
        writer.finish()
    writer.head(200)
    with pytest.raises(LocalProtocolError):
        writer.head(200)
    assert writer.content(b"") == b""
    writer.finish()
    with pytest.raises(LocalProtocolError):
        writer.content(b"x")
    with pytest.raises(LocalProtocolError):
        writer.finish()
    with pytest.raises(LocalProtocolError):
        writer.head(200)


def test_parsers_are_single_use() -> None:
    """After the end, and after any error, a parser takes nothing more."""
    finished, failed, cut_off = ResponseParser(), ResponseParser(), ResponseParser()
    finished.push(b"\x01\x40\xc8")
    finished.finish()
    with pytest.raises(RemoteProtocolError):
        failed.push(b"\x09")
    with pytest.raises(TruncatedMessage):
        cut_off.finish()
    for parser in (finished, failed, cut_off):
        with pytest.raises(LocalProtocolError):
            parser.push(b"")
        with pytest.raises(LocalProtocolError):
            parser.finish()


@pytest.mark.parametrize("status", [-1, 0, 100, 199, 600])
def test_only_final_status_codes_are_written(status: int) -> None:
    """Informational and impossible status codes cannot be written."""
    with pytest.raises(LocalProtocolError):
        encode_response(Response(status=status))
    with pytest.raises(LocalProtocolError):
        ResponseWriter().head(status)


GOOD: dict[str, Any] = {"method": "GET", "scheme": "https", "authority": "a", "path": "/"}


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "CONNECT"},
        {"method": "GE T"},
        {"method": "Gé"},
        {"path": "x"},
        {"path": "/\r\nx: y"},
        {"path": "/é"},
        {"authority": "u@a"},
        {"scheme": ""},
        {"headers": ((b"host", b"b"),)},
        {"headers": ((b"expect", b"100-continue"),)},
        {"headers": ((b"a", b"b\nc"),)},
        {"headers": ((b"", b"b"),)},
        {"headers": ((b"content-length", b"1"),)},
        {"headers": ((b"a", b""),) * (MAX_FIELDS + 1)},
        {"headers": ((b"a", b"v" * MAX_SECTION_BYTES),)},
        {"trailers": ((b"content-type", b"x"),)},
    ],
    ids=lambda changes: str(changes)[:60],
)
def test_unwritable_requests(changes: dict[str, Any]) -> None:
    """What a strict reader would refuse cannot be written."""
    encode_request(Request(**GOOD))
    with pytest.raises(LocalProtocolError):
        encode_request(Request(**{**GOOD, **changes}))


def test_events_of_the_wrong_kind_are_noticed() -> None:
    """A reader that broke its own order of events would be an error, not a half-read message."""
    assert bhttp.expect(Content, Content(b"x")) == Content(b"x")
    with pytest.raises(LocalProtocolError):
        bhttp.expect(End, Content(b"x"))


def test_every_error_belongs_to_the_tree() -> None:
    """Each vector's rejection is an AdytonError that blames the peer and forbids a blind retry."""
    for vector in VECTORS:
        if "rejected" not in vector:
            continue
        parse = parse_request if vector["kind"] == "request" else parse_response
        with pytest.raises(AdytonError) as caught:
            parse(bytes.fromhex(vector["input"]))
        assert caught.value.fault == "peer"
        assert not caught.value.retry_safe
