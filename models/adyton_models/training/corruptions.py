# SPDX-License-Identifier: Apache-2.0
"""Wrong lines for a scorer to learn from, made like the faults that generators really commit.

Which kinds there are, and how often each is drawn, follows the first faults of a trained generator: mostly a
relation of somebody else, then a wrong look-up, then arithmetic. Every line made here is checked to be wrong.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from random import Random  # noqa: TID251 - reproducible data, no secret

from adyton_models.tasks.checker import label_steps
from adyton_models.tasks.facts import Fact, Facts
from adyton_models.tasks.graph import MAX_VALUE, Node, Operation, equation
from adyton_models.tasks.render import ANSWER_PREFIX
from adyton_models.tasks.templates import NAMES

_SIGNS = "+-x/"
_TRIES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The parts of a line of a derived quantity; anything may be wrong in it."""

    name: str
    looked: tuple[tuple[str, int], ...]
    left: int
    sign: str
    right: int
    result: int
    again: str
    value: int

    def with_operand(self, slot: int, number: int) -> "Line":
        """The same with another left (0) or right (1) operand."""
        return replace(self, left=number) if slot == 0 else replace(self, right=number)

    def __str__(self) -> str:
        looked = ", ".join(f"{other} = {value}" for other, value in self.looked)
        return (
            f"{self.name}: {looked}, {self.left} {self.sign} {self.right} = {self.result}, "
            f"{self.again} = {self.value}"
        )


def _compute(left: int, sign: str, right: int) -> int:
    match sign:
        case "+":
            return left + right
        case "-":
            return abs(left - right)
        case "x":
            return left * right
        case _:
            return left // max(right, 1)


def line_by(facts: Facts, name: str, fact: Fact) -> Line | None:
    """The line that says `fact` about `name`; None for a fact that is a base."""
    if fact.operation is Operation.BASE:
        return None
    operands = tuple(facts.values[other] for other in fact.references)
    node = Node(operation=fact.operation, references=(), constant=fact.constant, value=0)
    left, sign, right = equation(node, operands)
    result = _compute(left, sign, right)
    looked = tuple(zip(fact.references, operands, strict=True))
    return Line(
        name=name, looked=looked, left=left, sign=sign, right=right, result=result, again=name, value=result
    )


def named_by(line: str) -> str:
    """Whom a line is about: its first word."""
    return line.replace(":", " ").split(" ", 1)[0]


def right_lines(facts: Facts, stated: frozenset[str] = frozenset()) -> frozenset[str]:
    """Every line that the checker accepts behind lines about `stated`.

    One for each quantity whose references are known, its commuted forms, what was stated again, and the answer.
    """
    lines = {f"{ANSWER_PREFIX} {facts.values[facts.asked]}"}
    lines.update(f"{name} = {facts.values[name]}" for name in stated if name in facts.values)
    for name, fact in facts.by_name.items():
        line = line_by(facts, name, fact)
        if line is None:
            lines.add(f"{name} = {facts.values[name]}")
            continue
        known = (
            other in stated or facts.by_name[other].operation is Operation.BASE for other in fact.references
        )
        if not all(known):
            continue
        for looked in permutations(line.looked):
            lines.add(str(replace(line, looked=looked)))
            if line.sign in "+x":
                lines.add(str(replace(line, looked=looked, left=line.right, right=line.left)))
    return frozenset(lines)


def _slip(rng: Random, number: int) -> int:
    """A number like `number`: off by a little, by ten, by a digit, or with two digits exchanged."""
    digits = list(str(number))
    match rng.randrange(5):
        case 0:
            return max(0, number + rng.choice((-1, 1)))
        case 1:
            return max(0, number + rng.choice((-10, 10)))
        case 2:
            return max(0, number + rng.choice((-3, -2, 2, 3)))
        case 3:
            digits[rng.randrange(len(digits))] = str(rng.randrange(10))
        case _:
            rng.shuffle(digits)
    return int("".join(digits))


def _other_number(rng: Random, facts: Facts, number: int) -> int:
    """Another number of the problem, or a slip."""
    if rng.random() < 0.5:
        pool = [fact.constant for fact in facts.by_name.values()] + list(facts.values.values())
        return rng.choice(pool)
    return _slip(rng, number)


def _computed(line: Line) -> Line:
    result = _compute(line.left, line.sign, line.right)
    return replace(line, result=result, value=result)


def _other_relation(rng: Random, facts: Facts, line: Line) -> Line:
    """Says about this person what the text says about another."""
    fact = rng.choice(list(facts.by_name.values()))
    said = line_by(facts, line.name, fact)
    return line if said is None else said


def _mixed_relation(rng: Random, facts: Facts, line: Line) -> Line:
    """Keeps the person looked up, takes the operation and the number of another fact."""
    said = _other_relation(rng, facts, line)
    if len(said.looked) == 2 or len(line.looked) == 2:
        return said
    return _computed(replace(line, sign=said.sign, right=rng.choice((said.right, line.right))))


def _other_person(rng: Random, facts: Facts, line: Line) -> Line:
    """Looks somebody else up, rightly, and goes on with that value; mostly somebody of an earlier fact."""
    slot = rng.randrange(len(line.looked))
    names = list(facts.values)
    earlier = names[: names.index(line.name)] if rng.random() < 0.8 else []
    name = rng.choice(earlier or names)
    looked = list(line.looked)
    looked[slot] = (name, facts.values[name])
    changed = replace(line, looked=tuple(looked))
    return _computed(changed.with_operand(slot, facts.values[name]))


