# SPDX-License-Identifier: Apache-2.0
"""Embeddings from the engine: a vector depends on its text alone, and nobody waits long for anybody else's."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from engine_calls import answers, request, until
from tiny_bert import make_tiny_bert
from tiny_gguf import TinyModel, make_tiny_gguf

import memory
from adyton_enclave.engine import EmbeddingRequest, Embeddings, Engine, Usage
from adyton_enclave.engine.embedding_context import STEP_TOKENS, EmbeddingContext, pooling_of
from adyton_enclave.engine.llama import LlamaModel
from adyton_enclave.engine.settings import EngineConfig
from adyton_protocol.errors import (
    Cancelled,
    ConfigError,
    ContextOverflow,
    EngineError,
    EngineStopped,
    InvalidRequest,
    QueueFull,
    UnknownModel,
    UnsuitableModel,
)

Start = Callable[..., Engine]
LENGTHS = (1, 2, 5, 21, 60, STEP_TOKENS - 1, STEP_TOKENS, STEP_TOKENS + 1, 250, 300, 7, 7)
N_BERT = 56


def texts(lengths: tuple[int, ...] = LENGTHS, *, high: int = 275) -> tuple[tuple[int, ...], ...]:
    """Texts of these many tokens."""
    rng = np.random.default_rng(3)
    return tuple(tuple(rng.integers(4, high, length).tolist()) for length in lengths)


async def vectors(engine: Engine, *inputs: tuple[int, ...]) -> list[bytes]:
    """The exact bits of the vectors of some texts, asked for together."""
    result = await engine.embed(EmbeddingRequest(model="tiny", inputs=inputs))
    return [vector.tobytes() for vector in result.vectors]


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """An encoder without a KV cache, CLS pooling."""
    return make_tiny_bert(tmp_path_factory.mktemp("bert") / "bert.gguf")


@pytest.mark.parametrize("quantization", ["Q8_0", "Q4_0", "F16", "F32"])
async def test_a_vector_is_the_same_alone_and_among_others(
    tmp_path: Path, start: Start, quantization: str
) -> None:
    """Bit for bit: alone, in one request with others in any order, beside other requests
    and beside generation.
    """
    kind = getattr(gguf.GGMLQuantizationType, quantization)
    engine = start(make_tiny_gguf(tmp_path / "m.gguf", quantization=kind, width=128), embeddings=True)
    alone = [(await vectors(engine, text))[0] for text in texts()]
    assert len(set(alone)) == len(alone)
    assert await vectors(engine, *texts()) == alone
    assert await vectors(engine, *reversed(texts())) == alone[::-1]
    streams = [asyncio.ensure_future(answers(engine, request(number))) for number in range(3)]
    found = await asyncio.gather(*(vectors(engine, text) for text in texts()))
    await asyncio.gather(*streams)
    assert [vector for (vector,) in found] == alone


async def test_an_encoders_vector_is_the_same_alone_and_among_others(bert: TinyModel, start: Start) -> None:
    """Bit for bit, whatever the weights are, because texts go through an encoder one by one."""
    engine = start(bert, n_ctx=256, generates=False, embeddings=True)
    inputs = texts((1, 3, 20, 100, 256, 9), high=N_BERT)
    alone = [(await vectors(engine, text))[0] for text in inputs]
    assert await vectors(engine, *inputs) == alone
    found = await asyncio.gather(*(vectors(engine, text) for text in inputs))
    assert [vector for (vector,) in found] == alone


async def test_a_model_with_a_sliding_window_embeds(tmp_path: Path, start: Start) -> None:
    """It cannot generate here, but its vectors are as independent, and its cells as empty afterwards."""
    model = make_tiny_gguf(tmp_path / "gemma.gguf", window=16)
    engine = start(model, generates=False, embeddings=True)
    alone = [(await vectors(engine, text))[0] for text in texts()]
    assert await vectors(engine, *reversed(texts())) == alone[::-1]
    context = engine._embedders["tiny"].context
    await until(lambda: not context.dirty_cells)
    assert [context.length(seq_id) for seq_id in range(4)] == [0] * 4


@pytest.mark.parametrize("sizes", [{"n_batch": 20, "n_ubatch": 20}, {"threads": 2}])
async def test_sizes_of_steps_and_threads_change_nothing(
    tiny: TinyModel, start: Start, sizes: dict[str, int]
) -> None:
    """Where a long text is cut and who computes it does not show in its vector."""
    expected = await vectors(start(tiny, embeddings=True), *texts())
    assert await vectors(start(tiny, embeddings=True, **sizes), *texts()) == expected


async def test_embeddings_change_no_answer(tiny: TinyModel, start: Start) -> None:
    """Answers beside embeddings are, bit for bit, those of an engine that makes none."""
    wanted = [request(number, prompt_tokens=40) for number in range(4)]
    plain = start(tiny)
    expected = [await answers(plain, one) for one in wanted]
    engine = start(tiny, embeddings=True)
    embedding = asyncio.ensure_future(vectors(engine, *texts()))
    assert await asyncio.gather(*(answers(engine, one) for one in wanted)) == expected
    await embedding


async def test_the_result_is_typed_and_counted(tiny: TinyModel, start: Start) -> None:
    """float32 vectors of the model's width in the order of the inputs; usage counts every input's tokens."""
    engine = start(tiny, embeddings=True)
    result = await engine.embed(EmbeddingRequest(model="tiny", inputs=texts()))
    assert [vector.shape for vector in result.vectors] == [(64,)] * len(LENGTHS)
    assert {vector.dtype for vector in result.vectors} == {np.dtype(np.float32)}
    assert result.usage == Usage(prompt_tokens=sum(LENGTHS), completion_tokens=0)
    assert engine.models["tiny"].embedding_width == 64
    assert repr(result) == f"Embeddings(usage={result.usage!r})"


def _states(model: TinyModel, tokens: tuple[int, ...]) -> tuple[np.ndarray, str]:
    """Hidden states in one piece, and the pooling."""
    loaded = LlamaModel(str(model.path), model.pin)
    context = EmbeddingContext(loaded, EngineConfig(threads=1), n_ctx=256)
    rows = context.compute([(tokens, 0)]).astype(np.float64)
    pooling = pooling_of(loaded)
    context.close()
    loaded.close()
    return rows, pooling


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [("NONE", "mean"), ("MEAN", "mean"), ("CLS", "cls"), ("LAST", "last"), (None, "mean")],
)
async def test_pooling_is_what_the_file_says(
    tmp_path: Path, start: Start, pooling: str | None, expected: str
) -> None:
    """Mean, first or last state by the GGUF's pooling_type; the mean when it says nothing."""
    kind = None if pooling is None else gguf.PoolingType[pooling]
    model = make_tiny_bert(tmp_path / "bert.gguf", pooling=kind)
    tokens = texts((17,), high=N_BERT)[0]
    rows, found = _states(model, tokens)
    assert found == expected
    by_hand = {"mean": rows.mean(axis=0), "cls": rows[0], "last": rows[-1]}[expected]
    engine = start(model, n_ctx=256, generates=False, embeddings=True)
    result = await engine.embed(EmbeddingRequest(model="tiny", inputs=(tokens,)))
    assert np.allclose(result.vectors[0], by_hand, rtol=1e-6, atol=1e-7)


