# SPDX-License-Identifier: Apache-2.0
"""How a search tree shares its width among the lines that are still alive: pure functions of their rewards."""

import math
from collections.abc import Sequence

from adyton_protocol.errors import LocalProtocolError
from adyton_protocol.selection.arithmetic import exp


def softmax(rewards: Sequence[float], temperature: float) -> tuple[float, ...]:
    """Shares that grow exponentially with the reward; they add up to 1 within rounding.

    Args:
        rewards: Finite.
        temperature: Above 0; the smaller, the more the best one gets.

    Raises:
        LocalProtocolError: Something is not finite, or the temperature is not above 0.
    """
    if not 0.0 < temperature < math.inf or not all(map(math.isfinite, rewards)):
        raise LocalProtocolError("a softmax needs finite rewards and a temperature above 0")
    if not rewards:
        return ()
    # Differences to the greatest are at most 0, so nothing overflows, and the sum is at least 1. A temperature near 0
    # makes them infinite at worst, and then the best ones share everything.
    most = max(rewards)
    weights = [exp((reward - most) / temperature) for reward in rewards]
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights)


def rebase(rewards: Sequence[float], width: int, temperature: float) -> tuple[int, ...]:
    """Children of each line under REBASE (Wu et al. 2024): ``Round(width * softmax(rewards / temperature))``.

    Rounding each share by itself would not add up to the width. Every line gets its share rounded down, and what is
    left goes to the largest remainders, one each. The authors' code instead walks down from the best line and rounds
    its share of what is left *up*, which favours the best lines beyond the formula.

    Args:
        rewards: Of the lines that are alive, in the order of their making.
        width: Children in all; the plan's width less the lines that have ended.
        temperature: The paper's 0.2 is the plan's default.

    Returns:
        A number for each line; their sum is ``width`` unless there is no line. Ties go to the earliest.

    Raises:
        LocalProtocolError: As :func:`softmax`, or a width below 0.
    """
    _check_width(width)
    shares = [width * share for share in softmax(rewards, temperature)]
    if not shares:
        return ()
    children = [math.floor(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda index: children[index] - shares[index])
    for index in by_remainder[: width - sum(children)]:
        children[index] += 1
    return tuple(children)


def beam(rewards: Sequence[float], width: int, branching: int) -> tuple[int, ...]:
    """Children of each line under beam search: the best ``width / branching`` lines share the width evenly.

    Args:
        rewards: Of the lines that are alive.
        width: Children in all.
        branching: Children of a line that is kept, where the width divides by it and enough lines are alive.

    Returns:
        A number for each line; their sum is ``width`` unless there is no line. Ties go to the earliest.

    Raises:
        LocalProtocolError: A width below 0, a branching below 1, or a reward that is no number.
    """
    _check_width(width)
    _check_branching(branching)
    best = _best_first(rewards)[: math.ceil(width / branching)]
    children = [0] * len(rewards)
    for place, index in enumerate(best):
        children[index] = _even_share(width, len(best), place)
    return tuple(children)


def subtrees(width: int, branching: int) -> tuple[int, ...]:
    """Widths of the ``width / branching`` trees that diverse verifier tree search (DVTS) grows beside one another.

    Their sum is ``width``: where it does not divide, the first trees are one wider.

    Raises:
        LocalProtocolError: A width or a branching below 1.
    """
    _check_branching(branching)
    if width < 1:
        raise LocalProtocolError("a search has a width of at least 1")
    n = max(1, width // branching)
    return tuple(_even_share(width, n, place) for place in range(n))


def dvts(rewards: Sequence[float], trees: Sequence[int], widths: Sequence[int]) -> tuple[int, ...]:
    """Children of each line under DVTS: in each tree the best line gets all, the others nothing.

    Args:
        rewards: Of the lines that are alive.
        trees: Of each line, which tree it belongs to, as an index into ``widths``.
        widths: Of the trees: of :func:`subtrees`, less what has ended in them.

    Returns:
        A number for each line. Ties go to the earliest.

    Raises:
        LocalProtocolError: A line of no tree, a width below 0, or a reward that is no number.
    """
    for width in widths:
        _check_width(width)
    children = [0] * len(rewards)
    served: set[int] = set()
    for index in _best_first(rewards):
        tree = trees[index]
        if not 0 <= tree < len(widths):
            raise LocalProtocolError("a line belongs to one of the trees")
        if tree not in served:
            served.add(tree)
            children[index] = widths[tree]
    return tuple(children)


def _best_first(rewards: Sequence[float]) -> list[int]:
    if not all(map(math.isfinite, rewards)):
        raise LocalProtocolError("lines are compared by finite rewards")
    return sorted(range(len(rewards)), key=lambda index: -rewards[index])


def _even_share(whole: int, n: int, place: int) -> int:
    return whole // n + (place < whole % n)


def _check_width(width: int) -> None:
    if width < 0:
        raise LocalProtocolError("a width is at least 0")


def _check_branching(branching: int) -> None:
    if branching < 1:
        raise LocalProtocolError("a branching is at least 1")
