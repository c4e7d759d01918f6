# SPDX-License-Identifier: Apache-2.0
"""What eight ordinary streams notice of a wide search beside them: the gaps between their tokens, with it and without.

In each round the same streams run alone, then with searches beside them, one after the other, generator and scorer; the
order changes from round to round. The search runs alone as well, so that what it gets beside streams can be compared.
Everything is in this process, as it is in the enclave: one engine, one event loop. Gaps are taken where a
reader gets the text of a token; those that come together have no gap. First tokens do not count.

Writes ``results/fairness.json``.

Usage: ``python bench/fairness.py [--rounds 5] [--seconds 20] [--strategy rebase] [--width 64] [--streams 8]``
"""

import argparse
import asyncio
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from search_engine import RESULTS, Ready, machine, new_parser, publish, search_engine
from tqdm import tqdm

from adyton_enclave.engine import TextDelta
from adyton_enclave.scaling import strategies
from adyton_enclave.scaling.plan import Plan
from adyton_protocol.selection.candidate import SelectionRule
from scenarios import percentile

PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)
TARGET: Final = 2.0
"""Most by which the 99th percentile may grow."""
CLOCKS: Final[dict[str, Callable[[], float]]] = {"wall": time.monotonic, "cpu": time.process_time}
_SETTLE_S: Final = 0.5
_STREAM_TOKENS: Final = 400


@dataclass(slots=True)
class Phase:
    """What was seen in a stretch of time.

    Attributes:
        gaps_s: Between two tokens of a stream.
        stream_tokens: Of streams, their prompts included.
        searches: That came to their end.
        generator_tokens: That the generator computed.
        scorer_tokens: That the scorer computed.
    """

    gaps_s: list[float] = field(default_factory=list)
    stream_tokens: int = 0
    searches: int = 0
    generator_tokens: int = 0
    scorer_tokens: int = 0


class Load:
    """Streams and searches on an engine. What happens, counts for the phase that is set."""

    def __init__(self, ready: Ready, plan: Plan, clock: Callable[[], float]) -> None:
        self._ready = ready
        self._clock = clock
        self._plan = plan
        self._numbers = itertools.count(1)
        self._phase = Phase()

    async def stream(self) -> None:
        """One answer after the other, for ever."""
        while True:
            last_s = None
            request = self._ready.request(next(self._numbers), endless=True, max_tokens=_STREAM_TOKENS)
            self._phase.stream_tokens += len(request.prompt_token_ids)
            async for event in self._ready.engine.submit(request):
                if not isinstance(event, TextDelta):
                    continue
                now_s = self._clock()
                self._phase.stream_tokens += 1
                if last_s is not None:
                    self._phase.gaps_s.append(now_s - last_s)
                last_s = now_s

    async def search(self) -> None:
        """One search after the other, for ever."""
        while True:
            number = next(self._numbers)
            problem = self._ready.problems[number % len(self._ready.problems)]
            await strategies.run(
                self._plan, self._ready.engine, self._ready.scorer, self._ready.request(number), problem
            )
            self._phase.searches += 1

    async def measure(self, *, streams: int, searches: int, seconds: float) -> Phase:
        """Run for a while; the beginning does not count."""
        work = [self.stream() for _ in range(streams)] + [self.search() for _ in range(searches)]
        tasks = [asyncio.ensure_future(each) for each in work]
        try:
            await self._wait(tasks, _SETTLE_S)
            phase = self._phase = Phase()
            generator, scorer = self._computed()
            await self._wait(tasks, seconds)
            self._phase = Phase()
            generator_now, scorer_now = self._computed()
            phase.generator_tokens, phase.scorer_tokens = generator_now - generator, scorer_now - scorer
            return phase
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @staticmethod
    async def _wait(tasks: "Sequence[asyncio.Future[None]]", seconds: float) -> None:
        """Whatever ends meanwhile has failed, and says why."""
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    def _computed(self) -> tuple[int, int]:
        status = self._ready.engine.status()
        return (
            status[self._ready.generator].computed_tokens,
            status[self._ready.scorer.name].computed_tokens,
        )


def figures(phase: Phase, seconds: float) -> dict[str, float]:
    """What is reported of a phase; times in milliseconds."""
    found = {
        "search_tokens_per_s": (phase.generator_tokens - phase.stream_tokens) / seconds,
        "scorer_tokens_per_s": phase.scorer_tokens / seconds,
        "searches": float(phase.searches),
    }
    if phase.gaps_s:
        found |= {
            f"p{percent:g}_ms": 1e3 * percentile(phase.gaps_s, percent / 100) for percent in PERCENTILES
        }
        found |= {
            "mean_ms": 1e3 * statistics.fmean(phase.gaps_s),
            "max_ms": 1e3 * max(phase.gaps_s),
            "stream_tokens_per_s": len(phase.gaps_s) / seconds,
        }
    return found


