# SPDX-License-Identifier: Apache-2.0
"""Decides what each step computes: who runs, who waits, who must give its cells back.

Rules, in order:

1. Running sequences that decode go first, one token each; prefill fills the rest of the batch in chunks, so
   that a long prompt delays running streams by a bounded amount per step. Low priority comes last, and the tenant
   that has had least comes first. Beside streams, a wide request (a tree search, many choices) computes a bounded
   number of tokens in a step: its sequences one after the other until they end or pause, wide requests in turn.
2. Normal priority is admitted before low, and among tenants the one that has had the least work done; within a
   tenant, first come first served. Nobody overtakes the first in line because it needs little: the large would
   never get their turn. But a wide request that has something running lets others of its tenant go first.
3. A sequence is admitted when its own tokens and a small reserve fit beside what the running ones still have
   to compute. Answers may be long or short; nobody reserves for the longest.
4. A sequence that its owner paused keeps its cells as long as nobody needs them. It yields them at once to running
   sequences, to its own group and to higher priority, and one of a wide request to those that are not; to others
   after a while, or when nothing runs at all.
5. When cells run out with nobody paused, the sequence of lowest priority that was admitted last gives its cells
   back and waits at the front of its tenant's queue. Whoever lost cells is computed again later and continues
   with the very same tokens.
6. The first in line takes the place of running work of lower priority. A tenant that has nothing running, and has
   had less by what its request needs, takes the place of the last sequence of the tenant that runs most.
7. Whoever begins like a relative (a choice of the same prompt, a branch of the same tree) forks from whichever
   relative has most of it computed. If one is just computing more of it, the others wait for that.
8. A request with a cache namespace forks from what is kept for that namespace, where no relative has more. What is
   kept holds cells only as long as nobody needs them.

The scheduler knows no llama.cpp: KV memory is an interface, so that its rules are tested without a model.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Protocol

from adyton_enclave.engine.fair_queue import FairQueue
from adyton_enclave.engine.guests import in_turn, is_guest, is_wide, places
from adyton_enclave.engine.kv_budget import KvBudget
from adyton_enclave.engine.prefix_cache import Hit, PrefixCache
from adyton_enclave.engine.sequence import Group, Phase, Sequence
from adyton_protocol.errors import OutOfMemory

RESERVE_TOKENS = 32
"""Cells kept free at admission for each running sequence that wants so many, against immediate preemption."""

PATIENCE_STEPS = 64
"""For so many steps a paused sequence keeps its cells against newcomers of other groups."""


class KvMemory(Protocol):
    """What the scheduler does to the KV cache."""

    def copy(self, source: int, target: int, length: int) -> None:
        """Let sequence ``target`` share the first ``length`` cells of ``source``."""

    def truncate(self, seq_id: int, length: int) -> None:
        """Give up all but the first ``length`` cells of this sequence."""

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
        sequence = self.sequence
        return sequence.probe is None and self.start + self.count == len(sequence.token_ids)

    @property
    def probed(self) -> Seq[int]:
        """Offsets of the tokens whose logits a probe is to read."""
        probe = self.sequence.probe
        return () if probe is None else probe.within(self.start, self.count)


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where a sequence that holds no cells can get some.

    ``donor`` has the first ``length`` cells that it wants, or ``hit`` says what was kept of them; ``building`` if a
    relative is computing more of them.
    """

    donor: Sequence | None
    length: int
    building: bool
    hit: Hit | None = None


