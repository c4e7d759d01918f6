# SPDX-License-Identifier: Apache-2.0
"""Planted attention heads: a model that never trained already looks values up by name."""

from random import Random  # noqa: TID251 - what the task is drawn with

import pytest

torch = pytest.importorskip("torch")

from adyton_models.tasks.templates import NAMES  # noqa: E402
from adyton_models.tokenizer import BEGIN, Tokenizer  # noqa: E402
from adyton_models.training.architecture import Shape, Transformer  # noqa: E402
from adyton_models.training.planted import Held, plant_heads  # noqa: E402

TOKENIZER = Tokenizer()


def planted() -> Transformer:
    """A fresh model of the shipped size."""
    model = Transformer(Shape(vocabulary=TOKENIZER.trained, heads=8), seed=3)
    plant_heads(model, TOKENIZER, seed=3)
    return model.eval()


def test_an_untrained_planted_model_looks_up_by_name() -> None:
    """Behind `name =` it prefers the digit that stood behind that name, far more often than chance (1 in 4)."""
    model, rng, right = planted(), Random(5), 0
    for _ in range(40):
        names, values = (
            rng.sample(NAMES, 4),
            [digit * 10 + rng.randrange(10) for digit in rng.sample(range(1, 10), 4)],
        )
        asked = rng.randrange(4)
        lines = "".join(f" {name} = {value}\n" for name, value in zip(names, values, strict=True))
        ids = [TOKENIZER.ids[BEGIN], *TOKENIZER.encode_known(f"{lines} Tom: {names[asked]} =")]
        with torch.no_grad():
            logits = model(torch.tensor([ids]))[0, -1]
        first_digits = [TOKENIZER.encode_known(f" {value}")[0] for value in values]
        right += int(logits[first_digits].argmax()) == asked
    assert right >= 28


def test_held_weights_stay_while_held_and_move_afterwards() -> None:
    """Until its time the planted part survives any update; later only the constant coordinate does."""
    model = planted()
    held = Held(model, 0.2)
    query, embedding = model.blocks[0].query.weight, model.embedding.weight
    before = query.detach().clone()

    def disturb() -> None:
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(1.0)

    disturb()
    held.restore(0.1)
    head = model.shape.head_width
    assert torch.equal(query[: 3 * head], before[: 3 * head])
    assert not torch.equal(query[3 * head :], before[3 * head :])
    disturb()
    held.restore(0.2)
    assert not torch.equal(query[: 3 * head], before[: 3 * head])
    assert embedding[:, 0].unique().numel() == 1
