# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks rest on: models that load and never end, comparisons that favour nobody, honest slopes."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from hypothesis import given
from hypothesis import strategies as st

from adyton_enclave.engine import Engine, EngineConfig, Finished, ModelSpec, SamplingParams
from adyton_enclave.engine.request import GenerationRequest
from adyton_models.model_files import pin_of
from adyton_protocol.digests import Digest
from adyton_protocol.model_identity import ModelPin
from peers import Settings, engine_overrides, llama_server_options
from random_models import FORMATS, NAMES, SHAPES, Format, Shape, _random_blocks, _tokenizer, write_model
from report import ratio
from scenarios import percentile
from soak import trend

_TINY = Shape(width=64, layers=2, heads=2, kv_heads=1, inner=96, vocabulary=1100, context=512, head=32)

PIN = ModelPin(content=Digest("sha256:" + "0" * 64), weights=Digest("sha256:" + "1" * 64))


@pytest.mark.parametrize("kind", FORMATS)
async def test_random_model_answers_to_its_limit(tmp_path: Path, kind: Format):
    """A made model loads, tokenizes ordinary text into few tokens, and draws no control token, however hot."""
    path = tmp_path / "tiny.gguf"
    write_model(path, "tiny", _TINY, kind)
    spec = ModelSpec(name="tiny", path=str(path), pin=pin_of(path), n_ctx=512)
    engine = Engine(EngineConfig(threads=1, n_ctx_total=1024), [spec]).start()
    try:
        model = engine.models["tiny"]
        prompt = model.tokenize("the pens that Mia counted")
        assert len(prompt) < 20
        for number in range(4):
            request = GenerationRequest(
                model="tiny",
                prompt_token_ids=tuple(prompt),
                max_tokens=64,
                sampling=SamplingParams(temperature=2.0),
                key=bytes([number]) * 32,
            )
            events = [event async for event in engine.submit(request)]
            last = events[-1]
            assert isinstance(last, Finished)
            assert last.finish_reason == "length"
            assert last.usage.completion_tokens == 64
    finally:
        engine.stop()


@pytest.mark.parametrize("kind", FORMATS)
def test_random_blocks_have_the_wanted_spread(kind: Format):
    """Blocks decode to numbers around zero with the standard deviation that was asked for."""
    blocks = _random_blocks(np.random.default_rng(1), kind, 256, 256, 0.5)
    rows = blocks.reshape(256, -1)
    values = dequantize(rows, GGMLQuantizationType[kind.upper()])
    assert abs(values.mean()) < 0.02
    assert values.std() == pytest.approx(0.5, rel=0.03)


def test_vocabularies_are_whole():
    """Every merge joins two tokens into a token, and no token occurs twice."""
    for size in (1100, 49_152):
        tokens, merges = _tokenizer(size)
        known = set(tokens)
        assert len(known) == len(tokens) == size
        for merge in merges:
            first, second = merge.split(" ")
            assert {first, second, first + second} <= known


def test_names_say_the_size():
    """A model called 135m or 1b has about so many weights."""
    wanted = {"135m": 135e6, "1b": 1.1e9}
    for name, shape in SHAPES.items():
        assert shape.parameters == pytest.approx(wanted[name.split("-")[0]], rel=0.15)
    assert len(NAMES) == len(SHAPES) * len(FORMATS)


@given(st.lists(st.tuples(st.floats(0.1, 1e6), st.floats(0.1, 1e6)), min_size=1, max_size=9))
def test_ratios_favour_nobody(pairs: list[tuple[float, float]]):
    """Exchanging the two sides, or turning throughput into time, inverts the ratio."""
    ours, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    one = ratio(ours, theirs, more_is_better=True)
    other = ratio(theirs, ours, more_is_better=True)
    times = ratio([1 / a for a in ours], [1 / b for b in theirs], more_is_better=False)
    assert one.low <= one.median <= one.high
    assert one.low * other.high == pytest.approx(1)
    assert times.median == pytest.approx(one.median)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(0.01, 1.0))
def test_percentile_is_a_value_that_the_share_does_not_exceed(values: list[float], share: float):
    """At least the share lies at or below it, and it was measured."""
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9


def test_slopes_tell_a_leak_from_noise():
    """Noise around a constant is flat; a megabyte a minute is not; filling up early is forgiven."""
    rng = np.random.default_rng(0)
    times = [5.0 * step for step in range(720)]
    noise = [int(200e6 + rng.normal(0, 1e6)) for _ in times]
    leak = [size + int(2**20 * at / 60) for size, at in zip(noise, times, strict=True)]
    early = [size - max(0, int(50e6 * (1 - at / 600))) for size, at in zip(noise, times, strict=True)]
    assert trend(times, noise).flat
    assert not trend(times, leak).flat
    assert trend(times, early).flat
    assert trend(times, leak).slope_bytes_per_hour == pytest.approx(60 * 2**20, rel=0.05)


def test_settings_reach_both_servers():
    """Each setting is on llama-server's command line and in our configuration."""
    settings = Settings(
        path=Path("/m.gguf"), pin=PIN, n_ctx=77, n_cells=1234, sequences=5, threads=3, n_batch=96
    )
    options = dict(itertools.pairwise(llama_server_options(settings)))
    ours = engine_overrides(settings)
    assert options["--ctx-size"] == str(ours["engine"]["n_ctx_total"]) == "1234"
    assert options["--threads"] == options["--threads-batch"] == str(ours["engine"]["threads"]) == "3"
    assert options["--batch-size"] == str(ours["engine"]["n_batch"]) == "96"
    assert options["--parallel"] == str(ours["limits"]["max_sequences"]) == "5"
    assert options["--cache-ram"] == "0"
    assert "--no-cache-prompt" in options
