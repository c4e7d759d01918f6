# SPDX-License-Identifier: Apache-2.0
"""Decides what each step computes: who runs, who waits, who must give its cells back.

Rules, in order:

1. Running sequences that decode go first, one token each; prefill fills the rest of the batch in chunks, so
   that a long prompt delays running streams by a bounded amount per step. Low priority comes last, and the tenant
   that has had least comes first.
2. Normal priority is admitted before low, and among tenants the one that has had the least work done; within a
   tenant, first come first served. Nobody overtakes the first in line because it needs little: the large would
   never get their turn.
3. A sequence is admitted when its own tokens and a small reserve fit beside what the running ones still have
   to compute. Answers may be long or short; nobody reserves for the longest.
4. When cells run out, the sequence of lowest priority that was admitted last gives its cells back and waits at the
   front of its tenant's queue. It is computed again later and continues with the very same tokens.
5. The first in line takes the place of running work of lower priority. A tenant that has nothing running, and has
   had less by what its request needs, takes the place of the last sequence of the tenant that runs most.
6. The first sequence of a group computes the prompt; its siblings wait for that and fork.

The scheduler knows no llama.cpp: KV memory is an interface, so that its rules are tested without a model.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from adyton_enclave.engine.fair_queue import FairQueue
from adyton_enclave.engine.kv_budget import KvBudget
from adyton_enclave.engine.sequence import Group, Phase, Sequence
from adyton_protocol.errors import OutOfMemory

RESERVE_TOKENS = 32
"""Cells kept free at admission for each running sequence that wants so many, against immediate preemption."""


class KvMemory(Protocol):
    """What the scheduler does to the KV cache."""

    def copy(self, source: int, target: int, length: int) -> None:
        """Let sequence ``target`` share the first ``length`` cells of ``source``."""

    def remove(self, seq_id: int) -> None:
        """Give up every cell that only this sequence holds."""


@dataclass(frozen=True, slots=True)
class Work:
    """Tokens ``start`` to ``start + count`` of one sequence, in this step."""

    sequence: Sequence
    start: int
    count: int

    @property
    def wants_logits(self) -> bool:
        """True when this reaches the last token, whose logits give the next one."""
        return self.start + self.count == len(self.sequence.token_ids)


class Scheduler:
    """The queues of one model. Owned by the loop thread."""

    def __init__(
        self, *, budget: KvBudget, memory: KvMemory, max_sequences: int, n_batch: int, prefill_tokens: int
    ) -> None:
        """Start idle.

        Args:
            budget: The cells of the context.
            memory: The context's KV cache.
            max_sequences: Most sequences running at once; sequence ids are 0 to this less one.
            n_batch: Most tokens in a step.
            prefill_tokens: Most prompt tokens in a step that also decodes.
        """
        self._budget = budget
        self._memory = memory
        self._n_batch = n_batch
        self._prefill_tokens = prefill_tokens
        self._free_ids = list(range(max_sequences - 1, -1, -1))
        self._running: list[Sequence] = []
        self._waiting = FairQueue()

    @property
    def running(self) -> tuple[Sequence, ...]:
        """Sequences that hold a sequence id, in order of admission."""
        return tuple(self._running)

    @property
    def busy(self) -> bool:
        """True while anything runs or waits."""
        return bool(self._running or self._waiting)

    def add(self, group: Group) -> None:
        """Queue a request. Its first sequence leads; the others wait for the prompt when there is one to share."""
        self._waiting.welcome(group.request.tenant, {_tenant(running) for running in self._running})
        leaders = group.sequences[:1] if group.n_shared else group.sequences
        for sequence in leaders:
            self._enqueue(sequence)

    def drop(self, sequence: Sequence) -> None:
        """Take a sequence out for good, wherever it is, and free its cells. Idempotent."""
        if sequence.phase is Phase.RUNNING:
            self._evict(sequence)
        elif sequence.phase is Phase.WAITING:
            self._waiting.remove(sequence)
        sequence.phase = Phase.DONE

    def plan(self) -> list[Work]:
        """Choose this step's work and admit whom there is room for.

        Returns:
            Work of distinct sequences whose tokens fit into the batch and into free cells; empty when idle.

        Raises:
            OutOfMemory: One sequence alone fills the cache and cannot go on. It is ``running[0]``.
        """
        self._make_room()
        self._give_way()
        work: list[Work] = []
        decoding = [sequence for sequence in self._running if sequence.n_remaining == 1]
        work.extend(Work(sequence, sequence.n_computed, 1) for sequence in decoding[: self._n_batch])
        cells = self._budget.free - len(work)
        tokens = self._n_batch - len(work)
        if work:
            tokens = min(tokens, self._prefill_tokens)
        candidates = self._prefilling_and_admitted()
        while tokens > 0 and cells > 0 and (sequence := next(candidates, None)) is not None:
            count = min(self._next_stop(sequence), tokens, cells)
            work.append(Work(sequence, sequence.n_computed, count))
            tokens -= count
            cells -= count
        return work

    def advance(self, work: list[Work]) -> None:
        """Book a computed step, and release siblings that waited for their prompt."""
        for item in work:
            sequence = item.sequence
            if sequence.lease is None:
                raise ValueError("only running sequences are computed")
            sequence.lease.grow(item.count)
            sequence.n_computed += item.count
            self._waiting.charge(_tenant(sequence), item.count)
            if item.start < sequence.group.n_shared <= sequence.n_computed:
                self._release_siblings(sequence.group)

    def relieve(self) -> None:
        """Preempt the sequence of lowest priority that was admitted last.

        Raises:
            OutOfMemory: It is the only one, so that nothing would be won.
        """
        if len(self._running) <= 1:
            raise OutOfMemory("the request needs more KV cache than there is")
        self._preempt(next(filter(_is_low, reversed(self._running)), self._running[-1]))

    def _preempt(self, sequence: Sequence) -> None:
        used = self._budget.used
        self._evict(sequence)
        self._waiting.charge(_tenant(sequence), self._budget.used - used)
        self._enqueue(sequence, front=True)

    def _make_room(self) -> None:
        """Preempt until every decoding sequence has a cell and somebody can go on."""
        while self._running:
            decoding = sum(sequence.n_remaining == 1 for sequence in self._running)
            if self._budget.free >= max(decoding, 1):
                return
            self.relieve()

    def _give_way(self) -> None:
        """Preempt for the first in line, if it has precedence over what runs and would fit then."""
        if not self._waiting:
            return
        sequence = self._first_in_line()
        while sequence is not None and not self._fits(sequence):
            victim = self._inferior(sequence)
            if victim is None:
                return
            self._preempt(victim)

    def _inferior(self, sequence: Sequence) -> Sequence | None:
        """The running sequence whose place a waiting one may take."""
        low = next(filter(_is_low, reversed(self._running)), None)
        if low is not None and not _is_low(sequence):
            return low
        shares = Counter(
            _tenant(running) for running in self._running if _is_low(running) >= _is_low(sequence)
        )
        tenant, count = max(shares.items(), key=lambda share: share[1], default=("", 0))
        lead = self._waiting.served(tenant) - self._waiting.served(_tenant(sequence))
        # Whoever runs one sequence alone keeps it, so that two tenants never take turns in undoing each other.
        if count <= 1 or _tenant(sequence) in map(_tenant, self._running) or lead < self._need(sequence):
            return None
        return next(running for running in reversed(self._running) if _tenant(running) == tenant)

    def _prefilling_and_admitted(self) -> Iterator[Sequence]:
        prefilling = [sequence for sequence in self._running if sequence.n_remaining > 1]
        if len(prefilling) > 1:
            prefilling.sort(key=lambda sequence: (_is_low(sequence), self._waiting.served(_tenant(sequence))))
        yield from prefilling
        while self._waiting:
            sequence = self._first_in_line()
            if sequence is None or not self._fits(sequence):
                return
            self._waiting.remove(sequence)
            self._admit(sequence, self._donor(sequence.group))
            yield sequence

    def _first_in_line(self) -> Sequence | None:
        """Who is to be admitted next, after holding back those whose prompt is being computed right now."""
        promised: Counter[str] = Counter()
        for running in self._running:
            promised[_tenant(running)] += running.n_remaining
        while (sequence := next(self._waiting.heads(promised), None)) is not None:
            if not self._is_building(sequence.group):
                return sequence
            self._waiting.remove(sequence)
            sequence.phase = Phase.HELD
        return None

    def _need(self, sequence: Sequence) -> int:
        """Cells that a waiting sequence takes until its next token can be drawn."""
        return sequence.n_remaining - (sequence.group.n_shared if self._donor(sequence.group) else 0)

    def _fits(self, sequence: Sequence) -> bool:
        """True when there is a sequence id and room beside what the running ones still have to compute."""
        if not self._free_ids:
            return False
        # An idle cache takes whatever fits at all; the reserve only protects those who run already.
        if not self._running:
            return True
        committed = sum(running.n_remaining for running in self._running)
        reserve = sum(min(RESERVE_TOKENS, running.n_wanted) for running in self._running)
        return self._need(sequence) <= self._budget.free - committed - reserve

    def _admit(self, sequence: Sequence, donor: Sequence | None) -> None:
        sequence.seq_id = self._free_ids.pop()
        sequence.phase = Phase.RUNNING
        sequence.group.started = True
        if donor is not None and donor.lease is not None:
            shared = sequence.group.n_shared
            self._memory.copy(donor.seq_id, sequence.seq_id, shared)
            sequence.lease = donor.lease.fork(shared)
            sequence.n_computed = shared
        else:
            sequence.lease = self._budget.lease()
        self._running.append(sequence)

    def _evict(self, sequence: Sequence) -> None:
        """Free the cells of a running sequence and forget what was computed."""
        self._running.remove(sequence)
        self._memory.remove(sequence.seq_id)
        self._free_ids.append(sequence.seq_id)
        sequence.seq_id = -1
        sequence.n_computed = 0
        if sequence.lease is not None:
            sequence.lease.release()
            sequence.lease = None
        sequence.phase = Phase.HELD
        if not self._is_building(sequence.group):
            # Whoever waited for this sequence's prompt must not wait for ever.
            self._release_siblings(sequence.group, but=sequence)

    def _enqueue(self, sequence: Sequence, *, front: bool = False) -> None:
        sequence.phase = Phase.WAITING
        self._waiting.push(sequence, front=front)

    def _release_siblings(self, group: Group, but: Sequence | None = None) -> None:
        for sequence in reversed(group.sequences):
            if sequence.phase is Phase.HELD and sequence is not but:
                self._enqueue(sequence, front=True)

    @staticmethod
    def _next_stop(sequence: Sequence) -> int:
        """Tokens to compute at most: a sequence stops short of its last prompt token while siblings wait.

        Otherwise an answer of one token would be over before anybody forked from it.
        """
        group = sequence.group
        if sequence.n_computed < group.n_shared and any(s.phase is Phase.HELD for s in group.sequences):
            return group.n_shared - sequence.n_computed
        return sequence.n_remaining

    @staticmethod
    def _donor(group: Group) -> Sequence | None:
        if not group.n_shared:
            return None
        return next((sequence for sequence in group.sequences if sequence.has_prefix), None)

    @staticmethod
    def _is_building(group: Group) -> bool:
        """True when a sibling computes the shared prompt and none has it yet."""
        running = [sequence for sequence in group.sequences if sequence.phase is Phase.RUNNING]
        return bool(running) and not any(sequence.has_prefix for sequence in running)


def _tenant(sequence: Sequence) -> str:
    return sequence.group.request.tenant


def _is_low(sequence: Sequence) -> bool:
    return sequence.group.request.priority == "low"
