# SPDX-License-Identifier: Apache-2.0
"""Mixes: named kinds of problems, each with a share, drawn so that any number of problems has those shares.

The shares of `MIX` are calibrated: one sample of the shipped generator at its default sampling solves half of the
held-out problems, from almost all of the easiest bucket to a few of the hardest. `adyton-models calibrate` measures
and proposes them anew for another model. `OUT_OF_DISTRIBUTION` asks for what was never trained.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from random import Random  # noqa: TID251 - reproducible data, no secret

from adyton_models.tasks.graph import LARGER_NUMBERS, TRAINED_NUMBERS, Numbers
from adyton_models.tasks.render import Problem, draw
from adyton_models.tasks.splits import Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """A kind of problem, and how frequent it is.

    Attributes:
        name: What scores are shown under; names sort from easy to hard within a kind.
        share: Relative to the sum over the mix.
        steps: Numbers of operations, equally frequent,
        distractors: and numbers of unneeded facts, likewise.
        shuffle: Facts in random order.
        numbers: How large numbers get.
    """

    name: str
    share: int
    steps: tuple[int, ...]
    distractors: tuple[int, ...] = (0,)
    shuffle: bool = False
    numbers: Numbers = TRAINED_NUMBERS


MIX: tuple[Bucket, ...] = (
    Bucket(name="plain 1-2", share=10, steps=(1, 2)),
    Bucket(name="plain 3-4", share=17, steps=(3, 4)),
    Bucket(name="plain 5-6", share=22, steps=(5, 6)),
    Bucket(name="plain 7-8", share=17, steps=(7, 8)),
    Bucket(name="plain 9-10", share=6, steps=(9, 10)),
    Bucket(name="distractors 1-2", share=9, steps=(1, 2), distractors=(1, 2)),
    Bucket(name="distractors 3-5", share=10, steps=(3, 4, 5), distractors=(1, 2)),
    Bucket(name="shuffled 1-2", share=4, steps=(1, 2), shuffle=True),
    Bucket(name="shuffled 3-4", share=5, steps=(3, 4), shuffle=True),
)
"""What the shipped model is measured on."""

OUT_OF_DISTRIBUTION: tuple[Bucket, ...] = (
    Bucket(name="operations 11-12", share=1, steps=(11, 12)),
    Bucket(name="operations 13-14", share=1, steps=(13, 14)),
    Bucket(name="three distractors", share=1, steps=(2, 3, 4, 5, 6), distractors=(3,)),
    Bucket(name="larger numbers", share=1, steps=(1, 2, 3, 4), numbers=LARGER_NUMBERS),
)
"""More operations, more distractors and larger numbers than any training row had."""


def bucket_problems(bucket: Bucket, split: Split | str, seed: int) -> Iterator[Problem]:
    """Problems of one bucket without end, the same for the same arguments whatever else is in a mix."""
    wanted = Split(split)
    rng = Random(f"bucket {bucket.name}|{wanted}|{seed}")
    kinds = tuple(product(bucket.steps, bucket.distractors))
    while True:
        for steps, distractors in kinds:
            problem = draw(
                rng, wanted, steps, distractors=distractors, shuffle=bucket.shuffle, numbers=bucket.numbers
            )
            yield replace(problem, bucket=bucket.name)


def generate_mix(split: Split | str, seed: int, n: int, buckets: Sequence[Bucket] = MIX) -> Iterator[Problem]:
    """Yield `n` problems; however many, each bucket has its share of them to within one problem or two.

    The same arguments always give the same problems, and a larger `n` only appends some.
    """
    total = sum(bucket.share for bucket in buckets)
    streams = {bucket.name: bucket_problems(bucket, split, seed) for bucket in buckets}
    drawn: Counter[str] = Counter()
    for index in range(n):
        # The bucket that lags furthest behind its share; the first one among equals.
        due = max(buckets, key=lambda bucket: bucket.share * (index + 1) - drawn[bucket.name] * total)
        drawn[due.name] += 1
        yield next(streams[due.name])
