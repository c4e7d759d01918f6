# SPDX-License-Identifier: Apache-2.0
"""What is chosen among, by which rule, and what comes of it."""

import math
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from adyton_protocol.answers import AnswerRule
from adyton_protocol.errors import LocalProtocolError
from adyton_protocol.selection.aggregate import AGGREGATES, Aggregate

Method = Literal["single", "majority", "weighted", "best-of-n", "bom", "rpc", "pairwise"]
"""How the answer is chosen once the candidates are there. A strategy ends in one of these: REBASE in ``weighted``."""

METHODS: Final[tuple[Method, ...]] = get_args(Method)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One answer that was generated, chosen or not.

    Attributes:
        text: As generated, without a stop string.
        n_tokens: Generated tokens on its way from the prompt, those that it shares with others included.
        logprob: Sum of their log-probabilities under the raw logits (temperature 1, before truncation), at most 0.
        scores: Of its steps in order, each the chance in [0, 1] that all is right so far; empty without a scorer.
        complete: Whether the text ended by itself. One that was cut off has no vote.

    Raises:
        LocalProtocolError: A number is out of its range, or none at all. So no NaN can turn a comparison.
    """

    text: str = field(repr=False)
    n_tokens: int
    logprob: float
    scores: tuple[float, ...] = ()
    complete: bool = True

    def __post_init__(self) -> None:
        """Refuse what could not be compared or weighed."""
        if not (self.n_tokens >= 0 and -math.inf < self.logprob <= 0.0):
            raise LocalProtocolError(
                "a candidate has a finite log-probability of at most 0 and no negative length"
            )
        if not all(0.0 <= score <= 1.0 for score in self.scores):
            raise LocalProtocolError("a score lies between 0 and 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionRule:
    """How to choose.

    Attributes:
        method: See :data:`Method`.
        aggregate: How step scores become one.
        k: Most answers to give, of different classes.
        answer: How a candidate's answer is read.

    Raises:
        LocalProtocolError: An unknown method or aggregate, or ``k`` is not above 0.
    """

    method: Method
    aggregate: Aggregate = "prod"
    k: int = 1
    answer: AnswerRule = field(default_factory=AnswerRule)

    def __post_init__(self) -> None:
        """Refuse a rule that nobody can apply."""
        if self.method not in METHODS or self.aggregate not in AGGREGATES or self.k < 1:
            raise LocalProtocolError(
                "a selection rule names a method, an aggregate, and how many answers to give"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """One class of equal answers.

    Attributes:
        key: The canonical answer.
        shown: The answer as its best candidate wrote it.
        members: Indices of its candidates, ascending.
        weight: What the rule gives the class; comparable within one selection only.
    """

    key: str = field(repr=False)
    shown: str = field(repr=False)
    members: tuple[int, ...]
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What was chosen.

    Attributes:
        winners: Indices of the chosen candidates, best first; at least one, at most ``k``.
        votes: All classes, heaviest first, ties to the one with the earliest candidate.
        abstained: Indices of candidates without an answer or cut off, ascending.
    """

    winners: tuple[int, ...]
    votes: tuple[Vote, ...]
    abstained: tuple[int, ...]
