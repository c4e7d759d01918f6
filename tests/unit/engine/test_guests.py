# SPDX-License-Identifier: Apache-2.0
"""A wide request beside streams: they get a token in every step, it gets a bounded share, and neither starves.

Counted in tokens and steps; nothing here depends on time.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest
from engine_calls import request
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_gguf import TinyModel
from unit.engine.test_scheduler import Bench
from unit.engine.test_tree_scheduling import Interleavings

from adyton_enclave.engine import Question, Usage
from adyton_enclave.engine.choice import ChoiceGroup
from adyton_enclave.engine.doorbell import Doorbell
from adyton_enclave.engine.generation import Mailbox
from adyton_enclave.engine.guests import GUEST_SHARE, MAX_STREAMS, places
from adyton_enclave.engine.kv_budget import held_cells
from adyton_enclave.engine.lane import Lane
from adyton_enclave.engine.llama import LlamaModel
from adyton_enclave.engine.sequence import Group, Phase
from adyton_enclave.engine.settings import EngineConfig
from adyton_enclave.engine.step_cost import MIN_TOKENS, StepCost
from adyton_enclave.engine.tree import TreeMailbox
from adyton_enclave.engine.tree_group import Order, Result, TreeGroup
from adyton_enclave.engine.turns import Turns

WIDE = 64
SEVERAL = 24


def _bench(**sizes: int) -> Bench:
    """With room for everybody."""
    return Bench(**{"cells": 20_000, "max_sequences": 128, "n_batch": 256, "prefill": 64, **sizes})


def _until_running(bench: Bench, groups: list[ChoiceGroup]) -> None:
    while not all(choice.phase is Phase.RUNNING for group in groups for choice in group.sequences):
        bench.step()


def _live(search: ChoiceGroup) -> int:
    return sum(choice.phase is not Phase.DONE for choice in search.sequences)


def _drawn(bench: Bench) -> Counter[Group]:
    return Counter(sequence.group for sequence in bench.step())


@settings(max_examples=15)
@given(
    n_streams=st.integers(1, 12),
    widths=st.lists(st.integers(MAX_STREAMS + 1, SEVERAL), min_size=1, max_size=3),
    prompt=st.integers(1, 30),
    first=st.booleans(),
)
def test_every_step_serves_every_stream_and_bounds_the_guests(
    n_streams: int, widths: list[int], prompt: int, first: bool
) -> None:
    """In each step: one token for each stream, at least one for guests, and no more than their places."""
    bench = _bench()
    early = [bench.add(prompt, n=width, answer=6) for width in widths if first]
    for _ in range(3 if first else 0):
        bench.step()
    streams = [bench.add(5, answer=400) for _ in range(n_streams)]
    _until_running(bench, streams)
    searches = early or [bench.add(prompt, n=width, answer=6) for width in widths]
    most = places(n_streams)
    assert 1 <= most <= max(1, n_streams * GUEST_SHARE)
    while not all(search.over for search in searches):
        drawn = _drawn(bench)
        assert all(drawn[stream] == 1 for stream in streams)
        assert sum(drawn[search] for search in searches) <= most
        assert all(search.started for search in searches) or sum(drawn.values()) >= n_streams
    assert all(choice.n_generated == 6 for search in searches for choice in search.sequences)


def test_a_search_beside_streams_uses_all_of_its_places() -> None:
    """From the step in which its prompt is computed, it gets them in every step until its last branches end."""
    bench = _bench()
    streams = [bench.add(5, answer=900) for _ in range(8)]
    _until_running(bench, streams)
    search = bench.add(30, n=SEVERAL, answer=10)
    while not search.sequences[1].admitted:
        bench.step()
    steps = 0
    while not search.over:
        assert _drawn(bench)[search] == 3 or _live(search) <= 3
        steps += 1
    assert steps <= SEVERAL * 10 // 3 + 10


def test_a_lone_search_gets_everything() -> None:
    """With nobody beside it, every branch draws in every step, as if there were no rule."""
    bench = _bench()
    search = bench.add(20, n=WIDE, answer=30)
    _until_running(bench, [search])
    for _ in range(20):
        assert _drawn(bench)[search] == WIDE


def test_a_few_choices_are_no_guests() -> None:
    """An ordinary request for some choices is served like so many streams."""
    bench = _bench()
    groups = [bench.add(5, n=MAX_STREAMS, answer=60), bench.add(5, answer=60)]
    _until_running(bench, groups)
    for _ in range(20):
        assert _drawn(bench) == {groups[0]: MAX_STREAMS, groups[1]: 1}


def test_branches_are_served_one_after_the_other() -> None:
    """Those that began end first, so that not all of them hold cells for as long as the search takes."""
    bench = _bench()
    streams = [bench.add(5, answer=2000) for _ in range(8)]
    _until_running(bench, streams)
    search = bench.add(10, n=SEVERAL, answer=8)
    while not search.over:
        bench.step()
        begun = [s for s in search.sequences if s.n_generated and s.phase in (Phase.RUNNING, Phase.WAITING)]
        assert len(begun) <= 3
        assert sum(s.phase is Phase.RUNNING for s in search.sequences) <= 4
    assert bench.budget.used == sum(s.n_computed for g in streams for s in g.sequences)


def test_candidates_cost_one_prefill_also_beside_streams() -> None:
    """Though they come one after the other: whoever is first keeps the prompt for those that are still to begin."""
    bench = _bench()
    streams = [bench.add(5, answer=900) for _ in range(2)]
    _until_running(bench, streams)
    search = bench.add(50, n=16, answer=8, tenant="c")
    while not search.over:
        bench.step()
    assert bench.computed["c"] == 49 + 16 * 8
    assert bench.budget.used == sum(s.n_computed for g in streams for s in g.sequences)


@pytest.mark.parametrize("n_streams", [1, 3, 8])
def test_wide_requests_share_their_places_in_turn(n_streams: int) -> None:
    """Of two searches of one tenant neither waits for the other to end, also if there is one place only."""
    bench = _bench()
    streams = [bench.add(5, answer=900) for _ in range(n_streams)]
    _until_running(bench, streams)
    searches = [bench.add(10, n=SEVERAL, answer=60) for _ in range(2)]
    drawn: Counter[Group] = Counter()
    for _ in range(120):
        drawn += _drawn(bench)
    first, second = (drawn[search] for search in searches)
    assert second >= first / 2
    assert all(drawn[stream] >= 115 for stream in streams)


def test_a_newcomer_does_not_wait_for_a_search_that_holds_all_places() -> None:
    """One tenant, and every sequence id held by a search with as much again in line: the stream comes next."""
    bench = _bench(max_sequences=16)
    search = bench.add(10, n=WIDE, answer=20)
    for _ in range(5):
        bench.step()
    stream = bench.add(5, answer=10)
    steps = 0
    while not stream.over:
        bench.step()
        steps += 1
    assert steps <= 20 + 10 + 2
    assert _live(search) >= WIDE // 2


def test_a_search_gets_on_where_small_requests_never_cease() -> None:
    """They fill the machine and their own tenant's line; the search has its turn like one of them."""
    bench = _bench(max_sequences=4, n_batch=16)
    search = None
    for step in range(1000):
        if step % 5 == 0:
            bench.add(5, answer=20)
            bench.add(5, answer=20)
        bench.step()
        if step == 20:
            search = bench.add(5, n=6, answer=3)
        if search is not None and search.over:
            return
    raise AssertionError("the search never came to its end")


