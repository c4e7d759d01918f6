# SPDX-License-Identifier: Apache-2.0
"""`calibrate`: how hard each kind of problem is for a model, and shares that make the mix as hard as wanted."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from adyton_models.calibration import bucket_accuracies, cells_of, expected_accuracy, propose
from adyton_models.commands.arguments import add_catalog, new_parser, positive
from adyton_models.commands.calibrate_scaling import SEARCHES, run_calibrate_scaling
from adyton_models.commands.evaluate import chosen_model
from adyton_models.problem_sets import from_task
from adyton_models.progress import ProgressBar
from adyton_models.tasks import MIX, Bucket, Split, generate_mix
from adyton_protocol.errors import ConfigError

if TYPE_CHECKING:
    from adyton_models.intervals import SampledScore

_CALIBRATE: Final = """\
Measure a model on every kind of problem and number of operations, and propose shares for the mix
(adyton_models/tasks/mix.py) with which one sample at the default sampling solves the wanted part of it.

Problems are held out like those of the shipped set, but of another seed, so the set's own accuracy was not fitted:
  adyton-models eval --set heldout

With --scaling, measure instead what searches bring and cost with this model and its scorer (accuracy against tokens
and FLOPs, on problems of the validation split), and write it into the scorer's adapter, where `auto` finds it: it then
takes the most accurate search that writes at most 40 % of a majority vote's tokens and costs no more FLOPs, and a
majority vote where the scorer does not earn its cost. The scorer's identity changes with its adapter."""
_CALIBRATE_EXAMPLES: Final = """\
  adyton-models calibrate --n 100
  adyton-models calibrate --model mine.gguf --n 40 --target 50 --json
  adyton-models calibrate --scaling --n 400
  adyton-models calibrate --scaling --model mine.gguf --scorer prm.gguf --adapter prm.toml --out made.toml"""


def add_parsers(commands: Any) -> None:
    """Add the subcommand."""
    parser = new_parser(
        commands, "calibrate", "find the mix that a model half solves", _CALIBRATE, _CALIBRATE_EXAMPLES
    )
    add = parser.add_argument
    add("--model", metavar="NAME|FILE", help="of the catalog, or a GGUF (default: the catalog's)")
    add_catalog(parser)
    add("--n", type=positive, default=40, metavar="K", help="problems of each cell (default: %(default)s)")
    add(
        "--split",
        choices=[str(split) for split in Split],
        default=str(Split.TEST),
        help="default: %(default)s",
    )
    add("--target", type=float, default=50.0, metavar="PERCENT", help="default: %(default)s")
    add("--seed", type=int, default=2, metavar="N", help="1 is the shipped set's (default: 2)")
    add("--threads", type=positive, default=1, metavar="K", help="CPU threads (default: 1)")
    add("--parallel", type=positive, default=16, metavar="K", help="answers decoded together (default: 16)")
    add("--scaling", action="store_true", help="measure searches, for `auto`; --n problems in all")
    add("--scorer", type=Path, metavar="FILE", help="with --scaling: the scorer (default: the catalog's)")
    add("--adapter", type=Path, metavar="FILE", help="with --scaling: its adapter")
    add("--searches", default=SEARCHES, metavar="LIST", help="with --scaling: what `auto` may choose from")
    add(
        "--out",
        type=Path,
        metavar="FILE",
        help="with --scaling: the adapter to write (default: in its place)",
    )
    add("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run_calibrate, n_ctx=None)


def run_calibrate(arguments: argparse.Namespace) -> int:
    """Measure, and print table and proposal."""
    if arguments.scaling:
        return run_calibrate_scaling(arguments)
    if not 0.0 < arguments.target < 100.0:
        raise ConfigError("--target is a percentage between 0 and 100")
    cells = cells_of(MIX)
    scores = _measure(arguments, cells)
    accuracies = bucket_accuracies(MIX, cells, {name: score.mean for name, score in scores.items()})
    proposed = propose(MIX, accuracies, arguments.target / 100)
    if arguments.json:
        print(json.dumps(_document(scores, accuracies, proposed)))
    else:
        print(_table(cells, scores))
        print()
        print(_proposal(accuracies, proposed, arguments.target))
    return 0 if proposed is not None else 1


def _measure(arguments: argparse.Namespace, cells: Sequence[Bucket]) -> Mapping[str, "SampledScore"]:
    try:
        from adyton_models.evaluation import Conditions, evaluate  # noqa: PLC0415 - loads llama.cpp
        from adyton_models.serving import ServedModel  # noqa: PLC0415 - loads llama.cpp
    except ImportError as error:
        raise ConfigError(f"calibrate needs the extra 'enclave' (llama-cpp-python): {error}") from error
    problems = generate_mix(arguments.split, arguments.seed, arguments.n * len(cells), cells)
    questions = tuple(from_task(problem, at) for at, problem in enumerate(problems, 1))
    path, sampling, n_ctx = chosen_model(arguments)
    bar = ProgressBar("calibrate")
    with ServedModel(path, n_ctx=n_ctx, threads=arguments.threads, parallel=arguments.parallel) as model:
        measured = evaluate(
            model,
            questions,
            Conditions(sampling=sampling, seed=arguments.seed),
            report=lambda done, accuracy: bar.update(done / len(questions), f"{accuracy:.1%} right"),
        )
    bar.close()
    return measured.groups


def _document(
    scores: Mapping[str, "SampledScore"],
    accuracies: Mapping[str, float],
    proposed: Sequence[Bucket] | None,
) -> dict[str, Any]:
    return {
        "cells": {name: score.as_json() for name, score in scores.items()},
        "buckets": {name: round(accuracy, 4) for name, accuracy in accuracies.items()},
        "present": {
            "shares": {bucket.name: bucket.share for bucket in MIX},
            "accuracy": round(expected_accuracy(MIX, accuracies), 4),
        },
        "proposed": None
        if proposed is None
        else {
            "shares": {bucket.name: bucket.share for bucket in proposed},
            "accuracy": round(expected_accuracy(proposed, accuracies), 4),
        },
    }


def _table(cells: Sequence[Bucket], scores: Mapping[str, "SampledScore"]) -> str:
    kinds = list(dict.fromkeys(cell.name.split()[0] for cell in cells))
    lines = ["operations  " + "".join(f"{kind:>12}" for kind in kinds)]
    for count in sorted({cell.steps[0] for cell in cells}):
        row = [scores.get(f"{kind} {count:02}") for kind in kinds]
        lines.append(f"{count:10}  " + "".join(f"{score.mean:12.0%}" if score else " " * 12 for score in row))
    return "\n".join(lines)


def _proposal(accuracies: Mapping[str, float], proposed: Sequence[Bucket] | None, target: float) -> str:
    present = expected_accuracy(MIX, accuracies)
    if proposed is None:
        return f"no shares of these buckets come to {target:g} %: add easier ones, or harder ones, to the mix"
    lines = [f"{'bucket':18} accuracy  share now  proposed"]
    lines += [
        f"{now.name:18} {accuracies[now.name]:8.0%}  {now.share:9}  {then.share:8}"
        for now, then in zip(MIX, proposed, strict=True)
    ]
    lines.append(f"{'mix':18}           {present:9.1%}  {expected_accuracy(proposed, accuracies):8.1%}")
    return "\n".join(lines)
