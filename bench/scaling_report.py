# SPDX-License-Identifier: Apache-2.0
"""From what ``scaling.py`` measured to figures, targets, a table and the plot of the published behaviours."""

import os
import platform
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from scaling_views import SCORER_IS_FOOLED, WIDTHS, Bands, Views, in_processes

from adyton_enclave.scaling.plan import Strategy
from adyton_models.searching.campaign import Known, Setting
from adyton_models.searching.figures import Series, difference, group_runs, ratio
from adyton_models.searching.measuring import Asked, Run
from adyton_models.searching.searcher import ScorerChoice
from adyton_models.searching.specs import Spec, read_spec

_NEAR: Final = 1e-9
_COLUMNS: Final = ("search", "scorer", "accuracy", "95 %", "tokens", "scored", "GFLOPs", "of")
_HEAD: Final = "{:22} {:26} {:>8} {:>16} {:>8} {:>8} {:>8} {:>6}".format(*_COLUMNS)


def analyse(  # noqa: PLR0913 - all of a campaign
    known: Known,
    *,
    generator: Path,
    scorers: Mapping[str, tuple[str, ScorerChoice]],
    noisy: Mapping[str, tuple[str, ScorerChoice]],
    heldout: Sequence[Asked],
    ood: Sequence[Asked],
    seeds: Sequence[int],
    setting: Setting,
    processes: int,
) -> dict[str, Any]:
    """Everything that can be said.

    Args:
        known: What was measured.
        generator: Its file.
        scorers: By name, what names their records, and their files; the first one is what trees used.
        noisy: Likewise, of scorers that are looked at for comparison only.
        heldout: Problems.
        ood: Problems of other kinds.
        seeds: Of each.
        setting: What decided the records.
        processes: That choose from pools side by side.
    """
    views = Views(known, generator, {**scorers, **noisy})
    main = next(iter(scorers))
    document: dict[str, Any] = {
        "measures": "accuracy against tokens, FLOPs (scorer included) and time, by strategy and width",
        "machine": {"cpu_count": os.cpu_count(), "platform": platform.platform()},
        "generator": generator.name,
        "setting": {"n_ctx": setting.n_ctx, "kv_type_k": setting.kv_type_k, "seeds": list(seeds)},
        "scorers": {name: views.describe(name) for name in views.choices},
        "auto": {f"auto-{n}": str(views.auto(main, n)) for n in WIDTHS},
    }
    for name, asked in (("heldout", heldout), ("ood", ood)):
        runs = in_processes(
            lambda part: list(views.choices_of(part, seeds, main, judges=tuple(scorers))),
            asked,
            processes,
        )
        runs += views.searches_of(asked, seeds, main)
        document[name] = _rows(runs)
        found = _with_auto(group_runs(runs), views, main)
        if name == "heldout":
            bands = Bands(known, asked, seeds)
            document["bands"] = bands.rows(found, main)
            document["targets"] = _targets(found, main, bands)
            document["timing"] = _timing(known, views.ids[main])
        else:
            document["ood_targets"] = _targets(found, main, None)
    document["noisy"] = _rows(
        in_processes(
            lambda part: list(views.noisy_choices_of(part, seeds, main, tuple(noisy))), heldout, processes
        )
    )
    document["behaviours"] = _behaviours(document, main)
    return document


def _rows(runs: Iterable[Run]) -> list[dict[str, Any]]:
    rows = []
    for (search, scorer), series in group_runs(runs).items():
        spec = read_spec(search)
        about = {"strategy": spec.strategy, "n": spec.n, "stop": spec.stop, "aggregate": spec.aggregate}
        rows.append({"search": search, **about, "scorer": scorer} | series.as_json())
    return sorted(rows, key=lambda row: (row["scorer"], row["strategy"], row["stop"], row["n"]))


def _with_auto(
    found: dict[tuple[str, str], Series], views: Views, main: str
) -> dict[tuple[str, str], Series]:
    for n in WIDTHS:
        spec = views.auto(main, n)
        series = found.get((str(spec), main if spec.scored else ""))
        if series is not None:
            found[f"auto-{n}", ""] = series
    return found


def _targets(found: Mapping[tuple[str, str], Series], main: str, bands: Bands | None) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []

    def compare(
        what: str,
        one: tuple[str, str],
        other: tuple[str, str],
        least: float = 0.0,
        cost: Callable[[Run], float] | None = None,
        most: float = 0.0,
        part: Callable[[Series], Series] = lambda series: series,
    ) -> None:
        if one not in found or other not in found:
            rows.append({"target": what, "met": None})
            return
        mine, theirs = part(found[one]), part(found[other])
        gain = difference(mine, theirs)
        row: dict[str, Any] = {"target": what, "at_least": least, "difference": gain.as_json()}
        met = gain.value >= least - _NEAR
        if cost is not None:
            row |= {"cost_ratio": round(ratio(mine, theirs, cost), 4), "cost_at_most": round(most, 4)}
            met = met and row["cost_ratio"] <= most + _NEAR
        rows.append(row | {"met": met if gain.n else None})

    def flops(run: Run) -> float:
        return run.total_flops

    def tokens(run: Run) -> float:
        return float(run.policy_tokens)

    compare(
        "rebase-8 as accurate as majority-64, a sixth of its FLOPs",
        ("rebase-8", main),
        ("majority-64", ""),
        cost=flops,
        most=1 / 6,
    )
    if bands is not None:
        compare(
            "weighted-16 15 points above majority-16 where 40-60 % are right",
            ("weighted-16", main),
            ("majority-16", ""),
            0.15,
            part=bands.middle,
        )
        compare(
            "weighted-16 15 points above majority-16 in kinds where 40-60 % are right",
            ("weighted-16", main),
            ("majority-16", ""),
            0.15,
            part=bands.middle_groups,
        )
        worst = min(bands.rows(found, main), key=lambda row: float(row["difference"]["value"]), default=None)
        rows.append(
            {
                "target": "weighted-16 never more than 0.5 points below majority-16",
                "at_least": -0.005,
                "difference": None if worst is None else worst["difference"],
                "worst_part": None if worst is None else worst["part"],
                "met": None if worst is None else worst["difference"]["value"] >= -0.005 - _NEAR,
            }
        )
    compare("rpc-16 as accurate as majority-32", ("rpc-16", ""), ("majority-32", ""))
    compare(
        "auto-16 as accurate as majority-16, 40 % of its tokens",
        ("auto-16", ""),
        ("majority-16", ""),
        cost=tokens,
        most=0.4,
    )
    return rows