def test_a_newcomer_takes_paused_cells_of_a_wide_tree_at_once() -> None:
    """A branch that does nothing keeps nobody waiting, where the tree has plenty of others."""
    machine = Interleavings()
    machine.start(cells=200, max_sequences=7, n_batch=64, prefill=64, kept=0)
    machine.open_tree(prompt=[1, 2, 3], who="b", low=False)
    machine.fork(0, 0, MAX_STREAMS + 1)
    machine.extend(0, 0, 2, everybody=True)
    while machine.scheduler.busy:
        machine._step()
    tree = machine.trees[0]
    held = len(machine.scheduler.parked)
    assert held == MAX_STREAMS + 2
    machine.submit(prompt=[5], answer=8, n=1, who="b", low=False)
    machine._step()
    machine.submit(prompt=[6], answer=8, n=1, who="b", low=False)
    machine._step()
    assert [len(group.sequences) for group in machine.requests] == [1, 1]
    assert len(machine.scheduler.running) == 2
    assert len(machine.scheduler.parked) == held - 1
    machine.extend(0, 0, 3, everybody=True)
    machine.teardown()
    assert not tree.asked


@given(
    step_s=st.tuples(*[st.floats(0.001, 1.0)] * 3),
    busy=st.lists(st.sets(st.sampled_from("abc"), min_size=1), min_size=1, max_size=60),
)
def test_a_model_in_the_background_gets_one_step_at_a_time(
    step_s: tuple[float, ...], busy: list[set[str]]
) -> None:
    """Between two of its steps comes one of a model that streams, if any of these has something to do."""
    turns = Turns("abc")
    last = ""
    for names in busy:
        name = turns.next(names, {"b", "c"} & names)
        assert name in names
        assert name == "a" or "a" not in names or last not in {"b", "c"}
        turns.charge(name, step_s["abc".index(name)])
        last = name


