# SPDX-License-Identifier: Apache-2.0
"""The tree of what a scorer has read: right scores, nothing read twice, nothing kept."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_search import Costs, Language, ScriptedScorer

from adyton_enclave.scaling.reading import Reading, Steps, affordable, read_on
from adyton_protocol.errors import Cancelled

LANGUAGE = Language(seed=3, scores=50)
texts = st.lists(st.sampled_from(["a", "bb", "ccc"]), max_size=4).map(tuple)
rounds = st.lists(st.lists(texts, min_size=4, max_size=4), min_size=1, max_size=3)


def _beginnings(answers: Sequence[Steps]) -> set[Steps]:
    return {steps[: count + 1] for steps in answers for count in range(len(steps))}


def _scores(steps: Steps) -> tuple[float, ...]:
    return tuple(LANGUAGE.score(steps[: count + 1]) for count in range(len(steps)))


def _tree(timing: int = 0, room: int = 1000) -> tuple[Reading, ScriptedScorer]:
    scorer = ScriptedScorer(LANGUAGE, Costs(), timing, room)
    return Reading(scorer.root).hold(), scorer  # type: ignore[arg-type]


@given(rounds=rounds, timing=st.integers(0, 5))
def test_scores_are_those_of_reading_everything_alone(rounds: list[list[Steps]], timing: int) -> None:
    """Whatever lines say in whatever rounds; and when they are all gone, so is everything that was kept."""

    async def go() -> None:
        root, scorer = _tree(timing)
        places: list[Reading] = [root.hold() for _ in range(4)]
        said: list[Steps] = [()] * 4
        for steps in rounds:
            found = await read_on(list(zip(places, steps, strict=True)))
            for index, place in enumerate(found):
                assert place is not None
                places[index].release()
                places[index] = place
                said[index] += steps[index]
                assert place.scores == _scores(said[index])
        for place in (*places, root):
            place.release()
        assert scorer.costs.alive["scorer"] == 0

    asyncio.run(go())


@given(answers=st.lists(texts, max_size=6), timing=st.integers(0, 5))
def test_each_distinct_beginning_is_read_once(answers: list[Steps], timing: int) -> None:
    """What is read in a round follows from what is said, not from who comes first."""

    async def go() -> None:
        root, scorer = _tree(timing)
        await read_on([(root, steps) for steps in answers])
        assert scorer.costs.read == sum(len(steps[-1]) for steps in _beginnings(answers))

    asyncio.run(go())


@given(answers=st.lists(texts, max_size=6), more=st.lists(texts, max_size=6), n_tokens=st.integers(0, 40))
def test_what_is_affordable_costs_no_more_than_there_is(
    answers: list[Steps], more: list[Steps], n_tokens: int
) -> None:
    """Steps that others have had read, or will, are free; whoever comes first is served first."""

    async def go() -> None:
        root, scorer = _tree()
        before = await read_on([(root, steps) for steps in answers])
        assert all(before)
        known = scorer.costs.read
        wanted = [(root, steps) for steps in more]
        paid = affordable(wanted, n_tokens)
        await read_on([each for each, is_paid in zip(wanted, paid, strict=True) if is_paid])
        assert scorer.costs.read - known <= n_tokens
        if not answers:
            for index, is_paid in enumerate(paid):
                served = [steps for steps, before_it in zip(more[:index], paid, strict=False) if before_it]
                price = sum(len(steps[-1]) for steps in _beginnings([*served, more[index]]))
                assert is_paid == (price <= n_tokens)

    asyncio.run(go())


async def test_a_long_way_is_given_up_as_well() -> None:
    """Text of a thousand one-letter steps is no trouble."""
    root, scorer = _tree(room=10_000)
    at = root
    for _ in range(3000):
        (place,) = await read_on([(at, ("a",))])
        assert place is not None
        at.release()
        at = place
    at.release()
    assert scorer.costs.alive["scorer"] == 0


async def test_who_does_not_fit_has_no_place_and_others_have() -> None:
    """A line that is too long for the scorer takes nobody with it, and leaves nothing."""
    root, scorer = _tree(room=6)
    short, long, other = await read_on([(root, ("a", "bb")), (root, ("a", "ccc", "ccc")), (root, ("bb",))])
    assert long is None
    assert short is not None
    assert other is not None
    assert (short.scores, other.scores) == (_scores(("a", "bb")), _scores(("bb",)))
    for place in (short, other, root):
        place.release()
    assert scorer.costs.alive["scorer"] == 0


async def test_a_failure_leaves_no_place_held() -> None:
    """When the scorer's tree is gone in the middle, its error comes through and nothing is held."""
    root, scorer = _tree(timing=1)
    task = asyncio.ensure_future(read_on([(root, ("a", "bb")), (root, ("a", "ccc")), (root, ("bb",))]))
    await asyncio.sleep(0)
    scorer.close()
    with pytest.raises(Cancelled):
        await task
    root.release()
    assert scorer.costs.alive["scorer"] == 0


async def test_a_cancelled_reading_leaves_no_place_held() -> None:
    """Whoever waits may go away at any time."""
    for moment in range(12):
        root, scorer = _tree(timing=moment)
        task = asyncio.ensure_future(read_on([(root, ("a", "bb")), (root, ("a", "ccc")), (root, ())]))
        for _ in range(moment):
            await asyncio.sleep(0)
        task.cancel()
        try:
            places = await task
        except asyncio.CancelledError:
            places = []
        for place in (*places, root):
            assert place is not None
            place.release()
        assert scorer.costs.alive["scorer"] == 0
