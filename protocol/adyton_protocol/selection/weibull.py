# SPDX-License-Identifier: Apache-2.0
"""A mixture of two Weibull distributions over the probabilities of answers, fitted to their logarithms.

If p has a Weibull distribution with shape k and scale c, then y = log p has the density
``k exp(z - exp z)`` with ``z = k (y - log c)``. All is computed there: probabilities of whole answers span hundreds of
powers of ten, and a common factor of all of them is only a shift, so the fit does not depend on how long answers are.

Expectation maximisation with bounded steps: a fit that has not settled by then is none. No NaN can come of finite
input.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from adyton_protocol.selection.arithmetic import exp, log, log_gamma

_ROUNDS: Final = 100
_SETTLED: Final = 1e-3
"""Largest change of a posterior in the last round."""
_FIRST_GUESS: Final = 0.9
"""Posterior of ``high`` with which the greater half of the data begins; the other half has the rest."""
_MIN_SHARE: Final = 0.2
"""Of each component, so that neither shrinks to one datum."""
_MIN_SHAPE: Final = 0.01
_MAX_SHAPE: Final = 100.0
"""A component of equal data would become a point."""
_SHAPE_STEPS: Final = 40
_SHAPE_TOLERANCE: Final = 1e-6
_MAX_POWER: Final = 700.0


@dataclass(frozen=True, slots=True)
class _Weibull:
    """One component: its share, its shape, and the logarithm of its scale."""

    share: float
    shape: float
    log_scale: float

    def log_density(self, y: float) -> float:
        """Logarithm of the component's share times its density."""
        z = min(self.shape * (y - self.log_scale), _MAX_POWER)
        return log(self.share * self.shape) + z - exp(z)

    def log_mean(self) -> float:
        """Logarithm of the mean probability: DLMF 5.2.1 and the moments of the distribution."""
        return self.log_scale + log_gamma(1.0 + 1.0 / self.shape)


_FIRST: Final = _Weibull(share=0.5, shape=1.0, log_scale=0.0)
"""Of it, only the shape is a guess that anything begins with."""


def posterior_high(logs: Sequence[float]) -> tuple[float, ...] | None:
    """Probability of each datum to come from the component with the greater mean. Equal data are all of that one.

    Args:
        logs: Logarithms of the probabilities, at least two, finite.

    Returns:
        A probability for each, or None when the fit did not settle.
    """
    occurrences = Counter(logs)
    values = sorted(occurrences)
    counts = [occurrences[value] for value in values]
    if len(values) == 1:
        return (1.0,) * len(logs)
    # Whatever is equal begins on one side, and neither side begins empty.
    middle = max(sorted(logs)[len(logs) // 2], values[1])
    high = [_FIRST_GUESS if value >= middle else 1.0 - _FIRST_GUESS for value in values]
    upper = lower = _FIRST
    for _ in range(_ROUNDS):
        belong = [times * weight for times, weight in zip(counts, high, strict=True)]
        upper = _fit(values, belong, len(logs), upper)
        rest = [times * (1.0 - weight) for times, weight in zip(counts, high, strict=True)]
        lower = _fit(values, rest, len(logs), lower)
        before = high
        high = [_logistic(upper.log_density(value) - lower.log_density(value)) for value in values]
        if max(abs(new - old) for new, old in zip(high, before, strict=True)) < _SETTLED:
            swapped = upper.log_mean() < lower.log_mean()
            found = {
                value: 1.0 - weight if swapped else weight for value, weight in zip(values, high, strict=True)
            }
            return tuple(found[y] for y in logs)
    return None


def _fit(values: Sequence[float], weights: Sequence[float], n: int, last: _Weibull) -> _Weibull:
    """The likeliest component for weighted data out of ``n``; the last one where nothing has any weight."""
    data = [(value, weight) for value, weight in zip(values, weights, strict=True) if weight > 0.0]
    if not data:
        return last
    total = math.fsum(weight for _, weight in data)
    most = max(value for value, _ in data)
    data = [(value - most, weight) for value, weight in data]
    mean = math.fsum(weight * y for y, weight in data) / total
    shape = _shape(data, mean, last.shape)
    power = math.fsum(weight * exp(shape * y) for y, weight in data)
    share = min(max(total / n, _MIN_SHARE), 1.0 - _MIN_SHARE)
    return _Weibull(share=share, shape=shape, log_scale=most + (log(power) - log(total)) / shape)


def _shape(data: Sequence[tuple[float, float]], mean: float, guess: float) -> float:
    """Solve the likelihood equation of the shape by Newton's method, within bounds that close in on the root.

    ``sum w y exp(k y) / sum w exp(k y) - 1 / k - mean = 0``; the left side grows with k. The greatest y is 0.
    """
    low, high = _MIN_SHAPE, _MAX_SHAPE
    shape = guess
    for _ in range(_SHAPE_STEPS):
        tilted = [(y, weight * exp(shape * y)) for y, weight in data]
        norm = math.fsum(weight for _, weight in tilted)
        first = math.fsum(weight * y for y, weight in tilted) / norm
        second = math.fsum(weight * y * y for y, weight in tilted) / norm
        value = first - 1.0 / shape - mean
        if value > 0.0:
            high = shape
        else:
            low = shape
        slope = max(second - first * first, 0.0) + 1.0 / (shape * shape)
        step = shape - value / slope
        step = step if low < step < high else (low + high) / 2.0
        if abs(step - shape) <= _SHAPE_TOLERANCE * shape:
            return step
        shape = step
    return shape


def _logistic(x: float) -> float:
    """``1 / (1 + exp(-x))`` without overflow."""
    if x >= 0.0:
        return 1.0 / (1.0 + exp(-x))
    return exp(x) / (1.0 + exp(x))
