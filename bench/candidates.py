# SPDX-License-Identifier: Apache-2.0
"""What candidates of one prompt share: tokens that are computed, KV cells that are held, and time.

Three ways to the very same answers, because a draw depends on the request's key and the candidate's number alone: one
request for n, n requests for one each, and a search that forks n branches. Then REBASE, whose forks share
all that they have in common: what it computes is compared with what nobody could do without (the prompt once, and every
generated token), what it holds with what copies would take. Time is that of the whole, in turns, best of the rounds.

Writes ``results/candidates.json``.

Usage: ``python bench/candidates.py [--n 16] [--problems 8] [--rounds 3]``
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from search_engine import RESULTS, Ready, machine, new_parser, publish, search_engine
from tqdm import tqdm

from adyton_enclave.engine import GenerationRequest, TextDelta
from adyton_enclave.scaling import strategies
from adyton_enclave.scaling.plan import Plan
from adyton_protocol.selection.candidate import SelectionRule

Answers = tuple[str, ...]
_STRIDE: Final = 101


@dataclass(frozen=True, slots=True)
class Cost:
    """What one way took.

    Attributes:
        computed: Tokens that the generator computed.
        generated: Tokens that it generated, of all candidates.
        peak_cells: Most KV cells of the generator at a time, as far as was looked.
        peak_copied: What these would have been if every sequence had its own.
        time_s: From the request to the last answer.
        answers: Texts in the order of candidates, so that ways can be compared.
    """

    computed: int
    generated: int
    peak_cells: int
    peak_copied: int
    time_s: float
    answers: Answers

    @property
    def prefill(self) -> int:
        """Tokens computed beyond one for each generated one: prompts, and what was computed again."""
        return self.computed - self.generated


class Watch:
    """Looks at the generator's cells whenever it is told to."""

    def __init__(self, ready: Ready) -> None:
        self._engine = ready.engine
        self._name = ready.generator
        self._lane = ready.engine._lanes[ready.generator]  # noqa: SLF001  # what no status tells
        self._computed = self._now()
        self.peak_cells = self.peak_copied = 0

    def look(self) -> None:
        """Between two steps or in one; a count may be a step old."""
        scheduler = self._lane._scheduler  # noqa: SLF001  # as above
        used = self._lane.budget.used
        if used >= self.peak_cells:
            self.peak_cells = used
            self.peak_copied = sum(s.n_computed for s in (*scheduler.running, *scheduler.parked))

    def _now(self) -> int:
        return self._engine.status()[self._name].computed_tokens

    @property
    def computed(self) -> int:
        """Tokens since the beginning. Right once the engine is at rest."""
        return self._now() - self._computed


Way = Callable[[Ready, GenerationRequest, str, Watch], Awaitable[tuple[int, Answers]]]


async def _answer(ready: Ready, request: GenerationRequest, watch: Watch) -> tuple[int, Answers]:
    """An ordinary request: generated tokens, and the choices' texts."""
    texts = [""] * request.n
    generation = ready.engine.submit(request)
    async for event in generation:
        watch.look()
        if isinstance(event, TextDelta):
            texts[event.index] += event.text
    return generation.usage.completion_tokens, tuple(texts)


async def one_request(
    ready: Ready, request: GenerationRequest, _problem: str, watch: Watch
) -> tuple[int, Answers]:
    """All candidates are choices of one request."""
    return await _answer(ready, request, watch)


async def single_requests(
    ready: Ready, request: GenerationRequest, _problem: str, watch: Watch
) -> tuple[int, Answers]:
    """Each candidate is a request of its own, all at the same time."""
    alone = [replace(request, n=1, first_choice=number) for number in range(request.n)]
    found = await asyncio.gather(*(_answer(ready, each, watch) for each in alone))
    return sum(tokens for tokens, _ in found), tuple(text for _, (text,) in found)


def searched(plan: Plan) -> Way:
    """Candidates are lines of a search."""

    async def run(
        ready: Ready, request: GenerationRequest, problem: str, watch: Watch
    ) -> tuple[int, Answers]:
        plain = replace(request, n=1)
        finding = await strategies.run(
            plan, ready.engine, ready.scorer, plain, problem, notify=lambda _progress: watch.look()
        )
        return finding.usage.completion_tokens, tuple(each.text for each in finding.outcome.candidates)

    return run


