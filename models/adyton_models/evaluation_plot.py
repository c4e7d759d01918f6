# SPDX-License-Identifier: Apache-2.0
"""One figure of an evaluation: accuracy with its intervals by bucket, and how hard the problems were."""

from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

from adyton_models.evaluation import LEAST_SAMPLES_FOR_SPREAD, Evaluation

_BLUE: Final = "#2a6f97"
_GREY: Final = "#8d99ae"
_BINS: Final = 20


def draw_evaluation(measured: Evaluation, out: Path, *, title: str) -> None:
    """Write a picture (PNG, SVG, PDF: by the name of `out`)."""
    with_spread = measured.samples >= LEAST_SAMPLES_FOR_SPREAD
    figure, panels = plt.subplots(
        1, 1 + with_spread, figsize=(7.0 + 4.0 * with_spread, 4.2), squeeze=False, layout="constrained"
    )
    _accuracy(panels[0][0], measured)
    if with_spread:
        _spread(panels[0][1], measured)
    figure.suptitle(title)
    figure.savefig(out, dpi=120, metadata={"Software": None} if out.suffix == ".png" else None)
    plt.close(figure)


def draw_scorer_evaluation(document: dict[str, Any], out: Path) -> None:
    """Write a picture of `eval --scorer`: solutions judged exactly, by group and by the kind of the first fault."""
    parts = (("by_group", "problems"), ("by_fault", "first fault"))
    figure, panels = plt.subplots(1, 2, figsize=(11.0, 4.2), sharey=True, layout="constrained")
    for axes, (key, title) in zip(panels, parts, strict=True):
        names = list(document[key])
        shares = [document[key][name]["judged_exactly"] for name in names]
        axes.bar(range(len(names)), shares, color=_BLUE, width=0.7)
        axes.set_xticks(range(len(names)), names, rotation=40, ha="right")
        axes.set_title(title)
        axes.grid(alpha=0.3, axis="y")
    panels[0].set_ylim(0, 1)
    panels[0].set_ylabel("solutions judged exactly")
    value = document["step_auc"]["value"]
    figure.suptitle(
        f"{document['scorer']}: step AUC {value:.4f} at {document['flops_share']:.0%} of the FLOPs"
    )
    figure.savefig(out, dpi=120, metadata={"Software": None} if out.suffix == ".png" else None)
    plt.close(figure)


def _accuracy(axes: Any, measured: Evaluation) -> None:
    scores = {**measured.groups, "all": measured.overall}
    for at, (name, score) in enumerate(scores.items()):
        low, high = score.interval
        reach = [[max(0.0, score.mean - low)], [max(0.0, high - score.mean)]]
        axes.bar(at, score.mean, color=_GREY if name == "all" else _BLUE, width=0.7)
        axes.errorbar(at, score.mean, yerr=reach, color="black", capsize=4, linewidth=1)
        axes.annotate(f"{score.mean:.0%}", (at, min(high + 0.02, 1.02)), ha="center", fontsize=9)
    tilt = 30 if len(scores) > 8 else 0
    axes.set_xticks(range(len(scores)), list(scores), rotation=tilt, ha="right" if tilt else "center")
    axes.set_ylim(0, 1.1)
    axes.set_ylabel("share of samples right, 95 % interval")
    axes.grid(axis="y", alpha=0.3)


def _spread(axes: Any, measured: Evaluation) -> None:
    axes.hist(measured.shares, bins=_BINS, range=(0.0, 1.0), color=_BLUE)
    for edge in (0.1, 0.95):
        axes.axvline(edge, color="black", linestyle=":", linewidth=1)
    axes.set_xlabel(f"share of {measured.samples} samples right")
    axes.set_ylabel("problems")
    axes.set_title("difficulty of the problems (dotted: 10 % and 95 %)", fontsize=10)
    axes.grid(axis="y", alpha=0.3)
