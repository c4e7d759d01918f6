# SPDX-License-Identifier: Apache-2.0
"""Tree searches from the caller's side: what branches hold, what forks share, what orders do, what is freed."""

import asyncio
import gc
import math
from collections.abc import Callable

import numpy as np
import pytest
from engine_calls import answers, request, until
from tiny_gguf import TinyModel

from adyton_enclave.engine import Branch, Engine, EvaluationRequest, Extension, Question, TokenMask, Tree
from adyton_protocol.errors import (
    Cancelled,
    ContextOverflow,
    EngineStopped,
    InvalidRequest,
    LocalProtocolError,
)

Start = Callable[..., Engine]
FIRST_BYTE_ID = 5
"""Token of byte 0 in the tiny model's vocabulary; the others follow."""


def _used(engine: Engine) -> int:
    return engine.status()["tiny"].kv_cells_used


def _bits(extension: Extension) -> list[tuple[bytes, float]]:
    return [(token.bytes, token.logprob) for token in extension.logprobs]


async def _all(branches: list[Branch], **how: object) -> list[Extension]:
    return await asyncio.gather(*(branch.extend(**how) for branch in branches))  # type: ignore[arg-type]


async def test_a_root_extended_to_its_end_is_the_ordinary_answer(tiny: TinyModel, start: Start) -> None:
    """In one go or step by step, the root draws what the ordinary request draws, bit for bit."""
    engine = start(tiny)
    wanted = request(1, max_tokens=40)
    (answer,) = await answers(engine, wanted)
    with engine.open_tree(wanted) as tree:
        whole = await tree.root.extend()
    assert (whole.text, _bits(whole), whole.reason) == (answer.text, answer.tokens, "limit")
    with engine.open_tree(wanted) as tree:
        tokens = []
        while not tree.root.ended:
            tokens += _bits(await tree.root.extend(max_tokens=3))
    assert tokens == answer.tokens
    assert tree.root.text == answer.text
    assert tree.root.logprob == pytest.approx(math.fsum(logprob for _, logprob in tokens))
    await until(lambda: not _used(engine))


async def test_forks_share_every_cell_and_cost_one_each(tiny: TinyModel, start: Start) -> None:
    """A prompt is computed once; each fork computes the last token anew, and that is all it costs."""
    engine = start(tiny)
    with engine.open_tree(request(2, prompt_tokens=50, max_tokens=100)) as tree:
        branches = tree.root.fork(4)
        await _all(branches, max_tokens=1)
        assert _used(engine) == 49 + 4
        grandchildren = branches[0].fork(3)
        await _all(grandchildren, max_tokens=1)
        assert _used(engine) == 49 + 4 + 3
        for branch in branches:
            branch.prune()
        # Of the pruned, only the token remains that three others build on.
        await until(lambda: _used(engine) == 49 + 1 + 3)
        assert tree.usage.completion_tokens == 4 + 3
        assert tree.usage.prompt_tokens == 50
    await until(lambda: not _used(engine))


async def test_a_fork_computes_exactly_what_its_tokens_give_alone(tiny: TinyModel, start: Start) -> None:
    """Log-probabilities of branches at any depth are, bit for bit, those of their tokens in one prefill elsewhere."""
    engine = start(tiny)
    with engine.open_tree(request(3, prompt_tokens=70, max_tokens=90)) as tree:
        seen = {tree.root: _bits(await tree.root.extend(max_tokens=11))}
        level = [tree.root]
        for depth in range(4):
            forks = {fork: branch for branch in level for fork in branch.fork(2)}
            level = list(forks)
            for branch, extension in zip(level, await _all(level, max_tokens=5), strict=True):
                seen[branch] = seen[forks[branch]] + _bits(extension)
            level[depth % 2].prune()
            level = level[1 - depth % 2 :: 2]
        for branch in level:
            alone = await start(tiny).evaluate(
                EvaluationRequest(
                    model="tiny",
                    token_ids=branch.token_ids,
                    question=Question(positions=tuple(range(69, 100))),
                )
            )
            assert alone.next_logprobs[:-1].tolist() == [logprob for _, logprob in seen[branch]][:30]


