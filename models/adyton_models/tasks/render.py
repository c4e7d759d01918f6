# SPDX-License-Identifier: Apache-2.0
"""From a graph to the text of a problem and of its step-by-step solution.

The solution has one line per fact. A base repeats the given number, a derived quantity first repeats the
value of each quantity it needs, then computes, then states its own value:

     Eva = 12
     Tom: Eva = 12, 12 + 9 = 21, Tom = 21
     The answer is: 21

Every value that a later line looks up stands right behind `name =`, so that looking it up is one
induction step; this is what lets a model of a few million parameters learn the task in about an hour on
two CPU cores. Each line starts with a space: a word then has one form, and one token, wherever it
stands.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random  # noqa: TID251 - reproducible data, no secret

from adyton_models.tasks.facts import Fact, Facts
from adyton_models.tasks.graph import (
    TRAINED_NUMBERS,
    Node,
    Numbers,
    Operation,
    equation,
    generate_graph,
    signature,
)
from adyton_models.tasks.splits import SMALLEST_HELD_OUT_GRAPH, Split, split_of_graph, templates_of
from adyton_models.tasks.templates import NAMES, Style, template

ANSWER_PREFIX = "The answer is:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A word problem with its ground truth.

    Attributes:
        text: What the model is asked.
        solution: Line by line, ending with the answer.
        answer: The number asked for.
        steps: How many quantities the answer derives from given ones, itself included.
        split: The set it may be used in; None for one written by hand.
        template: The number of its wording; None for one written by hand.
        graph: Its operations and what refers to what, see `signature`.
        names: A person for each node.
        nodes: The quantities, each behind those it refers to.
        bucket: Its kind within a mix; empty outside of one.
    """

    text: str
    solution: str
    answer: int
    steps: int
    split: Split | None
    template: int | None
    graph: str
    names: tuple[str, ...]
    nodes: tuple[Node, ...]
    bucket: str = ""

    def facts(self) -> Facts:
        """What the text says, taken from the graph: what `read_problem` reads, without the reading."""
        by_name = {
            name: Fact(
                operation=node.operation,
                references=tuple(self.names[index] for index in node.references),
                constant=node.constant,
            )
            for name, node in zip(self.names, self.nodes, strict=True)
        }
        asked = max(index for index, node in enumerate(self.nodes) if not node.distractor)
        values = {name: node.value for name, node in zip(self.names, self.nodes, strict=True)}
        return Facts(by_name=by_name, asked=self.names[asked], values=values)


def _fact(style: Style, node: Node, names: list[str], fields: dict[str, str], target: str) -> str:
    pattern: str = getattr(style, node.operation.value)
    referred = dict(zip(("b", "c"), (names[index] for index in node.references), strict=False))
    return pattern.format(a=target, k=node.constant, **referred, **fields)


def solution_line(node: Node, name: str, names: Sequence[str], nodes: tuple[Node, ...]) -> str:
    """The line of one quantity, without the leading space."""
    if node.operation is Operation.BASE:
        return f"{name} = {node.value}"
    looked_up = ", ".join(f"{names[index]} = {nodes[index].value}" for index in node.references)
    left, sign, right = equation(node, tuple(nodes[index].value for index in node.references))
    return f"{name}: {looked_up}, {left} {sign} {right} = {node.value}, {name} = {node.value}"


def write_solution(nodes: tuple[Node, ...], names: Sequence[str], said: Sequence[int]) -> str:
    """The solution of a problem whose text states the nodes in the order `said`."""
    order = _solving_order(nodes, said)
    lines = [solution_line(nodes[index], names[index], names, nodes) for index in order]
    # Everything needed leads to what is asked for, so that comes last.
    lines.append(f"{ANSWER_PREFIX} {nodes[order[-1]].value}")
    return "\n".join(f" {line}" for line in lines)


def build_problem(
    rng: Random, split: Split, steps: int, number: int, nodes: tuple[Node, ...], *, shuffle: bool = False
) -> Problem:
    """Word a graph with template `number`, both of `split`; `shuffle` puts the facts in random order."""
    frame, style = template(number)
    names = rng.sample(NAMES, len(nodes))
    fields = {"n": rng.choice(frame.nouns), "v": frame.said, "x": frame.auxiliary, "i": frame.asked}
    order = list(range(len(nodes)))
    asked = max(index for index in order if not nodes[index].distractor)
    if any(node.distractor for node in nodes):
        order = _with_distractors_spread(rng, nodes)
    if shuffle:
        rng.shuffle(order)
    facts = [_fact(style, nodes[index], names, fields, names[index]) for index in order]
    question = style.question.format(a=names[asked], **fields)
    return Problem(
        text=" ".join([*facts, question]),
        solution=write_solution(nodes, names, order),
        answer=nodes[asked].value,
        steps=steps,
        split=split,
        template=number,
        graph=signature(nodes),
        names=tuple(names),
        nodes=nodes,
    )


def _solving_order(nodes: tuple[Node, ...], said: Sequence[int]) -> list[int]:
    """The order of a solution: again and again the first needed fact of the text whose references are known.

    With facts in order this is the text's order. With shuffled facts it is the one order that can be followed
    by looking at the text alone, so that the solution is a function of the problem.
    """
    waiting = [index for index in said if not nodes[index].distractor]
    order: list[int] = []
    while waiting:
        index = next(each for each in waiting if set(nodes[each].references) <= set(order))
        order.append(index)
        waiting.remove(index)
    return order


def _with_distractors_spread(rng: Random, nodes: tuple[Node, ...]) -> list[int]:
    """Needed facts in order with each distractor somewhere behind what it refers to."""
    order = [index for index, node in enumerate(nodes) if not node.distractor]
    for index, node in enumerate(nodes):
        if node.distractor:
            earliest = max((order.index(reference) + 1 for reference in node.references), default=0)
            order.insert(rng.randint(earliest, len(order)), index)
    return order


def draw(
    rng: Random,
    split: Split,
    steps: int,
    *,
    distractors: int = 0,
    shuffle: bool = False,
    numbers: Numbers = TRAINED_NUMBERS,
) -> Problem:
    """One problem of `split` with `steps` derived quantities."""
    number = rng.choice(templates_of(split))
    while True:
        nodes = generate_graph(rng, steps, distractors=distractors, numbers=numbers)
        if steps < SMALLEST_HELD_OUT_GRAPH or split_of_graph(signature(nodes)) is split:
            return build_problem(rng, split, steps, number, nodes, shuffle=shuffle)


def generate(
    split: Split | str,
    seed: int,
    n: int,
    steps: tuple[int, ...] = (2, 3, 4, 5),
    *,
    distractors: int = 0,
    shuffle: bool = False,
) -> Iterator[Problem]:
    """Yield `n` problems of a split, step counts taken in turn so that each is equally frequent.

    The same arguments always give the same problems.
    """
    wanted = Split(split)
    rng = Random(f"{wanted}|{seed}|{steps}|{distractors}|{shuffle}")
    for index in range(n):
        yield draw(rng, wanted, steps[index % len(steps)], distractors=distractors, shuffle=shuffle)
