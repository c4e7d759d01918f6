# SPDX-License-Identifier: Apache-2.0
"""The learning curve of a run as a picture, from the lines the training loop wrote."""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt


def read_curve(path: Path) -> list[dict[str, Any]]:
    """The evaluations of a run in order."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def draw_curve(curve: list[dict[str, Any]], out: Path) -> None:
    """Write a PNG: share of validation solutions written exactly, by number of steps, over minutes."""
    figure, axes = plt.subplots(figsize=(7.0, 4.0))
    minutes = [line["minutes"] for line in curve]
    for steps in sorted(curve[-1]["greedy"]):
        axes.plot(minutes, [line["greedy"][steps] for line in curve], label=f"{steps} steps")
    axes.set_xlabel("minutes of training on two CPU cores")
    axes.set_ylabel("validation solutions exact (greedy)")
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left")
    tokens = axes.secondary_xaxis("top", functions=_axis(minutes, [line["tokens"] / 1e6 for line in curve]))
    tokens.set_xlabel("million tokens")
    figure.tight_layout()
    figure.savefig(out, dpi=120, metadata={"Software": None})
    plt.close(figure)


def draw_scorer_curve(curve: list[dict[str, Any]], out: Path) -> None:
    """Write a PNG: how well validation lines are judged over minutes, with the losses below."""
    figure, (above, below) = plt.subplots(2, 1, figsize=(7.0, 5.5), sharex=True)
    minutes = [line["minutes"] for line in curve]
    for name, label in (
        ("auc", "step AUC"),
        ("good_kept", "right lines kept"),
        ("bad_found", "wrong lines found"),
    ):
        above.plot(minutes, [line[name] for line in curve], label=label)
    for name, label in (("tag_loss", "tags"), ("flag_loss", "tokens' flags"), ("text_loss", "text")):
        below.plot(minutes, [line[name] for line in curve], label=label)
    above.set_ylim(0, 1)
    above.set_ylabel("validation lines")
    below.set_yscale("log")
    below.set_ylabel("loss in nats")
    below.set_xlabel("minutes of training on two CPU cores")
    for axes in (above, below):
        axes.grid(alpha=0.3)
        axes.legend(loc="best")
    figure.tight_layout()
    figure.savefig(out, dpi=120, metadata={"Software": None})
    plt.close(figure)


def draw_student_curve(curve: list[dict[str, Any]], out: Path) -> None:
    """Write a PNG: a student's distance from its teacher over minutes, and how many parts learn."""
    figure, axes = plt.subplots(figsize=(7.0, 4.0))
    minutes = [line["minutes"] for line in curve]
    axes.plot(minutes, [line["divergence"] for line in curve], label="KL(generator, student), nats a token")
    axes.plot(minutes, [1 - line["agreement"] for line in curve], label="another likeliest token, share")
    axes.set_yscale("log")
    axes.set_xlabel("minutes of distillation")
    parts = axes.twinx()
    parts.step(minutes, [line["unfrozen"] for line in curve], where="post", color="grey", linestyle=":")
    parts.set_ylabel("parts unfrozen, last layer first")
    parts.set_ylim(0, curve[-1]["of"] + 0.5)
    axes.grid(alpha=0.3)
    axes.legend(loc="best")
    figure.tight_layout()
    figure.savefig(out, dpi=120, metadata={"Software": None})
    plt.close(figure)


def _axis(minutes: list[float], tokens: list[float]) -> tuple[Any, Any]:
    """Conversions between minutes and millions of tokens at the run's mean speed."""
    speed = tokens[-1] / minutes[-1]
    return (lambda x: x * speed, lambda x: x / speed)
