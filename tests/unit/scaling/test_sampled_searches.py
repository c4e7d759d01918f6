# SPDX-License-Identifier: Apache-2.0
"""Searches that sample whole answers: what they find, what they spend, and that they leave nothing behind."""

import asyncio
from dataclasses import replace

import pytest
from engine_calls import answers
from search_engines import (
    END_ID,
    FIRST_BYTE_ID,
    GENERATOR,
    PROBLEM,
    Start,
    budget,
    plan,
    request,
    sample_one_by_one,
)

from adyton_enclave.engine import SamplingParams
from adyton_enclave.scaling.plan import NEEDS_SCORER
from adyton_enclave.scaling.strategies import open_search, run
from adyton_protocol.errors import InvalidRequest, UnsuitableModel
from adyton_protocol.selection.candidate import METHODS, Method
from adyton_protocol.selection.choose import select

SAMPLED = tuple(method for method in METHODS if method != "single")


@pytest.mark.parametrize("method", SAMPLED)
async def test_a_search_finds_what_a_plain_loop_finds(method: Method, start_pair: Start) -> None:
    """Candidates, scores and choice are those of asking generator and scorer one by one, bit for bit."""
    pair = start_pair()
    wanted = plan(method, 7)
    found = (await pair.search(wanted, request(1))).outcome
    expected = await sample_one_by_one(pair, request(1), 7, scores=method in NEEDS_SCORER)
    assert list(found.candidates) == expected
    assert found.selection == select(expected, wanted.rule)
    assert found.stop_reason == "complete"
    assert len({candidate.text for candidate in expected}) > 3
    await pair.at_rest()


@pytest.mark.parametrize("method", SAMPLED)
@pytest.mark.parametrize(
    ("says", "end"), [("a \n", 12.0), ("a", 40.0)], ids=["nothing that can be read", "nothing at all"]
)
async def test_candidates_without_an_answer_are_chosen_from_all_the_same(
    method: Method, says: str, end: float, start_pair: Start
) -> None:
    """There is no vote, and one of them is given; what is empty has no steps and no scores."""
    pair = start_pair()
    bias = [(FIRST_BYTE_ID + ord(character), 20.0) for character in says]
    asked = request(7, logit_bias=(*bias, (END_ID, end)), max_tokens=30)
    wanted = plan(method, 5)
    found = (await pair.search(wanted, asked)).outcome
    assert list(found.candidates) == await sample_one_by_one(pair, asked, 5, scores=method in NEEDS_SCORER)
    assert found.selection == select(found.candidates, wanted.rule)
    assert found.selection.votes == ()
    assert found.selection.abstained == tuple(range(5))
    assert len(found.selection.winners) == 1
    if end > 20.0:
        assert {(candidate.text, candidate.scores) for candidate in found.candidates} == {("", ())}
    await pair.at_rest()


async def test_rounds_do_not_overlap(start_pair: Start) -> None:
    """Two calls at once are one after the other, so that what each may spend is no matter of timing."""
    pair = start_pair()
    wanted = plan("weighted", 4, budget=budget(60))

    async def spend(*, at_once: bool) -> list[str]:
        with open_search(wanted, pair.engine, pair.scorer, request(8), PROBLEM) as search:
            lines = search.root.fork(4)
            rounds = [search.advance(lines[:2]), search.finish(lines[2:])]
            if at_once:
                await asyncio.gather(*rounds)
            else:
                for each in rounds:
                    await each
            return [line.text for line in lines]

    assert await spend(at_once=True) == await spend(at_once=False)


async def test_single_is_the_ordinary_answer(start_pair: Start) -> None:
    """A search of one draws what the ordinary request draws."""
    pair = start_pair()
    (ordinary,) = await answers(pair.engine, request(2, logprobs=0))
    found = await pair.search(plan("single", 1), request(2))
    (candidate,) = found.outcome.candidates
    assert candidate.text == ordinary.text
    # A search also keeps what ended the text.
    tokens = [(token.bytes, token.logprob) for token in found.outcome.lines[0].logprobs if token.bytes]
    assert tokens == ordinary.tokens
    assert found.outcome.selection.winners == (0,)
    assert found.spent.scorer_tokens == 0


