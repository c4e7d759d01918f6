# SPDX-License-Identifier: Apache-2.0
"""The embedding lane of one model: texts of many requests in, one vector for each out.

A step is either several whole texts or a piece of one long text, in an empty KV cache. So a text stands at the
beginning of the cache or behind whole texts that it cannot see, in the order of its tokens: as far as the engine's
answers do not depend on their company (``invariance``), its vector depends on nothing but the text. Texts go through
an encoder one by one for the same reason. The loop shares its time between lanes of embeddings and of generation, and
a step that others wait for is short.

Tenants take turns, text by text; within a tenant, first come first served.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from adyton_enclave.engine.embedding_context import EmbeddingContext, Pooling, Rows, pooling_of
from adyton_enclave.engine.llama import LlamaModel
from adyton_enclave.engine.request import Usage
from adyton_enclave.engine.settings import EngineConfig
from adyton_protocol.errors import Cancelled, ContextOverflow, EngineError, InvalidRequest

Vector = npt.NDArray[np.float32]

CROWDED_STEP_TOKENS: Final = 32
"""Most tokens in a step that somebody else waits for; a few times as long as one of the tokens of running streams."""
_SMOOTHING: Final = 0.2
_MIN_RETRY_S: Final = 1.0
_MAX_RETRY_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingRequest:
    """Some texts, one vector each.

    Attributes:
        model: Name of a loaded model that embeds.
        inputs: Token ids of each text, with the special tokens that the model wants.
        tenant: Who shares a place in the queue; not content.
        timeout_s: Seconds from submission after which the work is dropped; None is never.
    """

    model: str
    inputs: tuple[tuple[int, ...], ...] = field(repr=False)
    tenant: str = ""
    timeout_s: float | None = None

    def __post_init__(self) -> None:
        """Check what needs no model."""
        if not self.inputs:
            raise InvalidRequest("there is nothing to embed", param="input")
        if not all(self.inputs):
            raise InvalidRequest("an input has no tokens", param="input")

    @property
    def n_tokens(self) -> int:
        """Tokens of all texts."""
        return sum(map(len, self.inputs))


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """Vectors as the model makes them, not normalised: shape ``(width,)`` each, in the order of the inputs."""

    vectors: tuple[Vector, ...] = field(repr=False)
    usage: Usage


class EmbeddingTask:
    """One request on its way. The loop thread owns it, but for ``cancelled``, which only ever becomes true."""

    __slots__ = ("_future", "_loop", "cancelled", "deadline_s", "n_done", "n_taken", "request", "vectors")

    def __init__(self, request: EmbeddingRequest, deadline_s: float | None) -> None:
        """Call in the event loop that waits; ``deadline_s`` is on the engine's monotonic clock."""
        self.request = request
        self.deadline_s = deadline_s
        self.cancelled = False
        self.n_taken = 0
        self.n_done = 0
        self.vectors: list[Vector | None] = [None] * len(request.inputs)
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[Embeddings] = self._loop.create_future()

    async def wait(self) -> Embeddings:
        """Wait for the result, or raise what ended the request early."""
        return await self._future

    def finish(self) -> None:
        """Deliver the vectors."""
        vectors = tuple(vector for vector in self.vectors if vector is not None)
        usage = Usage(prompt_tokens=self.request.n_tokens, completion_tokens=0)
        result = Embeddings(vectors=vectors, usage=usage)
        self._tell(lambda: self._future.set_result(result))

    def fail(self, error: EngineError) -> None:
        """Deliver an error."""
        self._tell(lambda: self._future.set_exception(error))

    def _tell(self, settle: Callable[[], None]) -> None:
        def deliver() -> None:
            if not self._future.done():
                settle()

        try:
            self._loop.call_soon_threadsafe(deliver)
        except RuntimeError:
            # The loop was closed, so its callers are gone.
            self.cancelled = True


class _Text:
    """One text in computation."""

    __slots__ = ("index", "n_computed", "task", "total")

    def __init__(self, task: EmbeddingTask, index: int) -> None:
        self.task = task
        self.index = index
        self.n_computed = 0
        self.total: npt.NDArray[np.float64] | None = None

    @property
    def token_ids(self) -> tuple[int, ...]:
        return self.task.request.inputs[self.index]


@dataclass(frozen=True, slots=True)
class _Piece:
    """Tokens ``start`` to ``start + count`` of a text."""

    text: _Text
    start: int
    count: int


