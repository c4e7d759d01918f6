# SPDX-License-Identifier: Apache-2.0
"""The region in which logits are called exact, held on llama.cpp itself, and the labels of what lies outside.

The region is wide, so the fast part takes one way of computing for each choice that ggml makes between kernels, the
slow part all of them on two shapes, and the exhaustive part (`make test-exhaustive`) all of them on all shapes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from invariance_scenarios import SHAPES, WAYS, Profile, Trial, difference, make_model

from adyton_enclave.engine import Engine, EngineConfig, KvType
from adyton_enclave.engine.invariance import ALIKE, K_QUANTS, TWO_ROWS, Weights, read_weights, why_inexact
from adyton_enclave.engine.llama import LlamaModel
from adyton_protocol.errors import ConfigError
from adyton_protocol.gguf_canonical import read_model
from adyton_protocol.random_access import BytesAccess

FAST_WAYS = ("chunks of 7", "n_ubatch 64", "all at once", "batch of 4", "batch of 9", "beside prefill of 37")
FLOAT_WAYS = ("chunks of 7", "all at once", "batch of 4", "beside prefill of 37", "forked at the end")
KINDS = sorted(ALIKE | K_QUANTS | TWO_ROWS)
QUICK_PAIRS = {("f16", "f16"), ("f16", "q8_0"), ("q8_0", "q8_0"), ("q8_0", "f16")}
KV_PAIRS = [
    pytest.param((k, v), marks=() if (k, v) in QUICK_PAIRS else pytest.mark.slow)
    for k in get_args(KvType)
    for v in get_args(KvType)
]
_SLOW = (pytest.mark.slow,)
_EXHAUSTIVE = (pytest.mark.slow, pytest.mark.exhaustive)
REGION = [
    pytest.param(
        kind,
        shape,
        marks=_SLOW if (kind, shape) in {("q8_0", "grouped-64"), ("q4_0", "odd-width")} else _EXHAUSTIVE,
    )
    for kind in KINDS
    for shape in sorted(SHAPES)
    if shape == "grouped-64" or kind in {"q8_0", "q4_0", "q4_K", "f16"}
]
CONTEXTS = [
    pytest.param(kind, tokens, marks=_SLOW if kind == "q8_0" and tokens < 4000 else _EXHAUSTIVE)
    for kind in ("q8_0", "q4_0", "q6_K", "f16")
    for tokens in (600, 1100, 4200)
]
PLAIN = Weights(architecture="llama", matrix_types=frozenset({"q8_0"}))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where models are made once."""
    return tmp_path_factory.mktemp("models")


def _differing(models: Path, profile: Profile, ways: tuple[str, ...]) -> dict[str, float]:
    trial = Trial(make_model(models, profile.weights, SHAPES[profile.shape]), profile)
    try:
        reference = trial.alone()
        assert len(reference) >= 17
        deltas = {way: difference(WAYS[way](trial), reference) for way in ways}
    finally:
        trial.close()
    assert all(compared for _, _, compared in deltas.values())
    return {way: largest for way, (largest, differing, _) in deltas.items() if differing}


def _label(profile: Profile) -> str | None:
    kind = profile.weights.lower().replace("_k", "_K")
    weights = Weights(architecture="llama", matrix_types=frozenset({kind}))
    config = EngineConfig(
        kv_type_k=profile.kv_k, kv_type_v=profile.kv_v, flash_attention=profile.flash_attention
    )
    return why_inexact(weights, config)


@pytest.mark.parametrize("kind", KINDS)
def test_every_exact_type_of_weights_is_exact(models: Path, kind: str) -> None:
    """Bit for bit, for each type that the classification calls exact."""
    profile = Profile(weights=kind.upper(), prompt_tokens=70)
    assert _label(profile) is None
    assert not _differing(models, profile, FLOAT_WAYS if kind in TWO_ROWS else FAST_WAYS)


