# SPDX-License-Identifier: Apache-2.0
"""`eval`: accuracy of a model on held-out problems."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any, Final

from adyton_models.catalog import Sampling, read_catalog, sha256_of
from adyton_models.commands.arguments import add_catalog, add_problem_choice, new_parser, positive
from adyton_models.commands.task import chosen_problems
from adyton_models.progress import ProgressBar
from adyton_models.tasks import check_answer
from adyton_protocol.errors import ConfigError

_EVAL: Final = """\
Measure a GGUF on held-out problems: one sample each, exact final answer, 95 % intervals (Wilson).
Runs in this process through llama-cpp-python, without the appliance around it."""
_EVAL_EXAMPLES: Final = """\
  adyton-models eval --n 200
  adyton-models eval --n 1000 --steps 2-5 --seed 7 --json
  adyton-models eval --model mine.gguf --temperature 0 --show 3"""


def add_parsers(commands: Any) -> None:
    """Add the subcommand."""
    parser = new_parser(commands, "eval", "measure a model on held-out problems", _EVAL, _EVAL_EXAMPLES)
    parser.add_argument(
        "--model", metavar="NAME|FILE", help="of the catalog, or a GGUF (default: the catalog's)"
    )
    add_catalog(parser)
    add_problem_choice(parser, n=200)
    parser.add_argument("--temperature", type=float, metavar="T", help="0 is greedy (default: the catalog's)")
    parser.add_argument("--threads", type=positive, default=1, metavar="K", help="CPU threads (default: 1)")
    parser.add_argument("--show", type=int, default=0, metavar="K", help="print the first K completions")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run_eval)


def _model(arguments: argparse.Namespace) -> tuple[Path, Sampling]:
    if arguments.model is not None and Path(arguments.model).is_file():
        return Path(arguments.model), Sampling()
    entry = read_catalog(arguments.catalog).entry(arguments.model)
    path: Path = arguments.catalog.parent / entry.file
    if sha256_of(path) != entry.sha256:
        raise ConfigError(f"{path} is not the file that the catalog lists: its SHA-256 differs")
    return path, entry.sampling


def run_eval(arguments: argparse.Namespace) -> int:
    """Measure, and print what was measured."""
    try:
        from adyton_models.evaluation import Solver, evaluate  # noqa: PLC0415 - loads llama.cpp
    except ImportError as error:
        raise ConfigError(f"eval needs llama-cpp-python: {error}") from error
    path, sampling = _model(arguments)
    if arguments.temperature is not None:
        sampling = dataclasses.replace(sampling, temperature=arguments.temperature)
    problems = list(chosen_problems(arguments))
    solver = Solver(path, threads=arguments.threads)
    for problem in problems[: arguments.show]:
        completion, _ = solver.solve(problem.text, sampling, arguments.seed)
        verdict = "right" if check_answer(problem, completion) else f"wrong, expected {problem.answer}"
        print(f"{problem.text}\n{completion}\n[{verdict}]\n", file=sys.stderr)
    bar = ProgressBar("eval")
    measured = evaluate(
        solver,
        problems,
        sampling,
        seed=arguments.seed,
        report=lambda done, right: bar.update(done / len(problems), f"{right}/{done} right"),
    )
    bar.close()
    document = {"model": path.name, "temperature": sampling.temperature, **measured.as_json()}
    print(json.dumps(document) if arguments.json else _table(document))
    return 0


def _table(document: dict[str, Any]) -> str:
    scores = {f"{steps} steps": score for steps, score in document["by_steps"].items()} | {
        "all": document["overall"]
    }
    lines = [
        f"{label:8} {score['accuracy']:6.1%}  [{score['ci95'][0]:.1%}, {score['ci95'][1]:.1%}]"
        f"  {score['right']}/{score['n']}"
        for label, score in scores.items()
    ]
    lines.append(
        "first fault: " + ", ".join(f"{name} {count}" for name, count in document["first_faults"].items())
    )
    lines.append(
        f"{document['completion_tokens']} tokens in {document['seconds']:.0f} s, "
        f"temperature {document['temperature']}"
    )
    return "\n".join(lines)
