# SPDX-License-Identifier: Apache-2.0
"""`problems` and `check`: the task itself, without any model."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from adyton_models.commands.arguments import add_problem_choice, new_parser
from adyton_models.sets import SETS, named_set
from adyton_models.tasks import (
    Problem,
    UnreadableProblemError,
    Verdict,
    check_answer,
    check_steps,
    generate,
    generate_mix,
)
from adyton_protocol.errors import ConfigError

_PROBLEMS: Final = """\
Print word problems with their solutions. The same arguments always give the same problems. A set is one of those
that ship: `heldout` (the calibrated mix), `ood` (what was never trained) or `handwritten`."""
_PROBLEMS_EXAMPLES: Final = """\
  adyton-models problems --n 3 --steps 2-5
  adyton-models problems --mix --split train --n 1000 --jsonl > mine.jsonl
  adyton-models problems --set ood --jsonl          as in models/shipped/ood.jsonl"""

_CHECK: Final = """\
Check a solution against its problem, line by line, with the symbolic checker. No model is involved.
Exit status 1 when the final answer or any line is wrong."""
_CHECK_EXAMPLES: Final = """\
  adyton-models check --problem @problem.txt --solution @solution.txt
  adyton-models check --json \\
    --problem "Eva has 12 pears. Tom has 9 more pears than Eva. How many pears does Tom have?" \\
    --solution "$(printf 'Eva = 12\\nTom: Eva = 12, 12 + 9 = 21, Tom = 21\\nThe answer is: 21')\""""


def add_parsers(commands: Any) -> None:
    """Add both subcommands."""
    problems = new_parser(commands, "problems", "print problems of the task", _PROBLEMS, _PROBLEMS_EXAMPLES)
    add_problem_choice(problems, n=3)
    problems.add_argument(
        "--set", choices=SETS, help="a set that ships, whole; the options above do not apply"
    )
    problems.add_argument("--jsonl", action="store_true", help="one JSON object a line")
    problems.set_defaults(run=run_problems)
    check = new_parser(commands, "check", "check a solution step by step", _CHECK, _CHECK_EXAMPLES)
    check.add_argument("--problem", required=True, metavar="TEXT", help="the problem, or @FILE")
    check.add_argument("--solution", required=True, metavar="TEXT", help="the solution, or @FILE")
    check.add_argument("--json", action="store_true", help="print JSON")
    check.set_defaults(run=run_check)


def chosen_problems(arguments: argparse.Namespace) -> Iterator[Problem]:
    """The problems that `arguments.add_problem_choice` describes."""
    if arguments.mix:
        return generate_mix(arguments.split, arguments.seed, arguments.n)
    return generate(
        arguments.split,
        arguments.seed,
        arguments.n,
        arguments.steps,
        distractors=arguments.distractors,
        shuffle=arguments.shuffle,
    )


def problem_as_json(problem: Problem) -> dict[str, Any]:
    """The object that stands for a problem in a JSONL file."""
    return {
        "problem": problem.text,
        "solution": problem.solution,
        "answer": problem.answer,
        "steps": problem.steps,
        "bucket": problem.bucket or None,
        "split": problem.split,
        "template": problem.template,
        "graph": problem.graph,
    }


def run_problems(arguments: argparse.Namespace) -> int:
    """Print problems."""
    for problem in chosen_problems(arguments) if arguments.set is None else named_set(arguments.set):
        if arguments.jsonl:
            print(json.dumps(problem_as_json(problem)))
        else:
            print(f"{problem.text}\n{problem.solution}\n")
    return 0


def _text(argument: str) -> str:
    if not argument.startswith("@"):
        return argument
    try:
        return Path(argument[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {argument[1:]}") from error


def run_check(arguments: argparse.Namespace) -> int:
    """Check one solution."""
    problem, solution = _text(arguments.problem), _text(arguments.solution)
    try:
        steps, right = check_steps(problem, solution), check_answer(problem, solution)
    except UnreadableProblemError as error:
        raise ConfigError(f"the problem is not of this task: {error}") from error
    answer = "right" if right else "wrong"
    if arguments.json:
        lines = [{"line": step.line, "verdict": str(step.verdict)} for step in steps]
        print(json.dumps({"answer": answer, "steps": lines}))
    else:
        for step in steps:
            print(f"{step.verdict:16} {step.line}")
        print(f"final answer: {answer}")
    return 0 if right and all(step.verdict is Verdict.CORRECT for step in steps) else 1
