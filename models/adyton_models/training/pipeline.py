# SPDX-License-Identifier: Apache-2.0
"""All stages from nothing to the shipped files, each a command of `adyton-models` that anybody can run by hand.

A stage is done when its mark is in `DIR/done/`; a run that was interrupted goes on with the first stage that is not,
and within it where its own checkpoint or file left off. What a stage prints as JSON is kept for the cards. This
module neither trains nor measures: it knows the order, the budgets and the names of files.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adyton_protocol.errors import ConfigError

GENERATOR: Final = "adyton-words-3m"
SCORER: Final = "adyton-words-scorer"
ROLLOUT_SCORER: Final = "adyton-words-scorer-mc"
STUDENT: Final = "adyton-words-student"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Minutes and sizes of a run; everything else is the same for all budgets."""

    generator_minutes: float
    scorer_minutes: float
    quarter_minutes: float
    rollout_minutes: float
    student_minutes: float
    generator: tuple[str, ...]
    """Options that set the generator's size."""
    quarter: tuple[str, ...]
    """Options that set the size of scorer and student that start from nothing."""
    max_steps: int
    samples: int
    """Training problems that the generator solves for the scorer, four times each."""
    rollouts: int
    """Of these, problems whose lines are labelled by rollouts."""
    validation: int
    test: int
    processes: int = 2


