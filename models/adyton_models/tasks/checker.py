# SPDX-License-Identifier: Apache-2.0
"""The symbolic checker: is the answer right, and which step is the first wrong one.

A problem is given as a text of the task, as a generated `Problem` or as its bare `Facts`; a solution is always a
text. Solutions come from a model and may be anything.

A step is a non-empty line. It is judged against the truth, not against earlier lines, so one mistake does not
condemn what is right behind it:

* Stating a person's value, derived or given, is correct whether or not the answer needs it, and however often it
  is done: a solution may be longer than it must be.
* A value that has to be derived may be used, or repeated as `Tom = 21`, only behind a line of that person's own. A
  line that conjures it up is *not derived*, even with the right number: it was a guess.
* The line with the answer is a step like any other, and correct exactly when the number is. A solution that ends
  without one has no such step; that it is unfinished is for `check_answer` to say.
* Sums and products may be written either way round, look-ups in either order.
"""

import re
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from operator import and_

from adyton_models.tasks.facts import Facts
from adyton_models.tasks.graph import Node, Operation, equation
from adyton_models.tasks.reader import read_problem
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
    NOT_DERIVED = "not derived"
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


def facts_of(problem: Problem | Facts | str) -> Facts:
    """What a problem says, however it is given.

    Raises:
        UnreadableProblemError: `problem` is a text and not of this task.
    """
    if isinstance(problem, Facts):
        return problem
    return problem.facts() if isinstance(problem, Problem) else read_problem(problem)


def check_answer(problem: Problem | Facts | str, completion: str) -> bool:
    """Whether the completion's final answer is the problem's.

    Raises:
        UnreadableProblemError: `problem` is a text and not of this task.
    """
    if isinstance(problem, Problem):
        return parse_answer(completion) == problem.answer
    facts = facts_of(problem)
    return parse_answer(completion) == facts.values[facts.asked]


def _must_be_derived(facts: Facts, name: str) -> bool:
    return facts.by_name[name].operation is not Operation.BASE


def _check_look_ups(facts: Facts, name: str, looked_up: str, stated: AbstractSet[str]) -> Verdict:
    looked = [part.split(" = ") for part in looked_up.split(", ")]
    if sorted(other for other, _ in looked) != sorted(facts.by_name[name].references):
        return Verdict.WRONG_RELATION
    if any(int(value) != facts.values[other] for other, value in looked):
        return Verdict.WRONG_LOOKUP
    if any(_must_be_derived(facts, other) and other not in stated for other, _ in looked):
        return Verdict.NOT_DERIVED
    return Verdict.CORRECT


def _check_derived(facts: Facts, found: re.Match[str], stated: AbstractSet[str]) -> Verdict:
    name = found["name"]
    fact = facts.by_name.get(name)
    if fact is None or found["again"] != name:
        return Verdict.UNKNOWN_NAME
    looked_up = _check_look_ups(facts, name, found["looked"], stated)
    if looked_up is not Verdict.CORRECT:
        return looked_up
    operands = tuple(facts.values[other] for other in fact.references)
    node = Node(operation=fact.operation, references=(), constant=fact.constant, value=0)
    left, sign, right = equation(node, operands)
    written = (int(found["left"]), found["sign"], int(found["right"]))
    if written != (left, sign, right) and not (sign in "+x" and written == (right, sign, left)):
        return Verdict.WRONG_RELATION
    if int(found["result"]) != facts.values[name]:
        return Verdict.WRONG_ARITHMETIC
    return Verdict.CORRECT if found["value"] == found["result"] else Verdict.WRONG_VALUE


def _check_stated(facts: Facts, found: re.Match[str], stated: AbstractSet[str]) -> Verdict:
    name = found["name"]
    if name not in facts.by_name:
        return Verdict.UNKNOWN_NAME
    if int(found["value"]) != facts.values[name]:
        return Verdict.WRONG_LOOKUP
    return Verdict.NOT_DERIVED if _must_be_derived(facts, name) and name not in stated else Verdict.CORRECT


def _check_line(facts: Facts, line: str, stated: set[str]) -> Verdict:
    """The verdict on one line; its person is added to `stated`, those who have had a line of their own."""
    if (found := _ANSWER.fullmatch(line)) is not None:
        right = int(found["value"]) == facts.values[facts.asked]
        return Verdict.CORRECT if right else Verdict.WRONG_VALUE
    if (found := _DERIVED.fullmatch(line)) is not None:
        verdict = _check_derived(facts, found, stated)
    elif (found := _BASE.fullmatch(line)) is not None:
        verdict = _check_stated(facts, found, stated)
    else:
        return Verdict.UNREADABLE
    stated.add(found["name"])
    return verdict


def check_steps(problem: Problem | Facts | str, completion: str) -> tuple[StepVerdict, ...]:
    """A verdict for every step, as the head of this module defines it.

    Raises:
        UnreadableProblemError: `problem` is a text and not of this task.
    """
    facts = facts_of(problem)
    stated: set[str] = set()
    lines = [" ".join(line.split()) for line in completion.splitlines()]
    return tuple(StepVerdict(line=line, verdict=_check_line(facts, line, stated)) for line in lines if line)


def label_steps(problem: Problem | Facts | str, completion: str) -> list[bool]:
    """Prefix correctness, what a process scorer learns: a step is good if it and all steps before it are correct.

    Returns:
        One label for each step of `check_steps`, so for each non-empty line: some `True`, then only `False`.

    Raises:
        UnreadableProblemError: `problem` is a text and not of this task.
    """
    correct = (step.verdict is Verdict.CORRECT for step in check_steps(problem, completion))
    return list(accumulate(correct, and_))
