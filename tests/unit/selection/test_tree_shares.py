# SPDX-License-Identifier: Apache-2.0
"""How trees share their width: REBASE, beam search, DVTS."""

import itertools
import math
from decimal import Decimal, localcontext

import pytest
import slow_selection as slow
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adyton_protocol.errors import LocalProtocolError
from adyton_protocol.selection import allocation

REWARDS = st.lists(st.sampled_from([0.0, 0.2, 0.5, 1.0]) | st.floats(0.0, 1.0), min_size=1, max_size=24)
TEMPERATURES = st.sampled_from([1e-320, 1e-3, 0.2, 1.0, 100.0]) | st.floats(1e-3, 10.0)


@given(REWARDS, TEMPERATURES)
def test_a_softmax_is_what_it_is(rewards: list[float], temperature: float) -> None:
    """To fifteen digits, at any temperature, without overflow."""
    found = allocation.softmax(rewards, temperature)
    with localcontext() as context:
        context.prec = 50
        context.Emin, context.Emax = -(10**9), 10**9
        weights = [
            (max((Decimal(r) - Decimal(max(rewards))) / Decimal(temperature), Decimal(-10000))).exp()
            for r in rewards
        ]
        expected = [float(weight / sum(weights)) for weight in weights]
    assert list(found) == pytest.approx(expected, rel=1e-13, abs=1e-300)
    assert math.fsum(found) == pytest.approx(1.0)


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]) | st.floats(0.0, 1.0), min_size=1, max_size=4),
    st.integers(0, 7),
)
@example([0.5, 0.5, 0.5], 7)
def test_rebase_is_the_fairest_way(rewards: list[float], width: int) -> None:
    """Of all ways to hand out the children it is the one nearest to the shares, and the earlier win ties."""
    shares = [width * share for share in allocation.softmax(rewards, 0.2)]
    assert allocation.rebase(rewards, width, 0.2) == slow.fairest(shares, width)


@given(REWARDS, st.integers(0, 300), TEMPERATURES)
def test_rebase_spends_the_width_and_rounds(rewards: list[float], width: int, temperature: float) -> None:
    """The sum is exact, each share is rounded up or down, and who has a larger share never has fewer children."""
    children = allocation.rebase(rewards, width, temperature)
    assert sum(children) == width
    shares = [width * share for share in allocation.softmax(rewards, temperature)]
    assert all(
        math.floor(share) <= n <= math.floor(share) + 1 for share, n in zip(shares, children, strict=True)
    )
    # Of shares and not of rewards: two rewards may be too near for their shares to differ.
    ranked = sorted(zip(shares, children, strict=True))
    assert all(few <= many for (low, few), (high, many) in itertools.pairwise(ranked) if low < high)


def test_rebase_rounds_where_the_reference_code_rounds_up() -> None:
    """A running ceiling from the best line down leaves nothing for a line with a share of almost one child."""
    rewards, width = [0.9, 0.9, 0.7], 6
    shares = [width * share for share in allocation.softmax(rewards, 0.2)]
    left, running = float(width), []
    for share in shares:
        running.append(math.ceil((width - sum(running)) * share / left))
        left -= share
    assert running == [3, 3, 0]
    assert shares == pytest.approx([2.53, 2.53, 0.93], abs=0.01)
    assert allocation.rebase(rewards, width, 0.2) == (3, 2, 1)


def test_rebase_of_nothing() -> None:
    """Where every line has ended nobody has children; where the width is used up, neither."""
    assert allocation.rebase([], 5, 0.2) == ()
    assert allocation.rebase([0.1, 0.9], 0, 0.2) == (0, 0)


@given(REWARDS, st.integers(0, 100), st.integers(1, 9))
def test_a_beam_keeps_the_best(rewards: list[float], width: int, branching: int) -> None:
    """A line has children exactly if fewer than ``width / branching`` others are better, or equal and earlier."""
    children = allocation.beam(rewards, width, branching)
    keep = -(-width // branching)
    for index, n in enumerate(children):
        ahead = sum(
            1
            for other, reward in enumerate(rewards)
            if reward > rewards[index] or (reward == rewards[index] and other < index)
        )
        assert (n > 0) == (ahead < keep)
    assert sum(children) == width
    busy = [n for n in children if n]
    assert not busy or max(busy) - min(busy) <= 1


def test_a_beam_of_sixteen() -> None:
    """Sixteen by four keeps four."""
    rewards = [place / 16 for place in range(16)]
    assert allocation.beam(rewards, 16, 4) == (0,) * 12 + (4,) * 4
    assert allocation.beam([0.5] * 16, 16, 4) == (4,) * 4 + (0,) * 12
    assert allocation.beam([0.3], 16, 4) == (16,)


@given(st.integers(1, 200), st.integers(1, 20))
def test_subtrees_are_as_wide_as_the_search(width: int, branching: int) -> None:
    """Their widths differ by one at most, and there are ``width / branching`` of them, but one at least."""
    widths = allocation.subtrees(width, branching)
    assert sum(widths) == width
    assert max(widths) - min(widths) <= 1
    assert len(widths) == max(1, width // branching)


@given(st.data())
def test_dvts_is_greedy_in_every_tree(data: st.DataObject) -> None:
    """In each tree that has a line, the best one gets all its width; trees take nothing from one another."""
    widths = data.draw(st.lists(st.integers(0, 8), min_size=1, max_size=5))
    rewards = data.draw(REWARDS)
    trees = data.draw(st.lists(st.integers(0, len(widths) - 1), min_size=len(rewards), max_size=len(rewards)))
    children = allocation.dvts(rewards, trees, widths)
    expected = [0] * len(rewards)
    for tree, width in enumerate(widths):
        lines = [index for index in range(len(rewards)) if trees[index] == tree]
        if lines:
            expected[slow.first_best(lines, rewards)] = width
    assert list(children) == expected


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_a_temperature_is_above_zero(temperature: float) -> None:
    """Anything else is an error of ours."""
    with pytest.raises(LocalProtocolError):
        allocation.softmax([0.5], temperature)


@pytest.mark.parametrize("reward", [math.nan, math.inf, -math.inf])
def test_no_tree_grows_on_what_is_no_number(reward: float) -> None:
    """NaN and the infinities are refused everywhere."""
    with pytest.raises(LocalProtocolError):
        allocation.rebase([0.5, reward], 4, 0.2)
    with pytest.raises(LocalProtocolError):
        allocation.beam([0.5, reward], 4, 2)
    with pytest.raises(LocalProtocolError):
        allocation.dvts([0.5, reward], [0, 0], [4])


def test_widths_and_branchings_have_their_range() -> None:
    """So have the trees that lines belong to."""
    with pytest.raises(LocalProtocolError):
        allocation.rebase([0.5], -1, 0.2)
    with pytest.raises(LocalProtocolError):
        allocation.beam([0.5], 4, 0)
    with pytest.raises(LocalProtocolError):
        allocation.subtrees(0, 4)
    with pytest.raises(LocalProtocolError):
        allocation.dvts([0.5], [1], [4])
    with pytest.raises(LocalProtocolError):
        allocation.dvts([0.5], [0], [-1])
