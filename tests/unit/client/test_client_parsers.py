# SPDX-License-Identifier: Apache-2.0
"""What a client reads from host and enclave: refusals, addresses, streams. Everything here is hostile input."""

import itertools
import json

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adyton.address import Address
from adyton.answer import StreamedAnswer
from adyton.conversation import choices_of
from adyton.problems import refusal
from adyton.refusals import engine_error
from adyton.replay import SearchFile, replay_search
from adyton.search_report import SearchReport
from adyton_host.problems import upload_timeout
from adyton_protocol import media
from adyton_protocol.errors import (
    AdytonError,
    ConfigError,
    ContextOverflow,
    EngineError,
    InvalidRequest,
    LocalProtocolError,
    ProtocolError,
    QueueFull,
    RelayRefused,
    RemoteProtocolError,
    UnknownModel,
)
from adyton_protocol.sse import comment_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    status=st.integers(100, 599),
    content_type=st.sampled_from([media.PROBLEM_JSON, "text/html", "", media.OHTTP_CHUNKED_RESPONSE])
    | st.text(),
    retry_after=st.none() | st.text() | st.sampled_from(["1", "-1", "nan", "inf", "1e9"]),
    body=st.binary() | JSON.map(lambda value: json.dumps(value).encode()),
)
def test_any_answer_of_the_host_is_one_typed_error(
    status: int, content_type: str, retry_after: str | None, body: bytes
) -> None:
    """Nothing that a host can answer escapes the error tree, and its words stay short and printable."""
    error = refusal(status, content_type, retry_after, body)
    assert isinstance(error, AdytonError)
    assert len(str(error)) < 600
    assert str(error).isprintable()
    retry_after_s = getattr(error, "retry_after_s", None)
    assert retry_after_s is None or 0 <= retry_after_s <= 86_400


def test_a_stalled_upload_is_the_hosts_refusal() -> None:
    """What the host says about time is not taken for the gateway's word that the request did not open."""
    problem = upload_timeout(20.0)
    error = refusal(problem.status, media.PROBLEM_JSON, None, problem.body())
    assert isinstance(error, RelayRefused)
    assert error.status == 408


@given(status=st.integers(400, 599), body=st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
@example(status=429, body=b'{"error": {"code": 5, "message": 7}}')
def test_any_error_body_of_the_enclave_is_an_engine_error(status: int, body: bytes) -> None:
    """A malformed error object is still an error."""
    assert isinstance(engine_error(status, body), EngineError)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "model_not_found", UnknownModel),
        (400, "context_length_exceeded", ContextOverflow),
        (429, "queue_full", QueueFull),
        (400, "unknown_parameter", InvalidRequest),
        (500, "internal_error", EngineError),
    ],
)
def test_codes_of_the_enclave_become_our_classes(status: int, code: str, kind: type[EngineError]) -> None:
    """The stable code decides; the field at fault survives."""
    body = json.dumps({"error": {"message": "why", "code": code, "param": "model"}}).encode()
    error = engine_error(status, body, "7")
    assert type(error) is kind
    assert str(error) == "why"
    assert error.param == "model"
    assert not isinstance(error, QueueFull) or error.retry_after_s == 7.0


@pytest.mark.parametrize(
    ("text", "base_url"),
    [
        ("http://127.0.0.1:8470", "http://127.0.0.1:8470"),
        ("https://appliance.example/", "https://appliance.example"),
        ("https://appliance.example:443", "https://appliance.example"),
        ("http://[::1]:8470", "http://[::1]:8470"),
        ("https://corp.example/ai/", "https://corp.example/ai"),
    ],
)
def test_addresses_are_normalised(text: str, base_url: str) -> None:
    """Trailing slashes and default ports do not matter; a path prefix may stand."""
    assert Address.parse(text).base_url == base_url


@pytest.mark.parametrize(
    "text",
    ["", "appliance", "ftp://a", "http://", "http://a/v1", "http://a/v1/", "http://u:p@a", "http://a?x=1",
     "http://a#x", "http://a:x", "https://a\x00"],
)  # fmt: skip
def test_other_addresses_are_refused(text: str) -> None:
    """What is not the bare address of an appliance is a configuration error."""
    with pytest.raises(ConfigError):
        Address.parse(text)


