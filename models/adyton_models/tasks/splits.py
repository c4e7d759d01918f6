# SPDX-License-Identifier: Apache-2.0
"""Which (template, graph) pairs are for training, validation and test.

The split is a function of the pair alone, so a test problem never shares both its wording and its
structure with a training problem, whatever seeds were used.
"""

import hashlib
from enum import StrEnum


class Split(StrEnum):
    """The three disjoint sets."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


_VALIDATION_BELOW = 5
_TEST_BELOW = 15


def split_of(template: int, graph_signature: str) -> Split:
    """Assign a pair: 5 % validation, 10 % test, the rest training."""
    digest = hashlib.sha256(f"adyton word problems v1|{template}|{graph_signature}".encode()).digest()
    percent = int.from_bytes(digest[:4], "big") % 100
    if percent < _VALIDATION_BELOW:
        return Split.VALIDATION
    if percent < _TEST_BELOW:
        return Split.TEST
    return Split.TRAIN
