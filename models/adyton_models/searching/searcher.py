# SPDX-License-Identifier: Apache-2.0
"""A generator and its scorers loaded as an enclave would load them, asked to search.

Many problems are under way at a time, so that the engine's batches are full; what a search finds does not depend on
what is computed beside it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from adyton_enclave.engine import (
    Engine,
    EngineConfig,
    GenerationRequest,
    KvType,
    ModelSpec,
    SamplingParams,
    sampling_key,
)
from adyton_enclave.engine.noise import PathNoise
from adyton_enclave.scaling.plan import Plan
from adyton_enclave.scaling.reading import Reading, read_on
from adyton_enclave.scaling.strategies import Finding, run
from adyton_enclave.scoring import Scorer
from adyton_models.catalog import Sampling
from adyton_models.model_files import pin_of
from adyton_models.scoring import read_ingredients
from adyton_models.searching.pools import Reader, Sampled, Scored
from adyton_models.searching.shared_sampling import MOST_ANSWERS, SharedSampler
from adyton_models.serving import model_spec
from adyton_protocol.errors import ContextOverflow

T = TypeVar("T")
GENERATOR: Final = "generator"
PARALLEL: Final = 16
_KEY_STRIDE: Final = 1_000_003
_TYPICAL_TOKENS: Final = 1024
_QUEUE: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerChoice:
    """A scorer to load.

    Attributes:
        name: What its figures are shown under.
        path: Its GGUF.
        adapter: Its adapter file.
        head: Its head file, for adapters of that kind.
    """

    name: str
    path: Path
    adapter: Path
    head: Path | None = None


class Searcher:
    """Models that are loaded. Use it as a context manager.

    Attributes:
        scorers: By name, in the order that they were given in.
    """

    def __init__(
        self,
        generator: Path,
        scorers: Sequence[ScorerChoice] = (),
        *,
        sampling: Sampling,
        n_ctx: int = 1024,
        threads: int = 1,
        parallel: int = PARALLEL,
        kv_type_k: KvType = "f16",
    ) -> None:
        """Load everything.

        Args:
            generator: Its GGUF.
            scorers: What judges its answers.
            sampling: How every token is drawn.
            n_ctx: Most tokens of prompt and answer together.
            threads: Compute threads.
            parallel: Most sequences of each model that are computed together.
            kv_type_k: Type of cached keys; see :class:`EngineConfig`.

        Raises:
            ConfigError: Something cannot be loaded, or does not go together; the message says what.
        """
        self._sampling = sampling
        self._sampler: SharedSampler | None = None
        ingredients = [read_ingredients(each.adapter, each.head) for each in scorers]
        self._config = config = EngineConfig(
            threads=threads,
            n_ctx_total=max(n_ctx, parallel * min(n_ctx, _TYPICAL_TOKENS)),
            n_batch=512,
            max_sequences=parallel,
            max_queue=_QUEUE,
            cache_cells=0,
            kv_type_k=kv_type_k,
        )
        specs = [model_spec(GENERATOR, generator, n_ctx=n_ctx)]
        specs += [
            ModelSpec(
                name=f"scorer {choice.name}",
                path=str(choice.path),
                pin=pin_of(choice.path),
                n_ctx=n_ctx,
                generates=False,
                scorer=parts.parts,
                hidden_states=parts.head is not None,
            )
            for choice, parts in zip(scorers, ingredients, strict=True)
        ]
        self.engine = Engine(config, specs).start()
        try:
            self.scorers = {
                choice.name: Scorer(self.engine, f"scorer {choice.name}", parts)
                for choice, parts in zip(scorers, ingredients, strict=True)
            }
        except BaseException:
            self.close()
            raise
        self.model = self.engine.models[GENERATOR]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free everything. Idempotent."""
        if self._sampler is not None:
            self._sampler.close()
            self._sampler = None
        self.engine.stop()

    def request(self, text: str, number: int, seed: int) -> GenerationRequest:
        """The ordinary request for one answer to problem `number`; number and seed decide its draws.

        Raises:
            ContextOverflow: The problem leaves no room for an answer.
        """
        if self.model.llama.chat_template is not None:
            prompt = self.model.apply_chat_template([{"role": "user", "content": text}])
        else:
            prompt = self.model.tokenize(text)
        if len(prompt) >= self.model.n_ctx:
            raise ContextOverflow(
                f"the problem has {len(prompt)} tokens, but the context holds {self.model.n_ctx}, answer included"
            )
        sampling = self._sampling
        return GenerationRequest(
            model=GENERATOR,
            prompt_token_ids=tuple(prompt),
            max_tokens=min(sampling.max_tokens, self.model.n_ctx - len(prompt)),
            key=sampling_key(seed * _KEY_STRIDE + number),
            sampling=SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
                min_p=sampling.min_p,
            ),
            logprobs=0,
        )

    async def search(self, plan: Plan, text: str, *, number: int, seed: int, scorer: str | None) -> Finding:
        """Run a search as it is served."""
        judge = None if scorer is None else self.scorers[scorer]
        return await run(plan, self.engine, judge, self.request(text, number, seed), text)

    def sample(self, text: str, *, number: int, seeds: Sequence[int], n: int) -> list[Sampled]:
        """What a search that samples `n` whole answers draws, for each seed; beginnings in common computed once.

        The candidates are those of :func:`adyton_enclave.scaling.sampling.run`, in its order. A model whose logits
        depend on the batch may differ in a few of them.
        """
        if self._sampler is None:
            request = self.request(text, number, 0)
            self._sampler = SharedSampler(self.model, self._config, request.sampling)
        found: list[Sampled] = []
        together = max(1, MOST_ANSWERS // n)
        for begin in range(0, len(seeds), together):
            part = seeds[begin : begin + together]
            requests = [self.request(text, number, seed) for seed in part]
            noises = [PathNoise(each.key, (each.first_choice, at)) for each in requests for at in range(n)]
            prompt = requests[0].prompt_token_ids
            candidates = self._sampler.sample(prompt, noises, requests[0].max_tokens)
            found += [
                Sampled(seed=seed, prompt_tokens=len(prompt), candidates=candidates[at * n : at * n + n])
                for at, seed in enumerate(part)
            ]
        return found

    async def score(self, text: str, answers: Iterable[str], scorer: str) -> Reader:
        """What a scorer says of distinct answers to a problem; what they have in common is read once."""
        judge = self.scorers[scorer]
        split = {answer: tuple(judge.split(answer)) for answer in answers}
        with judge.open(text) as tree:
            root = Reading(tree.root).hold()
            ends = await read_on([(root, steps) for steps in split.values()])
            return Reader(
                prefix_tokens=len(judge.framer.prefix(text)),
                texts={
                    answer: Scored(
                        steps=steps,
                        scores=() if end is None else end.scores,
                        tokens=tuple(
                            len(judge.framer.step(step, first=not at).token_ids)
                            for at, step in enumerate(steps)
                        ),
                    )
                    for (answer, steps), end in zip(split.items(), ends, strict=True)
                },
            )


async def side_by_side(items: Iterable[T], work: Callable[[T], Awaitable[None]], *, at_a_time: int) -> None:
    """Do the work for every item, so many at a time; the first failure ends it all."""
    waiting = iter(items)

    async def worker() -> None:
        for item in waiting:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_a_time):
            group.create_task(worker())
