# SPDX-License-Identifier: Apache-2.0
"""REBASE, beam search and DVTS against a slow reference, on scripted generators and scorers."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import slow_trees
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_search import PROMPT_TOKENS, Language, Script

from adyton_enclave.scaling import beam, dvts, growth, mcts, rebase
from adyton_enclave.scaling.plan import Budget, Plan
from adyton_enclave.scaling.search import STEP_TOKENS, Outcome, Search
from adyton_protocol.errors import Cancelled, InvalidRequest, LocalProtocolError
from adyton_protocol.selection.candidate import SelectionRule

Run = Callable[[Search], Awaitable[Outcome]]
RUNS: dict[str, Run] = {"rebase": rebase.run, "beam": beam.run, "dvts": dvts.run, "mcts": mcts.run}
LEVELS = ("rebase", "beam", "dvts")

languages = st.builds(
    Language,
    seed=st.integers(0, 10_000),
    words=st.integers(1, 4),
    patience=st.integers(1, 5),
    readable=st.sampled_from([0, 4, 8]),
    scores=st.sampled_from([1, 2, 5, 1000]),
    variety=st.integers(1, 3),
    blank=st.sampled_from([0, 0, 3]),
)


def _plan(strategy: str, **fields: object) -> Plan:
    how = fields.pop("aggregate", "prod")
    rule = SelectionRule(method="weighted", aggregate=how)  # type: ignore[arg-type]
    return Plan(**{"strategy": strategy, "n": 8, "rule": rule, "experimental": True, **fields})  # type: ignore[arg-type]


def _reference(script: Script) -> slow_trees.Result:
    plan = script.plan
    bounds = {
        "how": plan.rule.aggregate,
        "max_tokens": script.max_tokens,
        "budget": plan.budget.policy_tokens,
    }
    if plan.strategy == "mcts":
        return slow_trees.climb(script.language, plan.n, plan.branching, **bounds)  # type: ignore[arg-type]
    share = {
        "rebase": slow_trees.rebase(plan.balance),
        "beam": slow_trees.beam(plan.branching),
        "dvts": slow_trees.only_the_best,
    }[plan.strategy]
    widths = [plan.n]
    if plan.strategy == "dvts":
        n_trees = max(1, plan.n // plan.branching)
        widths = [len(range(at, plan.n, n_trees)) for at in range(n_trees)]
    return slow_trees.grow(script.language, widths, share, **bounds)  # type: ignore[arg-type]


async def _run(script: Script) -> Outcome:
    with script.open() as search:
        outcome = await RUNS[script.plan.strategy](search)
        assert search.ledger.spent.policy_tokens == script.costs.generated
        assert search.ledger.spent.scorer_tokens in (0, script.scorer.usage.prompt_tokens)  # type: ignore[union-attr]
    return outcome


def _check(script: Script, outcome: Outcome) -> None:
    expected = _reference(script)
    assert [candidate.text for candidate in outcome.candidates] == expected.texts
    assert [candidate.complete for candidate in outcome.candidates] == expected.complete
    assert [candidate.n_tokens for candidate in outcome.candidates] == expected.n_tokens
    assert [list(candidate.scores) for candidate in outcome.candidates] == expected.scores
    assert script.costs.generated == expected.generated
    winner, sums = slow_trees.vote(expected, script.plan.rule.aggregate)
    votes = {vote.key: vote.weight for vote in outcome.selection.votes}
    assert [vote.shown for vote in outcome.selection.votes][:1] == ([winner] if winner else [])
    assert sorted(votes.values()) == pytest.approx(sorted(sums.values()))
    all_ended = all(line.ended for line in outcome.lines)
    if script.plan.strategy == "mcts":  # which may have wanted more answers
        assert all_ended or outcome.stop_reason == "budget"
    else:
        assert (outcome.stop_reason == "complete") == all_ended


def _check_nodes(outcome: Outcome) -> None:
    """The tree can be read off its record: every candidate is the path to its node."""
    nodes = outcome.nodes
    for index, candidate in enumerate(outcome.candidates):
        ends = [number for number, node in enumerate(nodes) if index in node.candidates]
        if not candidate.text:
            assert not ends
            continue
        (at,) = ends
        text = ""
        steps: int | None = at
        while steps is not None:
            text = nodes[steps].step + text
            steps = nodes[steps].parent
        assert text == candidate.text
    for number, node in enumerate(nodes):
        assert node.n_children == sum(other.parent == number for other in nodes)
        assert node.depth == (1 if node.parent is None else nodes[node.parent].depth + 1)
        assert node.parent is None or node.parent < number


@settings(max_examples=50, deadline=None)
@given(
    language=languages,
    strategy=st.sampled_from(sorted(RUNS)),
    n=st.integers(1, 12),
    branching=st.integers(1, 5),
    how=st.sampled_from(["last", "min", "prod", "mean"]),
    budget=st.one_of(st.none(), st.integers(0, 200)),
    max_tokens=st.integers(1, 40),
    in_flight=st.sampled_from([1, 3, 64]),
)
def test_a_tree_search_finds_what_the_slow_reference_finds(
    language: Language,
    strategy: str,
    n: int,
    branching: int,
    how: str,
    budget: int | None,
    max_tokens: int,
    in_flight: int,
) -> None:
    """Texts, scores, votes and tokens, also with ties, without answers, and when the budget ends in mid-step."""
    plan = _plan(
        strategy,
        n=n,
        branching=branching,
        aggregate=how,
        in_flight=in_flight,
        budget=Budget(policy_tokens=budget),
    )
    script = Script(language, plan, max_tokens=max_tokens)
    outcome = asyncio.run(_run(script))
    _check(script, outcome)
    _check_nodes(outcome)
    assert len(outcome.candidates) == n or strategy == "mcts"


@pytest.mark.parametrize("strategy", RUNS)
@pytest.mark.parametrize("budget", [None, 61])
async def test_timing_changes_nothing(strategy: str, budget: int | None) -> None:
    """Whoever is computed first: candidates, choice, record, and what either model was asked for are the same."""
    seen = []
    for timing in range(4):
        for in_flight in (2, 64):
            plan = _plan(strategy, in_flight=in_flight, budget=Budget(policy_tokens=budget))
            script = Script(Language(seed=3, scores=1000), plan, timing=timing)
            outcome = await _run(script)
            assert script.costs.most_busy <= in_flight
            costs = (script.costs.generated, script.costs.read)
            seen.append((outcome.candidates, outcome.selection, outcome.nodes, outcome.stop_reason, costs))
    assert all(each == seen[0] for each in seen)


@pytest.mark.parametrize("strategy", RUNS)
async def test_no_token_is_drawn_twice(strategy: str) -> None:
    """What is generated are distinct draws: a common beginning is generated, and counted, once."""
    script = Script(Language(seed=5), _plan(strategy, n=10, branching=3))
    outcome = await _run(script)
    assert len(script.tree.tokens) == script.costs.generated
    assert sum(candidate.n_tokens for candidate in outcome.candidates) > script.costs.generated - sum(
        len(node.step) for node in outcome.nodes
    )


@pytest.mark.parametrize("strategy", RUNS)
async def test_equal_text_is_judged_once(strategy: str) -> None:
    """Where all lines say the same, the scorer reads one of them; the votes and their weights are those of all."""
    script = Script(Language(seed=2, cold=True), _plan(strategy, n=6))
    outcome = await _run(script)
    assert len({candidate.text for candidate in outcome.candidates}) == 1
    if strategy != "mcts":  # which takes turns, and forgets what a rollout has had read
        assert script.costs.read == len(outcome.candidates[0].text.replace("\n", ""))
    (vote,) = outcome.selection.votes
    assert len(vote.members) == 6
    assert vote.weight == pytest.approx(6 * script.language.score_of(outcome.candidates[0].text))


@pytest.mark.parametrize("strategy", RUNS)
async def test_lines_that_are_given_up_are_freed_at_once(strategy: str) -> None:
    """While a search runs it holds no more branches than its width, or than its nodes that can still grow."""
    most = 0

    def look(_: object) -> None:
        nonlocal most
        most = max(most, script.costs.alive["generator"])

    script = Script(Language(seed=9, patience=6), _plan(strategy, n=8, branching=2))
    with script.open(look) as search:
        outcome = await RUNS[strategy](search)
    if strategy != "mcts":
        assert most <= 8
        assert max(node.depth for node in outcome.nodes) >= 4
    assert sum(not node.n_children and not node.candidates for node in outcome.nodes) or strategy == "mcts"
    assert script.tree.closed


@pytest.mark.parametrize("strategy", RUNS)
async def test_a_cancelled_search_leaves_nothing_running(strategy: str) -> None:
    """Cancelled at any moment: its tasks are over, and both trees are closed."""
    for n_turns in (0, 1, 2, 5, 11, 40):
        script = Script(Language(seed=1, patience=9, words=9), _plan(strategy), max_tokens=400)
        before = asyncio.all_tasks()

        async def search(script: Script = script) -> None:
            with script.open() as opened:
                await RUNS[strategy](opened)

        task = asyncio.ensure_future(search())
        for _ in range(n_turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in range(20):
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == before
        assert n_turns == 0 or (script.tree.closed and script.scorer.closed)  # type: ignore[union-attr]
        assert not script.costs.busy


@pytest.mark.parametrize("strategy", RUNS)
async def test_a_search_that_is_closed_under_a_strategy_fails(strategy: str) -> None:
    """The deadline of a tree is the search's: what waits learns that it was cancelled."""

    def close(_: object) -> None:
        script.tree.close()

    script = Script(Language(seed=1), _plan(strategy))
    with script.open(close) as search, pytest.raises(Cancelled):
        await RUNS[strategy](search)


