# SPDX-License-Identifier: Apache-2.0
"""The engine from the caller's side: events, limits, cancellation, failure."""

import asyncio
import gc
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from engine_calls import answers, request, until
from tiny_gguf import TinyModel, make_tiny_gguf

from adyton_enclave.engine import (
    Engine,
    EngineConfig,
    Finished,
    GenerationRequest,
    ModelSpec,
    SamplingParams,
    TextDelta,
    Usage,
)
from adyton_protocol.errors import (
    Cancelled,
    ConfigError,
    ContextOverflow,
    EngineError,
    EngineStopped,
    InvalidRequest,
    LocalProtocolError,
    QueueFull,
    UnknownModel,
)
from adyton_protocol.model_identity import CacheProfile

Start = Callable[..., Engine]


def _used(engine: Engine) -> int:
    """KV cells that are taken, by the engine's own count."""
    return engine.status()["tiny"].kv_cells_used


async def test_a_request_ends_with_all_it_should(tiny: TinyModel, start: Start) -> None:
    """One Finished per choice, after its text; usage counts the prompt once and every choice."""
    wanted = request(1, n=3, max_tokens=9)
    generation = start(tiny).submit(wanted)
    events = [event async for event in generation]
    finished = [event for event in events if isinstance(event, Finished)]
    assert sorted(event.index for event in finished) == [0, 1, 2]
    assert {event.finish_reason for event in finished} == {"length"}
    assert finished[-1].usage == generation.usage == Usage(prompt_tokens=12, completion_tokens=27)
    for event in finished:
        after = events[events.index(event) + 1 :]
        assert not any(isinstance(later, TextDelta) and later.index == event.index for later in after)
    tokens = [item for event in events if isinstance(event, TextDelta) for item in event.logprobs]
    assert len(tokens) == 27


async def test_the_end_token_stops_and_is_not_text(ending: TinyModel, start: Start) -> None:
    """A model that ends by itself finishes with ``stop``; the end token counts but does not show."""
    engine = start(ending)
    stopped = 0
    for seed in range(20):
        (answer,) = await answers(engine, request(seed, max_tokens=100))
        assert "<|" not in answer.text or "end" not in answer.text
        stopped += answer.reason == "stop"
    assert stopped


async def test_stop_strings_cut_the_answer(tiny: TinyModel, start: Start) -> None:
    """The text before the stop string is what would have come anyway, and nothing of the string shows."""
    engine = start(tiny)
    wanted = request(2, max_tokens=40)
    (whole,) = await answers(engine, wanted)
    stop = whole.text[10:13]
    (cut,) = await answers(engine, request(2, max_tokens=40, stop=(stop, "never there")))
    assert cut.reason == "stop"
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.tokens == whole.tokens[: len(cut.tokens)]
    assert (await answers(engine, request(2, max_tokens=40, stop=("never there",))))[0].text == whole.text


async def test_logprobs_hold_the_best_alternatives(tiny: TinyModel, start: Start) -> None:
    """Greedy decoding draws the best alternative, and log-probabilities are negative and sorted."""
    generation = start(tiny).submit(request(3, logprobs=5, sampling=SamplingParams(temperature=0)))
    tokens = [t async for event in generation if isinstance(event, TextDelta) for t in event.logprobs]
    assert len(tokens) == 16
    for token in tokens:
        values = [item.logprob for item in token.top]
        assert values == sorted(values, reverse=True)
        assert (token.top[0].bytes, token.top[0].logprob) == (token.bytes, token.logprob)
        assert len(values) == 5
        assert values[0] < 0


async def test_cancel_frees_everything(tiny: TinyModel, start: Start) -> None:
    """After ``cancel`` no cell stays taken, the iteration raises, and the engine serves on."""
    engine = start(tiny)
    generation = engine.submit(request(4, n=4, max_tokens=400))
    events = aiter(generation)
    for _ in range(20):
        await anext(events)
    generation.cancel()
    with pytest.raises(Cancelled):
        [event async for event in events]
    await until(lambda: not _used(engine))
    lane = engine._lanes["tiny"]
    assert [lane.context.length(seq_id) for seq_id in range(16)] == [0] * 16
    assert len(await answers(engine, request(4))) == 1


@pytest.mark.parametrize("how", ["break", "task", "forget"])
async def test_a_caller_that_goes_away_frees_everything(tiny: TinyModel, start: Start, how: str) -> None:
    """Breaking off, a cancelled task, and a generation that nobody holds any more all end the work."""
    engine = start(tiny)
    wanted = request(5, n=2, max_tokens=480)

    async def read_one() -> None:
        async for _ in engine.submit(wanted):
            break

    if how == "break":
        await read_one()
    elif how == "task":
        task = asyncio.ensure_future(answers(engine, wanted))
        await until(lambda: bool(_used(engine)))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        engine.submit(wanted)
        gc.collect()
    await until(lambda: engine.status()["tiny"].finished_requests == 1)
    assert not _used(engine)


