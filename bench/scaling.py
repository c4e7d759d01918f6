# SPDX-License-Identifier: Apache-2.0
"""Accuracy of every strategy against policy tokens, total FLOPs (scorer included) and time, at n = 1 to 64.

For each problem and seed, 64 candidates are sampled once. Every strategy that samples whole answers chooses among the
first n of them, by the function that the enclave serves with, and its cost is counted as the enclave counts it; a test
holds that to what a search itself finds. Searches over trees run as they are served. All of it is in this process.

Everything that was measured is kept under ``--work`` and never measured again: a run that is interrupted, or that
``--minutes`` ends, goes on where it was, and the figures are of what is there. Problems that only some seeds or widths
were measured on count where they can: each row says on how many problems it rests, and comparisons are paired.

Writes ``results/scaling.json`` and ``results/scaling.png`` beside this file.

Usage: ``python bench/scaling.py [--problems 2000] [--seeds 3] [--minutes M] [--stages pools,trees] [--quick]``
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from scaling_report import analyse, plot, table
from scaling_views import WIDTHS, Views

from adyton_models.catalog import default_catalog, read_catalog
from adyton_models.commands.evaluate import chosen_model
from adyton_models.model_files import pin_of
from adyton_models.progress import ProgressBar
from adyton_models.searching.campaign import Campaign, Clock, Known, Setting, scorer_names
from adyton_models.searching.measuring import Asked
from adyton_models.searching.questions import drawn_questions
from adyton_models.searching.searcher import ScorerChoice, Searcher
from adyton_models.searching.specs import Spec, read_specs
from adyton_protocol.errors import ConfigError

RESULTS: Final = Path(__file__).resolve().parent / "results"
WORK: Final = Path.home() / ".cache" / "adyton" / "scaling"
STAGES: Final = ("pools", "trees", "noisy", "ood", "widths", "timing")
DEPTH: Final = 64
AUTO: Final = 16
INCOMPLETE: Final = 3
MAIN_TREES: Final = "rebase-8"
OTHER_TREES: Final = (
    "rebase-2,rebase-4,rebase-16,rebase-32,rebase-64,beam-4,beam-8,beam-16,beam-32,beam-64,"
    "dvts-4,dvts-8,dvts-16,dvts-32,dvts-64"
)
TIMED: Final = ",".join(f"{name}-{n}" for n in WIDTHS for name in ("majority", "weighted", "rebase"))
_SAMPLE: Final = 6


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = result.add_argument
    add("--model", metavar="NAME|FILE", help="the generator (default: the catalog's)")
    add("--catalog", type=Path, default=default_catalog(), metavar="FILE")
    add(
        "--scorer",
        action="append",
        default=[],
        metavar="NAME=GGUF:ADAPTER",
        help="a scorer; the first is the one that trees use (default: the catalog's)",
    )
    add("--noisy-scorer", metavar="GGUF:ADAPTER", help="a scorer with noisy labels, for the stage `noisy`")
    add("--problems", type=int, default=2000, help="held out (default: %(default)s)")
    add("--noisy-problems", type=int, default=500, help="for the stage `noisy` (default: %(default)s)")
    add("--ood-problems", type=int, default=100, help="of other kinds (default: %(default)s)")
    add("--width-problems", type=int, default=100, help="for the other trees (default: %(default)s)")
    add("--timed-problems", type=int, default=8, help="searched one at a time (default: %(default)s)")
    add("--seeds", type=int, default=3, help="(default: %(default)s)")
    add("--trees", default=MAIN_TREES, help="searches over trees on all problems (default: %(default)s)")
    add("--widths", default=OTHER_TREES, help="those on some (default: %(default)s)")
    add("--stages", default=",".join(STAGES), help="what to measure, in this order (default: %(default)s)")
    add("--minutes", type=float, default=float("inf"), help="begin nothing new after so long")
    add("--processes", type=int, default=2, help="(default: %(default)s)")
    add("--kv-type-k", choices=("f16", "q8_0"), default="q8_0", help="cached keys (default: %(default)s)")
    add("--work", type=Path, default=WORK, metavar="DIR", help="what was measured (default: %(default)s)")
    add("--output", type=Path, default=RESULTS / "scaling.json")
    add("--quick", action="store_true", help="a handful of problems: does it work?")
    add("--report-only", action="store_true", help="measure nothing, report what is there")
    add("--estimate", action="store_true", help="only say how long it would take")
    add("--json", action="store_true", help="print JSON")
    add("--worker", type=int, help=argparse.SUPPRESS)
    return result


class Bench:
    """What is measured with which models."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        """Find the files.

        Raises:
            ConfigError: Something is not there.
        """
        self.arguments = arguments
        arguments.n_ctx = None
        self.generator, self.sampling, self.n_ctx = chosen_model(arguments)
        self.scorers = tuple(map(_scorer, arguments.scorer)) or tuple(_catalogued(arguments))
        if not self.scorers:
            raise ConfigError("the catalog names no scorer for this model: give one with --scorer")
        self.noisy = [_scorer(f"noisy labels={arguments.noisy_scorer}")] if arguments.noisy_scorer else []
        self.setting = Setting(
            generator=pin_of(self.generator).content,
            sampling=self.sampling,
            n_ctx=self.n_ctx,
            kv_type_k=arguments.kv_type_k,
        )
        self.stages = arguments.stages.split(",")
        if unknown := set(self.stages) - set(STAGES):
            raise ConfigError(f"unknown stages {', '.join(sorted(unknown))}; there are {', '.join(STAGES)}")
        self.seeds = tuple(range(1, arguments.seeds + 1))
        self.heldout = drawn_questions("heldout", arguments.problems)
        self.ood = drawn_questions("ood", arguments.ood_problems)

    def campaign(self, writer: str = "0") -> Campaign:
        """Of this setting."""
        return Campaign(self.arguments.work, self.setting, writer=writer)

    def searcher(self) -> Searcher:
        """All models, loaded."""
        return Searcher(
            self.generator,
            (*self.scorers, *self.noisy),
            sampling=self.sampling,
            n_ctx=self.n_ctx,
            kv_type_k=self.arguments.kv_type_k,
        )

    @staticmethod
    def named(choices: Sequence[ScorerChoice]) -> dict[str, tuple[str, ScorerChoice]]:
        """By name: what names a scorer's records, and its files."""
        names = scorer_names(choices)
        return {each.name: (names[each.name], each) for each in choices}

    def units(self) -> dict[str, list[tuple[list[Asked], tuple[Spec, ...]]]]:
        """For each stage: problems, and searches to run on each; pools where there is no search."""
        arguments, heldout = self.arguments, self.heldout
        # What `auto` stands for is measured on all problems, if it is a tree.
        auto = Views(Known(), self.generator, self.named(self.scorers)).auto(self.scorers[0].name, AUTO)
        trees = tuple(dict.fromkeys([*read_specs(arguments.trees), *([] if auto.pooled else [auto])]))
        widths = read_specs(arguments.widths)
        everything: dict[str, list[tuple[list[Asked], tuple[Spec, ...]]]] = {
            "pools": [(heldout, ())],
            "trees": [(heldout, trees)],
            "noisy": [(heldout[: arguments.noisy_problems], ())] if self.noisy else [],
            "ood": [(self.ood, ()), (self.ood, trees)],
            "widths": [(heldout[: arguments.width_problems], widths)],
            "timing": [(heldout[: arguments.timed_problems], read_specs(TIMED))],
        }
        return {stage: everything[stage] for stage in self.stages}

    def work(self, worker: int) -> bool:
        """Do one process's part of everything; the first shows how far it is.

        Returns:
            Whether all of it is done.
        """
        arguments = self.arguments
        clock = Clock(ends_s=time.monotonic() + 60.0 * arguments.minutes)
        campaign = self.campaign(str(worker))
        complete = True
        with self.searcher() as searcher:
            for stage, units in self.units().items():
                if stage == "timing" and worker:
                    # Alone, so that what else is computed does not count.
                    continue
                for questions, specs in units:
                    mine = questions if stage == "timing" else questions[worker :: arguments.processes]
                    bar = ProgressBar(f"{stage:6}") if worker == 0 else None
                    report = _silent if bar is None else bar.update
                    if specs:
                        done = campaign.run_searches(
                            searcher,
                            mine,
                            self.seeds[:1] if stage == "timing" else self.seeds,
                            specs,
                            scorer=self.scorers[0].name,
                            clock=clock,
                            report=report,
                            alone=stage == "timing",
                        )
                    else:
                        scorers = self.noisy if stage == "noisy" else self.scorers
                        done = campaign.grow_pools(
                            searcher,
                            mine,
                            self.seeds,
                            DEPTH,
                            scorers=[each.name for each in scorers],
                            clock=clock,
                            report=report,
                        )
                    complete &= done
                    if bar is not None:
                        bar.close()
        return complete

    def estimate(self) -> dict[str, float]:
        """Minutes that each stage takes, from a few problems; nothing of it is kept."""
        arguments = self.arguments
        some = self.heldout[:: max(1, len(self.heldout) // _SAMPLE)][:_SAMPLE]
        scratch = arguments.work / "estimate"
        campaign = Campaign(scratch, self.setting, writer=str(time.time_ns()))
        found: dict[str, float] = {}
        with self.searcher() as searcher:
            for stage, units in self.units().items():
                minutes = 0.0
                for questions, specs in units:
                    begun = time.process_time()
                    few = some[:1] if len(specs) > 1 else some
                    if specs:
                        campaign.run_searches(
                            searcher, few, (0,), specs, scorer=self.scorers[0].name, clock=Clock(), alone=True
                        )
                        runs = len(questions) * (1 if stage == "timing" else len(self.seeds))
                    else:
                        campaign.grow_pools(
                            searcher, few, self.seeds, DEPTH, scorers=[self.scorers[0].name], clock=Clock()
                        )
                        runs = len(questions)
                    minutes += (time.process_time() - begun) / len(few) * runs / 60.0
                found[stage] = minutes / (1 if stage == "timing" else arguments.processes)
        for path in sorted(scratch.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        return found


def _silent(_share: float) -> None:
    """Show nothing."""


def _scorer(text: str) -> ScorerChoice:
    name, equals, files = text.partition("=")
    path, colon, adapter = files.rpartition(":")
    if not (equals and colon and Path(path).is_file() and Path(adapter).is_file()):
        raise ConfigError(f"{text!r}: write a scorer as NAME=GGUF:ADAPTER, with files that are there")
    return ScorerChoice(name=name, path=Path(path), adapter=Path(adapter))


def _catalogued(arguments: argparse.Namespace) -> Iterator[ScorerChoice]:
    """The scorer that the catalog names for the generator."""
    if arguments.model is not None and Path(arguments.model).is_file():
        return
    catalog = read_catalog(arguments.catalog)
    entry = catalog.entry(arguments.model)
    if entry.scorer:
        scorer, beside = catalog.entry(entry.scorer), arguments.catalog.parent
        yield ScorerChoice(
            name=scorer.name,
            path=beside / scorer.file,
            adapter=beside / scorer.adapter,
            head=beside / scorer.head if scorer.head else None,
        )


def measure(bench: Bench) -> bool:
    """Do everything in as many processes as were asked for; true if it is complete."""
    workers = [
        subprocess.Popen([sys.executable, __file__, *sys.argv[1:], "--worker", str(index)])
        for index in range(bench.arguments.processes)
    ]
    try:
        codes = [worker.wait() for worker in workers]
    finally:
        for worker in workers:
            worker.terminate()
    if set(codes) - {0, INCOMPLETE}:
        raise ConfigError("a process that measured has failed; what it measured is kept")
    return not any(codes)


def main() -> int:
    """Measure, report, write."""
    arguments = parser().parse_args()
    if arguments.quick:
        arguments.problems, arguments.ood_problems, arguments.noisy_problems = 12, 8, 12
        arguments.width_problems, arguments.timed_problems = 1, 1
        arguments.widths = "rebase-2,rebase-4,rebase-16,beam-4,dvts-4"
    try:
        bench = Bench(arguments)
        if arguments.worker is not None:
            return 0 if bench.work(arguments.worker) else INCOMPLETE
        if arguments.estimate:
            minutes = bench.estimate()
            for stage, each in minutes.items():
                print(f"{stage:8} {each:7.1f} min")
            print(f"{'all':8} {sum(minutes.values()):7.1f} min with {arguments.processes} processes")
            return 0
        complete = arguments.report_only or measure(bench)
        document = report(bench)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(document, indent=1) + "\n")
    picture = arguments.output.with_suffix(".png")
    plot(document, picture)
    print(json.dumps(document) if arguments.json else table(document))
    if not complete:
        print("not everything was measured; the same command goes on", file=sys.stderr)
    print(f"written: {arguments.output}, {picture}", file=sys.stderr)
    return 0


def report(bench: Bench) -> dict[str, Any]:
    """All figures of what was measured so far."""
    known = bench.campaign().known()
    return analyse(
        known,
        generator=bench.generator,
        scorers=bench.named(bench.scorers),
        noisy=bench.named(bench.noisy),
        heldout=bench.heldout,
        ood=bench.ood,
        seeds=bench.seeds,
        setting=bench.setting,
        processes=bench.arguments.processes,
    )


if __name__ == "__main__":
    raise SystemExit(main())