@pytest.mark.parametrize("strategy", RUNS)
async def test_nobody_can_be_read(strategy: str) -> None:
    """All answers unreadable, or all texts empty: somebody is chosen without a vote, and everybody abstains."""
    for language in (Language(seed=4, readable=0), Language(seed=4, blank=8, cold=True)):
        outcome = await _run(Script(language, _plan(strategy)))
        assert outcome.selection.votes == ()
        assert outcome.selection.abstained == tuple(range(len(outcome.candidates)))
        assert len(outcome.selection.winners) == 1
        _check_nodes(outcome)


@pytest.mark.parametrize("strategy", RUNS)
@pytest.mark.parametrize("budget", [Budget(policy_tokens=0), Budget(total_flops=2.0), Budget(time_s=0.0)])
async def test_a_budget_of_nothing_gives_candidates_without_a_vote(strategy: str, budget: Budget) -> None:
    """There is an outcome, honest about why it is empty."""
    script = Script(Language(), _plan(strategy, budget=budget))
    outcome = await _run(script)
    assert outcome.candidates
    assert not any(candidate.complete or candidate.text for candidate in outcome.candidates)
    assert outcome.stop_reason == ("time" if budget.time_s is not None else "budget")
    assert outcome.selection.votes == outcome.nodes == ()
    assert script.costs.generated == 0


