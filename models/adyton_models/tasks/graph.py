# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of a problem: a random dependency graph with values, no words yet.

A node is a base (a given number) or derived from one or two earlier nodes. Every node is needed for the
last one, except distractors, which nothing needed refers to. Values stay within 0..MAX_VALUE, or within the
range of other `Numbers`, so that no step needs more than three digits. `random.Random` is used because the
task must be reproducible from a seed; nothing here is secret.
"""

from dataclasses import dataclass
from enum import StrEnum
from random import Random  # noqa: TID251 - reproducible data, no secret

MAX_VALUE = 199
MAX_STEPS = 14


class Operation(StrEnum):
    """How a node gets its value."""

    BASE = "base"
    MORE = "more"
    FEWER = "fewer"
    TIMES = "times"
    TWICE = "twice"
    HALF = "half"
    TOGETHER = "together"
    DIFFERENCE = "difference"


BINARY = (Operation.TOGETHER, Operation.DIFFERENCE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One quantity: its operation, the indices it refers to, the constant in the text, and its value."""

    operation: Operation
    references: tuple[int, ...]
    constant: int
    value: int
    distractor: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """How large numbers get; every bound is inclusive.

    Attributes:
        smallest: The smallest given number.
        usual: Most given numbers are at most this,
        given: and all are at most this.
        added: The largest number that is added or taken away.
        product: The largest result of a multiplication.
        largest: The largest value of all.
    """

    smallest: int
    usual: int
    given: int
    added: int
    product: int
    largest: int


TRAINED_NUMBERS = Numbers(smallest=2, usual=30, given=80, added=30, product=120, largest=MAX_VALUE)
LARGER_NUMBERS = Numbers(smallest=81, usual=150, given=300, added=150, product=600, largest=999)
"""Never trained on: given numbers begin where those of training end."""


def equation(node: Node, values: tuple[int, ...]) -> tuple[int, str, int]:
    """Left operand, sign and right operand of a derived node; `values` are those of its references."""
    match node.operation:
        case Operation.MORE:
            return values[0], "+", node.constant
        case Operation.FEWER:
            return values[0], "-", node.constant
        case Operation.TIMES | Operation.TWICE:
            return values[0], "x", node.constant
        case Operation.HALF:
            return values[0], "/", 2
        case Operation.TOGETHER:
            return values[0], "+", values[1]
        case Operation.DIFFERENCE:
            return values[0], "-", values[1]
        case Operation.BASE:
            message = "a base has no equation"
            raise ValueError(message)


def _base(rng: Random, numbers: Numbers, *, distractor: bool = False) -> Node:
    most = numbers.usual if rng.random() < 0.6 else numbers.given
    value = rng.randint(numbers.smallest, most)
    return Node(operation=Operation.BASE, references=(), constant=value, value=value, distractor=distractor)


def _unary(rng: Random, reference: int, value: int, numbers: Numbers) -> Node:
    """A node derived from one earlier node whose value is `value`."""
    choices = [Operation.MORE] * 3
    if value > 3:
        choices += [Operation.FEWER] * 3
    if value * 2 <= numbers.product:
        choices += [Operation.TWICE]
    if value * 3 <= numbers.product:
        choices += [Operation.TIMES] * 2
    if value % 2 == 0 and value > 3:
        choices += [Operation.HALF]
    operation = rng.choice(choices)
    constant, result = 2, 0
    match operation:
        case Operation.MORE:
            constant = rng.randint(2, min(numbers.added, numbers.largest - value))
            result = value + constant
        case Operation.FEWER:
            constant = rng.randint(2, min(numbers.added, value - 1))
            result = value - constant
        case Operation.TIMES:
            constant = rng.randint(3, min(6, numbers.product // value))
            result = value * constant
        case Operation.TWICE:
            result = value * 2
        case _:
            result = value // 2
    return Node(operation=operation, references=(reference,), constant=constant, value=result)


def _binary(rng: Random, first: int, second: int, nodes: list[Node], numbers: Numbers) -> Node | None:
    """A node derived from two earlier nodes, or None where neither operation keeps the value in range."""
    left, right = nodes[first].value, nodes[second].value
    choices = [Operation.TOGETHER] * 2 if left + right <= numbers.largest else []
    if left != right:
        choices += [Operation.DIFFERENCE]
    if not choices:
        return None
    operation = rng.choice(choices)
    if operation is Operation.TOGETHER:
        return Node(operation=operation, references=(first, second), constant=0, value=left + right)
    if left < right:
        first, second = second, first
    return Node(operation=operation, references=(first, second), constant=0, value=abs(left - right))


def _attempt(rng: Random, steps: int, numbers: Numbers) -> list[Node] | None:
    """One try at a graph of `steps` derived nodes; None when values leave the range."""
    nodes = [_base(rng, numbers)]
    unused = {0}
    for step in range(steps):
        left_over = steps - step
        must_join = len(unused) - 1 >= left_over
        if not must_join and rng.random() < 0.3:
            nodes.append(_base(rng, numbers))
            unused.add(len(nodes) - 1)
            must_join = len(unused) - 1 >= left_over
        last = len(nodes) - 1
        node: Node | None
        if must_join or (len(nodes) > 1 and rng.random() < 0.2):
            pool = sorted(unused) if must_join or len(unused) > 1 else list(range(len(nodes)))
            first = rng.choice(pool)
            rest = [index for index in (pool if len(pool) > 1 else range(len(nodes))) if index != first]
            node = _binary(rng, first, rng.choice(rest), nodes, numbers)
            if node is None:
                return None
        else:
            reference = last if rng.random() < 0.7 else rng.choice(sorted(unused))
            if nodes[reference].value >= numbers.largest - 2:
                return None
            node = _unary(rng, reference, nodes[reference].value, numbers)
        nodes.append(node)
        unused -= set(node.references)
        unused.add(len(nodes) - 1)
    if len(unused) != 1 or nodes[-1].value < 0:
        return None
    return nodes


def generate_graph(
    rng: Random, steps: int, *, distractors: int = 0, numbers: Numbers = TRAINED_NUMBERS
) -> tuple[Node, ...]:
    """A graph with `steps` derived nodes, the asked one last, then `distractors` nodes nothing refers to."""
    if not 1 <= steps <= MAX_STEPS:
        message = f"steps must be between 1 and {MAX_STEPS}"
        raise ValueError(message)
    nodes = None
    while nodes is None:
        nodes = _attempt(rng, steps, numbers)
    needed = len(nodes)
    for _ in range(distractors):
        if rng.random() < 0.5:
            nodes.append(_base(rng, numbers, distractor=True))
            continue
        reference = rng.randrange(needed)
        if nodes[reference].value >= numbers.largest - 2 or nodes[reference].value < 1:
            nodes.append(_base(rng, numbers, distractor=True))
            continue
        node = _unary(rng, reference, nodes[reference].value, numbers)
        nodes.append(
            Node(
                operation=node.operation,
                references=node.references,
                constant=node.constant,
                value=node.value,
                distractor=True,
            )
        )
    return tuple(nodes)


def signature(nodes: tuple[Node, ...]) -> str:
    """The graph without names and numbers: what `splits` keeps apart between training and test."""
    return ";".join(
        f"{node.operation}{'?' if node.distractor else ''}({','.join(map(str, node.references))})"
        for node in nodes
    )
