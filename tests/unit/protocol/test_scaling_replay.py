# SPDX-License-Identifier: Apache-2.0
"""A choice is made again from its transcript, and held against the receipt that was signed for it."""

import json
from dataclasses import replace
from typing import Any

import pytest
from scaling_examples import CANDIDATES, VECTORS, receipt_for, transcript
from wire_examples import SECRET

from adyton_protocol.errors import LocalProtocolError, ReceiptError
from adyton_protocol.receipt import SCALING_RUN, openings
from adyton_protocol.scaling_replay import LABELS, check_search, replay, search_event, search_keys
from adyton_protocol.scaling_transcript import Transcript, parse_transcript
from adyton_protocol.selection.bounds import Budget, StopRule
from adyton_protocol.selection.candidate import METHODS, Candidate, Selection, SelectionRule

EXAMPLE = transcript()
KEYS = search_keys(SECRET)
VOTES = EXAMPLE.selection.votes


def with_selection(**changes: Any) -> Transcript:
    """The example with another choice than its candidates lead to."""
    return replace(EXAMPLE, selection=replace(EXAMPLE.selection, **changes))


@pytest.mark.parametrize("method", METHODS)
def test_an_honest_choice_is_found_again(method: Any) -> None:
    """After writing and reading, every method chooses what it chose, vote for vote."""
    example = transcript(rule=SelectionRule(method=method, k=3))
    result = replay(parse_transcript(example.to_bytes()))
    assert result.differences == ()
    assert result.selection == example.selection


@pytest.mark.parametrize(
    ("dishonest", "differences"),
    [
        (with_selection(winners=(1, 0)), ("winners",)),
        (with_selection(winners=(0,)), ("winners",)),
        (with_selection(winners=(3, 1)), ("winners",)),
        (with_selection(votes=VOTES[1:]), ("votes",)),
        (with_selection(votes=(VOTES[1], VOTES[0], *VOTES[2:])), ("votes",)),
        (with_selection(votes=(replace(VOTES[0], weight=VOTES[0].weight + 2e-16), *VOTES[1:])), ("votes",)),
        (with_selection(votes=(replace(VOTES[0], shown="5.00"), *VOTES[1:])), ("votes",)),
        (with_selection(abstained=(4, 6)), ("abstained",)),
        (replace(EXAMPLE, rule=SelectionRule(method="best-of-n", k=2)), ("winners", "votes")),
        (replace(EXAMPLE, rule=SelectionRule(method="weighted", k=1)), ("winners",)),
        (replace(EXAMPLE, candidates=(*CANDIDATES[:9], CANDIDATES[0], *CANDIDATES[10:])), ("votes",)),
        (replace(EXAMPLE, stop_reason="agreed"), ("stop_reason",)),
        (replace(EXAMPLE, stop_reason="agreed", stop=StopRule(kind="esc", window=2)), ("stop_reason",)),
    ],
)
def test_a_choice_that_does_not_follow_is_noticed(
    dishonest: Transcript, differences: tuple[str, ...]
) -> None:
    """Another winner, vote, weight, abstention, rule, candidate or reason to stop: each is named, and refused."""
    assert replay(dishonest).differences == differences
    with pytest.raises(ReceiptError, match=differences[0]):
        check_search(receipt_for(dishonest), dishonest, KEYS)


def test_a_vote_that_was_decided_is_believed() -> None:
    """A search that stopped because its last window was unanimous, and says so."""
    candidates = tuple(Candidate(text=f"The answer is: {n}", n_tokens=5, logprob=-1.0) for n in (4, 7, 7, 7))
    rule = SelectionRule(method="majority")
    early = transcript(
        strategy="majority", candidates=candidates, rule=rule, stop_reason="agreed", stop=StopRule(kind="esc", window=2)
    )  # fmt: skip
    assert replay(early).differences == ()
    assert replay(replace(early, stop=StopRule(kind="beta"))).differences == ("stop_reason",)


def test_the_receipt_of_a_search_is_accepted() -> None:
    """The holder of the secret, and whoever has the three opening keys, can check the search."""
    check_search(receipt_for(EXAMPLE), EXAMPLE, KEYS)
    disclosed = openings(SECRET, list(LABELS.values()))
    keys = {part: bytes.fromhex(disclosed[label]) for part, label in LABELS.items()}
    assert keys == KEYS
    check_search(receipt_for(EXAMPLE), parse_transcript(EXAMPLE.to_bytes()), keys)


