# SPDX-License-Identifier: Apache-2.0
"""Transcripts of searches: written and read bit for bit, and nothing else is read."""

import json
import math
import struct
from contextlib import suppress
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scaling_examples import VECTORS, transcript, vector_text

from adyton_protocol.answers import AnswerRule
from adyton_protocol.digests import jcs
from adyton_protocol.errors import ReceiptError
from adyton_protocol.scaling_transcript import (
    MAX_FLOPS,
    MAX_LOGPROB,
    MAX_TIME_S,
    Transcript,
    parse_transcript,
    transcript_from_json,
)
from adyton_protocol.selection.aggregate import AGGREGATES
from adyton_protocol.selection.bounds import STOP_KINDS, Budget, StopRule
from adyton_protocol.selection.candidate import METHODS, Candidate, Selection, SelectionRule, Vote
from adyton_protocol.strict_json import MAX_SAFE_INTEGER

EXAMPLE = transcript()
CANONICAL = EXAMPLE.to_bytes()

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
SCORES = st.floats(0.0, 1.0)
CANDIDATES = st.builds(
    Candidate,
    text=TEXTS,
    n_tokens=st.integers(0, 10_000),
    logprob=st.floats(-MAX_LOGPROB, 0.0),
    scores=st.lists(SCORES, max_size=4).map(tuple),
    complete=st.booleans(),
)
WORDS = st.from_regex(r"[a-z0-9]{1,8}(-[a-z0-9]{1,8}){0,2}", fullmatch=True)


@st.composite
def transcripts(draw: st.DrawFn) -> Transcript:
    """Any transcript, though its choice need not follow from anything."""
    candidates = tuple(draw(st.lists(CANDIDATES, min_size=1, max_size=6)))
    some = st.permutations(range(len(candidates))).map(lambda order: tuple(order[: 1 + order[0]]))
    votes = st.builds(
        Vote,
        key=TEXTS.filter(bool),
        shown=TEXTS,
        members=some,
        weight=st.floats(0.0, float(len(candidates))),
    )
    return Transcript(
        strategy=draw(WORDS),
        n=draw(st.integers(1, 1024)),
        scorer=draw(st.none() | TEXTS.filter(bool)),
        rule=SelectionRule(
            method=draw(st.sampled_from(METHODS)),
            aggregate=draw(st.sampled_from(AGGREGATES)),
            k=draw(st.integers(1, 64)),
            answer=draw(st.sampled_from([AnswerRule(), AnswerRule(extract="field", field="/a/0")])),
        ),
        budget=Budget(
            policy_tokens=draw(st.none() | st.integers(0, MAX_SAFE_INTEGER)),
            total_flops=draw(st.none() | st.floats(0.0, MAX_FLOPS)),
            time_s=draw(st.none() | st.floats(0.0, MAX_TIME_S)),
        ),
        stop=StopRule(
            kind=draw(st.sampled_from(STOP_KINDS)),
            p=draw(st.floats(0.0, 1.0, exclude_min=True, exclude_max=True)),
            window=draw(st.integers(2, 64)),
        ),
        stop_reason=draw(WORDS),
        candidates=candidates,
        selection=Selection(
            winners=draw(some),
            votes=tuple(draw(st.lists(votes, max_size=len(candidates)))),
            abstained=draw(st.just(()) | some),
        ),
    )


def edited(*path: str | int, value: object) -> dict[str, Any]:
    """The example's document with one value in it replaced."""
    document: Any = deepcopy(EXAMPLE.to_json())
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return document  # type: ignore[no-any-return]


def test_the_vectors_are_what_the_code_says() -> None:
    """Running ``python tests/scaling_examples.py`` changes nothing."""
    assert vector_text() == VECTORS.read_text()


def test_the_vector_reads_as_the_example() -> None:
    """The published text is the example's transcript, in its own candidates too."""
    vectors = json.loads(VECTORS.read_text())
    assert parse_transcript(vectors["transcript"].encode()) == EXAMPLE
    assert jcs(vectors["candidates"]) == EXAMPLE.parts()["candidates"]


def test_the_vectors_reject_and_replay() -> None:
    """Each text that is no transcript is refused with its code; each dishonest one is read, and found out."""
    vectors = json.loads(VECTORS.read_text())
    changes = [*vectors["rejected"], *vectors["replayed"]]
    assert all(change["replace"] in vectors["transcript"] for change in changes)
    assert {change["code"] for change in vectors["rejected"]} == {"receipt"}
    assert all(change["differences"] for change in vectors["replayed"])


@given(transcripts())
def test_what_was_written_is_read_bit_for_bit(example: Transcript) -> None:
    """Every double comes back with the same bits, but for the sign of a zero, which no canonical form has."""
    read = parse_transcript(example.to_bytes())
    assert read == example
    assert read.to_bytes() == example.to_bytes()
    pairs = [
        (found, written)
        for a, b in zip(read.candidates, example.candidates, strict=True)
        for found, written in zip((a.logprob, *a.scores), (b.logprob, *b.scores), strict=True)
    ]
    assert all(struct.pack(">d", found) == struct.pack(">d", written + 0.0) for found, written in pairs)


@given(transcripts())
def test_a_transcript_survives_any_json_writer(example: Transcript) -> None:
    """Within the body of an answer it is indented, re-ordered, and numbers are written as Python does."""
    document = json.loads(json.dumps(example.to_json(), indent=1, sort_keys=True))
    assert transcript_from_json(document) == example


