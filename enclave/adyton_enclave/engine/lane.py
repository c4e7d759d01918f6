# SPDX-License-Identifier: Apache-2.0
"""One model's share of the loop: its queues, its KV cache, and one step after another.

A step is: plan, compute, draw, tell. Everything here runs in the loop thread.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection
from collections.abc import Sequence as Seq
from dataclasses import dataclass

from adyton_enclave.engine.drawing import Drawer
from adyton_enclave.engine.kv_budget import KvBudget
from adyton_enclave.engine.kv_cache import OrderedKvCache
from adyton_enclave.engine.llama import LlamaContext, LlamaModel, NoKvSlot
from adyton_enclave.engine.outputs import Outputs
from adyton_enclave.engine.prefill_share import PrefillShare
from adyton_enclave.engine.prefix_cache import PrefixCache
from adyton_enclave.engine.request import TokenLogprob
from adyton_enclave.engine.runner import BatchRunner
from adyton_enclave.engine.sampler import Logits
from adyton_enclave.engine.scheduler import Scheduler, Work
from adyton_enclave.engine.sequence import Group, Phase, Sequence
from adyton_enclave.engine.settings import EngineConfig
from adyton_enclave.engine.step_cost import StepCost
from adyton_enclave.engine.tree_group import Order
from adyton_protocol.errors import Cancelled, DeadlineExceeded, EngineError, EngineStopped, OutOfMemory


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneStatus:
    """What the rest of the engine may know about a lane; numbers only."""

    running: int
    waiting_requests: int
    finished_requests: int
    computed_tokens: int
    kv_cells_used: int
    kv_cells_kept: int
    kv_cells_total: int


class Lane:
    """The loop's state for one model."""

    def __init__(
        self,
        model: LlamaModel,
        config: EngineConfig,
        *,
        hidden_states: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Allocate the context, one that keeps ``hidden_states`` on request; ``clock`` counts seconds."""
        self.model = model
        self._clock = clock
        self.context = LlamaContext(model, config, hidden_states=hidden_states)
        self.budget = KvBudget(self.context.n_cells)
        self._cache = OrderedKvCache(self.context, self.budget, config.max_sequences)
        # The first ids run, then come the plug and the eraser.
        first_id = config.max_sequences + 2
        kept_ids = range(first_id, first_id + config.cached_sequences)
        self._prefixes = PrefixCache(self._cache, kept_ids, config.prefix_cells)
        self._runner = BatchRunner(self.context)
        self._drawer = Drawer(model)
        self._share = PrefillShare(
            config.prefill_tokens or config.n_ubatch, fixed=bool(config.prefill_tokens)
        )
        self._cost = StepCost()
        self._scheduler = Scheduler(
            budget=self.budget,
            memory=self._cache,
            max_sequences=config.max_sequences,
            n_rows=self.context.n_rows,
            n_batch=self.context.n_batch,
            prefill_tokens=self._share.tokens,
            cache=self._prefixes,
        )
        self._groups: dict[int, Group] = {}
        self._unstarted: dict[int, Group] = {}
        self._touched: dict[int, Group] = {}
        self._finished = 0
        self._computed = 0

    @property
    def busy(self) -> bool:
        """True while a step would do something."""
        return self._scheduler.busy

    @property
    def stream_s(self) -> float | None:
        """What a step of its streams alone would take, as far as is known; None where nobody streams."""
        n_streams = self._scheduler.n_streams
        return self._cost.expected_s(n_streams) if n_streams else None

    @property
    def status(self) -> LaneStatus:
        """A consistent picture; take it in the loop thread, between two steps."""
        return LaneStatus(
            running=len(self._scheduler.running),
            waiting_requests=sum(group.queued for group in self._unstarted.values()),
            finished_requests=self._finished,
            computed_tokens=self._computed,
            kv_cells_used=self.budget.used,
            kv_cells_kept=self._prefixes.cells,
            kv_cells_total=self.budget.total,
        )

    @property
    def waiting(self) -> Counter[str]:
        """Requests that were never computed, by tenant."""
        return Counter(group.request.tenant for group in self._unstarted.values() if group.queued)

    def add(self, group: Group) -> None:
        """Take in a request."""
        self._groups[id(group)] = self._unstarted[id(group)] = group
        self._scheduler.add(group)

    def obey(self, order: Order) -> None:
        """Do something in a tree, unless it is over."""
        if id(order.group) in self._groups:
            order.obey(self._scheduler)

    def step(self, *, crowded: bool = False, limit_s: float | None = None) -> None:
        """Compute one step.

        Args:
            crowded: Other models wait for their turn, so keep it short.
            limit_s: How short, where streams of theirs wait for it.

        Raises:
            EngineStopped: The context is unusable, and with it the engine.
        """
        began_s = self._clock()
        work = self._plan(crowded=crowded, limit_s=limit_s)
        if work:
            count = sum(item.count for item in work)
            self._cache.prepare(count)
            # Prompts have a share of their own.
            has_prompt = any(item.count > 1 and item.sequence.probe is None for item in work)
            started_s = self._clock()
            try:
                outputs = self._runner.run(work)
            except NoKvSlot as error:
                self._mistrust_books(error)
            else:
                decoding = sum(item.count == 1 for item in work)
                self._share.observe(decoding, count - decoding, self._clock() - started_s)
                self._cache.placed(count)
                self._computed += count
                self._scheduler.advance(work)
                drawing = [item.sequence for item in work if item.wants_logits]
                if any(item.sequence.probe is not None for item in work):
                    outputs = self._measure(work, outputs)
                self._draw(drawing, outputs.logits)
                if not has_prompt:
                    self._cost.observe(count, self._clock() - began_s)
        if self._unstarted:
            self._unstarted = {key: group for key, group in self._unstarted.items() if not group.started}

    def touched(self) -> list[Group]:
        """Groups whose mailboxes have something to deliver since the last call."""
        touched = list(self._touched.values())
        self._touched.clear()
        return touched

    def sweep(self, now_s: float) -> None:
        """End requests that were cancelled or whose time is up."""
        for group in list(self._groups.values()):
            if group.mailbox.cancelled:
                self.fail(group, Cancelled("the request was cancelled"))
            elif group.deadline_s is not None and now_s >= group.deadline_s:
                self.fail(group, DeadlineExceeded("the request's time limit passed"))

    @property
    def next_deadline_s(self) -> float | None:
        """When the first of its requests runs out of time."""
        return min((g.deadline_s for g in self._groups.values() if g.deadline_s is not None), default=None)

    def fail(self, group: Group, error: EngineError) -> None:
        """End a request early and free everything it holds."""
        self._scheduler.drop_all(group)
        group.mailbox.close(error)
        self._forget(group)

    def forget_namespaces(self, namespaces: Collection[bytes]) -> None:
        """Give up what is kept for these namespaces, and keep nothing more for them."""
        self._prefixes.forget(namespaces)
        for group in self._groups.values():
            if group.cache_namespace in namespaces:
                group.cache_namespace = None

    def fail_all(self, make_error: Callable[[], EngineError]) -> list[Group]:
        """End every request without touching llama.cpp, whose state may be broken."""
        groups = list(self._groups.values())
        self._groups.clear()
        for group in groups:
            group.mailbox.close(make_error())
        return groups

    def erase(self) -> None:
        """Overwrite the cells of whatever ended in the last step."""
        self._cache.erase()

    def close(self) -> None:
        """Free the context, and leave nothing of what still ran."""
        self.context.scrub()
        self.context.close()

    def _plan(self, *, crowded: bool, limit_s: float | None) -> list[Work]:
        most_tokens = None if limit_s is None else self._cost.within(limit_s)
        try:
            return self._scheduler.plan(crowded=crowded, most_tokens=most_tokens)
        except OutOfMemory as error:
            self.fail(self._scheduler.running[0].group, error)
            return []

    def _mistrust_books(self, error: NoKvSlot) -> None:
        """Take the cells in use for all there are: llama.cpp has none where our books say that it has.

        Nothing was computed, so nobody was harmed. The next plan preempts, or fails a request that is alone.
        """
        if not self.budget.used:
            raise EngineStopped("llama.cpp has no cells in an empty cache") from error
        self.budget.total = self.budget.used

    def _measure(self, work: list[Work], outputs: Outputs) -> Outputs:
        """Let probes read their rows; return the others, in order."""
        probing: list[tuple[Sequence, Outputs]] = []
        others: list[int] = []
        begin = 0
        for item in work:
            if item.sequence.probe is not None:
                end = begin + len(item.probed)
                probing.append((item.sequence, outputs.rows(slice(begin, end))))
                begin = end
            elif item.wants_logits:
                others.append(begin)
                begin += 1
        for sequence, found in probing:
            probe = sequence.probe
            if sequence.phase is not Phase.RUNNING or probe is None:
                continue  # Its group failed a moment ago.
            if not probe.read(found, sequence.token_ids):
                self.fail(sequence.group, EngineError("the model computed something that is no number"))
            elif not sequence.n_remaining:
                self._scheduler.pause(sequence)
                sequence.report()
                self._touched[id(sequence.group)] = sequence.group
        return outputs.rows(others)

    def _draw(self, sequences: Seq[Sequence], rows: Logits) -> None:
        for sequence, drawn in zip(sequences, self._drawer.draw(sequences, rows), strict=True):
            if sequence.phase is not Phase.RUNNING:
                continue  # Its group failed a moment ago.
            if isinstance(drawn, EngineError):
                self.fail(sequence.group, drawn)
            else:
                self._accept(sequence, drawn.token_id, drawn.detail)

    def _accept(self, sequence: Sequence, token_id: int, detail: TokenLogprob | None) -> None:
        """Append a drawn token and do what follows from it."""
        group = sequence.group
        self._touched[id(group)] = group
        phase = sequence.take(token_id, self._piece(group, token_id), detail)
        if phase is Phase.PAUSED:
            self._scheduler.pause(sequence)
        elif phase is Phase.DONE:
            self._scheduler.finish(sequence)
            if group.over:
                group.mailbox.close()
                self._forget(group)

    def _piece(self, group: Group, token_id: int) -> bytes | None:
        """Bytes of a drawn token as the group wants to see them; None when it ends the text."""
        if token_id in self.model.eog:
            return None
        piece = self.model.pieces[token_id]
        if not piece and token_id in group.request.visible_control_ids:
            return self.model.token_text(token_id).encode()
        return piece

    def _forget(self, group: Group) -> None:
        self._groups.pop(id(group), None)
        self._unstarted.pop(id(group), None)
        self._finished += 1
        self._touched[id(group)] = group
