# SPDX-License-Identifier: Apache-2.0
"""Several models in one loop: time is shared, nobody starves, and answers are those given alone."""

import asyncio
from collections import Counter

from engine_calls import answers, request
from hypothesis import given
from hypothesis import strategies as st
from tiny_gguf import TinyModel
from unit.engine.test_scheduler import Bench

from adyton_enclave.engine import Engine, EngineConfig, EvaluationRequest, ModelSpec, Question
from adyton_enclave.engine.turns import Turns


@given(
    step_s=st.tuples(*[st.floats(0.001, 1.0)] * 3),
    pauses=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 40)), max_size=5),
)
def test_busy_models_get_equal_time(step_s: tuple[float, ...], pauses: list[tuple[int, int]]) -> None:
    """Up to one step of each, however long their steps are, and whoever was idle before gets no more than that."""
    turns = Turns("abc")
    for idle, steps in pauses:
        for _ in range(steps):
            name = turns.next([name for name in "abc" if name != "abc"[idle]])
            assert name is not None
            turns.charge(name, step_s["abc".index(name)])
    spent: Counter[str] = Counter()
    for _ in range(300):
        name = turns.next("abc")
        assert name is not None
        spent[name] += step_s["abc".index(name)]  # type: ignore[assignment]
        turns.charge(name, step_s["abc".index(name)])
    # What one was ahead when the others came back, and one step of each.
    assert max(spent.values()) - min(spent[name] for name in "abc") <= 3 * max(step_s)


def test_nobody_busy_means_nobody_computes() -> None:
    """And a clock that runs backwards favours nobody."""
    turns = Turns("ab")
    assert turns.next([]) is None
    assert turns.next("ab") == "a"
    turns.charge("a", -5.0)
    assert turns.next("b") == "b"
    turns.charge("b", 1.0)
    assert turns.next("ab") == "a"


def test_a_step_that_others_wait_for_is_short() -> None:
    """Prefill is cut where another model waits, as it is where streams of the same model run."""
    bench = Bench(cells=200, n_batch=64, prefill=5)
    bench.add(60)
    work = bench.scheduler.plan(crowded=True)
    assert sum(item.count for item in work) == 5
    bench.memory.compute(work)
    bench.scheduler.advance(work)
    assert sum(item.count for item in bench.scheduler.plan()) == 55


async def test_generator_scorer_and_student_work_side_by_side(tiny: TinyModel, ending: TinyModel) -> None:
    """Each gives the bits that it gives alone, and a small model is not held up by a crowd at another."""
    specs = [
        ModelSpec(name=name, path=str(model.path), pin=model.pin, n_ctx=512)
        for name, model in (("generator", tiny), ("scorer", ending), ("student", tiny))
    ]
    engine = Engine(EngineConfig(threads=1, n_ctx_total=1024, max_sequences=8), specs).start()
    try:
        prompt = request(0, prompt_tokens=60).prompt_token_ids
        asked = EvaluationRequest(
            model="scorer", token_ids=prompt, question=Question(positions=(20, 59), label_ids=(7, 8))
        )
        short = request(1, model="student", max_tokens=5)
        alone = (await engine.evaluate(asked), await answers(engine, short))
        crowd = [
            asyncio.ensure_future(answers(engine, request(n, model="generator", max_tokens=400)))
            for n in range(12)
        ]
        await asyncio.sleep(0)
        for _ in range(5):
            evaluation, answer = await asyncio.gather(engine.evaluate(asked), answers(engine, short))
            assert evaluation.label_logits.tolist() == alone[0].label_logits.tolist()
            assert answer == alone[1]
        assert not all(task.done() for task in crowd)
        assert [await answers(engine, request(n, model="generator", max_tokens=400)) for n in (0, 11)] == [
            await crowd[0],
            await crowd[11],
        ]
        await asyncio.gather(*crowd)
    finally:
        engine.stop()
