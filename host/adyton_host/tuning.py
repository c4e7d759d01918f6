# SPDX-License-Identifier: Apache-2.0
"""Finds the fastest settings of an engine by measuring them, in a limited time, on a machine that is never quiet.

Settings are tried in stages, one after another: threads, then batch sizes, then cache types. In a stage all
candidates are measured in turn, round after round, so that whatever else the machine does hits all alike, and after
each round the slower half gives up its place. What is compared is the median, over rounds, of the ratio to the
settings in force, and these only give way to something that is clearly faster: a gain within the noise is no gain.

This module measures nothing itself, knows no clock of its own, and so is tested without an engine.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

MARGIN: Final = 1.03
"""A setting has to be faster by this factor to replace the one in force."""

_MIN_ROUNDS: Final = 3
_OFTEN: Final = 0.8
"""Share of the rounds in which a winner has to be faster."""

_MAX_ROUNDS: Final = 9

Settings = Mapping[str, int | str]
"""Members of an ``[engine]`` table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What a machine is tuned for: this many streams, each of a prompt and an answer."""

    streams: int
    prompt_tokens: int
    answer_tokens: int

    def answer_rate(self, sample: "Sample") -> float:
        """Answer tokens per second over all streams, when all prompts come at once and share nothing."""
        prefill_s = self.streams * self.prompt_tokens * sample.prefill_token_s
        return self.streams * self.answer_tokens / (prefill_s + self.answer_tokens * sample.step_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One measurement: seconds for a token of a prompt, seconds of a step, and why logits depend on the batch."""

    prefill_token_s: float
    step_s: float
    why_inexact: str | None


@dataclass(slots=True, kw_only=True)
class Row:
    """What became of one candidate.

    Attributes:
        stage: What was varied.
        settings: The whole candidate.
        samples: In order of rounds; the first ones of a stage were taken side by side.
        ratio: Median ratio of answer rates to the settings in force in this stage.
        chosen: Whether it is in force after the stage.
        error: Why it could not be measured.
    """

    stage: str
    settings: Settings
    samples: list[Sample] = field(default_factory=list)
    ratio: float = 1.0
    chosen: bool = False
    error: str | None = None

    @property
    def exact(self) -> bool:
        """Whether logits do not depend on the batch."""
        return bool(self.samples) and self.samples[0].why_inexact is None


Measure = Callable[[Settings], Sample]
"""Measures one candidate, or raises :class:`Unmeasurable`."""


class Unmeasurable(Exception):
    """The engine refuses a candidate; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """One search.

    Attributes:
        workload: What to be fast at.
        measure: Takes a sample.
        clock: Seconds, monotonic.
        progress: Told after each sample what is being varied.
        allow_inexact: Whether settings may win whose logits depend on the batch.
    """

    workload: Workload
    measure: Measure
    clock: Callable[[], float]
    progress: Callable[[str], None]
    allow_inexact: bool = False

    def stage(self, name: str, start: Settings, changes: Sequence[Settings], until_s: float) -> list[Row]:
        """Compare settings with some changes of them.

        Args:
            name: What is varied.
            start: The settings in force.
            changes: What candidates have otherwise.
            until_s: When to stop, by the clock; three rounds are always made.

        Returns:
            One row per candidate, the settings in force first; exactly one of them is chosen.
        """
        rows = [Row(stage=name, settings=dict(start))]
        rows += [
            Row(stage=name, settings={**start, **change})
            for change in changes
            if {**start, **change} != start
        ]
        racing = rows
        for number in range(_MAX_ROUNDS):
            if number >= _MIN_ROUNDS and self.clock() >= until_s:
                break
            racing = self._round(name, racing)
            for row in racing[1:]:
                row.ratio = self._ratio(row, rows[0])
            if len(racing) <= 1:
                break
            racing = _fastest_half(racing)
        best = max(rows[1:], key=lambda row: row.ratio, default=rows[0])
        winner = best if self._wins(best, rows[0]) else rows[0]
        winner.chosen = True
        return rows

    def _round(self, name: str, racing: Sequence[Row]) -> list[Row]:
        left = []
        for row in racing:
            try:
                row.samples.append(self.measure(row.settings))
            except Unmeasurable as error:
                row.error, row.ratio = str(error), 0.0
                if row is racing[0]:
                    raise
            else:
                left.append(row)
            self.progress(name)
        return left

    def _ratio(self, row: Row, start: Row) -> float:
        return statistics.median(self._ratios(row, start))

    def _ratios(self, row: Row, start: Row) -> list[float]:
        rate = self.workload.answer_rate
        # A row that gave up its place has fewer samples; rounds are paired from the first.
        return [rate(mine) / rate(its) for mine, its in zip(row.samples, start.samples, strict=False)]

    def _wins(self, row: Row, start: Row) -> bool:
        """True when a candidate is clearly faster, and no less exact unless that is allowed."""
        if row is start or not row.samples or (start.exact and not row.exact and not self.allow_inexact):
            return False
        ratios = self._ratios(row, start)
        faster = sum(ratio > 1 for ratio in ratios)
        return row.ratio > MARGIN and len(ratios) >= _MIN_ROUNDS and faster >= _OFTEN * len(ratios)


def _fastest_half(racing: Sequence[Row]) -> list[Row]:
    """The settings in force, and the faster half of the others, at least one."""
    others = sorted(racing[1:], key=lambda row: row.ratio, reverse=True)
    return [racing[0], *others[: max(1, len(others) // 2)]]


def thread_counts(processors: int, *, all_processors: bool) -> list[int]:
    """Candidates: powers of two, and all processors but one, or all.

    One is left out of the account unless asked for: the relay, sealing and the event loop need it.
    """
    most = max(1, processors if all_processors else processors - 1)
    return sorted({count for count in (1, 2, 4, 8, 16, 32, 64, most, most * 3 // 4) if 1 <= count <= most})


def batch_sizes(least: int, prompt_tokens: int) -> list[Settings]:
    """Candidates for tokens in a step and tokens computed at once.

    Args:
        least: A step must hold one token of every sequence.
        prompt_tokens: Steps much larger than a prompt show no difference.
    """
    sizes = [size for size in (64, 128, 256, 512, 1024, 2048) if least <= size < max(2 * prompt_tokens, 513)]
    return [{"n_batch": size, "n_ubatch": size} for size in sizes]


def cache_types(*, allow_inexact: bool) -> list[Settings]:
    """Candidates for the types of keys and values; four-bit caches change answers too much to be suggested."""
    pairs = [("f16", "q8_0"), ("q8_0", "q8_0")] + ([("f16", "f16")] if allow_inexact else [])
    return [{"kv_type_k": keys, "kv_type_v": values} for keys, values in pairs]
