# SPDX-License-Identifier: Apache-2.0
"""How sure a measured share is: Wilson for one sample of each problem, a bootstrap over problems for more.

Samples of one problem are not independent, problems are; so problems are what is drawn again.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

RESAMPLES: Final = 4000
_Z95: Final = 1.959964
_SEED: Final = 20_26
Floats = npt.NDArray[np.float64]


def wilson(right: int, n: int) -> tuple[float, float]:
    """95 % confidence interval of a share (Wilson score)."""
    if n == 0:
        return 0.0, 1.0
    share, z2 = right / n, _Z95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap(values: Floats) -> tuple[float, float]:
    """95 % interval of the mean of `values`, shape `(n,)`, one a problem; the same each time."""
    if values.size == 0:
        return 0.0, 1.0
    drawn = np.random.default_rng(_SEED).integers(0, values.size, (RESAMPLES, values.size))
    low, high = np.quantile(values[drawn].mean(axis=1), (0.025, 0.975))
    return float(low), float(high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Right answers out of n."""

    right: int
    n: int

    def as_json(self) -> dict[str, Any]:
        """Counts, share and 95 % interval."""
        low, high = wilson(self.right, self.n)
        return _document(self.right, self.n, self.right / self.n if self.n else 0.0, (low, high))


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledScore:
    """Right samples of `n` problems with `samples` each.

    Attributes:
        shares: Share of right samples of each problem, shape `(n,)`.
    """

    shares: Floats
    samples: int

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of pass@1: Wilson for one sample of each problem, otherwise the bootstrap.

        Where every problem has the same share, a bootstrap would claim certainty; Wilson over problems does not.
        """
        if self.samples == 1 or self.shares.size < 2 or float(self.shares.min()) == float(self.shares.max()):
            mean = float(self.shares.mean()) if self.shares.size else 0.0
            return wilson(round(mean * self.shares.size), self.shares.size)
        return bootstrap(self.shares)

    @property
    def mean(self) -> float:
        """pass@1."""
        return float(self.shares.mean()) if self.shares.size else 0.0

    def as_json(self) -> dict[str, Any]:
        """Counts of samples, problems, pass@1 and its 95 % interval."""
        n = int(self.shares.size)
        right = round(float(self.shares.sum()) * self.samples)
        document = _document(right, n * self.samples, self.mean, self.interval)
        return document if self.samples == 1 else document | {"problems": n}


def _document(right: int, n: int, share: float, interval: tuple[float, float]) -> dict[str, Any]:
    ci95 = [round(bound, 4) for bound in interval]
    return {"right": right, "n": n, "accuracy": round(share, 4), "ci95": ci95}
