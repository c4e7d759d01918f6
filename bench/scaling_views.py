# SPDX-License-Identifier: Apache-2.0
"""Pools as searches with each scorer see them, and problems by how hard they are."""

import multiprocessing
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from adyton_enclave.scaling.auto import choose
from adyton_enclave.scaling.calibration import ScalingCalibration, calibration_for
from adyton_enclave.scaling.plan import Plan, Strategy
from adyton_enclave.scoring.adapter import parse_adapter
from adyton_models.gguf_facts import read_facts
from adyton_models.model_files import pin_of
from adyton_models.searching.campaign import Known
from adyton_models.searching.figures import Series, difference, pass_rates
from adyton_models.searching.measuring import Asked, Chooser, Run, price
from adyton_models.searching.pools import Pool, Reader, fooled, noisy
from adyton_models.searching.searcher import ScorerChoice
from adyton_models.searching.specs import Spec
from adyton_protocol.selection.aggregate import AGGREGATES
from adyton_protocol.selection.candidate import SelectionRule

WIDTHS: Final = (1, 2, 4, 8, 16, 32, 64)
VOTES: Final[tuple[Strategy, ...]] = ("majority", "rpc")
JUDGED: Final[tuple[Strategy, ...]] = ("weighted", "best-of-n", "bom", "pairwise")
NOISY_JUDGED: Final[tuple[Strategy, ...]] = ("weighted", "best-of-n", "bom")
STOPPED_FROM: Final = 16
COMPARED_AT: Final = 16
FOOLED_SHARE: Final = 0.02
SIGMA: Final = 3.0
BANDS: Final = 10
MIDDLE: Final = (0.4, 0.6)
SCORER_IS_FOOLED: Final = f"fooled by {FOOLED_SHARE:.0%} of texts"
SCORER_IS_NOISY: Final = f"noise of {SIGMA:g} on log-odds"
_NEAR: Final = 1e-9


class Views:
    """Pools as searches with each scorer see them."""

    def __init__(
        self, known: Known, generator: Path, choices: Mapping[str, tuple[str, ScorerChoice]]
    ) -> None:
        self._known = known
        self.choices = choices
        self.ids = {name: identifier for name, (identifier, _) in choices.items()}
        self.generator_price = price(read_facts(generator).parameters)
        self.prices = {
            name: price(read_facts(choice.path).parameters) for name, (_, choice) in choices.items()
        }
        self._adapters = {
            name: parse_adapter(choice.adapter.read_bytes()) for name, (_, choice) in choices.items()
        }
        self._content = pin_of(generator).content

    def describe(self, name: str) -> dict[str, Any]:
        """What a scorer is."""
        adapter = self._adapters[name]
        return {
            "file": self.choices[name][1].path.name,
            "kind": adapter.kind,
            "step_auc": adapter.calibration.auc,
            "flops_of_a_token_over_generator": round(self.prices[name] / self.generator_price, 4),
            "calibrated_for_auto": self._calibration(name) is not None,
        }

    def auto(self, name: str, n: int) -> Spec:
        """What `auto-n` stands for with this scorer."""
        plan = Plan(strategy="auto", n=n, rule=SelectionRule(method="majority"))
        chosen = choose(plan, self._calibration(name), scores=True)
        return Spec(strategy=chosen.strategy, n=chosen.n, stop=chosen.stop.kind)

    def pool(self, key: tuple[str, int], names: Sequence[str]) -> Pool | None:
        """A pool with readers by name; None where one of them has not seen it."""
        pool = self._known.pool(key, [self.ids[name] for name in names])
        if pool is None:
            return None
        return replace(pool, readers={name: pool.readers[self.ids[name]] for name in names})

    def choices_of(
        self, asked: Sequence[Asked], seeds: Sequence[int], main: str, *, judges: Sequence[str]
    ) -> Iterator[Run]:
        """What searches that sample whole answers would choose from the pools of these problems."""
        autos = {spec for spec in (self.auto(main, n) for n in WIDTHS) if spec.pooled}
        for each in asked:
            for seed in seeds:
                if pool := self.pool((each.id, seed), judges):
                    chooser = Chooser(each, pool, self.prices, self.generator_price)
                    depth = len(pool.candidates)
                    for spec, name in self._specs(judges, sorted(autos, key=str), main):
                        if spec.n <= depth:
                            yield chooser.run(spec, name)

    def searches_of(self, asked: Sequence[Asked], seeds: Sequence[int], main: str) -> Iterator[Run]:
        """Searches over trees of these problems, as they were run."""
        wanted = {(each.id, seed) for each in asked for seed in seeds}
        for (_, scorer, key), run in self._known.runs.items():
            if key in wanted and scorer == self.ids[main]:
                yield replace(run, scorer=main)

    def noisy_choices_of(
        self, asked: Sequence[Asked], seeds: Sequence[int], main: str, others: Sequence[str]
    ) -> Iterator[Run]:
        """Runs with a scorer that was made worse, and with others that are."""
        specs = [Spec(strategy=s, n=n) for n in WIDTHS for s in NOISY_JUDGED]
        for each in asked:
            for seed in seeds:
                pool = self.pool((each.id, seed), (main,))
                if pool is None:
                    continue
                reader = pool.readers[main]
                readers: dict[str, Reader] = {
                    SCORER_IS_FOOLED: fooled(reader, each.id, share=FOOLED_SHARE),
                    SCORER_IS_NOISY: noisy(reader, each.id, sigma=SIGMA),
                }
                for other in others:
                    seen = self.pool((each.id, seed), (other,))
                    if seen is not None and len(seen.candidates) == len(pool.candidates):
                        readers[other] = seen.readers[other]
                prices = self.prices | dict.fromkeys((SCORER_IS_FOOLED, SCORER_IS_NOISY), self.prices[main])
                chooser = Chooser(each, replace(pool, readers=readers), prices, self.generator_price)
                for name in readers:
                    yield from (chooser.run(spec, name) for spec in specs if spec.n <= len(pool.candidates))

    def _specs(self, judges: Sequence[str], autos: Sequence[Spec], main: str) -> Iterator[tuple[Spec, str]]:
        for n in WIDTHS:
            for vote in VOTES:
                yield Spec(strategy=vote, n=n), ""
            for name in judges:
                for strategy in JUDGED:
                    yield Spec(strategy=strategy, n=n), name
            if n >= STOPPED_FROM:
                yield Spec(strategy="majority", n=n, stop="beta"), ""
                yield Spec(strategy="weighted", n=n, stop="beta"), main
        for how in AGGREGATES:
            yield Spec(strategy="weighted", n=COMPARED_AT, aggregate=how), main
        for spec in autos:
            yield spec, main if spec.scored else ""

    def _calibration(self, name: str) -> ScalingCalibration | None:
        return calibration_for(self._adapters[name].scaling, self._content)


