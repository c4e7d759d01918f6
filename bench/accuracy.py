# SPDX-License-Identifier: Apache-2.0
"""How many held-out problems the appliance solves with one sample each, asked through the sealed API.

Everything is as a user has it: host and enclave processes, attestation, sealing, receipts, the catalog's sampling
defaults. The problems are of the test split: no (template, graph) pair of theirs is in the training set.

Writes ``results/accuracy.json`` beside this file.

Usage: ``python bench/accuracy.py [--n 1000] [--steps 2-5] [--temperature T] [--seed 1]``
"""

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Final

from tqdm import tqdm

from adyton import AsyncClient
from adyton_attestation.simulation.warning import SimulatedAttestationWarning
from adyton_models.evaluation import Score
from adyton_models.tasks.checker import check_answer
from adyton_models.tasks.render import Problem, generate
from adyton_models.tasks.splits import Split
from appliance_process import running

RESULTS: Final = Path(__file__).resolve().parent / "results"
CONCURRENT: Final = 8
PROBLEM_SEED: Final = 20_261_121


async def solve_all(
    client: AsyncClient, problems: list[Problem], *, temperature: float | None, seed: int
) -> tuple[Counter[int], int, int]:
    """Ask every problem once; return right answers by step count, tokens generated, and receipts checked."""
    right: Counter[int] = Counter()
    tokens = receipts = 0
    gate = asyncio.Semaphore(CONCURRENT)
    progress = tqdm(total=len(problems), unit="problem", file=sys.stderr, disable=None)
    async with client.http() as http:

        async def solve(index: int, problem: Problem) -> None:
            nonlocal tokens, receipts
            body = {
                "messages": [{"role": "user", "content": problem.text}], "seed": seed * 1_000_003 + index,
            } | ({} if temperature is None else {"temperature": temperature})  # fmt: skip
            async with gate:
                answer = await http.post("/v1/chat/completions", json=body)
            answer.raise_for_status()
            # The transport has raised already if the receipt did not check.
            receipts += 1
            document = answer.json()
            tokens += document["usage"]["completion_tokens"]
            right[problem.steps] += check_answer(problem, document["choices"][0]["message"]["content"])
            progress.update()

        await asyncio.gather(*(solve(index, problem) for index, problem in enumerate(problems)))
    progress.close()
    return right, tokens, receipts


async def measure(arguments: argparse.Namespace, directory: Path) -> dict[str, object]:
    """Start the appliance and ask everything."""
    low, _, high = arguments.steps.partition("-")
    steps = tuple(range(int(low), int(high or low) + 1))
    problems = list(generate(Split.TEST, PROBLEM_SEED, arguments.n, steps))
    with running(directory) as appliance:
        async with appliance.async_client() as client:
            verdict = await client.verify()
            started = time.monotonic()
            right, tokens, receipts = await solve_all(
                client, problems, temperature=arguments.temperature, seed=arguments.seed
            )
            seconds = time.monotonic() - started
            models = {model.name: model.identity for model in verdict.keyset.extension.models}
    asked = Counter(problem.steps for problem in problems)
    return {
        "measures": "exact answers with one sample, through the sealed API",
        "models": models,
        "temperature": "the catalog's default" if arguments.temperature is None else arguments.temperature,
        "overall": Score(right=right.total(), n=len(problems)).as_json(),
        "by_steps": {str(k): Score(right=right[k], n=asked[k]).as_json() for k in sorted(asked)},
        "completion_tokens": tokens,
        "receipts_checked": receipts,
        "seconds": round(seconds, 1),
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--n", type=int, default=1000, help="problems")
    parser.add_argument("--steps", default="2-5", help="operations per problem, a number or a range")
    parser.add_argument("--temperature", type=float, help="instead of the catalog's default")
    parser.add_argument("--seed", type=int, default=1, help="of the sampling")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", SimulatedAttestationWarning)
    RESULTS.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="adyton-accuracy-")))
        document = asyncio.run(measure(arguments, directory))
    (RESULTS / "accuracy.json").write_text(json.dumps(document, indent=2) + "\n")
    print(json.dumps(document, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
