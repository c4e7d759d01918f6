# SPDX-License-Identifier: Apache-2.0
"""Server-sent events: splitting, padding comments, receipts."""

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton_protocol.errors import LocalProtocolError, ReceiptError, RemoteProtocolError
from adyton_protocol.sse import SseSplitter, comment_of, find_receipt, is_comment, receipt_comment

STREAMS = st.lists(
    st.sampled_from([b"\r", b"\n", b"\r\n", b"data: x", b":", b": adyton-receipt e30", b"\x00", b"a"])
).map(b"".join)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    """``data`` in pieces, at ``cuts`` modulo its length."""
    edges = sorted({0, len(data), *(position % (len(data) + 1) for position in cuts)})
    return [data[start:end] for start, end in pairwise(edges)]


def split(pieces: list[bytes]) -> tuple[list[bytes], bytes]:
    """All groups and the rest."""
    splitter = SseSplitter()
    events = [event for piece in pieces for event in splitter.push(piece)]
    return events, splitter.finish()


@given(stream=STREAMS, cuts=st.lists(st.integers(0, 1000)))
def test_splitting_does_not_depend_on_the_pieces(stream: bytes, cuts: list[int]) -> None:
    """However a stream is cut, the same groups come out, and together they are the stream."""
    whole = split([stream])
    assert split(cut(stream, cuts)) == whole
    assert split([stream[i : i + 1] for i in range(len(stream))]) == whole
    assert b"".join(whole[0]) + whole[1] == stream


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_all_line_ends(end: bytes) -> None:
    """LF, CRLF and CR all end lines; two in a row end a group."""
    first = b"data: a" + end + b"data: b" + end + end
    second = b": note" + end + end
    events, rest = split([first + second + b"data: c"])
    assert events == [first, second]
    assert rest == b"data: c"


def test_a_group_may_not_grow_without_bound() -> None:
    """A stream that never ends a group is refused at the limit, not buffered."""
    splitter = SseSplitter(max_event_bytes=100)
    assert splitter.push(b"x" * 98 + b"\n\n" + b"x" * 100) == [b"x" * 98 + b"\n\n"]
    with pytest.raises(RemoteProtocolError):
        splitter.push(b"x")
    with pytest.raises(RemoteProtocolError):
        SseSplitter(max_event_bytes=100).push(b"x" * 99 + b"\n\n")


def test_many_small_pieces_cost_linear_time() -> None:
    """A large group that arrives byte by byte is searched once, not once for each byte."""
    splitter = SseSplitter()
    began = time.perf_counter()
    for _ in range(200_000):
        splitter.push(b"x")
    assert splitter.push(b"\n\n") == [b"x" * 200_000 + b"\n\n"]
    assert time.perf_counter() - began < 5


@given(length=st.integers(3, 5000))
def test_comments_have_the_length_asked_for(length: int) -> None:
    """A filler is one comment group of exactly that length, invisible to callers."""
    comment = comment_of(length)
    assert len(comment) == length
    assert split([comment]) == ([comment], b"")
    assert is_comment(comment)
    assert find_receipt(comment) is None


def test_impossible_comments_are_refused() -> None:
    """No comment group has one or two bytes, nor a negative number; none at all has zero."""
    assert comment_of(0) == b""
    for length in (1, 2, -1):
        with pytest.raises(LocalProtocolError):
            comment_of(length)


@given(
    events=st.lists(
        st.binary(min_size=1, max_size=20).map(lambda text: b"data: " + text.hex().encode() + b"\n\n")
    )
)
def test_removing_comments_restores_the_stream(events: list[bytes]) -> None:
    """Padding between groups leaves every other group byte for byte as it was."""
    padded = b"".join(event + comment_of(3 + len(event) % 7) for event in events)
    seen, rest = split([padded])
    assert [event for event in seen if not is_comment(event)] == events
    assert rest == b""


@given(stream=STREAMS)
def test_data_is_never_taken_for_a_comment(stream: bytes) -> None:
    """A group with a line that is neither empty nor a comment is not a comment."""
    lines = stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    assert is_comment(stream) == (not any(line and line[:1] != b":" for line in lines))


@given(receipt=st.binary(min_size=1, max_size=300))
def test_receipts_round_trip(receipt: bytes) -> None:
    """Any bytes survive delivery, as one comment group that callers do not see."""
    comment = receipt_comment(receipt)
    assert split([comment]) == ([comment], b"")
    assert is_comment(comment)
    assert find_receipt(comment) == receipt


@pytest.mark.parametrize(
    "body", [b"", b"====", b"a", b"e30=", b"a b", b"\xff\xff", b"e30\ndata: x", b"abcde"]
)
def test_malformed_receipts_are_errors(body: bytes) -> None:
    """A receipt comment that does not decode is an error, never a missing receipt."""
    with pytest.raises(ReceiptError):
        find_receipt(b": adyton-receipt " + body + b"\n\n")


@given(event=st.one_of(st.binary(), st.binary().map(lambda body: b": adyton-receipt " + body)))
def test_arbitrary_groups_raise_receipt_errors_only(event: bytes) -> None:
    """Attacker-controlled groups give bytes, None or a ReceiptError."""
    try:
        found = find_receipt(event)
    except ReceiptError:
        return
    assert found is None or event.startswith(b": adyton-receipt ")
