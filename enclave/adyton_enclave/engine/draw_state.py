# SPDX-License-Identifier: Apache-2.0
"""What one choice's draws need from one step to the next. All of it follows from request, path and tokens."""

from collections.abc import Sequence as Seq

from adyton_enclave.engine.logit_edits import LogitEdits
from adyton_enclave.engine.noise import PathNoise
from adyton_enclave.engine.request import GenerationRequest


class DrawState:
    """The noise of one choice, and what its request does to logits."""

    __slots__ = ("edits", "noise")

    def __init__(
        self, request: GenerationRequest, path: tuple[int, ...], prompt: Seq[int], answer: Seq[int]
    ) -> None:
        """Take up a choice at any point of its life."""
        self.noise = PathNoise(request.key, path)
        self.edits = LogitEdits(request, prompt, answer) if LogitEdits.wanted(request) else None
