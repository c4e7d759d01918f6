# SPDX-License-Identifier: Apache-2.0
"""`train` and `export`: the commands that need torch."""

import argparse
from pathlib import Path
from typing import Any, Final

from adyton_models.catalog import sha256_of
from adyton_models.commands.arguments import new_parser, positive
from adyton_models.progress import ProgressBar
from adyton_protocol.errors import ConfigError

_NEEDS_EXTRA: Final = "this needs the extra 'train' (pip install 'adyton[train]')"

_TRAIN: Final = """\
Train a model from scratch on freshly generated problems, within a wall-clock budget: the learning rate
always decays to zero when the time is up. Uses a CUDA device when there is one. Writes DIR/checkpoint.pt
every few minutes, DIR/curve.jsonl and, at the end, DIR/curve.png. An hour on two cores with AVX512-BF16
makes a useful model; a few minutes show that everything works."""
_TRAIN_EXAMPLES: Final = """\
  adyton-models train --minutes 60 --out run
  adyton-models train --minutes 60 --out run --resume     after an interruption
  adyton-models train --minutes 90 --out run --processes 2 --threads 1     on a busy machine"""

_EXPORT: Final = """\
Write a training checkpoint as a GGUF file: weights, tokenizer and chat template. The same checkpoint
always gives the same bytes."""
_EXPORT_EXAMPLES: Final = """\
  adyton-models export run/checkpoint.pt --out mine.gguf
  adyton-models export run/checkpoint.pt --out mine-f16.gguf --type F16"""


def add_parsers(commands: Any) -> None:
    """Add both subcommands."""
    train = new_parser(commands, "train", "train a model (needs the extra 'train')", _TRAIN, _TRAIN_EXAMPLES)
    train.add_argument("--minutes", type=float, required=True, metavar="M", help="wall-clock budget")
    train.add_argument("--out", type=Path, required=True, metavar="DIR", help="where checkpoint and curve go")
    train.add_argument("--resume", action="store_true", help="continue DIR/checkpoint.pt; time used counts")
    train.add_argument("--seed", type=int, default=1, metavar="N", help="weights and problems (default: 1)")
    train.add_argument("--layers", type=positive, default=4, metavar="K", help="layers (default: 4)")
    train.add_argument("--threads", type=positive, default=2, metavar="K", help="CPU threads (default: 2)")
    train.add_argument(
        "--processes",
        type=positive,
        default=1,
        metavar="K",
        help="share the work; on a busy machine, 2 with --threads 1",
    )
    train.set_defaults(run=run_train)
    export = new_parser(
        commands, "export", "write a checkpoint as GGUF (needs the extra 'train')", _EXPORT, _EXPORT_EXAMPLES
    )
    export.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="the GGUF to write")
    export.add_argument(
        "--type", choices=("F16", "Q8_0", "Q4_0"), default="Q8_0", help="default: %(default)s"
    )
    export.add_argument("--name", default="adyton-words", metavar="NAME", help="name inside the file")
    export.set_defaults(run=run_export)


def run_train(arguments: argparse.Namespace) -> int:
    """Train until the budget is used."""
    try:
        from adyton_models.training.curves import draw_curve, read_curve  # noqa: PLC0415 - loads matplotlib
        from adyton_models.training.loop import Plan, Trainer  # noqa: PLC0415 - loads torch
        from adyton_models.training.parallel import start_helpers  # noqa: PLC0415 - loads torch
    except ImportError as error:
        raise ConfigError(f"{_NEEDS_EXTRA}: {error}") from error
    if not arguments.resume and (arguments.out / "checkpoint.pt").exists():
        raise ConfigError(f"{arguments.out} already holds a run: use --resume or another directory")
    plan = Plan(
        minutes=arguments.minutes, seed=arguments.seed, layers=arguments.layers, threads=arguments.threads
    )
    if arguments.layers < 2:
        raise ConfigError("a model has at least two layers")
    if arguments.resume and not (arguments.out / "checkpoint.pt").exists():
        raise ConfigError(f"there is no {arguments.out / 'checkpoint.pt'} to resume")
    helpers = start_helpers(arguments.processes, arguments.out)
    trainer = Trainer(plan, arguments.out)
    if arguments.resume:
        trainer.resume()
    if trainer.team.rank > 0:
        trainer.run(lambda _share, _evaluation, _loss: None)
        return 0
    bar = ProgressBar("train")
    bar.message(f"{trainer.model.parameter_count():,} parameters on {trainer.device}")

    def report(share: float, evaluation: dict[str, Any] | None, loss: float) -> None:
        if evaluation is not None:
            exact = "  ".join(f"{steps}: {value:.0%}" for steps, value in evaluation["greedy"].items())
            bar.message(f"after {evaluation['minutes']:.0f} min, exact by steps: {exact}")
        bar.update(share, f"loss {loss:.3f}, {trainer.progress.tokens / 1e6:.2f} M tokens")

    checkpoint = trainer.run(report)
    bar.close()
    for helper in helpers:
        helper.wait()
    draw_curve(read_curve(arguments.out / "curve.jsonl"), arguments.out / "curve.png")
    print(checkpoint)
    return 0


def run_export(arguments: argparse.Namespace) -> int:
    """Write a GGUF."""
    try:
        from adyton_models.export import Labels, export_gguf  # noqa: PLC0415 - loads torch
    except ImportError as error:
        raise ConfigError(f"{_NEEDS_EXTRA}: {error}") from error
    if not arguments.checkpoint.is_file():
        raise ConfigError(f"there is no checkpoint {arguments.checkpoint}")
    labels = Labels(name=arguments.name, description="Solves arithmetic word problems step by step.")
    export_gguf(arguments.checkpoint, arguments.out, quantisation=arguments.type, labels=labels)
    print(f"{sha256_of(arguments.out)}  {arguments.out}")
    return 0
