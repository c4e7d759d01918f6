# SPDX-License-Identifier: Apache-2.0
"""`train`, `sample` and `export`: the commands that need torch."""

import argparse
import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from adyton_models.catalog import sha256_of
from adyton_models.commands.arguments import new_parser, positive
from adyton_models.commands.train_all import add_all
from adyton_models.progress import ProgressBar
from adyton_protocol.errors import ConfigError

if TYPE_CHECKING:
    from adyton_models.training.budgeted import BudgetedTrainer

_SLICED_ON: Final = 240
"""Problems on which it is seen what a model writes where."""

NEEDS_EXTRA: Final = "this needs the extra 'train' (pip install 'adyton[train]')"

_TRAIN: Final = """\
Train a model within a wall-clock budget: the learning rate always decays to zero when the time is up. Uses a
CUDA device when there is one. Writes DIR/checkpoint.pt every few minutes, DIR/curve.jsonl and, at the end,
DIR/curve.png; --resume goes on after an interruption.

  generator   writes solutions: from scratch on freshly generated problems
  scorer      judges each line of a solution: from scratch, on wrong lines made from right ones and on
              what a generator wrote (`adyton-models sample`)
  student     imitates a generator at a quarter of its size, for validation
  all         every shipped file from nothing"""
_TRAIN_EXAMPLES: Final = """\
  adyton-models train generator --minutes 60 --out run
  adyton-models train generator --minutes 60 --out run --resume     after an interruption
  adyton-models train generator --minutes 90 --out run --processes 2 --threads 1     on a busy machine
  adyton-models sample run/checkpoint.pt --out samples --n 5000
  adyton-models train scorer --minutes 40 --out scorer --samples samples
  adyton-models train all --budget small --out all"""

_GENERATOR: Final = """\
Train a generator from scratch on freshly generated problems. An hour on two cores with AVX512-BF16 makes a
useful model; a few minutes show that everything works."""
_GENERATOR_EXAMPLES: Final = "  adyton-models train generator --minutes 60 --out run"

_SCORER: Final = """\
Train a process scorer: behind every line of a solution it says whether all is right so far. It learns from
fresh problems with wrong lines put beside the right ones, and from what a generator wrote, labelled by the
symbolic checker. DIR of --samples may grow while training runs. The default is about a quarter of the
generator's size; --start-from takes shape and weights from a checkpoint instead, such as the generator's."""
_SCORER_EXAMPLES: Final = """\
  adyton-models train scorer --minutes 40 --out scorer --samples samples
  adyton-models train scorer --minutes 20 --out ceiling --samples samples --start-from run/checkpoint.pt"""

_STUDENT: Final = """\
Distil a generator into a small model: its next-token distributions are imitated, the last layer learns first
and one more follows whenever that no longer helps, until the student is close enough or no layer is left.
It starts from a small model that already reads the task, such as a scorer's checkpoint."""
_STUDENT_EXAMPLES: Final = """\
  adyton-models train student --minutes 10 --out student --teacher run/checkpoint.pt \\
    --start-from scorer/checkpoint.pt"""

_SLICE: Final = """\
Cut a narrower model out of a trained one: the principal directions of what its layers exchange, and the heads
and units that write most. It is a start for training, not a model to use: `train generator --start-from` goes
on from it, and `train student` distils into what that gives."""
_SLICE_EXAMPLES: Final = """\
  adyton-models slice run/checkpoint.pt --width 160 --feed-forward 128 --out sliced.pt
  adyton-models train generator --minutes 15 --start-from sliced.pt --out small"""

_ROLLOUTS: Final = """\
Label sampled solutions by rollouts: from behind each line the generator goes on a few times, and the share of
right answers is the line's value. Needs no checker of steps, and shows what that costs a scorer
(`train scorer --labels rollouts`)."""
_ROLLOUTS_EXAMPLES: Final = """\
  adyton-models rollouts run/checkpoint.pt --samples samples/train-1.jsonl --out rollouts/train-1.jsonl --n 500"""

