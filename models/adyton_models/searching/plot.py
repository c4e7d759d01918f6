# SPDX-License-Identifier: Apache-2.0
"""One figure of several searches: accuracy with its interval against what they cost."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

_COSTS: Final = (("total_flops", "FLOPs, scorer included"), ("policy_tokens", "tokens generated"))


def draw_searches(rows: Sequence[Mapping[str, Any]], out: Path, *, title: str) -> None:
    """Write a picture (PNG, SVG, PDF: by the name of `out`).

    Args:
        rows: As `eval --strategies` prints them.
        out: Where to.
        title: Of the figure.
    """
    figure, panels = plt.subplots(1, len(_COSTS), figsize=(11.0, 4.4), sharey=True, layout="constrained")
    curves: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        curves[row["curve"]].append(row)
    for axes, (cost, label) in zip(panels, _COSTS, strict=True):
        for name, curve in curves.items():
            points = sorted(curve, key=lambda row: float(row[cost]))
            accuracy = [row["accuracy"] for row in points]
            reach = [
                [max(0.0, row["accuracy"] - row["ci95"][0]) for row in points],
                [max(0.0, row["ci95"][1] - row["accuracy"]) for row in points],
            ]
            axes.errorbar(
                [row[cost] for row in points],
                accuracy,
                yerr=reach,
                marker="o",
                markersize=4,
                capsize=3,
                label=name,
            )
        axes.set_xscale("log")
        axes.set_xlabel(label)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("solved, 95 % interval")
    panels[-1].legend(fontsize=8)
    figure.suptitle(title)
    figure.savefig(out, dpi=120, metadata={"Software": None} if out.suffix == ".png" else None)
    plt.close(figure)
