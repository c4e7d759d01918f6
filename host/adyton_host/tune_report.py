# SPDX-License-Identifier: Apache-2.0
"""What ``adyton-host tune`` says about a search: a table for people, JSON for programs, a file for the enclave."""

import json
import os
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from adyton_host.enclave_config import render_toml
from adyton_host.tuning import Row, Settings, Workload

WEIGHTS: Final = "weights"
CONFIRMED: Final = "confirmed"
_HASHED_CHARS: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a search found; ``start`` and ``best`` are settings, ``gain`` is of answer tokens per second."""

    model: str
    workload: Workload
    rows: tuple[Row, ...]
    start: Settings
    best: Settings
    gain: float
    why_inexact: str | None
    identities: tuple[str, str]

    @property
    def changes(self) -> dict[str, int | str]:
        """What the best has otherwise than the start."""
        return {name: value for name, value in self.best.items() if self.start.get(name) != value}


def _numbers(row: Row, workload: Workload) -> tuple[float, float, float]:
    """Medians: prompt tokens, decoded tokens, answer tokens per second."""
    if not row.samples:
        return 0.0, 0.0, 0.0
    return (
        statistics.median(1 / sample.prefill_token_s for sample in row.samples),
        statistics.median(workload.streams / sample.step_s for sample in row.samples),
        statistics.median(workload.answer_rate(sample) for sample in row.samples),
    )


def _varied(row: Row) -> str:
    match row.stage:
        case "threads":
            return "threads " + (str(row.settings["threads"]) if row.settings["threads"] else "default")
        case "batch sizes":
            return f"n_batch {row.settings['n_batch']}, n_ubatch {row.settings['n_ubatch']}"
        case "cache types":
            return f"kv {row.settings['kv_type_k']}/{row.settings['kv_type_v']}"
        case "confirmed":
            return "the best together" if row.chosen or row.ratio != 1 else "the start"
        case _:
            return f"weights {row.settings[WEIGHTS]}"


def _verdict(row: Row) -> str:
    if row.error is not None:
        return f"refused: {row.error}"
    if row.chosen and row.stage != WEIGHTS:
        return "best"
    if not row.exact and row.samples:
        return f"inexact: {row.samples[0].why_inexact}"
    return "yours to judge" if row.stage == WEIGHTS and not row.chosen else ""


def report(outcome: Outcome) -> str:
    """The table, the conclusion, and what clients will see of a change."""
    workload = outcome.workload
    sizes = f"prompts of {workload.prompt_tokens}, answers of {workload.answer_tokens} tokens"
    asked = f"{workload.streams} streams, {sizes}"
    lines = [
        f"{outcome.model}: {asked}; tokens per second, medians",
        "",
        f"{'setting':30}{'prompt':>9}{'decode':>9}{'answer':>9}{'ratio':>7}  ",
    ]
    stage = ""
    for row in outcome.rows:
        if stage not in {"", row.stage}:
            lines.append("")
        stage = row.stage
        prompt, decode, answer = _numbers(row, workload)
        line = f"{_varied(row):30}{prompt:9.0f}{decode:9.0f}{answer:9.0f}{row.ratio:7.2f}  {_verdict(row)}"
        lines.append(line.rstrip())
    before, after = outcome.identities
    lines += ["", _conclusion(outcome), ""]
    lines.append("what clients will see")
    lines.append("  MRENCLAVE             unchanged: settings are configuration, not code")
    changed = "changes" if outcome.changes else "unchanged"
    lines.append(f"  configuration digest  {changed}")
    short = len("sha256:") + _HASHED_CHARS
    identity = "unchanged" if before == after else f"changes: {before[:short]}... to {after[:short]}..."
    lines.append(f"  model identity        {identity}")
    exact = "yes" if outcome.why_inexact is None else f"no: {outcome.why_inexact}"
    lines.append(f"  reproducible answers  {exact}")
    return "\n".join(lines)


def _conclusion(outcome: Outcome) -> str:
    if not outcome.changes:
        return "Nothing is clearly faster than the settings in force: keep them."
    settings = ", ".join(f"{name} = {json.dumps(value)}" for name, value in outcome.changes.items())
    return f"Best: {settings}: about {outcome.gain:.2f} times as fast."


def fragment(outcome: Outcome, overrides: Mapping[str, object]) -> str:
    """The operator's own file with the winning settings in it."""
    engine = overrides.get("engine", {})
    merged = {**(engine if isinstance(engine, dict) else {}), **outcome.changes}
    head = (
        f"# adyton-host tune, {outcome.model}, {len(os.sched_getaffinity(0))} processors: "
        f"{outcome.gain:.2f} times the starting settings.\n"
    )
    return head + render_toml({**overrides, "engine": merged})


def as_json(outcome: Outcome) -> dict[str, object]:
    """The same for programs."""
    rows = []
    for row in outcome.rows:
        prompt, decode, answer = _numbers(row, outcome.workload)
        rows.append(
            {
                "stage": row.stage,
                "settings": dict(row.settings),
                "prompt_tokens_per_s": prompt,
                "decode_tokens_per_s": decode,
                "answer_tokens_per_s": answer,
                "ratio": row.ratio,
                "samples": len(row.samples),
                "exact": row.exact,
                "chosen": row.chosen and row.stage != WEIGHTS,
                "error": row.error,
            }
        )
    return {
        "model": outcome.model,
        "processors": len(os.sched_getaffinity(0)),
        "rows": rows,
        "start": dict(outcome.start),
        "best": dict(outcome.best),
        "changes": outcome.changes,
        "gain": outcome.gain,
        "measurement": {
            "mrenclave": "unchanged",
            "configuration_digest": "changes" if outcome.changes else "unchanged",
            "model_identity": list(outcome.identities),
        },
        "reproducible": outcome.why_inexact is None,
    }
