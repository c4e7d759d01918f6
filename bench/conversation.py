# SPDX-License-Identifier: Apache-2.0
"""Measure what a cache salt buys: the wait for the first token in each turn of a conversation, with and without.

Both kinds of conversation take turns on one engine. Each turn adds a question to everything said before.

Usage: ``python bench/conversation.py [--model 135m-49k-q8_0] [--repeats 3]``
"""

import argparse
import asyncio
import json
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np

from adyton_enclave.engine import Engine, EngineConfig, GenerationRequest, ModelSpec, TextDelta
from random_models import random_model

TURNS: Final = 5
QUESTION_TOKENS: Final = 200
ANSWER_TOKENS: Final = 48
RESULTS: Final = Path(__file__).parent / "results" / "conversation.json"
_FIRST_TEXT_TOKEN: Final = 300


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn: tokens of its prompt, how many of them were found, seconds to the first token."""

    prompt_tokens: int
    cached_tokens: int
    wait_s: float


async def converse(engine: Engine, seed: int, namespace: bytes | None) -> list[Turn]:
    """Hold one conversation. What is sent back of an answer is its text, tokenised anew, as callers do it."""
    rng = np.random.default_rng(seed)
    history: tuple[int, ...] = ()
    turns: list[Turn] = []
    for _ in range(TURNS):
        question = rng.integers(_FIRST_TEXT_TOKEN, _FIRST_TEXT_TOKEN + 20_000, QUESTION_TOKENS)
        history = (*history, *question.tolist())
        request = GenerationRequest(
            model="m",
            prompt_token_ids=history,
            max_tokens=ANSWER_TOKENS,
            key=bytes(32),
            cache_namespace=namespace,
        )
        started_s = time.perf_counter()
        wait_s = 0.0
        answer = ""
        generation = engine.submit(request)
        async for event in generation:
            wait_s = wait_s or time.perf_counter() - started_s
            if isinstance(event, TextDelta):
                answer += event.text
        usage = generation.usage
        turns.append(Turn(usage.prompt_tokens, usage.cached_prompt_tokens, wait_s))
        history = (*history, *engine.models["m"].tokenize(answer, add_special=False))
    return turns


async def measure(engine: Engine, repeats: int) -> list[dict[str, float]]:
    """Medians of both kinds, by turn; times in milliseconds."""
    plain: list[list[Turn]] = []
    salted: list[list[Turn]] = []
    await converse(engine, 0, None)
    for repeat in range(1, repeats + 1):
        plain.append(await converse(engine, repeat, None))
        salted.append(await converse(engine, repeat, repeat.to_bytes(32, "big")))
    rows = []
    for turn in range(TURNS):
        without, with_salt = (1e3 * median(run[turn].wait_s for run in runs) for runs in (plain, salted))
        rows.append(
            {
                "turn": turn + 1,
                "prompt_tokens": median(run[turn].prompt_tokens for run in salted),
                "cached_tokens": median(run[turn].cached_tokens for run in salted),
                "without_ms": without,
                "with_ms": with_salt,
                "ratio": without / with_salt,
            }
        )
    return rows


def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--model", default="135m-49k-q8_0", help="a name that bench/random_models.py knows")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    model = random_model(arguments.model)
    spec = ModelSpec(name="m", path=str(model.path), pin=model.pin, n_ctx=2048)
    engine = Engine(EngineConfig(), [spec]).start()
    try:
        rows = asyncio.run(measure(engine, arguments.repeats))
    finally:
        engine.stop()
    print("| turn | prompt tokens | found | without | with a salt | ratio |\n|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['turn']} | {row['prompt_tokens']:.0f} | {row['cached_tokens']:.0f} "
            f"| {row['without_ms']:.0f} ms | {row['with_ms']:.0f} ms | {row['ratio']:.1f} |"
        )
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"model": arguments.model, "rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
