# SPDX-License-Identifier: Apache-2.0
"""One figure for what quantising cost and gained."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

from adyton_models.quantise_report import Row

_BLUE: Final = "#2a6f97"
_LIGHT: Final = "#89c2d9"
_ORANGE: Final = "#bc6c25"


def draw_report(rows: Sequence[Row], out: Path, *, title: str) -> None:
    """Write a picture: size, speed, divergence and accuracy, one panel each; what was not measured says so."""
    figure, panels = plt.subplots(2, 2, figsize=(9.0, 6.4), layout="constrained")
    for axes, draw, name in (
        (panels[0][0], _size, "size, MB"),
        (panels[0][1], _speed, "speed against the original"),
        (panels[1][0], _divergence, "divergence from the original, nats a token"),
        (panels[1][1], _accuracy, "accuracy, 95 % interval"),
    ):
        axes.set_title(name, fontsize=10)
        axes.set_xticks(range(len(rows)), [row.name for row in rows])
        axes.grid(axis="y", alpha=0.3)
        if not draw(axes, rows):
            axes.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axes.transAxes)
    figure.suptitle(title)
    figure.savefig(out, dpi=120, metadata={"Software": None} if out.suffix == ".png" else None)
    plt.close(figure)


def _size(axes: Any, rows: Sequence[Row]) -> bool:
    bars = axes.bar(range(len(rows)), [row.size_bytes / 1e6 for row in rows], color=_BLUE)
    axes.bar_label(bars, [f"{row.bits_per_number:.1f} bits" for row in rows], fontsize=8)
    axes.margins(y=0.12)
    return True


def _speed(axes: Any, rows: Sequence[Row]) -> bool:
    measured = [(at, row.speed) for at, row in enumerate(rows) if row.speed is not None]
    for offset, key, label, colour in (
        (-0.2, "prefill_ratio", "prefill", _BLUE),
        (0.2, "decode_ratio", "decode", _LIGHT),
    ):
        axes.bar(
            [at + offset for at, _ in measured],
            [speed[key] for _, speed in measured],
            0.38,
            color=colour,
            label=label,
        )
    if measured:
        axes.axhline(1.0, color="black", linewidth=0.8, linestyle=":")
        axes.legend(fontsize=8)
    return bool(measured)


def _divergence(axes: Any, rows: Sequence[Row]) -> bool:
    measured = [(at, row.divergence) for at, row in enumerate(rows) if row.divergence is not None]
    for at, far in measured:
        axes.plot(
            [at, at], [max(far["kl_median"], 1e-9), max(far["kl_p99"], 1e-9)], color=_LIGHT, linewidth=5
        )
        axes.plot(at, max(far["kl_mean"], 1e-9), "o", color=_ORANGE)
        axes.annotate(
            f"first token\n{far['top1_agreement']:.1%} same",
            (at, max(far["kl_p99"], 1e-9)),
            ha="center",
            va="bottom",
            fontsize=8,
        )
    if measured:
        axes.set_yscale("log")
        axes.margins(y=0.35)
        axes.set_xlim(-0.6, len(rows) - 0.4)
        axes.set_xlabel("dot: mean; bar: median to 99th percentile", fontsize=8)
    return bool(measured)


def _accuracy(axes: Any, rows: Sequence[Row]) -> bool:
    measured = [(at, row.accuracy) for at, row in enumerate(rows) if row.accuracy is not None]
    for at, right in measured:
        low, high = right["ci95"]
        share = right["accuracy"]
        axes.errorbar(
            at,
            share,
            yerr=[[max(0.0, share - low)], [max(0.0, high - share)]],
            fmt="o",
            color=_BLUE,
            capsize=4,
        )
        axes.annotate(
            f"{share:.1%}", (at, share), xytext=(8, 0), textcoords="offset points", fontsize=8, va="center"
        )
    if measured:
        axes.set_xlim(-0.6, len(rows) - 0.2)
    return bool(measured)
