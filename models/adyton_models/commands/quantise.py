# SPDX-License-Identifier: Apache-2.0
"""`quantise`: smaller files, and what they cost."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from adyton_models.catalog import Sampling
from adyton_models.commands.arguments import new_parser, positive
from adyton_models.problem_sets import Question, read_problems, read_set
from adyton_models.progress import ProgressBar
from adyton_models.sets import SETS
from adyton_protocol.errors import ConfigError

if TYPE_CHECKING:
    from adyton_models.gguf_facts import ModelFacts
    from adyton_models.quantise_report import Plan, Row

_TARGETS: Final = ("Q8_0", "Q6_K", "Q4_K_M", "Q4_0")
_KNOWN: Final = ("F16", *_TARGETS)
_MAX_TEXT_BYTES: Final = 16 * 1024 * 1024
_QUANTISE: Final = f"""\
Write a model with smaller numbers through llama.cpp's own quantiser, and measure what that costs against the original:
size, speed of prefill and decoding (one stream, one thread, measured in turn), how far predictions move
(Kullback-Leibler divergence over the whole vocabulary, and how often the likeliest token stays), and accuracy on
problems with its paired difference. Table, JSON and one picture go to --out beside the files.

Types: {", ".join(_KNOWN)}. Start from F16, BF16 or F32. K-quants need rows that are multiples of 256: matrices that
fall back to another type are named, and where all would, the type is refused."""
_QUANTISE_EXAMPLES: Final = """\
  adyton-models quantise mine-F16.gguf --to Q8_0,Q4_0 --out quantised
  adyton-models quantise mine-F16.gguf --to Q8_0,Q6_K,Q4_K_M,Q4_0 --out quantised --problems exam.jsonl
  adyton-models quantise mine-F16.gguf --to Q4_K_M --out quantised --text notes.txt --no-accuracy
  adyton-models quantise mine-F16.gguf --to Q8_0 --out quantised --no-report"""


def _types(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip().upper() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in _KNOWN]
    if unknown or not names:
        raise argparse.ArgumentTypeError(
            f"{', '.join(unknown) or 'nothing'} is not among {', '.join(_KNOWN)}"
        )
    return names


def add_parsers(commands: Any) -> None:
    """Add the subcommand."""
    parser = new_parser(
        commands, "quantise", "write smaller files, and measure them", _QUANTISE, _QUANTISE_EXAMPLES
    )
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="a GGUF in F16, BF16 or F32; the first of several")
    add("--to", type=_types, default=_TARGETS, metavar="TYPE,...", help=f"default: {','.join(_TARGETS)}")
    add("--out", type=Path, required=True, metavar="DIR", help="where files and report go")
    add("--force", action="store_true", help="replace files that are there")
    add("--requantise", action="store_true", help="accept a file that is quantised already")
    add("--allow-fallback", action="store_true", help="accept a type that no matrix of the model can have")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--problems", type=Path, metavar="FILE", help="a JSONL file of problems")
    which.add_argument(
        "--set",
        default="heldout",
        metavar="NAME|FILE",
        help=f"{', '.join(SETS)}, or a JSONL file (default: heldout)",
    )
    add("--first", type=positive, default=200, metavar="K", help="only the first K problems (default: 200)")
    add("--samples", type=positive, default=1, metavar="K", help="answers for each problem (default: 1)")
    add("--suffix", default="", metavar="TEXT", help="put this behind every problem")
    add("--temperature", type=float, metavar="T", help="0 is greedy (default: 0.8)")
    add("--seed", type=int, default=1, metavar="N", help="of the sampling (default: 1)")
    add(
        "--text",
        type=Path,
        metavar="FILE",
        help="text for divergence (default: the problems with their solutions)",
    )
    add(
        "--text-tokens",
        type=positive,
        default=4096,
        metavar="K",
        help="at most so many of it (default: 4096)",
    )
    add("--threads", type=positive, default=1, metavar="K", help="CPU threads, but for speed (default: 1)")
    add("--no-accuracy", action="store_true", help="do not solve problems")
    add("--no-speed", action="store_true", help="do not measure speed")
    add("--no-report", action="store_true", help="only write the files")
    add("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run_quantise)


def run_quantise(arguments: argparse.Namespace) -> int:
    """Write the files, then measure them."""
    try:
        from adyton_models import quantisation  # noqa: PLC0415 - loads llama.cpp
        from adyton_models.gguf_facts import read_facts  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(f"quantise needs the extra 'enclave' (llama-cpp-python): {error}") from error
    facts = read_facts(arguments.file)
    quantisation.check_source(facts, requantise=arguments.requantise)
    if not arguments.out.is_dir():
        try:
            arguments.out.mkdir(parents=True)
        except OSError as error:
            raise ConfigError(f"cannot make {arguments.out}: {error.strerror}") from error
    targets = [name for name in arguments.to if name != quantisation.stored_as(facts)]
    if not targets:
        raise ConfigError(f"{arguments.file.name} is stored as {quantisation.stored_as(facts)} already")
    paths = {name: quantisation.out_path(arguments.file, name, arguments.out) for name in targets}
    for name, path in paths.items():
        quantisation.check_target(facts, name, allow_fallback=arguments.allow_fallback)
        if path.exists() and not arguments.force:
            raise ConfigError(f"{path} is there already: --force replaces it")
    # Read now, so that a faulty file of problems is found before minutes of work.
    plan = None if arguments.no_report else _plan(arguments)
    files = []
    for name, path in paths.items():
        bar = ProgressBar(f"{name:7}")
        files.append(
            quantisation.quantise(
                facts,
                name,
                path,
                threads=arguments.threads,
                requantise=arguments.requantise,
                report=bar.update,
            )
        )
        bar.close()
    if plan is None:
        written = [
            {"name": each.target, "file": str(each.path), "fallbacks": dict(each.fallbacks)} for each in files
        ]
        print(json.dumps(written) if arguments.json else "\n".join(str(each.path) for each in files))
        return 0
    from adyton_models.quantise_report import measure  # noqa: PLC0415 - loads llama.cpp

    rows = measure(facts, files, plan, _stage)
    document = _document(arguments, facts, rows, plan)
    _write(arguments, facts, rows, document)
    return 0


def _stage(name: str) -> Callable[[float], None]:
    bar = ProgressBar(f"{name:20}")

    def report(share: float) -> None:
        bar.update(share)
        if share >= 1.0:
            bar.close()

    return report


def _plan(arguments: argparse.Namespace) -> "Plan":
    from adyton_models.evaluation import Conditions  # noqa: PLC0415 - loads llama.cpp
    from adyton_models.quantise_report import Plan  # noqa: PLC0415

    text = None if arguments.text is None else _read_text(arguments.text)
    questions: Sequence[Question] = ()
    if not arguments.no_accuracy:
        chosen = read_set(arguments.set) if arguments.problems is None else read_problems(arguments.problems)
        questions = chosen[: arguments.first]
    sampling = Sampling() if arguments.temperature is None else Sampling(temperature=arguments.temperature)
    conditions = Conditions(
        sampling=sampling,
        samples=arguments.samples,
        seed=arguments.seed,
        any_number=arguments.problems is not None or arguments.set not in SETS,
        suffix=arguments.suffix,
    )
    return Plan(
        questions=questions,
        text=text,
        text_tokens=arguments.text_tokens,
        conditions=conditions,
        threads=arguments.threads,
        speed=not arguments.no_speed,
    )


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return stream.read(_MAX_TEXT_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error


def _document(
    arguments: argparse.Namespace, facts: "ModelFacts", rows: Sequence["Row"], plan: "Plan"
) -> dict[str, Any]:
    return {
        "model": facts.text("general.name") or arguments.file.name,
        "original": rows[0].name,
        "parameters": facts.parameters,
        "problems": len(plan.questions),
        "samples_per_problem": plan.conditions.samples,
        "temperature": plan.conditions.sampling.temperature,
        "seed": plan.conditions.seed,
        "rows": [row.as_json() for row in rows],
    }


def _write(
    arguments: argparse.Namespace, facts: "ModelFacts", rows: Sequence["Row"], document: dict[str, Any]
) -> None:
    from adyton_models.quantisation import out_path  # noqa: PLC0415 - loads llama.cpp
    from adyton_models.quantise_report import as_table  # noqa: PLC0415

    whole = out_path(arguments.file, "report", arguments.out)

    def beside(suffix: str) -> Path:
        return whole.with_name(whole.name.removesuffix(".gguf") + suffix)

    table = as_table(rows)
    beside(".json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    beside(".md").write_text(table + "\n", encoding="utf-8")
    written = [beside(".json"), beside(".md")]
    try:
        from adyton_models.quantise_plot import draw_report  # noqa: PLC0415 - loads matplotlib
    except ImportError:
        print("no picture: matplotlib is missing (extra 'train')", file=sys.stderr)
    else:
        name = facts.text("general.name") or arguments.file.name
        draw_report(rows, beside(".png"), title=f"{name}: quantised, against {rows[0].name}")
        written.append(beside(".png"))
    print(json.dumps(document) if arguments.json else table)
    print("wrote " + ", ".join(map(str, written)), file=sys.stderr)
