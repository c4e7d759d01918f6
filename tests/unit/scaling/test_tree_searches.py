# SPDX-License-Identifier: Apache-2.0
"""Tree searches on a real engine: what forks share, what is computed, and that nothing is left behind."""

import asyncio
from dataclasses import replace

import pytest
from engine_calls import answers, until
from search_engines import GENERATOR, PROBLEM, Pair, Start, request

from adyton_enclave.engine import SamplingParams
from adyton_enclave.scaling.plan import Budget, Plan
from adyton_enclave.scaling.search import Search
from adyton_enclave.scaling.strategies import open_search
from adyton_protocol.errors import Cancelled
from adyton_protocol.selection.candidate import Candidate, SelectionRule

STRATEGIES = ("rebase", "beam", "dvts", "mcts")


def _plan(strategy: str, **fields: object) -> Plan:
    rule = SelectionRule(method="weighted", aggregate="last")
    defaults = {"strategy": strategy, "n": 8, "rule": rule, "experimental": True}
    return Plan(**{**defaults, **fields})  # type: ignore[arg-type]


def _open(pair: Pair, plan: Plan, seed: int = 1) -> Search:
    return open_search(plan, pair.engine, pair.scorer, request(seed, end=-100.0), PROBLEM)


def _cells(pair: Pair, name: str = GENERATOR) -> int:
    return pair.engine.status()[name].kv_cells_used


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_scores_are_those_of_whole_answers(strategy: str, start_pair: Start) -> None:
    """Judged step by step on forks, a candidate has the scores, bit for bit, that its text has alone."""
    pair = start_pair()
    found = await pair.search(_plan(strategy), request(1, end=9.0))
    assert len({candidate.text for candidate in found.outcome.candidates}) > 3
    assert max(node.depth for node in found.outcome.nodes) > 2
    for candidate in found.outcome.candidates:
        alone, _ = await pair.scorer.score(PROBLEM, pair.scorer.split(candidate.text))
        assert candidate.scores == alone
    await pair.at_rest()


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_a_crowd_changes_nothing(strategy: str, start_pair: Start) -> None:
    """The same plan and key find the same alone, beside strangers and themselves, and where memory is short."""
    for budget in (Budget(), Budget(policy_tokens=130)):
        wanted = _plan(strategy, n=6, budget=budget)
        alone = await start_pair().search(wanted, request(3))
        crowded = start_pair(
            n_ctx_total=256, n_ctx=128, scorer_n_ctx=200, max_sequences=5, n_batch=32, n_ubatch=32
        )
        noise = [
            asyncio.ensure_future(answers(crowded.engine, request(n, max_tokens=90))) for n in range(10, 16)
        ]
        twins = await asyncio.gather(*(crowded.search(wanted, request(3)) for _ in range(2)))
        await asyncio.gather(*noise)
        for found in twins:
            assert found.outcome.candidates == alone.outcome.candidates
            assert found.outcome.selection == alone.outcome.selection
            assert found.outcome.nodes == alone.outcome.nodes
            assert replace(found.spent, time_s=0) == replace(alone.spent, time_s=0)
        await crowded.at_rest()


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_every_token_is_computed_once(strategy: str, start_pair: Start) -> None:
    """The prompt once, a common beginning once, and one pass for each generated token; usage says so."""
    pair = start_pair()
    found = await pair.search(_plan(strategy), request(4, prompt_token_ids=tuple(range(70, 190))))
    generated = found.spent.policy_tokens
    assert pair.engine.status()[GENERATOR].computed_tokens == 120 - 1 + generated
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (120, generated)
    texts = sum(len(node.step) for node in found.outcome.nodes)
    ends = sum(line.ended for line in found.outcome.lines)
    # A token of this generator is a character or the end, and a node is where its characters were drawn.
    assert texts <= generated <= texts + ends + len(found.outcome.candidates)
    assert pair.engine.status()[pair.scorer.name].computed_tokens == found.spent.scorer_tokens


@pytest.mark.parametrize(
    "tree",
    [
        {"strategy": "rebase", "balance": 1e9},
        {"strategy": "beam", "branching": 1},
        {"strategy": "dvts", "branching": 1},
    ],
)
async def test_a_tree_that_never_parts_is_a_weighted_vote(tree: dict[str, object], start_pair: Start) -> None:
    """Where every line gets one child, candidates and votes are, bit for bit, those of sampling whole answers."""
    pair = start_pair()
    found = await pair.search(_plan(**tree), request(2))  # type: ignore[arg-type]
    sampled = await pair.search(_plan("weighted"), request(2))

    def known(candidate: Candidate) -> tuple[object, ...]:
        return candidate.text, candidate.n_tokens, candidate.scores, candidate.complete

    # They are listed in the order of their ends, and a line's log-probability is summed step by step.
    assert sorted(map(known, found.outcome.candidates)) == sorted(map(known, sampled.outcome.candidates))
    weights = [{vote.key: vote.weight for vote in each.outcome.selection.votes} for each in (found, sampled)]
    assert weights[0] == weights[1]
    assert found.spent.policy_tokens == sampled.spent.policy_tokens
    assert found.spent.scorer_tokens == sampled.spent.scorer_tokens


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_a_stop_string_may_begin_in_a_step_before(strategy: str, start_pair: Start) -> None:
    """It ends its line, is no part of the text, and takes back what it began in."""
    pair = start_pair()
    stops = tuple(f"{end}\n{begin}" for end in "123" for begin in "12")
    found = await pair.search(_plan(strategy), request(6, end=5.0, stop=stops))
    ended = [candidate for candidate in found.outcome.candidates if candidate.complete]
    assert ended
    assert not any(stop in candidate.text for candidate in found.outcome.candidates for stop in stops)
    last = {node.step[-1:] for node in found.outcome.nodes if node.candidates}
    assert "\n" in last  # what was taken back stands in the record, as it was judged
    await pair.at_rest()