def test_the_vectors_open() -> None:
    """Event and opening keys of the vectors belong to the transcript of the vectors."""
    vectors = json.loads(VECTORS.read_text())
    found = parse_transcript(vectors["transcript"].encode())
    verified = receipt_for(found)
    assert dict(verified.receipt.events_of(SCALING_RUN)[0].fields) == vectors["event"]
    assert {part: key.hex() for part, key in KEYS.items()} == vectors["opening_keys"]


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (replace(EXAMPLE, strategy="beam"), "strategy"),
        (replace(EXAMPLE, n=13), "another n"),
        (replace(EXAMPLE, stop_reason="budget"), "stop_reason"),
        (transcript(candidates=CANDIDATES[:-1]), "another candidates"),
        (
            transcript(candidates=(*CANDIDATES[:-1], replace(CANDIDATES[-1], text=" "))),
            "transcript's candidates",
        ),
        (
            transcript(candidates=(*CANDIDATES[:-1], replace(CANDIDATES[-1], n_tokens=2))),
            "transcript's candidates",
        ),
        (replace(EXAMPLE, scorer="other"), "transcript's selection"),
        (replace(EXAMPLE, budget=Budget()), "transcript's selection"),
        (replace(EXAMPLE, stop=StopRule(p=0.9)), "transcript's selection"),
        (replace(EXAMPLE, rule=SelectionRule(method="weighted", k=3)), "transcript's selection"),
        (with_selection(votes=VOTES[:1]), "transcript's votes"),
    ],
)
def test_another_search_than_the_signed_one_is_noticed(other: Transcript, named: str) -> None:
    """No part of a transcript can be exchanged after the receipt was signed, even where the choice still follows."""
    with pytest.raises(ReceiptError, match=named):
        check_search(receipt_for(EXAMPLE), other, KEYS)


@pytest.mark.parametrize("part", sorted(LABELS))
def test_every_opening_key_is_needed(part: Any) -> None:
    """A missing key and a wrong one are errors; one of another length is the caller's."""
    verified = receipt_for(EXAMPLE)
    with pytest.raises(ReceiptError, match="no opening key"):
        check_search(verified, EXAMPLE, {name: key for name, key in KEYS.items() if name != part})
    with pytest.raises(ReceiptError, match=part):
        check_search(verified, EXAMPLE, KEYS | {part: bytes(32)})
    with pytest.raises(LocalProtocolError):
        check_search(verified, EXAMPLE, KEYS | {part: b""})


@pytest.mark.parametrize("times", [0, 2])
def test_a_receipt_speaks_of_one_search(times: int) -> None:
    """No event and two events prove nothing about a transcript."""
    with pytest.raises(ReceiptError, match="not exactly one"):
        check_search(receipt_for(EXAMPLE, times=times), EXAMPLE, KEYS)


def test_the_parts_are_all_of_it() -> None:
    """Putting the three committed parts together gives the transcript."""
    parts = {name: json.loads(data) for name, data in EXAMPLE.parts().items()}
    whole = parts["selection"] | {"candidates": parts["candidates"], "votes": parts["votes"]}
    assert whole == EXAMPLE.to_json()


def test_the_event_has_no_words_in_it() -> None:
    """What is signed in clear is what was run, not what was said."""
    fields = search_event(EXAMPLE, lambda label, _data: f"commitment to {label}")
    assert sorted(fields) == [
        "candidates", "candidates_commitment", "n", "selection_commitment", "stop_reason", "strategy",
        "votes_commitment",
    ]  # fmt: skip
    assert fields["candidates"] == len(CANDIDATES)
    assert fields["votes_commitment"] == "commitment to scaling.run.votes"


def test_a_choice_without_votes_is_replayed() -> None:
    """All abstained: the fallback is found again too."""
    candidates = tuple(Candidate(text="?", n_tokens=1, logprob=-1.0) for _ in range(3))
    found = transcript(candidates=candidates)
    assert found.selection == Selection(winners=(0,), votes=(), abstained=(0, 1, 2))
    assert replay(found).differences == ()
