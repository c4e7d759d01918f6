# SPDX-License-Identifier: Apache-2.0
"""What holds for every strategy on a real engine: it spends no more than it may, and leaves nothing behind."""

import asyncio
import functools
from dataclasses import replace

import pytest
from engine_calls import answers, until
from search_engines import GENERATOR, PROBLEM, Pair, Start, request
from unit.scaling.test_refine import Conversation

from adyton_enclave.scaling.auto import method_of
from adyton_enclave.scaling.plan import STRATEGIES, Budget, Plan, Strategy
from adyton_enclave.scaling.strategies import RUNS, Finding, run
from adyton_protocol.selection.candidate import SelectionRule
from adyton_protocol.selection.choose import select

every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)


def _plan(strategy: Strategy, tokens: int | None = None, **fields: object) -> Plan:
    n = 1 if strategy == "single" else 6
    return Plan(
        strategy=strategy,
        n=n,
        rule=SelectionRule(method=method_of(strategy)),
        budget=Budget(policy_tokens=tokens),
        branching=2,
        experimental=True,
        **fields,  # type: ignore[arg-type]
    )


async def _run(pair: Pair, plan: Plan, seed: int) -> Finding:
    follow_up = Conversation(pair).follow_up
    return await run(plan, pair.engine, pair.scorer, request(seed), PROBLEM, follow_up=follow_up)


def test_every_name_runs_something() -> None:
    """``auto`` stands for one of the others."""
    assert set(RUNS) | {"auto"} == set(STRATEGIES)


@every_strategy
async def test_the_same_plan_and_key_find_the_same(strategy: Strategy, start_pair: Start) -> None:
    """Alone, or beside strangers with little memory and other batches; and all of it is freed."""
    alone = start_pair()
    expected = await _run(alone, _plan(strategy), 1)
    crowded = start_pair(n_ctx_total=1024, scorer_n_ctx=256, max_sequences=6, n_batch=48, n_ubatch=48)
    noise = [asyncio.ensure_future(answers(crowded.engine, request(n, max_tokens=60))) for n in range(10, 15)]
    found = await _run(crowded, _plan(strategy), 1)
    await asyncio.gather(*noise)
    assert found.outcome.candidates == expected.outcome.candidates
    assert found.outcome.selection == expected.outcome.selection
    assert found.outcome.stop_reason == expected.outcome.stop_reason
    assert replace(found.spent, time_s=0) == replace(expected.spent, time_s=0)
    assert found.plan == expected.plan
    assert found.outcome.selection == select(found.outcome.candidates, found.plan.rule)
    for pair in (alone, crowded):
        await pair.at_rest()


@every_strategy
@pytest.mark.parametrize("tokens", [6, 45])
async def test_a_budget_is_kept_to_the_token(strategy: Strategy, tokens: int, start_pair: Start) -> None:
    """Whatever the strategy does, the engine generated what was booked, and no more than was allowed."""
    pair = start_pair()
    found = await _run(pair, _plan(strategy, tokens), 2)
    assert found.usage.completion_tokens == found.spent.policy_tokens <= tokens
    assert len(found.outcome.selection.winners) == 1
    await pair.at_rest()


@every_strategy
async def test_padding_makes_the_work_the_same(strategy: Strategy, start_pair: Start) -> None:
    """All of the budget is spent, on whatever question, and only what was found before is chosen from."""
    pair = start_pair()
    for seed in (3, 4):
        found = await _run(pair, _plan(strategy, 300, pad_to_budget=True), seed)
        assert found.usage.completion_tokens == found.spent.policy_tokens == 300
        assert found.outcome.selection == select(found.outcome.candidates, found.plan.rule)
    await pair.at_rest()


def _has_computed(pair: Pair, n_tokens: int) -> bool:
    return pair.engine.status()[GENERATOR].computed_tokens >= n_tokens


@every_strategy
async def test_cancelling_leaves_nothing(strategy: Strategy, start_pair: Start) -> None:
    """At whatever token it comes."""
    pair = start_pair()
    for moment in (1, 10, 60):
        task = asyncio.ensure_future(_run(pair, _plan(strategy, 100_000, pad_to_budget=True), moment))
        before = pair.engine.status()[GENERATOR].computed_tokens
        await until(functools.partial(_has_computed, pair, before + moment))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await pair.at_rest()