def _timing(known: Known, scorer: str) -> list[dict[str, Any]]:
    times: dict[str, list[float]] = defaultdict(list)
    for (spec, name, _), run in known.runs.items():
        if name == f"{scorer} alone":
            times[spec].append(run.time_s)
    return [
        {"search": spec, "searches": len(values), "mean_s": round(float(np.mean(values)), 4)}
        for spec, values in sorted(times.items())
    ]


def _behaviours(document: Mapping[str, Any], main: str) -> dict[str, Any]:
    """The published behaviours, as numbers."""

    def curve(rows: Sequence[Mapping[str, Any]], strategy: Strategy, scorer: str) -> dict[int, float]:
        return {
            row["n"]: row["accuracy"]
            for row in rows
            if row["scorer"] == scorer and row["search"] == str(Spec(strategy=strategy, n=row["n"]))
        }

    heldout, worse = document["heldout"], document["noisy"]
    majority, weighted = curve(heldout, "majority", ""), curve(heldout, "weighted", main)
    best, bom = curve(worse, "best-of-n", SCORER_IS_FOOLED), curve(worse, "bom", SCORER_IS_FOOLED)
    if not {16, 64} <= majority.keys() or 64 not in best or 64 not in weighted:
        return {}
    return {
        "majority_gains_from_16_to_64": round(majority[64] - majority[16], 4),
        "weighted_over_majority_at_64": round(weighted[64] - majority[64], 4),
        "best_of_n_loses_from_its_peak_when_fooled": round(max(best.values()) - best[64], 4),
        "bom_loses_from_its_peak_when_fooled": round(max(bom.values()) - bom[64], 4),
    }


def table(document: Mapping[str, Any]) -> str:
    """For people."""
    lines: list[str] = []
    for name in ("heldout", "noisy", "ood"):
        rows = document[name]
        if not rows:
            continue
        lines += [
            "",
            f"{name}",
            _HEAD,
        ]
        lines += [
            f"{row['search']:22} {row['scorer'][:26]:26} {row['accuracy']:8.1%} "
            f"[{row['ci95'][0]:6.1%},{row['ci95'][1]:6.1%}] {row['policy_tokens']:8.0f} {row['scorer_tokens']:8.0f} "
            f"{row['total_flops'] / 1e9:8.2f} {row['problems']:6}"
            for row in rows
        ]
    if document["timing"]:
        lines += ["", "one search at a time"]
        lines += [f"{row['search']:22} {row['mean_s']:8.3f} s" for row in document["timing"]]
    if document["bands"]:
        lines += [
            "",
            "weighted-16 less majority-16, by how hard problems are and by kind",
            *map(_band, document["bands"]),
        ]
    if document["behaviours"]:
        lines += ["", "published behaviours, in points"]
        lines += [
            f"  {name.replace('_', ' '):60} {100 * value:+.2f}"
            for name, value in document["behaviours"].items()
        ]
    lines += ["", "auto: " + ", ".join(f"{name} is {spec}" for name, spec in document["auto"].items())]
    for title, key in (("targets", "targets"), ("the same out of distribution", "ood_targets")):
        lines += ["", title, *map(_target, document.get(key, ()))]
    return "\n".join(lines)


def _band(row: Mapping[str, Any]) -> str:
    gain = row["difference"]
    low, high = gain["ci95"]
    return (
        f"  {row['part']:34} {row['majority-16']:7.1%} {row['weighted-16']:7.1%} {100 * gain['value']:+7.2f} points "
        f"[{100 * low:+.2f}, {100 * high:+.2f}], {row['runs']} runs"
    )


def _target(row: Mapping[str, Any]) -> str:
    verdict = {True: "met", False: "MISSED", None: "not measured"}[row["met"]]
    text = f"  {row['target']:74} {verdict:12}"
    if row.get("difference"):
        gain = row["difference"]
        low, high = gain["ci95"]
        text += f" {100 * gain['value']:+6.2f} points [{100 * low:+.2f}, {100 * high:+.2f}]"
    if "cost_ratio" in row:
        text += f", cost {row['cost_ratio']:.3f} (at most {row['cost_at_most']:.3f})"
    if row.get("worst_part"):
        text += f", in {row['worst_part']!r}"
    return text


def plot(document: Mapping[str, Any], path: Path) -> None:
    """Draw the curves: published behaviours above, costs below."""
    from scaling_plot import draw  # noqa: PLC0415 - loads matplotlib

    draw(document, path, fooled=SCORER_IS_FOOLED)