async def cost(ready: Ready, way: Way, request: GenerationRequest, problem: str) -> Cost:
    """Measure one way on one problem, on an idle engine."""
    watch = Watch(ready)
    began_s = time.perf_counter()
    generated, answers = await way(ready, request, problem, watch)
    time_s = time.perf_counter() - began_s
    await asyncio.to_thread(_rest, ready)
    return Cost(
        computed=watch.computed,
        generated=generated,
        peak_cells=watch.peak_cells,
        peak_copied=watch.peak_copied,
        time_s=time_s,
        answers=answers,
    )


def _rest(ready: Ready) -> None:
    """Wait until nothing is left in the engine, so that its counters are final."""
    while any(status.running or status.kv_cells_used for status in ready.engine.status().values()):
        time.sleep(0.001)


async def measure(ready: Ready, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Every way on every problem; of the time, the best of the rounds."""
    n = arguments.n
    ways: dict[str, Way] = {
        "one request": one_request,
        "single requests": single_requests,
        "majority": searched(
            Plan(strategy="majority", n=n, rule=SelectionRule(method="majority"), in_flight=n)
        ),
        "rebase": searched(Plan(strategy="rebase", n=n, rule=SelectionRule(method="weighted"), in_flight=n)),
    }
    rows: list[dict[str, Any]] = []
    with tqdm(
        total=arguments.problems * arguments.rounds * len(ways), unit="run", disable=arguments.json
    ) as bar:
        for number in range(arguments.problems):
            # Hard ones and easy ones.
            at = (_STRIDE * (number + 1)) % len(ready.problems)
            problem = ready.problems[at]
            request = ready.request(at, n=n, examples=arguments.examples)
            best: dict[str, Cost] = {}
            for turn in range(arguments.rounds):
                for name in list(ways) if turn % 2 else list(ways)[::-1]:
                    found = await cost(ready, ways[name], request, problem)
                    known = best.get(name)
                    best[name] = found if known is None or found.time_s < known.time_s else known
                    bar.update()
            same = best["one request"].answers == best["single requests"].answers
            rows.append(
                {
                    "prompt_tokens": len(request.prompt_token_ids),
                    "same_answers": same,
                    "ways": {
                        name: {key: value for key, value in asdict(each).items() if key != "answers"}
                        | {"prefill": each.prefill}
                        for name, each in best.items()
                    },
                }
            )
    return rows


def table(document: dict[str, Any]) -> str:
    """Sums over the problems."""
    rows = document["problems"]
    prompts = sum(row["prompt_tokens"] for row in rows)

    def total(way: str, name: str) -> float:
        return float(sum(row["ways"][way][name] for row in rows))

    length = statistics.mean(row["prompt_tokens"] for row in rows)
    lines = [
        f"{document['n']} candidates of one prompt; {len(rows)} prompts of {length:.0f} tokens on average",
        f"{'':<16} {'prefills':>9} {'computed':>9} {'generated':>10} {'peak cells':>11} {'if copied':>10} {'time':>8}",
    ]
    for way in rows[0]["ways"]:
        # All but the last token of a prompt: that one belongs to the first token of each candidate.
        prefills = total(way, "prefill") / (prompts - len(rows))
        lines.append(
            f"{way:<16} {prefills:>9.3f} {total(way, 'computed'):>9.0f} {total(way, 'generated'):>10.0f} "
            f"{total(way, 'peak_cells'):>11.0f} {total(way, 'peak_copied'):>10.0f} {total(way, 'time_s'):>7.2f}s"
        )
    ratio = total("single requests", "time_s") / total("one request", "time_s")
    same = sum(row["same_answers"] for row in rows)
    lines.append(
        f"single requests take {ratio:.2f} times as long as one; {same} of {len(rows)} gave the same answers"
    )
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = new_parser(__doc__ or "", RESULTS / "candidates.json", cells=32_768)
    add = parser.add_argument
    add("--n", type=int, default=16, help="candidates")
    add("--problems", type=int, default=8, help="held-out problems")
    add("--examples", type=int, default=0, help="other problems that stand before each, for longer prompts")
    add("--rounds", type=int, default=3, help="of each way on each problem; the best time counts")
    return parser


def main() -> int:
    """Measure, print the table, write JSON."""
    arguments = _parser().parse_args()
    document: dict[str, Any] = {
        "measures": "tokens computed, KV cells and time of candidates of one prompt, shared and apart",
        "machine": machine(),
        "n": arguments.n,
    }
    with search_engine(
        threads=arguments.threads, cells=arguments.cells, sequences=3 * arguments.n, model=arguments.model
    ) as ready:
        document["model"] = ready.generator
        document["problems"] = asyncio.run(measure(ready, arguments))
    publish(document, arguments, table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
