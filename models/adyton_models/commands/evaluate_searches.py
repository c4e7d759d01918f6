# SPDX-License-Identifier: Apache-2.0
"""`eval --strategies`: what searches bring and cost on problems with answers."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adyton_models.catalog import Sampling, read_catalog
from adyton_models.progress import ProgressBar
from adyton_protocol.errors import ConfigError

if TYPE_CHECKING:
    from adyton_models.problem_sets import Question
    from adyton_models.searching.searcher import ScorerChoice
    from adyton_models.searching.specs import Spec


def chosen_scorer(arguments: argparse.Namespace) -> "ScorerChoice | None":
    """The scorer of `--scorer` and `--adapter`, or else the one that the catalog names for the model.

    Raises:
        ConfigError: A scorer without an adapter.
    """
    from adyton_models.searching.searcher import ScorerChoice  # noqa: PLC0415 - loads llama.cpp

    if arguments.scorer is not None:
        if arguments.adapter is None:
            raise ConfigError("--scorer needs --adapter: the file that says how it is asked")
        return ScorerChoice(name=arguments.scorer.stem, path=arguments.scorer, adapter=arguments.adapter)
    if arguments.model is not None and Path(arguments.model).is_file():
        return None
    catalog, beside = read_catalog(arguments.catalog), arguments.catalog.parent
    name = catalog.entry(arguments.model).scorer
    if not name:
        return None
    entry = catalog.entry(name)
    head = beside / entry.head if entry.head else None
    return ScorerChoice(name=name, path=beside / entry.file, adapter=beside / entry.adapter, head=head)


def run_search_eval(
    arguments: argparse.Namespace,
    path: Path,
    sampling: Sampling,
    n_ctx: int,
    questions: "Sequence[Question]",
    *,
    any_number: bool,
) -> int:
    """Search, and print accuracy and costs."""
    from adyton_models.searching.figures import group_runs  # noqa: PLC0415 - loads llama.cpp
    from adyton_models.searching.questions import asked_of  # noqa: PLC0415 - as above
    from adyton_models.searching.searcher import Searcher  # noqa: PLC0415 - as above
    from adyton_models.searching.specs import read_specs  # noqa: PLC0415 - as above
    from adyton_models.searching.trial import Trial  # noqa: PLC0415 - as above

    specs = read_specs(arguments.strategies)
    scorer = chosen_scorer(arguments)
    if scorer is None and (needy := [str(spec) for spec in specs if spec.scored]):
        raise ConfigError(f"{', '.join(needy)}: needs a scorer; give one with --scorer and --adapter")
    asked = asked_of(questions, any_number=any_number, suffix=arguments.suffix)
    seeds = range(arguments.seed, arguments.seed + arguments.samples)
    bar = ProgressBar("search")
    with Searcher(
        path,
        [] if scorer is None else [scorer],
        sampling=sampling,
        n_ctx=n_ctx,
        threads=arguments.threads,
        parallel=arguments.parallel,
    ) as searcher:
        trial = Trial(searcher, specs, seeds)
        trial.run(asked, bar.update)
        reproducible = searcher.model.why_inexact is None
    bar.close()
    series = {spec: found for (spec, _), found in group_runs(trial.runs).items()}
    auc = trial.answer_auc
    document = {
        "model": path.name,
        "scorer": None if scorer is None else scorer.name,
        "scorer_answer_auc": None if auc is None else round(auc, 4),
        "problems": len(asked),
        "seeds": list(seeds),
        "temperature": sampling.temperature,
        "reproducible": reproducible,
        "searches": [_row(spec, series[str(spec)].as_json()) for spec in specs],
    }
    if arguments.plot is not None:
        _plot(document, arguments.plot)
    print(json.dumps(document) if arguments.json else search_table(document))
    return 0


def _row(spec: "Spec", figures: dict[str, Any]) -> dict[str, Any]:
    curve = str(spec).replace(f"{spec.strategy}-{spec.n}", spec.strategy, 1)
    return {"search": str(spec), "curve": curve, "n": spec.n} | figures


def _plot(document: dict[str, Any], out: Path) -> None:
    try:
        from adyton_models.searching.plot import draw_searches  # noqa: PLC0415 - loads matplotlib
    except ImportError as error:
        raise ConfigError(f"--plot needs the extra 'train' (matplotlib): {error}") from error
    judge = f" with {document['scorer']}" if document["scorer"] else ""
    draw_searches(
        document["searches"], out, title=f"{document['model']}{judge}, {document['problems']} problems"
    )


def search_table(document: dict[str, Any]) -> str:
    """The figures for people."""
    width = max(len(row["search"]) for row in document["searches"])
    head = ("search", "accuracy", "95 %", "tokens", "scored", "GFLOPs")
    lines = ["{:{width}} {:>8}  {:>16} {:>9} {:>9} {:>9}".format(*head, width=width)]
    lines += [
        f"{row['search']:{width}} {row['accuracy']:8.1%}  [{row['ci95'][0]:6.1%}, {row['ci95'][1]:6.1%}]"
        f" {row['policy_tokens']:9.0f} {row['scorer_tokens']:9.0f} {row['total_flops'] / 1e9:9.3g}"
        for row in document["searches"]
    ]
    lines.append(
        f"{document['problems']} problems; for each: tokens that the generator wrote and the scorer read, FLOPs of both"
    )
    if document["scorer_answer_auc"] is not None:
        auc = document["scorer_answer_auc"]
        lines.append(f"{document['scorer']} puts a right answer above a wrong one in {auc:.1%} of cases")
    return "\n".join(lines)
