# SPDX-License-Identifier: Apache-2.0
"""`calibrate --scaling`: what searches bring and cost with one generator and scorer, written down for `auto`."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from adyton_models.catalog import read_catalog, sha256_of, with_entry, write_catalog
from adyton_models.commands.evaluate import chosen_model
from adyton_models.commands.evaluate_searches import chosen_scorer
from adyton_models.progress import ProgressBar
from adyton_protocol.errors import ConfigError

if TYPE_CHECKING:
    from adyton_enclave.scaling.calibration import Point, ScalingCalibration
    from adyton_models.searching.figures import Series
    from adyton_models.searching.measuring import Run
    from adyton_models.searching.specs import Spec

SEARCHES: Final = (
    "single,majority-4,majority-8,majority-16,majority-32,majority-64,"
    "majority-8+esc,majority-16+esc,majority-16+beta,majority-32+beta,majority-64+beta,majority-16+dirichlet,"
    "rpc-4,rpc-8,rpc-16,rpc-32,"
    "weighted-2,weighted-4,weighted-8,weighted-16,weighted-32,weighted-64,"
    "weighted-8+beta,weighted-16+beta,weighted-32+beta,weighted-64+beta,weighted-16+esc,"
    "best-of-n-4,bom-8,bom-16,rebase-2,rebase-4,rebase-8,rebase-16"
)
_MOST: Final = 0.9


def run_calibrate_scaling(arguments: argparse.Namespace) -> int:
    """Measure, print what `auto` would do, and write the adapter."""
    try:
        from adyton_models.searching.questions import drawn_questions  # noqa: PLC0415 - loads llama.cpp
        from adyton_models.searching.searcher import Searcher  # noqa: PLC0415 - as above
        from adyton_models.searching.specs import read_specs  # noqa: PLC0415 - as above
        from adyton_models.searching.trial import Trial  # noqa: PLC0415 - as above
    except ImportError as error:
        raise ConfigError(f"calibrate needs the extra 'enclave' (llama-cpp-python): {error}") from error
    specs = read_specs(arguments.searches)
    if not any(spec.strategy == "majority" and spec.stop == "none" for spec in specs):
        raise ConfigError("--searches needs a majority vote: it is what everything else is compared with")
    path, sampling, n_ctx = chosen_model(arguments)
    scorer = chosen_scorer(arguments)
    if scorer is None:
        raise ConfigError(
            "there is no scorer, and so nothing to calibrate: `auto` is a majority vote then; give one with --scorer"
        )
    out: Path = arguments.out or scorer.adapter
    asked = drawn_questions("validation", arguments.n)
    bar = ProgressBar("calibrate")
    with Searcher(
        path,
        [scorer],
        sampling=sampling,
        n_ctx=n_ctx,
        threads=arguments.threads,
        parallel=arguments.parallel,
    ) as searcher:
        trial = Trial(searcher, specs, (arguments.seed,))
        trial.run(asked, bar.update)
        generator = searcher.model.content
    bar.close()
    calibration = calibration_of_runs(trial.runs, specs, generator, len(asked), trial.answer_auc)
    from adyton_models.golden import with_scaling  # noqa: PLC0415 - loads llama.cpp

    made = with_scaling(scorer.adapter.read_bytes(), calibration)
    out.write_bytes(made)
    updated = None if arguments.scorer is not None else _update_catalog(arguments, out)
    document = _document(calibration, out, updated)
    print(json.dumps(document) if arguments.json else _table(document))
    return 0


def calibration_of_runs(
    runs: "list[Run]", specs: "tuple[Spec, ...]", generator: str, n_problems: int, auc: float | None
) -> "ScalingCalibration":
    """What runs amount to.

    Args:
        runs: Of all searches on all problems.
        specs: The searches.
        generator: Content digest of the generator.
        n_problems: Problems.
        auc: Chance that the scorer puts a right answer above a wrong one.
    """
    from adyton_enclave.scaling.calibration import ScalingCalibration  # noqa: PLC0415 - with its package
    from adyton_models.searching.figures import group_runs  # noqa: PLC0415 - as above
    from adyton_protocol.digests import as_digest  # noqa: PLC0415 - as above

    series = {spec: found for (spec, _), found in group_runs(runs).items()}
    return ScalingCalibration(
        generator=as_digest(generator),
        n_problems=n_problems,
        answer_auc=None if auc is None else round(auc, 4),
        points=tuple(_point(spec, series[str(spec)]) for spec in specs),
    )


def _point(spec: "Spec", series: "Series") -> "Point":
    from adyton_enclave.scaling.calibration import Point  # noqa: PLC0415 - with its package

    def tokens(run: "Run") -> float:
        return float(run.policy_tokens)

    def flops(run: "Run") -> float:
        return run.total_flops

    return Point(
        strategy=spec.strategy,
        n=spec.n,
        stop=spec.stop,
        accuracy=round(series.accuracy, 4),
        policy_tokens=round(series.mean(tokens), 1),
        total_flops=float(f"{series.mean(flops):.4g}"),
        most_policy_tokens=round(series.quantile(tokens, _MOST), 1),
        most_total_flops=float(f"{series.quantile(flops, _MOST):.4g}"),
    )


def _update_catalog(arguments: argparse.Namespace, adapter: Path) -> str | None:
    """Let the catalog expect the adapter as it is now, if it is the one that it names."""
    catalog = read_catalog(arguments.catalog)
    entry = catalog.entry(catalog.entry(arguments.model).scorer)
    if (arguments.catalog.parent / entry.adapter).resolve() != adapter.resolve():
        return None
    digest = f"sha256:{sha256_of(adapter)}"
    write_catalog(
        with_entry(catalog, replace(entry, adapter_digest=digest), make_default=False), arguments.catalog
    )
    return entry.name


def _document(calibration: "ScalingCalibration", out: Path, updated: str | None) -> dict[str, Any]:
    from adyton_enclave.scaling.auto import choose  # noqa: PLC0415 - with its package
    from adyton_enclave.scaling.plan import Plan  # noqa: PLC0415 - as above
    from adyton_models.searching.specs import Spec  # noqa: PLC0415 - as above
    from adyton_protocol.selection.candidate import SelectionRule  # noqa: PLC0415 - as above

    autos = {}
    for n in (4, 8, 16, 32, 64):
        plan = choose(
            Plan(strategy="auto", n=n, rule=SelectionRule(method="majority")), calibration, scores=True
        )
        autos[f"auto-{n}"] = str(Spec(strategy=plan.strategy, n=plan.n, stop=plan.stop.kind))
    return {
        "generator": calibration.generator,
        "problems": calibration.n_problems,
        "scorer_answer_auc": calibration.answer_auc,
        "points": [
            {
                "search": str(Spec(strategy=point.strategy, n=point.n, stop=point.stop)),
                "accuracy": point.accuracy,
                "policy_tokens": point.policy_tokens,
                "total_flops": point.total_flops,
            }
            for point in calibration.points
        ],
        "auto": autos,
        "adapter": str(out),
        "catalog_entry_updated": updated,
    }


def _table(document: dict[str, Any]) -> str:
    lines = [f"{'search':22} accuracy    tokens    GFLOPs"]
    lines += [
        f"{row['search']:22} {row['accuracy']:8.1%} {row['policy_tokens']:9.0f} {row['total_flops'] / 1e9:9.3g}"
        for row in sorted(document["points"], key=lambda row: float(row["total_flops"]))
    ]
    if document["scorer_answer_auc"] is not None:
        lines.append(
            f"the scorer puts a right answer above a wrong one in {document['scorer_answer_auc']:.1%} of cases"
        )
    lines += [f"{name} is {search}" for name, search in document["auto"].items()]
    lines.append(f"written: {document['adapter']}")
    if document["catalog_entry_updated"]:
        lines.append(f"the catalog's {document['catalog_entry_updated']} expects it now")
    else:
        lines.append("next: name its digest in the catalog, with `adyton-models add --adapter`")
    return "\n".join(lines)
