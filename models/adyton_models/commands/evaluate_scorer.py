# SPDX-License-Identifier: Apache-2.0
"""`eval --scorer` and `adapter`: how well a scorer judges what a generator writes, and its adapter file."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from adyton_models.commands.arguments import add_catalog, new_parser, positive, step_range
from adyton_models.progress import ProgressBar
from adyton_models.sets import SETS, named_set
from adyton_models.tasks import MIX, Problem, generate, generate_mix
from adyton_protocol.errors import ConfigError

if TYPE_CHECKING:
    from adyton_models.catalog import Sampling
    from adyton_models.scorer_evaluation import Answered

_ADAPTER: Final = """\
Write the adapter file of a trained scorer: the convention's file with a calibration fitted on what a generator
answers to validation problems, and golden vectors that an enclave checks whenever it loads the scorer."""
_ADAPTER_EXAMPLES: Final = """\
  adyton-models adapter --scorer scorer.gguf --model mine.gguf --n 400 --out scorer.toml"""

CONVENTION: Final = "adyton-words-scorer.toml"


def convention() -> Path:
    """The adapter that says how the scorers trained here are asked."""
    from adyton_models.catalog import default_catalog  # noqa: PLC0415 - beside its only use

    return default_catalog().parent / "adapters" / CONVENTION


def add_parsers(commands: Any) -> None:
    """Add `adapter`."""
    parser = new_parser(commands, "adapter", "write a scorer's adapter file", _ADAPTER, _ADAPTER_EXAMPLES)
    add = parser.add_argument
    add("--scorer", type=Path, required=True, metavar="FILE", help="the scorer's GGUF")
    add("--model", metavar="NAME|FILE", help="the generator (default: the catalog's)")
    add_catalog(parser)
    add("--convention", type=Path, default=convention(), metavar="FILE", help="default: the task's own")
    add("--out", type=Path, required=True, metavar="FILE", help="the adapter to write")
    add("--n", type=positive, default=400, metavar="K", help="validation problems (default: %(default)s)")
    add("--samples", type=positive, default=2, metavar="K", help="answers for each (default: %(default)s)")
    add("--steps", type=step_range, metavar="A-B", help="operations (default: the calibrated mix)")
    add("--seed", type=int, default=1, metavar="N", help="default: 1")
    add("--threads", type=positive, default=1, metavar="K", help="CPU threads (default: 1)")
    add("--parallel", type=positive, default=16, metavar="K", help="answers decoded together (default: 16)")
    parser.set_defaults(run=run_adapter, n_ctx=None)


def problems_of(arguments: argparse.Namespace) -> Iterator[Problem]:
    """The problems chosen, with their facts: a scorer is judged line by line, so answers alone do not do.

    Raises:
        ConfigError: a file of problems was named.
    """
    from adyton_models.commands.task import chosen_problems  # noqa: PLC0415 - avoids a circle

    if arguments.problems is not None or arguments.set not in (None, *SETS):
        raise ConfigError(f"--scorer needs problems with checked steps: --set {', '.join(SETS)}, or --n")
    return chosen_problems(arguments) if arguments.set is None else named_set(arguments.set)


def answers(
    path: Path, sampling: "Sampling", problems: list[Problem], arguments: argparse.Namespace
) -> "list[Answered]":
    """What the generator in `path` answers, drawn as it is served."""
    from adyton_models.scorer_evaluation import Answered  # noqa: PLC0415 - with its package
    from adyton_models.serving import ServedModel  # noqa: PLC0415 - loads llama.cpp

    bar = ProgressBar("sample")
    done = 0

    def report(_index: int, _sampled: object) -> None:
        nonlocal done
        done += 1
        bar.update(done / len(problems))

    with ServedModel(
        path, n_ctx=arguments.n_ctx or 1024, threads=arguments.threads, parallel=arguments.parallel
    ) as model:
        prompts = [model.prompt(problem.text) for problem in problems]
        found = model.sample(prompts, sampling, samples=arguments.samples, seed=arguments.seed, report=report)
    bar.close()
    return [
        Answered(
            problem=problem.text,
            facts=problem.facts(),
            group=problem.bucket or f"{problem.steps:02} steps",
            solutions=tuple(completion.text for completion in sampled.completions),
        )
        for problem, sampled in zip(problems, found, strict=True)
    ]


def _share(
    arguments: argparse.Namespace, generator: Path, answered: "list[Answered]", *, tagged: bool
) -> float:
    """The scorer's FLOPs over the generator's, for these answers."""
    from adyton_models.flops import Sizes, SolutionSize, flops_share  # noqa: PLC0415 - beside its use
    from adyton_models.gguf_facts import read_facts  # noqa: PLC0415 - beside its use
    from adyton_models.tokenizer import Tokenizer  # noqa: PLC0415 - beside its use
    from adyton_models.training.sampled import lines_of  # noqa: PLC0415 - beside its use

    def sizes(path: Path) -> Sizes:
        facts = read_facts(path)
        return Sizes(
            width=facts.of_arch("embedding_length"),
            layers=facts.of_arch("block_count"),
            feed_forward=facts.of_arch("feed_forward_length"),
        )

    tokenizer = Tokenizer()
    counted = [
        SolutionSize(
            prompt_tokens=len(tokenizer.prompt(each.problem)),
            solution_tokens=len(tokenizer.encode_known(text)),
            lines=len(lines_of(text)),
        )
        for each in answered
        for text in each.solutions
    ]
    return flops_share(
        sizes(arguments.scorer), sizes(generator), counted, vocabulary=len(tokenizer), tagged=tagged
    )


def run_scorer_eval(arguments: argparse.Namespace, generator: Path, sampling: "Sampling") -> int:
    """Judge what the generator answers, and print how well."""
    from adyton_models.scorer_adapter import runner_judge  # noqa: PLC0415 - loads llama.cpp
    from adyton_models.scorer_evaluation import evaluate_scorer, judge_all  # noqa: PLC0415 - with its users
    from adyton_models.scoring import ScorerRunner  # noqa: PLC0415 - loads llama.cpp

    problems = list(problems_of(arguments))[: arguments.first]
    answered = answers(generator, sampling, problems, arguments)
    bar = ProgressBar("judge")
    with ScorerRunner(arguments.scorer, arguments.adapter or convention()) as runner:
        adapter = runner.scorer.adapter
        judged = judge_all(runner_judge(runner), answered, bar.update)
    bar.close()
    document = {
        "scorer": arguments.scorer.name,
        "generator": generator.name,
        "temperature": sampling.temperature,
        "flops_share": round(_share(arguments, generator, answered, tagged=adapter.kind != "likelihood"), 4),
        **evaluate_scorer(judged, adapter.calibration.threshold),
    }
    if arguments.plot is not None:
        _plot(document, arguments.plot)
    print(json.dumps(document) if arguments.json else table(document))
    return 0


def _plot(document: dict[str, Any], out: Path) -> None:
    try:
        from adyton_models.evaluation_plot import draw_scorer_evaluation  # noqa: PLC0415 - loads matplotlib
    except ImportError as error:
        raise ConfigError(f"--plot needs the extra 'train' (matplotlib): {error}") from error
    draw_scorer_evaluation(document, out)


def table(document: dict[str, Any]) -> str:
    """The figures for people."""
    lines = [
        (
            f"{document['scorer']} on {document['solutions']} solutions of {document['generator']} "
            f"({document['faulty_solutions']} with a fault), threshold {document['threshold']}"
        )
    ]
    for name, label in (
        ("step_auc", "step AUC"),
        ("first_fault_found", "first wrong line found exactly"),
        ("judged_exactly", "solutions judged exactly"),
    ):
        figure = document[name]
        low, high = figure["ci95"]
        lines.append(f"{label:32} {figure['value']:.4f}  [{low:.4f}, {high:.4f}]")
    lines.append(f"{'FLOPs over those of the generator':32} {document['flops_share']:.1%}")
    for title in ("by_group", "by_fault"):
        for name, group in document[title].items():
            lines.append(f"  {name:30} {group['judged_exactly']:6.1%} of {group['solutions']}")
    return "\n".join(lines)


def run_adapter(arguments: argparse.Namespace) -> int:
    """Write the adapter."""
    try:
        from adyton_models.scorer_adapter import finish_adapter  # noqa: PLC0415 - loads llama.cpp
    except ImportError as error:
        raise ConfigError(f"this needs the extra 'enclave' (llama-cpp-python): {error}") from error
    from adyton_models.commands.evaluate import chosen_model  # noqa: PLC0415 - avoids a circle

    generator, sampling, _ = chosen_model(arguments)
    if arguments.steps is None:
        problems = list(generate_mix("validation", arguments.seed, arguments.n, MIX))
    else:
        problems = list(generate("validation", arguments.seed, arguments.n, arguments.steps))
    answered = answers(generator, sampling, problems, arguments)
    bar = ProgressBar("judge")
    made = finish_adapter(arguments.scorer, arguments.convention.read_bytes(), answered, bar.update)
    bar.close()
    arguments.out.write_bytes(made)
    print(arguments.out)
    return 0
