# SPDX-License-Identifier: Apache-2.0
"""`adyton-models`: look at the task, train a model on it, export it, measure it, keep the catalog.

Exit status: 0 for success, 1 when something that was checked is wrong, 2 for a wrong command line or file.
Torch, gguf and llama-cpp-python are loaded only by the commands that need them.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from adyton_models.commands import (
    add,
    calibrate,
    catalog,
    evaluate,
    evaluate_scorer,
    golden,
    identity,
    quantise,
    sealed,
    task,
    train,
)
from adyton_protocol.errors import AdytonError

_COMMANDS: Final = (
    task,
    train,
    evaluate,
    calibrate,
    quantise,
    golden,
    evaluate_scorer,
    add,
    catalog,
    identity,
    sealed,
)
"""In the order of the help text."""

_UNUSABLE: Final = 2
_INTERRUPTED: Final = 130

_DESCRIPTION: Final = """\
Makes and measures the models an Adyton appliance serves. The shipped model solves word problems step by
step; the task has ground truth, so its accuracy is a number and not an impression."""

_EXAMPLES: Final = """\
examples:
  adyton-models list                                   what can be served
  adyton-models problems --n 2                         look at the task
  adyton-models eval --n 200                           measure the shipped model
  adyton-models train generator --minutes 60 --out run
  adyton-models export run/checkpoint.pt --out mine.gguf
  adyton-models eval --model mine.gguf --n 1000
  adyton-models quantise mine-F16.gguf --to Q8_0,Q4_0 --out quantised
  adyton-models add mine.gguf --name mine              check it, and put it into the catalog
  adyton-models identity mine --parts                  what clients see of it
  adyton-models seal mine --key-out mine.key --out mine.sealed --register mine
  adyton-models release-key mine --key mine.key --simulated

then serve it:
  adyton-host up --simulate --model mine"""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="adyton-models",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in _COMMANDS:
        module.add_parsers(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = build_parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
    except AdytonError as error:
        print(f"adyton-models: {error}", file=sys.stderr)
        return _UNUSABLE
    except BrokenPipeError:
        # The reader of a pipe (head, say) has seen enough.
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        print("adyton-models: interrupted", file=sys.stderr)
        return _INTERRUPTED
    return status


if __name__ == "__main__":
    sys.exit(main())