@pytest.mark.parametrize("kv", KV_PAIRS)
def test_cache_types_are_exact_where_they_are_called_so(models: Path, kv: tuple[KvType, KvType]) -> None:
    """Crossing the cache size and the batch size at which attention may take another path."""
    profile = Profile(kv_k=kv[0], kv_v=kv[1], prompt_tokens=520)
    differing = _differing(models, profile, ("chunks of 63", "3 threads"))
    assert (not differing) == (_label(profile) is None)


@pytest.mark.parametrize(("kind", "shape"), REGION)
def test_the_whole_region_is_exact_on_all_shapes(models: Path, kind: str, shape: str) -> None:
    """Every way, short prompts."""
    ways = tuple(way for way in WAYS if kind not in TWO_ROWS or not way.startswith("n_ubatch"))
    assert not _differing(models, Profile(weights=kind.upper(), shape=shape, prompt_tokens=100), ways)


@pytest.mark.parametrize(("kind", "prompt_tokens"), CONTEXTS)
def test_the_region_is_exact_over_long_contexts(models: Path, kind: str, prompt_tokens: int) -> None:
    """One way for each kind of choice, up to several thousand tokens."""
    profile = Profile(weights=kind.upper(), prompt_tokens=prompt_tokens)
    assert not _differing(models, profile, (*FLOAT_WAYS, "chunks of 257", "3 threads", "last 64 one by one"))


def test_what_was_not_measured_is_not_called_exact() -> None:
    """Each step out of the region has its reason, which names types and settings only."""
    config = EngineConfig()
    assert why_inexact(PLAIN, config) is None
    for weights, word in (
        (Weights(architecture="mamba", matrix_types=PLAIN.matrix_types), "architecture"),
        (Weights(architecture="", matrix_types=PLAIN.matrix_types), "architecture"),
        (Weights(architecture="llama", matrix_types=PLAIN.matrix_types, has_experts=True), "experts"),
        (Weights(architecture="llama", matrix_types=frozenset({"q8_0", "iq1_s"})), "iq1_s"),
    ):
        assert word in (why_inexact(weights, config) or "")
    floats = Weights(architecture="llama", matrix_types=frozenset({"f16"}))
    assert "n_ubatch" in (why_inexact(floats, EngineConfig(n_ubatch=64)) or "")
    assert "flash" in (why_inexact(PLAIN, EngineConfig(flash_attention=False, kv_type_v="f16")) or "")
    assert "f16" in (why_inexact(PLAIN, EngineConfig(kv_type_v="f16")) or "")


@pytest.mark.parametrize(("kind", "exact"), [("q8_0", True), ("q6_K", False), ("bf16", False)])
def test_fast_kernels_cost_the_label_only_where_they_matter(kind: str, *, exact: bool) -> None:
    """Without ``batch_invariant`` only those types are exact that need nothing done for them."""
    weights = Weights(architecture="llama", matrix_types=frozenset({kind}))
    assert (why_inexact(weights, EngineConfig(batch_invariant=False)) is None) == exact


def test_weights_are_read_from_the_bytes_that_are_loaded(models: Path) -> None:
    """Architecture, matrices, and whether embeddings multiply, from the header that llama.cpp gets."""
    made = make_model(models, "Q6_K", SHAPES["odd-width"])
    read = read_weights(read_model([BytesAccess(made.path.read_bytes())]))
    # Rows of 288 weights are no whole number of blocks of 256, so llama.cpp falls back; rows of 256 are.
    assert read == Weights(architecture="llama", matrix_types=frozenset({"q6_K", "q8_0"}))
    model = LlamaModel(str(made.path), made.pin)
    assert model.weights == read
    model.close()


def test_an_operator_can_demand_reproducible_models(models: Path, start: Callable[..., Engine]) -> None:
    """The model is refused at load with the reason; in the region it loads and says so."""
    made = make_model(models, "Q8_0", SHAPES["grouped-64"])
    with pytest.raises(ConfigError, match=r"require_reproducible demands: .* f16"):
        start(made, kv_type_v="f16", require_reproducible=True)
    assert start(made, require_reproducible=True).models["tiny"].why_inexact is None
    assert start(made, kv_type_v="f16").models["tiny"].why_inexact is not None
