# SPDX-License-Identifier: Apache-2.0
"""Several processes of one thread each that train one model together.

They wait for one another once an update. Threads inside one process wait at every operation, so on a machine that
is also used for other things one displaced thread stalls them all: there, processes are more than twice as fast.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import distributed

_RANK, _COUNT, _MEETING = "ADYTON_TRAIN_RANK", "ADYTON_TRAIN_PROCESSES", "ADYTON_TRAIN_MEETING"


class Team:
    """The processes of a run; a team of one when not started by `start_helpers`."""

    def __init__(self) -> None:
        self.rank = int(os.environ.get(_RANK, "0"))
        self.size = int(os.environ.get(_COUNT, "1"))
        if self.size > 1 and not distributed.is_initialized():
            distributed.init_process_group(
                "gloo", init_method=f"file://{os.environ[_MEETING]}", rank=self.rank, world_size=self.size
            )

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def average(self, weights: Sequence[torch.nn.Parameter], shared: Sequence[float]) -> list[float]:
        """Average the gradients of all processes in place; returns the first process's `shared` numbers."""
        if self.size == 1:
            return list(shared)
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        own = torch.tensor(shared, dtype=torch.float64) * (self.size if self.rank == 0 else 0)
        # Seconds as float32 are exact to a millisecond for a run of a few hours.
        flat = torch.cat([*(gradient.flatten() for gradient in gradients), own.float()])
        distributed.all_reduce(flat)
        flat /= self.size
        position = 0
        for gradient in gradients:
            gradient.copy_(flat[position : position + gradient.numel()].view_as(gradient))
            position += gradient.numel()
        numbers: list[float] = flat[position:].tolist()
        return numbers


def start_helpers(processes: int, out: Path) -> list[subprocess.Popen[bytes]]:
    """Start the other processes with this one's command line; this one becomes the first of the team."""
    if processes == 1 or _RANK in os.environ:
        return []
    out.mkdir(parents=True, exist_ok=True)
    meeting = (out / f"meeting-{os.getpid()}").resolve()
    os.environ.update({_RANK: "0", _COUNT: str(processes), _MEETING: str(meeting), "OMP_NUM_THREADS": "1"})
    return [
        subprocess.Popen(  # noqa: S603 - our own command line again
            [sys.executable, *sys.orig_argv[1:]], env={**os.environ, _RANK: str(rank)}
        )
        for rank in range(1, processes)
    ]
