# SPDX-License-Identifier: Apache-2.0
"""From the text of a problem back to its facts, by matching every sentence against the templates.

The checker therefore needs nothing but the two texts. Input may be any text; what no template explains
is an error.
"""

import re
from dataclasses import fields
from functools import cache

from adyton_models.tasks.facts import Fact, Facts, UnreadableProblemError, solve
from adyton_models.tasks.graph import Operation
from adyton_models.tasks.templates import STYLES, Style

_FIELD = re.compile(r"\{(.)\}")
_PATTERNS = {
    "a": r"(?P<a>[A-Z][a-z]+)",
    "b": r"(?P<b>[A-Z][a-z]+)",
    "c": r"(?P<c>[A-Z][a-z]+)",
    "k": r"(?P<k>[0-9]{1,4})",
}
MAX_PROBLEM_CHARACTERS = 8192


def _expression(wording: str) -> re.Pattern[str]:
    parts = _FIELD.split(wording)
    pieces = [
        re.escape(part) if index % 2 == 0 else _PATTERNS.get(part, "[a-z]+")
        for index, part in enumerate(parts)
    ]
    return re.compile("".join(pieces))


@cache
def _sentence_expressions() -> tuple[tuple[Operation, re.Pattern[str]], ...]:
    names = {field.name for field in fields(Style)} - {"question"}
    return tuple(
        (Operation(name), _expression(getattr(style, name))) for style in STYLES for name in sorted(names)
    )


@cache
def _question_expressions() -> tuple[re.Pattern[str], ...]:
    return tuple(_expression(style.question) for style in STYLES)


def _read_fact(sentence: str) -> tuple[str, Fact]:
    for said, expression in _sentence_expressions():
        found = expression.fullmatch(sentence)
        if found is None:
            continue
        groups = found.groupdict()
        references = tuple(groups[key] for key in ("b", "c") if groups.get(key) is not None)
        unstated = 0 if len(references) == 2 else 2
        constant = int(groups["k"]) if "k" in groups else unstated
        # One style says twice as `times 2`.
        operation = Operation.TWICE if (said, constant) == (Operation.TIMES, 2) else said
        return found["a"], Fact(operation=operation, references=references, constant=constant)
    raise UnreadableProblemError("a sentence matches no template")


def matches_a_template(sentence: str) -> bool:
    """Whether the generator could have written this fact or question."""
    expressions = [*_question_expressions(), *(expression for _, expression in _sentence_expressions())]
    return any(expression.fullmatch(sentence) for expression in expressions)


def read_problem(text: str) -> Facts:
    """Parse and solve a problem.

    Args:
        text: the problem as given to the model, one or more facts and then the question.

    Raises:
        UnreadableProblemError: a sentence is not of this task, or the facts are not solvable.
    """
    if len(text) > MAX_PROBLEM_CHARACTERS:
        raise UnreadableProblemError("the text is too long")
    sentences = re.findall(r"[^.?]+[.?]", " ".join(text.split()))
    if len(sentences) < 2:
        raise UnreadableProblemError("a problem has at least one fact and a question")
    by_name: dict[str, Fact] = {}
    for sentence in sentences[:-1]:
        name, fact = _read_fact(sentence.strip())
        if name in by_name:
            raise UnreadableProblemError("a name is defined twice")
        by_name[name] = fact
    question = sentences[-1].strip()
    asked = next((found["a"] for e in _question_expressions() if (found := e.fullmatch(question))), None)
    if asked is None or asked not in by_name:
        raise UnreadableProblemError("the question matches no template or asks for an unknown name")
    return Facts(by_name=by_name, asked=asked, values=solve(by_name))
