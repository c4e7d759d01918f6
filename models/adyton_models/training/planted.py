# SPDX-License-Identifier: Apache-2.0
"""Attention heads that are planted instead of waited for.

Looking a value up (`Tom =` was followed by 21 before, so it is again) takes a pair of heads that find each other only
after long training: in layer 0, heads that bring the token 1, 2 or 3 places back; in layer 1, heads that compare
those and copy what stood behind. Without them a model of this size chooses among the values at random for an hour
while it learns everything else. Here they are set to work roughly at the start; training refines them like all else.
"""

from typing import Protocol

import torch
from torch import Tensor

from adyton_models.tokenizer import Tokenizer
from adyton_models.training.architecture import EMBEDDING_DEVIATION, ROPE_BASE, Block, Shape, Transformer

OFFSETS = (1, 2, 3)
"""Layer 0, heads 0 to 2: how many places back each looks."""
MATCHES = ((1, 2), (2, 3))
"""Layer 1, heads 0 and 1: the offset of what is compared on the asking side, and on the answering side."""

_SHARPNESS = 8.0
_QUICK_PAIRS = 6
"""Rotary pairs by which the heads of layer 0 tell distances: slower ones would only add a constant."""

_MATCH_STRENGTH = 2.0
_SLOW_TURN = 0.005
"""Radians a token: pairs that turn more slowly hardly notice the distance within a problem."""

_LOUDNESS = 3.0
"""Of what a planted head writes, in standard deviations of the embedding it is added to."""


def _block(model: Transformer, layer: int) -> Block:
    block = model.blocks[layer]
    if not isinstance(block, Block):
        raise TypeError("a layer is a Block")
    return block


@torch.no_grad()
def plant_heads(model: Transformer, tokenizer: Tokenizer, *, seed: int = 0) -> None:
    """Overwrite three heads of layer 0 and two of layer 1 of a freshly initialised model.

    Raises:
        ValueError: The model has fewer than two layers or four heads.
    """
    if model.shape.layers < 2 or model.shape.heads <= len(OFFSETS):
        raise ValueError("planting needs two layers and four heads")
    width, head = model.shape.width, model.shape.head_width
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.linalg.qr(torch.randn(width, width, generator=generator))[0]
    carried = mixed[:, :head].T
    places = {offset: mixed[:, (i + 1) * head : (i + 2) * head] for i, offset in enumerate(OFFSETS)}
    # The first coordinate is the same for every token, so that a score can depend on the distance alone.
    # For the same reason all rows begin with the same length.
    model.embedding.weight[:, 0] = 0.0
    model.embedding.weight *= (
        EMBEDDING_DEVIATION * width**0.5 / model.embedding.weight.norm(dim=1, keepdim=True)
    )
    model.embedding.weight[:, 0] = 2 * EMBEDDING_DEVIATION
    constant = torch.zeros(width)
    constant[0] = 0.5
    half = head // 2
    turns = ROPE_BASE ** (-torch.arange(half, dtype=torch.float32) / half)
    quick = (torch.arange(half) < _QUICK_PAIRS).float()
    still = torch.cat([quick, torch.zeros(half)])
    block = _block(model, 0)
    for number, offset in enumerate(OFFSETS):
        rows = slice(number * head, (number + 1) * head)
        toward = torch.cat([quick * (turns * offset).cos(), -quick * (turns * offset).sin()])
        block.query.weight[rows] = _SHARPNESS * toward[:, None] * constant[None, :]
        block.key.weight[rows] = _SHARPNESS * still[:, None] * constant[None, :]
        block.value.weight[rows] = carried
        block.attention_out.weight[:, rows] = _LOUDNESS * EMBEDDING_DEVIATION * places[offset]
    _plant_matches(model, tokenizer, places, torch.cat([turns, turns]) < _SLOW_TURN)


class Planned(Protocol):
    """What a plan says of the model to begin with."""

    @property
    def seed(self) -> int:
        """Of its weights."""
        ...

    @property
    def width(self) -> int:
        """Of the residual stream."""
        ...

    @property
    def layers(self) -> int:
        """At least two."""
        ...

    @property
    def heads(self) -> int:
        """In each layer; more than three."""
        ...

    @property
    def feed_forward(self) -> int:
        """Hidden units of each layer."""
        ...


def planted_model(plan: Planned, tokenizer: Tokenizer) -> Transformer:
    """A new model of the planned size with planted heads.

    Raises:
        ValueError: See `plant_heads`.
    """
    shape = Shape(
        vocabulary=tokenizer.trained,
        width=plan.width,
        layers=plan.layers,
        heads=plan.heads,
        feed_forward=plan.feed_forward,
    )
    model = Transformer(shape, seed=plan.seed)
    plant_heads(model, tokenizer, seed=plan.seed)
    return model


class Held:
    """Puts planted weights back to what they were, after each update: for a while, or for good.

    While they are held the rest comes to rely on them. Let go at a high rate, they are gone within minutes.
    """

    def __init__(self, model: Transformer, until: float) -> None:
        """Hold what the model's planted weights are now, up to progress `until`."""
        self._until = until
        head = model.shape.head_width
        heads = {0: len(OFFSETS), 1: len(MATCHES)}
        self._parts: list[Tensor] = []
        for layer, count in heads.items():
            block, rows = _block(model, layer), slice(0, count * head)
            self._parts += [
                weight[rows] for weight in (block.query.weight, block.key.weight, block.value.weight)
            ]
            self._parts.append(block.attention_out.weight[:, rows])
        self._parts = [part.detach() for part in self._parts]
        self._always = model.embedding.weight.detach()[:, 0]
        self._values = [part.clone() for part in self._parts]
        self._constant = self._always.clone()

    def restore(self, progress: float) -> None:
        """Undo what the update at `progress` did to the held weights."""
        self._always.copy_(self._constant)
        if progress < self._until:
            for part, value in zip(self._parts, self._values, strict=True):
                part.copy_(value)


def _plant_matches(model: Transformer, tokenizer: Tokenizer, places: dict[int, Tensor], slow: Tensor) -> None:
    """Set the heads of layer 1 that compare names and copy digits."""
    head, block = model.shape.head_width, _block(model, 1)
    digits = [tokenizer.ids[mark + digit] for digit in "0123456789" for mark in ("", "\u0120")]
    # Digit embeddings span at most 20 directions, so one head can carry them whole.
    basis = torch.linalg.svd(model.embedding.weight[digits], full_matrices=False)[2][:head]
    copied = torch.zeros(head, model.shape.width)
    copied[: basis.shape[0]] = basis
    for number, (asking, answering) in enumerate(MATCHES):
        rows = slice(number * head, (number + 1) * head)
        block.query.weight[rows] = _MATCH_STRENGTH * torch.where(slow[:, None], places[asking].T, 0.0)
        block.key.weight[rows] = _MATCH_STRENGTH * torch.where(slow[:, None], places[answering].T, 0.0)
        block.value.weight[rows] = copied
        block.attention_out.weight[:, rows] = 2 * _LOUDNESS * EMBEDDING_DEVIATION * copied.T
