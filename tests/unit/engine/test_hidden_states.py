# SPDX-License-Identifier: Apache-2.0
"""Hidden states at given positions: the model's own, and the same bits however they are computed."""

import asyncio
from collections.abc import Callable

import gguf
import numpy as np
import pytest
from engine_calls import answers, request, until
from gguf.quants import dequantize
from tiny_gguf import TinyModel

from adyton_enclave.engine import Engine, EngineConfig, Evaluation, EvaluationRequest, ModelSpec, Question
from adyton_protocol.digests import Digest
from adyton_protocol.errors import InvalidRequest, UnsuitableModel
from adyton_protocol.model_identity import ScorerParts

Start = Callable[..., Engine]
TOKENS = tuple(np.random.default_rng(0).integers(70, 275, 300).tolist())
PARTS = ScorerParts(adapter=Digest("sha256:" + "a" * 64))
SIZES = {"threads": 1, "n_ctx_total": 2048, "max_sequences": 16}


def _engine(model: TinyModel, *, generates: bool = False, **settings: object) -> Engine:
    spec = ModelSpec(
        name="tiny", path=str(model.path), pin=model.pin, n_ctx=512,
        generates=generates, scorer=PARTS, hidden_states=True,
    )  # fmt: skip
    return Engine(EngineConfig(**{**SIZES, **settings}), [spec]).start()  # type: ignore[arg-type]


async def _evaluate(engine: Engine, positions: tuple[int, ...]) -> Evaluation:
    question = Question(positions=positions, label_ids=(70, 80, 90), hidden=True)
    return await engine.evaluate(EvaluationRequest(model="tiny", token_ids=TOKENS, question=question))


async def test_the_output_matrix_turns_hidden_states_into_the_logits(tiny: TinyModel) -> None:
    """They are what stands behind the last norm: multiplied by the GGUF's own matrix they give the logits."""
    engine = _engine(tiny)
    found = await _evaluate(engine, tuple(range(0, 300, 11)))
    engine.stop()
    reader = gguf.GGUFReader(tiny.path)
    tensor = next(each for each in reader.tensors if each.name == "output.weight")
    matrix = dequantize(tensor.data, tensor.tensor_type)
    assert found.hidden.shape == (28, 64)
    # The product is computed in 8 bits by llama.cpp, so it is near, not equal.
    expected = found.hidden @ matrix[[70, 80, 90]].T
    assert np.allclose(found.label_logits, expected, atol=0.06)
    shifted = np.roll(found.hidden, 1, axis=0) @ matrix[[70, 80, 90]].T
    assert not np.allclose(found.label_logits, shifted, atol=0.5)


async def test_keeping_hidden_states_changes_no_logit(tiny: TinyModel, start: Start) -> None:
    """A context that keeps them computes the same bits as one that does not."""
    positions = tuple(range(0, 300, 7))
    plain = start(tiny)
    question = Question(positions=positions, label_ids=(70, 80, 90))
    expected = await plain.evaluate(EvaluationRequest(model="tiny", token_ids=TOKENS, question=question))
    assert expected.hidden.shape == (len(positions), 0)
    engine = _engine(tiny)
    found = await _evaluate(engine, positions)
    engine.stop()
    assert np.array_equal(found.label_logits, expected.label_logits)
    assert np.array_equal(found.logsumexp, expected.logsumexp)


@pytest.mark.parametrize("sizes", [{}, {"n_batch": 16, "n_ubatch": 16}, {"n_ubatch": 32}])
async def test_hidden_states_ignore_steps_forks_and_neighbours(
    tiny: TinyModel, sizes: dict[str, int]
) -> None:
    """Whole, step by step on a fork, beside strangers: the very same bits."""
    whole = _engine(tiny)
    expected = await _evaluate(whole, tuple(range(300)))
    whole.stop()
    engine = _engine(tiny, generates=True, **sizes)
    noise = [asyncio.ensure_future(answers(engine, request(n, max_tokens=40))) for n in range(4)]
    with engine.open_tree(request(0, prompt_token_ids=TOKENS[:40], max_tokens=260)) as tree:
        branch = tree.root
        for begin in range(40, 300, 65):
            branch = branch.fork()[0]
            branch.append(TOKENS[begin : begin + 65])
            at = (begin, begin + 64)
            found = await branch.evaluate(Question(positions=at, hidden=True))
            assert np.array_equal(found.hidden, expected.hidden[list(at)])
    await asyncio.gather(*noise)
    await until(lambda: not engine.status()["tiny"].kv_cells_used)
    engine.stop()


async def test_hidden_states_do_not_outlive_their_step(tiny: TinyModel) -> None:
    """llama.cpp's buffer holds nothing once they were read: they are as good as the text."""
    engine = _engine(tiny)
    found = await _evaluate(engine, (298, 299))
    assert found.hidden.any()
    # Nobody computes any more, so the buffer can be looked at.
    assert not engine._lanes["tiny"].context.hidden(30).any()
    engine.stop()


async def test_a_model_without_hidden_states_says_so(tiny: TinyModel, start: Start) -> None:
    """Asking for what is not kept is an error and not an empty answer."""
    with pytest.raises(InvalidRequest, match="hidden"):
        await _evaluate(start(tiny), (0,))


async def test_a_scorer_answers_nobody(tiny: TinyModel) -> None:
    """What only judges answers takes no request for one."""
    engine = _engine(tiny)
    with pytest.raises(UnsuitableModel):
        engine.submit(request())
    engine.stop()
