# SPDX-License-Identifier: Apache-2.0
"""`golden` and `score`: make a scorer's golden vectors, and see what it says."""

import argparse
import json
from pathlib import Path
from typing import Any, Final

from adyton_models.commands.arguments import new_parser, positive
from adyton_protocol.errors import ConfigError
from adyton_protocol.selection.aggregate import AGGREGATES, aggregate

_GOLDEN: Final = """\
Score a few problems and write the scores into the adapter as golden vectors. An enclave checks them whenever it
loads the scorer, and refuses one that gives other scores: a read position that is off by one gives plausible
numbers, and nothing else would tell.

Without --from, two arithmetic solutions are taken, one right and one wrong; take some of the scorer's own kind of
problems instead. A line with `scores` is compared with what somebody else's implementation gives for it: the way to
prove an adapter against the code of whoever trained the model. Vectors that would not notice a shifted read
position, swapped labels or another head are refused."""
_GOLDEN_EXAMPLES: Final = """\
  adyton-models golden --model prm.gguf --adapter models/adapters/math-shepherd.toml --out prm.toml
  adyton-models golden --model prm.gguf --adapter mine.toml --head head.gguf --from vectors.jsonl --out prm.toml

one line of vectors.jsonl; `scores` is optional:
  {"problem": "2 + 2 = ?", "steps": ["2 + 2 = 4", "The answer is: 4"], "scores": [0.98, 0.97]}"""

_SCORE: Final = """\
Score one solution step by step, as an enclave would. The solution is cut into steps by the adapter's rule. The
adapter's golden vectors are checked first, if it has any."""
_SCORE_EXAMPLES: Final = """\
  adyton-models score --model prm.gguf --adapter prm.toml --problem "2 + 2 = ?" --solution "2 + 2 = 5"
  adyton-models score --model prm.gguf --adapter prm.toml --problem "..." --solution-file answer.txt --json"""


def add_parsers(commands: Any) -> None:
    """Add both subcommands."""
    golden = new_parser(commands, "golden", "make a scorer's golden vectors", _GOLDEN, _GOLDEN_EXAMPLES)
    _add_scorer(golden)
    golden.add_argument(
        "--from", dest="vectors", type=Path, metavar="FILE", help="JSONL of problems and steps"
    )
    golden.add_argument(
        "--tolerance", type=float, default=0.01, metavar="X", help="largest difference (default: %(default)s)"
    )
    golden.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the adapter with the vectors"
    )
    golden.set_defaults(run=run_golden)
    score = new_parser(commands, "score", "score a solution step by step", _SCORE, _SCORE_EXAMPLES)
    _add_scorer(score)
    score.add_argument("--problem", required=True, metavar="TEXT")
    solution = score.add_mutually_exclusive_group(required=True)
    solution.add_argument("--solution", metavar="TEXT")
    solution.add_argument("--solution-file", type=Path, metavar="FILE")
    score.set_defaults(run=run_score)


def _add_scorer(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", type=Path, required=True, metavar="FILE", help="the scorer's GGUF")
    add("--adapter", type=Path, required=True, metavar="FILE", help="how it is asked; see models/adapters/")
    add("--head", type=Path, metavar="FILE", help="its head, for adapters of kind `head`")
    add("--n-ctx", type=positive, default=1024, metavar="K", help="context in tokens (default: 1024)")
    add("--threads", type=positive, default=1, metavar="K", help="compute threads (default: 1)")
    add("--json", action="store_true", help="print JSON")


def run_golden(arguments: argparse.Namespace) -> int:
    """Write the adapter."""
    from adyton_models.golden import (  # noqa: PLC0415 - loads llama.cpp
        EXAMPLES,
        Vector,
        make_golden,
        read_vectors,
        with_golden,
    )

    with _runner(arguments) as runner:
        adapter = runner.scorer.adapter
        if arguments.vectors is None:
            vectors = [Vector(problem=problem, steps=steps) for problem, steps in EXAMPLES]
        else:
            vectors = read_vectors(arguments.vectors, adapter)
        golden = make_golden(runner, vectors, arguments.tolerance)
    made = with_golden(arguments.adapter.read_bytes(), golden)
    try:
        arguments.out.write_bytes(made)
    except OSError as error:
        raise ConfigError(f"cannot write {arguments.out}: {error.strerror}") from error
    compared = sum(vector.expected is not None for vector in vectors)
    if arguments.json:
        rows = [{"steps": len(vector.steps), "scores": vector.scores} for vector in golden]
        print(json.dumps({"adapter": str(arguments.out), "compared": compared, "golden": rows}))
    else:
        for number, vector in enumerate(golden, 1):
            print(f"vector {number}: " + "  ".join(f"{score:.4f}" for score in vector.scores))
        print(f"{arguments.out}: {len(golden)} golden vectors, {compared} of them compared with given scores")
    return 0


def run_score(arguments: argparse.Namespace) -> int:
    """Print a score for each step."""
    text = arguments.solution
    if text is None:
        try:
            text = arguments.solution_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read {arguments.solution_file} as UTF-8") from error
    with _runner(arguments) as runner:
        if runner.scorer.adapter.golden:
            runner.check_golden()
        steps = runner.split(text)
        if not steps:
            raise ConfigError("the solution has no step")
        scores = runner.score(arguments.problem, steps)
        threshold = runner.scorer.adapter.calibration.threshold
    summary = {how: aggregate(scores, how) for how in AGGREGATES}
    if arguments.json:
        rows = [{"step": step, "score": score} for step, score in zip(steps, scores, strict=True)]
        print(json.dumps({"steps": rows, "aggregate": summary, "threshold": threshold}, ensure_ascii=False))
        return 0
    for step, score in zip(steps, scores, strict=True):
        print(f"{score:7.4f} {'+' if score >= threshold else '-'} {' '.join(step.split())}")
    print("        " + "  ".join(f"{how} {value:.4f}" for how, value in summary.items()))
    return 0


def _runner(arguments: argparse.Namespace) -> Any:
    from adyton_models.scoring import ScorerRunner  # noqa: PLC0415 - loads llama.cpp

    return ScorerRunner(
        arguments.model,
        arguments.adapter,
        head=arguments.head,
        n_ctx=arguments.n_ctx,
        threads=arguments.threads,
    )