async def test_forks_share_cells_and_lines_that_are_given_up_free_theirs(start_pair: Start) -> None:
    """A fork costs no cell until it is extended, and then its own tokens; a parent that goes on is not copied."""
    pair = start_pair()
    with _open(pair, _plan("rebase", n=4)) as search:
        lines = search.root.fork(4)
        search.root.drop()
        await search.advance(lines)
        prompt = 24 - 1
        own = [line.n_tokens for line in lines]
        assert _cells(pair) == prompt + sum(own)
        forks = lines[0].fork(3)
        assert _cells(pair) == prompt + sum(own)
        for line in lines[1:]:
            line.drop()
        await until(lambda: _cells(pair) == prompt + own[0])
        await search.advance([lines[0], *forks])
        # All four begin with the cells of the first step, of whose last token each computes one for itself.
        grown = [line.n_tokens - own[0] for line in (lines[0], *forks)]
        assert _cells(pair) == prompt + own[0] + sum(grown)
    await pair.at_rest()


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_a_search_holds_no_more_than_its_width(strategy: str, start_pair: Start) -> None:
    """While it runs, the generator's cells are those of the prompt and of as many lines as it has."""
    pair = start_pair()
    most = 0

    def look(_: object) -> None:
        nonlocal most
        most = max(most, _cells(pair))

    found = await pair.search(_plan(strategy, n=6, branching=2), request(5), notify=look)
    longest = max(candidate.n_tokens for candidate in found.outcome.candidates)
    assert 24 < most <= 24 + 6 * (longest + 1)
    await pair.at_rest()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("after", [1, 9, 15])
async def test_a_cancelled_search_leaves_nothing(strategy: str, after: int, start_pair: Start) -> None:
    """Whenever its task is cancelled: no cell is held, and the engine serves the next as if nothing had been."""
    pair = start_pair()
    n_told = 0

    def tell(_: object) -> None:
        nonlocal n_told
        n_told += 1
        if n_told == after:
            task.cancel()

    task = asyncio.ensure_future(pair.search(_plan(strategy, n=12), request(6), notify=tell))
    with pytest.raises(asyncio.CancelledError):
        await task
    await pair.at_rest()
    again = await pair.search(_plan(strategy, n=4), request(7))
    fresh = await start_pair().search(_plan(strategy, n=4), request(7))
    assert again.outcome.candidates == fresh.outcome.candidates


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_the_deadline_of_a_request_ends_its_search(strategy: str, start_pair: Start) -> None:
    """It fails as cancelled, and nothing is left."""
    pair = start_pair()
    endless = request(8, end=-100.0, timeout_s=0.15, max_tokens=400)
    with pytest.raises(Cancelled):
        await pair.search(_plan(strategy, n=16), endless)
    await pair.at_rest()


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_time_ends_a_search_with_what_there_is(strategy: str, start_pair: Start) -> None:
    """A budget of time is looked at between rounds; whoever had not finished is an incomplete candidate."""
    pair = start_pair()
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.01
        return now

    wanted = _plan(strategy, budget=Budget(time_s=0.5))
    found = await pair.search(wanted, request(9, end=-100.0), clock=clock)
    assert found.outcome.stop_reason == "time"
    assert not any(candidate.complete for candidate in found.outcome.candidates)
    assert len(found.outcome.selection.winners) == 1
    await pair.at_rest()


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_a_cold_generator_is_judged_once(strategy: str, start_pair: Start) -> None:
    """At temperature 0 all lines say the same: as many votes, at the price of one reading."""
    pair = start_pair()
    cold = SamplingParams(temperature=0.0)
    found = await pair.search(_plan(strategy), request(5, sampling=cold, end=13.0))
    (text,) = {candidate.text for candidate in found.outcome.candidates}
    framer, steps = pair.scorer.framer, pair.scorer.split(text)
    reading = sum(len(framer.step(step, first=not at).token_ids) for at, step in enumerate(steps))
    if strategy != "mcts":  # which takes turns
        assert found.spent.scorer_tokens == len(framer.prefix(PROBLEM)) + reading
    await pair.at_rest()
