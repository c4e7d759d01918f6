# SPDX-License-Identifier: Apache-2.0
"""A narrower model from a trained one, by its principal directions, and the heads and units that write most.

What it computes is only near to the original, but it has seen what the original has: further training goes on from
there instead of from nothing. After SliceGPT (arXiv 2401.15024), with whole heads and units left out besides.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from adyton_models.training.architecture import Block, Transformer, rotate
from adyton_models.training.planted import MATCHES, OFFSETS

_PLANTED = (len(OFFSETS), len(MATCHES))
"""Heads of the first layers that look values up; they are kept whatever they write."""


@dataclass(slots=True)
class _Weights:
    """What was seen of a model at work: second moments of its states, and how much each part writes."""

    moments: Tensor
    heads: Tensor
    units: Tensor

    def see(self, states: Tensor) -> None:
        """Add normalised states, (tokens, width)."""
        normed = functional.rms_norm(states, (states.shape[-1],)).double()
        self.moments += normed.T @ normed


@torch.no_grad()
def _watch(model: Transformer, rows: Sequence[Tensor]) -> _Weights:
    """Run `rows` of token ids (each (rows, tokens), unpadded) and see what is written where."""
    shape = model.shape
    seen = _Weights(
        torch.zeros(shape.width, shape.width, dtype=torch.float64),
        torch.zeros(shape.layers, shape.heads),
        torch.zeros(shape.layers, shape.feed_forward),
    )
    for token_ids in rows:
        x: Tensor = model.embedding(token_ids)
        for layer, block in enumerate(model.blocks):
            assert isinstance(block, Block)  # noqa: S101 - narrows the type
            seen.see(x.flatten(0, 1))
            x = x + _attention(model, block, x, seen.heads[layer])
            seen.see(x.flatten(0, 1))
            normed = block.feed_forward_norm(x)
            units = functional.silu(block.gate(normed)) * block.up(normed)
            seen.units[layer] += units.pow(2).sum((0, 1)) * block.down.weight.pow(2).sum(0)
            x = x + block.down(units)
        seen.see(x.flatten(0, 1))
    return seen


def _attention(model: Transformer, block: Block, x: Tensor, written: Tensor) -> Tensor:
    """What attention adds to x; adds to `written` (heads,) how much of it varies, by head."""
    rows, tokens, width = x.shape
    split = (rows, tokens, model.shape.heads, model.shape.head_width)
    cosine, sine = model.cosine[:tokens], model.sine[:tokens]
    normed = block.attention_norm(x)
    query = rotate(block.query(normed).view(split).transpose(1, 2), cosine, sine)
    key = rotate(block.key(normed).view(split).transpose(1, 2), cosine, sine)
    value = block.value(normed).view(split).transpose(1, 2)
    mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    out = block.attention_out.weight.view(width, model.shape.heads, model.shape.head_width)
    each = torch.einsum("rhtd,ohd->rtho", mixed, out)
    written += (each - each.mean((0, 1), keepdim=True)).pow(2).sum((0, 1, 3))
    return each.sum(2)


@torch.no_grad()
def slice_model(model: Transformer, rows: Sequence[Tensor], *, width: int, feed_forward: int) -> Transformer:
    """A model of another width, with heads of the same width and `feed_forward` units in each layer.

    Args:
        model: the trained one.
        rows: token ids of text that it is used on, each (rows, tokens) without padding.
        width: a multiple of the head width, at most the model's.
        feed_forward: at most the model's.

    Raises:
        ValueError: a size does not fit.
    """
    shape = model.shape
    head = shape.head_width
    if width % head or not head <= width <= shape.width or not 0 < feed_forward <= shape.feed_forward:
        raise ValueError("the width is a multiple of the head width, and no size grows")
    seen = _watch(model, rows)
    directions = torch.linalg.eigh(seen.moments)[1].flip(-1)[:, :width].float()
    heads = width // head
    narrow = Transformer(replace(shape, width=width, heads=heads, feed_forward=feed_forward))
    # The root mean square of fewer elements is larger by this; the gains make up for it.
    gain = (shape.width / width) ** 0.5
    narrow.embedding.weight.copy_(model.embedding.weight @ directions)
    for layer, (old, new) in enumerate(zip(model.blocks, narrow.blocks, strict=True)):
        assert isinstance(old, Block)  # noqa: S101 - narrows the type
        assert isinstance(new, Block)  # noqa: S101 - narrows the type
        importance = seen.heads[layer].clone()
        importance[: _PLANTED[layer] if layer < len(_PLANTED) else 0] = float("inf")
        kept = importance.argsort(descending=True)[:heads].sort().values
        parts = (kept[:, None] * head + torch.arange(head)).flatten()
        units = seen.units[layer].argsort(descending=True)[:feed_forward]
        for name in ("query", "key", "value"):
            source = getattr(old, name).weight * old.attention_norm.weight
            getattr(new, name).weight.copy_(gain * source[parts] @ directions)
        new.attention_out.weight.copy_(directions.T @ old.attention_out.weight[:, parts])
        for name in ("gate", "up"):
            source = getattr(old, name).weight * old.feed_forward_norm.weight
            getattr(new, name).weight.copy_(gain * source[units] @ directions)
        new.down.weight.copy_(directions.T @ old.down.weight[:, units])
    narrow.final_norm.weight.fill_(float(model.final_norm.weight.mean()) * gain)
    return narrow