_SAMPLE: Final = """\
Let a checkpoint solve problems, for a scorer to learn from: JSON lines with a problem and several solutions
each. The file is appended to; an interrupted run goes on where it was."""
_SAMPLE_EXAMPLES: Final = """\
  adyton-models sample run/checkpoint.pt --out samples --n 5000
  adyton-models sample run/checkpoint.pt --out heldout --n 500 --split test --copies 4"""

_EXPORT: Final = """\
Write a training checkpoint as a GGUF file: weights, tokenizer and chat template. The same checkpoint
always gives the same bytes."""
_EXPORT_EXAMPLES: Final = """\
  adyton-models export run/checkpoint.pt --out mine.gguf
  adyton-models export run/checkpoint.pt --out mine-f16.gguf --type F16"""


def add_parsers(commands: Any) -> None:
    """Add the subcommands."""
    train = new_parser(commands, "train", "train a model (needs the extra 'train')", _TRAIN, _TRAIN_EXAMPLES)
    kinds = train.add_subparsers(required=True, metavar="WHAT")
    _add_generator(kinds)
    _add_scorer(kinds)
    _add_student(kinds)
    add_all(kinds)
    _add_sample(commands)
    _add_rollouts(commands)
    _add_slice(commands)
    export = new_parser(
        commands, "export", "write a checkpoint as GGUF (needs the extra 'train')", _EXPORT, _EXPORT_EXAMPLES
    )
    export.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="the GGUF to write")
    export.add_argument(
        "--type", choices=("F16", "Q8_0", "Q4_0"), default="Q8_0", help="default: %(default)s"
    )
    export.add_argument("--name", default="adyton-words", metavar="NAME", help="name inside the file")
    export.add_argument(
        "--description",
        default="Solves arithmetic word problems step by step.",
        metavar="TEXT",
        help="likewise",
    )
    export.set_defaults(run=run_export)


