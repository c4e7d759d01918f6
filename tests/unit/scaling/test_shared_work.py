# SPDX-License-Identifier: Apache-2.0
"""What lines of a search have in common is computed once and held once, whatever the strategy."""

import asyncio
from dataclasses import replace

import pytest
from engine_calls import answers
from llama_cpp import llama_cpp
from search_engines import GENERATOR, PROBLEM, Files, Pair, Start, request
from unit.scaling.test_refine import Conversation

from adyton_enclave.engine.llama import LlamaBatch, LlamaContext, LlamaModel
from adyton_enclave.engine.settings import EngineConfig
from adyton_enclave.scaling.auto import method_of
from adyton_enclave.scaling.plan import STRATEGIES, Plan, Strategy
from adyton_enclave.scaling.strategies import Finding, run
from adyton_protocol.selection.candidate import SelectionRule


async def _computed(pair: Pair) -> int:
    """Tokens that the generator ever computed; all that was asked for is over."""
    await pair.at_rest()
    return pair.engine.status()[GENERATOR].computed_tokens


async def _search(pair: Pair, strategy: Strategy, n: int) -> Finding:
    plan = Plan(
        strategy=strategy,
        n=1 if strategy == "single" else n,
        rule=SelectionRule(method=method_of(strategy)),
        branching=4,
        experimental=True,
    )
    follow_up = Conversation(pair).follow_up
    return await run(plan, pair.engine, pair.scorer, request(5), PROBLEM, follow_up=follow_up)


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_every_token_is_computed_once(strategy: Strategy, start_pair: Start) -> None:
    """With 16 lines: the prompt once, and each token that was generated or given once, however lines fork."""
    pair = start_pair(max_sequences=64, n_ctx_total=8192)
    found = await _search(pair, strategy, 16)
    # The last token of the prompt counts with the first that each line generates.
    assert await _computed(pair) <= found.usage.prompt_tokens - 1 + found.usage.completion_tokens


async def test_that_holds_beside_streams_too(start_pair: Start) -> None:
    """Though lines begin one after the other then, and the first are over before the last begin."""
    pair = start_pair(max_sequences=64, n_ctx_total=8192)
    streams = [
        asyncio.ensure_future(answers(pair.engine, request(number, end=-50.0, max_tokens=300)))
        for number in range(20, 28)
    ]
    found = await _search(pair, "rebase", 16)
    choices = replace(request(6), n=16)
    given = await answers(pair.engine, choices)
    await asyncio.gather(*streams)
    streamed = 8 * (24 - 1 + 300)
    searched = found.usage.prompt_tokens - 1 + found.usage.completion_tokens
    chosen = 24 - 1 + 16 * 48
    assert len(given) == 16
    assert await _computed(pair) <= streamed + searched + chosen


def test_a_fork_copies_no_numbers(search_files: Files) -> None:
    """llama.cpp's own state holds the shared cells' keys and values once; a fork adds its name to each of them."""
    generator = search_files.generator
    model = LlamaModel(str(generator.path), generator.pin)
    context = LlamaContext(model, EngineConfig(threads=1, n_ctx_total=1024, max_sequences=8))
    try:
        batch = LlamaBatch(200)
        batch.add([70 + at % 90 for at in range(200)], 0, 0, wants_logits=False)
        context.decode(batch)
        alone = llama_cpp.llama_state_get_size(context.handle)
        for target in range(1, 8):
            context.copy(0, target, 200)
            assert context.length(target) == 200
        forked = llama_cpp.llama_state_get_size(context.handle)
        assert forked - alone <= 7 * 200 * 8
        assert len(context.read_state(0)) > 200 * 64
    finally:
        context.close()
        model.close()
