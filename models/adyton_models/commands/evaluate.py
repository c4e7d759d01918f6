# SPDX-License-Identifier: Apache-2.0
"""`eval`: accuracy of a model on problems with answers."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from adyton_models.answers import same_answer
from adyton_models.catalog import Sampling, read_catalog, sha256_of
from adyton_models.commands.arguments import add_catalog, add_problem_choice, new_parser, positive
from adyton_models.commands.evaluate_scorer import run_scorer_eval
from adyton_models.commands.evaluate_searches import run_search_eval
from adyton_models.commands.task import chosen_problems
from adyton_models.gguf_facts import read_facts
from adyton_models.math_verify import MathVerify
from adyton_models.problem_sets import Question, from_task, read_problems, read_set
from adyton_models.progress import ProgressBar
from adyton_models.sets import SETS
from adyton_protocol.errors import ConfigError

if TYPE_CHECKING:
    from adyton_models.evaluation import Evaluation

_ALGEBRA: Final = "math-verify"
_PICTURES: Final = (".png", ".svg", ".pdf")

_EVAL: Final = """\
Measure a GGUF on problems with answers, with the engine, the chat template and the sampler that serve it, in
this process: pass@1 with 95 % intervals (Wilson for one sample of each problem, a bootstrap over problems for
more), by bucket or number of steps. The same seed gives the same answers.

Problems come from the built-in generator (--n, --steps, --split, ...), from a set that ships with the
repository, or from a file of yours with one JSON object a line:

  {"problem": "Eva has 12 pears ...", "answer": "21", "bucket": "easy", "id": "p1"}

With --scorer, what the model answers is judged line by line by that scorer, and the scorer is measured against
the symbolic checker: step AUC, first wrong line found exactly, FLOPs.

With --strategies, every problem is searched by each of these, as an enclave would: accuracy, tokens and FLOPs of both
models, with the scorer that the catalog names or that --scorer and --adapter do. --samples is the number of seeds.