async def test_a_long_texts_mean_is_over_all_its_pieces(tiny: TinyModel, start: Start) -> None:
    """A decoder's vector of a text of several steps is the mean of the states of all its tokens."""
    tokens = texts((STEP_TOKENS * 2 + 40,))[0]
    loaded = LlamaModel(str(tiny.path), tiny.pin)
    context = EmbeddingContext(loaded, EngineConfig(threads=1), n_ctx=512)
    rows = [
        context.compute([(tokens[begin : begin + 50], begin)]).copy() for begin in range(0, len(tokens), 50)
    ]
    context.close()
    loaded.close()
    result = await start(tiny, embeddings=True).embed(EmbeddingRequest(model="tiny", inputs=(tokens,)))
    assert np.allclose(result.vectors[0], np.concatenate(rows).mean(axis=0), rtol=1e-5, atol=1e-6)


async def test_a_model_that_ranks_is_refused(tmp_path: Path, start: Start) -> None:
    """A reranker has no vectors; the engine does not start with it."""
    model = make_tiny_bert(tmp_path / "bert.gguf", pooling=gguf.PoolingType.RANK)
    with pytest.raises(ConfigError, match="pooling_type"):
        start(model, n_ctx=256, generates=False, embeddings=True)


async def test_what_cannot_be_embedded_is_refused_at_once(tiny: TinyModel, start: Start) -> None:
    """Typed errors before any work: no such model, no embeddings, no tokens, foreign tokens, too long."""
    plain = start(tiny)
    with pytest.raises(UnsuitableModel):
        await vectors(plain, (1, 2))
    engine = start(tiny, embeddings=True)
    with pytest.raises(UnknownModel):
        await engine.embed(EmbeddingRequest(model="other", inputs=((1,),)))
    for wrong in ((), ((),), ((1,), ())):
        with pytest.raises(InvalidRequest):
            EmbeddingRequest(model="tiny", inputs=wrong)
    for token_id in (-1, 275):
        with pytest.raises(InvalidRequest):
            await vectors(engine, (5, token_id))
    with pytest.raises(ContextOverflow, match="513 tokens, but the context holds 512"):
        await vectors(engine, (5,), (5,) * 513)
    assert len(await vectors(engine, (5,) * 512)) == 1