def test_inner_paths_keep_query_and_lose_prefix() -> None:
    """Only paths below the appliance's own address, or the inner authority, are carried."""
    address = Address.parse("https://corp.example/ai")
    assert address.inner_path(httpx.URL("https://corp.example/ai/v1/models?x=1")) == "/v1/models?x=1"
    assert address.inner_path(httpx.URL("https://adyton.invalid/v1/models")) == "/v1/models"
    for url in ("https://corp.example/v1/models", "https://corp.example/aid/v1", "http://corp.example/ai/v1"):
        with pytest.raises(LocalProtocolError):
            address.inner_path(httpx.URL(url))


EVENT = st.sampled_from(
    [b'data: {"a": 1}\n\n', b"data: x\n\n", b"event: e\ndata: y\n\n", comment_of(9), b": c\n\n"]
)


@given(events=st.lists(EVENT, max_size=12), cuts=st.lists(st.integers(0, 200), max_size=12))
def test_a_stream_is_read_alike_however_it_is_cut(events: list[bytes], cuts: list[int]) -> None:
    """Committed are all events but comments, in order; the end marker is withheld to the end."""
    stream = b"".join(events) + b"data: [DONE]\n\n"
    at = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    reader = StreamedAnswer()
    seen = b"".join(reader.push(stream[a:b]) for a, b in itertools.pairwise(at))
    expected = b"".join(event for event in events if not event.startswith(b":"))
    assert seen == expected == reader.committed
    assert reader.finish() == b"data: [DONE]\n\n"


@pytest.mark.parametrize("kind", [b"completed", b"incomplete"])
def test_the_event_that_says_that_an_answer_is_whole_waits_for_the_proof(kind: bytes) -> None:
    """A program that stops reading there is as safe as one that stops at ``[DONE]``; it is committed all the same."""
    delta = b"event: response.output_text.delta\ndata: {}\n\n"
    last = b"event: response." + kind + b"\ndata: {}\n\n"
    done = b"data: [DONE]\n\n"
    reader = StreamedAnswer()
    assert reader.push(delta + last + done) == delta
    assert reader.committed == delta + last
    assert reader.finish() == last + done
    goes_on = StreamedAnswer()
    assert goes_on.push(last + delta) == last + delta
    assert goes_on.finish() == b""


@given(data=st.binary(max_size=300), cut=st.integers(0, 300))
@example(data=b": adyton-receipt e30\n\n", cut=3)
def test_any_stream_is_read_or_refused_with_a_typed_error(data: bytes, cut: int) -> None:
    """No bytes make the reader fail in another way, and nothing is shown that is not committed."""
    reader = StreamedAnswer()
    seen = b""
    try:
        seen += reader.push(data[:cut])
        seen += reader.push(data[cut:])
        reader.finish()
    except ProtocolError:
        pass
    assert reader.committed.startswith(seen)


MEMBERS = st.sampled_from(["receipt", "evidence", "transcript", "openings", "request", "response"])


@given(JSON | st.dictionaries(MEMBERS, JSON | st.fixed_dictionaries({"version": st.just(1)})))
@example({"transcript": {}, "receipt": {}, "openings": {}, "evidence": {}, "request": "\ud800"})
@example({"transcript": {}, "receipt": {}, "openings": {"request.body": "00"}, "evidence": {"report": {}}})
def test_any_search_file_is_refused_in_words_or_unusable(value: object) -> None:
    """A file from anywhere is a ``ConfigError`` or comes to named checks, of which at least one fails."""
    try:
        file = SearchFile.parse(json.dumps(value).encode())
    except ConfigError:
        return
    assert any(check.verdict == "fail" for check in replay_search(file, None))


@given(JSON | st.dictionaries(st.sampled_from(["strategy", "votes", "winner", "spent", "tree"]), JSON))
def test_any_report_of_a_search_is_parsed_or_one_typed_error(value: object) -> None:
    """What stands in an answer as ``x_report`` never escapes the error tree."""
    with pytest.raises(RemoteProtocolError):
        SearchReport.parse(value)


@given(
    st.binary()
    | JSON.map(lambda value: json.dumps({"choices": value}).encode())
    | st.lists(JSON).map(
        lambda all_: b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in all_)
    )
)
def test_any_answer_at_rest_has_texts_or_one_typed_error(body: bytes) -> None:
    """Bytes that are no answer are one error; an answer's choices are texts, whatever else stands in it."""
    try:
        choices = choices_of(body)
    except RemoteProtocolError:
        return
    assert all(isinstance(text, str) for text in choices.values())
