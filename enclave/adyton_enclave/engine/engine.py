# SPDX-License-Identifier: Apache-2.0
"""The engine: one thread that steps every model, and the door through which asyncio submits requests.

All state of the computation belongs to the loop thread. What crosses over does so in two places: the inbox
(requests and wake-ups, under one lock) and, once per step and event loop, a :class:`Doorbell`. When the
loop thread fails, every request fails with :class:`EngineStopped`, new ones are refused, and ``failed`` is set;
nothing hangs and nothing is retried on a cache whose state is unknown.
"""

import asyncio
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Self, TypeVar

from adyton_enclave.engine.choice import ChoiceGroup
from adyton_enclave.engine.doorbell import Doorbell
from adyton_enclave.engine.embedder import (
    Embedder,
    EmbeddingRequest,
    Embeddings,
    EmbeddingTask,
    check_inputs,
)
from adyton_enclave.engine.evaluation import Evaluation, EvaluationRequest
from adyton_enclave.engine.generation import Generation, Mailbox
from adyton_enclave.engine.guests import GUEST_SHARE
from adyton_enclave.engine.lane import Lane, LaneStatus
from adyton_enclave.engine.loaded_model import LoadedModel
from adyton_enclave.engine.request import KEY_BYTES, GenerationRequest, Usage
from adyton_enclave.engine.sequence import Group
from adyton_enclave.engine.settings import EngineConfig, ModelSpec
from adyton_enclave.engine.thread_pool import ThreadPool
from adyton_enclave.engine.tree import Link, Tree, TreeMailbox
from adyton_enclave.engine.tree_group import Order, TreeGroup
from adyton_enclave.engine.turns import Turns
from adyton_enclave.engine.turnstile import Turnstile
from adyton_protocol.errors import (
    ConfigError,
    ContextOverflow,
    EngineStopped,
    InvalidRequest,
    LocalProtocolError,
    QueueFull,
    UnknownModel,
    UnsuitableModel,
)
from adyton_protocol.sealed_model import ModelKey

_log: Final = logging.getLogger(__name__)
DELIVERY_INTERVAL_S: Final = 0.002
"""Tokens of small models come faster than anybody reads; what comes within this time is delivered together. First
tokens and ends do not wait."""

_STOP_TIMEOUT_S: Final = 60.0

M = TypeVar("M")
G = TypeVar("G", bound=Group)


