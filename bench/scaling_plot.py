# SPDX-License-Identifier: Apache-2.0
"""The figure of ``scaling.py``: what was published about such searches, measured here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

_COLOURS: Final = {
    "majority": "#8d99ae",
    "rpc": "#6a994e",
    "weighted": "#2a6f97",
    "best-of-n": "#b3261e",
    "bom": "#e07a1f",
    "pairwise": "#9c6644",
    "rebase": "#5a189a",
    "beam": "#c77dff",
    "dvts": "#f15bb5",
}
_BY_N: Final = ("majority", "rpc", "weighted", "best-of-n", "bom", "pairwise")
_BY_COST: Final = ("majority", "weighted", "rebase", "beam", "dvts")
_NOISY: Final = ("weighted", "best-of-n", "bom")

WIDTHS: Final = (1, 2, 4, 8, 16, 32, 64)
Rows = Sequence[Mapping[str, Any]]


def draw(document: Mapping[str, Any], path: Path, *, fooled: str) -> None:
    """Write a picture of everything that was measured.

    Args:
        document: As ``scaling_report.analyse`` made it.
        path: Where to.
        fooled: Name of the scorer with a blind spot.
    """
    main = next(iter(document["scorers"]))
    heldout, ood, worse = document["heldout"], document["ood"], document["noisy"]
    figure, panels = plt.subplots(2, 3, figsize=(15.0, 8.4), layout="constrained")
    _lines(panels[0][0], heldout, _BY_N, main, "n")
    panels[0][0].set_title("majority saturates, a weighted vote saturates higher")
    _lines(panels[0][1], heldout, _BY_COST, main, "total_flops")
    panels[0][1].set_title("at equal FLOPs (scorer included)")
    _lines(panels[0][2], heldout, ("majority",), main, "n")
    _lines(panels[0][2], worse, _NOISY, fooled, "n")
    panels[0][2].set_title(f"a scorer {fooled}: best-of-n turns down", fontsize=10)
    _lines(panels[1][0], heldout, _BY_COST, main, "policy_tokens")
    panels[1][0].set_title("at equal tokens of the generator")
    _lines(panels[1][1], ood, _BY_COST, main, "total_flops")
    panels[1][1].set_title("out of distribution")
    _times(panels[1][2], document, main)
    panels[1][2].set_title("at equal time, one search at a time")
    for axes, label in zip(
        panels.flat,
        ("n", "FLOPs", "n", "tokens generated", "FLOPs", "seconds"),
        strict=True,
    ):
        axes.set_xscale("log", base=2 if label == "n" else 10)
        if label == "n":
            axes.set_xticks(WIDTHS, labels=[str(n) for n in WIDTHS])
        axes.set_xlabel(label)
        axes.set_ylabel("solved")
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    problems = max((row["problems"] for row in heldout), default=0)
    figure.suptitle(
        f"{document['generator']} with {main}: {problems} held-out problems, "
        f"{len(document['setting']['seeds'])} seeds, 95 % intervals"
    )
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _of(rows: Rows, strategy: str, scorer: str) -> list[Mapping[str, Any]]:
    chosen = [
        row for row in rows if row["search"] == f"{strategy}-{row['n']}" and row["scorer"] in ("", scorer)
    ]
    return sorted(chosen, key=lambda row: int(row["n"]))


def _lines(axes: Any, rows: Rows, strategies: Sequence[str], scorer: str, across: str) -> None:
    for strategy in strategies:
        chosen = _of(rows, strategy, scorer)
        if chosen:
            x = [row[across] for row in chosen]
            colour = _COLOURS[strategy]
            axes.plot(
                x, [row["accuracy"] for row in chosen], marker="o", markersize=3, color=colour, label=strategy
            )
            low, high = ([row["ci95"][side] for row in chosen] for side in (0, 1))
            axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)


def _times(axes: Any, document: Mapping[str, Any], main: str) -> None:
    seconds = {row["search"]: row["mean_s"] for row in document["timing"]}
    for strategy in ("majority", "weighted", "rebase"):
        chosen = [row for row in _of(document["heldout"], strategy, main) if row["search"] in seconds]
        if chosen:
            axes.plot(
                [seconds[row["search"]] for row in chosen],
                [row["accuracy"] for row in chosen],
                marker="o",
                markersize=3,
                color=_COLOURS[strategy],
                label=strategy,
            )