Answers are read as the enclave reads them (docs/answers.md) and compared exactly: fractions as rationals, sets
without order, options by letter. In a completion the last \\boxed{} counts, else the last `The answer is`; with a
file of yours, else, the last number (--accept declared to do without). --equivalence math-verify also asks
math-verify (extra 'math') whether the rest is equal by algebra, in a process that is killed when it hangs."""
_EVAL_EXAMPLES: Final = """\
  adyton-models eval --n 200
  adyton-models eval --n 1000 --steps 2-5 --seed 7 --json
  adyton-models eval --set ood --samples 16 --plot ood.png
  adyton-models eval --model mine.gguf --problems exam.jsonl --suffix " End with: The answer is: N"
  adyton-models eval --model mine.gguf --temperature 0 --show 3
  adyton-models eval --strategies single,majority-16,weighted-16,rebase-8,auto-16 --n 100 --mix --plot searches.png
  adyton-models eval --scorer scorer.gguf --adapter scorer.toml --set heldout --samples 2"""


def add_parsers(commands: Any) -> None:
    """Add the subcommand."""
    parser = new_parser(commands, "eval", "measure a model on problems with answers", _EVAL, _EVAL_EXAMPLES)
    add = parser.add_argument
    add("--model", metavar="NAME|FILE", help="of the catalog, or a GGUF (default: the catalog's)")
    add_catalog(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--problems", type=Path, metavar="FILE", help="a JSONL file of problems")
    which.add_argument("--set", metavar="NAME|FILE", help=f"{', '.join(SETS)}, or a JSONL file")
    add("--first", type=positive, metavar="K", help="only the first K problems of a set or file")
    add_problem_choice(parser, n=200)
    add("--samples", type=positive, default=1, metavar="K", help="answers for each problem (default: 1)")
    add("--temperature", type=float, metavar="T", help="0 is greedy (default: the catalog's)")
    add("--max-tokens", type=positive, metavar="K", help="longest answer (default: the catalog's)")
    add(
        "--n-ctx",
        type=positive,
        metavar="K",
        help="context in tokens (default: the catalog's; of a file, what it was trained for, at most 4096)",
    )
    add("--suffix", default="", metavar="TEXT", help="put this behind every problem")
    add("--accept", choices=("declared", "any"), help="which answers count, see above")
    add(
        "--equivalence",
        choices=("exact", _ALGEBRA),
        default="exact",
        help="when an answer is right, see above (default: exact)",
    )
    add("--threads", type=positive, default=1, metavar="K", help="CPU threads (default: 1)")
    add("--parallel", type=positive, default=16, metavar="K", help="answers decoded together (default: 16)")
    add("--show", type=int, default=0, metavar="K", help="print the first K completions")
    add("--save", type=Path, metavar="FILE", help="write every completion and its mark, one a line")
    add("--plot", type=Path, metavar="FILE", help="write a picture (.png, .svg, .pdf)")
    add("--scorer", type=Path, metavar="FILE", help="measure this scorer on the model's answers instead")
    add("--adapter", type=Path, metavar="FILE", help="how it is asked (default: the task's own convention)")
    add(
        "--strategies",
        metavar="LIST",
        help="measure searches instead, such as single,majority-16,weighted-16+beta,rebase-8,auto-16",
    )
    add("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run_eval)


def chosen_model(arguments: argparse.Namespace) -> tuple[Path, Sampling, int]:
    """File, default sampling and context of the model that `--model` and `--catalog` name.

    Raises:
        ConfigError: The model is not there, is sealed, or is not what the catalog lists.
    """
    if arguments.model is not None and Path(arguments.model).is_file():
        path = Path(arguments.model)
        return path, Sampling(), arguments.n_ctx or read_facts(path).default_n_ctx
    if arguments.model is not None and arguments.model.endswith(".gguf"):
        raise ConfigError(f"there is no file {arguments.model}")
    entry = read_catalog(arguments.catalog).entry(arguments.model)
    path = arguments.catalog.parent / entry.file
    if entry.key_id:
        raise ConfigError(f"{entry.name} is sealed: measure the file that it was made from")
    if sha256_of(path) != entry.sha256:
        raise ConfigError(f"{path} is not the file that the catalog lists: its SHA-256 differs")
    return path, entry.sampling, arguments.n_ctx or entry.n_ctx


def _questions(arguments: argparse.Namespace) -> tuple[Question, ...]:
    if arguments.problems is not None:
        return read_problems(arguments.problems)[: arguments.first]
    if arguments.set is not None:
        return read_set(arguments.set)[: arguments.first]
    return tuple(from_task(problem, at) for at, problem in enumerate(chosen_problems(arguments), 1))


def _any_number(arguments: argparse.Namespace) -> bool:
    """Our own solutions declare their answers, so a text that does not is unfinished; others' need not."""
    if arguments.accept is not None:
        return bool(arguments.accept == "any")
    return arguments.problems is not None or arguments.set not in (None, *SETS)


def _check_outputs(arguments: argparse.Namespace) -> None:
    """Refuse what could not be written, before anything is measured.

    Raises:
        ConfigError: A picture of another kind, or a directory that is not there.
    """
    if arguments.plot is not None and arguments.plot.suffix.lower() not in _PICTURES:
        raise ConfigError(f"--plot {arguments.plot}: the name has to end in {', '.join(_PICTURES)}")
    for option, path in (("--plot", arguments.plot), ("--save", arguments.save)):
        if path is not None and not path.parent.is_dir():
            raise ConfigError(f"{option} {path}: there is no directory {path.parent}")


