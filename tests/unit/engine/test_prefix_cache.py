# SPDX-License-Identifier: Apache-2.0
"""What is kept for a next turn: found by nobody else, exact to the bit, within its budget, gone when it should be."""

import asyncio
import dataclasses
from collections.abc import Callable

import pytest
from engine_calls import answers, request, until
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_gguf import TinyModel
from unit.engine.test_scheduler import Bench, CellMap

from adyton_enclave.engine import Engine, EngineConfig, GenerationRequest, SamplingParams
from adyton_enclave.engine.kv_budget import KvBudget, KvLease
from adyton_enclave.engine.prefix_cache import PrefixCache
from adyton_enclave.engine.sequence import Phase
from adyton_enclave.engine.settings import MAX_SEQUENCES
from adyton_protocol.errors import ConfigError

Start = Callable[..., Engine]
MINE, OTHER = b"m" * 32, b"o" * 32


class Shelf:
    """A prefix cache over a cell map."""

    def __init__(self, *, entries: int = 4, max_cells: int = 100) -> None:
        self.memory = CellMap()
        self.budget = KvBudget(1000)
        self.cache = PrefixCache(self.memory, range(10, 10 + entries), max_cells)

    def put(
        self, namespace: bytes, tokens: list[int], *, base: KvLease | None = None, shared: int = 0
    ) -> None:
        """Compute tokens, perhaps beyond a shared prefix, keep them, and end."""
        lease = self.budget.lease() if base is None else base.fork(shared)
        lease.grow(len(tokens) - shared)
        self.memory.cells[0] = list(range(len(tokens)))
        self.cache.keep(namespace, tokens, 0, lease)
        self.memory.remove(0)
        lease.release()

    def found(self, namespace: bytes, tokens: list[int]) -> int:
        """How many tokens a prompt need not compute."""
        hit = self.cache.find(namespace, tokens)
        return 0 if hit is None else hit.length


tokens_lists = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=12)


@settings(max_examples=200)
@given(kept=tokens_lists, asked=st.lists(st.integers(0, 2), max_size=14), names=st.data())
def test_the_longest_beginning_in_the_own_namespace_is_found(
    kept: list[list[int]], asked: list[int], names: st.DataObject
) -> None:
    """Whatever others keep: a prompt finds the longest beginning that its own namespace has, and nothing else."""
    shelf = Shelf(entries=50, max_cells=1000)
    own = []
    for tokens in kept:
        namespace = names.draw(st.sampled_from([MINE, OTHER]))
        shelf.put(namespace, tokens)
        own += [tokens] * (namespace == MINE)
    expected = 0
    for tokens in own:
        common = next((i for i, (a, b) in enumerate(zip(tokens, asked, strict=False)) if a != b), None)
        expected = max(expected, min(len(tokens), len(asked)) if common is None else common)
    assert shelf.found(MINE, asked) == expected
    hit = shelf.cache.find(MINE, asked)
    assert hit is None or hit.entry.namespace == MINE
    shelf.cache.forget({MINE})
    assert shelf.found(MINE, asked) == 0
    shelf.cache.forget({OTHER})
    assert shelf.budget.used == shelf.cache.cells == shelf.memory.used == 0


def test_the_least_recently_used_goes_first_and_the_budget_holds() -> None:
    """Too many entries, or too many cells: the oldest goes; what was used stays; what is too large is not kept."""
    shelf = Shelf(entries=3, max_cells=60)
    for first in (1, 2, 3):
        shelf.put(MINE, [first] * 20)
    hit = shelf.cache.find(MINE, [1] * 20)
    assert hit is not None
    shelf.cache.used(hit.entry)
    shelf.put(MINE, [4] * 20)
    assert [shelf.found(MINE, [first] * 20) for first in (1, 2, 3, 4)] == [20, 0, 20, 20]
    shelf.put(MINE, [5] * 30)
    assert [shelf.found(MINE, [first] * 20) for first in (1, 3, 4, 5)] == [0, 0, 20, 20]
    assert shelf.cache.cells == 50
    shelf.put(MINE, [6] * 61)
    assert shelf.found(MINE, [6]) == 0
    assert shelf.cache.evict()
    assert shelf.cache.evict()
    assert not shelf.cache.evict()
    assert shelf.budget.used == 0


def test_a_longer_turn_takes_the_place_of_what_it_goes_on_from() -> None:
    """A conversation is one entry, however many turns it has; its cells count once."""
    shelf = Shelf()
    shelf.put(MINE, [1] * 10)
    hit = shelf.cache.find(MINE, [1] * 20)
    assert hit is not None
    shelf.put(MINE, [1] * 25, base=hit.entry.lease, shared=10)
    assert (len(shelf.cache), shelf.cache.cells, shelf.budget.used) == (1, 25, 25)
    shelf.put(MINE, [1] * 5)
    assert (len(shelf.cache), shelf.cache.cells) == (1, 25)


def test_without_a_budget_nothing_is_kept() -> None:
    """Zero cells, or no sequence id to spare."""
    for shelf in (Shelf(max_cells=0), Shelf(entries=0)):
        shelf.put(MINE, [1] * 10)
        assert shelf.found(MINE, [1] * 10) == 0
        assert shelf.budget.used == 0
    assert EngineConfig(cache_cells=0).cached_sequences == 0
    assert EngineConfig(max_sequences=MAX_SEQUENCES).prefix_cells == 0
    assert EngineConfig(n_ctx_total=1000).prefix_cells == 500
    with pytest.raises(ConfigError):
        EngineConfig(cache_cells=10**9)


