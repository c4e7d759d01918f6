# SPDX-License-Identifier: Apache-2.0
"""Which templates and which graphs are for training, validation and test.

Templates and graphs are split apart, each by a hash of its own: a test problem has a wording template that no
training problem has, and a graph (operations and what refers to what) that no training problem has, whatever
seeds were used. Problems of one or two operations are held out by template alone, because there are too few
graphs of that size to hold any out without holding out an operation.
"""

import hashlib
from enum import StrEnum
from functools import cache

from adyton_models.tasks.templates import TEMPLATE_COUNT


class Split(StrEnum):
    """The three disjoint sets."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


_VALIDATION_BELOW = 6
_TEST_BELOW = 18
SMALLEST_HELD_OUT_GRAPH = 3
"""From this many operations on, graphs are held out as well."""


def _split_by(text: str) -> Split:
    digest = hashlib.sha256(f"adyton word problems v2|{text}".encode()).digest()
    percent = int.from_bytes(digest[:4], "big") % 100
    if percent < _VALIDATION_BELOW:
        return Split.VALIDATION
    if percent < _TEST_BELOW:
        return Split.TEST
    return Split.TRAIN


@cache
def templates_of(split: Split) -> tuple[int, ...]:
    """The numbers of the templates that only problems of `split` are worded with."""
    return tuple(number for number in range(TEMPLATE_COUNT) if _split_by(f"template {number}") is split)


def split_of_graph(graph_signature: str) -> Split:
    """The set whose problems of `SMALLEST_HELD_OUT_GRAPH` or more operations may have this graph."""
    return _split_by(f"graph {graph_signature}")


def belongs(split: Split, template: int, graph_signature: str, steps: int) -> bool:
    """Whether a problem of this template, graph and number of operations may be drawn for `split`."""
    if template not in templates_of(split):
        return False
    return steps < SMALLEST_HELD_OUT_GRAPH or split_of_graph(graph_signature) is split
