# SPDX-License-Identifier: Apache-2.0
"""Scoring on the engine: the same bits however it is done, nothing computed twice, nothing left behind."""

import asyncio
from collections.abc import Callable

import pytest
from engine_calls import until
from tiny_scorers import TinyScorer
from unit.scoring.test_scorer_conventions import PROBLEM, STEPS

from adyton_enclave.engine import Usage
from adyton_enclave.scoring import Scorer, ScoringTerms
from adyton_protocol.errors import Cancelled, ContextOverflow, InvalidRequest, LocalProtocolError

Start = Callable[..., Scorer]
Scorers = Callable[[str], TinyScorer]
OTHERS = tuple(f"a t{'he' * n} in {n} = {n * n}" for n in range(6))


async def _alone(scorer: Scorer, steps: tuple[str, ...]) -> tuple[float, ...]:
    return (await scorer.score(PROBLEM, steps))[0]


async def test_scores_are_the_same_bits_alone_step_by_step_and_in_a_batch(
    tiny: TinyScorer, start: Start
) -> None:
    """In the reproducible profile a score depends on problem and steps, and on nothing else at all."""
    steps = STEPS[tiny.name]
    scorer = start(tiny)
    assert scorer.model.why_inexact is None
    alone = await _alone(scorer, steps)
    rivals = [(*steps[:1], other, *steps[1:]) for other in OTHERS]
    together = await asyncio.gather(*(_alone(scorer, each) for each in (steps, *rivals, steps)))
    assert together[0] == together[-1] == alone
    # In small steps, on forks of forks, beside strangers.
    other_sizes = start(tiny, n_batch=16, n_ubatch=16)
    noise = [asyncio.ensure_future(_alone(other_sizes, rival)) for rival in rivals]
    with other_sizes.open(PROBLEM) as tree:
        branch = tree.root
        for number, step in enumerate(steps):
            branch, rival = branch.fork(2)
            (score,), _ = await asyncio.gather(branch.extend(step), rival.extend(OTHERS[number]))
            assert score == alone[number]
            rival.prune()
        assert branch.scores == alone
    assert [await each for each in noise] == together[1:-1]


async def test_a_fork_computes_only_what_is_new(scorers: Scorers, start: Start) -> None:
    """Problem and shared steps are read once however many branches go on from them; then all cells are free."""
    scorer = start(scorers("adyton-words-scorer"))
    prefix = len(scorer.framer.prefix(PROBLEM))
    shared = len(scorer.framer.step("Eva = 12", first=True).token_ids)
    with scorer.open(PROBLEM) as tree:
        await tree.root.extend("Eva = 12")
        branches = tree.root.fork(8)
        steps = [f"Tom = {n}" for n in range(8)]
        scores = await asyncio.gather(
            *(branch.extend(step) for branch, step in zip(branches, steps, strict=True))
        )
        added = sum(len(scorer.framer.step(step, first=False).token_ids) for step in steps)
        assert tree.usage == Usage(prompt_tokens=prefix + shared + added, completion_tokens=0)
        status = scorer.engine.status()[scorer.name]
        assert status.computed_tokens == prefix + shared + added
        assert status.kv_cells_used == prefix + shared + added
        for step, branch, (score,) in zip(steps, branches, scores, strict=True):
            assert branch.scores == (*tree.root.scores, score)
            assert branch.scores == (await scorer.score(PROBLEM, ["Eva = 12", step]))[0]
    await until(lambda: not scorer.engine.status()[scorer.name].kv_cells_used)


async def test_what_does_not_fit_is_refused_before_any_work(scorers: Scorers, start: Start) -> None:
    """A problem, or steps, beyond the context are the caller's error; the branch can still be used."""
    scorer = start(scorers("adyton-words-scorer"))
    with pytest.raises(ContextOverflow, match="problem"):
        scorer.open("9 " * 600)
    with pytest.raises(ContextOverflow):
        await scorer.score(PROBLEM, ["9 " * 600])
    with pytest.raises(ContextOverflow):
        await scorer.score(PROBLEM, ["9 " * 20_000])
    # So long that it cannot fit, whatever its tokens are.
    with pytest.raises(ContextOverflow, match="characters"):
        scorer.open("9" * 10_000_000)
    with pytest.raises(ContextOverflow, match="characters"):
        await scorer.score(PROBLEM, ["9" * 10_000_000])
    with scorer.open(PROBLEM) as tree:
        expected = await tree.root.extend("Eva = 12")
        with pytest.raises(ContextOverflow, match="room"):
            await tree.root.extend("9 " * 500)
        with pytest.raises(ContextOverflow, match="room"):
            await tree.root.extend(*(["Tom = 13"] * 100))
        assert tree.root.scores == expected
        assert len(await tree.root.extend("Tom = 13")) == 1
    await until(lambda: not scorer.engine.status()[scorer.name].kv_cells_used)


async def test_blank_problems_and_steps_are_refused(tiny: TinyScorer, start: Start) -> None:
    """There is nothing to judge; no step is no work."""
    scorer = start(tiny)
    for problem, steps in ((" \n", ("1",)), (PROBLEM, ("1", "\t"))):
        with pytest.raises(InvalidRequest, match="blank"):
            await scorer.score(problem, steps)
    with scorer.open(PROBLEM) as tree:
        assert await tree.root.extend() == ()


async def test_pruned_and_closed_branches_say_so(scorers: Scorers, start: Start) -> None:
    """Using what is gone is an error at once, and what was under way fails."""
    scorer = start(scorers("adyton-words-scorer"))
    with scorer.open(PROBLEM, ScoringTerms(tenant="a", priority="low")) as tree:
        branch, other = tree.root.fork(2)
        branch.prune()
        with pytest.raises(LocalProtocolError):
            await branch.extend("Eva = 12")
        waiting = asyncio.ensure_future(other.extend("Eva = 12"))
        await asyncio.sleep(0)
    with pytest.raises(Cancelled):
        await waiting
    await until(lambda: not scorer.engine.status()[scorer.name].kv_cells_used)


async def test_scorers_stand_beside_generators_in_one_engine(scorers: Scorers) -> None:
    """A generator and a scorer with a head take turns in one loop; the scores are those of the scorer alone."""
    from engine_calls import answers, request  # noqa: PLC0415

    from adyton_enclave.engine import Engine, EngineConfig  # noqa: PLC0415

    tiny, other = scorers("skywork"), scorers("rlhflow")
    config = EngineConfig(threads=1, n_ctx_total=2048, max_sequences=16)
    engine = Engine(config, [other.spec(generates=True, name="tiny"), tiny.spec()]).start()
    scorer = Scorer(engine, tiny.name, tiny.files().read())
    alone = await _alone(scorer, STEPS["skywork"])
    work = [answers(engine, request(n, max_tokens=30)) for n in range(3)]
    *_, beside = await asyncio.gather(*work, _alone(scorer, STEPS["skywork"]))
    assert beside == alone
    engine.stop()
