# SPDX-License-Identifier: Apache-2.0
"""The bounded queue: nobody fills it for all, and its advice is true."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adyton_enclave.engine.turnstile import MAX_RETRY_S, MIN_RETRY_S, Turnstile
from adyton_protocol.errors import QueueFull


class Queue:
    """A turnstile, and a clock that moves when told."""

    def __init__(self, places: int) -> None:
        self.now_s = 0.0
        self.turnstile = Turnstile(places, 0.0)
        self.waiting: list[str] = []

    def enter(self, tenant: str) -> float | None:
        """None when the tenant got in, or the advice."""
        try:
            self.turnstile.enter(tenant, self.now_s)
        except QueueFull as refused:
            return refused.retry_after_s
        self.waiting.append(tenant)
        return None

    def fill(self, tenant: str) -> int:
        """Enter until refused; how many got in."""
        count = 0
        while self.enter(tenant) is None:
            count += 1
        return count

    def serve(self, count: int, after_s: float) -> None:
        """Let time pass, and then the first ones go."""
        self.now_s += after_s
        del self.waiting[:count]
        self.turnstile.observe(Counter(self.waiting), self.now_s)


@settings(max_examples=100)
@given(places=st.integers(0, 200), tenants=st.integers(1, 6))
def test_there_is_a_place_for_the_next_tenant(places: int, tenants: int) -> None:
    """Whoever comes greedily after others: each finds a place while there are more places than tenants squared."""
    queue = Queue(places)
    for number in range(tenants):
        got = queue.fill(f"tenant {number}")
        free_before = places - (len(queue.waiting) - got)
        assert got >= free_before // 2
    assert len(queue.waiting) <= places + 1


def test_shares_are_halves_thirds_and_so_on() -> None:
    """A lone tenant gets half of the places; two that arrive in turn get a third each."""
    assert Queue(100).fill("a") == 51
    queue = Queue(99)
    while queue.enter("a") is None and queue.enter("b") is None:
        pass
    assert Counter(queue.waiting) == {"a": 34, "b": 33}


@settings(max_examples=100)
@given(
    places=st.integers(2, 60),
    interval_s=st.floats(0.05, 5.0),
    jitter=st.lists(st.floats(0.75, 1.25), min_size=40, max_size=40),
)
def test_whoever_comes_back_as_advised_gets_in(places: int, interval_s: float, jitter: list[float]) -> None:
    """With a steady pace, and others filling every place until the refusal: the advice is enough and not much more."""
    queue = Queue(places)
    for factor in jitter:
        queue.fill("crowd")
        queue.serve(1, interval_s * factor)
    queue.fill("crowd")
    advice_s = queue.enter("crowd")
    assert advice_s is not None
    waited_s = 0.0
    while waited_s + interval_s <= advice_s:
        queue.serve(1, interval_s)
        waited_s += interval_s
    assert queue.enter("crowd") is None
    half_s = interval_s * (len(queue.waiting) + 1) / 2
    assert advice_s <= max(MIN_RETRY_S, 3 * interval_s * places / 2, 3 * half_s)


def test_advice_grows_when_nothing_moves_and_idling_counts_for_nothing() -> None:
    """A stalled queue does not promise the pace of better days, and an hour without requests is no pace."""
    queue = Queue(20)
    for _ in range(30):
        queue.fill("a")
        queue.serve(1, 0.1)
    queue.fill("a")
    quick = queue.turnstile.retry_after_s(queue.now_s)
    stalled = queue.turnstile.retry_after_s(queue.now_s + 8)
    assert quick == pytest.approx(MIN_RETRY_S, rel=0.5)
    assert stalled > 30
    assert queue.turnstile.retry_after_s(queue.now_s + 1000) == MAX_RETRY_S
    queue.serve(len(queue.waiting), 0.1)
    queue.now_s += 3600
    queue.fill("a")
    queue.serve(1, 0.1)
    assert queue.turnstile.retry_after_s(queue.now_s) < 5
