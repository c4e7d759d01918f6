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

from adyton_models.catalog import default_catalog
from adyton_protocol.errors import ConfigError

GENERATOR: Final = "adyton-words-3m"
SCORER: Final = "adyton-words-scorer"
"""A small model of the same task, trained for longer than the generator; judges by the likelihood of each line."""
OWN_LIKELIHOOD: Final = "adyton-words-likelihood"
"""The adapter by which the generator's own file judges; the peer of every scorer."""
TAG_SCORER: Final = "adyton-words-scorer-tag"
ROLLOUT_SCORER: Final = "adyton-words-scorer-mc"
STUDENT: Final = "adyton-words-student"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Minutes and sizes of a run; everything else is the same for all budgets."""

    generator_minutes: float
    scorer_minutes: float
    tag_minutes: float
    quarter_minutes: float
    rollout_minutes: float
    student_minutes: float
    generator: tuple[str, ...]
    """Options that set the generator's size."""
    scorer: tuple[str, ...]
    """Options that set the scorer's size and its rates."""
    quarter: tuple[str, ...]
    """Options that set the size of the tag scorer that starts from nothing."""
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
        generator_minutes=4.0,
        scorer_minutes=1.5,
        tag_minutes=0.3,
        quarter_minutes=0.3,
        rollout_minutes=0.2,
        student_minutes=0.2,
        # Small batches: in two minutes the number of updates counts, not how exact each is.
        generator=(
            *("--width", "128", "--layers", "2", "--heads", "4", "--feed-forward", "256"),
            *("--batch-tokens", "512"),
        ),
        scorer=(
            *("--width", "128", "--layers", "2", "--heads", "4", "--feed-forward", "64"),
            *("--batch-tokens", "512"),
        ),
        quarter=("--width", "128", "--layers", "2", "--heads", "4", "--feed-forward", "64"),
        max_steps=1,
        samples=64,
        rollouts=8,
        validation=40,
        test=150,
        processes=1,
    ),
    "shipped": Budget(
        generator_minutes=62,
        scorer_minutes=112,
        tag_minutes=32,
        quarter_minutes=21,
        rollout_minutes=4,
        student_minutes=8,
        generator=(),
        scorer=(
            *("--width", "128", "--layers", "5", "--heads", "4", "--feed-forward", "160"),
            *("--learning-rate", "0.45", "--decay-from", "0.26", "--hold-planted", "0.8"),
        ),
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

    def adapter(name: str, model: str) -> Stage:
        scorer = ("--scorer", str(out / f"{model}.gguf"), "--out", str(out / f"{name}.toml"))
        return Stage(
            name=f"adapter-{name}",
            arguments=(
                *(
                    "adapter",
                    *scorer,
                    "--model",
                    str(out / f"{GENERATOR}.gguf"),
                    "--n",
                    str(budget.validation),
                ),
                *("--convention", str(default_catalog().parent / "adapters" / "likelihood.toml")),
                *(("--steps", "1") if budget.max_steps == 1 else ()),
            ),
        )

    def judge(name: str, model: str, *problems: str, label: str) -> Stage:
        scorer = ("--scorer", str(out / f"{model}.gguf"), "--adapter", str(out / f"{name}.toml"))
        generator = ("--model", str(out / f"{GENERATOR}.gguf"), "--samples", "2")
        return Stage(name=f"judge-{label}", arguments=("eval", *scorer, *generator, *problems, "--json"))

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
    yield adapter(OWN_LIKELIHOOD, GENERATOR)
    yield judge(OWN_LIKELIHOOD, GENERATOR, *_problems(budget), label="own")
    yield train("generator", "scorer", budget.scorer_minutes, *budget.scorer, *steps, *team)
    yield export(SCORER, str(out / "scorer" / "checkpoint.pt"), "Judges lines by how likely it finds them.")
    yield adapter(SCORER, SCORER)
    yield judge(SCORER, SCORER, *_problems(budget), label="heldout")
    if budget.max_steps > 1:
        yield judge(SCORER, SCORER, "--set", "ood", label="ood")
        yield judge(SCORER, SCORER, "--set", "handwritten", label="handwritten")
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
    whole = ("--start-from", generator, "--layers", "1", "--text-after", "0", "--learning-rate", "0.4")
    learnt = ("--validation", validation, *steps)
    sampled = ("--samples", samples, *learnt)
    yield train("scorer", "tag", budget.tag_minutes, *sampled, *whole, *team)
    yield train("scorer", "quarter", budget.quarter_minutes, *sampled, *budget.quarter, *team)
    yield export(TAG_SCORER, str(out / "tag" / "checkpoint.pt"), "Judges solutions line by line.")
    yield Stage(
        name="rollouts",
        arguments=(
            *("rollouts", generator, "--samples", str(out / "samples" / "train-1.jsonl")),
            *("--out", str(out / "rollouts" / "train-1.jsonl"), "--n", str(budget.rollouts)),
        ),
    )
    rolled = ("--samples", str(out / "rollouts"), *learnt)
    for labels in ("checker", "rollouts"):
        minutes = budget.rollout_minutes
        yield train("scorer", f"price-{labels}", minutes, *rolled, *whole, "--labels", labels, *team)
    rolled_out = str(out / "price-rollouts" / "checkpoint.pt")
    yield export(ROLLOUT_SCORER, rolled_out, "Judges lines; learnt from rollouts.")
    student = ("--teacher", generator, "--start-from", str(out / "scorer" / "checkpoint.pt"))
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