@pytest.mark.parametrize("strategy", RUNS)
async def test_flops_bound_a_search(strategy: str) -> None:
    """Of both models together; the tokens that were being drawn and read when it ran out are the excess."""
    script = Script(Language(seed=6, patience=4), _plan(strategy, n=12, budget=Budget(total_flops=250.0)))
    with script.open() as search:
        outcome = await RUNS[strategy](search)
        spent = search.ledger.spent
    assert outcome.stop_reason == "budget"
    assert spent.policy_flops == 2.0 * (PROMPT_TOKENS + spent.policy_tokens)
    # The scripted scorer reads characters, several to a token.
    assert 150 < spent.total_flops < 400


@pytest.mark.parametrize("strategy", LEVELS)
async def test_a_step_that_never_ends_is_taken_as_it_stands(strategy: str) -> None:
    """It has its bound, is judged there, and the line goes on, until the line has its own bound."""
    script = Script(Language(endless=True, scores=1000), _plan(strategy, n=4, branching=2), max_tokens=600)
    outcome = await _run(script)
    _check(script, outcome)
    assert {node.depth for node in outcome.nodes} == {1, 2, 3}
    assert not any(candidate.complete for candidate in outcome.candidates)
    assert [len(candidate.scores) for candidate in outcome.candidates] == [3] * 4
    assert [candidate.n_tokens for candidate in outcome.candidates] == [600] * 4
    assert all(len(node.step.split()) <= STEP_TOKENS for node in outcome.nodes)