class Bands:
    """Problems and seeds by how hard they are: by the candidates of the other seeds."""

    def __init__(self, known: Known, asked: Sequence[Asked], seeds: Sequence[int]) -> None:
        rates: dict[tuple[str, int], tuple[int, int]] = {}
        for each in asked:
            right: dict[str, bool] = {}
            for seed in seeds:
                candidates = known.candidates.get((each.id, seed), ())
                for candidate in candidates:
                    if candidate.text not in right:
                        right[candidate.text] = each.is_right(candidate.text)
                if candidates:
                    rates[each.id, seed] = sum(right[c.text] for c in candidates), len(candidates)
        self.rates = pass_rates(rates)
        self.groups = {each.id: each.question.group for each in asked}
        by_group: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for (identifier, _), rate in rates.items():
            by_group[self.groups[identifier]].append(rate)
        self._group_rates = {
            group: sum(right for right, _ in all_of) / sum(n for _, n in all_of)
            for group, all_of in by_group.items()
        }

    def middle(self, series: Series) -> Series:
        """Problems of which 40 to 60 % of candidates are right."""
        low, high = MIDDLE
        return series.only(lambda key: low <= self.rates.get(key, -1.0) < high)

    def middle_groups(self, series: Series) -> Series:
        """Problems of the kinds of which, over all problems, 40 to 60 % of candidates are right."""
        low, high = MIDDLE
        return series.only(lambda key: low <= self._group_rates.get(self.groups[key[0]], -1.0) < high)

    def parts(self) -> Iterator[tuple[str, Callable[[tuple[str, int]], bool]]]:
        """All bands of difficulty, and all kinds of problems."""
        for band in range(BANDS):
            low, high = band / BANDS, (band + 1) / BANDS + (_NEAR if band == BANDS - 1 else 0.0)
            yield (
                f"{low:.0%} to {min(1.0, high):.0%} of candidates right",
                lambda key, low=low, high=high: low <= self.rates.get(key, -1.0) < high,  # type: ignore[misc]
            )
        for group in sorted(set(self.groups.values())):
            yield group, lambda key, group=group: self.groups[key[0]] == group  # type: ignore[misc]

    def rows(self, found: Mapping[tuple[str, str], Series], main: str) -> list[dict[str, Any]]:
        """Weighted-16 and majority-16 in every part."""
        one, other = found.get(("weighted-16", main)), found.get(("majority-16", ""))
        if one is None or other is None:
            return []
        rows = []
        for name, wanted in self.parts():
            mine, theirs = one.only(wanted), other.only(wanted)
            if mine.runs:
                rows.append(
                    {
                        "part": name,
                        "runs": len(mine.runs),
                        "weighted-16": round(mine.accuracy, 4),
                        "majority-16": round(theirs.accuracy, 4),
                        "difference": difference(mine, theirs).as_json(),
                    }
                )
        return rows


def in_processes(
    work: Callable[[Sequence[Asked]], list[Run]], asked: Sequence[Asked], processes: int
) -> list[Run]:
    """Do work on parts of the problems side by side, in forks of this process, which must have no other thread."""
    context = multiprocessing.get_context("fork")
    waiting = []
    for index in range(processes):
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_send, args=(there, work, asked[index::processes]))
        process.start()
        # The child's end alone is open then, so that its failure is the end of the pipe.
        there.close()
        waiting.append((here, process))
    runs: list[Run] = []
    for here, process in waiting:
        runs += here.recv()
        process.join()
    return runs


def _send(there: Connection, work: Callable[[Sequence[Asked]], list[Run]], asked: Sequence[Asked]) -> None:
    there.send(work(asked))
    there.close()