async def test_draws_depend_on_the_path_and_not_on_time(tiny: TinyModel, start: Start) -> None:
    """The same forks, made at other moments, beside other work and in a smaller cache, draw the same."""

    async def grow(engine: Engine, *, eager: bool) -> list[tuple[tuple[int, ...], tuple[int, ...], float]]:
        with engine.open_tree(request(4, prompt_tokens=40, max_tokens=60)) as tree:
            level = tree.root.fork(3)
            for _ in range(3):
                if eager:
                    await _all(level, max_tokens=4)
                else:
                    for branch in reversed(level):
                        await branch.extend(max_tokens=1)
                        await branch.extend(max_tokens=3)
                level = [level[0], *level[1].fork(2), *level[2].fork(1)]
            return [(branch.path, branch.token_ids, branch.logprob) for branch in level]

    expected = await grow(start(tiny), eager=True)
    crowded = start(tiny, n_ctx_total=256, n_ctx=200, max_sequences=5)
    noise = [asyncio.ensure_future(answers(crowded, request(n, max_tokens=80))) for n in range(6)]
    assert await grow(crowded, eager=False) == expected
    assert len({path for path, *_ in expected}) == len(expected)
    await asyncio.gather(*noise)


async def test_an_extension_ends_with_its_delimiter(tiny: TinyModel, start: Start) -> None:
    """The delimiter stays in the text, the next extension goes on behind it, and nothing of the text is lost."""
    engine = start(tiny)
    wanted = request(5, max_tokens=120)
    (answer,) = await answers(engine, wanted)
    delimiter = answer.text[20:22]
    with engine.open_tree(wanted) as tree:
        texts = []
        while not tree.root.ended:
            extension = await tree.root.extend(until=(delimiter, "never"))
            texts.append(extension.text)
            assert (extension.reason == "until") == (delimiter in extension.text)
    assert "".join(texts) == tree.root.text == answer.text
    assert all(text.count(delimiter) == 1 for text in texts[:-1])
    assert len(texts) > 1


async def test_a_stop_string_ends_a_branch_even_across_steps(tiny: TinyModel, start: Start) -> None:
    """One token at a time: the branch ends where the ordinary answer does, with the same text."""
    engine = start(tiny)
    (whole,) = await answers(engine, request(6, max_tokens=60))
    wanted = request(6, max_tokens=60, stop=(whole.text[25:30],))
    (answer,) = await answers(engine, wanted)
    assert answer.reason == "stop"
    with engine.open_tree(wanted) as tree:
        while not tree.root.ended:
            extension = await tree.root.extend(max_tokens=1)
        assert extension.reason == "stop"
        assert tree.root.text == answer.text
        with pytest.raises(LocalProtocolError):
            await tree.root.extend()


async def test_the_end_of_text_ends_a_branch(ending: TinyModel, start: Start) -> None:
    """A branch ends as the ordinary answer ends."""
    engine = start(ending)
    for seed in range(6):
        wanted = request(seed, max_tokens=200)
        (answer,) = await answers(engine, wanted)
        with engine.open_tree(wanted) as tree:
            while not tree.root.ended:
                extension = await tree.root.extend(max_tokens=7)
            assert tree.root.text == answer.text
            assert (extension.reason == "stop") == (answer.reason == "stop")