@pytest.mark.parametrize("strategy", LEVELS)
async def test_depth_is_bounded(strategy: str) -> None:
    """Lines of very many steps are not redistributed for ever: the last part of each is written in one go."""
    language = Language(words=1, patience=10_000)
    outcome = await _run(Script(language, _plan(strategy, n=3, branching=1), max_tokens=200))
    assert max(node.depth for node in outcome.nodes) == growth.MAX_DEPTH
    assert [candidate.n_tokens for candidate in outcome.candidates] == [200] * 3
    assert all(len(candidate.scores) == 100 for candidate in outcome.candidates)
    _check_nodes(outcome)


@pytest.mark.parametrize("strategy", RUNS)
async def test_lines_too_long_for_the_scorer_are_trusted_least(strategy: str) -> None:
    """They go on, without scores, and weigh nothing."""
    script = Script(Language(seed=11, patience=4), _plan(strategy), room=9)
    outcome = await _run(script)
    for candidate, line in zip(outcome.candidates, outcome.lines, strict=True):
        assert line.unscored == (not candidate.scores)
    assert any(line.unscored for line in outcome.lines)
    assert all(node.score is not None for node in outcome.nodes if node.depth == 1)


@pytest.mark.parametrize("strategy", RUNS)
async def test_without_a_scorer_there_is_no_tree_search(strategy: str) -> None:
    """Nothing is generated in vain."""
    script = Script(Language(), _plan(strategy), scores=False)
    with script.open() as search, pytest.raises(LocalProtocolError, match="scorer"):
        await RUNS[strategy](search)
    assert not script.costs.generated


async def test_mcts_has_to_be_asked_for() -> None:
    """It is experimental, and says so to whoever does not know."""
    script = Script(Language(), _plan("mcts", experimental=False))
    with script.open() as search, pytest.raises(InvalidRequest, match="experimental"):
        await mcts.run(search)


async def test_a_sure_scorer_gives_rebase_one_parent_and_an_unsure_one_all() -> None:
    """A balance near 0 keeps the best line only; a great one keeps every line with one child."""
    for balance, alone in ((1e-9, True), (1e9, False)):
        language = Language(seed=8, scores=1_000_000, variety=3, patience=6)
        outcome = await _run(Script(language, _plan("rebase", balance=balance)))
        firsts = [node for node in outcome.nodes if node.depth == 1]
        assert len(firsts) == 8
        grown = [node.n_children for node in firsts if node.n_children]
        assert grown == ([8 - sum(bool(node.candidates) for node in firsts)] if alone else [1] * len(grown))


async def test_finished_lines_take_their_width_with_them_and_have_one_vote() -> None:
    """They are not cloned: at every depth the width is n less what has ended before."""
    for seed in range(10):
        for strategy in LEVELS:
            outcome = await _run(Script(Language(seed=seed, patience=2), _plan(strategy)))
            ended = 0
            for depth in range(1, max(node.depth for node in outcome.nodes) + 1):
                level = [node for node in outcome.nodes if node.depth == depth]
                assert len(level) == 8 - ended
                ended += sum(bool(node.candidates) for node in level)
            assert len(outcome.candidates) == 8
