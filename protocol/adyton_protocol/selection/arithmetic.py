# SPDX-License-Identifier: Apache-2.0
"""The functions of real analysis that choices depend on, with the same bits on every machine.

The C library's ``exp`` and ``log`` differ in the last bit from one system to the next, and one bit turns a tie. Here
is nothing but what IEEE 754 rounds in one way only: sums, products, quotients, and scaling by powers of two. Errors
stay below two units in the last place for ``exp`` and ``log``.
"""

import math
from typing import Final

_LN2_HIGH: Final = float.fromhex("0x1.62e42feep-1")
"""The first 32 bits of ln 2, so that a product with a small integer is exact."""
_LN2_LOW: Final = float.fromhex("0x1.a39ef35793c76p-33")
_PER_LN2: Final = float.fromhex("0x1.71547652b82fep+0")
_HALF_LN_2PI: Final = float.fromhex("0x1.d67f1c864beb5p-1")
_SQRT_HALF: Final = float.fromhex("0x1.6a09e667f3bcdp-1")

_LEAST_EXPONENT: Final = -708.0
"""``exp`` of less is below the smallest normal number and counts as 0."""
_GREATEST_EXPONENT: Final = 709.0

_EXP_TERMS: Final = tuple(1.0 / math.factorial(n) for n in range(14, -1, -1))
_LOG_TERMS: Final = tuple(2.0 / (2 * n + 1) for n in range(11, 0, -1))
_STIRLING: Final = (1 / 156, -691 / 360360, 1 / 1188, -1 / 1680, 1 / 1260, -1 / 360, 1 / 12)
"""B(2n) / (2n (2n - 1)) for n from 7 down to 1 (DLMF 5.11.1)."""
_STIRLING_FROM: Final = 10.0


def exp(x: float) -> float:
    """The exponential function: 0 below -708, infinite above 709."""
    if x < _LEAST_EXPONENT:
        return 0.0
    if x > _GREATEST_EXPONENT:
        return math.inf
    n = round(x * _PER_LN2)
    rest = (x - n * _LN2_HIGH) - n * _LN2_LOW
    total = 0.0
    for term in _EXP_TERMS:
        total = total * rest + term
    return math.ldexp(total, n)


def log(x: float) -> float:
    """The natural logarithm of a finite number above 0."""
    mantissa, n = math.frexp(x)
    if mantissa < _SQRT_HALF:
        mantissa, n = 2.0 * mantissa, n - 1
    ratio = (mantissa - 1.0) / (mantissa + 1.0)
    square = ratio * ratio
    total = 0.0
    for term in _LOG_TERMS:
        total = (total + term) * square
    return n * _LN2_HIGH + (n * _LN2_LOW + (2.0 * ratio + ratio * total))


def log_gamma(x: float) -> float:
    """The logarithm of the gamma function, for finite numbers above 0."""
    product = 1.0
    while x < _STIRLING_FROM:
        product *= x
        x += 1.0
    square = 1.0 / (x * x)
    total = 0.0
    for term in _STIRLING:
        total = total * square + term
    return ((x - 0.5) * log(x) - x + _HALF_LN_2PI + total / x) - log(product)