async def test_a_time_limit_ends_the_work(tiny: TinyModel, start: Start) -> None:
    """A request past its limit is cancelled and frees its cells."""
    engine = start(tiny)
    with pytest.raises(Cancelled):
        await answers(engine, request(6, max_tokens=480, timeout_s=0.0))
    await until(lambda: not _used(engine))


async def test_a_full_queue_says_when_to_come_back(tiny: TinyModel, start: Start) -> None:
    """Beyond the bound, QueueFull at once, with advice; those accepted are served."""
    engine = start(tiny, max_sequences=1, max_queue=2)
    accepted = []

    def submit_many() -> None:
        for seed in range(20):
            accepted.append(engine.submit(request(seed, max_tokens=30)))  # noqa: PERF401

    with pytest.raises(QueueFull) as caught:
        submit_many()
    assert 1 <= caught.value.retry_after_s <= 60
    assert len(accepted) >= 2
    for generation in accepted:
        assert [event async for event in generation][-1].index == 0


@pytest.mark.parametrize(("prompt_tokens", "max_tokens"), [(500, 13), (513, 1), (1, 512)])
async def test_what_cannot_fit_is_refused_at_once(
    tiny: TinyModel, start: Start, prompt_tokens: int, max_tokens: int
) -> None:
    """Prompt plus answer beyond the context is the caller's error, before any work."""
    engine = start(tiny)
    with pytest.raises(ContextOverflow):
        engine.submit(request(0, prompt_tokens=prompt_tokens, max_tokens=max_tokens))
    assert engine.status()["tiny"].finished_requests == 0


async def test_what_just_fits_is_served(tiny: TinyModel, start: Start) -> None:
    """The bound is exact, even when the cache has no cell more."""
    engine = start(tiny, n_ctx_total=512)
    assert (await answers(engine, request(0, prompt_tokens=500, max_tokens=12)))[0].reason == "length"


async def test_wrong_requests_are_refused(tiny: TinyModel, start: Start) -> None:
    """Unknown models and token ids that the vocabulary lacks."""
    engine = start(tiny)
    with pytest.raises(UnknownModel):
        engine.submit(request(0, model="other"))
    for token_id in (-1, tiny.n_vocab):
        with pytest.raises(InvalidRequest):
            engine.submit(request(0, prompt_token_ids=(token_id,)))


@pytest.mark.parametrize(
    "field",
    [
        {"prompt_token_ids": ()},
        {"n": 0},
        {"max_tokens": 0},
        {"key": b"short"},
        {"stop": ("",)},
        {"logprobs": -1},
        {"first_choice": -1},
    ],
)
def test_values_check_themselves(field: dict[str, object]) -> None:
    """A request that no model could serve cannot even be made."""
    with pytest.raises(InvalidRequest):
        request(0, **field)


async def test_stopping_fails_what_runs(tiny: TinyModel, start: Start) -> None:
    """Nobody hangs on a stopped engine, and it takes nothing more."""
    engine = start(tiny)
    generation = engine.submit(request(7, max_tokens=400))
    waiting = asyncio.ensure_future(anext(aiter(generation)))
    await waiting
    await asyncio.to_thread(engine.stop)
    with pytest.raises(EngineStopped):
        [event async for event in generation]
    with pytest.raises(EngineStopped):
        engine.submit(request(7))
    assert not engine.failed
    engine.stop()


