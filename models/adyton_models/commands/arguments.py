# SPDX-License-Identifier: Apache-2.0
"""What the subcommands' parsers share."""

import argparse
import shlex
from pathlib import Path
from typing import Any

from adyton_models.catalog import default_catalog
from adyton_models.tasks import Split
from adyton_models.tasks.graph import MAX_STEPS


def new_parser(
    commands: Any, name: str, short: str, description: str, examples: str
) -> argparse.ArgumentParser:
    """A subcommand's parser that keeps the line breaks of its description and examples."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=short,
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def positive(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def step_range(text: str) -> tuple[int, ...]:
    """`3` or `2-5`."""
    low, _, high = text.partition("-")
    if low.isdecimal() and (high or low).isdecimal() and 1 <= int(low) <= int(high or low) <= MAX_STEPS:
        return tuple(range(int(low), int(high or low) + 1))
    raise argparse.ArgumentTypeError(
        f"{text!r} is not a number or range of steps from 1 to {MAX_STEPS}, as in 2-5"
    )


def add_catalog(parser: argparse.ArgumentParser) -> None:
    """The option that names the catalog."""
    parser.add_argument(
        "--catalog", type=Path, default=default_catalog(), metavar="FILE", help="default: the repository's"
    )


def up_command(catalog: Path, name: str | None) -> str:
    """The command line that serves a model of a catalog; the default of the catalog without a name."""
    model = "" if name is None else f" --model {name}"
    where = "" if catalog.resolve() == default_catalog() else f" --catalog {shlex.quote(str(catalog))}"
    return f"adyton-host up --simulate{model}{where}"


def add_problem_choice(parser: argparse.ArgumentParser, *, n: int) -> None:
    """The options that choose problems."""
    add = parser.add_argument
    add("--n", type=positive, default=n, metavar="K", help="number of problems (default: %(default)s)")
    add(
        "--steps",
        type=step_range,
        default=(2, 3, 4, 5),
        metavar="A-B",
        help="derived quantities (default: 2-5)",
    )
    add("--split", choices=[str(split) for split in Split], default="test", help="default: %(default)s")
    add("--seed", type=int, default=1, metavar="N", help="another seed gives other problems (default: 1)")
    add("--distractors", type=int, default=0, metavar="K", help="facts that nothing needs (default: 0)")
    add("--shuffle", action="store_true", help="facts in random order")
    add(
        "--mix",
        action="store_true",
        help="the calibrated mix of easy and hard ones, whatever --steps, --distractors and --shuffle say",
    )
