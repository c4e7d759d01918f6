# SPDX-License-Identifier: Apache-2.0
"""Truncation, the draw and log-probabilities, against slow definitions."""

import hashlib
import math
import struct
from collections import Counter

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import ECB
from hypothesis import given
from hypothesis import strategies as st

from adyton_enclave.engine.batch_sampler import MAX_CANDIDATES, BatchSampler, batch_width
from adyton_enclave.engine.noise import PathNoise, gumbel, sampling_key
from adyton_enclave.engine.request import SamplingParams
from adyton_enclave.engine.sampler import candidates, draw, logprobs
from adyton_protocol.errors import InvalidRequest

FROZEN = [2097233020492102, 4868115737646441, 4468801609849726]
FROZEN_KEY = "f147bd3cc500645fec507f0672e239f0127bee70ecd0dcd0492502a6ad1bcbf8"
NOISE = PathNoise(bytes(32), (1,))
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
    token_id = draw(np.array(row, dtype=np.float32), SamplingParams(temperature=0), NOISE, 0)
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
        noise = gumbel(NOISE.words(position, np.arange(3000)))
        scores = row[ids].astype(np.float64) / params.temperature + noise[ids]
        assert draw(row, params, NOISE, position) == ids[scores.argmax()]
        if k := batch_width(params, row.size):
            assert BatchSampler([params], [NOISE], k).draw(row[None], [position]) == [ids[scores.argmax()]]


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
    noise = PathNoise(sampling_key(1), (0,))
    counts = Counter(draw(row, SamplingParams(), noise, position) for position in range(n))
    for token_id, share in enumerate([0.5, 0.3, 0.15, 0.05]):
        assert abs(counts[token_id] - n * share) < 5 * math.sqrt(n * share * (1 - share))


def test_draws_of_choices_and_positions_are_unrelated() -> None:
    """Key, path and position each change the noise; the same three repeat it."""
    ids = np.arange(8)
    base = PathNoise(bytes(32), (0,)).words(5, ids)
    assert np.array_equal(base, PathNoise(bytes(32), (0,)).words(5, ids))
    others = [
        (bytes(31) + b"\x01", (0,), 5),
        (bytes(32), (1,), 5),
        (bytes(32), (0,), 6),
        (bytes(32), (0, 0), 5),
    ]
    assert not any(np.array_equal(base, PathNoise(key, path).words(at, ids)) for key, path, at in others)


def test_the_noise_of_a_candidate_ignores_the_others() -> None:
    """u(t) depends on t, not on which candidates were left or how they are ordered."""
    noise = PathNoise(bytes(32), (3,))
    whole = noise.words(9, np.arange(100))
    assert np.array_equal(noise.words(9, np.array([50, 2, 99])), whole[[50, 2, 99]])
    assert (whole < 2**53).all()


def test_the_noise_is_what_the_specification_says() -> None:
    """Block by block, as the module writes it."""
    path_key = hashlib.blake2b(
        struct.pack("<III", 2, 1, 2), key=bytes(range(32)), digest_size=32, person=b"adyton gumbel 2"
    ).digest()
    aes = Cipher(AES256(path_key), ECB()).encryptor()  # noqa: S305  # a pseudo-random function
    for token_id in (0, 1, 1000, 128_255):
        block = aes.update(struct.pack("<QQ", 77, token_id >> 1))
        expected = struct.unpack("<QQ", block)[token_id & 1] >> 11
        assert PathNoise(bytes(range(32)), (1, 2)).words(77, np.array([token_id])).tolist() == [expected]


def test_the_generator_is_frozen() -> None:
    """The definition is part of what replays rest on: these numbers may never change."""
    words = PathNoise(bytes(range(32)), (1, 2)).words(77, np.array([0, 1, 1000]))
    assert words.tolist() == FROZEN
    assert sampling_key(42).hex() == FROZEN_KEY


_PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.2, 0.8, 1.0, 3.0]),
    top_k=st.sampled_from([0, 1, 3, 40, MAX_CANDIDATES]),
    top_p=st.sampled_from([1e-9, 0.3, 0.95, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 1.0]),
)


@given(
    seed=st.integers(0, 2**32 - 1),
    n_vocab=st.sampled_from([1, 2, 41, 300, 1024, 1025, 5000]),
    rounding=st.sampled_from([1.0, 8.0, 1e6]),
    forbidden=st.sampled_from([0.0, 0.5, 0.999]),
    params=st.lists(_PARAMS, min_size=1, max_size=6),
)
def test_many_rows_are_drawn_as_each_alone(
    seed: int, n_vocab: int, rounding: float, forbidden: float, params: list[SamplingParams]
) -> None:
    """Whatever the vocabulary, ties, forbidden tokens and neighbours."""
    rng = np.random.default_rng(seed)
    rows = (np.round(rng.standard_normal((len(params), n_vocab)) * rounding) / rounding).astype(np.float32)
    mask = rng.random(rows.shape) < forbidden
    mask[:, rng.integers(n_vocab)] = False
    rows[mask] = -np.inf
    noises = [PathNoise(bytes(32), (at,)) for at in range(len(params))]
    alone = [draw(rows[at], each, noises[at], at) for at, each in enumerate(params)]
    for k in {batch_width(each, n_vocab) for each in params} - {0}:
        chosen = [at for at, each in enumerate(params) if batch_width(each, n_vocab) == k]
        batch = BatchSampler([params[at] for at in chosen], [noises[at] for at in chosen], k)
        drawn = batch.draw(rows[chosen], chosen)
        assert drawn == [alone[at] for at in chosen]
        single = [
            BatchSampler([params[at]], [noises[at]], k).draw(rows[at : at + 1], [at])[0] for at in chosen
        ]
        assert drawn == single


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