class Script:
    """A grammar with one sentence."""

    def __init__(self, token_ids: list[int], n_vocab: int, at: int = 0) -> None:
        self._token_ids, self._n_vocab, self._at = token_ids, n_vocab, at

    def matcher(self) -> "Script":
        return Script(self._token_ids, self._n_vocab)

    def fork(self) -> "Script":
        return Script(self._token_ids, self._n_vocab, self._at)

    def allowed(self) -> TokenMask:
        bits = np.zeros(32 * ((self._n_vocab + 31) // 32), dtype=np.uint8)
        bits[self._token_ids[self._at]] = 1
        return np.packbits(bits, bitorder="little").view(np.uint32)

    def accept(self, token_id: int) -> None:
        assert token_id == self._token_ids[self._at]
        self._at += 1


async def test_forks_of_an_unfinished_character_each_finish_it(tiny: TinyModel, start: Start) -> None:
    """Bytes of a character that were drawn before a fork count for every fork; so does what a grammar has seen."""
    engine = start(tiny)
    script = Script([FIRST_BYTE_ID + byte for byte in "née".encode()], tiny.n_vocab)
    with engine.open_tree(request(7, constraint=script)) as tree:
        assert (await tree.root.extend(max_tokens=2)).text == "n"
        for fork in tree.root.fork(2):
            assert (await fork.extend(max_tokens=1)).text == "é"
            assert (await fork.extend(max_tokens=1)).text == "e"
            assert fork.text == "née"
            with pytest.raises(LocalProtocolError):
                fork.append((70,))
        assert tree.root.text == "n"


async def test_appended_tokens_are_as_good_as_generated_ones(tiny: TinyModel, start: Start) -> None:
    """A branch with given tokens goes on like the branch that drew them, on the same path."""
    engine = start(tiny)
    wanted = request(8, max_tokens=40)
    with engine.open_tree(wanted) as tree, engine.open_tree(wanted) as other:
        drawn = await tree.root.extend(max_tokens=15)
        other.root.append(drawn.token_ids)
        assert _bits(await other.root.extend()) == _bits(await tree.root.extend())
        assert other.usage.prompt_tokens == 12 + 15
        assert other.root.text == tree.root.text[len(drawn.text) :]
        with pytest.raises(ContextOverflow):
            tree.root.append((7,))
        with pytest.raises(InvalidRequest):
            tree.root.fork()[0].append((tiny.n_vocab,))


async def test_orders_that_make_no_sense_are_refused_at_once(tiny: TinyModel, start: Start) -> None:
    """A busy or pruned branch takes no order; nothing of the tree is harmed."""
    engine = start(tiny)
    with pytest.raises(InvalidRequest):
        engine.open_tree(request(9, n=2))
    with engine.open_tree(request(9, max_tokens=200)) as tree:
        running = asyncio.ensure_future(tree.root.extend())
        await asyncio.sleep(0)
        for refused in (tree.root.fork, lambda: tree.root.append((7,))):
            with pytest.raises(LocalProtocolError):
                refused()
        with pytest.raises(LocalProtocolError):
            await tree.root.extend()
        await running
        child = tree.root.fork()[0]
        with pytest.raises(LocalProtocolError):
            tree.root.fork(0)
        for how in ({"until": ("",)}, {"max_tokens": 0}):
            with pytest.raises((InvalidRequest, LocalProtocolError)):
                await child.extend(**how)  # type: ignore[arg-type]
        for question in (
            Question(positions=(212,)),
            Question(positions=(-213,)),
            Question(positions=(0,), label_ids=(-1,)),
            Question(positions=(0,), n_top=tiny.n_vocab + 1),
        ):
            with pytest.raises(InvalidRequest):
                await child.evaluate(question)
        child.prune()
        with pytest.raises(LocalProtocolError):
            child.fork()


async def test_a_running_branch_is_pruned_within_a_step(tiny: TinyModel, start: Start) -> None:
    """Its cells are free, whoever waits for it learns it, and its siblings run on."""
    engine = start(tiny)
    with engine.open_tree(request(10, prompt_tokens=30, max_tokens=400)) as tree:
        kept, pruned = tree.root.fork(2)
        running = [asyncio.ensure_future(branch.extend(max_tokens=390)) for branch in (kept, pruned)]
        await until(lambda: _used(engine) > 60)
        pruned.prune()
        with pytest.raises(Cancelled):
            await running[1]
        await until(lambda: engine.status()["tiny"].running == 1)
        lane = engine._lanes["tiny"]
        assert len((await running[0]).token_ids) == 390
        assert _used(engine) == 30 + 389
        assert sum(lane.context.length(seq_id) for seq_id in range(16)) == 30 + 389


@pytest.mark.parametrize("how", ["close", "leave", "forget", "cancel"])
async def test_a_tree_that_is_closed_frees_everything(tiny: TinyModel, start: Start, how: str) -> None:
    """Closed by name, by leaving the block, by letting go, by a cancelled task: paused and running branches go."""
    engine = start(tiny)

    async def search(tree: Tree) -> None:
        branches = tree.root.fork(4)
        await _all(branches, max_tokens=3)
        await branches[0].extend(max_tokens=390)

    tree: Tree | None = engine.open_tree(request(11, prompt_tokens=40, max_tokens=400))
    if tree is None:
        raise AssertionError
    task = asyncio.ensure_future(search(tree))
    await until(lambda: _used(engine) > 60)
    if how == "forget":
        task.cancel()
        await asyncio.wait([task])
        del task, tree
        gc.collect()
    elif how == "cancel":
        with tree:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    else:
        if how == "close":
            tree.close()
        else:
            with tree:
                pass
        with pytest.raises(Cancelled):
            await task
        with pytest.raises(Cancelled):
            tree.root.fork()
    await until(lambda: engine.status()["tiny"].finished_requests == 1)
    assert not _used(engine)


async def test_a_paused_tree_runs_out_of_time(tiny: TinyModel, start: Start) -> None:
    """Nothing is computed and nobody calls: the deadline still frees the cells."""
    engine = start(tiny)
    tree = engine.open_tree(request(12, timeout_s=0.2))
    await tree.root.extend(max_tokens=2)
    await until(lambda: not _used(engine))
    with pytest.raises(Cancelled):
        await tree.root.extend()


async def test_a_paused_tree_keeps_its_cells_while_others_end(tiny: TinyModel, start: Start) -> None:
    """What ends is overwritten; what is paused is not, although nothing runs."""
    engine = start(tiny)
    wanted = request(13, max_tokens=40)
    (answer,) = await answers(engine, wanted)
    with engine.open_tree(wanted) as tree:
        first = await tree.root.extend(max_tokens=5)
        await answers(engine, request(14, prompt_tokens=100))
        assert _used(engine) == 12 + 4
        assert _bits(first) + _bits(await tree.root.extend()) == answer.tokens


async def test_a_stopped_engine_fails_trees(tiny: TinyModel, start: Start) -> None:
    """Nobody hangs on a branch."""
    engine = start(tiny)
    tree = engine.open_tree(request(14, max_tokens=480))
    running = asyncio.ensure_future(tree.root.extend())
    await until(lambda: bool(_used(engine)))
    await asyncio.to_thread(engine.stop)
    with pytest.raises(EngineStopped):
        await running
    with pytest.raises(EngineStopped):
        tree.root.fork()


async def test_the_log_probability_of_a_branch_is_its_own(tiny: TinyModel, start: Start) -> None:
    """It counts what was generated from the root to the branch, and nothing when nobody asked for it."""
    engine = start(tiny)
    with engine.open_tree(request(15)) as tree:
        first = await tree.root.extend(max_tokens=4)
        child = tree.root.fork()[0]
        second = await child.extend(max_tokens=4)
        assert child.logprob == first.logprob + second.logprob
        assert tree.root.logprob == first.logprob < 0
    with engine.open_tree(request(15, logprobs=None)) as tree:
        await tree.root.extend(max_tokens=4)
        assert math.isnan(tree.root.logprob)
