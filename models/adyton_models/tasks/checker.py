# SPDX-License-Identifier: Apache-2.0
"""The symbolic checker: is the answer right, and which step is the first wrong one.

It reads problem and solution as texts. Solutions come from a model and may be anything.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from adyton_models.tasks.graph import Node, equation
from adyton_models.tasks.reader import Facts, read_problem
from adyton_models.tasks.render import ANSWER_PREFIX, Problem

_NUMBER = r"[0-9]{1,6}"
_BASE = re.compile(rf"(?P<name>[A-Z][a-z]+) = (?P<value>{_NUMBER})")
_DERIVED = re.compile(
    rf"(?P<name>[A-Z][a-z]+): (?P<looked>[A-Z][a-z]+ = {_NUMBER}(?:, [A-Z][a-z]+ = {_NUMBER})?), "
    rf"(?P<left>{_NUMBER}) (?P<sign>[-+x/]) (?P<right>{_NUMBER}) = (?P<result>{_NUMBER}), "
    rf"(?P<again>[A-Z][a-z]+) = (?P<value>{_NUMBER})"
)
_ANSWER = re.compile(rf"{re.escape(ANSWER_PREFIX)} (?P<value>{_NUMBER})(?![0-9])")


class Verdict(StrEnum):
    """What is wrong with a step, if anything; the first that applies."""

    CORRECT = "correct"
    UNREADABLE = "unreadable"
    UNKNOWN_NAME = "unknown name"
    WRONG_LOOKUP = "wrong look-up"
    WRONG_RELATION = "wrong relation"
    WRONG_ARITHMETIC = "wrong arithmetic"
    WRONG_VALUE = "wrong value"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepVerdict:
    """One line of a solution and the verdict on it."""

    line: str
    verdict: Verdict


def parse_answer(completion: str) -> int | None:
    """The number behind the last `The answer is:`, or None when there is none."""
    values = [int(found["value"]) for found in _ANSWER.finditer(completion)]
    return values[-1] if values else None


def check_answer(problem: Problem | str, completion: str) -> bool:
    """Whether the completion's final answer is the problem's.

    Raises:
        UnreadableProblemError: `problem` is a text and not of this task.
    """
    if isinstance(problem, Problem):
        expected = problem.answer
    else:
        facts = read_problem(problem)
        expected = facts.values[facts.asked]
    return parse_answer(completion) == expected


def _check_derived(facts: Facts, found: re.Match[str]) -> Verdict:
    name = found["name"]
    fact = facts.by_name.get(name)
    if fact is None or found["again"] != name:
        return Verdict.UNKNOWN_NAME
    looked = dict(part.split(" = ") for part in found["looked"].split(", "))
    if set(looked) != set(fact.references):
        return Verdict.WRONG_RELATION
    if any(int(value) != facts.values[other] for other, value in looked.items()):
        return Verdict.WRONG_LOOKUP
    operands = tuple(facts.values[other] for other in fact.references)
    node = Node(operation=fact.operation, references=(), constant=fact.constant, value=0)
    left, sign, right = equation(node, operands)
    stated = (int(found["left"]), found["sign"], int(found["right"]))
    if stated != (left, sign, right) and not (sign in "+x" and stated == (right, sign, left)):
        return Verdict.WRONG_RELATION
    if int(found["result"]) != facts.values[name]:
        return Verdict.WRONG_ARITHMETIC
    return Verdict.CORRECT if found["value"] == found["result"] else Verdict.WRONG_VALUE


def check_line(facts: Facts, line: str) -> Verdict:
    """The verdict on one line of a solution."""
    if (found := _DERIVED.fullmatch(line)) is not None:
        return _check_derived(facts, found)
    if (found := _BASE.fullmatch(line)) is not None:
        expected = facts.values.get(found["name"])
        if expected is None:
            return Verdict.UNKNOWN_NAME
        return Verdict.CORRECT if int(found["value"]) == expected else Verdict.WRONG_LOOKUP
    if (found := _ANSWER.fullmatch(line)) is not None:
        right = int(found["value"]) == facts.values[facts.asked]
        return Verdict.CORRECT if right else Verdict.WRONG_VALUE
    return Verdict.UNREADABLE


def check_steps(problem: Problem | str, completion: str) -> tuple[StepVerdict, ...]:
    """A verdict for every non-empty line, each judged against the truth and not against earlier lines.

    Raises:
        UnreadableProblemError: the problem's text is not of this task.
    """
    facts = read_problem(problem.text if isinstance(problem, Problem) else problem)
    lines = [" ".join(line.split()) for line in completion.splitlines()]
    return tuple(StepVerdict(line=line, verdict=check_line(facts, line)) for line in lines if line)
