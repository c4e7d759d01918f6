# SPDX-License-Identifier: Apache-2.0
"""The results of ``engine.py`` as a table and as a plot. Every ratio is turned so that above 1 is in our favour."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

PEER: Final = "llama-server"
OURS: Final = "sealed"
_LOWEST: Final = 0.4
_HIGHEST: Final = 8.5
_TICKS: Final = (0.5, 1, 2, 4, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure of one scenario: which member it is and whether more of it is better."""

    scenario: str
    figure: str
    label: str
    unit: str
    more_is_better: bool


def _throughput(scenario: str, label: str) -> Row:
    return Row(scenario=scenario, figure="tokens_per_s", label=label, unit="tok/s", more_is_better=True)


def _time(scenario: str, figure: str, label: str, unit: str = "ms") -> Row:
    return Row(scenario=scenario, figure=figure, label=label, unit=unit, more_is_better=False)


ROWS: Final = (
    _throughput("decode-1", "decode, 1 client"),
    _throughput("decode-4", "decode, 4 clients"),
    _throughput("decode-8", "decode, 8 clients"),
    _throughput("decode-16", "decode, 16 clients"),
    _throughput("prefill", "prefill"),
    _time("first-token", "median_ms", "first token, idle, median"),
    _time("first-token", "p95_ms", "first token, idle, 95 %"),
    _time("first-token-busy", "median_ms", "first token, 7 streams, median"),
    _time("first-token-busy", "p95_ms", "first token, 7 streams, 95 %"),
    _throughput("n16", "16 candidates of one prompt"),
    _time("mixed", "gap_p99_ms", "mixed load, gap 99 %"),
    _time("mixed", "gap_median_ms", "mixed load, gap median"),
    Row(
        scenario="mixed",
        figure="stream_tokens_per_s",
        label="mixed load, streams",
        unit="txt/s",
        more_is_better=True,
    ),
    _time("mixed", "long_first_token_s", "mixed load, long prompt", "s"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Median over the rounds, the smallest and the largest."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:5.2f} [{self.low:.2f}-{self.high:.2f}]"


def ratio(ours: Sequence[float], theirs: Sequence[float], *, more_is_better: bool) -> Ratio:
    """Compare round by round; above 1 is in favour of ``ours``."""
    pairs = list(zip(ours, theirs, strict=True))
    ratios = [(a / b if more_is_better else b / a) if min(a, b) > 0 else float("nan") for a, b in pairs]
    return Ratio(median=statistics.median(ratios), low=min(ratios), high=max(ratios))


def _values(cell: Mapping[str, list[dict[str, float]]], peer: str, figure: str) -> list[float]:
    return [figures[figure] for figures in cell.get(peer, [])]


def ratios(model: Mapping[str, Any], ours: str = OURS) -> dict[str, Ratio]:
    """Ratio of every row that was measured, by label."""
    found: dict[str, Ratio] = {}
    for row in ROWS:
        cell = model["cells"].get(row.scenario, {})
        mine, theirs = _values(cell, ours, row.figure), _values(cell, PEER, row.figure)
        if mine and theirs:
            found[row.label] = ratio(mine, theirs, more_is_better=row.more_is_better)
    return found


def table(model: Mapping[str, Any]) -> str:
    """The table of one model."""
    sizes, settings = model["sizes"], model["settings"]
    lines = [
        "",
        (
            f"{model['model']}  ({settings['path']}; {settings['threads']} thread(s), KV {settings['kv_type_k']}/"
            f"{settings['kv_type_v']}; prefill of {sizes['prefill_tokens']}, long prompts of "
            f"{sizes['long_prompt_tokens']} tokens)"
        ),
        f"{'':34} {PEER:>13} {'sealed':>10} {'ratio':>18} {'plain':>10} {'ratio':>18}",
    ]
    sealed, plain = ratios(model), ratios(model, "plain")
    for row in ROWS:
        cell = model["cells"].get(row.scenario)
        if not cell:
            continue
        columns = [_median(_values(cell, peer, row.figure)) for peer in (PEER, "sealed", "plain")]
        lines.append(
            f"{row.label:<27} {row.unit:>6} {columns[0]:>13} {columns[1]:>10} "
            f"{sealed.get(row.label, '')!s:>18} {columns[2]:>10} {plain.get(row.label, '')!s:>18}"
        )
    lines += _python_server(model)
    lines += _memory(model)
    lines += _cpu(model)
    return "\n".join(lines)


def _median(values: Iterable[float]) -> str:
    values = list(values)
    if not values:
        return "-"
    median = statistics.median(values)
    return f"{median:.0f}" if median >= 1000 else f"{median:.1f}" if median >= 10 else f"{median:.2f}"


def _python_server(model: Mapping[str, Any]) -> list[str]:
    cell = model["cells"].get("decode-8", {})
    theirs = _values(cell, "python-server", "tokens_per_s")
    mine = _values(cell, OURS, "tokens_per_s")
    if not theirs or not mine:
        return []
    found = ratio(mine, theirs, more_is_better=True)
    return [
        f"{'llama-cpp-python, 8 clients':<27} {'tok/s':>6} {_median(theirs):>13} {_median(mine):>10} {found!s:>18}"
    ]


def _memory(model: Mapping[str, Any]) -> list[str]:
    lines = []
    for when in ("idle", "loaded"):
        mib = {
            name: [figures["pss_bytes"] / 2**20 for figures in rounds]
            for name, rounds in model["memory"][when].items()
        }
        columns = [_median(mib.get(name, [])) for name in (PEER, "sealed", "plain")]
        compared = [
            str(ratio(mib[name], mib[PEER], more_is_better=False)) if {name, PEER} <= mib.keys() else ""
            for name in ("sealed", "plain")
        ]
        lines.append(
            f"{'memory, ' + when:<27} {'MiB':>6} {columns[0]:>13} {columns[1]:>10} {compared[0]:>18} "
            f"{columns[2]:>10} {compared[1]:>18}"
        )
    return lines


def _cpu(model: Mapping[str, Any]) -> list[str]:
    """CPU time for each token, of each process: the clients share the machine with the servers."""
    lines = ["CPU time, ms per token:"]
    for scenario in ("decode-1", "decode-8", "decode-16"):
        for peer, rounds in model["cells"].get(scenario, {}).items():
            tokens = sum(figures["tokens"] for figures in rounds)
            roles = [key for key in rounds[0] if key.startswith("cpu_s_")]
            parts = [
                f"{role.removeprefix('cpu_s_')} {1000 * sum(f[role] for f in rounds) / tokens:.3f}"
                for role in roles
            ]
            lines.append(f"  {scenario:<10} {peer:<14} {', '.join(parts)}")
    return lines if len(lines) > 1 else []


def _clipped(found: Ratio) -> Ratio:
    """Within the plot; mixed load may lie far out on our side."""
    low, median, high = (
        min(max(value, _LOWEST), _HIGHEST) for value in (found.low, found.median, found.high)
    )
    return Ratio(median=median, low=low, high=high)


def plot(models: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw each row's ratio with its spread, one panel for each model."""
    import matplotlib as mpl  # noqa: PLC0415 - not needed for measuring

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - as above

    figure, axes = plt.subplots(
        1,
        len(models),
        figsize=(2.5 + 2.9 * len(models), 4.6),
        layout="constrained",
        sharey=True,
        squeeze=False,
    )
    labels = [row.label for row in ROWS if any(row.label in ratios(model) for model in models)]
    for axis, model in zip(axes[0], models, strict=True):
        for offset, ours, colour in ((-0.15, "sealed", "#37618e"), (0.15, "plain", "#8e9a37")):
            found = ratios(model, ours)
            places = [index + offset for index, label in enumerate(labels) if label in found]
            values = [_clipped(found[label]) for label in labels if label in found]
            errors = [[r.median - r.low for r in values], [r.high - r.median for r in values]]
            axis.errorbar([r.median for r in values], places, xerr=errors, fmt="o", color=colour, label=ours)
        axis.axvline(1.0, color="#b3261e", linestyle="--", linewidth=1)
        axis.set(title=str(model["model"]), yticks=range(len(labels)), yticklabels=labels, xlabel="ratio")
        axis.set_xscale("log", base=2)
        axis.set_xlim(_LOWEST, _HIGHEST)
        axis.set_xticks(_TICKS, labels=[f"{tick:g}" for tick in _TICKS])
        axis.grid(axis="x", alpha=0.3)
    # Shared by all panels.
    axes[0][0].invert_yaxis()
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2)
    figure.suptitle("ours against llama-server: above 1 is in our favour")
    figure.savefig(path, dpi=110)
    plt.close(figure)
