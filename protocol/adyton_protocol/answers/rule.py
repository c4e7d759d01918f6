# SPDX-License-Identifier: Apache-2.0
"""How an answer is read: where it stands, and what makes two answers equal."""

from dataclasses import dataclass, field
from typing import Final, Literal, get_args

Extract = Literal["auto", "field", "boxed", "the-answer-is", "last-number", "whole"]
EXTRACTS: Final[tuple[Extract, ...]] = get_args(Extract)

Equivalence = Literal["auto", "number", "choice", "text", "json"]
EQUIVALENCES: Final[tuple[Equivalence, ...]] = get_args(Equivalence)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRule:
    r"""A rule for all candidates of one search.

    Attributes:
        extract: Where the answer stands. ``auto`` looks for a declared field, ``\boxed{}``, "The answer is" and
            the last number, in this order.
        field: Name of the member of a JSON answer that holds it; None where there is none.
        equivalence: When two answers are equal.
    """

    extract: Extract = "auto"
    field: str | None = field(default=None, repr=False)
    equivalence: Equivalence = "auto"