class Embedder:
    """The loop's state for the embeddings of one model. Owned by the loop thread."""

    def __init__(
        self, model: LlamaModel, config: EngineConfig, n_ctx: int, clock: Callable[[], float]
    ) -> None:
        """Allocate a context.

        Raises:
            ConfigError: The model makes no embeddings, or llama.cpp refuses the sizes.
        """
        self._pooling: Pooling = pooling_of(model)
        self.context = EmbeddingContext(model, config, n_ctx)
        self._clock = clock
        self._waiting: OrderedDict[str, deque[EmbeddingTask]] = OrderedDict()
        self._tasks: dict[int, EmbeddingTask] = {}
        self._current: _Text | None = None
        self._seconds_per_token = 0.0

    @property
    def busy(self) -> bool:
        """True while a step would do something."""
        return bool(self._tasks)

    def retry_after_s(self, waiting_tokens: int) -> float:
        """Time until half of what waits is done, as fast as it went lately. Any thread may ask."""
        return min(max(waiting_tokens * self._seconds_per_token / 2, _MIN_RETRY_S), _MAX_RETRY_S)

    def add(self, task: EmbeddingTask) -> None:
        """Take in a request."""
        self._tasks[id(task)] = task
        self._waiting.setdefault(task.request.tenant, deque()).append(task)

    def sweep(self, now_s: float) -> None:
        """End requests that were cancelled or whose time is up."""
        for task in list(self._tasks.values()):
            if task.cancelled:
                self._fail(task, Cancelled("the request was cancelled"))
            elif task.deadline_s is not None and now_s >= task.deadline_s:
                self._fail(task, Cancelled("the request's time limit passed"))

    def step(self, *, crowded: bool = False) -> None:
        """Compute one step and deliver what it completes.

        Args:
            crowded: Others wait for their turn, so keep it short.

        Raises:
            EngineStopped: The context is unusable, and with it the engine.
        """
        pieces = self._plan(CROWDED_STEP_TOKENS if crowded else self.context.n_batch)
        if not pieces:
            return
        begin_s = self._clock()
        rows = self.context.compute(
            [(piece.text.token_ids[piece.start : piece.start + piece.count], piece.start) for piece in pieces]
        )
        first = 0
        for piece in pieces:
            self._pool(piece, rows[first : first + piece.count])
            first += piece.count
        # SECURITY: hidden states and cached cells are as good as the text.
        rows[:] = 0.0
        if self._current is None:
            self.context.erase()
        took_s = (self._clock() - begin_s) / first
        self._seconds_per_token += _SMOOTHING * (took_s - self._seconds_per_token)

    def fail_all(self, make_error: Callable[[], EngineError]) -> None:
        """End every request without touching llama.cpp, whose state may be broken."""
        for task in list(self._tasks.values()):
            self._remove(task)
            task.fail(make_error())

    def close(self) -> None:
        """Free the context."""
        self.context.close()

    def _plan(self, step_tokens: int) -> list[_Piece]:
        """The next piece of a long text, or whole texts of all tenants in turn as long as they fit."""
        room = self.context.n_batch if self.context.whole else min(step_tokens, self.context.n_batch)
        if self._current is not None:
            return [self._next_piece(self._current, room)]
        pieces: list[_Piece] = []
        while self._waiting and len(pieces) < self.context.max_texts:
            tenant, tasks = next(iter(self._waiting.items()))
            task = tasks[0]
            length = len(task.request.inputs[task.n_taken])
            if pieces and (length > room or self.context.whole):
                # A model that takes texts whole gets them one by one: how it computes depends on their number.
                break
            text = _Text(task, task.n_taken)
            self._take(tenant, tasks)
            if length > room:
                self._current = text
                return [self._next_piece(text, room)]
            pieces.append(_Piece(text, 0, length))
            room -= length
        return pieces

    @staticmethod
    def _next_piece(text: _Text, room: int) -> _Piece:
        count = min(room, len(text.token_ids) - text.n_computed)
        return _Piece(text, text.n_computed, count)

    def _take(self, tenant: str, tasks: deque[EmbeddingTask]) -> None:
        """Count a tenant's first text as taken, and send the tenant to the end of the round."""
        task = tasks[0]
        task.n_taken += 1
        if task.n_taken == len(task.request.inputs):
            tasks.popleft()
        if tasks:
            self._waiting.move_to_end(tenant)
        else:
            del self._waiting[tenant]

    def _pool(self, piece: _Piece, rows: Rows) -> None:
        text = piece.text
        length = len(text.token_ids)
        text.n_computed += piece.count
        match self._pooling:
            case "mean":
                # Summed row by row in the order of tokens, so that the sum does not depend on how a text is cut.
                start = np.zeros((1, rows.shape[1])) if text.total is None else text.total[np.newaxis]
                text.total = np.add.reduce(np.concatenate((start, rows)), axis=0)
            case "cls":
                text.total = rows[0].astype(np.float64) if piece.start == 0 else text.total
            case "last":
                text.total = rows[-1].astype(np.float64)
        if text.n_computed == length and text.total is not None:
            vector = text.total / length if self._pooling == "mean" else text.total
            self._complete(text, vector.astype(np.float32))

    def _complete(self, text: _Text, vector: Vector) -> None:
        if self._current is text:
            self._current = None
        task = text.task
        if id(task) not in self._tasks:
            return  # It failed a moment ago.
        if not np.isfinite(vector).all():
            self._fail(task, EngineError("the model computed something that is no number"))
            return
        task.vectors[text.index] = vector
        task.n_done += 1
        if task.n_done == len(task.vectors):
            self._remove(task)
            task.finish()

    def _fail(self, task: EmbeddingTask, error: EngineError) -> None:
        self._remove(task)
        if self._current is not None and self._current.task is task:
            self._current = None
            self.context.erase()
        task.fail(error)

    def _remove(self, task: EmbeddingTask) -> None:
        del self._tasks[id(task)]
        tenant = task.request.tenant
        tasks = self._waiting.get(tenant)
        if tasks is not None and task in tasks:
            tasks.remove(task)
            if not tasks:
                del self._waiting[tenant]


def check_inputs(inputs: Sequence[Sequence[int]], *, n_vocab: int, n_ctx: int) -> None:
    """Refuse what would be an index out of bounds in C, and what cannot fit.

    Raises:
        InvalidRequest: A token id lies outside the vocabulary.
        ContextOverflow: A text is longer than the context.
    """
    longest = max(map(len, inputs))
    if longest > n_ctx:
        raise ContextOverflow(f"an input has {longest} tokens, but the context holds {n_ctx}", param="input")
    if any(min(token_ids) < 0 or max(token_ids) >= n_vocab for token_ids in inputs):
        raise InvalidRequest("a token id lies outside the vocabulary", param="input")