async def test_what_else_is_computed_decides_nothing(start_pair: Start) -> None:
    """The same plan and key find the same alone, beside strangers, and where memory is short."""
    wanted = plan("weighted", 6, budget=budget(150))
    alone = await start_pair().search(wanted, request(3))
    crowded = start_pair(
        n_ctx_total=256, n_ctx=128, scorer_n_ctx=200, max_sequences=5, n_batch=32, n_ubatch=32
    )
    noise = [asyncio.ensure_future(answers(crowded.engine, request(n, max_tokens=90))) for n in range(10, 16)]
    twins = await asyncio.gather(*(crowded.search(wanted, request(3)) for _ in range(2)))
    await asyncio.gather(*noise)
    for found in twins:
        assert found.outcome.candidates == alone.outcome.candidates
        assert found.outcome.selection == alone.outcome.selection
        assert replace(found.spent, time_s=0) == replace(alone.spent, time_s=0)
    await crowded.at_rest()


async def test_the_prompt_is_computed_once_for_all_candidates(start_pair: Start) -> None:
    """The generator computes the prompt once, and each generated token takes one pass."""
    pair = start_pair()
    found = await pair.search(plan("majority", 16), request(4, prompt_token_ids=tuple(range(70, 190))))
    generated = sum(candidate.n_tokens for candidate in found.outcome.candidates)
    # The last token of the prompt is where each candidate begins to compute for itself.
    assert pair.engine.status()[GENERATOR].computed_tokens == 120 - 1 + generated
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (120, generated)
    assert (found.spent.prompt_tokens, found.spent.policy_tokens) == (120, generated)


async def test_the_scorer_reads_each_distinct_beginning_once(start_pair: Start) -> None:
    """Equal candidates are scored together, and so are equal first steps of different ones."""
    pair = start_pair()
    # A cold generator repeats itself.
    found = await pair.search(plan("weighted", 12), request(5, sampling=SamplingParams(temperature=0.5)))
    framer = pair.scorer.framer
    texts = [tuple(pair.scorer.split(candidate.text)) for candidate in found.outcome.candidates]
    beginnings = {steps[: count + 1] for steps in texts for count in range(len(steps))}
    read = sum(len(framer.step(steps[-1], first=len(steps) == 1).token_ids) for steps in beginnings)
    assert found.spent.scorer_tokens == len(framer.prefix(PROBLEM)) + read
    assert len(beginnings) < sum(map(len, texts))


async def test_flops_are_two_for_each_parameter_and_token(start_pair: Start) -> None:
    """Both models are charged for what they computed, by their true size."""
    pair = start_pair()
    found = await pair.search(plan("weighted", 4), request(6))
    spent, models = found.spent, pair.engine.models
    assert spent.policy_flops == 2 * models[GENERATOR].n_params * (24 + spent.policy_tokens)
    assert spent.scorer_flops == 2 * models[pair.scorer.name].n_params * spent.scorer_tokens
    assert spent.total_flops == spent.policy_flops + spent.scorer_flops


@pytest.mark.parametrize("strategy", sorted(NEEDS_SCORER & set(METHODS)))
async def test_who_needs_a_scorer_says_so(strategy: Method, start_pair: Start) -> None:
    """Without a scorer the error names the field and the way out; nothing falls back in silence."""
    pair = start_pair()
    with pytest.raises(UnsuitableModel, match="majority") as caught:
        await run(plan(strategy, 4), pair.engine, None, request(), PROBLEM)
    assert caught.value.param == "scaling.strategy"
    await pair.at_rest()


@pytest.mark.parametrize("n", [0, 1025])
async def test_too_many_candidates_are_refused(n: int, start_pair: Start) -> None:
    """And none at all."""
    with pytest.raises(InvalidRequest, match="1024"):
        await start_pair().search(plan("majority", n), request())
