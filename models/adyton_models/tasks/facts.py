# SPDX-License-Identifier: Apache-2.0
"""What a problem says, free of its wording: a fact per name, who is asked for, and the values that follow.

Facts come from three places: read from a text (`reader`), from a generated problem's graph (`render`), or from the
data beside a problem written by hand (`handwritten`). The checker needs nothing else.
"""

from dataclasses import dataclass

from adyton_models.tasks.graph import Operation


class UnreadableProblemError(ValueError):
    """The text or the data is not a problem of this task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """What one sentence says about one person."""

    operation: Operation
    references: tuple[str, ...]
    constant: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A fact per name, who is asked for, and everybody's value."""

    by_name: dict[str, Fact]
    asked: str
    values: dict[str, int]


def apply(operation: Operation, operands: tuple[int, ...], constant: int) -> int:
    """The value that a fact gives its name."""
    match operation:
        case Operation.BASE:
            return constant
        case Operation.MORE:
            return operands[0] + constant
        case Operation.FEWER:
            return operands[0] - constant
        case Operation.TIMES | Operation.TWICE:
            return operands[0] * constant
        case Operation.HALF:
            return operands[0] // 2
        case Operation.TOGETHER:
            return operands[0] + operands[1]
        case Operation.DIFFERENCE:
            return operands[0] - operands[1]


def solve(by_name: dict[str, Fact]) -> dict[str, int]:
    """The value of every name.

    Raises:
        UnreadableProblemError: the facts refer to unknown names or in a circle.
    """
    values: dict[str, int] = {}
    waiting = dict(by_name)
    while waiting:
        ready = [name for name, fact in waiting.items() if all(other in values for other in fact.references)]
        if not ready:
            raise UnreadableProblemError("the facts refer to unknown names or in a circle")
        for name in ready:
            fact = waiting.pop(name)
            values[name] = apply(
                fact.operation, tuple(values[other] for other in fact.references), fact.constant
            )
    return values