def test_background_work_goes_on_and_earns_no_credit() -> None:
    """It has every second step, short as they are, and no run of steps when nobody streams any more."""
    turns = Turns("ab")
    steps = Counter[str | None]()
    for _ in range(100):
        name = turns.next("ab", "b")
        steps[name] += 1
        turns.charge(name or "", 10.0 if name == "a" else 0.1)
    assert steps == {"a": 50, "b": 50}
    assert [turns.next("ab", "ab") for _ in range(2)].count("a") <= 2
    run = 0
    while turns.next("ab", "ab") == "b":
        turns.charge("b", 0.1)
        run += 1
    assert run <= 101


@given(most=st.integers(1, 20), tokens=st.integers(1, 30), n=st.integers(1, 9))
def test_a_step_in_the_background_is_as_short_as_it_has_to_be(most: int, tokens: int, n: int) -> None:
    """Evaluations of a tree, however many and long, take no more tokens of a step than there is time for, and end."""
    machine = Interleavings()
    machine.start(cells=600, max_sequences=16, n_batch=64, prefill=64, kept=0)
    machine.open_tree(prompt=[1, 2, 3], who="b", low=False)
    machine.fork(0, 0, n)
    group = machine.trees[0].group
    for number in range(1, n + 1):
        group.append(machine.scheduler, number, (4,) * tokens)
        group.evaluate(machine.scheduler, number, Question(positions=(-1,), label_ids=(0,)))
    steps = 0
    while machine.scheduler.busy:
        work = machine.scheduler.plan(crowded=True, most_tokens=most)
        assert 1 <= sum(item.count for item in work) <= most
        machine.memory.compute(work)
        machine.scheduler.advance(work)
        for item in work:
            if not item.sequence.n_remaining:
                machine.scheduler.pause(item.sequence)
        steps += 1
    assert steps <= -(-(2 + n * (tokens + 1)) // most) + n + 1


@given(
    fixed_s=st.one_of(st.just(0.0), st.floats(1e-5, 1e-2)),
    token_s=st.floats(1e-5, 1e-2),
    sizes=st.lists(st.integers(1, 32), min_size=1, max_size=40),
    n_streams=st.integers(1, 32),
)
def test_a_step_in_the_background_is_never_thought_too_cheap(
    fixed_s: float, token_s: float, sizes: list[int], n_streams: int
) -> None:
    """On a machine with these costs, whatever they are: with as many tokens as it allows, a step is short enough."""
    streams, judge = StepCost(), StepCost()
    assert (streams.expected_s(8), judge.within(1.0)) == (0.0, MIN_TOKENS)
    for guests in sizes:
        streams.observe(n_streams + guests, fixed_s + token_s * (n_streams + guests))
    allowed_s = streams.expected_s(n_streams)
    assert allowed_s <= (fixed_s + token_s * n_streams) * 1.001
    tokens = MIN_TOKENS
    for _ in range(400):
        judge.observe(tokens, fixed_s + token_s * tokens)
        tokens = judge.within(allowed_s)
    assert tokens == MIN_TOKENS or fixed_s + token_s * tokens <= allowed_s * 1.01
    # And once it is known, nothing affordable is held back.
    assert fixed_s + token_s * (tokens + 2) > allowed_s * 0.98


class _Search:
    """A wide tree, beside streams or not, in a lane with a real model, stepped by hand."""

    def __init__(self, lane: Lane, bell: Doorbell, n_streams: int) -> None:
        self.lane = lane
        self._bell = bell
        self.streams = [self._stream(number) for number in range(n_streams)]
        self.mailbox = TreeMailbox(bell, Usage(prompt_tokens=0, completion_tokens=0))
        self.tree = TreeGroup(request(99, prompt_tokens=20, max_tokens=40), self.mailbox, None)
        lane.add(self.tree)
        for number in range(1, WIDE + 1):
            self.order("fork", 0, child=number, path=(0, number - 1))
            self.order("extend", number, until=(), max_tokens=12)

    def _stream(self, number: int) -> ChoiceGroup:
        mailbox = Mailbox(self._bell, Usage(prompt_tokens=0, completion_tokens=0))
        group = ChoiceGroup(request(number, max_tokens=400), mailbox, None)
        self.lane.add(group)
        return group

    def order(self, name: str, number: int, **arguments: object) -> None:
        """Do something in the tree, as its owner would have it done."""
        command = partial(getattr(TreeGroup, name), self.tree, number=number, **arguments)
        self.lane.obey(Order(self.tree, command))

    def step(self) -> None:
        """As the engine does it."""
        self.lane.sweep(0.0)
        self.lane.step()
        self.lane.erase()

    def results(self) -> dict[int, Result]:
        """Go on until every branch has paused."""
        results: dict[int, Result] = {}
        while len(results) < WIDE:
            self.step()
            results |= dict(self.mailbox._outgoing)
        return results

    @property
    def streamed(self) -> int:
        """Tokens of all streams."""
        return sum(stream.n_completion for stream in self.streams)

    def check_cells(self, *groups: Group) -> None:
        """Only these groups hold cells, and of what anybody else held there are zeros."""
        leases = [s.lease for group in groups for s in group.sequences if s.lease is not None]
        cache = self.lane._cache
        assert self.lane.budget.used == held_cells(leases)
        assert cache.dirty_cells == 0
        assert cache.garbage > 0
        plug = self.lane.context.read_state(96)
        assert np.count_nonzero(plug) <= 28 + 12 * cache.garbage * 2, (
            "zeros, but for what describes the cells"
        )


@pytest.fixture
def search(tiny: TinyModel) -> Iterator[Callable[[int], _Search]]:
    """Make searches beside so many streams, each in a lane of its own."""
    loop = asyncio.new_event_loop()
    bell = Doorbell(loop)
    model = LlamaModel(str(tiny.path), tiny.pin)
    lanes: list[Lane] = []

    def make(n_streams: int) -> _Search:
        lanes.append(Lane(model, EngineConfig(threads=1, n_ctx_total=8192, max_sequences=96)))
        return _Search(lanes[-1], bell, n_streams)

    yield make
    for lane in lanes:
        lane.close()
    model.close()
    bell.close()
    loop.close()


def test_a_search_that_is_cancelled_is_gone_with_the_step(search: Callable[[int], _Search]) -> None:
    """In the middle of it: the next step computes nothing of it and leaves no cell of it, and streams go on."""
    beside = search(8)
    while beside.tree.n_completion < 100:
        beside.step()
    before = beside.streamed
    beside.mailbox.cancelled = True
    beside.step()
    assert beside.streamed == before + 8
    assert beside.tree.n_completion < 110
    assert not beside.tree.sequences
    beside.check_cells(*beside.streams)


def test_pruned_branches_of_a_search_leave_nothing(search: Callable[[int], _Search]) -> None:
    """Three of 64 live on, with what they share with each other once."""
    beside = search(8)
    beside.results()
    for number in range(WIDE + 1):
        if number not in {7, 8, 64}:
            beside.order("prune", number)
    beside.lane.erase()
    assert len(beside.tree.sequences) == 3
    assert sum(s.n_computed for s in beside.tree.sequences) - 2 * 19 <= beside.lane.budget.used
    beside.check_cells(beside.tree, *beside.streams)


def test_a_search_draws_the_same_beside_streams(search: Callable[[int], _Search]) -> None:
    """When its branches get their turn changes no bit of what they say."""
    alone, beside = search(0), search(8)
    assert alone.results() == beside.results()
    assert beside.streamed > WIDE * 12 // 3
