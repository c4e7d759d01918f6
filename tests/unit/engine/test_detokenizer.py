# SPDX-License-Identifier: Apache-2.0
"""Text assembly: UTF-8, stop strings and log-probabilities, however tokens cut the text."""

from hypothesis import given
from hypothesis import strategies as st

from adyton_enclave.engine.detokenizer import StopMatcher, TextAssembler
from adyton_enclave.engine.request import TokenLogprob

_SMALL = st.text(alphabet="ab", max_size=12)
_STOPS = st.lists(st.text(alphabet="ab", min_size=1, max_size=4), max_size=3)


def _first_match(text: str, stops: list[str]) -> int | None:
    """Where the text is cut, by the definition: complete first, then begun first."""
    for end in range(1, len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return min(starts)
    return None


def _cut(data: st.DataObject, text: bytes) -> list[bytes]:
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


@given(text=_SMALL, stops=_STOPS, data=st.data())
def test_stops_do_not_depend_on_the_cut(text: str, stops: list[str], data: st.DataObject) -> None:
    """Any way of cutting a text into pieces gives the same answer, without any of the stop string."""
    matcher = StopMatcher(stops)
    shown = "".join(matcher.push(piece.decode()) for piece in _cut(data, text.encode())) + matcher.finish()
    place = _first_match(text, stops)
    assert shown == (text if place is None else text[:place])
    assert matcher.stopped == (place is not None)


@given(text=_SMALL, stops=_STOPS, data=st.data())
def test_nothing_shown_is_taken_back(text: str, stops: list[str], data: st.DataObject) -> None:
    """At every moment, what was shown is a prefix of the final answer."""
    place = _first_match(text, stops)
    final = text if place is None else text[:place]
    matcher = StopMatcher(stops)
    shown = ""
    for piece in _cut(data, text.encode()):
        shown += matcher.push(piece.decode())
        assert final.startswith(shown)


@given(text=st.text(max_size=20), data=st.data())
def test_utf8_is_whole_however_it_is_cut(text: str, data: st.DataObject) -> None:
    """Pieces that cut characters apart give whole characters, and the same text."""
    assembler = TextAssembler(())
    shown = [assembler.push(piece, None)[0] for piece in _cut(data, text.encode())]
    assert "�" not in "".join(shown) or "�" in text
    assert "".join(shown) + assembler.finish()[0] == text


@given(data=st.binary(max_size=20))
def test_any_bytes_become_text(data: bytes) -> None:
    """Bytes that are no UTF-8 are replaced as Python replaces them, one byte at a time or not."""
    assembler = TextAssembler(())
    shown = "".join(assembler.push(bytes([byte]), None)[0] for byte in data) + assembler.finish()[0]
    assert shown == data.decode("utf-8", "replace")


@given(text=_SMALL, stops=_STOPS, data=st.data())
def test_logprobs_are_those_of_the_shown_text(text: str, stops: list[str], data: st.DataObject) -> None:
    """Each token that begins within the answer is reported once and in order; none beyond its end."""
    assembler = TextAssembler(stops)
    reported: list[TokenLogprob] = []
    expected: list[bytes] = []
    shown = ""
    place = _first_match(text, stops)
    start = 0
    for number, piece in enumerate(_cut(data, text.encode())):
        logprob = TokenLogprob(token="", bytes=piece, logprob=-float(number), top=())
        delta, ready = assembler.push(piece, logprob)
        shown += delta
        reported += ready
        assert len(b"".join(item.bytes for item in reported).decode()) >= len(shown)
        if place is None or start < place:
            expected.append(piece)
        start += len(piece)
        if assembler.stopped:
            break
    reported += assembler.finish()[1]
    assert [item.bytes for item in reported] == expected
