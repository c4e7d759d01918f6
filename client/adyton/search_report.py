# SPDX-License-Identifier: Apache-2.0
"""The report of a search, typed: what ran, how the vote went, how sure it is, what it cost.

::

    answer = client.openai().chat.completions.create(..., extra_body={"scaling": {"strategy": "rebase", "n": 16}})
    report = SearchReport.of(answer)
    report.votes[0].answer, report.confidence.value, report.spent.policy_tokens

The report is a part of the answer (member ``x_report``), so the receipt commits to it. It says what the enclave did.
That an answer is right it does not say: scores and confidence are opinions of trained models.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Self, TypeVar, cast, get_args

from adyton_protocol.errors import RemoteProtocolError
from adyton_protocol.selection.candidate import METHODS, Method
from adyton_protocol.strict_json import JsonObject, Members, json_value

REPORT: Final = "x_report"
"""The member of an answer, or of an event of a stream."""

ConfidenceKind = Literal["vote-share", "score", "none"]
_CONFIDENCE_KINDS: Final[tuple[ConfidenceKind, ...]] = get_args(ConfidenceKind)
_Word = TypeVar("_Word", bound=str)

_MAX_ITEMS: Final = 4096
_MAX_NAME_CHARS: Final = 256
_MAX_ANSWER_CHARS: Final = 1 << 16
_MAX_NODES: Final = 1 << 22
_MAX_TOKENS: Final = 1 << 40
_MAX_FLOPS: Final = 1e40
_MAX_LOG: Final = 1e12


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedVote:
    """One class of equal answers.

    Attributes:
        answer: As a candidate wrote it; words of a model.
        candidates: Their indices, ascending.
        weight: What the rule gives the class; comparable within one search only.
        share: Of all weights, from 0 to 1.
    """

    answer: str = field(repr=False)
    candidates: tuple[int, ...]
    weight: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredStep:
    """What the scorer thinks of an answer up to one step.

    Attributes:
        score: The chance that all is right so far, from 0 to 1, as the scorer sees it.
        sound: Whether the scorer counts it as right: the score reaches its calibrated threshold.
    """

    score: float
    sound: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Winner:
    """The candidate that was chosen.

    Attributes:
        candidate: Its index.
        answer: The answer that was read from it; None if there was none.
        tokens: Generated on its way.
        score: Of the whole; None without a scorer.
        steps: Each scored step; empty without a scorer.
    """

    candidate: int
    answer: str | None = field(repr=False)
    tokens: int
    score: float | None
    steps: tuple[ScoredStep, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Confidence:
    """How sure a search is of its winner.

    Attributes:
        value: From 0 to 1; None if there is nothing to say.
        kind: What the number is: the winner's share of the vote, or its score. No probability of being right.
        settled: The probability that more candidates would not have overturned the vote; None without votes.
        accuracy: How often this strategy was right at this width where the truth was known; None if nobody measured.
        problems: On how many problems that was measured; 0 if nobody did.
    """

    value: float | None
    kind: ConfidenceKind
    settled: float | None
    accuracy: float | None
    problems: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """What a search cost.

    Attributes:
        policy_tokens: Generated, of discarded candidates too.
        prompt_tokens: Of the prompt, computed once.
        scorer_tokens: Read by the scorer.
        policy_flops: Of the generator.
        scorer_flops: Of the scorer.
        time_ms: From beginning to end.
    """

    policy_tokens: int
    prompt_tokens: int
    scorer_tokens: int
    policy_flops: float
    scorer_flops: float
    time_ms: int

    @property
    def total_flops(self) -> float:
        """Of both models."""
        return self.policy_flops + self.scorer_flops


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeShape:
    """How far a tree search branched.

    Attributes:
        nodes: Steps that were taken.
        widths: How many of them at each depth, the first steps first.
        given_up: Lines that were dropped before their end.
    """

    nodes: int
    widths: tuple[int, ...]
    given_up: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchReport:
    """A report, parsed.

    Attributes:
        strategy: What was done; never ``auto``.
        asked: What was asked for.
        n: Candidates, or width of the tree.
        method: The rule of the choice.
        stop_reason: ``complete``, ``agreed``, ``budget`` or ``time``.
        scorer: Name of the model that scored; None if none did.
        made: Candidates that were begun.
        complete: Of these, how many came to their end.
        abstained: Of these, how many have no vote.
        choices: The candidate of each choice of the answer.
        votes: Heaviest first.
        winner: The chosen candidate.
        confidence: How sure the search is.
        spent: What it cost.
        tree: Of a search that grew one.
        transcript: Everything from which the choice can be made again, unparsed; with ``"return": "all"`` only.
        document: The whole report, as it came.
    """

    strategy: str
    asked: str
    n: int
    method: Method
    stop_reason: str
    scorer: str | None
    made: int
    complete: int
    abstained: int
    choices: tuple[int, ...]
    votes: tuple[ReportedVote, ...]
    winner: Winner
    confidence: Confidence
    spent: Effort
    tree: TreeShape | None
    transcript: JsonObject | None = field(repr=False)
    document: JsonObject = field(repr=False)

    @classmethod
    def of(cls, answer: object) -> Self | None:
        """Take the report of an answer; None if no search was made for it.

        Args:
            answer: An answer or an event of a stream: an object of the openai SDK, or its JSON as a dictionary. Of a
                stream, the last event with choices has the report.

        Raises:
            RemoteProtocolError: The answer has a member of this name that is no report.
        """
        members = answer if isinstance(answer, dict) else getattr(answer, "model_extra", None)
        found = members.get(REPORT) if isinstance(members, dict) else None
        return None if found is None else cls.parse(found)

    @classmethod
    def parse(cls, value: object) -> Self:
        """Parse the value of the member. Members that are not known are left alone.

        Raises:
            RemoteProtocolError: It is no report.
        """
        error = RemoteProtocolError
        document = json_value(value, what=REPORT, error=error, max_nodes=_MAX_NODES, doubles=True)
        report = Members(document, REPORT, error)
        candidates = report.object("candidates")
        transcript = report.raw("transcript") if "transcript" in report else None
        if transcript is not None and not isinstance(transcript, dict):
            report.refuse("transcript", "not an object")
        return cls(
            strategy=report.text("strategy", max_chars=_MAX_NAME_CHARS),
            asked=report.text("asked", max_chars=_MAX_NAME_CHARS),
            n=_count(report, "n"),
            method=_one_of(report, "method", METHODS),
            stop_reason=report.text("stop_reason", max_chars=_MAX_NAME_CHARS),
            scorer=report.optional_text("scorer", max_chars=_MAX_NAME_CHARS),
            made=_count(candidates, "made"),
            complete=_count(candidates, "complete"),
            abstained=_count(candidates, "abstained"),
            choices=_indices(report, "choices"),
            votes=tuple(map(_vote, report.objects("votes", max_items=_MAX_ITEMS))),
            winner=_winner(report.object("winner")),
            confidence=_confidence(report.object("confidence")),
            spent=_spent(report.object("spent")),
            tree=_tree(report.object("tree")) if "tree" in report else None,
            transcript=transcript,
            document=cast("JsonObject", document),
        )


def _one_of(members: Members, name: str, allowed: Sequence[_Word]) -> _Word:
    text = members.text(name, max_chars=_MAX_NAME_CHARS)
    for word in allowed:
        if word == text:
            return word
    return members.refuse(name, f"not one of {', '.join(allowed)}")


def _count(members: Members, name: str) -> int:
    return members.integer(name, minimum=0, maximum=_MAX_TOKENS)


def _indices(members: Members, name: str) -> tuple[int, ...]:
    found = members.array(name, max_items=_MAX_ITEMS)
    if not all(type(index) is int and index >= 0 for index in found):
        members.refuse(name, "not indices")
    return tuple(cast("list[int]", found))


def _share(members: Members, name: str) -> float | None:
    return None if members.raw(name) is None else members.number(name, minimum=0.0, maximum=1.0)


def _vote(vote: Members) -> ReportedVote:
    return ReportedVote(
        answer=_text(vote, "answer") or "",
        candidates=_indices(vote, "candidates"),
        weight=vote.number("weight", minimum=-_MAX_LOG, maximum=_MAX_LOG),
        share=vote.number("share", minimum=0.0, maximum=1.0),
    )


def _text(members: Members, name: str) -> str | None:
    """A text that may be empty, or null."""
    value = members.raw(name)
    if value is not None and (type(value) is not str or len(value) > _MAX_ANSWER_CHARS):
        members.refuse(name, f"not a string of at most {_MAX_ANSWER_CHARS} characters")
    return value


def _winner(winner: Members) -> Winner:
    return Winner(
        candidate=_count(winner, "candidate"),
        answer=_text(winner, "answer"),
        tokens=_count(winner, "tokens"),
        score=_share(winner, "score"),
        steps=tuple(
            ScoredStep(score=step.number("score", minimum=0.0, maximum=1.0), sound=step.boolean("sound"))
            for step in winner.objects("steps", max_items=_MAX_ITEMS)
        ),
    )


def _confidence(confidence: Members) -> Confidence:
    measured = None if confidence.raw("measured") is None else confidence.object("measured")
    return Confidence(
        value=_share(confidence, "value"),
        kind=_one_of(confidence, "is", _CONFIDENCE_KINDS),
        settled=_share(confidence, "settled"),
        accuracy=None if measured is None else measured.number("accuracy", minimum=0.0, maximum=1.0),
        problems=0 if measured is None else _count(measured, "problems"),
    )


def _spent(spent: Members) -> Effort:
    return Effort(
        policy_tokens=_count(spent, "policy_tokens"),
        prompt_tokens=_count(spent, "prompt_tokens"),
        scorer_tokens=_count(spent, "scorer_tokens"),
        policy_flops=spent.number("policy_flops", minimum=0.0, maximum=_MAX_FLOPS),
        scorer_flops=spent.number("scorer_flops", minimum=0.0, maximum=_MAX_FLOPS),
        time_ms=_count(spent, "ms"),
    )


def _tree(tree: Members) -> TreeShape:
    return TreeShape(
        nodes=_count(tree, "nodes"), widths=_indices(tree, "widths"), given_up=_count(tree, "given_up")
    )
