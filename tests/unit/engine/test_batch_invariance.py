# SPDX-License-Identifier: Apache-2.0
"""The default profile's promise: an answer's logits, bit for bit, do not depend on anything but the request.

Log-probabilities are compared as floats with ``==``: they are a function of the logits' bits. A llama.cpp update
that breaks one of these breaks replay, and must not be taken in without a new default profile.
"""

import asyncio
import dataclasses
from collections.abc import Callable

import gguf
import numpy as np
import pytest
from engine_calls import Answer, answers, request
from tiny_gguf import TinyModel, make_tiny_gguf

from adyton_enclave.engine import Engine, GenerationRequest, SamplingParams
from adyton_enclave.engine.kv_budget import KvBudget
from adyton_enclave.engine.kv_cache import OrderedKvCache
from adyton_enclave.engine.llama import LlamaBatch, LlamaContext, LlamaModel
from adyton_enclave.engine.settings import EngineConfig

Start = Callable[..., Engine]
TARGETS = (
    request(100, prompt_tokens=300, max_tokens=40),
    request(101, prompt_tokens=7, max_tokens=60, sampling=SamplingParams(temperature=0.7, top_p=0.9)),
    request(102, prompt_tokens=120, max_tokens=30, n=3, sampling=SamplingParams(top_k=20)),
    request(103, prompt_tokens=65, max_tokens=30, sampling=SamplingParams(temperature=0)),
)


async def _alone(engine: Engine) -> list[list[Answer]]:
    return [await answers(engine, target) for target in TARGETS]


@pytest.mark.parametrize("quantization", ["Q8_0", "Q4_0"])
async def test_answers_ignore_their_neighbours(
    tmp_path_factory: pytest.TempPathFactory, start: Start, quantization: str
) -> None:
    """Among arrivals of all lengths that come and go, and in a used cache, answers are those given alone."""
    kind = getattr(gguf.GGMLQuantizationType, quantization)
    model = make_tiny_gguf(tmp_path_factory.mktemp("q") / "m.gguf", quantization=kind, width=128)
    expected = await _alone(start(model))
    engine = start(model)
    rng = np.random.default_rng(0)
    crowd = [
        request(number, prompt_tokens=int(rng.integers(1, 250)), max_tokens=int(rng.integers(1, 60)))
        for number in range(20)
    ]
    running = [asyncio.ensure_future(answers(engine, one)) for one in crowd]
    found = await asyncio.gather(*(answers(engine, target) for target in TARGETS))
    await asyncio.gather(*running)
    assert list(found) == expected
    assert await _alone(engine) == expected


@pytest.mark.parametrize(
    "sizes",
    [{"n_batch": 64, "n_ubatch": 64}, {"n_ubatch": 32}, {"n_batch": 20, "n_ubatch": 20}, {"threads": 2}],
)
async def test_answers_ignore_batch_sizes_and_threads(
    tiny: TinyModel, start: Start, sizes: dict[str, int]
) -> None:
    """Chunks of the prompt, micro-batches and threads change nothing."""
    expected = await _alone(start(tiny))
    engine = start(tiny, **sizes)
    assert await asyncio.gather(*(answers(engine, target) for target in TARGETS)) == expected


async def test_small_prompt_chunks_beside_running_streams_change_nothing(
    tiny: TinyModel, start: Start
) -> None:
    """Seven prompt tokens per step, next to others, give what one prefill gives."""
    expected = await _alone(start(tiny))
    engine = start(tiny, prefill_tokens=7)
    assert await asyncio.gather(*(answers(engine, target) for target in TARGETS)) == expected


async def test_choices_equal_requests_of_their_own(tiny: TinyModel, start: Start) -> None:
    """Each of n forked choices is bit for bit what a request for that choice alone gives."""
    engine = start(tiny)
    wanted = request(5, prompt_tokens=50, n=4)
    together = await answers(engine, wanted)
    for index in range(4):
        single = dataclasses.replace(wanted, n=1, first_choice=index)
        assert await answers(engine, single) == [together[index]]
    assert len({answer.text for answer in together}) == 4


async def test_preemption_changes_nothing(tiny: TinyModel, start: Start) -> None:
    """With too few cells for all, sequences are computed again, and go on with the same bits."""
    wanted = [request(number, prompt_tokens=40, max_tokens=80, n=2) for number in range(4)]
    plenty = start(tiny)
    expected = [await answers(plenty, one) for one in wanted]
    tight = start(tiny, n_ctx_total=256, n_ctx=200)
    assert await asyncio.gather(*(answers(tight, one) for one in wanted)) == expected


def _feed(context: LlamaContext, batch: LlamaBatch, tokens: list[int], start: int, seq_id: int) -> np.ndarray:
    batch.clear()
    batch.add(tokens, start, seq_id, wants_logits=True)
    context.decode(batch)
    return context.logits(1)[0].copy()


def test_a_compaction_changes_no_bit_and_keeps_sharing(tiny: TinyModel) -> None:
    """Dropping a neighbour, compacting and filling up to the last cell leaves a sequence's logits as they are."""
    model = LlamaModel(str(tiny.path), tiny.pin)
    context = LlamaContext(model, EngineConfig(threads=1, n_ctx_total=1024, max_sequences=4))
    batch = LlamaBatch(512)
    budget = KvBudget(context.n_cells)
    cache = OrderedKvCache(context, budget, plug_id=4)
    tokens = np.random.default_rng(1).integers(5, 270, 400).tolist()

    _feed(context, batch, tokens[:300], 0, 0)
    expected = [_feed(context, batch, [token], 300 + i, 0) for i, token in enumerate(tokens[300:])]
    context.scrub()

    _feed(context, batch, tokens[:64], 0, 1)
    _feed(context, batch, tokens[:300], 0, 0)
    cache.placed(364)
    lease, neighbour = budget.lease(), budget.lease()
    lease.grow(300)
    neighbour.grow(64)
    cache.copy(0, 2, 200)
    cache.remove(1)
    neighbour.release()
    found = []
    for i, token in enumerate(tokens[300:]):
        cache.prepare(700 if i == 50 else 1)
        assert (cache.garbage == 0) == (i >= 50)
        found.append(_feed(context, batch, [token], 300 + i, 0))
        lease.grow(1)
        cache.placed(1)
    assert np.array_equal(found, expected)
    assert [context.length(seq_id) for seq_id in range(5)] == [400, 0, 200, 0, 0]
    for position in range(1024 - 400):
        _feed(context, batch, [7], position, 3)
    context.close()
    model.close()


async def test_a_seed_means_the_same_tokens_on_another_engine(tiny: TinyModel, start: Start) -> None:
    """Nothing of a process, its history or its randomness enters a seeded answer."""
    wanted: GenerationRequest = request(9, max_tokens=40)
    assert await answers(start(tiny), wanted) == await answers(start(tiny), wanted)