def _add_budget(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--minutes", type=float, required=True, metavar="M", help="wall-clock budget")
    add("--out", type=Path, required=True, metavar="DIR", help="where checkpoint and curve go")
    add("--resume", action="store_true", help="continue DIR/checkpoint.pt; time used counts")
    add("--seed", type=int, default=1, metavar="N", help="weights and problems (default: 1)")
    add("--threads", type=positive, default=2, metavar="K", help="CPU threads (default: 2)")
    add(
        "--processes",
        type=positive,
        default=1,
        metavar="K",
        help="share the work; on a busy machine, 2 with --threads 1",
    )


def _add_generator(kinds: Any) -> None:
    parser = new_parser(kinds, "generator", "what writes solutions", _GENERATOR, _GENERATOR_EXAMPLES)
    _add_budget(parser)
    add = parser.add_argument
    add("--width", type=positive, default=256, metavar="K", help="default: %(default)s")
    add("--layers", type=positive, default=4, metavar="K", help="default: %(default)s")
    add("--heads", type=positive, default=8, metavar="K", help="default: %(default)s")
    add("--feed-forward", type=positive, default=512, metavar="K", help="default: %(default)s")
    add("--max-steps", type=positive, default=10, metavar="K", help="most operations (default: %(default)s)")
    add("--start-from", type=Path, metavar="CHECKPOINT", help="shape and weights, such as those of `slice`")
    add("--batch-tokens", type=positive, default=2048, metavar="K", help="in each process (default: 2048)")
    add("--learning-rate", type=float, default=1.0, metavar="X", help="factor on both rates (default: 1)")
    add(
        "--decay-from",
        type=float,
        metavar="SHARE",
        help="of the budget, from which on the rates fall (default: 0.4; 0.15 with --start-from)",
    )
    add(
        "--hold-planted",
        type=float,
        default=0.15,
        metavar="SHARE",
        help="of the budget during which the planted heads stay as they are (default: %(default)s)",
    )
    parser.set_defaults(run=run_generator)


def _add_scorer(kinds: Any) -> None:
    parser = new_parser(kinds, "scorer", "what judges them", _SCORER, _SCORER_EXAMPLES)
    _add_budget(parser)
    add = parser.add_argument
    add("--samples", type=Path, metavar="DIR", help="solutions of a generator, *.jsonl")
    add("--validation", type=Path, metavar="FILE", help="sampled solutions that the curve is measured on")
    add("--start-from", type=Path, metavar="CHECKPOINT", help="shape and weights to begin with")
    add("--width", type=positive, default=128, metavar="K", help="default: %(default)s")
    add("--layers", type=positive, default=5, metavar="K", help="default: %(default)s")
    add("--heads", type=positive, default=4, metavar="K", help="default: %(default)s")
    add("--feed-forward", type=positive, default=128, metavar="K", help="default: %(default)s")
    add(
        "--text-after",
        type=int,
        default=3,
        metavar="K",
        help="layers that predict the text; those behind compare and collect (default: %(default)s)",
    )
    add("--batch-tokens", type=positive, default=2560, metavar="K", help="default: %(default)s")
    add("--learning-rate", type=float, default=1.0, metavar="X", help="factor on both rates (default: 1)")
    add("--max-steps", type=positive, default=10, metavar="K", help="most operations (default: %(default)s)")
    add(
        "--labels",
        choices=("trees", "checker", "rollouts"),
        default="trees",
        help="trees: wrong lines beside right ones, made or sampled (default); checker, rollouts: samples as they"
        " are, labelled by the checker or by their rollouts (`adyton-models rollouts`)",
    )
    parser.set_defaults(run=run_scorer)


def _add_student(kinds: Any) -> None:
    parser = new_parser(kinds, "student", "a small copy of the generator", _STUDENT, _STUDENT_EXAMPLES)
    _add_budget(parser)
    add = parser.add_argument
    add("--teacher", type=Path, required=True, metavar="CHECKPOINT", help="the generator")
    add("--start-from", type=Path, required=True, metavar="CHECKPOINT", help="a small model to begin with")
    parser.set_defaults(run=run_student)


def _add_sample(commands: Any) -> None:
    parser = new_parser(
        commands, "sample", "let a checkpoint write solutions (extra 'train')", _SAMPLE, _SAMPLE_EXAMPLES
    )
    add = parser.add_argument
    add("checkpoint", type=Path, metavar="CHECKPOINT")
    add("--out", type=Path, required=True, metavar="DIR", help="the file is DIR/SPLIT-SEED.jsonl")
    add("--n", type=positive, default=1000, metavar="K", help="problems (default: %(default)s)")
    add("--copies", type=positive, default=4, metavar="K", help="solutions of each (default: %(default)s)")
    add("--split", choices=("train", "validation", "test"), default="train", help="default: %(default)s")
    add("--seed", type=int, default=1, metavar="N", help="problems and draws (default: 1)")
    add("--temperature", type=float, default=0.9, metavar="T", help="default: %(default)s")
    add("--top-p", type=float, default=1.0, metavar="P", help="default: %(default)s, nothing cut off")
    add("--top-k", type=int, default=0, metavar="K", help="default: %(default)s, nothing cut off")
    add("--min-p", type=float, default=0.0, metavar="P", help="default: %(default)s, nothing cut off")
    add("--max-steps", type=positive, default=10, metavar="K", help="operations (default: %(default)s)")
    add("--batch", type=positive, default=64, metavar="K", help="problems at once (default: %(default)s)")
    add("--threads", type=positive, default=1, metavar="K", help="CPU threads (default: 1)")
    parser.set_defaults(run=run_sample)


def _add_rollouts(commands: Any) -> None:
    parser = new_parser(
        commands, "rollouts", "label solutions by rollouts (extra 'train')", _ROLLOUTS, _ROLLOUTS_EXAMPLES
    )
    add = parser.add_argument
    add("checkpoint", type=Path, metavar="CHECKPOINT")
    add("--samples", type=Path, required=True, metavar="FILE", help="of `adyton-models sample`")
    add("--out", type=Path, required=True, metavar="FILE", help="appended to; goes on where it was")
    add("--n", type=positive, default=500, metavar="K", help="problems (default: %(default)s)")
    add("--rollouts", type=positive, default=4, metavar="K", help="from each line (default: %(default)s)")
    add("--temperature", type=float, default=0.8, metavar="T", help="default: %(default)s")
    add("--threads", type=positive, default=1, metavar="K", help="CPU threads (default: 1)")
    parser.set_defaults(run=run_rollouts)


def _add_slice(commands: Any) -> None:
    parser = new_parser(
        commands, "slice", "cut a narrower model out of a checkpoint (extra 'train')", _SLICE, _SLICE_EXAMPLES
    )
    add = parser.add_argument
    add("checkpoint", type=Path, metavar="CHECKPOINT")
    add("--out", type=Path, required=True, metavar="FILE", help="the checkpoint to write")
    add("--width", type=positive, default=160, metavar="K", help="default: %(default)s")
    add("--feed-forward", type=positive, default=128, metavar="K", help="default: %(default)s")
    parser.set_defaults(run=run_slice)


def check_run(arguments: argparse.Namespace) -> None:
    """Refuse to overwrite a run, and to resume one that is not there.

    Raises:
        ConfigError: `--resume` and the output directory do not go together.
    """
    begun = (arguments.out / "checkpoint.pt").exists()
    if begun and not arguments.resume:
        raise ConfigError(f"{arguments.out} already holds a run: use --resume or another directory")
    if arguments.resume and not begun:
        raise ConfigError(f"there is no {arguments.out / 'checkpoint.pt'} to resume")


def follow(trainer: "BudgetedTrainer", label: str) -> Path:
    """Run a trainer with a progress bar; a helper of the team shows nothing."""
    if trainer.team.rank > 0:
        return trainer.run(lambda _share, _evaluation, _loss: None)
    bar = ProgressBar(label)
    bar.message(f"{trainer.model.parameter_count():,} parameters on {trainer.device}")

    def report(share: float, evaluation: dict[str, Any] | None, loss: float) -> None:
        if evaluation is not None:
            bar.message(f"after {evaluation['minutes']:.0f} min, {trainer.in_words(evaluation)}")
        bar.update(share, f"loss {loss:.3f}, {trainer.progress.tokens / 1e6:.2f} M tokens")

    checkpoint = trainer.run(report)
    bar.close()
    return checkpoint


def _run_to_the_end(
    trainer: "BudgetedTrainer",
    label: str,
    arguments: argparse.Namespace,
    draw: Callable[[list[dict[str, Any]], Path], None],
    helpers: Sequence[subprocess.Popen[bytes]] = (),
) -> int:
    """Resume if asked to, train, draw the curve; a helper of the team only trains."""
    from adyton_models.training.curves import read_curve  # noqa: PLC0415 - loads matplotlib

    if arguments.resume:
        trainer.resume()
    checkpoint = follow(trainer, label)
    if trainer.team.rank > 0:
        return 0
    for helper in helpers:
        helper.wait()
    draw(read_curve(arguments.out / "curve.jsonl"), arguments.out / "curve.png")
    print(checkpoint)
    return 0


def run_generator(arguments: argparse.Namespace) -> int:
    """Train until the budget is used."""
    try:
        from adyton_models.training.curves import draw_curve  # noqa: PLC0415 - loads matplotlib
        from adyton_models.training.loop import Plan, Trainer  # noqa: PLC0415 - loads torch
        from adyton_models.training.parallel import start_helpers  # noqa: PLC0415 - loads torch
    except ImportError as error:
        raise ConfigError(f"{NEEDS_EXTRA}: {error}") from error
    if arguments.layers < 2:
        raise ConfigError("a model has at least two layers")
    check_run(arguments)
    plan = Plan(
        minutes=arguments.minutes,
        seed=arguments.seed,
        threads=arguments.threads,
        width=arguments.width,
        layers=arguments.layers,
        heads=arguments.heads,
        feed_forward=arguments.feed_forward,
        max_steps=arguments.max_steps,
        batch_tokens=arguments.batch_tokens,
        evaluate_every_s=min(120.0, arguments.minutes * 6),
        start_from=arguments.start_from,
        hold_planted=arguments.hold_planted,
    )
    if arguments.start_from is not None:
        plan = replace(plan, curriculum_from=0.9, decay_from=0.15, muon_lr=0.015, adam_lr=2e-3)
    if arguments.decay_from is not None:
        plan = replace(plan, decay_from=arguments.decay_from)
    plan = plan.at_rate(arguments.learning_rate)
    helpers = start_helpers(arguments.processes, arguments.out)
    trainer = Trainer(plan, arguments.out)
    return _run_to_the_end(trainer, "train", arguments, draw_curve, helpers)


def run_scorer(arguments: argparse.Namespace) -> int:
    """Train a scorer until the budget is used."""
    try:
        from adyton_models.training.curves import draw_scorer_curve  # noqa: PLC0415 - matplotlib
        from adyton_models.training.parallel import start_helpers  # noqa: PLC0415 - loads torch
        from adyton_models.training.sampled import read_samples  # noqa: PLC0415 - with its package
        from adyton_models.training.scorer import ScorerPlan, ScorerTrainer  # noqa: PLC0415 - loads torch
    except ImportError as error:
        raise ConfigError(f"{NEEDS_EXTRA}: {error}") from error
    check_run(arguments)
    for needed in (arguments.samples, arguments.validation, arguments.start_from):
        if needed is not None and not needed.exists():
            raise ConfigError(f"there is no {needed}")
    plan = ScorerPlan(
        minutes=arguments.minutes,
        seed=arguments.seed,
        threads=arguments.threads,
        batch_tokens=arguments.batch_tokens,
        width=arguments.width,
        layers=arguments.layers,
        heads=arguments.heads,
        feed_forward=arguments.feed_forward,
        samples=arguments.samples,
        start_from=arguments.start_from,
        labels=arguments.labels,
        max_steps=arguments.max_steps,
        evaluate_every_s=min(120.0, arguments.minutes * 6),
        text_after=arguments.text_after,
        curriculum_from=0.0 if arguments.start_from is None else 0.4,
    )
    plan = plan.at_rate(arguments.learning_rate)
    helpers = start_helpers(arguments.processes, arguments.out)
    validation = [] if arguments.validation is None else read_samples(arguments.validation)
    trainer = ScorerTrainer(plan, arguments.out, validation)
    return _run_to_the_end(trainer, "train scorer", arguments, draw_scorer_curve, helpers)


def run_student(arguments: argparse.Namespace) -> int:
    """Distil until the budget is used, or the student is close enough."""
    try:
        from adyton_models.training.curves import draw_student_curve  # noqa: PLC0415 - matplotlib
        from adyton_models.training.student import StudentPlan, StudentTrainer  # noqa: PLC0415 - loads torch
    except ImportError as error:
        raise ConfigError(f"{NEEDS_EXTRA}: {error}") from error
    check_run(arguments)
    for needed in (arguments.teacher, arguments.start_from):
        if not needed.is_file():
            raise ConfigError(f"there is no checkpoint {needed}")
    if arguments.processes > 1:
        raise ConfigError("a student is trained by one process")
    plan = StudentPlan(
        minutes=arguments.minutes,
        seed=arguments.seed,
        threads=arguments.threads,
        teacher=arguments.teacher,
        start_from=arguments.start_from,
        evaluate_every_s=arguments.minutes * 60 / 20,
    )
    trainer = StudentTrainer(plan, arguments.out)
    return _run_to_the_end(trainer, "distil", arguments, draw_student_curve)


def run_slice(arguments: argparse.Namespace) -> int:
    """Write a narrower checkpoint."""
    try:
        import torch  # noqa: PLC0415 - only here

        from adyton_models.tasks import Split, generate  # noqa: PLC0415 - with its users
        from adyton_models.tokenizer import Tokenizer  # noqa: PLC0415 - with its users
        from adyton_models.training.budgeted import load_model, save_model  # noqa: PLC0415 - loads torch
        from adyton_models.training.data import encode_row  # noqa: PLC0415 - loads torch
        from adyton_models.training.slicing import slice_model  # noqa: PLC0415 - loads torch
    except ImportError as error:
        raise ConfigError(f"{NEEDS_EXTRA}: {error}") from error
    if not arguments.checkpoint.is_file():
        raise ConfigError(f"there is no checkpoint {arguments.checkpoint}")
    tokenizer = Tokenizer()
    problems = generate(Split.TRAIN, 99, _SLICED_ON, (1, 2, 3, 4, 5, 6))
    rows = [torch.tensor([encode_row(tokenizer, problem)[0]]) for problem in problems]
    try:
        narrow = slice_model(
            load_model(arguments.checkpoint), rows, width=arguments.width, feed_forward=arguments.feed_forward
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    save_model(narrow, arguments.out)
    print(f"{narrow.parameter_count():,} parameters  {arguments.out}")
    return 0


def run_rollouts(arguments: argparse.Namespace) -> int:
    """Label a file of samples."""
    try:
        import torch  # noqa: PLC0415 - only here

        from adyton_models.training.budgeted import load_model  # noqa: PLC0415 - loads torch
        from adyton_models.training.rollouts import RolloutRun, label_noise, roll_out_file  # noqa: PLC0415
        from adyton_models.training.sampled import read_samples  # noqa: PLC0415 - with its package
        from adyton_models.training.sampling import Draw  # noqa: PLC0415 - loads torch
    except ImportError as error:
        raise ConfigError(f"{NEEDS_EXTRA}: {error}") from error
    for needed in (arguments.checkpoint, arguments.samples):
        if not needed.is_file():
            raise ConfigError(f"there is no {needed}")
    torch.set_num_threads(arguments.threads)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    bar = ProgressBar("rollouts")
    roll_out_file(
        load_model(arguments.checkpoint).eval(),
        arguments.samples,
        arguments.out,
        Draw(temperature=arguments.temperature),
        RolloutRun(problems=arguments.n, rollouts=arguments.rollouts),
        report=lambda done: bar.update(done / arguments.n, f"{done} problems"),
    )
    bar.close()
    print(json.dumps(label_noise(read_samples(arguments.out))))
    return 0


def run_sample(arguments: argparse.Namespace) -> int:
    """Sample solutions into a file."""
    try:
        import torch  # noqa: PLC0415 - only here

        from adyton_models.tasks import Split  # noqa: PLC0415 - with its users
        from adyton_models.training.budgeted import load_model  # noqa: PLC0415 - loads torch
        from adyton_models.training.sampling import Draw, SampleRun, sample_file  # noqa: PLC0415 - torch
    except ImportError as error:
        raise ConfigError(f"{NEEDS_EXTRA}: {error}") from error
    if not arguments.checkpoint.is_file():
        raise ConfigError(f"there is no checkpoint {arguments.checkpoint}")
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    out: Path = arguments.out / f"{arguments.split}-{arguments.seed}.jsonl"
    how = Draw(
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        min_p=arguments.min_p,
    )
    bar = ProgressBar("sample")
    run = SampleRun(
        split=Split(arguments.split),
        seed=arguments.seed,
        problems=arguments.n,
        copies=arguments.copies,
        batch=arguments.batch,
        max_steps=arguments.max_steps,
    )
    sample_file(
        load_model(arguments.checkpoint),
        run,
        how,
        out,
        report=lambda done: bar.update(done / arguments.n, f"{done} problems"),
    )
    bar.close()
    print(out)
    return 0


def run_export(arguments: argparse.Namespace) -> int:
    """Write a GGUF."""
    try:
        from adyton_models.export import Labels, export_gguf  # noqa: PLC0415 - loads torch
    except ImportError as error:
        raise ConfigError(f"{NEEDS_EXTRA}: {error}") from error
    if not arguments.checkpoint.is_file():
        raise ConfigError(f"there is no checkpoint {arguments.checkpoint}")
    labels = Labels(name=arguments.name, description=arguments.description)
    export_gguf(arguments.checkpoint, arguments.out, quantisation=arguments.type, labels=labels)
    print(f"{sha256_of(arguments.out)}  {arguments.out}")
    return 0
