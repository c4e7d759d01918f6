# SPDX-License-Identifier: Apache-2.0
"""Muon: momentum whose update is orthogonalised, for the matrices inside the layers.

Keller Jordan, "Muon: an optimizer for hidden layers" (2024). Matrices of the same shape are
orthogonalised in one batched Newton-Schulz iteration, which on a CPU costs far less than one by one.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from adyton_models.training.parallel import Team

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_EPSILON = 1e-7


def orthogonalise(batch: Tensor, iterations: int) -> Tensor:
    """Push the singular values of each matrix of `batch` (n, rows, columns) towards 1."""
    a, b, c = _COEFFICIENTS
    tall = batch.shape[1] > batch.shape[2]
    x = (batch.transpose(1, 2) if tall else batch).bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + _EPSILON)
    for _ in range(iterations):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = (x.transpose(1, 2) if tall else x).to(batch.dtype)
    return result


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised and scaled so that elements move alike whatever the shape."""

    def __init__(
        self,
        weights: Iterable[nn.Parameter],
        *,
        lr: float,
        momentum: float = 0.95,
        iterations: int = 5,
        decay: float = 0.0,
        team: Team | None = None,
    ) -> None:
        self._team = Team() if team is None else team
        defaults = {"lr": lr, "momentum": momentum, "iterations": iterations, "decay": decay}
        super().__init__(list(weights), defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Apply one update; `closure` is not supported and ignored."""
        del closure
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    by_shape.setdefault(weight.shape, []).append(weight)
            for shape, weights in by_shape.items():
                momenta = torch.stack([self._momentum(weight, group["momentum"]) for weight in weights])
                updates = self._orthogonalise_shared(momenta, group["iterations"])
                scale = max(1.0, shape[0] / shape[1]) ** 0.5
                for weight, update in zip(weights, updates, strict=True):
                    weight.mul_(1.0 - group["lr"] * group["decay"])
                    weight.add_(update, alpha=-group["lr"] * scale)

    def _orthogonalise_shared(self, momenta: Tensor, iterations: int) -> Tensor:
        """Each process of the team orthogonalises its share of the matrices; all get all of them."""
        share = slice(self._team.rank, None, self._team.size)
        updates = torch.zeros_like(momenta)
        if len(momenta[share]):
            updates[share] = orthogonalise(momenta[share], iterations)
        return self._team.total(updates)

    def _momentum(self, weight: nn.Parameter, momentum: float) -> Tensor:
        """The Nesterov momentum of one matrix."""
        state = self.state[weight]
        if "buffer" not in state:
            state["buffer"] = torch.zeros_like(weight)
        gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
        buffer: Tensor = state["buffer"]
        buffer.lerp_(gradient, 1.0 - momentum)
        return gradient.lerp(buffer, momentum)