class Engine:
    """Continuous batching over one or several models. ``submit`` from asyncio; the rest happens elsewhere."""

    def __init__(
        self,
        config: EngineConfig,
        models: Sequence[ModelSpec],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the measured configuration; nothing is loaded before :meth:`start`."""
        if len({spec.name for spec in models}) != len(models) or not models:
            raise ConfigError("an engine needs at least one model, each with a name of its own")
        self._config = config
        self._specs = tuple(models)
        self._clock = clock
        self._models: dict[str, LoadedModel] = {}
        self._lanes: dict[str, Lane] = {}
        self._embedders: dict[str, Embedder] = {}
        self._stations: dict[str, Lane | Embedder] = {}
        self._wake = threading.Condition()
        self._inbox: list[Group | Order] = []
        self._turnstiles: dict[str, Turnstile] = {}
        self._embedding_inbox: list[EmbeddingTask] = []
        self._embedding: dict[str, list[EmbeddingTask]] = {}
        self._forgotten: set[bytes] = set()
        self._notified = False
        self._stopping = False
        self._failed = False
        self._statuses: dict[str, LaneStatus] = {}
        self._last_delivery_s = clock()
        self._undelivered: dict[int, Group] = {}
        self._turns = Turns(name for spec in self._specs for name in (spec.name, _embedding_turn(spec.name)))
        self._thread: threading.Thread | None = None
        self._pool: ThreadPool | None = None
        self._bells: dict[asyncio.AbstractEventLoop, Doorbell] = {}

    @property
    def models(self) -> Mapping[str, LoadedModel]:
        """Loaded models by name, in the configured order; empty before :meth:`start`."""
        return MappingProxyType(self._models)

    @property
    def failed(self) -> bool:
        """True when the loop died of an error. Only a new process helps."""
        return self._failed

    @property
    def running(self) -> bool:
        """True while requests are taken."""
        return self._thread is not None and not self._stopping and not self._failed

    def status(self) -> Mapping[str, LaneStatus]:
        """Numbers per model as of the last step, for metrics. Any thread may ask."""
        return dict(self._statuses)

    def start(self, keys: Mapping[str, ModelKey] = MappingProxyType({})) -> Self:
        """Load every model and start the loop.

        Args:
            keys: Of the sealed models, by their names.

        Raises:
            ConfigError: A file, a digest, a key or a size is wrong. Everything loaded so far is freed, and the engine
                may be started again.
        """
        if self._thread is not None:
            raise LocalProtocolError("the engine was started already")
        pool = self._pool = ThreadPool(self._config.compute_threads)
        try:
            for spec in self._specs:
                model = self._models[spec.name] = LoadedModel(spec, self._config, keys.get(spec.name))
                if spec.decodes:
                    lane = self._lanes[spec.name] = Lane(
                        model.llama, self._config, hidden_states=spec.hidden_states, clock=self._clock
                    )
                    self._stations[spec.name] = lane
                    pool.attach(lane.context)
                    self._statuses[spec.name] = lane.status
                    self._turnstiles[spec.name] = Turnstile(self._config.max_queue, self._clock())
                if spec.embeddings:
                    embedder = Embedder(model.llama, self._config, spec.n_ctx, self._clock)
                    self._embedders[spec.name] = embedder
                    self._stations[_embedding_turn(spec.name)] = embedder
                    self._embedding[spec.name] = []
                    pool.attach(embedder.context)
        except BaseException:
            self._free()
            # As before the attempt, so that the next one may go better: another key, a file that is complete.
            self._models.clear()
            self._statuses.clear()
            self._pool = None
            raise
        self._thread = threading.Thread(target=self._run, name="adyton-engine", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """End the loop, fail what still runs with EngineStopped, free everything. Idempotent; blocks."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join(_STOP_TIMEOUT_S)
            if self._thread.is_alive():
                # Freeing memory under a running computation would be worse than leaking it.
                self._failed = True
                return
        self._free()

    def submit(self, request: GenerationRequest) -> Generation:
        """Queue a request. Call in the event loop that will iterate.

        Raises:
            UnknownModel: No such model.
            UnsuitableModel: It only makes embeddings, or only judges answers.
            InvalidRequest: Token ids outside the vocabulary, or a prefix of a choice that cannot be.
            ContextOverflow: Prompt and answer cannot fit; no work was done.
            QueueFull: Too many requests wait; ``retry_after_s`` says when to come back.
            EngineStopped: The engine is not running.
        """
        model = self._decoder(request.model)
        if not model.generates:
            raise UnsuitableModel("this model judges answers and gives none", param="model")
        self._check(request, model)
        mailbox = self._enter(request, Mailbox, ChoiceGroup)[0]
        return Generation(request, mailbox, self._notify)

    def open_tree(self, request: GenerationRequest) -> Tree:
        """Open a tree search on a prompt. Call in the event loop that will use it, and close it.

        Args:
            request: ``n`` must be 1. ``max_tokens`` is by how many tokens any branch may exceed the prompt;
                ``stop`` ends a branch; ``timeout_s`` counts from now, and ends the tree.

        Raises:
            UnknownModel: No such model.
            InvalidRequest: More than one choice, or token ids outside the vocabulary.
            ContextOverflow: The longest branch cannot fit.
            QueueFull: Too many requests wait; ``retry_after_s`` says when to come back.
            EngineStopped: The engine is not running.
        """
        model = self._decoder(request.model)
        if request.n != 1:
            raise InvalidRequest("a tree grows from one choice", param="n")
        self._check(request, model)
        return self._plant(request, model)

    async def evaluate(self, request: EvaluationRequest) -> Evaluation:
        """Say what a model thinks of given tokens. To ask again about continuations, open a tree instead.

        Raises:
            UnknownModel: No such model.
            InvalidRequest: Token ids outside the vocabulary, or a position outside the tokens.
            ContextOverflow: The tokens do not fit.
            QueueFull: Too many requests wait; ``retry_after_s`` says when to come back.
            Cancelled: The time limit passed.
            EngineError: What else went wrong.
        """
        model = self._decoder(request.model)
        if len(request.token_ids) > model.n_ctx:
            raise ContextOverflow(
                f"there are {len(request.token_ids)} tokens, but the context holds {model.n_ctx}"
            )
        generation = GenerationRequest(
            model=request.model,
            prompt_token_ids=request.token_ids,
            max_tokens=1,
            key=bytes(KEY_BYTES),  # Nothing is drawn.
            tenant=request.tenant,
            timeout_s=request.timeout_s,
            priority=request.priority,
            cache_namespace=request.cache_namespace,
        )
        self._check_token_ids(request.token_ids, model)
        with self._plant(generation, model) as tree:
            return await tree.root.evaluate(request.question)

    def _plant(self, request: GenerationRequest, model: LoadedModel) -> Tree:
        mailbox, group = self._enter(request, TreeMailbox, TreeGroup)
        return Tree(Link(group, mailbox, model, self._send, self._notify))

    def _decoder(self, name: str) -> LoadedModel:
        model = self._find(name)
        if not (model.generates or model.scores):
            raise UnsuitableModel("this model only makes embeddings", param="model")
        return model

    def _enter(
        self,
        request: GenerationRequest,
        make_mailbox: Callable[[Doorbell, Usage], M],
        make_group: Callable[[GenerationRequest, M, float | None], G],
    ) -> tuple[M, G]:
        """Put a request into the inbox, if there is room in the queue."""
        loop = asyncio.get_running_loop()
        usage = Usage(prompt_tokens=len(request.prompt_token_ids), completion_tokens=0)
        deadline_s = None if request.timeout_s is None else self._clock() + request.timeout_s
        with self._wake:
            if not self.running:
                raise EngineStopped("the engine is not running")
            self._turnstiles[request.model].enter(request.tenant, self._clock())
            mailbox = make_mailbox(self._bell(loop), usage)
            group = make_group(request, mailbox, deadline_s)
            self._inbox.append(group)
            self._wake.notify()
        return mailbox, group

    def _send(self, order: Order) -> None:
        """Put an order into the inbox; one that comes too late is ignored."""
        with self._wake:
            self._inbox.append(order)
            self._wake.notify()

    @staticmethod
    def _check_token_ids(token_ids: Sequence[int], model: LoadedModel) -> None:
        if not all(0 <= token_id < model.n_vocab for token_id in token_ids):
            raise InvalidRequest("a token id lies outside the vocabulary", param="prompt")

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Turn texts into vectors. Cancelling the caller stops the work within one step.

        Raises:
            UnknownModel: No such model.
            UnsuitableModel: It makes no embeddings.
            InvalidRequest: Token ids outside the vocabulary.
            ContextOverflow: An input cannot fit; no work was done.
            QueueFull: Too many requests wait; ``retry_after_s`` says when to come back.
            Cancelled: The request's time limit passed.
            EngineStopped: The engine is not running.
        """
        model = self._find(request.model)
        if not model.embedding_width:
            raise UnsuitableModel("this model makes no embeddings", param="model")
        check_inputs(request.inputs, n_vocab=model.n_vocab, n_ctx=model.n_ctx)
        deadline_s = None if request.timeout_s is None else self._clock() + request.timeout_s
        task = EmbeddingTask(request, deadline_s)
        with self._wake:
            if not self.running:
                raise EngineStopped("the engine is not running")
            tasks = self._embedding[request.model]
            if len(tasks) > self._config.max_queue:
                waiting = sum(other.request.n_tokens for other in tasks)
                retry_after_s = self._embedders[request.model].retry_after_s(waiting)
                raise QueueFull("too many requests wait", retry_after_s=retry_after_s)
            tasks.append(task)
            self._embedding_inbox.append(task)
            self._wake.notify()
        try:
            return await task.wait()
        except asyncio.CancelledError:
            task.cancelled = True
            self._notify()
            raise
        finally:
            with self._wake:
                tasks.remove(task)

    def _find(self, name: str) -> LoadedModel:
        model = self._models.get(name)
        if model is None:
            if not self.running:
                raise EngineStopped("the engine is not running")
            raise UnknownModel("no model of this name is loaded", param="model")
        return model

    def _check(self, request: GenerationRequest, model: LoadedModel) -> None:
        self._check_token_ids(request.prompt_token_ids, model)
        if not all(0 <= token_id < model.n_vocab for token_id, _ in request.logit_bias):
            raise InvalidRequest("a token id lies outside the vocabulary", param="logit_bias")
        needed = len(request.prompt_token_ids) + request.max_tokens
        if needed > model.n_ctx:
            raise ContextOverflow(
                f"the prompt has {len(request.prompt_token_ids)} tokens and asks for {request.max_tokens} more, "
                f"but the context holds {model.n_ctx}",
                param="max_tokens" if len(request.prompt_token_ids) < model.n_ctx else "messages",
            )

    def forget_namespaces(self, namespaces: Collection[bytes]) -> None:
        """Give up, before the next step, whatever is kept for these cache namespaces. From any thread."""
        if namespaces:
            with self._wake:
                self._forgotten.update(namespaces)
                self._notified = True
                self._wake.notify()

    def _notify(self) -> None:
        """Wake the loop, so that it looks for cancelled requests."""
        with self._wake:
            self._notified = True
            self._wake.notify()

    def _run(self) -> None:
        """Body of the loop thread."""
        try:
            while self._take_in():
                self._step()
            self._end("the engine is shutting down")
        except BaseException as error:  # noqa: BLE001  # whatever it is, no request may hang
            # SECURITY: the class name only. Messages and tracebacks of foreign code may hold content.
            _log.critical("the engine loop died of %s", type(error).__name__)
            self._failed = True
            self._end("the engine has failed")

    def _take_in(self) -> bool:
        """Wait for something to do and take new requests in; False when it is time to stop."""
        busy = any(lane.busy for lane in self._stations.values())
        with self._wake:
            while not (self._inbox or self._embedding_inbox or self._notified or self._stopping or busy):
                if not self._rest():
                    break
            arrived, self._inbox = self._inbox, []
            to_embed, self._embedding_inbox = self._embedding_inbox, []
            forgotten, self._forgotten = self._forgotten, set()
            self._notified = False
            stopping = self._stopping
        for item in arrived:
            if isinstance(item, Order):
                self._lanes[item.group.request.model].obey(item)
            else:
                self._lanes[item.request.model].add(item)
        for task in to_embed:
            self._embedders[task.request.model].add(task)
        if forgotten:
            for lane in self._lanes.values():
                lane.forget_namespaces(forgotten)
        return not stopping

    def _rest(self) -> bool:
        """Sleep until something comes; False when a deadline passed. Needs the lock."""
        # A paused tree computes nothing, but its time runs.
        return self._wake.wait(self._patience_s())

    def _patience_s(self) -> float | None:
        """Time until some request's deadline."""
        deadlines = [s for lane in self._lanes.values() if (s := lane.next_deadline_s) is not None]
        return max(0.0, min(deadlines) - self._clock()) if deadlines else None

    def _step(self) -> None:
        now_s = self._clock()
        touched: list[Group] = []
        for lane in self._stations.values():
            lane.sweep(now_s)
        self._compute()
        for name, lane in self._lanes.items():
            touched += lane.touched()
            self._statuses[name] = lane.status
            with self._wake:
                waiting = lane.waiting
                waiting.update(
                    item.request.tenant
                    for item in self._inbox
                    if isinstance(item, Group) and item.request.model == name
                )
                self._turnstiles[name].observe(waiting, now_s)
        self._undelivered.update((id(group), group) for group in touched)
        if self._should_deliver():
            self._deliver(self._undelivered.values())
            self._undelivered.clear()
        for lane in self._lanes.values():
            lane.erase()

    def _compute(self) -> None:
        """One step of the lane whose turn it is."""
        busy = [name for name, lane in self._stations.items() if lane.busy]
        if len(busy) == 1:
            # Whoever is alone owes nobody the time.
            self._stations[busy[0]].step()
            return
        streams_s = {name: lane.stream_s for name, lane in self._lanes.items() if name in busy}
        background = [name for name, stream_s in streams_s.items() if stream_s is None]
        name = self._turns.next(busy, background)
        if name is None:
            return
        started_s = self._clock()
        shortest_s = min((stream_s for stream_s in streams_s.values() if stream_s is not None), default=None)
        if name in background and shortest_s is not None:
            self._lanes[name].step(crowded=True, limit_s=GUEST_SHARE * shortest_s)
        else:
            self._stations[name].step(crowded=True)
        self._turns.charge(name, self._clock() - started_s)

    def _should_deliver(self) -> bool:
        """False while more is about to follow: waking, sealing and sending cost as much for one token as for three."""
        now_s = self._clock()
        waited = now_s - self._last_delivery_s >= DELIVERY_INTERVAL_S
        if (
            waited
            or any(group.mailbox.urgent for group in self._undelivered.values())
            or not any(lane.busy for lane in self._lanes.values())
        ):
            self._last_delivery_s = now_s
            return True
        return False

    def _deliver(self, groups: Collection[Group]) -> None:
        """Hand a step's events to each event loop in one call."""
        by_bell: dict[Doorbell, list[Callable[[], None]]] = defaultdict(list)
        for group in groups:
            by_bell[group.mailbox.bell].append(group.mailbox.collect(group.usage))
        for bell, receivers in by_bell.items():
            if bell.alive:
                bell.ring(receivers)
                continue
            # The loop was closed, so its callers are gone; their sequences must go too.
            for group in groups:
                if group.mailbox.bell is bell:
                    group.mailbox.cancelled = True

    def _bell(self, loop: asyncio.AbstractEventLoop) -> Doorbell:
        """The doorbell of the running loop. Needs the lock."""
        bell = self._bells.get(loop)
        if bell is None:
            for other in [other for other, stale in self._bells.items() if not stale.alive]:
                self._bells.pop(other).close()
            bell = self._bells[loop] = Doorbell(loop)
        return bell

    def _end(self, why: str) -> None:
        """Fail everything that is left."""
        with self._wake:
            self._stopping = True
            arrived, self._inbox = self._inbox, []
            unembedded, self._embedding_inbox = self._embedding_inbox, []
        left = [item for item in arrived if isinstance(item, Group)]
        for group in left:
            group.mailbox.close(EngineStopped(why))
        for lane in self._lanes.values():
            left += lane.fail_all(lambda: EngineStopped(why))
        for task in unembedded:
            task.fail(EngineStopped(why))
        for embedder in self._embedders.values():
            embedder.fail_all(lambda: EngineStopped(why))
        self._deliver(left)

    def _free(self) -> None:
        for lane in self._lanes.values():
            lane.close()
        for embedder in self._embedders.values():
            embedder.close()
        for model in self._models.values():
            model.close()
        self._lanes.clear()
        self._embedders.clear()
        self._stations.clear()
        for loop, bell in self._bells.items():
            try:
                loop.call_soon_threadsafe(bell.close)
            except RuntimeError:  # closed
                bell.close()
        self._bells.clear()
        if self._pool is not None:
            self._pool.close()


def _embedding_turn(model: str) -> str:
    """By what name a model's embeddings take turns; no model has such a name."""
    return f"embeddings of {model}"