async def test_a_dead_loop_fails_everybody(
    tiny: TinyModel, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception in the loop thread ends every request, marks the engine, and logs no message text."""
    engine = start(tiny)
    running = asyncio.ensure_future(answers(engine, request(8, max_tokens=400)))
    await asyncio.sleep(0)
    with caplog.at_level(logging.DEBUG):
        # The clock is an argument; one that fails is the nearest thing to a fault anywhere in the loop.
        engine._clock = _broken_clock
        with pytest.raises(EngineStopped):
            await running
    assert engine.failed
    assert not engine.running
    with pytest.raises(EngineStopped):
        engine.submit(request(8, timeout_s=None))
    assert "secret" not in caplog.text
    assert "ZeroDivisionError" in caplog.text


def _broken_clock() -> float:
    raise ZeroDivisionError("a secret message")


async def test_what_ended_is_overwritten_while_others_run(tiny: TinyModel, start: Start) -> None:
    """Without a further request and without a pause: the cells of an answer are cleared when it is over."""
    engine = start(tiny, n_ctx=1024)
    cache = engine._lanes["tiny"]._cache
    await answers(engine, request(9))
    await until(lambda: not cache.dirty_cells and not cache.garbage)
    other = engine.submit(request(8, max_tokens=900))
    await answers(engine, request(9))
    await until(lambda: cache.garbage > 0 and not cache.dirty_cells)
    other.cancel()


async def test_several_models_share_the_loop(tiny: TinyModel, ending: TinyModel) -> None:
    """Each answers as it does alone."""
    specs = [
        ModelSpec(name=name, path=str(model.path), pin=model.pin, n_ctx=256)
        for name, model in (("tiny", tiny), ("ending", ending))
    ]
    engine = Engine(EngineConfig(threads=1, n_ctx_total=512, max_sequences=4), specs).start()
    try:
        wanted = [request(seed, model=name) for seed in range(3) for name in ("tiny", "ending")]
        together = await asyncio.gather(*(answers(engine, one) for one in wanted))
        assert list(together) == [await answers(engine, one) for one in wanted]
        assert list(engine.models) == ["tiny", "ending"]
        assert engine.models["tiny"].identity != engine.models["ending"].identity
    finally:
        engine.stop()


def test_identity_covers_what_decides_answers(tiny: TinyModel, start: Start) -> None:
    """Sampling defaults, KV types and context length are part of it; the batch size is not."""

    def identity(**settings: object) -> str:
        return start(tiny, **settings).models["tiny"].identity

    assert identity() == identity(n_batch=256, n_ubatch=256)
    assert (
        len({identity(), identity(kv_type_v="f16"), identity(n_ctx=256), identity(flash_attention=True)}) == 3
    )


def test_the_default_cache_is_the_one_that_policies_assume() -> None:
    """A configuration that leaves the cache types out means the same to the engine and to a policy's writer."""
    config = EngineConfig()
    assert CacheProfile() == CacheProfile(
        kv_type_k=config.kv_type_k, kv_type_v=config.kv_type_v, flash_attention=config.flash_attention
    )


def test_a_sliding_window_is_refused_by_name(start: Start, tmp_path: Path) -> None:
    """llama.cpp gives cells outside the window to others, so that forks and kept prefixes would silently be wrong."""
    with pytest.raises(ConfigError, match="sliding window"):
        start(make_tiny_gguf(tmp_path / "gemma.gguf", window=16))


def test_configuration_is_checked(tiny: TinyModel, start: Start) -> None:
    """Sizes that cannot be, twice the same name, no model, twice started."""
    for settings in (
        {"threads": -1},
        {"max_sequences": 256},
        {"n_ubatch": 0},
        {"n_batch": 8},
        {"n_ctx_total": 0},
    ):
        with pytest.raises(ConfigError):
            EngineConfig(**settings)  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        Engine(EngineConfig(), [])
    with pytest.raises(ConfigError):
        start(tiny, n_ctx=4096)
    with pytest.raises(LocalProtocolError):
        start(tiny).start()


def test_reprs_show_no_content() -> None:
    """What a stray log line would print holds no prompt, no key and no text."""
    shown = repr(request(1, stop=("sesame",)))
    assert "sesame" not in shown
    assert "prompt_token_ids" not in shown
    assert "key" not in shown
    assert "open" not in repr(TextDelta(index=0, text="open"))


async def test_a_model_of_nan_fails_requests_and_not_the_engine(tmp_path: Path, start: Start) -> None:
    """What is no number is never drawn from."""
    engine = start(make_tiny_gguf(tmp_path / "nan.gguf", broken=True))
    for temperature in (0.0, 1.0):
        with pytest.raises(EngineError):
            await answers(
                engine, request(1, n=3, sampling=SamplingParams(temperature=temperature, top_p=0.9))
            )
    assert engine.running
    assert not _used(engine)


async def test_books_that_promise_too_much_harm_nobody(tiny: TinyModel, start: Start) -> None:
    """When llama.cpp has fewer cells than we think, answers still come and are the right ones."""
    wanted = [request(number, prompt_tokens=40, max_tokens=80) for number in range(4)]
    plenty = start(tiny)
    expected = [await answers(plenty, one) for one in wanted]
    engine = start(tiny, n_ctx_total=256, n_ctx=200)
    engine._lanes["tiny"].budget.total = 10_000
    assert await asyncio.gather(*(answers(engine, one) for one in wanted)) == expected
    assert engine.status()["tiny"].kv_cells_total <= 256


def test_a_closed_event_loop_frees_its_requests(tiny: TinyModel, start: Start) -> None:
    """A loop that is gone takes its callers' work with it; other loops are served on."""
    engine = start(tiny)
    kept = []

    async def leave() -> None:
        kept.append(engine.submit(request(1, max_tokens=480)))

    asyncio.run(leave())
    asyncio.run(until(lambda: engine.status()["tiny"].finished_requests == 1))
    assert not _used(engine)
    assert asyncio.run(answers(engine, request(2)))[0].reason == "length"


@pytest.mark.slow
async def test_random_arrivals_and_cancellations_leave_nothing(tiny: TinyModel, start: Start) -> None:
    """A few hundred requests, a third of them cancelled at random: all end, nothing stays."""
    engine = start(tiny, n_ctx_total=1024, max_queue=1000)
    rng = np.random.default_rng(3)

    async def one(seed: int) -> None:
        wanted: GenerationRequest = request(
            seed,
            prompt_tokens=int(rng.integers(1, 200)),
            max_tokens=int(rng.integers(1, 60)),
            n=int(rng.integers(1, 5)),
        )
        limit = int(rng.integers(1, 30)) if seed % 3 == 0 else None
        async for _ in engine.submit(wanted):
            if limit is not None and (limit := limit - 1) == 0:
                break

    await asyncio.gather(*(one(seed) for seed in range(300)))
    await until(lambda: not _used(engine))
    assert engine.status()["tiny"].running == 0
