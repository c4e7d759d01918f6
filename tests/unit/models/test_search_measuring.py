# SPDX-License-Identifier: Apache-2.0
"""Searches are measured from pools of candidates: what a pool stands for is what the search itself finds and costs."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from adyton_models.catalog import Sampling, default_catalog
from adyton_models.searching.campaign import Campaign, Clock, Setting, scorer_id
from adyton_models.searching.figures import Series, difference, pass_rates, ratio
from adyton_models.searching.measuring import Asked, Chooser, Run, price, run_of
from adyton_models.searching.pools import Pool, fooled, noisy
from adyton_models.searching.questions import drawn_questions
from adyton_models.searching.searcher import ScorerChoice, Searcher
from adyton_models.searching.specs import Spec, read_spec, read_specs
from adyton_models.searching.store import Store
from adyton_protocol.errors import ConfigError

SHIPPED = default_catalog().parent / "shipped"
GENERATOR = SHIPPED / "adyton-words-3m.gguf"
SCORER = ScorerChoice(name="judge", path=GENERATOR, adapter=SHIPPED / "adyton-words-likelihood.toml")
SAMPLING = Sampling(max_tokens=96)
SETTING = Setting(generator="g", sampling=SAMPLING, n_ctx=512, kv_type_k="q8_0")


@pytest.fixture(scope="module")
def searcher() -> Iterator[Searcher]:
    """The shipped generator, judged by itself."""
    with Searcher(GENERATOR, [SCORER], sampling=SAMPLING, n_ctx=512, kv_type_k="q8_0") as loaded:
        yield loaded


def _short(n: int) -> list[Asked]:
    """Problems with few steps, which are soon solved."""
    problems = drawn_questions("heldout", 60)
    return sorted(problems, key=lambda each: (each.question.steps or 0, each.number))[3 : 3 + n]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["majority-5", "majority-6+esc", "weighted-6+beta", "weighted-4", "rpc-4", "best-of-n-4", "bom-4"]
)
def test_a_pool_stands_for_the_search_itself(searcher: Searcher, name: str) -> None:
    """Answer, tokens of both models and FLOPs are those of the search as it is served, to the last digit."""
    spec = read_spec(name)
    (asked,) = _short(1)
    (sampled,) = searcher.sample(asked.question.text, number=asked.number, seeds=(7,), n=6)
    texts = dict.fromkeys(candidate.text for candidate in sampled.candidates)

    async def both() -> tuple[Run, Run]:
        reader = await searcher.score(asked.question.text, texts, "judge")
        pool = Pool(
            question_id=asked.id,
            seed=7,
            prompt_tokens=sampled.prompt_tokens,
            candidates=sampled.candidates,
            readers={"judge": reader},
        )
        cost = price(searcher.model.n_params)
        chosen = Chooser(asked, pool, {"judge": cost}, cost).run(spec, "judge")
        finding = await searcher.search(
            spec.plan, asked.question.text, number=asked.number, seed=7, scorer="judge"
        )
        return chosen, run_of(asked, 7, spec, chosen.scorer, finding)

    chosen, searched = asyncio.run(both())
    assert replace(searched, time_s=0.0) == chosen


@pytest.mark.slow
def test_a_campaign_goes_on_where_it_was(searcher: Searcher, tmp_path: Path) -> None:
    """What is there is not measured again, whatever is asked for more; a line that was cut off is."""
    problems = _short(2)
    campaign = Campaign(tmp_path, SETTING)
    assert not campaign.grow_pools(searcher, problems, (1,), 4, clock=Clock(ends_s=0.0))
    assert campaign.grow_pools(searcher, problems[:1], (1,), 4, clock=Clock())
    pools = next(tmp_path.rglob("pools.*.jsonl"))
    first = pools.read_text()
    assert campaign.grow_pools(searcher, problems, (1,), 3, scorers=["judge"], clock=Clock())
    assert pools.read_text().startswith(first)
    known = campaign.known()
    judge = scorer_id(searcher, "judge")
    assert [len(known.candidates[each.id, 1]) for each in problems] == [4, 3]
    pool = known.pool((problems[1].id, 1), [judge])
    assert pool is not None
    assert pool.readers[judge].candidate(pool.candidates[0]).scores
    pools.write_text(pools.read_text()[:-20])
    assert (problems[1].id, 1) not in campaign.known().candidates
    assert campaign.grow_pools(searcher, problems, (1,), 3, clock=Clock())
    assert campaign.known().candidates == known.candidates
    specs = read_specs("rebase-2")
    assert campaign.run_searches(searcher, problems[:1], (1,), specs, scorer="judge", clock=Clock())
    (run,) = campaign.known().runs.values()
    assert (run.spec, run.scorer, run.seed) == ("rebase-2", judge, 1)


@pytest.mark.slow
def test_worse_scorers_are_made_of_good_ones_and_always_the_same(searcher: Searcher) -> None:
    """A blind spot gives 1 to the same texts every time; noise keeps scores within their bounds."""
    (asked,) = _short(1)
    answers = ["The answer is: 1", " Eva = 3\n The answer is: 3", " Tom = 2"]
    reader = asyncio.run(searcher.score(asked.question.text, answers, "judge"))
    blind = fooled(reader, "q", share=1.0)
    assert all(set(each.scores) == {1.0} for each in blind.texts.values())
    assert fooled(reader, "q", share=0.0) == reader
    loud = noisy(reader, "q", sigma=3.0)
    assert loud == noisy(reader, "q", sigma=3.0) != noisy(reader, "r", sigma=3.0)
    assert all(0.0 < score < 1.0 for each in loud.texts.values() for score in each.scores)


@pytest.mark.slow
def test_more_answers_than_llama_has_sequences_are_refused(searcher: Searcher) -> None:
    """A pool that cannot be computed is an error, and not a smaller pool."""
    with pytest.raises(ValueError, match="at most 250"):
        searcher.sample("1 + 1", number=1, seeds=(1,), n=251)


@pytest.mark.parametrize(
    "name", ["single", "majority-16", "weighted-16+beta", "best-of-n-4/last", "rebase-8", "auto-16"]
)
def test_names_of_searches_are_written_as_they_are_read(name: str) -> None:
    """Whoever reads a table can ask for any of its rows."""
    assert str(read_spec(name)) == name
    assert read_specs(f"{name}, {name}") == (read_spec(name),)


@pytest.mark.parametrize(
    "name",
    ["", "majority", "single-4", "vote-4", "majority-0", "majority-4+soon", "rebase-8+beta", "refine-2"],
)
def test_what_names_no_search_is_refused_with_a_list(name: str) -> None:
    """The message says how searches are written."""
    with pytest.raises(ConfigError, match=r"write|width|stops early"):
        read_spec(name)


def _run(question: str, seed: int, *, right: bool, tokens: int = 10) -> Run:
    return Run(
        question_id=question,
        seed=seed,
        spec=str(Spec(strategy="majority", n=4)),
        scorer="",
        right=right,
        policy_tokens=tokens,
        prompt_tokens=1,
        scorer_tokens=0,
        total_flops=float(tokens),
    )


def test_differences_are_paired_and_counted_on_what_both_were_run_on() -> None:
    """Problems of one side alone say nothing about the other; a sure difference has a narrow interval."""
    one = Series([_run(str(q), 1, right=True) for q in range(20)])
    other = Series([_run(str(q), 1, right=q % 2 == 0, tokens=40) for q in range(10)])
    found = difference(one, other)
    assert (found.value, found.n) == (0.5, 10)
    assert 0.1 < found.low < 0.5 < found.high < 0.9
    assert ratio(one, other, lambda run: run.policy_tokens) == 0.25
    assert difference(one, one).as_json()["ci95"] == [0.0, 0.0]


def test_how_hard_a_problem_is_is_said_by_its_other_seeds() -> None:
    """A run does not decide in which band it is counted."""
    rates = {("a", 1): (10, 10), ("a", 2): (0, 10), ("a", 3): (5, 10), ("b", 1): (3, 10)}
    assert pass_rates(rates) == {("a", 1): 0.25, ("a", 2): 0.75, ("a", 3): 0.5}


def test_a_store_reads_what_all_writers_wrote(tmp_path: Path) -> None:
    """Several processes add to one campaign; a cut line is left out and nothing sticks to it."""
    for writer in ("0", "1"):
        with Store(tmp_path, "runs", writer=writer) as store:
            store.add({"n": writer})
    own = tmp_path / "runs.1.jsonl"
    own.write_text(own.read_text() + '{"n":"cut')
    with Store(tmp_path, "runs", writer="1") as store:
        store.add({"n": "2"})
    assert [record["n"] for record in Store(tmp_path, "runs")] == ["0", "1", "2"]


def test_the_problems_begin_with_those_that_ship() -> None:
    """More problems are more of the same, and no two share an id or a number."""
    heldout, ood = drawn_questions("heldout", 5), drawn_questions("ood", 5)
    assert heldout == drawn_questions("heldout", 9)[:5]
    assert len({each.number for each in heldout + ood}) == 10
    line = (SHIPPED / "heldout.jsonl").read_text().splitlines()[0]
    assert heldout[0].question.text in line
