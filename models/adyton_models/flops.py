# SPDX-License-Identifier: Apache-2.0
"""What a solution costs, for a generator that writes it and for a scorer that judges it: multiplications and additions.

Counted the same for both: two for every weight of the layers and every token read, attention over the tokens that
are really seen, and the output matrix only where logits are read. Norms, rotations and softmax are left out.
"""

from dataclasses import dataclass
from typing import Protocol


class Sized(Protocol):
    """The sizes that decide what a token costs; a training `Shape` has them."""

    @property
    def width(self) -> int:
        """Of the residual stream."""
        ...

    @property
    def layers(self) -> int:
        """Number of layers."""
        ...

    @property
    def feed_forward(self) -> int:
        """Hidden units of each layer."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The sizes of a model that is known by its file."""

    width: int
    layers: int
    feed_forward: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SolutionSize:
    """Tokens of a problem's prompt, tokens of its solution, and lines of it."""

    prompt_tokens: int
    solution_tokens: int
    lines: int


def layer_weights(shape: Sized) -> int:
    """Weights in the matrices of all layers."""
    return shape.layers * (4 * shape.width**2 + 3 * shape.width * shape.feed_forward)


def reading(shape: Sized, tokens: int) -> int:
    """Of reading `tokens` one after the other: layers, and causal attention (scores and their sums)."""
    seen = tokens * (tokens + 1) // 2
    return 2 * layer_weights(shape) * tokens + 4 * shape.layers * shape.width * seen


def generator_flops(shape: Sized, size: SolutionSize, *, vocabulary: int) -> int:
    """Of reading a prompt and writing a solution; `vocabulary` rows of logits for every token written."""
    tokens = size.prompt_tokens + size.solution_tokens
    return reading(shape, tokens) + 2 * shape.width * vocabulary * (size.solution_tokens + 1)


def scorer_flops(shape: Sized, size: SolutionSize, *, vocabulary: int, tagged: bool = True) -> int:
    """Of judging it line by line.

    Args:
        shape: the scorer's.
        size: of what is judged.
        vocabulary: rows of logits that the engine computes wherever it reads any.
        tagged: one tag token more for each line, logits behind each line; else logits at every token of the
            solution, by whose likelihood it is judged.
    """
    tags = size.lines if tagged else 0
    reads = size.lines if tagged else size.solution_tokens
    tokens = size.prompt_tokens + size.solution_tokens + tags
    return reading(shape, tokens) + 2 * shape.width * vocabulary * reads


def flops_share(
    scorer: Sized, generator: Sized, sizes: list[SolutionSize], *, vocabulary: int, tagged: bool = True
) -> float:
    """Scorer's total over generator's, for these solutions, each read from its first token on."""
    judged = sum(scorer_flops(scorer, size, vocabulary=vocabulary, tagged=tagged) for size in sizes)
    return judged / sum(generator_flops(generator, size, vocabulary=vocabulary) for size in sizes)