async def rounds(ready: Ready, arguments: argparse.Namespace) -> list[dict[str, dict[str, float]]]:
    """All phases of all rounds, each round in another order."""
    plan = Plan(
        strategy=arguments.strategy,
        n=arguments.width,
        rule=SelectionRule(method="majority" if arguments.strategy == "majority" else "weighted"),
        in_flight=arguments.width,
    )
    phases = {
        "streams": {"streams": arguments.streams, "searches": 0},
        "both": {"streams": arguments.streams, "searches": arguments.searches},
        "search": {"streams": 0, "searches": arguments.searches},
    }
    found: list[dict[str, dict[str, float]]] = []
    with tqdm(total=len(phases) * arguments.rounds, unit="phase", disable=arguments.json) as bar:
        for number in range(arguments.rounds):
            names = list(phases)
            shift = number % len(names)
            seen: dict[str, dict[str, float]] = {}
            for name in names[shift:] + names[:shift]:
                bar.set_postfix_str(name)
                phase = await Load(ready, plan, CLOCKS[arguments.clock]).measure(
                    **phases[name], seconds=arguments.seconds
                )
                seen[name] = figures(phase, arguments.seconds)
                bar.update()
            found.append(seen)
    return found


def table(document: dict[str, Any]) -> str:
    """The medians of the rounds, and the spread of what the aim is about."""
    found = document["rounds"]

    def median(phase: str, name: str) -> float:
        return float(statistics.median(seen[phase][name] for seen in found))

    lines = [f"{'gap between tokens, ms':<26} {'alone':>9} {'beside':>9} {'ratio':>7}"]
    for name in (*(f"p{percent:g}_ms" for percent in PERCENTILES), "mean_ms", "max_ms"):
        alone, beside = median("streams", name), median("both", name)
        lines.append(f"{name.removesuffix('_ms'):<26} {alone:>9.2f} {beside:>9.2f} {beside / alone:>7.2f}")
    ratios = document["p99_ratios"]
    lines.append(
        f"99th percentile, beside over alone: {statistics.median(ratios):.2f} "
        f"[{min(ratios):.2f}-{max(ratios):.2f}]; the aim is at most {TARGET:g}"
    )
    for label, name in (("generator", "search_tokens_per_s"), ("scorer", "scorer_tokens_per_s")):
        lines.append(
            f"the search, {label} tokens a second: {median('search', name):.0f} alone, "
            f"{median('both', name):.0f} beside"
        )
    lines.append(
        f"streams, tokens a second: {median('streams', 'stream_tokens_per_s'):.0f} alone, "
        f"{median('both', 'stream_tokens_per_s'):.0f} beside"
    )
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = new_parser(__doc__ or "", RESULTS / "fairness.json", cells=16_384)
    add = parser.add_argument
    add("--strategy", choices=sorted(strategies.RUNS), default="rebase", help="what the searches do")
    add("--width", type=int, default=64, help="candidates of a search")
    add("--searches", type=int, default=1, help="searches at a time")
    add("--streams", type=int, default=8, help="ordinary streams")
    add("--rounds", type=int, default=5, help="each measures the three phases once")
    add("--seconds", type=float, default=20.0, help="of a phase")
    add(
        "--clock",
        choices=list(CLOCKS),
        default="wall",
        help="cpu: of this process, where the machine does more",
    )
    return parser


def main() -> int:
    """Measure, print the table, write JSON."""
    arguments = _parser().parse_args()
    document: dict[str, Any] = {
        "measures": "gaps between tokens of ordinary streams beside a wide search, over those without",
        "machine": machine(),
        "settings": {key: value for key, value in vars(arguments).items() if key not in ("output", "json")},
    }
    with search_engine(
        threads=arguments.threads,
        cells=arguments.cells,
        sequences=arguments.streams + arguments.width + 16,
        model=arguments.model,
        clock=CLOCKS[arguments.clock],
    ) as ready:
        document["model"] = ready.generator
        document["rounds"] = asyncio.run(rounds(ready, arguments))
    document["p99_ratios"] = [
        seen["both"]["p99_ms"] / seen["streams"]["p99_ms"] for seen in document["rounds"]
    ]
    document["met"] = statistics.median(document["p99_ratios"]) <= TARGET
    publish(document, arguments, table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
