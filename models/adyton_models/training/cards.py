# SPDX-License-Identifier: Apache-2.0
"""Cards of trained models, for people (Markdown) and machines (JSON), from what the stages of a run left behind."""

import json
from pathlib import Path
from typing import Any

from adyton_models.catalog import sha256_of
from adyton_models.flops import SolutionSize, flops_share
from adyton_models.tokenizer import Tokenizer
from adyton_models.training.architecture import Shape
from adyton_models.training.budgeted import read_weights
from adyton_models.training.pipeline import GENERATOR, ROLLOUT_SCORER, SCORER, STUDENT, TAG_SCORER, Budget

_RUNS = {
    "tag": "tags, generator's size",
    "quarter": "tags, a quarter of it, from nothing",
    "price-checker": "tags, samples alone, checker's labels",
    "price-rollouts": "tags, samples alone, rollouts' labels",
}
_TYPICAL = SolutionSize(prompt_tokens=100, solution_tokens=100, lines=7)


def _printed(out: Path, stage: str) -> Any:
    path = out / "done" / f"{stage}.json"
    return json.loads(path.read_text(encoding="utf-8"))["printed"] if path.exists() else None


def _last(out: Path, run: str) -> dict[str, Any]:
    lines = (out / run / "curve.jsonl").read_text(encoding="utf-8").splitlines()
    last: dict[str, Any] = json.loads(lines[-1])
    return last


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _figure(figure: dict[str, Any]) -> str:
    low, high = figure["ci95"]
    return f"{figure['value']:.4f} ({low:.4f} to {high:.4f})"


def _generator_lines(document: dict[str, Any]) -> list[str]:
    measured = document["accuracy"]
    rows = {**measured["by_bucket"], "all": measured["overall"]}
    table = [
        f"| {name} | {row['n']} | {_share(row['accuracy'])} | "
        f"{_share(row['ci95'][0])} to {_share(row['ci95'][1])} |"
        for name, row in rows.items()
    ]
    faults = ", ".join(f"{name} {count}" for name, count in measured["first_faults"].items())
    return [
        f"One sample of each held-out problem at temperature {measured['temperature']}, exact final answer:",
        "",
        "| problems | n | accuracy | 95 % interval |",
        "|---|---|---|---|",
        *table,
        "",
        f"First faults: {faults}.",
    ]


def _scorer_lines(document: dict[str, Any]) -> list[str]:
    lines = [
        "Solutions as the generator is served, judged against the symbolic checker; 95 % intervals by bootstrap",
        "over problems. AUC is over lines up to the first wrong one.",
        "",
        "| problems | solutions | step AUC | first wrong line found exactly | solutions judged exactly | FLOPs |",
        "|---|---|---|---|---|---|",
    ]
    for name, measured in document["judged"].items():
        lines.append(
            f"| {name} | {measured['solutions']} | {_figure(measured['step_auc'])} | "
            f"{_figure(measured['first_fault_found'])} | {_figure(measured['judged_exactly'])} | "
            f"{_share(measured['flops_share'])} |"
        )
    return lines


def trade_off(out: Path) -> list[dict[str, Any]]:
    """Every scorer of a run: what it costs against the generator, and how well it tells validation lines apart.

    Tag scorers are measured in PyTorch at the end of their training, likelihoods on held-out problems as they are
    served. All AUCs are over lines up to the first wrong one.
    """
    shapes = {
        run: Shape(**read_weights(out / run / "checkpoint.pt")["shape"]) for run in ("generator", *_RUNS)
    }
    vocabulary = len(Tokenizer())
    rows = []
    own, heldout = (_printed(out, f"judge-{label}") for label in ("own", "heldout"))
    for name, share, judged in (
        ("the generator's own likelihood, kept while it writes", 0.0, own),
        ("the same as a pass of its own", own["flops_share"], own),
        ("likelihood of a small model that was trained for longer", heldout["flops_share"], heldout),
    ):
        rows.append({"scorer": name, "flops_share": share, "step_auc": judged["step_auc"]["value"]})
    for run, name in _RUNS.items():
        share = flops_share(shapes[run], shapes["generator"], [_TYPICAL], vocabulary=vocabulary)
        rows.append({"scorer": name, "flops_share": round(share, 4), "step_auc": _last(out, run)["auc"]})
    return rows


