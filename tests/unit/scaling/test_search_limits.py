# SPDX-License-Identifier: Apache-2.0
"""Where a search ends before it is complete: budgets, decided votes, contexts, cancellation. Nothing is left behind."""

import asyncio
import itertools
from collections.abc import Callable

import pytest
from engine_calls import until
from search_engines import GENERATOR, PROBLEM, Pair, Start, budget, plan, request, sample_one_by_one, stop

from adyton_enclave.engine import SamplingParams
from adyton_enclave.scaling.plan import Budget
from adyton_enclave.scaling.search import Progress
from adyton_protocol.errors import Cancelled, DeadlineExceeded, EngineStopped, InvalidRequest
from adyton_protocol.selection.choose import select
from adyton_protocol.selection.stopping import decided

COLD = SamplingParams(temperature=0.6)


# --- Budgets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [6, 7, 30, 59, 101, 10_000])
async def test_no_token_beyond_the_budget_is_generated(tokens: int, start_pair: Start) -> None:
    """It is spent to the last token if need be; who was cut off in mid-step has no vote."""
    pair = start_pair()
    found = await pair.search(plan("weighted", 6, budget=budget(tokens)), request(1))
    generated = sum(candidate.n_tokens for candidate in found.outcome.candidates)
    assert pair.engine.status()[GENERATOR].computed_tokens == 24 - 1 + generated
    assert found.spent.policy_tokens == generated == found.usage.completion_tokens <= tokens
    cut = [index for index, candidate in enumerate(found.outcome.candidates) if not candidate.complete]
    assert set(cut) <= set(found.outcome.selection.abstained)
    needed = sum(
        candidate.n_tokens for candidate in await sample_one_by_one(pair, request(1), 6, scores=False)
    )
    assert generated == min(needed, tokens)
    assert found.outcome.stop_reason == ("budget" if needed > tokens else "complete")
    assert bool(cut) == (needed > tokens)
    assert len(found.outcome.candidates) == 6
    await pair.at_rest()


async def test_a_budget_that_suffices_changes_no_candidate(start_pair: Start) -> None:
    """Lines that get their tokens in several shares say what they say in one go, with the same scores."""
    pair = start_pair()
    free = await pair.search(plan("weighted", 6), request(2))
    tight = await pair.search(plan("weighted", 6, budget=budget(free.spent.policy_tokens)), request(2))
    assert tight.outcome.candidates == free.outcome.candidates
    assert (tight.outcome.stop_reason, free.outcome.stop_reason) == ("complete", "complete")
    assert tight.spent.policy_flops == free.spent.policy_flops


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 1.0])
async def test_no_operation_beyond_the_budget_is_done(share: float, start_pair: Start) -> None:
    """A bound of FLOPs holds for both models together, prompt and problem included."""
    pair = start_pair()
    free = await pair.search(plan("weighted", 6), request(3))
    bound = share * free.spent.total_flops
    found = await pair.search(plan("weighted", 6, budget=Budget(total_flops=bound)), request(3))
    assert 0 < found.spent.total_flops <= bound
    again = await pair.search(plan("weighted", 6, budget=Budget(total_flops=bound)), request(3))
    assert again.outcome.candidates == found.outcome.candidates
    for candidate, other in zip(found.outcome.candidates, free.outcome.candidates, strict=True):
        assert other.text.startswith(candidate.text)
        # A candidate that the scorer could not be paid for has no scores, never other ones.
        assert candidate.scores in {(), other.scores}
    await pair.at_rest()


@pytest.mark.parametrize(
    "bound",
    [budget(5), Budget(total_flops=1e3), Budget(time_s=0.0), budget(0)],
    ids=["tokens", "flops", "time", "nothing"],
)
async def test_a_budget_without_a_token_for_each_is_refused(bound: Budget, start_pair: Start) -> None:
    """The error names the field, and nothing is computed or held."""
    pair = start_pair()
    with pytest.raises(InvalidRequest) as caught:
        await pair.search(plan("weighted", 6, budget=bound), request())
    assert caught.value.param == "scaling.budget"
    assert not any(status.computed_tokens for status in pair.engine.status().values())
    await pair.at_rest()


async def test_time_that_is_up_ends_a_search(start_pair: Start) -> None:
    """The clock is looked at every few tokens; what is there by then is chosen from."""
    pair = start_pair()
    ticks = itertools.count()
    wanted = plan("majority", 4, budget=Budget(time_s=12.0))
    long = request(4, max_tokens=400, end=0.0)
    found = await pair.search(wanted, long, clock=lambda: float(next(ticks)))
    assert found.outcome.stop_reason == "time"
    assert not any(candidate.complete for candidate in found.outcome.candidates)
    assert 0 < found.spent.policy_tokens < 4 * 400
    assert found.spent.policy_tokens % 32 == 0
    assert len(found.outcome.selection.winners) == 1
    await pair.at_rest()


# --- Decided votes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["esc", "beta", "dirichlet"])
async def test_a_vote_ends_when_it_is_decided(kind: str, start_pair: Start) -> None:
    """The candidates are the first windows of the full search, up to the one that decides."""
    pair = start_pair()
    wanted = plan("majority", 15, stop=stop(kind))
    for seed in range(4):
        asked = request(seed, sampling=COLD, end=16.0)
        found = (await pair.search(wanted, asked)).outcome
        full = (await pair.search(plan("majority", 15), asked)).outcome.candidates
        n = next((n for n in range(3, 15, 3) if decided(full[:n], wanted.rule, wanted.stop)), 15)
        assert found.candidates == full[:n]
        assert found.stop_reason == ("complete" if n == 15 else "agreed")
        assert found.selection == select(full[:n], wanted.rule)