class Scheduler:
    """The queues of one model. Owned by the loop thread."""

    def __init__(
        self,
        *,
        budget: KvBudget,
        memory: KvMemory,
        max_sequences: int,
        n_batch: int,
        prefill_tokens: Callable[[int], int],
        n_rows: int | None = None,
        cache: PrefixCache | None = None,
    ) -> None:
        """Start idle.

        Args:
            budget: The cells of the context.
            memory: The context's KV cache.
            max_sequences: Most sequences with cells at once; sequence ids are 0 to this less one.
            n_batch: Most tokens in a step.
            prefill_tokens: Most prompt tokens in a step that also decodes, given how many sequences it decodes.
            n_rows: Most rows of logits in a step, at least ``max_sequences``, the default.
            cache: Where finished sequences are kept for their namespace; nothing is kept without.
        """
        self._budget = budget
        self._memory = memory
        self._cache = PrefixCache(memory, (), 0) if cache is None else cache
        self._n_batch = n_batch
        self._prefill_tokens = prefill_tokens
        self._n_rows = max_sequences if n_rows is None else n_rows
        self._guests_left = n_batch
        self._free_ids = list(range(max_sequences - 1, -1, -1))
        self._running: list[Sequence] = []
        self._waiting = FairQueue()
        self._parked: dict[Sequence, int] = {}  # hold cells without running; since which step
        self._steps = 0

    @property
    def running(self) -> tuple[Sequence, ...]:
        """Sequences that are computed, in order of admission."""
        return tuple(self._running)

    @property
    def parked(self) -> tuple[Sequence, ...]:
        """Sequences that hold cells without running, longest first."""
        return tuple(self._parked)

    @property
    def n_streams(self) -> int:
        """Running sequences for whose single tokens somebody waits: those that generate, not in a wide request."""
        return sum(sequence.probe is None and not is_wide(sequence) for sequence in self._running)

    @property
    def busy(self) -> bool:
        """True while anything runs or waits."""
        return bool(self._running or self._waiting)

    def add(self, group: Group) -> None:
        """Queue the sequences of a request.

        The first leads; the others wait for the prompt when there is one to share. Those that are paused have to
        be resumed.
        """
        coming = [sequence for sequence in group.sequences if sequence.phase is not Phase.PAUSED]
        if not coming:
            return
        self._welcome(group)
        first, *others = coming
        self._enqueue(first)
        for sequence in others:
            if group.common(first, sequence):
                self._hold(sequence)
            else:
                self._enqueue(sequence)

    def resume(self, sequence: Sequence) -> None:
        """Let a paused sequence go on, before others of its tenant: it has waited its turn already."""
        if sequence.phase is not Phase.PAUSED:
            raise ValueError("only paused sequences are resumed")
        if not sequence.n_remaining:
            raise ValueError("a sequence is resumed to compute something")
        self._welcome(sequence.group)
        sequence.phase = Phase.WAITING
        self._waiting.push_returning(sequence)

    def pause(self, sequence: Sequence) -> None:
        """Stop computing a running sequence; it keeps its cells while there are enough."""
        if sequence.phase is not Phase.RUNNING:
            raise ValueError("only running sequences are paused")
        self._running.remove(sequence)
        sequence.phase = Phase.PAUSED
        self._parked[sequence] = self._steps

    def rewind(self, sequence: Sequence, length: int) -> None:
        """Give up the cells of a paused sequence beyond the first ``length``, to compute these tokens again."""
        if sequence.phase is not Phase.PAUSED:
            raise ValueError("only paused sequences are rewound")
        if sequence.n_computed <= length:
            return
        if not length:
            self._free(sequence)
        elif sequence.lease is not None:
            self._memory.truncate(sequence.seq_id, length)
            sequence.lease.truncate(length)
            sequence.n_computed = length

    def finish(self, sequence: Sequence) -> None:
        """Drop a sequence that came to its proper end; what it computed is kept for its namespace, if it has one."""
        namespace = sequence.group.cache_namespace
        if namespace is not None and sequence.lease is not None:
            computed = sequence.token_ids[: sequence.n_computed]
            self._cache.keep(namespace, computed, sequence.seq_id, sequence.lease)
        self.drop(sequence)

    def drop(self, sequence: Sequence) -> None:
        """Take a sequence out for good, wherever it is. Idempotent.

        Its cells are freed, unless forks that were never admitted can use them.
        """
        if sequence.phase in (Phase.DONE, Phase.RETIRED):
            return
        self._withdraw(sequence)
        self._bear(sequence)
        if sequence.lease is not None and sequence.n_unborn:
            sequence.phase = Phase.RETIRED
            self._parked[sequence] = self._steps
        else:
            self._bury(sequence)
        self._release_held(sequence.group)

    def drop_all(self, group: Group) -> None:
        """Take all sequences of a group out for good and free their cells. Idempotent."""
        group.held.clear()
        for sequence in list(group.sequences):
            if sequence.phase is not Phase.DONE:
                if sequence.phase is not Phase.HELD:
                    self._withdraw(sequence)
                self._bury(sequence)

    def plan(self, *, crowded: bool = False, most_tokens: int | None = None) -> list[Work]:
        """Choose this step's work and admit whom there is room for.

        Args:
            crowded: Others wait for the end of this step, as running streams do, though not in this lane.
            most_tokens: Most tokens of this step, because those others are streams; only for a lane that has none.

        Returns:
            Work of distinct sequences whose tokens fit into the batch and into free cells; empty when idle.

        Raises:
            OutOfMemory: One sequence alone fills the cache and cannot go on. It is ``running[0]``.
        """
        self._steps += 1
        most = self._n_batch if most_tokens is None else min(most_tokens, self._n_batch)
        n_streams = self.n_streams
        self._guests_left = min(places(n_streams), most) if n_streams else most
        self._make_room()
        self._give_way()
        work = [Work(sequence, sequence.n_computed, 1) for sequence in self._decoding(most)]
        spent = len(work)
        rows = self._n_rows - spent
        limit = most
        if work or crowded:
            limit = min(limit, spent + self._prefill_tokens(max(spent, 1)))
        candidates = self._prefilling_and_admitted()
        while spent < limit and rows and (sequence := next(candidates, None)) is not None:
            # Admission may have won cells that were not there before.
            count = min(self._next_stop(sequence), limit - spent, self._budget.free - spent)
            if count <= 0:
                break
            guest = is_guest(sequence)
            if guest and not self._guests_left:
                continue
            count = min(count, self._guests_left) if guest else count
            if sequence.probe is None:
                rows -= 1
            else:
                count = sequence.probe.fit(sequence.n_computed, count, rows)
                rows -= len(sequence.probe.within(sequence.n_computed, count))
            if guest:
                self._guests_left -= count
            work.append(Work(sequence, sequence.n_computed, count))
            spent += count
        return work

    def advance(self, work: list[Work]) -> None:
        """Book a computed step, and release relatives that waited for what it computed."""
        for item in work:
            sequence = item.sequence
            if sequence.lease is None:
                raise ValueError("only running sequences are computed")
            sequence.lease.grow(item.count)
            sequence.n_computed += item.count
            self._waiting.charge(_tenant(sequence), item.count)
            if sequence.group.held:
                self._release_reached(sequence, item.start)

    def relieve(self) -> None:
        """Take the cells of whoever misses them least.

        That is what is only kept, then somebody paused, then who was admitted last; low before normal.

        Raises:
            OutOfMemory: There is only one, so that nothing would be won.
        """
        if self._cache.evict():
            return
        parked = list(self._evictable())
        running = list(reversed(self._running)) if len(self._running) > 1 else []
        victims = [*filter(_is_low, parked), *filter(_is_low, running), *parked, *running]
        if not victims:
            raise OutOfMemory("the request needs more KV cache than there is")
        self._evict(victims[0])

    def _decoding(self, most: int) -> list[Sequence]:
        """Whose next token this step computes: of guests only as many as there are places for."""
        decoding = [sequence for sequence in self._running if sequence.n_remaining == 1]
        if self._guests_left >= len(self._running):
            return decoding[:most]
        guests = [sequence for sequence in self._running if is_guest(sequence)]
        if self._guests_left < len(guests):
            # Those that compute several tokens have their turns too: their places are left to them.
            chosen = in_turn(guests, self._steps)[: self._guests_left]
            guests = [sequence for sequence in chosen if sequence.n_remaining == 1]
            decoding = [sequence for sequence in decoding if not is_guest(sequence)] + guests
        self._guests_left -= sum(sequence.n_remaining == 1 for sequence in guests)
        return decoding[:most]

    def _make_room(self) -> None:
        """Preempt until every decoding sequence has a cell and somebody can go on."""
        wanted = min(self._n_batch, sum(sequence.n_remaining for sequence in self._running))
        while self._budget.free < wanted and self._cache.evict():
            pass
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
        while sequence is not None and not self._make_way(sequence):
            victim = self._inferior(sequence)
            if victim is None:
                return
            self._evict(victim)

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
            if sequence is None or not self._make_way(sequence):
                return
            self._waiting.remove(sequence)
            self._admit(sequence)
            yield sequence

    def _first_in_line(self) -> Sequence | None:
        """Who is to be admitted next, after holding back those of whose beginning more is just being computed."""
        promised: Counter[str] = Counter()
        held: Counter[Group] = Counter()
        for running in self._running:
            promised[_tenant(running)] += running.n_remaining
            held[running.group] += 1

        def rank(sequence: Sequence) -> int | None:
            """With each place that a wide request has, it stands further back; with none it waits like anybody."""
            if not is_wide(sequence):
                return 0
            return held[sequence.group] if self._guests_left > 0 or not held[sequence.group] else None

        while (sequence := next(self._waiting.heads(promised, rank), None)) is not None:
            if not self._origin(sequence).building:
                return sequence
            self._waiting.remove(sequence)
            self._hold(sequence)
        return None

    def _origin(self, sequence: Sequence) -> _Origin:
        """The relative with most of what a sequence begins with; nothing for one that has cells of its own."""
        donor, length, promised = None, 0, 0
        if sequence.lease is None:
            group, limit = sequence.group, sequence.n_shareable
            for other in group.sequences:
                if other.lease is None:
                    continue
                common = min(group.common(sequence, other), limit)
                have = min(common, other.n_computed)
                if have > length:
                    donor, length = other, have
                    if length == limit:
                        break
                if other.phase is Phase.RUNNING:
                    promised = max(promised, common)
            hit = None if group.cache_namespace is None else self._kept(sequence, group.cache_namespace)
            if hit is not None and hit.length > max(length, promised):
                return _Origin(None, hit.length, building=False, hit=hit)
        return _Origin(donor, length, promised > length)

    def _kept(self, sequence: Sequence, namespace: bytes) -> Hit | None:
        return self._cache.find(namespace, sequence.token_ids[: sequence.n_shareable])

    def _need(self, sequence: Sequence) -> int:
        """Cells that a waiting sequence takes until its next token can be drawn."""
        return sequence.n_remaining - self._origin(sequence).length

    def _make_way(self, sequence: Sequence) -> bool:
        """Find a sequence id and cells for a waiting sequence, taking them from parked ones where that is right."""
        while True:
            origin = self._origin(sequence)
            has_id = sequence.lease is not None or self._free_ids or self._inherits(sequence, origin)
            if has_id and sequence.n_remaining - origin.length <= self._room:
                return True
            if has_id and self._cache.evict(None if origin.hit is None else origin.hit.entry):
                continue
            # The donor comes last: without it there would be more to compute.
            victims = sorted(self._evictable(sequence), key=lambda victim: victim is origin.donor)
            # An idle cache takes whatever fits at all; the reserve only protects those who run already.
            if has_id and not self._running and all(victim is origin.donor for victim in victims):
                return True
            if not victims or (victims[0] is origin.donor and self._running):
                if has_id and origin.hit is not None and self._cache.evict():
                    continue
                return False
            self._evict(victims[0])

    @property
    def _room(self) -> int:
        """Cells left when all who run have computed what they have, and a reserve is kept for them."""
        committed = sum(running.n_remaining for running in self._running)
        reserve = sum(min(RESERVE_TOKENS, running.n_wanted) for running in self._running)
        return self._budget.free - committed - reserve

    def _evictable(self, newcomer: Sequence | None = None) -> Iterator[Sequence]:
        """Who may lose its cells although it is not running, least missed first.

        Args:
            newcomer: For whom; None when running sequences need the cells.
        """
        since = self._steps - PATIENCE_STEPS
        for retired in (False, True):
            for sequence, parked in self._parked.items():
                if sequence is newcomer or (sequence.phase is Phase.RETIRED) is not retired:
                    continue
                if (
                    newcomer is None
                    or parked <= since
                    or sequence.group is newcomer.group
                    or _is_low(sequence) > _is_low(newcomer)
                    or is_wide(sequence) > is_wide(newcomer)
                    or not self._running
                ):
                    yield sequence

    @staticmethod
    def _inherits(sequence: Sequence, origin: _Origin) -> bool:
        """True when a sequence is the last fork for which a retired one kept exactly these cells."""
        donor = origin.donor
        return (
            donor is not None
            and donor.phase is Phase.RETIRED
            and donor is sequence.parent
            and donor.n_unborn == 1
            and not sequence.admitted
            and donor.n_computed == origin.length
        )

    def _admit(self, sequence: Sequence) -> None:
        origin = self._origin(sequence)
        if sequence.lease is not None:
            del self._parked[sequence]
        elif origin.hit is not None:
            entry = origin.hit.entry
            sequence.seq_id = self._free_ids.pop()
            self._memory.copy(entry.seq_id, sequence.seq_id, origin.length)
            sequence.lease = entry.lease.fork(origin.length)
            sequence.n_computed = origin.length
            self._cache.used(entry)
            if not sequence.group.started:
                sequence.group.n_cached = origin.length
        elif origin.donor is None or origin.donor.lease is None:
            sequence.seq_id = self._free_ids.pop()
            sequence.lease = self._budget.lease()
        elif self._inherits(sequence, origin):
            donor = origin.donor
            sequence.seq_id, sequence.lease, sequence.n_computed = donor.seq_id, donor.lease, donor.n_computed
            del self._parked[donor]
            donor.seq_id, donor.lease, donor.n_computed = -1, None, 0
        else:
            sequence.seq_id = self._free_ids.pop()
            self._memory.copy(origin.donor.seq_id, sequence.seq_id, origin.length)
            sequence.lease = origin.donor.lease.fork(origin.length)
            sequence.n_computed = origin.length
        sequence.phase = Phase.RUNNING
        sequence.group.started = True
        self._running.append(sequence)
        self._bear(sequence)
        if sequence.group.held:
            # What others wait for may have been kept all along.
            self._release_reached(sequence, 0)

    def _bear(self, sequence: Sequence) -> None:
        """A fork was admitted or is over: its parent need not keep cells for it any more."""
        parent = sequence.parent
        if sequence.admitted or parent is None:
            return
        sequence.admitted = True
        parent.n_unborn -= 1
        if not parent.n_unborn and parent.phase is Phase.RETIRED:
            self._bury(parent)

    def _bury(self, sequence: Sequence) -> None:
        sequence.phase = Phase.DONE
        self._free(sequence)
        sequence.group.forget(sequence)

    def _evict(self, sequence: Sequence) -> None:
        """Free the cells of a sequence and forget what was computed; it may come back."""
        if sequence.phase is Phase.RETIRED:
            self._bury(sequence)
            return
        used = self._budget.used
        self._free(sequence)
        # Its tenant will pay for them again.
        self._waiting.charge(_tenant(sequence), self._budget.used - used)
        if sequence.phase is Phase.RUNNING:
            self._running.remove(sequence)
            self._enqueue(sequence, front=True)

    def _free(self, sequence: Sequence) -> None:
        """Take a sequence's cells and its id away."""
        self._parked.pop(sequence, None)
        sequence.n_computed = 0
        if sequence.lease is not None:
            self._memory.remove(sequence.seq_id)
            self._free_ids.append(sequence.seq_id)
            sequence.seq_id = -1
            sequence.lease.release()
            sequence.lease = None

    def _welcome(self, group: Group) -> None:
        self._waiting.welcome(group.request.tenant, {_tenant(running) for running in self._running})

    def _enqueue(self, sequence: Sequence, *, front: bool = False) -> None:
        sequence.phase = Phase.WAITING
        self._waiting.push(sequence, front=front)

    def _withdraw(self, sequence: Sequence) -> None:
        """Take a sequence out of the list that its phase stands for."""
        if sequence.phase is Phase.RUNNING:
            self._running.remove(sequence)
        elif sequence.phase is Phase.HELD:
            sequence.group.held.remove(sequence)
        elif sequence.phase is Phase.WAITING:
            self._waiting.remove(sequence)

    @staticmethod
    def _hold(sequence: Sequence) -> None:
        sequence.phase = Phase.HELD
        sequence.group.held.append(sequence)

    def _release_held(self, group: Group) -> None:
        """Whoever waited for a relative to compute something must not wait for ever; let all look again."""
        held, group.held = group.held, []
        for sequence in reversed(held):
            self._enqueue(sequence, front=True)

    def _release_reached(self, sequence: Sequence, start: int) -> None:
        """Release those who waited for something of what a relative has beyond its first ``start`` tokens."""
        group = sequence.group
        reached = [
            held
            for held in group.held
            if start < min(group.common(held, sequence), held.n_shareable) <= sequence.n_computed
        ]
        for held in reversed(reached):
            group.held.remove(held)
            self._enqueue(held, front=True)

    @staticmethod
    def _next_stop(sequence: Sequence) -> int:
        """Tokens to compute at most: a sequence stops where relatives wait to fork from it.

        Otherwise an answer of one token would be over before anybody forked.
        """
        group, done = sequence.group, sequence.n_computed
        stops = [min(group.common(held, sequence), held.n_shareable) for held in group.held]
        return min((stop - done for stop in stops if stop > done), default=sequence.n_remaining)


def _tenant(sequence: Sequence) -> str:
    return sequence.group.request.tenant


def _is_low(sequence: Sequence) -> bool:
    return sequence.group.request.priority == "low"
