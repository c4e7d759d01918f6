# SPDX-License-Identifier: Apache-2.0
"""The transcript of a search: everything from which the choice can be made again.

::

    {"version": 1, "strategy", "n", "scorer", "rule": {"method", "aggregate", "k", "answer"},
     "budget": {"policy_tokens", "total_flops", "time_s"}, "stop": {"kind", "p", "window"}, "stop_reason",
     "candidates": [{"text", "n_tokens", "logprob", "scores", "complete"}, ...],
     "votes": [{"key", "shown", "members", "weight"}, ...], "abstained": [...], "winners": [...]}

Its canonical form (RFC 8785) writes each double as the shortest text that reads back as that double, so a transcript
that was written and read is the same bit for bit. It is as confidential as the answer. Nothing here says whether the
choice is right, or whether anybody signed it: :mod:`adyton_protocol.scaling_replay` does.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from adyton_protocol.answers import AnswerRule
from adyton_protocol.answers.limits import MAX_JSON_CHARACTERS, MAX_KEY_CHARACTERS
from adyton_protocol.digests import jcs
from adyton_protocol.errors import LocalProtocolError, ReceiptError
from adyton_protocol.selection.aggregate import AGGREGATES
from adyton_protocol.selection.bounds import STOP_KINDS, Budget, StopRule
from adyton_protocol.selection.candidate import METHODS, Candidate, Selection, SelectionRule, Vote
from adyton_protocol.strict_json import (
    MAX_SAFE_INTEGER,
    JsonObject,
    JsonValue,
    Members,
    json_value,
    parse_json,
)

VERSION: Final = 1
MAX_TRANSCRIPT_BYTES: Final = 64 << 20
MAX_NODES: Final = 2_000_000
MAX_CANDIDATES: Final = 4096
MAX_STEPS: Final = 4096
MAX_TEXT_CHARS: Final = 1 << 20
MAX_TOKENS: Final = 1 << 31
MAX_WIDTH: Final = 1 << 20
MAX_LOGPROB: Final = 1e12
"""Largest magnitude of a sum of log-probabilities."""
MAX_FLOPS: Final = 1e30
MAX_TIME_S: Final = 1e9

_WORD: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_MAX_WORD_CHARS: Final = 32
_MAX_NAME_CHARS: Final = 256
_MEMBERS: Final = (
    "version",
    "strategy",
    "n",
    "scorer",
    "rule",
    "budget",
    "stop",
    "stop_reason",
    "candidates",
    "votes",
    "abstained",
    "winners",
)

Part = Literal["candidates", "votes", "selection"]
"""Parts of a transcript that a receipt commits to, each by itself. Together they are all of it."""

Word = TypeVar("Word", bound=str)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """A finished search.

    Attributes:
        strategy: The one that was run; never ``auto``.
        n: Candidates that were asked for, or width of the tree.
        scorer: Name of the model that scored; None if none did.
        rule: How the answer was chosen.
        budget: What the search could have spent.
        stop: When the vote would have counted as decided.
        stop_reason: Why it ended; ``agreed`` if the vote was decided.
        candidates: In the order of their making.
        selection: What was chosen.
    """

    strategy: str
    n: int
    scorer: str | None
    rule: SelectionRule
    budget: Budget
    stop: StopRule
    stop_reason: str
    candidates: tuple[Candidate, ...]
    selection: Selection

    def to_json(self) -> JsonObject:
        """The document as a JSON object."""
        return {
            "version": VERSION,
            "strategy": self.strategy,
            "n": self.n,
            "scorer": self.scorer,
            "rule": {
                "method": self.rule.method,
                "aggregate": self.rule.aggregate,
                "k": self.rule.k,
                "answer": self.rule.answer.as_json(),
            },
            "budget": {
                "policy_tokens": self.budget.policy_tokens,
                "total_flops": None if self.budget.total_flops is None else float(self.budget.total_flops),
                "time_s": None if self.budget.time_s is None else float(self.budget.time_s),
            },
            "stop": {"kind": self.stop.kind, "p": float(self.stop.p), "window": self.stop.window},
            "stop_reason": self.stop_reason,
            "candidates": [_candidate_json(candidate) for candidate in self.candidates],
            "votes": [_vote_json(vote) for vote in self.selection.votes],
            "abstained": list(self.selection.abstained),
            "winners": list(self.selection.winners),
        }

    def to_bytes(self) -> bytes:
        """The canonical form.

        Raises:
            LocalProtocolError: A text is not Unicode.
        """
        return jcs(self.to_json())

    def parts(self) -> dict[Part, bytes]:
        """What a receipt commits to: canonical forms of the candidates, of the votes, and of all the rest."""
        rest = self.to_json()
        candidates, votes = rest.pop("candidates"), rest.pop("votes")
        return {"candidates": jcs(candidates), "votes": jcs(votes), "selection": jcs(rest)}


def parse_transcript(data: bytes) -> Transcript:
    """Parse attacker-controlled bytes as a transcript in canonical form.

    SECURITY: another encoding of the same document is refused, so that there is one text for each transcript. For one
    out of a larger document use :func:`transcript_from_json`.

    Raises:
        ReceiptError: Not a transcript, not canonical, of another version, or beyond a limit.
    """
    value = parse_json(
        data,
        max_bytes=MAX_TRANSCRIPT_BYTES,
        what="transcript",
        error=ReceiptError,
        max_nodes=MAX_NODES,
        doubles=True,
    )
    transcript = transcript_from_json(value)
    if transcript.to_bytes() != data:
        raise ReceiptError("transcript: not in canonical form")
    return transcript


def transcript_from_json(value: object) -> Transcript:
    """Read a transcript from a parsed JSON value of any origin; attacker-controlled.

    Raises:
        ReceiptError: A member is missing, unknown, or of the wrong type, form or size.
    """
    document = json_value(value, what="transcript", error=ReceiptError, max_nodes=MAX_NODES, doubles=True)
    members = Members(document, "transcript", ReceiptError)
    members.only(_MEMBERS)
    if members.integer("version", minimum=0, maximum=MAX_SAFE_INTEGER) != VERSION:
        members.refuse("version", f"not {VERSION}")
    try:
        return _transcript(members)
    except LocalProtocolError as cause:
        raise ReceiptError(f"transcript: {cause}") from cause


def _transcript(members: Members) -> Transcript:
    candidates = tuple(_candidate(entry) for entry in members.objects("candidates", max_items=MAX_CANDIDATES))
    if not candidates:
        members.refuse("candidates", "empty")
    return Transcript(
        strategy=_word(members, "strategy"),
        n=members.integer("n", minimum=1, maximum=MAX_WIDTH),
        scorer=members.optional_text("scorer", max_chars=_MAX_NAME_CHARS),
        rule=_rule(members.object("rule")),
        budget=_budget(members.object("budget")),
        stop=_stop(members.object("stop")),
        stop_reason=_word(members, "stop_reason"),
        candidates=candidates,
        selection=_selection(members, len(candidates)),
    )


def _rule(members: Members) -> SelectionRule:
    members.only(("method", "aggregate", "k", "answer"))
    return SelectionRule(
        method=_one_of(members, "method", METHODS),
        aggregate=_one_of(members, "aggregate", AGGREGATES),
        k=members.integer("k", minimum=1, maximum=MAX_WIDTH),
        answer=AnswerRule.parse(members.raw("answer"), path="transcript.rule.answer", error=ReceiptError),
    )


def _budget(members: Members) -> Budget:
    members.only(("policy_tokens", "total_flops", "time_s"))
    tokens = members.raw("policy_tokens")
    return Budget(
        policy_tokens=(
            None if tokens is None else members.integer("policy_tokens", minimum=0, maximum=MAX_SAFE_INTEGER)
        ),
        total_flops=_optional_number(members, "total_flops", MAX_FLOPS),
        time_s=_optional_number(members, "time_s", MAX_TIME_S),
    )


def _stop(members: Members) -> StopRule:
    members.only(("kind", "p", "window"))
    return StopRule(
        kind=_one_of(members, "kind", STOP_KINDS),
        p=members.number("p", minimum=0.0, maximum=1.0),
        window=members.integer("window", minimum=1, maximum=MAX_WIDTH),
    )


def _candidate(members: Members) -> Candidate:
    members.only(("text", "n_tokens", "logprob", "scores", "complete"))
    return Candidate(
        text=members.text("text", min_chars=0, max_chars=MAX_TEXT_CHARS),
        n_tokens=members.integer("n_tokens", minimum=0, maximum=MAX_TOKENS),
        logprob=members.number("logprob", minimum=-MAX_LOGPROB, maximum=0.0),
        scores=_scores(members),
        complete=members.boolean("complete"),
    )


def _candidate_json(candidate: Candidate) -> JsonValue:
    return {
        "text": candidate.text,
        "n_tokens": candidate.n_tokens,
        "logprob": float(candidate.logprob),
        "scores": [float(score) for score in candidate.scores],
        "complete": candidate.complete,
    }


def _scores(members: Members) -> tuple[float, ...]:
    values = members.array("scores", max_items=MAX_STEPS)
    if not all(type(value) in {int, float} for value in values):
        members.refuse("scores", "not an array of numbers")
    # A zero has no sign, as in the canonical form; the range is the candidate's to check.
    return tuple(float(value) + 0.0 for value in values if isinstance(value, int | float))


def _vote_json(vote: Vote) -> JsonValue:
    return {
        "key": vote.key,
        "shown": vote.shown,
        "members": list(vote.members),
        "weight": float(vote.weight),
    }


def _selection(members: Members, n_candidates: int) -> Selection:
    winners = _indices(members, "winners", n_candidates)
    if not winners:
        members.refuse("winners", "empty")
    return Selection(
        winners=winners,
        votes=tuple(_vote(entry, n_candidates) for entry in members.objects("votes", max_items=n_candidates)),
        abstained=_indices(members, "abstained", n_candidates),
    )


def _vote(members: Members, n_candidates: int) -> Vote:
    members.only(("key", "shown", "members", "weight"))
    return Vote(
        key=members.text("key", max_chars=MAX_KEY_CHARACTERS),
        shown=members.text("shown", min_chars=0, max_chars=MAX_JSON_CHARACTERS),
        members=_indices(members, "members", n_candidates),
        weight=members.number("weight", minimum=0.0, maximum=float(n_candidates)),
    )


def _indices(members: Members, name: str, n_candidates: int) -> tuple[int, ...]:
    """Indices of candidates, each at most once."""
    values = members.array(name, max_items=n_candidates)
    indices = tuple(value for value in values if type(value) is int and 0 <= value < n_candidates)
    if len(set(indices)) != len(values):
        members.refuse(name, "not indices of candidates, each at most once")
    return indices


def _word(members: Members, name: str) -> str:
    return members.text(name, max_chars=_MAX_WORD_CHARS, pattern=_WORD)


def _one_of(members: Members, name: str, allowed: Sequence[Word]) -> Word:
    text = members.text(name, max_chars=_MAX_WORD_CHARS)
    for value in allowed:
        if text == value:
            return value
    return members.refuse(name, f"not one of {', '.join(allowed)}")


def _optional_number(members: Members, name: str, maximum: float) -> float | None:
    if members.raw(name) is None:
        return None
    return members.number(name, minimum=0.0, maximum=maximum)