BUDGETS: Final[dict[str, Budget]] = {
    "small": Budget(
        generator_minutes=2.0,
        scorer_minutes=0.5,
        quarter_minutes=0.3,
        rollout_minutes=0.2,
        student_minutes=0.3,
        generator=("--width", "128", "--layers", "2", "--heads", "4", "--feed-forward", "128"),
        quarter=("--width", "128", "--layers", "2", "--heads", "4", "--feed-forward", "64"),
        max_steps=1,
        samples=64,
        rollouts=8,
        validation=40,
        test=60,
        processes=1,
    ),
    "shipped": Budget(
        generator_minutes=62,
        scorer_minutes=32,
        quarter_minutes=21,
        rollout_minutes=5,
        student_minutes=8,
        generator=(),
        quarter=(),
        max_steps=10,
        samples=700,
        rollouts=150,
        validation=400,
        test=1000,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One command."""

    name: str
    arguments: tuple[str, ...]
    run: str = ""
    """Directory of a training run, which is resumed when it has a checkpoint."""


def stages(budget: Budget, out: Path) -> Iterator[Stage]:
    """All commands in order; paths are below `out`."""
    team = ("--processes", str(budget.processes), "--threads", "1")
    steps = ("--max-steps", str(budget.max_steps))
    served = ("--temperature", "0.8", "--top-k", "40", "--top-p", "0.95", "--min-p", "0.05")
    generator, samples = str(out / "generator" / "checkpoint.pt"), str(out / "samples")
    validation = str(out / "validation" / "validation-1.jsonl")

    def train(kind: str, name: str, minutes: float, *options: str) -> Stage:
        where = ("--minutes", str(minutes), "--out", str(out / name))
        return Stage(name=f"train-{name}", arguments=("train", kind, *where, *options), run=name)

    def export(name: str, checkpoint: str, description: str) -> Stage:
        target = ("--out", str(out / f"{name}.gguf"), "--name", name, "--description", description)
        return Stage(name=f"export-{name}", arguments=("export", checkpoint, *target))

    def judge(name: str, *problems: str, label: str) -> Stage:
        scorer = ("--scorer", str(out / f"{name}.gguf"), "--adapter", str(out / f"{name}.toml"))
        model = ("--model", str(out / f"{GENERATOR}.gguf"), "--samples", "2")
        return Stage(name=f"judge-{label}", arguments=("eval", *scorer, *model, *problems, "--json"))

    yield train("generator", "generator", budget.generator_minutes, *budget.generator, *steps, *team)
    yield export(GENERATOR, generator, "Solves arithmetic word problems step by step.")
    yield Stage(
        name="eval-generator",
        arguments=(
            "eval",
            "--model",
            str(out / f"{GENERATOR}.gguf"),
            *_problems(budget),
            "--json",
        ),
    )
    yield Stage(
        name="sample",
        arguments=("sample", generator, "--out", samples, "--n", str(budget.samples), *steps),
    )
    yield Stage(
        name="sample-validation",
        arguments=(
            *("sample", generator, "--out", str(out / "validation"), "--split", "validation"),
            *("--n", str(min(128, budget.validation)), "--copies", "2", *steps, *served),
        ),
    )
    learnt = ("--samples", samples, "--validation", validation, *steps)
    yield train(
        *("scorer", "scorer", budget.scorer_minutes, *learnt, "--start-from", generator),
        *("--layers", "1", "--text-after", "0", "--learning-rate", "0.4", *team),
    )
    yield train("scorer", "quarter", budget.quarter_minutes, *learnt, *budget.quarter, *team)
    yield export(SCORER, str(out / "scorer" / "checkpoint.pt"), "Judges solutions line by line.")
    yield Stage(
        name="adapter",
        arguments=(
            *("adapter", "--scorer", str(out / f"{SCORER}.gguf"), "--out", str(out / f"{SCORER}.toml")),
            *("--model", str(out / f"{GENERATOR}.gguf"), "--n", str(budget.validation)),
            *(("--steps", "1") if budget.max_steps == 1 else ()),
        ),
    )
    yield judge(SCORER, *_problems(budget), label="heldout")
    if budget.max_steps > 1:
        yield judge(SCORER, "--set", "ood", label="ood")
        yield judge(SCORER, "--set", "handwritten", label="handwritten")
    rolled = str(out / "rollouts" / "train-1.jsonl")
    yield Stage(
        name="rollouts",
        arguments=(
            *("rollouts", generator, "--samples", str(out / "samples" / "train-1.jsonl")),
            *("--out", rolled, "--n", str(budget.rollouts)),
        ),
    )
    for labels in ("checker", "rollouts"):
        yield train(
            *("scorer", f"price-{labels}", budget.rollout_minutes, "--start-from", generator, *steps),
            *("--samples", str(out / "rollouts"), "--validation", validation, "--labels", labels),
            *("--layers", "1", "--text-after", "0", "--learning-rate", "0.4", *team),
        )
    yield export(
        ROLLOUT_SCORER, str(out / "price-rollouts" / "checkpoint.pt"), "Judges lines; learnt from rollouts."
    )
    student = ("--teacher", generator, "--start-from", str(out / "quarter" / "checkpoint.pt"))
    yield train("student", "student", budget.student_minutes, *student, "--threads", "1")
    yield export(STUDENT, str(out / "student" / "checkpoint.pt"), "Imitates the generator, for validation.")


def _problems(budget: Budget) -> tuple[str, ...]:
    """Held-out problems of what was trained: the calibrated mix, or short ones where that is all."""
    if budget.max_steps > 1:
        return ("--mix", "--n", str(budget.test))
    return ("--steps", "1", "--n", str(budget.test))


def run_all(budget: Budget, out: Path, report: Callable[[float, str], None]) -> dict[str, float]:
    """Run every stage that is not done; returns the seconds each took.

    Raises:
        ConfigError: a stage failed; its own message stands above.
    """
    done = out / "done"
    done.mkdir(parents=True, exist_ok=True)
    todo = list(stages(budget, out))
    for number, stage in enumerate(todo):
        report(number / len(todo), stage.name)
        mark = done / f"{stage.name}.json"
        if not mark.exists():
            _run(stage, out, mark)
    report(1.0, "done")
    return {
        stage.name: float(json.loads((done / f"{stage.name}.json").read_text())["seconds"]) for stage in todo
    }


def _run(stage: Stage, out: Path, mark: Path) -> None:
    arguments = list(stage.arguments)
    if stage.run and (out / stage.run / "checkpoint.pt").exists():
        arguments.append("--resume")
    started = time.monotonic()
    finished = subprocess.run(  # noqa: S603 - our own command line
        [sys.executable, "-m", "adyton_models.cli", *arguments],
        check=False,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    if finished.returncode:
        raise ConfigError(
            f"the stage {stage.name} failed; mend it and start again with --resume. It was: adyton-models "
            + " ".join(arguments)
        )
    printed = finished.stdout.strip()
    document = {
        "seconds": round(time.monotonic() - started, 1),
        "command": ["adyton-models", *stage.arguments],
        "printed": json.loads(printed) if printed.startswith("{") else printed,
    }
    partial = mark.with_suffix(".partial")
    partial.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    partial.replace(mark)
