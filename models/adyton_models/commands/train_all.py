# SPDX-License-Identifier: Apache-2.0
"""`train all`: every shipped file from nothing."""

import argparse
from pathlib import Path
from typing import Any, Final

from adyton_models.commands.arguments import new_parser
from adyton_models.progress import ProgressBar
from adyton_protocol.errors import ConfigError

_ALL: Final = """\
Make every shipped file from nothing: generator, scorer with its adapter, student, the trained reward models that
the scorer is compared with, measurements and cards. Each stage is a command that can be run by hand; what is
done is marked in DIR/done/, and --resume goes on where a run was interrupted.

  small     miniature versions in a few minutes on two cores, through the same code and the same checks
  shipped   the real ones, in four to five hours on two cores"""
_ALL_EXAMPLES: Final = """\
  adyton-models train all --budget small --out all
  adyton-models train all --budget shipped --out shipped-run --resume"""


def add_all(kinds: Any) -> None:
    """Add `train all`."""
    parser = new_parser(kinds, "all", "every shipped file from nothing", _ALL, _ALL_EXAMPLES)
    add = parser.add_argument
    add("--budget", choices=("small", "shipped"), required=True, help="how long, and how large")
    add("--out", type=Path, default=Path("trained"), metavar="DIR", help="default: %(default)s")
    add("--resume", action="store_true", help="go on where an earlier run ended")
    parser.set_defaults(run=run_train_all)


def run_train_all(arguments: argparse.Namespace) -> int:
    """Run all stages and write the cards."""
    from adyton_models.training.cards import write_cards  # noqa: PLC0415 - beside its only use
    from adyton_models.training.pipeline import BUDGETS, run_all  # noqa: PLC0415 - beside its only use

    budget = BUDGETS[arguments.budget]
    if (arguments.out / "done").exists() and not arguments.resume:
        raise ConfigError(f"{arguments.out} already holds a run: use --resume or another directory")
    bar = ProgressBar("train all")
    seconds = run_all(budget, arguments.out, lambda share, stage: bar.message(f"[{share:4.0%}] {stage}"))
    bar.close()
    for path in write_cards(budget, arguments.out):
        print(path)
    print(f"{sum(seconds.values()) / 60:.0f} minutes")
    return 0
