# SPDX-License-Identifier: Apache-2.0
"""Problems with answers to measure a model on: a JSONL file of anybody's, or one of the sets that ship.

Each line is an object with `problem` and `answer`; `id`, `steps`, `bucket` and `solution` are optional, and other
members are left alone. A file is somebody else's: sizes are bounded, and a fault is reported with its line.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

from adyton_models.sets import SETS, named_set
from adyton_models.tasks import Problem
from adyton_protocol.errors import ConfigError

MAX_LINE_BYTES: Final = 256 * 1024
MAX_PROBLEMS: Final = 100_000
MAX_PROBLEM_CHARACTERS: Final = 64 * 1024
MAX_LABEL_CHARACTERS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One problem.

    Attributes:
        id: From the file, or its number in order, from 1.
        text: What the model is asked.
        answer: As written; compared as a rational number where it is one.
        steps: How many steps it takes, if known.
        bucket: How hard it is, in the words of whoever made the set, if known.
        solution: A worked solution, if there is one; empty otherwise.
        problem: What it is, for a problem of our task that was not read from a file.
    """

    id: str
    text: str
    answer: str
    steps: int | None = None
    bucket: str | None = None
    solution: str = field(default="", repr=False)
    problem: Problem | None = field(default=None, repr=False)

    @property
    def group(self) -> str:
        """By what scores are shown: the bucket, or else the steps; empty without either."""
        if self.bucket is not None:
            return self.bucket
        return "" if self.steps is None else f"{self.steps} step{'s' if self.steps != 1 else ''}"


def from_task(problem: Problem, number: int) -> Question:
    """A generated problem of the task."""
    return Question(
        id=str(number),
        text=problem.text,
        answer=str(problem.answer),
        steps=problem.steps,
        bucket=problem.bucket or None,
        solution=problem.solution,
        problem=problem,
    )


def read_set(name: str) -> tuple[Question, ...]:
    """The problems of a set that ships, or of the JSONL file of that name.

    Raises:
        ConfigError: Neither is there, or the file is faulty.
    """
    if name in SETS:
        try:
            return tuple(from_task(problem, number) for number, problem in enumerate(named_set(name), 1))
        except OSError as error:
            raise ConfigError(f"the set {name!r} cannot be read: {error.strerror}") from error
    if not Path(name).is_file():
        raise ConfigError(f"there is no problem set {name!r}: name a JSONL file or one of {', '.join(SETS)}")
    return read_problems(Path(name))


def read_problems(path: Path) -> tuple[Question, ...]:
    """Read a JSONL file (of anybody's making).

    Raises:
        ConfigError: The file is missing or empty, too large, or a line is no problem; the message has its number.
    """
    questions: dict[str, Question] = {}
    for number, line in _lines(path):
        question = _question(_object(line, path, number), path, number, default_id=str(len(questions) + 1))
        if question.id in questions:
            _fail(path, number, "the id occurs twice")
        questions[question.id] = question
        if len(questions) > MAX_PROBLEMS:
            _fail(path, number, f"a set has at most {MAX_PROBLEMS} problems")
    if not questions:
        raise ConfigError(f"{path} holds no problem")
    return tuple(questions.values())


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Non-empty lines with their numbers."""
    try:
        with path.open("rb") as stream:
            number = 0
            while line := stream.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    _fail(path, number, f"a line has at most {MAX_LINE_BYTES} bytes")
                if line.strip():
                    yield number, line
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error


def _object(line: bytes, path: Path, number: int) -> dict[str, Any]:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(constant)

    try:
        # Numbers keep their spelling, so that 0.1 stays a tenth.
        found = json.loads(line.decode("utf-8"), parse_float=str, parse_int=str, parse_constant=refuse)
    except (ValueError, RecursionError):
        _fail(path, number, "not a JSON object in UTF-8")
    if not isinstance(found, dict):
        _fail(path, number, "not a JSON object in UTF-8")
    return found


def _question(members: dict[str, Any], path: Path, number: int, *, default_id: str) -> Question:
    text = _text(members, "problem", MAX_PROBLEM_CHARACTERS, path, number)
    answer = _text(members, "answer", MAX_LABEL_CHARACTERS * 2, path, number)
    if text is None or answer is None:
        _fail(path, number, f"`{'problem' if text is None else 'answer'}` is missing")
    steps = _text(members, "steps", MAX_LABEL_CHARACTERS, path, number)
    if steps is not None and not (steps.isascii() and steps.isdecimal() and len(steps) < 7):
        _fail(path, number, "`steps` is not a whole number")
    return Question(
        id=_text(members, "id", MAX_LABEL_CHARACTERS, path, number) or default_id,
        text=text,
        answer=answer,
        steps=None if steps is None else int(steps),
        bucket=_text(members, "bucket", MAX_LABEL_CHARACTERS, path, number),
        solution=_text(members, "solution", MAX_PROBLEM_CHARACTERS, path, number) or "",
    )


def _text(members: dict[str, Any], key: str, limit: int, path: Path, number: int) -> str | None:
    """A string or number of the line, as text; None when it is absent."""
    value = members.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        _fail(path, number, f"`{key}` is not a non-empty string or a number")
    if len(value) > limit:
        _fail(path, number, f"`{key}` has more than {limit} characters")
    return value


def _fail(path: Path, number: int, problem: str) -> NoReturn:
    # The line itself is not quoted: problems may be as confidential as prompts.
    raise ConfigError(f"{path}, line {number}: {problem}")
