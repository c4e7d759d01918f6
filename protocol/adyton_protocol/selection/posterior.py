# SPDX-License-Identifier: Apache-2.0
"""How sure a vote is: probabilities that an answer is the commonest one, given the votes so far.

Each answer's share of all that the generator would ever say is unknown; before the first vote all shares are equally
likely. Votes are weights: whole numbers where each candidate counts 1.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final

from adyton_protocol.selection.arithmetic import exp, log, log_gamma

_HALF: Final = 0.5
_TINY: Final = 1e-300
"""Stands for 0 in a denominator of a continued fraction (Lentz's method)."""
_CLOSE_ENOUGH: Final = 1e-15
_MAX_TERMS: Final = 10_000
_INTERVALS: Final = 128
"""Of Simpson's rule; the error stays below 1e-4."""
_WIDTHS: Final = 8.0
"""Standard deviations on either side that are integrated over."""


def ahead_of_runner_up(leader: float, runner_up: float) -> float:
    """Probability that of two answers the first has the greater share: ``P(x > 1/2)`` for ``x ~ Beta(1 + l, 1 + r)``.

    Args:
        leader: Votes of the one, at least 0.
        runner_up: Votes of the other, at least 0.
    """
    return incomplete_beta(1.0 + runner_up, 1.0 + leader, _HALF)


def ahead_of_all(votes: Sequence[float]) -> float:
    """Probability that the first of several answers has the greatest share, under a Dirichlet posterior.

    One more answer takes part that nobody gave yet. Shares are independent gamma variables over their sum, so this is
    the integral of one density times the distribution functions of all others.

    Args:
        votes: Of the answers, each at least 0; the leader's first.
    """
    shape = 1.0 + votes[0]
    others = Counter([1.0 + vote for vote in votes[1:]] + [1.0])
    width = _WIDTHS * math.sqrt(shape)
    start, end = max(0.0, shape - width), shape + width + _WIDTHS
    step = (end - start) / _INTERVALS
    terms: list[float] = []
    for place in range(_INTERVALS + 1):
        x = start + place * step
        factor = 1 if place in {0, _INTERVALS} else 4 if place % 2 else 2
        term = factor * _gamma_density(shape, x)
        for other, times in others.items():
            below = incomplete_gamma(other, x)
            for _ in range(times):
                term *= below
        terms.append(term)
    return min(1.0, math.fsum(terms) * step / 3.0)


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function ``I_x(a, b)``, for a and b above 0 and x from 0 to 1 (DLMF 8.17)."""
    if x <= 0.0 or x >= 1.0:
        return 0.0 if x <= 0.0 else 1.0
    if x > (a + 1.0) / (a + b + 2.0):
        # There the continued fraction converges slowly, and for the complement it converges fast.
        return 1.0 - incomplete_beta(b, a, 1.0 - x)
    front = exp(a * log(x) + b * log(1.0 - x) + log_gamma(a + b) - log_gamma(a) - log_gamma(b))
    return min(1.0, front / (a * _beta_fraction(a, b, x)))


def incomplete_gamma(a: float, x: float) -> float:
    """The regularised lower incomplete gamma function ``P(a, x)``, for a above 0 and x at least 0 (DLMF 8.11.4)."""
    if x <= 0.0:
        return 0.0
    term = total = 1.0 / a
    for n in range(1, _MAX_TERMS):
        term *= x / (a + n)
        total += term
        if term < total * _CLOSE_ENOUGH:
            break
    return min(1.0, total * exp(a * log(x) - x - log_gamma(a)))


def _gamma_density(shape: float, x: float) -> float:
    if x <= 0.0:
        return 1.0 if shape == 1.0 else 0.0
    return exp((shape - 1.0) * log(x) - x - log_gamma(shape))


def _beta_fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of DLMF 8.17.22, from the front by Lentz's method."""
    value, c, d = 1.0, 1.0, 0.0
    for n in range(1, _MAX_TERMS):
        half, odd = divmod(n, 2)
        if odd:
            top = -(a + half) * (a + b + half) * x / ((a + n - 1) * (a + n))
        else:
            top = half * (b - half) * x / ((a + n - 1) * (a + n))
        d = 1.0 / _not_zero(1.0 + top * d)
        c = _not_zero(1.0 + top / c)
        value *= c * d
        if abs(c * d - 1.0) < _CLOSE_ENOUGH:
            break
    return value


def _not_zero(x: float) -> float:
    return x if abs(x) > _TINY else _TINY