async def test_a_spent_budget_ends_a_search_between_windows(start_pair: Start) -> None:
    """Windows that were never begun are no candidates."""
    pair = start_pair()
    wanted = plan("majority", 15, stop=stop("beta"), budget=budget(40))
    found = await pair.search(wanted, request(5))
    assert found.outcome.stop_reason == "budget"
    assert len(found.outcome.candidates) in {3, 6}
    assert found.spent.policy_tokens == 40


# --- Texts ------------------------------------------------------------------------------------------------


async def test_stop_strings_end_candidates(start_pair: Start) -> None:
    """A candidate that a stop string ended is complete, without it; tokens behind its beginning count all the same."""
    pair = start_pair()
    asked = request(6, stop=("3\n", "aa"))
    found = await pair.search(plan("weighted", 8, budget=budget(200)), asked)
    expected = await sample_one_by_one(pair, asked, 8, scores=True)
    assert list(found.outcome.candidates) == expected
    assert not any(end in candidate.text for candidate in expected for end in asked.stop)
    assert sum(candidate.complete for candidate in expected) > 4


async def test_what_is_too_long_for_the_scorer_is_unscored(start_pair: Start) -> None:
    """Long candidates keep their text and lose their scores, which then weigh nothing; the search goes on."""
    pair = start_pair(scorer_n_ctx=64)
    asked = request(7, max_tokens=90, end=11.0)
    found = await pair.search(plan("weighted", 8), asked)
    scored = [bool(candidate.scores) for candidate in found.outcome.candidates]
    assert any(scored)
    assert [line.unscored for line in found.outcome.lines] == [not given for given in scored]
    texts = [candidate.text for candidate in found.outcome.candidates]
    assert texts == [each.text for each in await sample_one_by_one(pair, asked, 8, scores=False)]
    await pair.at_rest()


# --- Padding ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["single", "majority", "weighted"])
async def test_padding_spends_the_whole_budget_and_changes_no_choice(
    strategy: str, start_pair: Start
) -> None:
    """Whether the question was easy or hard, the same number of tokens is generated."""
    pair = start_pair()
    n = 1 if strategy == "single" else 6
    wanted = plan(strategy, n, stop=stop("esc"), budget=budget(400), pad_to_budget=True)  # type: ignore[arg-type]
    for seed, end in ((8, 16.0), (9, 11.0)):
        found = await pair.search(wanted, request(seed, end=end))
        assert found.spent.policy_tokens == found.usage.completion_tokens == 400
        assert found.outcome.selection == select(found.outcome.candidates, wanted.rule)
        assert sum(candidate.n_tokens for candidate in found.outcome.candidates) < 400
        await pair.at_rest()


async def test_padding_needs_something_to_spend(start_pair: Start) -> None:
    """Without a bound it would never end."""
    with pytest.raises(InvalidRequest) as caught:
        await start_pair().search(plan("majority", 4, pad_to_budget=True), request())
    assert caught.value.param == "scaling.pad_to_budget"


# --- Ends from outside ------------------------------------------------------------------------------------


def _watch(told: list[Progress], then: Callable[[], object]) -> Callable[[Progress], None]:
    def notify(progress: Progress) -> None:
        told.append(progress)
        if len(told) == 1:
            then()

    return notify


async def _start(pair: Pair, told: list[Progress]) -> asyncio.Task[object]:
    """A search that has begun and is far from its end."""
    begun = asyncio.Event()
    wanted = plan("weighted", 8, budget=budget(100_000), pad_to_budget=True)
    task = asyncio.ensure_future(pair.search(wanted, request(10), notify=_watch(told, begun.set)))
    await begun.wait()
    return task


async def test_cancelling_frees_everything(start_pair: Start) -> None:
    """Whoever goes away in the middle leaves no branch and no cell behind, in neither model."""
    pair = start_pair()
    task = await _start(pair, [])
    assert pair.cells
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await pair.at_rest()
    assert not any(status.running for status in pair.engine.status().values())


async def test_an_engine_that_stops_ends_the_search(start_pair: Start) -> None:
    """The error is the engine's own; nothing hangs."""
    pair = start_pair()
    task = await _start(pair, [])
    await asyncio.to_thread(pair.engine.stop)
    with pytest.raises(EngineStopped):
        await task


async def test_the_requests_deadline_ends_the_search(start_pair: Start) -> None:
    """Unlike a budget of time it is an error, because the caller set it for the answer as a whole."""
    pair = start_pair()
    wanted = plan("weighted", 8, budget=budget(10_000_000), pad_to_budget=True)
    with pytest.raises(Cancelled) as caught:
        await pair.search(wanted, request(11, timeout_s=0.2))
    assert isinstance(caught.value, DeadlineExceeded)
    await pair.at_rest()


async def test_what_cannot_be_scored_at_all_leaves_no_tree_open(start_pair: Start) -> None:
    """A problem that the scorer refuses ends the search before it began."""
    from adyton_enclave.scaling.strategies import run  # noqa: PLC0415

    pair = start_pair()
    with pytest.raises(InvalidRequest, match="blank"):
        await run(plan("weighted", 4), pair.engine, pair.scorer, request(), " \n")
    await until(lambda: not pair.cells)
    assert pair.engine.status()[GENERATOR].computed_tokens == 0


async def test_progress_tells_numbers_and_no_content(start_pair: Start) -> None:
    """Ended and living lines add up, and tokens only grow."""
    pair = start_pair()
    told: list[Progress] = []
    await pair.search(plan("majority", 5), request(12), notify=told.append)
    assert [progress.ended + progress.alive for progress in told] == [5] * len(told)
    assert told[-1].ended == 5
    tokens = [progress.policy_tokens for progress in told]
    assert tokens == sorted(tokens)
    assert PROBLEM not in repr(told)
