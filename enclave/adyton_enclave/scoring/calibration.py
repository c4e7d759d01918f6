# SPDX-License-Identifier: Apache-2.0
"""From a model's raw score to the chance that a step is sound, and what was measured about a scorer."""

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import Final

_EDGE: Final = 1e-12
"""Raw scores this near to 0 or 1 are moved to it: their log-odds would have no end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Platt:
    """``sigmoid(a * log-odds(raw) + b)``; ``a`` is positive, so that the order of scores stays."""

    a: float
    b: float

    def apply(self, raw: float) -> float:
        """The calibrated score."""
        kept = min(max(raw, _EDGE), 1.0 - _EDGE)
        return sigmoid(self.a * math.log(kept / (1.0 - kept)) + self.b)


@dataclass(frozen=True, slots=True, kw_only=True)
class Piecewise:
    """Straight lines through knots, as isotonic regression gives them; constant outside.

    Attributes:
        x: Raw scores, strictly ascending.
        y: Calibrated ones, ascending.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]

    def apply(self, raw: float) -> float:
        """The calibrated score."""
        if raw <= self.x[0]:
            return self.y[0]
        if raw >= self.x[-1]:
            return self.y[-1]
        at = bisect_right(self.x, raw)
        share = (raw - self.x[at - 1]) / (self.x[at] - self.x[at - 1])
        return self.y[at - 1] + share * (self.y[at] - self.y[at - 1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What an operator measured.

    Attributes:
        curve: From raw to calibrated scores; None leaves them as they are.
        auc: Area under the curve of steps on held-out answers, or None when nobody measured it.
        threshold: Calibrated score from which a step counts as sound.
        n_steps: How many steps these figures rest on; 0 when there are none.
    """

    curve: Platt | Piecewise | None = None
    auc: float | None = None
    threshold: float = 0.5
    n_steps: int = 0

    def apply(self, raw: float) -> float:
        """The calibrated score, from 0 to 1."""
        return raw if self.curve is None else min(1.0, max(0.0, self.curve.apply(raw)))


def sigmoid(value: float) -> float:
    """The logistic function, without overflow."""
    if value >= 0:
        return 1.0 / (1.0 + math.exp(-value))
    grown = math.exp(value)
    return grown / (1.0 + grown)