def test_kept_cells_give_way_to_whoever_computes() -> None:
    """A full cache of kept cells delays nobody by a step, and preempts nobody."""
    bench = Bench(cells=100, max_sequences=2, n_batch=64, prefill=64, kept=4)
    old = [bench.add(20, answer=3, namespace=bytes([i]) * 32, first=i) for i in range(4)]
    while bench.scheduler.busy:
        bench.step()
    assert all(group.sequences[0].phase is Phase.DONE for group in old)
    assert bench.budget.used > 80
    new = bench.add(60, answer=30)
    bench.step()
    assert new.sequences[0].n_generated == 1
    while bench.scheduler.busy:
        bench.step()
    assert new.sequences[0].n_generated == 30


def _turn(engine_request: GenerationRequest, more: int, **fields: object) -> GenerationRequest:
    """The next turn of a conversation: its prompt goes on with tokens of the caller."""
    prompt = (*engine_request.prompt_token_ids, *range(80, 80 + more))
    return dataclasses.replace(engine_request, prompt_token_ids=prompt, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("cells", [2048, 640], ids=["plenty", "tight"])
async def test_a_cached_turn_is_bit_for_bit_an_uncached_one(
    tiny: TinyModel, start: Start, temperature: float, cells: int
) -> None:
    """Turns of conversations, among others that come and go, with and without the cache, for one and more choices."""
    sampling = SamplingParams(temperature=temperature)
    plain, cached = start(tiny), start(tiny, n_ctx_total=cells)
    first = [request(seed, prompt_tokens=70 + 31 * seed, sampling=sampling) for seed in range(4)]
    turns = [first]
    for more in (5, 40):
        turns.append([_turn(one, more, n=1 + more % 3) for one in turns[-1]])
    expected = [[await answers(plain, one) for one in turn] for turn in turns]
    noise = cached.submit(request(9, prompt_tokens=100, max_tokens=300))
    for at, turn in enumerate(turns):
        generations = [
            dataclasses.replace(one, cache_namespace=bytes([index]) * 32) for index, one in enumerate(turn)
        ]
        found = await asyncio.gather(*(answers(cached, one) for one in generations))
        assert list(found) == expected[at]
        again = cached.submit(generations[-1])
        assert [event async for event in again]
        assert again.usage.cached_prompt_tokens == len(generations[-1].prompt_token_ids) - 1
    noise.cancel()


async def test_a_next_turn_computes_only_what_is_new(tiny: TinyModel, start: Start) -> None:
    """Usage says how much was found; the count of computed tokens says that it is true."""
    engine = start(tiny)
    one = request(3, prompt_tokens=200, max_tokens=1, cache_namespace=MINE)
    status = lambda: engine.status()["tiny"]  # noqa: E731

    async def computed(wanted: GenerationRequest) -> tuple[int, int]:
        before = status().computed_tokens
        generation = engine.submit(wanted)
        events = [event async for event in generation]
        assert events
        finished = status().finished_requests
        await until(lambda: status().running == 0 and status().finished_requests >= finished)
        return status().computed_tokens - before, generation.usage.cached_prompt_tokens

    assert await computed(one) == (200, 0)
    assert await computed(_turn(one, 30)) == (30, 200)
    assert await computed(_turn(one, 30, cache_namespace=OTHER)) == (230, 0)
    assert await computed(_turn(one, 30, cache_namespace=None)) == (230, 0)
    # The same prompt again: its last token is computed anew, because its logits are wanted.
    assert await computed(_turn(one, 30)) == (1, 229)


async def test_a_namespace_that_is_forgotten_is_gone(tiny: TinyModel, start: Start) -> None:
    """Its cells are cleared though nobody asks for anything; what still runs in it is not kept either."""
    engine = start(tiny, n_ctx=1024)
    lane = engine._lanes["tiny"]
    wanted = request(3, prompt_tokens=100, max_tokens=4, cache_namespace=MINE)
    await answers(engine, wanted)
    await until(lambda: lane.status.kv_cells_kept > 100)
    running = engine.submit(dataclasses.replace(wanted, max_tokens=200))
    async for _ in running:
        break
    engine.forget_namespaces({MINE})
    await until(lambda: lane.status.kv_cells_kept == 0)
    await until(lambda: not lane.busy and lane.status.kv_cells_used == 0 and not lane._cache.dirty_cells)
    generation = engine.submit(wanted)
    assert [event async for event in generation]
    assert generation.usage.cached_prompt_tokens == 0


async def test_what_was_cancelled_is_not_kept(tiny: TinyModel, start: Start) -> None:
    """Only a proper end keeps anything."""
    engine = start(tiny, n_ctx=1024)
    generation = engine.submit(request(3, prompt_tokens=100, max_tokens=500, cache_namespace=MINE))
    async for _ in generation:
        break
    await until(lambda: engine.status()["tiny"].kv_cells_used == 0)
    assert engine.status()["tiny"].kv_cells_kept == 0
