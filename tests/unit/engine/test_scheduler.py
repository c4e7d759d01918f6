# SPDX-License-Identifier: Apache-2.0
"""The scheduler's rules without a model: fairness, forks, preemption, and that nobody is forgotten or leaks."""

import asyncio
from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adyton_enclave.engine.choice import ChoiceGroup
from adyton_enclave.engine.doorbell import Doorbell
from adyton_enclave.engine.generation import Mailbox
from adyton_enclave.engine.kv_budget import KvBudget
from adyton_enclave.engine.prefix_cache import PrefixCache
from adyton_enclave.engine.request import GenerationRequest, Priority, Usage
from adyton_enclave.engine.scheduler import Scheduler, Work
from adyton_enclave.engine.sequence import Phase, Sequence
from adyton_protocol.errors import OutOfMemory


class CellMap:
    """KV memory that knows which token of whom stands in which cell, as llama.cpp does."""

    def __init__(self) -> None:
        self.cells: dict[int, list[int]] = defaultdict(list)
        self._next = 0

    def copy(self, source: int, target: int, length: int) -> None:
        assert not self.cells[target], "a fork goes into an empty sequence"
        assert len(self.cells[source]) >= length, "a fork shares what is there"
        self.cells[target] = self.cells[source][:length]

    def truncate(self, seq_id: int, length: int) -> None:
        del self.cells[seq_id][length:]

    def remove(self, seq_id: int) -> None:
        self.cells.pop(seq_id, None)

    def compute(self, work: list[Work]) -> None:
        for item in work:
            assert len(self.cells[item.sequence.seq_id]) == item.start, (
                "tokens go to the end of their sequence"
            )
            self.cells[item.sequence.seq_id] += range(self._next, self._next + item.count)
            self._next += item.count

    @property
    def total(self) -> int:
        """Cells ever written."""
        return self._next

    @property
    def used(self) -> int:
        return len(set().union(*map(set, self.cells.values())))


class Bench:
    """A scheduler over a cell map, stepped by hand."""

    def __init__(
        self,
        *,
        cells: int = 100,
        max_sequences: int = 4,
        n_batch: int = 16,
        prefill: int = 8,
        kept: int = 0,
    ) -> None:
        self.budget = KvBudget(cells)
        self.memory = CellMap()
        self.prefixes = PrefixCache(self.memory, range(max_sequences, max_sequences + kept), cells)
        self.n_batch = n_batch
        self.computed: Counter[str] = Counter()
        self.scheduler = Scheduler(
            budget=self.budget,
            memory=self.memory,
            max_sequences=max_sequences,
            n_batch=n_batch,
            prefill_tokens=lambda _decoding: prefill,
            cache=self.prefixes,
        )

    def add(
        self,
        prompt: int,
        *,
        answer: int = 4,
        n: int = 1,
        tenant: str = "",
        priority: Priority = "normal",
        namespace: bytes | None = None,
        first: int = 1,
    ) -> ChoiceGroup:
        loop = asyncio.new_event_loop()
        bell = Doorbell(loop)
        bell.close()
        loop.close()
        request = GenerationRequest(
            model="m", prompt_token_ids=(first,) * prompt, max_tokens=answer, key=bytes(32), n=n, tenant=tenant,
            priority=priority, cache_namespace=namespace,
        )  # fmt: skip
        mailbox = Mailbox(bell, Usage(prompt_tokens=prompt, completion_tokens=0))
        group = ChoiceGroup(request, mailbox, None)
        self.scheduler.add(group)
        return group

    def step(self) -> list[Sequence]:
        """One step, in which every sequence that may draws a token; returns them."""
        work = self.scheduler.plan()
        assert sum(item.count for item in work) <= self.n_batch
        assert len({id(item.sequence) for item in work}) == len(work)
        self.memory.compute(work)
        self.scheduler.advance(work)
        for item in work:
            self.computed[item.sequence.group.request.tenant] += item.count
        drew = [item.sequence for item in work if item.wants_logits]
        for sequence in drew:
            sequence.token_ids.append(2)
            if sequence.n_generated >= sequence.group.request.max_tokens:
                self.scheduler.finish(sequence)
        assert self.memory.used == self.budget.used <= self.budget.total
        return drew


