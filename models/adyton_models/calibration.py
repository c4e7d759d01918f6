# SPDX-License-Identifier: Apache-2.0
"""Makes a mix as hard as wanted: from accuracies by kind and number of operations to shares of its buckets.

The mix is what is calibrated, not the training: of all shares that give the wanted accuracy, those nearest to the
present ones (least relative entropy) are proposed, so every bucket stays in the mix.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from adyton_models.tasks.mix import Bucket

LEAST_SHARE: Final = 2
_STEEPEST: Final = 60.0
_HALVINGS: Final = 60


def cells_of(buckets: Sequence[Bucket]) -> tuple[Bucket, ...]:
    """A bucket for each number of operations of every kind of problem in a mix, all equally frequent."""
    cells = {
        (_kind(bucket), steps): replace(
            bucket, name=f"{bucket.name.split()[0]} {steps:02}", share=1, steps=(steps,)
        )
        for bucket in buckets
        for steps in bucket.steps
    }
    return tuple(cells.values())


def _kind(bucket: Bucket) -> tuple[object, ...]:
    return bucket.distractors, bucket.shuffle, bucket.numbers


def bucket_accuracies(
    buckets: Sequence[Bucket], cells: Sequence[Bucket], measured: Mapping[str, float]
) -> dict[str, float]:
    """Each bucket's accuracy: the mean over its cells.

    Args:
        buckets: Of the mix.
        cells: As `cells_of` made them.
        measured: Accuracy in [0, 1] by the cell's name.
    """
    found: dict[str, float] = {}
    for bucket in buckets:
        parts = [
            measured[cell.name]
            for cell in cells
            if _kind(cell) == _kind(bucket) and cell.steps[0] in bucket.steps
        ]
        found[bucket.name] = sum(parts) / len(parts)
    return found


def expected_accuracy(buckets: Sequence[Bucket], accuracies: Mapping[str, float]) -> float:
    """What a mix with these shares comes to."""
    total = sum(bucket.share for bucket in buckets)
    return sum(bucket.share * accuracies[bucket.name] for bucket in buckets) / total


def propose(
    buckets: Sequence[Bucket], accuracies: Mapping[str, float], target: float
) -> tuple[Bucket, ...] | None:
    """The same buckets with shares in whole percent, each at least `LEAST_SHARE`, that come to about `target`.

    Returns:
        None when no shares do: every bucket is easier, or every one harder.
    """
    if not min(accuracies.values()) < target < max(accuracies.values()):
        return None
    low, high = -_STEEPEST, _STEEPEST
    weights: list[float] = []
    for _ in range(_HALVINGS):
        # Tilting by a power of e keeps the shares as near as can be; the mean grows with the tilt.
        tilt = (low + high) / 2
        weights = [bucket.share * math.exp(tilt * accuracies[bucket.name]) for bucket in buckets]
        mean = sum(
            weight * accuracies[bucket.name] for weight, bucket in zip(weights, buckets, strict=True)
        ) / sum(weights)
        low, high = (tilt, high) if mean < target else (low, tilt)
    shares = _whole_percent(weights)
    return tuple(replace(bucket, share=share) for bucket, share in zip(buckets, shares, strict=True))


def _whole_percent(weights: Sequence[float]) -> list[int]:
    """Whole shares of 100 by largest remainder, none below `LEAST_SHARE`."""
    spare = 100 - LEAST_SHARE * len(weights)
    exact = [max(0.0, 100 * weight / sum(weights) - LEAST_SHARE) for weight in weights]
    exact = [each * spare / sum(exact) for each in exact]
    shares = [math.floor(each) for each in exact]
    by_remainder = sorted(range(len(exact)), key=lambda at: shares[at] - exact[at])
    for at in by_remainder[: spare - sum(shares)]:
        shares[at] += 1
    return [share + LEAST_SHARE for share in shares]
