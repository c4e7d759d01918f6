# SPDX-License-Identifier: Apache-2.0
"""Problems written by hand: nothing of their wording comes from the templates, so nothing can read them back.

Each line of the file therefore has the facts as data beside the text, and the working as arithmetic that a person
wrote down. From the facts follow graph, values and solution, as for a generated problem. The file is ours, but it is
read strictly: a slip of the pen is an error and not a wrong label.
"""

import json
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from adyton_models.tasks.facts import Fact, UnreadableProblemError, solve
from adyton_models.tasks.graph import BINARY, Node, Operation, signature
from adyton_models.tasks.render import Problem, write_solution

_KEYS = {"id", "bucket", "problem", "facts", "asked", "work", "steps", "answer", "solution"}


def read_handwritten(path: Path) -> tuple[Problem, ...]:
    """The problems of a file, one JSON object a line, with solutions worked out from their facts.

    Raises:
        UnreadableProblemError: a line is not of this form, or its facts do not lead to its answer.
        OSError: the file cannot be read.
    """
    problems: list[Problem] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            problems.append(problem_from(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            raise UnreadableProblemError(f"line {number}: {error}") from error
    return tuple(problems)


def problem_from(members: Mapping[str, Any]) -> Problem:
    """A problem from one line's object.

    Raises:
        UnreadableProblemError: members are missing or unknown, or contradict each other.
    """
    if set(members) != _KEYS:
        raise UnreadableProblemError(f"members are not {', '.join(sorted(_KEYS))}")
    by_name = dict(_fact(each) for each in members["facts"])
    if len(by_name) != len(members["facts"]):
        raise UnreadableProblemError("a name is defined twice")
    problem = problem_of_facts(members["problem"], by_name, members["asked"], bucket=members["bucket"])
    stated = (members["steps"], members["answer"], members["solution"])
    if stated != (problem.steps, problem.answer, problem.solution):
        raise UnreadableProblemError("steps, answer and solution are not those of the facts")
    return problem


def problem_of_facts(text: str, by_name: Mapping[str, Fact], asked: str, *, bucket: str = "") -> Problem:
    """A problem in words of any kind, with the solution that follows from its facts.

    Args:
        text: The problem; it is not read.
        by_name: Its facts, in the order in which it states them.
        asked: Whose number it asks for.
        bucket: Its kind.

    Raises:
        UnreadableProblemError: the facts refer to unknown names or in a circle, or nobody knows the asked one.
    """
    values = solve(dict(by_name))
    if asked not in by_name:
        raise UnreadableProblemError("the question asks for an unknown name")
    needed = _needed(by_name, asked)
    # The asked one refers to all that is needed, so it comes last of that; what nobody needs comes behind.
    names = _behind_references(by_name, needed)
    names += _behind_references(by_name, set(by_name) - needed, known=names)
    nodes = tuple(
        Node(
            operation=by_name[name].operation,
            references=tuple(names.index(other) for other in by_name[name].references),
            constant=by_name[name].constant,
            value=values[name],
            distractor=name not in needed,
        )
        for name in names
    )
    return Problem(
        text=text,
        solution=write_solution(nodes, names, [names.index(name) for name in by_name]),
        answer=values[asked],
        steps=sum(by_name[name].operation is not Operation.BASE for name in needed),
        split=None,
        template=None,
        graph=signature(nodes),
        names=tuple(names),
        nodes=nodes,
        bucket=bucket,
    )


def _fact(members: Mapping[str, Any]) -> tuple[str, Fact]:
    operation = Operation(members["operation"])
    references = tuple(members["references"])
    count = {Operation.BASE: 0}.get(operation, 2 if operation in BINARY else 1)
    constant = members["constant"]
    if len(references) != count or not isinstance(constant, int):
        raise UnreadableProblemError(f"{operation} takes {count} references and a whole number")
    return members["name"], Fact(operation=operation, references=references, constant=constant)


def _needed(by_name: Mapping[str, Fact], asked: str) -> set[str]:
    """The asked name, and all that its value depends on."""
    needed: set[str] = set()
    waiting = [asked]
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting += by_name[name].references
    return needed


def _behind_references(
    by_name: Mapping[str, Fact], chosen: AbstractSet[str], known: Iterable[str] = ()
) -> list[str]:
    """The chosen names in the text's order, but each behind those it refers to; the facts go in no circle."""
    done = set(known)
    waiting = [name for name in by_name if name in chosen]
    order: list[str] = []
    while waiting:
        name = next(each for each in waiting if done.issuperset(by_name[each].references))
        order.append(name)
        done.add(name)
        waiting.remove(name)
    return order