@settings(max_examples=200)
@given(data=st.data())
def test_everything_finishes_and_nothing_leaks(data: st.DataObject) -> None:
    """Whatever arrives and is cancelled in between: each step makes progress, all ends, no cell stays taken."""
    bench = Bench(
        cells=data.draw(st.integers(30, 90)),
        max_sequences=data.draw(st.integers(1, 6)),
        n_batch=data.draw(st.integers(6, 20)),
        prefill=data.draw(st.integers(1, 20)),
        kept=data.draw(st.integers(0, 3)),
    )
    groups: list[ChoiceGroup] = []
    for _ in range(data.draw(st.integers(1, 12))):
        match data.draw(st.sampled_from(["add", "add", "step", "cancel"])):
            case "add":
                prompt, answer = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 10))
                tenant, n = data.draw(st.sampled_from("ab")), data.draw(st.integers(1, 4))
                priority: Priority = data.draw(st.sampled_from(["low", "normal"]))
                namespace = data.draw(st.sampled_from([None, b"m" * 32, b"o" * 32]))
                groups.append(
                    bench.add(
                        prompt, answer=answer, n=n, tenant=tenant, priority=priority, namespace=namespace
                    )
                )
            case "step":
                bench.step()
            case _ if groups:
                for sequence in data.draw(st.sampled_from(groups)).sequences:
                    bench.scheduler.drop(sequence)
    cancelled = [s for g in groups for s in g.sequences if s.phase in (Phase.DONE, Phase.RETIRED)]
    for _ in range(3000):
        if not bench.scheduler.busy:
            break
        bench.step()
    for group in groups:
        for sequence in group.sequences:
            assert sequence.phase is Phase.DONE
            assert sequence in cancelled or sequence.n_generated == group.request.max_tokens
    assert bench.budget.used == bench.memory.used == bench.prefixes.cells
    bench.prefixes.forget({b"m" * 32, b"o" * 32})
    assert bench.budget.used == bench.memory.used == 0
    assert not bench.scheduler.busy


def test_a_prompt_is_computed_once_for_all_choices() -> None:
    """Choices cost the prompt once and one token more per choice."""
    bench = Bench(prefill=100, n_batch=100)
    group = bench.add(20, n=4, answer=1)
    bench.step()
    assert bench.memory.used == 19
    assert bench.step() == list(group.sequences)
    assert bench.memory.total == 19 + 4


def test_tenants_take_turns() -> None:
    """One tenant's crowd does not keep another tenant's only request waiting behind it."""
    bench = Bench(max_sequences=1)
    crowd = [bench.add(2, answer=1, tenant="crowd") for _ in range(6)]
    single = bench.add(2, answer=1, tenant="single")
    order = []
    while bench.scheduler.busy:
        order += [sequence.group for sequence in bench.step()]
    assert order.index(single) <= 1
    assert [group for group in order if group is not single] == crowd


def test_decoding_goes_on_while_a_long_prompt_comes_in() -> None:
    """Each step serves the running stream and at most the configured number of prompt tokens."""
    bench = Bench(cells=200, prefill=5)
    stream = bench.add(1, answer=50)
    bench.step()
    bench.add(60)
    for _ in range(12):
        work = bench.scheduler.plan()
        assert work[0].sequence.group is stream
        assert sum(item.count for item in work[1:]) == 5
        bench.memory.compute(work)
        bench.scheduler.advance(work)
        stream.sequences[0].token_ids.append(2)


def test_the_last_one_in_gives_way_and_comes_back_unchanged() -> None:
    """Preemption hits the sequence admitted last; it keeps its tokens and finishes with all of them."""
    bench = Bench(cells=110, max_sequences=2)
    first, second = bench.add(10, answer=90), bench.add(10, answer=80)
    preempted = False
    while bench.scheduler.busy:
        bench.step()
        waiting = second.sequences[0].phase is Phase.WAITING
        preempted |= waiting and second.sequences[0].n_generated > 0
        assert first.sequences[0].phase is not Phase.WAITING
    assert preempted
    assert second.sequences[0].n_generated == 80


def test_a_sequence_that_cannot_fit_alone_is_an_error() -> None:
    """With nobody to preempt, running out of cells is OutOfMemory and not an endless loop."""
    bench = Bench(cells=20)
    group = bench.add(15, answer=100)
    with pytest.raises(OutOfMemory):
        [bench.step() for _ in range(10)]
    assert bench.scheduler.running == tuple(group.sequences)


def test_all_choices_start_at_once_when_their_prompt_was_kept() -> None:
    """Nobody waits for the first choice to compute what it found in the cache."""
    bench = Bench(prefill=100, n_batch=100, kept=2)
    bench.add(20, answer=1, namespace=bytes(32))
    while bench.scheduler.busy:
        bench.step()
    group = bench.add(20, n=3, answer=5, namespace=bytes(32))
    bench.step()
    assert [choice.phase for choice in group.sequences] == [Phase.RUNNING] * 3
    assert group.usage.cached_prompt_tokens == 19