def _wrong_look_up(rng: Random, facts: Facts, line: Line) -> Line:
    slot = rng.randrange(len(line.looked))
    name, value = line.looked[slot]
    wrong = _slip(rng, value) if rng.random() < 0.4 else rng.choice(list(facts.values.values()))
    looked = list(line.looked)
    looked[slot] = (name, wrong)
    changed = replace(line, looked=tuple(looked))
    if rng.random() < 0.8:
        changed = _computed(changed.with_operand(slot, wrong))
    return changed


def _wrong_operation(rng: Random, _facts: Facts, line: Line) -> Line:
    return _computed(replace(line, sign=rng.choice(_SIGNS)))


def _wrong_number(rng: Random, facts: Facts, line: Line) -> Line:
    slot = rng.choice((0, 1, 1))
    number = _other_number(rng, facts, line.right if slot else line.left)
    return _computed(line.with_operand(slot, number))


def _swapped(_rng: Random, _facts: Facts, line: Line) -> Line:
    return replace(line, left=line.right, right=line.left)


def _wrong_result(rng: Random, _facts: Facts, line: Line) -> Line:
    wrong = _slip(rng, line.result)
    return replace(line, result=wrong, value=wrong)


def _wrong_value(rng: Random, facts: Facts, line: Line) -> Line:
    return replace(line, value=_other_number(rng, facts, line.value))


def _one_more(rng: Random, facts: Facts, line: Line) -> Line:
    """Takes a number for a person, or a person for a number."""
    if len(line.looked) == 2:
        slot = rng.randrange(2)
        return _computed(replace(line, looked=(line.looked[slot],), left=line.looked[slot][1]))
    name = rng.choice(sorted(facts.values))
    value = facts.values[name]
    return _computed(replace(line, looked=(*line.looked, (name, value)), right=value))


def _wrong_name(rng: Random, facts: Facts, line: Line) -> Line:
    """Somebody else's name, of the problem or not, in one place or in both."""
    name = rng.choice(sorted(facts.values)) if rng.random() < 0.7 else rng.choice(NAMES)
    match rng.randrange(3):
        case 0:
            return replace(line, again=name)
        case 1:
            return replace(line, name=name)
        case _:
            return replace(line, name=name, again=name)


_KINDS: tuple[tuple[float, Callable[[Random, Facts, Line], Line]], ...] = (
    (4.0, _other_relation),
    (3.0, _mixed_relation),
    (4.0, _other_person),
    (3.0, _wrong_operation),
    (4.0, _wrong_number),
    (1.0, _swapped),
    (3.0, _wrong_look_up),
    (4.0, _wrong_result),
    (1.0, _wrong_value),
    (1.0, _one_more),
    (2.0, _wrong_name),
)


def _corrupt_base(rng: Random, facts: Facts, name: str) -> str:
    value = facts.values[name]
    match rng.randrange(4):
        case 0:
            return f"{name} = {_slip(rng, value)}"
        case 1:
            return f"{rng.choice(sorted(facts.values))} = {value}"
        case 2:
            fact = rng.choice(list(facts.by_name.values()))
            said = line_by(facts, name, fact)
            return f"{name} = {fact.constant}" if said is None else str(said)
        case _:
            return f"{name} = {_other_number(rng, facts, value)}"


def _attempt(rng: Random, facts: Facts, line: str) -> str:
    if line.startswith(ANSWER_PREFIX):
        return f"{ANSWER_PREFIX} {_other_number(rng, facts, facts.values[facts.asked])}"
    name = named_by(line)
    parts = line_by(facts, name, facts.by_name[name])
    if parts is None:
        return _corrupt_base(rng, facts, name)
    dice = rng.random()
    if dice < 0.04:
        return f"{name} = {rng.choice((parts.right, parts.left, parts.value))}"
    if dice < 0.12:
        return _mutated(rng, facts, str(parts))
    weights, kinds = zip(*_KINDS, strict=True)
    kind: Callable[[Random, Facts, Line], Line] = rng.choices(kinds, weights=weights)[0]
    wrong = kind(rng, facts, parts)
    return str(wrong)


def _mutated(rng: Random, facts: Facts, line: str) -> str:
    """One word exchanged for another of its kind, doubled or left out; the rest as it was."""
    words = line.split(" ")
    index = rng.randrange(len(words))
    word = words[index].rstrip(",:")
    rest = words[index][len(word) :]
    if word.isdecimal():
        words[index] = f"{_slip(rng, int(word))}{rest}"
    elif word.isalpha() and word != "x":
        words[index] = f"{rng.choice(sorted(facts.values))}{rest}"
    elif word in _SIGNS:
        words[index] = rng.choice(_SIGNS)
    elif rng.random() < 0.5:
        del words[index]
    else:
        words.insert(index, words[index])
    return " ".join(words)


def _too_early(rng: Random, facts: Facts, line: str) -> str:
    """The right line of somebody whose turn has not come."""
    if line.startswith(ANSWER_PREFIX):
        return line
    names = list(facts.by_name)
    name = rng.choice(names[names.index(named_by(line)) :])
    said = line_by(facts, name, facts.by_name[name])
    return line if said is None else str(said)


def corrupt(rng: Random, facts: Facts, line: str, before: Sequence[str] = ()) -> str | None:
    """A wrong line in the place of the right `line` behind the lines `before`; None when none was found.

    The result never states a number beyond four digits, and the checker does not accept it there.
    """
    for _ in range(_TRIES):
        wrong = _too_early(rng, facts, line) if rng.random() < 0.05 else _attempt(rng, facts, line)
        numbers = (int(word) for word in wrong.replace(",", " ").split() if word.isdecimal())
        if (
            max(numbers, default=0) <= 5 * MAX_VALUE
            and not label_steps(facts, "\n".join((*before, wrong)))[-1]
        ):
            return wrong
    return None