def trade_off_table(rows: list[dict[str, Any]]) -> list[str]:
    """The trade-off as Markdown."""
    lines = ["| scorer | FLOPs over those of the generator | step AUC |", "|---|---|---|"]
    return lines + [
        f"| {row['scorer']} | {_share(row['flops_share'])} | {row['step_auc']:.3f} |" for row in rows
    ]


def _documents(budget: Budget, out: Path) -> dict[str, dict[str, Any]]:
    judged = {
        label: found
        for label in ("heldout", "ood", "handwritten")
        if (found := _printed(out, f"judge-{label}")) is not None
    }
    runs = {
        GENERATOR: ("generator", budget.generator_minutes),
        SCORER: ("scorer", budget.scorer_minutes),
        TAG_SCORER: ("tag", budget.tag_minutes),
        ROLLOUT_SCORER: ("price-rollouts", budget.rollout_minutes),
        STUDENT: ("student", budget.student_minutes),
    }
    documents: dict[str, dict[str, Any]] = {}
    for name, (run, minutes) in runs.items():
        path = out / f"{name}.gguf"
        documents[name] = {
            "name": name,
            "file": path.name,
            "size_bytes": path.stat().st_size,
            "sha256": sha256_of(path),
            "license": "Apache-2.0",
            "data": "synthetic problems of adyton_models.tasks; no third-party data",
            "minutes": minutes,
            "processes": budget.processes,
            "curve": f"{run}/curve.jsonl",
            "end_of_training": _last(out, run),
            "limits": "word problems of this task only; trained up to "
            f"{budget.max_steps} operations and numbers from 0 to 199",
        }
    documents[GENERATOR]["accuracy"] = _printed(out, "eval-generator")
    documents[SCORER]["judged"] = judged
    documents[SCORER]["trade_off"] = trade_off(out)
    documents[ROLLOUT_SCORER]["label_noise"] = _printed(out, "rollouts")
    documents[ROLLOUT_SCORER]["with_checker_labels"] = _last(out, "price-checker")
    return documents


def write_cards(budget: Budget, out: Path) -> list[Path]:
    """Write `NAME.card.json` and `NAME.card.md` for each model of a finished run."""
    written: list[Path] = []
    for name, document in _documents(budget, out).items():
        lines = [
            f"# {name}",
            "",
            f"`{document['file']}`, {document['size_bytes']:,} bytes, SHA-256 `{document['sha256']}`.",
            f"Trained for {document['minutes']:g} minutes by {document['processes']} processes of one thread.",
            f"Data: {document['data']}. Licence: {document['license']}.",
            "",
        ]
        if "accuracy" in document:
            lines += _generator_lines(document)
        elif "judged" in document:
            lines += _scorer_lines(document)
        else:
            end = ", ".join(f"{key} {value}" for key, value in document["end_of_training"].items())
            lines += [f"At the end of training, on validation problems: {end}."]
        if "trade_off" in document:
            lines += ["", *trade_off_table(document["trade_off"])]
        if "label_noise" in document:
            noise = document["label_noise"]
            twin = document["with_checker_labels"]
            lines += [
                "",
                f"Rollouts call {_share(noise['right_called_bad'])} of right lines bad and",
                f"{_share(noise['wrong_called_good'])} of wrong ones good. The same run with the checker's labels",
                f"ends at AUC {twin['auc']}.",
            ]
        lines += [
            "",
            f"Limits: {document['limits']}.",
            "",
            f"![learning curve]({Path(document['curve']).parent}/curve.png)",
        ]
        for suffix, text in (
            ("json", json.dumps(document, indent=1) + "\n"),
            ("md", "\n".join(lines) + "\n"),
        ):
            path = out / f"{name}.card.{suffix}"
            path.write_text(text, encoding="utf-8")
            written.append(path)
    return written