def run_eval(arguments: argparse.Namespace) -> int:
    """Measure, and print what was measured."""
    try:
        from adyton_models.evaluation import Conditions, evaluate  # noqa: PLC0415 - loads llama.cpp
        from adyton_models.serving import ServedModel  # noqa: PLC0415 - loads llama.cpp
    except ImportError as error:
        raise ConfigError(f"eval needs the extra 'enclave' (llama-cpp-python): {error}") from error
    _check_outputs(arguments)
    if arguments.equivalence == _ALGEBRA:
        MathVerify.check_installed()
    path, sampling, n_ctx = chosen_model(arguments)
    if arguments.temperature is not None:
        sampling = dataclasses.replace(sampling, temperature=arguments.temperature)
    if arguments.max_tokens is not None:
        sampling = dataclasses.replace(sampling, max_tokens=arguments.max_tokens)
    if arguments.strategies is not None:
        return run_search_eval(
            arguments, path, sampling, n_ctx, _questions(arguments), any_number=_any_number(arguments)
        )
    if arguments.scorer is not None:
        return run_scorer_eval(arguments, path, sampling)
    questions = _questions(arguments)
    conditions = Conditions(
        sampling=sampling,
        samples=arguments.samples,
        seed=arguments.seed,
        any_number=_any_number(arguments),
        suffix=arguments.suffix,
    )
    bar = ProgressBar("eval")
    with (
        MathVerify() as algebra,
        ServedModel(path, n_ctx=n_ctx, threads=arguments.threads, parallel=arguments.parallel) as model,
    ):
        measured = evaluate(
            model,
            questions,
            conditions,
            same=algebra if arguments.equivalence == _ALGEBRA else same_answer,
            report=lambda done, accuracy: bar.update(done / len(questions), f"{accuracy:.1%} right"),
        )
        why_inexact = model.model.why_inexact
    bar.close()
    document = {
        "model": path.name,
        "problems": arguments.set or (str(arguments.problems) if arguments.problems else "generated"),
        "temperature": sampling.temperature,
        "seed": arguments.seed,
        "reproducible": why_inexact is None,
        "equivalence": arguments.equivalence,
        **measured.as_json(),
    }
    if arguments.equivalence == _ALGEBRA:
        document |= {"algebra": {"asked": algebra.asked, "gave_up": algebra.gave_up}}
    _show(measured, arguments.show)
    if arguments.save is not None:
        _save(measured, arguments.save)
    if arguments.plot is not None:
        _plot(measured, arguments.plot, path.name)
    print(json.dumps(document) if arguments.json else _table(document))
    return 0


def _show(measured: "Evaluation", count: int) -> None:
    for mark in measured.marks[:count]:
        # The first sample speaks for the others.
        for completion, right in list(zip(mark.completions, mark.right, strict=True))[:1]:
            verdict = "right" if right else f"wrong, expected {mark.question.answer}"
            print(f"{mark.question.text}\n{completion.text}\n[{verdict}]\n", file=sys.stderr)


def _save(measured: "Evaluation", out: Path) -> None:
    with out.open("w", encoding="utf-8") as stream:
        for mark in measured.marks:
            for completion, right in zip(mark.completions, mark.right, strict=True):
                line = {"id": mark.question.id, "right": right, "finished": completion.finished}
                stream.write(json.dumps(line | {"completion": completion.text}) + "\n")


def _plot(measured: "Evaluation", out: Path, name: str) -> None:
    try:
        from adyton_models.evaluation_plot import draw_evaluation  # noqa: PLC0415 - loads matplotlib
    except ImportError as error:
        raise ConfigError(f"--plot needs the extra 'train' (matplotlib): {error}") from error
    draw_evaluation(measured, out, title=f"{name}, {len(measured.marks)} problems")


def _table(document: dict[str, Any]) -> str:
    scores = {**document["by_bucket"], "all": document["overall"]}
    width = max(map(len, scores))
    lines = [
        f"{label:{width}} {score['accuracy']:6.1%}  [{score['ci95'][0]:.1%}, {score['ci95'][1]:.1%}]"
        f"  {score['right']}/{score['n']}"
        for label, score in scores.items()
    ]
    for title, key in (("answers", "answers_from"), ("first fault", "first_faults")):
        if document[key]:
            lines.append(f"{title}: " + ", ".join(f"{name} {count}" for name, count in document[key].items()))
    if document["cut_off"] or document["did_not_fit"]:
        lines.append(
            f"{document['cut_off']} answers cut off, {document['did_not_fit']} problems did not fit at all"
        )
    if "spread" in document:
        lines.append(_spread(document["spread"], document["samples_per_problem"]))
    lines.append(
        f"{document['completion_tokens']} tokens in {document['seconds']:.0f} s, "
        f"temperature {document['temperature']}, seed {document['seed']}"
    )
    return "\n".join(lines)


def _spread(spread: dict[str, Any], samples: int) -> str:
    lines = [f"problems by share of {samples} samples right:"]
    edges = [*spread["edges"], 1.0]
    most = max(1, *spread["problems"])
    for low, high, count in zip(edges, edges[1:], spread["problems"], strict=False):
        lines.append(f"  {low:4.0%} to {high:4.0%} {count:6}  {'#' * round(30 * count / most)}")
    lines.append(f"  between 10 % and 95 %: {spread['between_10_and_95_percent']:.0%} of the problems")
    return "\n".join(lines)
