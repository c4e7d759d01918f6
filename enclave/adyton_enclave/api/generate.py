# SPDX-License-Identifier: Apache-2.0
"""From parsed options to running generations, and back to one series of events.

A request of several prompts becomes one generation each; choice ``i`` of prompt ``p`` has index ``p * n + i``, and
the same index in the path of its random draws. Whoever reads :meth:`Work.events` to its end, breaks off or is
cancelled leaves nothing running.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from adyton_enclave.api.ports import Engine, Generation, Model, Scorer
from adyton_enclave.api.types import DEFAULT_MODEL, Options
from adyton_enclave.engine import (
    Constraint,
    Event,
    GenerationRequest,
    Priority,
    SamplingParams,
    TextDelta,
    Usage,
    sampling_key,
)
from adyton_enclave.exchange import ExchangeFacts
from adyton_protocol.errors import ContextOverflow, EngineError, InvalidRequest, UnknownModel, UnsuitableModel

_LARGE_PROMPT: Final = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A loaded model and what the operator adds to it.

    Attributes:
        max_tokens: Length of an answer when the request does not say.
        license: As the catalog names it.
        matryoshka: Whether the model's vectors may be cut.
        role: What the operator loaded it for.
        scorer: Judges answers: the model itself if that is its role, or the one that a generator's answers are judged
            by; None where there is none.
    """

    model: Model
    max_tokens: int
    license: str
    matryoshka: bool = False
    role: str = "generator"
    scorer: Scorer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """When a request is served, how long it may take, and what it may share; nothing here changes an answer.

    Attributes:
        tenant: The host's tag of who shares a turn.
        timeout_s: Seconds from now after which the work is dropped.
        priority: ``low`` gives way to everybody else.
        cache_namespace: Of the caller's salt, when it asked for caching.
    """

    tenant: str
    timeout_s: float
    priority: Priority
    cache_namespace: bytes | None = field(repr=False)

    @classmethod
    def of(cls, options: Options, facts: ExchangeFacts, *, timeout_s: float) -> "Terms":
        """What the caller asked for, within the operator's time limit.

        SECURITY: the namespace comes from the sealed request and the epoch's secret alone. The host's tag takes no
        part, or a false tag could make strangers share.
        """
        salt = options.cache_salt
        return cls(
            tenant=facts.tenant,
            timeout_s=timeout_s if options.deadline_s is None else min(timeout_s, options.deadline_s),
            priority="low" if options.service_tier == "flex" else "normal",
            cache_namespace=None if salt is None else facts.namespaces.derive(salt),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Guidance:
    """What an endpoint adds to the caller's options.

    Attributes:
        prompt_field: The request field that holds the prompt, for errors about its length.
        constraint: A grammar that every choice has to follow.
        visible_control_ids: Control tokens that the endpoint's reader wants to see in the text.
    """

    prompt_field: str
    constraint: Constraint | None = None
    visible_control_ids: frozenset[int] = frozenset()


def _generates(model: Model) -> bool:
    return model.generates


def find_model(served: dict[str, Served], name: str, suits: Callable[[Model], bool] = _generates) -> Served:
    """The model of this name; ``default`` is the first one that suits, unless a model bears that very name.

    Raises:
        UnknownModel: There is none.
        UnsuitableModel: There is, but it does not suit.
    """
    found = served.get(name)
    if found is None and name == DEFAULT_MODEL:
        found = next((each for each in served.values() if suits(each.model)), None)
    if found is None:
        raise UnknownModel("the model does not exist; GET /v1/models lists those that do", param="model")
    if not suits(found.model):
        raise UnsuitableModel("the operator does not serve this model at this endpoint", param="model")
    return found


def _sampling(options: Options, defaults: SamplingParams) -> SamplingParams:
    return SamplingParams(
        temperature=defaults.temperature if options.temperature is None else options.temperature,
        top_p=defaults.top_p if options.top_p is None else options.top_p,
        top_k=defaults.top_k if options.top_k is None else options.top_k,
        min_p=defaults.min_p if options.min_p is None else options.min_p,
        repetition_penalty=(
            defaults.repetition_penalty if options.repetition_penalty is None else options.repetition_penalty
        ),
        frequency_penalty=(
            defaults.frequency_penalty if options.frequency_penalty is None else options.frequency_penalty
        ),
        presence_penalty=(
            defaults.presence_penalty if options.presence_penalty is None else options.presence_penalty
        ),
        seed=options.seed,
    )


def _max_tokens(options: Options, served: Served, prompt_tokens: int, prompt_field: str) -> int:
    """Length limit of an answer: what was asked for, or what is left of the context up to the default."""
    left = served.model.n_ctx - prompt_tokens
    if left < 1:
        raise ContextOverflow(
            f"the prompt has {prompt_tokens} tokens, but the context holds {served.model.n_ctx}, answer included",
            param=prompt_field,
        )
    return options.max_tokens or min(served.max_tokens, left)


def _logprobs(options: Options) -> int | None:
    """Alternatives to report; ranking candidates needs log-probabilities that the caller did not ask for."""
    if options.logprobs is None and options.candidates > options.n:
        return 0
    return options.logprobs


async def off_loop(prepare: Callable[[], list[int]], size: int) -> tuple[int, ...]:
    """Prepare a prompt, beside the event loop if it is so large that running streams would stall.

    Args:
        prepare: Tokenises.
        size: Bytes or characters that it has to look at.
    """
    if size < _LARGE_PROMPT:
        return tuple(prepare())
    return tuple(await asyncio.to_thread(prepare))


def generation_request(
    served: Served,
    options: Options,
    prompt: tuple[int, ...],
    guidance: Guidance,
    *,
    terms: Terms,
    key: bytes,
) -> GenerationRequest:
    """What the engine has to do for one choice of one prompt.

    Raises:
        InvalidRequest: Something lies outside the vocabulary.
        ContextOverflow: The prompt leaves no room for an answer.
    """
    if options.logit_bias and options.logit_bias[-1][0] >= served.model.n_vocab:
        raise InvalidRequest("logit_bias names a token outside the vocabulary", param="logit_bias")
    return GenerationRequest(
        model=served.model.name,
        prompt_token_ids=prompt,
        max_tokens=_max_tokens(options, served, len(prompt), guidance.prompt_field),
        stop=options.stop,
        sampling=_sampling(options, served.model.defaults),
        logprobs=_logprobs(options),
        key=key,
        timeout_s=terms.timeout_s,
        tenant=terms.tenant,
        priority=terms.priority,
        cache_namespace=terms.cache_namespace,
        logit_bias=options.logit_bias,
        constraint=guidance.constraint,
        visible_control_ids=guidance.visible_control_ids,
    )


class Work:
    """The generations behind one request."""

    def __init__(self, generations: Sequence[Generation], n: int) -> None:
        self._generations = tuple(generations)
        self._n = n
        self.sure = len(generations) * n
        """Choices, all of which come."""

    @classmethod
    def submit(
        cls,
        engine: Engine,
        served: Served,
        options: Options,
        prompts: Sequence[tuple[int, ...]],
        guidance: Guidance,
        *,
        terms: Terms,
        entropy: Callable[[int], bytes],
    ) -> "Work":
        """Queue everything, or nothing.

        Raises:
            EngineError: The engine refused a prompt; those before it are cancelled.
        """
        key = sampling_key(options.seed, entropy)
        generations: list[Generation] = []
        try:
            for at, prompt in enumerate(prompts):
                request = generation_request(served, options, prompt, guidance, terms=terms, key=key)
                each = options.candidates
                generations.append(engine.submit(replace(request, n=each, first_choice=at * each)))
        except EngineError:
            for generation in generations:
                generation.cancel()
            raise
        return cls(generations, options.candidates)

    @property
    def usage(self) -> Usage:
        """Tokens of all generations so far."""
        return Usage(
            prompt_tokens=sum(generation.usage.prompt_tokens for generation in self._generations),
            completion_tokens=sum(generation.usage.completion_tokens for generation in self._generations),
            cached_prompt_tokens=sum(
                generation.usage.cached_prompt_tokens for generation in self._generations
            ),
        )

    def cancel(self) -> None:
        """Stop everything."""
        for generation in self._generations:
            generation.cancel()

    async def events(self) -> AsyncGenerator[Event, None]:
        """Events of all choices, in the order in which they come.

        Raises:
            EngineError: What ended a generation early.
        """
        try:
            if len(self._generations) == 1:
                async for event in self._generations[0]:
                    yield event
            else:
                async with contextlib.aclosing(_merged(self._generations, self._n)) as events:
                    async for event in events:
                        yield event
        finally:
            self.cancel()


class _Inbox:
    """Events that wait for the reader, at most one unread delta per choice and boundary."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._arrived = asyncio.Event()
        self._open = 0

    def put(self, event: Event) -> None:
        if isinstance(event, TextDelta):
            for at in range(len(self._events) - 1, -1, -1):
                waiting = self._events[at]
                if isinstance(waiting, TextDelta) and waiting.index == event.index:
                    self._events[at] = replace(
                        waiting,
                        text=waiting.text + event.text,
                        logprobs=waiting.logprobs + event.logprobs,
                        steps=waiting.steps + event.steps,
                    )
                    return
        self._events.append(event)
        self._arrived.set()

    async def fill(self, generation: Generation, offset: int) -> None:
        self._open += 1
        try:
            async for event in generation:
                self.put(replace(event, index=event.index + offset))
        finally:
            self._open -= 1
            self._arrived.set()

    async def take(self) -> list[Event]:
        """Everything that has arrived; waits for something, and returns nothing only at the end."""
        while not self._events and self._open:
            self._arrived.clear()
            await self._arrived.wait()
        taken, self._events = self._events, []
        return taken


async def _merged(generations: Sequence[Generation], n: int) -> AsyncGenerator[Event, None]:
    inbox = _Inbox()
    tasks = [asyncio.create_task(inbox.fill(generation, at * n)) for at, generation in enumerate(generations)]
    try:
        await asyncio.sleep(0)  # lets every task count itself in
        while events := await inbox.take():
            for event in events:
                yield event
            for task in tasks:
                if task.done():
                    task.result()
        for task in tasks:
            await task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def usage_json(usage: Usage) -> dict[str, int]:
    """The counts of a usage as OpenAI and receipts write them."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }


def usage_details_json(
    usage: Usage, *, reasoning_tokens: int, more: Mapping[str, int] = MappingProxyType({})
) -> dict[str, object]:
    """The same with the parts that answers break it into.

    Args:
        usage: The counts.
        reasoning_tokens: Of the choices of the answer.
        more: Of a search, what else became of generated tokens.
    """
    return {
        **usage_json(usage),
        "prompt_tokens_details": {"cached_tokens": usage.cached_prompt_tokens},
        "completion_tokens_details": {"reasoning_tokens": reasoning_tokens, **more},
    }
