# SPDX-License-Identifier: Apache-2.0
"""The search of ``adyton-host tune``, against made-up machines whose speeds are known."""

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton_host.tuning import (
    Row,
    Sample,
    Search,
    Settings,
    Unmeasurable,
    Workload,
    batch_sizes,
    cache_types,
    thread_counts,
)

WORKLOAD = Workload(streams=4, prompt_tokens=100, answer_tokens=50)
START: Settings = {"threads": 1, "n_batch": 512}


def search(speed: Callable[[Settings, int], float], **options: bool) -> Search:
    """A search on a machine that computes so many times as fast as the slowest; each sample takes a second."""
    ticks = itertools.count()

    def measure(settings: Settings) -> Sample:
        factor = speed(settings, next(ticks))
        why = "a reason" if settings.get("inexact") else None
        return Sample(prefill_token_s=0.001 / factor, step_s=0.01 / factor, why_inexact=why)

    return Search(
        workload=WORKLOAD,
        measure=measure,
        clock=lambda: float(next(ticks)),
        progress=lambda _name: None,
        **options,
    )


def chosen(rows: list[Row]) -> Settings:
    """The settings in force afterwards; exactly one row has them."""
    (row,) = (row for row in rows if row.chosen)
    return row.settings


@given(st.integers(2, 8), st.floats(1.1, 4.0))
def test_the_fastest_wins_by_its_true_ratio(best: int, factor: float) -> None:
    """Whatever its place among the candidates."""
    rows = search(lambda settings, _: factor if settings["threads"] == best else 1.0).stage(
        "threads", START, [{"threads": count} for count in range(1, 9)], 100.0
    )
    assert chosen(rows) == {**START, "threads": best}
    assert max(row.ratio for row in rows) == pytest.approx(factor)


@given(st.lists(st.floats(0.98, 1.02), min_size=40, max_size=40))
def test_noise_is_no_improvement(noise: list[float]) -> None:
    """When all are equally fast, the settings in force stay, whatever the noise picks."""
    rows = search(lambda _, number: noise[number % 40] ** 0.5).stage(
        "threads", START, [{"threads": count} for count in range(2, 6)], 100.0
    )
    assert chosen(rows) == START


def test_a_slow_phase_of_the_machine_hits_all_alike() -> None:
    """The machine slows down to a third in the middle; the ratios do not notice."""
    rows = search(
        lambda settings, number: (1.5 if settings["threads"] == 2 else 1.0) / (3 if 4 < number < 12 else 1)
    ).stage("threads", START, [{"threads": 2}], 100.0)
    assert chosen(rows)["threads"] == 2


@pytest.mark.parametrize("allow", [False, True])
def test_inexact_settings_win_only_when_allowed(*, allow: bool) -> None:
    """Twice as fast is not fast enough for answers that depend on the batch, unless the operator says so."""
    rows = search(lambda settings, _: 2.0 if settings.get("inexact") else 1.0, allow_inexact=allow).stage(
        "cache", START, [{"inexact": 1}], 100.0
    )
    assert ("inexact" in chosen(rows)) == allow
    assert rows[1].ratio == pytest.approx(2.0)


def test_what_the_engine_refuses_is_a_row_with_a_reason() -> None:
    """And the search goes on; but it cannot start from there."""

    def speed(settings: Settings, _number: int) -> float:
        if settings["n_batch"] == 64:
            raise Unmeasurable("too small")
        return 1.0

    rows = search(speed).stage("batch", START, [{"n_batch": 64}, {"n_batch": 128}], 100.0)
    assert (rows[1].error, rows[1].chosen, rows[2].error) == ("too small", False, None)
    with pytest.raises(Unmeasurable):
        search(speed).stage("batch", {**START, "n_batch": 64}, [], 100.0)


def test_time_is_respected_after_three_rounds() -> None:
    """The clock ran out before it began: three samples for whoever is still in the race, not more."""
    rows = search(lambda _settings, _number: 1.0).stage("threads", START, [{"threads": 2}], -1.0)
    assert [len(row.samples) for row in rows] == [3, 3]


@given(st.integers(1, 256), st.booleans())
def test_candidates_fit_the_machine(processors: int, all_processors: bool) -> None:
    """At least one thread, never more than there are processors; one is left unless all are asked for."""
    counts = thread_counts(processors, all_processors=all_processors)
    assert counts == sorted(set(counts))
    assert counts[0] == 1
    assert counts[-1] == max(1, processors if all_processors else processors - 1)


def test_batches_hold_every_sequence_and_suit_the_prompts() -> None:
    """No step smaller than the sequences, none far larger than a prompt."""
    assert [size["n_batch"] for size in batch_sizes(100, 256)] == [128, 256, 512]
    assert [size["n_batch"] for size in batch_sizes(32, 4000)][-1] == 2048
    assert {"kv_type_k": "f16", "kv_type_v": "f16"} not in cache_types(allow_inexact=False)
    assert {"kv_type_k": "f16", "kv_type_v": "f16"} in cache_types(allow_inexact=True)
