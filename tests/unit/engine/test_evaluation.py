# SPDX-License-Identifier: Apache-2.0
"""Logits at given positions: the right ones, however they are computed and whatever runs beside them."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from engine_calls import answers, request, until
from tiny_gguf import TinyModel, make_tiny_gguf

from adyton_enclave.engine import Engine, Evaluation, EvaluationRequest, Question
from adyton_enclave.engine.outputs import Outputs
from adyton_enclave.engine.probe import Probe
from adyton_protocol.errors import (
    Cancelled,
    ContextOverflow,
    EngineError,
    InvalidRequest,
    UnknownModel,
)

Start = Callable[..., Engine]
TOKENS = tuple(np.random.default_rng(0).integers(70, 275, 300).tolist())


def _ask(
    positions: Sequence[int], *, token_ids: tuple[int, ...] = TOKENS, **fields: object
) -> EvaluationRequest:
    question = {key: fields.pop(key) for key in ("label_ids", "n_top") if key in fields}
    return EvaluationRequest(
        model="tiny",
        token_ids=token_ids,
        question=Question(positions=tuple(positions), **question),  # type: ignore[arg-type]
        **fields,  # type: ignore[arg-type]
    )


def _same(one: Evaluation, other: Evaluation, rows: slice = slice(None)) -> bool:
    return (
        np.array_equal(one.label_logits, other.label_logits[rows])
        and np.array_equal(one.logsumexp, other.logsumexp[rows])
        and np.array_equal(one.next_logits, other.next_logits[rows], equal_nan=True)
        and np.array_equal(one.top_ids, other.top_ids[rows])
        and np.array_equal(one.top_logits, other.top_logits[rows])
    )


async def test_all_parts_of_an_evaluation_agree(tiny: TinyModel, start: Start) -> None:
    """With every token as a label, norms, best tokens and following tokens follow from the labels."""
    everything = tuple(range(tiny.n_vocab))
    found = await start(tiny).evaluate(_ask(range(0, 300, 7), label_ids=everything, n_top=9))
    logits = found.label_logits
    assert logits.dtype == np.float32
    assert logits.shape == (43, tiny.n_vocab)
    assert np.allclose(np.exp(found.label_logprobs).sum(axis=1), 1.0)
    order = np.argsort(-logits, axis=1, kind="stable")[:, :9]
    assert np.array_equal(found.top_ids, order)
    assert np.array_equal(found.top_logits, np.take_along_axis(logits, order, axis=1))
    following = [TOKENS[at + 1] for at in found.positions]
    assert np.array_equal(found.next_logits, logits[np.arange(43), following])


async def test_positions_may_count_from_the_end_and_come_in_any_order(tiny: TinyModel, start: Start) -> None:
    """They are reported once each, ascending; nothing follows the last token."""
    engine = start(tiny)
    found = await engine.evaluate(_ask((-1, 5, 299, -300), label_ids=(7,)))
    assert found.positions == (0, 5, 299)
    assert np.isnan(found.next_logits).tolist() == [False, False, True]
    assert _same(await engine.evaluate(_ask((0, 5, 299), label_ids=(7,))), found)


@pytest.mark.parametrize(
    "sizes",
    [
        {"n_batch": 64, "n_ubatch": 64},
        {"n_batch": 4, "n_ubatch": 4, "max_sequences": 2},
        {"max_sequences": 1},
        {"n_ctx_total": 512},
    ],
)
async def test_evaluations_ignore_batch_sizes_and_neighbours(
    tiny: TinyModel, start: Start, sizes: dict[str, int]
) -> None:
    """Many rows or few, in chunks, beside generation: the very same bits."""
    asked = _ask(range(300), label_ids=(70, 71), n_top=3)
    expected = await start(tiny).evaluate(asked)
    engine = start(tiny, **sizes)
    noise = [asyncio.ensure_future(answers(engine, request(n, max_tokens=50))) for n in range(5)]
    found = await asyncio.gather(
        engine.evaluate(asked),
        *(engine.evaluate(_ask((at,), label_ids=(70, 71), n_top=3)) for at in (0, 150, 299)),
    )
    assert _same(found[0], expected)
    for single, at in zip(found[1:], (0, 150, 299), strict=True):
        assert _same(single, expected, slice(at, at + 1))
    await asyncio.gather(*noise)
    await until(lambda: not engine.status()["tiny"].kv_cells_used)


async def test_a_scorer_reads_on_where_it_stopped(tiny: TinyModel, start: Start) -> None:
    """Appending step by step, forking in between, gives the bits of one prefill, and computes each token once."""
    engine = start(tiny)
    expected = await engine.evaluate(_ask(range(300), label_ids=(9, 10)))
    with engine.open_tree(request(0, prompt_token_ids=TOKENS[:40], max_tokens=260)) as tree:
        scored = tree.root
        for begin in range(40, 300, 65):
            scored = scored.fork()[0]
            rival = scored.fork()[0]
            rival.append((80,) * 65)
            scored.append(TOKENS[begin : begin + 65])
            question = Question(positions=(begin, begin + 64), label_ids=(9, 10))
            found, other = await asyncio.gather(scored.evaluate(question), rival.evaluate(question))
            assert np.array_equal(found.label_logits, expected.label_logits[[begin, begin + 64]])
            assert not np.array_equal(other.label_logits, found.label_logits)
            rival.prune()
        assert tree.usage.prompt_tokens == 40 + 2 * 260
        assert tree.usage.completion_tokens == 0
        await until(lambda: engine.status()["tiny"].kv_cells_used == 300)


async def test_earlier_positions_can_be_asked_again(tiny: TinyModel, start: Start) -> None:
    """And a branch that was evaluated to its last token can be extended."""
    engine = start(tiny)
    asked = Question(positions=(-1, 3), label_ids=(9,))
    with (
        engine.open_tree(request(1, max_tokens=20)) as tree,
        engine.open_tree(request(1, max_tokens=20)) as other,
    ):
        before = await tree.root.evaluate(asked)
        child = tree.root.fork()[0]
        assert _same(await tree.root.evaluate(asked), before)
        assert _same(await child.evaluate(asked), before)
        assert (await tree.root.extend()).logprobs == (await other.root.extend()).logprobs
        assert _same(await child.evaluate(asked), before)


async def test_preempted_evaluations_come_to_the_same_end(tiny: TinyModel, start: Start) -> None:
    """Several that do not fit side by side take turns, and lose nothing that they read."""
    asked = _ask(range(0, 300, 3), label_ids=(9,))
    expected = await start(tiny).evaluate(asked)
    engine = start(tiny, n_ctx_total=400, n_ctx=400, n_batch=32, n_ubatch=32)
    noise = [asyncio.ensure_future(answers(engine, request(n, max_tokens=90))) for n in range(4)]
    found = await asyncio.gather(*(engine.evaluate(asked) for _ in range(3)))
    assert all(_same(one, expected) for one in found)
    await asyncio.gather(*noise)


async def test_wrong_questions_are_refused(tiny: TinyModel, start: Start) -> None:
    """Before any work."""
    engine = start(tiny)
    for wrong in (
        lambda: _ask(()),
        lambda: _ask((0,), n_top=-1),
        lambda: _ask((300,)),
        lambda: _ask((0,), label_ids=(tiny.n_vocab,)),
        lambda: _ask((0,), token_ids=()),
        lambda: _ask((0,), token_ids=(-1,)),
    ):
        with pytest.raises(InvalidRequest):
            await engine.evaluate(wrong())
    with pytest.raises(ContextOverflow):
        await engine.evaluate(_ask((0,), token_ids=TOKENS * 2))
    with pytest.raises(UnknownModel):
        await engine.evaluate(EvaluationRequest(model="x", token_ids=(1,), question=Question(positions=(0,))))
    with pytest.raises(Cancelled):
        await engine.evaluate(_ask(range(300), timeout_s=0.0))
    await until(lambda: not engine.status()["tiny"].kv_cells_used)


async def test_what_is_no_number_is_not_reported(tmp_path: Path, start: Start) -> None:
    """A broken model fails the evaluation and whatever else its tree does, and not the engine."""
    engine = start(make_tiny_gguf(tmp_path / "nan.gguf", broken=True))
    with pytest.raises(EngineError):
        await engine.evaluate(_ask((0,)))
    with engine.open_tree(request(0)) as tree:
        branches = tree.root.fork(2)
        failed = await asyncio.gather(
            branches[0].extend(), branches[1].evaluate(Question(positions=(3,))), return_exceptions=True
        )
        assert all(isinstance(error, EngineError) for error in failed)
    assert engine.running
    await until(lambda: not engine.status()["tiny"].kv_cells_used)


def test_an_evaluation_shows_no_content() -> None:
    """Tokens and logits are content."""
    assert "70" not in repr(_ask((0,), token_ids=(70,)))


def test_rows_that_were_read_before_a_preemption_are_not_read_again() -> None:
    """The tokens are computed again; their logits are not wanted twice, and a step takes no more rows than it may."""
    probe = Probe(Question(positions=(9, 1, 5), label_ids=(0,)), 10)
    assert (probe.within(0, 10), probe.fit(0, 10, 2), probe.first) == ([1, 5, 9], 9, 1)
    assert probe.read(Outputs.of(np.zeros((1, 4), dtype=np.float32)), [0] * 10)
    assert (probe.within(0, 10), probe.fit(0, 10, 1), probe.fit(2, 3, 0), probe.first) == ([5, 9], 9, 3, 5)
    assert probe.read(Outputs.of(np.zeros((2, 4), dtype=np.float32)), [0] * 10)
    assert (probe.within(0, 10), probe.first) == ([], 10)
    assert not Probe(Question(positions=(0,)), 1).read(
        Outputs.of(np.full((1, 4), np.nan, dtype=np.float32)), [0]
    )
