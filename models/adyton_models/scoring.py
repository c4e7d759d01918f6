# SPDX-License-Identifier: Apache-2.0
"""Scores solutions in this process, with the very adapter, framing, head and engine of the enclave.

>>> with ScorerRunner(path, adapter) as scorer:
...     scores = scorer.score(problem, scorer.split(solution))
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from adyton_enclave.engine import Engine, EngineConfig, ModelSpec
from adyton_enclave.scoring import Scorer, parse_adapter
from adyton_enclave.scoring.adapter import MAX_ADAPTER_BYTES
from adyton_enclave.scoring.files import Ingredients
from adyton_enclave.scoring.head import MAX_HEAD_BYTES, read_head
from adyton_models.model_files import pin_of
from adyton_protocol.errors import AdapterError, ConfigError, EngineError

PARALLEL: Final = 32
_NAME: Final = "scorer"
_TYPICAL_TOKENS: Final = 512
_AHEAD: Final = 2


def read_ingredients(adapter: Path | bytes, head: Path | None = None) -> Ingredients:
    """Adapter and head from files of our own.

    Args:
        adapter: A file, or its bytes.
        head: For adapters of kind `head`.

    Raises:
        AdapterError: One is missing, malformed, or does not go with the other.
    """
    data = adapter if isinstance(adapter, bytes) else _read(adapter, MAX_ADAPTER_BYTES, "adapter")
    parsed = parse_adapter(data)
    if head is None:
        return Ingredients(parsed)
    if parsed.activation is None:
        raise AdapterError("there is a head file, but the adapter reads logits; leave --head out")
    return Ingredients(parsed, read_head(_read(head, MAX_HEAD_BYTES, "head"), parsed.activation))


def _read(path: Path, limit: int, what: str) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        raise AdapterError(f"cannot read the {what} file {path}: {error.strerror}") from error
    if len(data) > limit:
        raise AdapterError(f"the {what} file {path} has more than {limit} bytes")
    return data


class ScorerRunner:
    """A scorer loaded as an enclave would load it. Use as a context manager."""

    def __init__(
        self,
        path: Path,
        adapter: Path | bytes,
        *,
        head: Path | None = None,
        n_ctx: int = 1024,
        threads: int = 1,
        parallel: int = PARALLEL,
    ) -> None:
        """Load it. Golden vectors are not looked at; see :meth:`check_golden`.

        Args:
            path: The GGUF.
            adapter: Its adapter file, or the bytes of one.
            head: Its head file, for adapters of kind `head`.
            n_ctx: Most tokens of problem and steps together.
            threads: Compute threads.
            parallel: Most solutions that are scored together; each takes KV cells.

        Raises:
            ConfigError: The files are unusable or do not go together; the message says why.
        """
        ingredients = read_ingredients(adapter, head)
        self._parallel = parallel
        config = EngineConfig(
            threads=threads,
            n_ctx_total=max(n_ctx, parallel * min(n_ctx, _TYPICAL_TOKENS)),
            n_batch=max(512, parallel),
            max_sequences=parallel,
            max_queue=_AHEAD * parallel,
            cache_cells=0,
        )
        spec = ModelSpec(
            name=_NAME,
            path=str(path),
            pin=pin_of(path),
            n_ctx=n_ctx,
            generates=False,
            scorer=ingredients.parts,
            hidden_states=ingredients.head is not None,
        )
        self._engine = Engine(config, [spec]).start()
        self._runner = asyncio.Runner()
        try:
            self.scorer = Scorer(self._engine, _NAME, ingredients)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free everything. Idempotent."""
        self._runner.close()
        self._engine.stop()

    def split(self, solution: str) -> list[str]:
        """The steps of a solution, by the adapter's rule."""
        return self.scorer.adapter.splitter.split(solution)

    def check_golden(self) -> None:
        """Compare with the adapter's golden vectors, as an enclave does when it loads the scorer.

        Raises:
            GoldenMismatch: A score differs, or there are no golden vectors.
        """
        self._runner.run(self.scorer.check_golden())

    def score(self, problem: str, steps: Sequence[str]) -> list[float]:
        """A calibrated score from 0 to 1 for each step; nothing for no step.

        Raises:
            ConfigError: Something is blank, or it does not fit into the context.
        """
        return self.score_many([(problem, steps)])[0]

    def score_many(
        self,
        pairs: Sequence[tuple[str, Sequence[str]]],
        report: Callable[[int], None] = lambda _done: None,
    ) -> list[list[float]]:
        """Score many solutions, `parallel` of them together; the same scores as one by one.

        Args:
            pairs: Problems, each with the steps of one solution.
            report: Called with the number of solutions that are done.

        Raises:
            ConfigError: Something is blank, or it does not fit into the context; names the solution.
        """
        return self._runner.run(self._score_many(pairs, report))

    async def _score_many(
        self, pairs: Sequence[tuple[str, Sequence[str]]], report: Callable[[int], None]
    ) -> list[list[float]]:
        results: list[list[float]] = [[] for _ in pairs]
        waiting = iter(range(len(pairs)))
        done = 0
        failure: ConfigError | None = None

        async def work() -> None:
            nonlocal done, failure
            for index in waiting:
                problem, steps = pairs[index]
                try:
                    if steps and failure is None:
                        results[index] = list((await self.scorer.score(problem, steps))[0])
                except EngineError as error:
                    failure = ConfigError(f"solution {index + 1} cannot be scored: {error}")
                    failure.__cause__ = error
                done += 1
                report(done)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._parallel, len(pairs))):
                group.create_task(work())
        if failure is not None:
            raise failure
        return results
