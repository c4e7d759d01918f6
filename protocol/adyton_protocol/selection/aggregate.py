# SPDX-License-Identifier: Apache-2.0
"""From the scores of steps to one score of an answer."""

import math
from collections.abc import Sequence
from typing import Final, Literal, get_args

Aggregate = Literal["last", "min", "prod", "mean"]
"""How step scores become one; ``prod`` is the right weight for votes where each score is the chance that its step is
sound."""

AGGREGATES: Final[tuple[Aggregate, ...]] = get_args(Aggregate)


def aggregate(scores: Sequence[float], how: Aggregate) -> float:
    """One score of a whole answer, from 0 to 1.

    Args:
        scores: Of its steps in order, at least one, each from 0 to 1.
        how: The rule.
    """
    match how:
        case "last":
            return scores[-1]
        case "min":
            return min(scores)
        case "prod":
            return math.prod(scores)
        case "mean":
            return math.fsum(scores) / len(scores)
