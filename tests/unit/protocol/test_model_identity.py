# SPDX-License-Identifier: Apache-2.0
"""The identity of a model: every fact counts, and writing a number differently does not."""

from dataclasses import replace

import pytest

from adyton_protocol.digests import Digest
from adyton_protocol.errors import LocalProtocolError
from adyton_protocol.model_identity import CacheProfile, SamplingDefaults, ScorerParts, model_identity

CONTENT = Digest("sha256:" + "ab" * 32)
OTHER = Digest("sha256:" + "cd" * 32)


def identity(
    content: Digest = CONTENT,
    n_ctx: int = 1024,
    sampling: SamplingDefaults | None = None,
    cache: CacheProfile | None = None,
    scorer: ScorerParts | None = None,
) -> str:
    """The identity of a standard model with some facts changed."""
    return model_identity(
        content=content,
        n_ctx=n_ctx,
        sampling=sampling or SamplingDefaults(),
        cache=cache or CacheProfile(),
        scorer=scorer,
    )


def test_every_fact_counts() -> None:
    """No two models that differ in one fact share an identity."""
    sampling, cache = SamplingDefaults(), CacheProfile()
    variants = {
        identity(),
        identity(content=OTHER),
        identity(n_ctx=512),
        identity(sampling=replace(sampling, temperature=0.9)),
        identity(sampling=replace(sampling, top_p=0.9)),
        identity(sampling=replace(sampling, top_k=41)),
        identity(sampling=replace(sampling, min_p=0.1)),
        identity(cache=replace(cache, kv_type_k="q8_0")),
        identity(cache=replace(cache, kv_type_v="f16")),
        identity(cache=replace(cache, flash_attention=False)),
        identity(scorer=ScorerParts(adapter=CONTENT)),
        identity(scorer=ScorerParts(adapter=OTHER)),
        identity(scorer=ScorerParts(adapter=CONTENT, head=CONTENT)),
        identity(scorer=ScorerParts(adapter=CONTENT, head=OTHER)),
    }
    assert len(variants) == 14


def test_a_whole_number_is_the_same_number() -> None:
    """A configuration that writes 1 for 1.0 means the same model."""
    assert identity(sampling=SamplingDefaults(temperature=1)) == identity(
        sampling=SamplingDefaults(temperature=1.0)
    )


def test_the_identity_is_frozen() -> None:
    """The wire value of a given model does not change by accident."""
    assert identity() == "sha256:481521607f3ee70f48ea28b976534bc46448977903f29bf91e62235ceeb8abf3"


@pytest.mark.parametrize("text", ["", "ab" * 32, "sha256:" + "AB" * 32, "sha256:" + "ab" * 31])
def test_a_malformed_digest_is_refused(text: str) -> None:
    """Only sha256: and 64 lower-case hexadecimal digits name content, adapter or head."""
    with pytest.raises(LocalProtocolError):
        identity(content=Digest(text))
    with pytest.raises(LocalProtocolError):
        identity(scorer=ScorerParts(adapter=Digest(text)))
    with pytest.raises(LocalProtocolError):
        identity(scorer=ScorerParts(adapter=CONTENT, head=Digest(text)))