@given(st.data())
@settings(max_examples=300)
def test_any_bytes_are_a_transcript_or_refused(data: st.DataObject) -> None:
    """Whatever is done to the bytes, the only error is ``ReceiptError``, and what is read is canonical."""
    start = data.draw(st.integers(0, len(CANONICAL)))
    end = data.draw(st.integers(start, min(len(CANONICAL), start + 20)))
    put = data.draw(
        st.binary(max_size=8) | st.sampled_from([b"1e999", b"NaN", b"-0", b"[", b'"', b",", b"0.50"])
    )
    changed = CANONICAL[:start] + put + CANONICAL[end:]
    with suppress(ReceiptError):
        assert parse_transcript(changed).to_bytes() == changed


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(EXAMPLE.to_json())), JSON)
def test_any_value_of_a_member_is_read_or_refused(name: str, value: object) -> None:
    """A member of any type raises ``ReceiptError`` or gives a transcript that can be written."""
    with suppress(ReceiptError):
        transcript_from_json(edited(name, value=value)).to_bytes()


@pytest.mark.parametrize("name", sorted(EXAMPLE.to_json()))
def test_every_member_must_be_there(name: str) -> None:
    """No member has a default. ``scorer`` may be null, and is null when it is not there."""
    document: Any = EXAMPLE.to_json()
    del document[name]
    if name == "scorer":
        assert transcript_from_json(document).scorer is None
        return
    with pytest.raises(ReceiptError, match=name):
        transcript_from_json(document)


@pytest.mark.parametrize("name", ["rule", "budget", "stop"])
def test_unknown_members_are_refused(name: str) -> None:
    """A transcript says nothing that is not looked at."""
    for path in [("more",), (name, "more"), ("candidates", 0, "more"), ("votes", 0, "more")]:
        with pytest.raises(ReceiptError, match="unknown member"):
            transcript_from_json(edited(*path, value=1))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("version",), 2), (("version",), 1.5), (("version",), True), (("n",), 0), (("n",), 1.5),
        (("strategy",), ""), (("strategy",), "Rebase"), (("strategy",), "a" * 33), (("scorer",), ""),
        (("rule", "method"), "auto"), (("rule", "aggregate"), "max"), (("rule", "k"), 0), (("rule", "answer"), 1),
        (("budget", "policy_tokens"), -1), (("budget", "policy_tokens"), 0.5), (("budget", "total_flops"), -1.0),
        (("budget", "total_flops"), math.inf), (("budget", "time_s"), math.nan), (("budget", "time_s"), True),
        (("stop", "kind"), "never"), (("stop", "p"), 0.0), (("stop", "p"), 1.0), (("stop", "window"), 0),
        (("stop",), {"kind": "esc", "p": 0.5, "window": 1}),
        (("stop_reason",), "ran out"), (("candidates",), []), (("candidates",), {}), (("winners",), []),
        (("winners",), [0, 0]), (("winners",), [12]), (("winners",), [-1]), (("winners",), [0.0]),
        (("winners",), [True]), (("abstained",), [99]), (("votes", 0, "members"), [0, 0]),
        (("votes", 0, "weight"), -0.5), (("votes", 0, "weight"), 12.5), (("votes", 0, "key"), ""),
        (("candidates", 0, "logprob"), 0.5), (("candidates", 0, "logprob"), -math.inf),
        (("candidates", 0, "logprob"), math.nan), (("candidates", 0, "logprob"), "-1"),
        (("candidates", 0, "scores"), [1.5]), (("candidates", 0, "scores"), [-0.1]),
        (("candidates", 0, "scores"), [True]), (("candidates", 0, "scores"), [None]),
        (("candidates", 0, "scores"), 0.5), (("candidates", 0, "n_tokens"), -1),
        (("candidates", 0, "complete"), 1), (("candidates", 0, "text"), None), (("candidates", 0, "text"), "\ud800"),
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused(path: tuple[str | int, ...], value: object) -> None:
    """Every number and word has a range, and NaN is in none."""
    with pytest.raises(ReceiptError):
        transcript_from_json(edited(*path, value=value))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"n":12', b'"n": 12'), (b"0.9,0.8", b"0.90,0.8"), (b"1000000000000000000", b"1e18"),
        (b"0.005", b"5e-3"), (b"\xc3\xa9", b"\\u00e9"), (b"-21", b"-21.0"), (b'"members":[0', b'"members":[ 0'),
    ],
)  # fmt: skip
def test_other_spellings_are_refused(old: bytes, new: bytes) -> None:
    """One transcript has one text: another spelling of the same numbers and letters is no transcript."""
    changed = CANONICAL.replace(old, new, 1)
    assert changed != CANONICAL
    assert transcript_from_json(json.loads(changed)) == EXAMPLE
    with pytest.raises(ReceiptError):
        parse_transcript(changed)


def test_texts_are_not_shown() -> None:
    """Neither repr nor an error message has a candidate's words in it."""
    assert "answer is" not in repr(EXAMPLE)
    with pytest.raises(ReceiptError) as caught:
        transcript_from_json(edited("candidates", 0, "logprob", value=1.0))
    assert "answer is" not in str(caught.value)