async def test_a_model_that_only_embeds_answers_nothing(bert: TinyModel, start: Start) -> None:
    """Generation with it is refused; its context is not bounded by the generators' cells."""
    engine = start(bert, n_ctx=256, n_ctx_total=64, n_batch=32, n_ubatch=32, generates=False, embeddings=True)
    with pytest.raises(UnsuitableModel):
        engine.submit(request(1, prompt_token_ids=(5,)))
    assert len(await vectors(engine, *texts((256, 40), high=N_BERT))) == 2


async def test_streams_go_on_while_others_embed(tiny: TinyModel, start: Start) -> None:
    """Between two tokens of a running stream there is at most one step of embeddings."""
    engine = start(tiny, embeddings=True)
    generation = aiter(engine.submit(request(1, max_tokens=200)))
    await anext(generation)
    wanted = EmbeddingRequest(model="tiny", inputs=texts((300, 100)) * 200)
    embedding = asyncio.ensure_future(engine.embed(wanted))
    async for _ in generation:
        pass
    (task,) = engine._embedding["tiny"]
    # The stream took 200 steps, in which 200 of the 800 steps of the texts can have been taken.
    assert 0 < task.n_done < len(wanted.inputs)
    embedding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await embedding


async def test_tenants_take_turns(tiny: TinyModel, start: Start) -> None:
    """One text of a tenant does not wait behind the many of another."""
    engine = start(tiny, embeddings=True)
    order: list[str] = []

    async def ask(tenant: str, count: int) -> None:
        inputs = texts((200,)) * count
        await engine.embed(EmbeddingRequest(model="tiny", inputs=inputs, tenant=tenant))
        order.append(tenant)

    await asyncio.gather(ask("many", 60), ask("many", 1), ask("few", 1))
    assert order == ["few", "many", "many"]


@pytest.mark.parametrize("how", ["task", "limit"])
async def test_a_caller_that_goes_away_ends_the_work(tiny: TinyModel, start: Start, how: str) -> None:
    """A cancelled task and a passed time limit drop what is left; others are served, with the right numbers."""
    engine = start(tiny, embeddings=True)
    (expected,) = await vectors(engine, texts()[5])
    wanted = EmbeddingRequest(
        model="tiny", inputs=texts((400,)) * 500, timeout_s=0.05 if how == "limit" else None
    )
    task = asyncio.ensure_future(engine.embed(wanted))
    await until(lambda: engine._embedders["tiny"].busy)
    if how == "task":
        task.cancel()
    with pytest.raises(asyncio.CancelledError if how == "task" else Cancelled):
        await task
    await until(lambda: not engine._embedders["tiny"].busy)
    assert await vectors(engine, texts()[5]) == [expected]


