# SPDX-License-Identifier: Apache-2.0
"""Asks a model questions in this process, with the engine, the chat template and the sampler of the enclave.

What is measured this way is what is served: the same kernels, the same cache, the same draw. Many questions are decoded
together. With a model whose logits do not depend on the batch (`why_inexact` is None), the same seed gives the same
texts, whatever is asked beside.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from adyton_enclave.engine import (
    Engine,
    EngineConfig,
    Finished,
    GenerationRequest,
    LoadedModel,
    ModelSpec,
    SamplingParams,
    TextDelta,
    sampling_key,
)
from adyton_models.catalog import Sampling
from adyton_models.model_files import read_files

PARALLEL: Final = 16
_KEY_STRIDE: Final = 1_000_003
_TYPICAL_TOKENS: Final = 1024
_REQUESTS_AHEAD: Final = 2


def model_spec(name: str, path: Path, *, n_ctx: int) -> ModelSpec:
    """What the engine is told to load: the files as they are, pinned to what they hold.

    Raises:
        ModelFileError: A file is missing or malformed.
    """
    read = read_files(path)
    first, *others = map(str, read.paths)
    return ModelSpec(name=name, path=first, more_paths=tuple(others), pin=read.content.pin, n_ctx=n_ctx)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One sampled answer.

    Attributes:
        finished: The model ended it; False where the limit of tokens did.
    """

    text: str = field(repr=False)
    finished: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """All samples of one prompt, in order, and the tokens they took. Empty where the prompt does not fit."""

    completions: tuple[Completion, ...]
    tokens: int


class ServedModel:
    """A GGUF loaded as an enclave would load it. Use as a context manager."""

    def __init__(self, path: Path, *, n_ctx: int, threads: int = 1, parallel: int = PARALLEL) -> None:
        """Load it.

        Args:
            path: The file.
            n_ctx: Most tokens of prompt and answer together.
            threads: Compute threads.
            parallel: Most answers that are decoded together; each takes KV cells.

        Raises:
            ConfigError: The file is no model, or the engine cannot serve it; the message says why.
        """
        self._parallel = parallel
        config = EngineConfig(
            threads=threads,
            n_ctx_total=max(n_ctx, parallel * min(n_ctx, _TYPICAL_TOKENS)),
            n_batch=max(512, parallel),
            max_sequences=parallel,
            cache_cells=0,
        )
        spec = model_spec("model", path, n_ctx=n_ctx)
        self._engine = Engine(config, [spec]).start()
        self.model: LoadedModel = self._engine.models["model"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.stop()

    def prompt(self, text: str) -> list[int]:
        """Token ids of one user message through the file's chat template; of the bare text without one.

        Raises:
            InvalidRequest: The template refuses a single user message.
            ContextOverflow: The text cannot fit, whatever its tokens are.
        """
        if self.model.llama.chat_template is not None:
            return self.model.apply_chat_template([{"role": "user", "content": text}])
        return self.model.tokenize(text)

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        samples: int = 1,
        seed: int = 1,
        report: Callable[[int, Sampled], None] = lambda _index, _sampled: None,
    ) -> list[Sampled]:
        """Answer every prompt `samples` times; the same seed gives the same answers.

        Args:
            prompts: Token ids; one that leaves no room for an answer gets none.
            sampling: `max_tokens` is cut to what the context holds.
            samples: Answers for each prompt.
            seed: Prompt `i` draws with a key of its own, made from this and `i`.
            report: Called with the index of each prompt that is done.
        """
        return asyncio.run(self._sample(prompts, sampling, samples, seed, report))

    async def _sample(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        samples: int,
        seed: int,
        report: Callable[[int, Sampled], None],
    ) -> list[Sampled]:
        results = [Sampled(completions=(), tokens=0)] * len(prompts)
        waiting = iter(range(len(prompts)))

        async def work() -> None:
            for index in waiting:
                room = self.model.n_ctx - len(prompts[index])
                if room > 0:
                    key = sampling_key(seed * _KEY_STRIDE + index)
                    request = GenerationRequest(
                        model="model",
                        prompt_token_ids=tuple(prompts[index]),
                        max_tokens=min(sampling.max_tokens, room),
                        key=key,
                        sampling=_params(sampling),
                    )
                    results[index] = await self._answers(request, samples)
                report(index, results[index])

        workers = max(1, _REQUESTS_AHEAD * self._parallel // min(samples, self._parallel))
        async with asyncio.TaskGroup() as group:
            for _ in range(min(workers, len(prompts))):
                group.create_task(work())
        return results

    async def _answers(self, request: GenerationRequest, samples: int) -> Sampled:
        completions: list[Completion] = []
        tokens = 0
        for first, n in _portions(samples, self._parallel):
            portion = _with_choices(request, first, n)
            texts, finished = [""] * n, [False] * n
            generation = self._engine.submit(portion)
            async for event in generation:
                match event:
                    case TextDelta():
                        texts[event.index] += event.text
                    case Finished():
                        finished[event.index] = event.finish_reason == "stop"
            tokens += generation.usage.completion_tokens
            completions += [
                Completion(text=text, finished=end) for text, end in zip(texts, finished, strict=True)
            ]
        return Sampled(completions=tuple(completions), tokens=tokens)


def _with_choices(request: GenerationRequest, first: int, n: int) -> GenerationRequest:
    return GenerationRequest(
        model=request.model,
        prompt_token_ids=request.prompt_token_ids,
        max_tokens=request.max_tokens,
        key=request.key,
        sampling=request.sampling,
        n=n,
        first_choice=first,
    )


def _portions(samples: int, most: int) -> Iterator[tuple[int, int]]:
    """First index and number of choices, never more than run together."""
    for first in range(0, samples, most):
        yield first, min(most, samples - first)


def _params(sampling: Sampling) -> SamplingParams:
    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
    )
