# SPDX-License-Identifier: Apache-2.0
"""The identity of a model: every fact counts, and writing a number differently does not."""

from dataclasses import replace

import pytest

from adyton_protocol.errors import LocalProtocolError
from adyton_protocol.model_identity import CacheProfile, SamplingDefaults, model_identity

GGUF = "ab" * 32


def identity(
    gguf: str = GGUF,
    n_ctx: int = 1024,
    sampling: SamplingDefaults | None = None,
    cache: CacheProfile | None = None,
) -> str:
    """The identity of a standard model with some facts changed."""
    return model_identity(
        gguf_sha256=gguf, n_ctx=n_ctx, sampling=sampling or SamplingDefaults(), cache=cache or CacheProfile()
    )


def test_every_fact_counts() -> None:
    """No two models that differ in one fact share an identity."""
    sampling, cache = SamplingDefaults(), CacheProfile()
    variants = {
        identity(),
        identity(gguf="cd" * 32),
        identity(n_ctx=512),
        identity(sampling=replace(sampling, temperature=0.9)),
        identity(sampling=replace(sampling, top_p=0.9)),
        identity(sampling=replace(sampling, top_k=41)),
        identity(sampling=replace(sampling, min_p=0.1)),
        identity(cache=replace(cache, kv_type_k="q8_0")),
        identity(cache=replace(cache, kv_type_v="f16")),
        identity(cache=replace(cache, flash_attention=False)),
    }
    assert len(variants) == 10


def test_a_whole_number_is_the_same_number() -> None:
    """A configuration that writes 1 for 1.0 means the same model."""
    assert identity(sampling=SamplingDefaults(temperature=1)) == identity(
        sampling=SamplingDefaults(temperature=1.0)
    )


def test_the_identity_is_frozen() -> None:
    """The wire value of a given model does not change by accident."""
    assert identity() == "sha256:d82eb4e7c9b3b7d7a4e64b7f00d8b3ef17ee13d438aab3af84ac164b16434f5b"


@pytest.mark.parametrize("gguf", ["", "AB" * 32, "ab" * 31, "zz" * 32])
def test_a_malformed_digest_is_refused(gguf: str) -> None:
    """Only 64 lower-case hexadecimal digits name a file."""
    with pytest.raises(LocalProtocolError):
        identity(gguf=gguf)
