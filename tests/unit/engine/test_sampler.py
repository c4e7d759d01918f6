# SPDX-License-Identifier: Apache-2.0
"""Truncation, the draw and log-probabilities, against slow definitions."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton_enclave.engine.request import SamplingParams
from adyton_enclave.engine.sampler import candidates, draw, logprobs, sampling_key, step_key, uniforms
from adyton_protocol.errors import InvalidRequest

FROZEN = [0.2851077994346552, 0.3372245432264635, 0.013985547471704052]
FROZEN_KEY = "f147bd3cc500645fec507f0672e239f0127bee70ecd0dcd0492502a6ad1bcbf8"
_ROWS = st.lists(st.sampled_from([-9.0, -1.5, 0.0, 0.25, 1.0, 3.0]), min_size=1, max_size=30)


def _slow_candidates(row: list[float], params: SamplingParams) -> list[int]:
    """By the definition, one candidate at a time."""
    order = sorted(range(len(row)), key=lambda i: (-row[i], i))
    if params.top_k:
        order = order[: params.top_k]
    weights = [math.exp(row[i] - row[order[0]]) for i in order]
    kept, mass = [], 0.0
    for i, weight in zip(order, weights, strict=True):
        if kept and params.top_p < 1 and mass >= params.top_p * sum(weights):
            break
        kept.append(i)
        mass += weight
    return sorted(i for i in kept if params.min_p == 0 or math.exp(row[i] - row[order[0]]) >= params.min_p)


@given(
    row=_ROWS,
    top_k=st.integers(0, 8),
    top_p=st.sampled_from([0.3, 0.77, 1.0]),
    min_p=st.sampled_from([0, 0.03, 0.5]),
)
def test_truncation_equals_its_definition(row: list[float], top_k: int, top_p: float, min_p: float) -> None:
    """top_k, top_p and min_p, in that order, ties in favour of low ids."""
    params = SamplingParams(top_k=top_k, top_p=top_p, min_p=min_p)
    assert candidates(np.array(row, dtype=np.float32), params).tolist() == _slow_candidates(row, params)


def test_a_flat_row_is_cut_right_too() -> None:
    """top_p falls back to the whole vocabulary when the likely candidates are not enough."""
    row = np.zeros(1000, dtype=np.float32)
    row[0] = 13.0
    assert candidates(row, SamplingParams(top_p=1 - 1e-9)).size == 1000


@given(row=_ROWS)
def test_greedy_is_the_lowest_best_id(row: list[float]) -> None:
    """Temperature 0 takes the highest logit and, on ties, the lowest id."""
    token_id = draw(np.array(row, dtype=np.float32), SamplingParams(temperature=0), bytes(32), (0,), 0)
    assert token_id == row.index(max(row))


@pytest.mark.parametrize("spread", [0.0, 0.5, 3.0, 12.0])
def test_a_big_vocabulary_draws_by_the_same_definition(spread: float) -> None:
    """Shortcuts for thousands of candidates, in truncation and draw, change no result."""
    rng = np.random.default_rng(int(spread * 10))
    for position in range(40):
        row = (np.round(rng.standard_normal(3000) * 8) / 8 * spread).astype(np.float32)
        params = SamplingParams(
            temperature=float(rng.choice([0.3, 1.0, 5.0])), top_k=int(rng.choice([0, 3, 40, 700]))
        )
        ids = np.array(_slow_candidates(row.tolist(), params))
        noise = -np.log(-np.log(uniforms(step_key(bytes(32), (1,), position), np.arange(3000))))
        scores = row[ids].astype(np.float64) / params.temperature + noise[ids]
        assert draw(row, params, bytes(32), (1,), position) == ids[scores.argmax()]


@pytest.mark.parametrize("spread", [0.0, 0.5, 3.0, 12.0])
def test_truncation_of_a_big_vocabulary_equals_its_definition(spread: float) -> None:
    """With ties everywhere."""
    rng = np.random.default_rng(int(spread * 10))
    for top_k, top_p, min_p in ((5, 1.0, 0.0), (0, 0.9, 0.0), (300, 0.5, 0.01), (0, 1 - 1e-9, 0.2)):
        row = (np.round(rng.standard_normal(1000) * 8) / 8 * spread).astype(np.float32)
        params = SamplingParams(top_k=top_k, top_p=top_p, min_p=min_p)
        found, expected = candidates(row, params).tolist(), _slow_candidates(row.tolist(), params)
        assert set(found) ^ set(expected) <= _borderline(row, expected)


def _borderline(row: np.ndarray, expected: list[int]) -> set[int]:
    """The last candidate, which rounding of a sum over a thousand weights may take in or leave out."""
    lowest = row[expected].min()
    return {int(i) for i in np.flatnonzero(row == lowest)[-1:]} | {
        max(i for i in expected if row[i] == lowest)
    }


def test_draws_follow_the_distribution() -> None:
    """Frequencies over many positions are the softmax, within five standard deviations."""
    row = np.log(np.array([0.5, 0.3, 0.15, 0.05], dtype=np.float32))
    n = 4000
    counts = Counter(draw(row, SamplingParams(), sampling_key(1), (0,), position) for position in range(n))
    for token_id, share in enumerate([0.5, 0.3, 0.15, 0.05]):
        assert abs(counts[token_id] - n * share) < 5 * math.sqrt(n * share * (1 - share))


def test_draws_of_choices_and_positions_are_unrelated() -> None:
    """Key, path and position each change the noise; the same three repeat it."""
    ids = np.arange(8)
    base = uniforms(step_key(bytes(32), (0,), 5), ids)
    assert np.array_equal(base, uniforms(step_key(bytes(32), (0,), 5), ids))
    others = [
        (bytes(31) + b"\x01", (0,), 5),
        (bytes(32), (1,), 5),
        (bytes(32), (0,), 6),
        (bytes(32), (0, 0), 5),
    ]
    assert not any(np.array_equal(base, uniforms(step_key(*other), ids)) for other in others)


def test_the_noise_of_a_candidate_ignores_the_others() -> None:
    """u(t) depends on t, not on which candidates were left; truncation never reshuffles a draw."""
    key = step_key(bytes(32), (3,), 9)
    whole = uniforms(key, np.arange(100))
    assert np.array_equal(uniforms(key, np.array([2, 50, 99])), whole[[2, 50, 99]])
    assert ((whole > 0) & (whole < 1)).all()


def test_the_generator_is_frozen() -> None:
    """The definition is part of what replays rest on: these numbers may never change."""
    values = uniforms(step_key(bytes(range(32)), (1, 2), 77), np.array([0, 1, 1000]))
    assert values.tolist() == pytest.approx(FROZEN, abs=0)
    assert sampling_key(42).hex() == FROZEN_KEY


def test_seeds_make_keys() -> None:
    """Equal seeds give equal keys; without a seed the key is random."""
    assert sampling_key(7) == sampling_key(7) != sampling_key(-7)
    assert sampling_key(None) != sampling_key(None)
    assert sampling_key(None, entropy=bytes) == bytes(32)


@given(row=_ROWS, count=st.integers(0, 40), data=st.data())
def test_logprobs_are_the_log_softmax(row: list[float], count: int, data: st.DataObject) -> None:
    """Of the raw row, best first, ties by id, never more than the vocabulary."""
    token_id = data.draw(st.integers(0, len(row) - 1))
    result = logprobs(np.array(row, dtype=np.float32), token_id, count)
    norm = math.log(sum(math.exp(value) for value in row))
    order = sorted(range(len(row)), key=lambda i: (-row[i], i))[:count]
    assert result.chosen == pytest.approx(row[token_id] - norm)
    assert list(result.top_ids) == order
    assert list(result.top) == pytest.approx([row[i] - norm for i in order])


@pytest.mark.parametrize(
    "field", [{"temperature": -1.0}, {"temperature": math.nan}, {"top_p": 0.0}, {"top_k": -1}, {"min_p": 1.5}]
)
def test_parameters_outside_their_domain_are_refused(field: dict[str, float]) -> None:
    """With the name of the field, NaN included."""
    with pytest.raises(InvalidRequest) as caught:
        SamplingParams(**field)  # type: ignore[arg-type]
    assert caught.value.param == next(iter(field))
