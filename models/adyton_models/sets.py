# SPDX-License-Identifier: Apache-2.0
"""The problem sets that ship, as files in `models/shipped/`: what makes them, and what they must equal.

Two are generated from here, always the same; the third was written by hand and is only read.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from adyton_models.catalog import default_catalog
from adyton_models.tasks import MIX, OUT_OF_DISTRIBUTION, Problem, Split, generate_mix, read_handwritten

SETS: Final = ("heldout", "ood", "handwritten")
HELDOUT_PROBLEMS: Final = 1000
OOD_PROBLEMS: Final = 400
_SEED: Final = 1


def set_file(name: str) -> Path:
    """Where a set lies in the checkout that this package is installed from."""
    return default_catalog().parent / "shipped" / f"{name}.jsonl"


def named_set(name: str) -> Iterator[Problem]:
    """The problems of a set of `SETS`, the generated ones all held out.

    Raises:
        ValueError: there is no such set.
    """
    match name:
        case "heldout":
            return generate_mix(Split.TEST, _SEED, HELDOUT_PROBLEMS, MIX)
        case "ood":
            return generate_mix(Split.TEST, _SEED, OOD_PROBLEMS, OUT_OF_DISTRIBUTION)
        case "handwritten":
            return iter(read_handwritten(set_file(name)))
        case _:
            message = f"there is no set {name!r}"
            raise ValueError(message)