async def test_a_full_queue_says_when_to_come_back(tiny: TinyModel, start: Start) -> None:
    """Beyond the bound QueueFull at once; those accepted are served."""
    engine = start(tiny, embeddings=True, max_queue=1)
    accepted = [asyncio.ensure_future(vectors(engine, *texts((400,)) * 3)) for _ in range(2)]
    await until(lambda: engine._embedders["tiny"].busy)
    with pytest.raises(QueueFull) as caught:
        await vectors(engine, (5,))
    assert caught.value.retry_after_s >= 1.0
    for one in accepted:
        assert len(await one) == 3
    assert len(await vectors(engine, (5,))) == 1


async def test_the_end_of_the_engine_ends_every_request(tiny: TinyModel, start: Start) -> None:
    """Stopping fails what waits, and refuses what comes."""
    engine = start(tiny, embeddings=True)
    waiting = asyncio.ensure_future(vectors(engine, *texts((400,)) * 400))
    await until(lambda: engine._embedders["tiny"].busy)
    await asyncio.to_thread(engine.stop)
    with pytest.raises(EngineStopped):
        await waiting
    with pytest.raises(EngineStopped):
        await vectors(engine, (5,))


async def test_numbers_that_are_none_are_an_error(tmp_path: Path, start: Start) -> None:
    """A broken model fails its request and nothing else."""
    engine = start(make_tiny_gguf(tmp_path / "broken.gguf", broken=True), embeddings=True)
    for inputs in (texts((20, 30)), texts((300, 5))):
        with pytest.raises(EngineError, match="no number"):
            await engine.embed(EmbeddingRequest(model="tiny", inputs=inputs))
    assert not engine._embedders["tiny"].busy


async def test_nothing_of_a_text_is_left(tiny: TinyModel, start: Start) -> None:
    """After every request the KV cache is empty and hidden states are overwritten."""
    engine = start(tiny, embeddings=True)
    embedder = engine._embedders["tiny"]
    result: Embeddings = await engine.embed(EmbeddingRequest(model="tiny", inputs=texts()))
    assert result.vectors
    # The answer is on its way before the step has ended.
    await until(lambda: not embedder.context.dirty_cells)
    assert [embedder.context.length(seq_id) for seq_id in range(4)] == [0] * 4
    assert not embedder.context.last_rows().any()


# Runs in a process of its own, so that the searcher's copy of the needle is not found.
SCRIPT = """
import sys
from adyton_enclave.engine.embedding_context import EmbeddingContext
from adyton_enclave.engine.llama import LlamaModel
from adyton_enclave.engine.settings import EngineConfig
from adyton_models.model_files import pin_of
from pathlib import Path

model = LlamaModel(sys.argv[1], pin_of(Path(sys.argv[1])))
context = EmbeddingContext(model, EngineConfig(threads=1), 512)
texts = [[10 + 3 * i for i in range(40)], [200 - i for i in range(60)]]
context.compute([(text, 0) for text in texts])
for seq_id in range(2):
    state = context.read_state(seq_id)
    middle = len(state) * 3 // 5
    print(memoryview(state)[middle : middle + 48].hex(), flush=True)
    state.fill(0)
sys.stdin.readline()
context.erase()
print("erased", flush=True)
sys.stdin.readline()
"""


def test_erasing_leaves_nothing_of_the_cache(tiny: TinyModel) -> None:
    """Bytes of the keys and values of every text of a step are in memory before, and nowhere after."""
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(tiny.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        needles = [bytes.fromhex(child.stdout.readline()) for _ in range(2)]
        found = memory.occurrences(child.pid, needles)
        assert all(found[needle] for needle in needles)
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "erased\n"
        found = memory.occurrences(child.pid, needles)
        assert not any(found[needle] for needle in needles)
        child.stdin.write("\n")
