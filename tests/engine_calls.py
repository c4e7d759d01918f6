# SPDX-License-Identifier: Apache-2.0
"""What tests of the engine do again and again: make requests, run them, collect their answers."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from adyton_enclave.engine import Engine, Finished, GenerationRequest, TextDelta, sampling_key


@dataclass
class Answer:
    """One choice: its text, its tokens as (bytes, log-probability), why it ended."""

    text: str = ""
    tokens: list[tuple[bytes, float]] = field(default_factory=list)
    reason: str = ""


def request(seed: int = 0, *, prompt_tokens: int = 12, **fields: object) -> GenerationRequest:
    """A request with a prompt of printable tokens made from the seed; logprobs on, so that bits can be compared."""
    prompt = np.random.default_rng(seed).integers(70, 275, prompt_tokens)
    defaults = {
        "model": "tiny",
        "prompt_token_ids": tuple(prompt.tolist()),
        "max_tokens": 16,
        "key": sampling_key(seed),
        "logprobs": 0,
    }
    return GenerationRequest(**{**defaults, **fields})  # type: ignore[arg-type]


async def answers(engine: Engine, wanted: GenerationRequest) -> list[Answer]:
    """Run a request to its end."""
    choices = [Answer() for _ in range(wanted.n)]
    async for event in engine.submit(wanted):
        match event:
            case TextDelta():
                choices[event.index].text += event.text
                choices[event.index].tokens += [(item.bytes, item.logprob) for item in event.logprobs]
            case Finished():
                choices[event.index].reason = event.finish_reason
    return choices


async def until(condition: Callable[[], bool]) -> None:
    """Let the engine's thread go on until something is so; at most ten seconds."""
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise TimeoutError
