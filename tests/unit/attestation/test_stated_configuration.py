# SPDX-License-Identifier: Apache-2.0
"""From an enclave's configuration file to what a policy shall accept."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton_attestation.simulation.install import stated_by
from adyton_protocol.digests import Digest, sha256_hex
from adyton_protocol.errors import ConfigError
from adyton_protocol.model_identity import CacheProfile, SamplingDefaults, ScorerParts, model_identity

CONTENT = Digest("sha256:" + "ab" * 32)
MINIMAL = f'[[model]]\nname = "m"\ncontent = "{CONTENT}"\nweights = "sha256:{"cd" * 32}"\nn_ctx = 64\npath = "m.gguf"\n'


def stated(tmp_path: Path, text: str) -> tuple[str, list[tuple[str, str]]]:
    """What the file of this text states."""
    path = tmp_path / "enclave.toml"
    path.write_text(text)
    digest, models = stated_by(path)
    return digest, [(name, identity) for name, identity in models]


def test_left_out_values_are_the_enclaves_defaults(tmp_path: Path) -> None:
    """A minimal file states the digest of its bytes and the identity under all defaults."""
    digest, models = stated(tmp_path, MINIMAL)
    assert digest == sha256_hex(MINIMAL.encode())
    identity = model_identity(content=CONTENT, n_ctx=64, sampling=SamplingDefaults(), cache=CacheProfile())
    assert models == [("m", identity)]


def test_written_values_count(tmp_path: Path) -> None:
    """Sampling and cache types of the file enter the identity; its other values do not."""
    text = (
        '[engine]\nkv_type_v = "f16"\nthreads = 3\n\n'
        + MINIMAL
        + "[model.sampling]\ntemperature = 1\nmax_tokens = 9\n"
    )
    _, models = stated(tmp_path, text)
    identity = model_identity(
        content=CONTENT,
        n_ctx=64,
        sampling=SamplingDefaults(temperature=1.0),
        cache=CacheProfile(kv_type_v="f16"),
    )
    assert models == [("m", identity)]


def test_a_scorers_adapter_and_head_count(tmp_path: Path) -> None:
    """What a scorer is beside its weights is in the identity that a policy accepts."""
    adapter, head = Digest("sha256:" + "ef" * 32), Digest("sha256:" + "12" * 32)
    scorer = MINIMAL + f'role = "scorer"\nadapter = "a.toml"\nadapter_digest = "{adapter}"\n'
    for text, parts in (
        (scorer, ScorerParts(adapter=adapter)),
        (scorer + f'head = "h.gguf"\nhead_digest = "{head}"\n', ScorerParts(adapter=adapter, head=head)),
    ):
        _, models = stated(tmp_path, text)
        identity = model_identity(
            content=CONTENT, n_ctx=64, sampling=SamplingDefaults(), cache=CacheProfile(), scorer=parts
        )
        assert models == [("m", identity)]


@given(
    text=st.one_of(
        st.text(), st.sampled_from(["model = 3", "[[model]]", "engine = []", MINIMAL + "sampling = 1"])
    )
)
def test_what_is_no_configuration_is_a_configuration_error(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    """Any other text raises ConfigError and nothing else."""
    path = tmp_path_factory.mktemp("stated") / "enclave.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigError):
        stated_by(path)
