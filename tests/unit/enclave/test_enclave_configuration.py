# SPDX-License-Identifier: Apache-2.0
"""enclave.toml: everything is known or the file is refused, and the digest is that of the exact bytes."""

import contextlib
import hashlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.enclave.harness import CONFIG, configuration

from adyton_enclave.config import MAX_CONFIG_BYTES, Configuration, load_configuration, parse_configuration
from adyton_enclave.engine import EngineConfig
from adyton_enclave.privacy import Profile
from adyton_protocol.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
PIN = f'content = "sha256:{"0" * 64}"\nweights = "sha256:{"1" * 64}"\n'
MODEL = f'[[model]]\nname = "m"\npath = "m.gguf"\n{PIN}n_ctx = 64\n'
MINIMAL = 'version = 1\nattester = "gramine"\n' + MODEL


def test_a_minimal_file_gets_strict_defaults() -> None:
    """Fifteen-minute keys, padded sizes, loopback, our own authorities."""
    parsed = parse_configuration(MINIMAL.encode())
    assert (parsed.epoch_s, parsed.overlap_s) == (900, 300)
    assert parsed.privacy.default is Profile.SIZE
    assert parsed.privacy.floor is Profile.OFF
    assert parsed.listen_host == "127.0.0.1"
    assert parsed.authorities == ("adyton.invalid", "ohttp.invalid")
    assert parsed.simulation_platform is None


def test_the_engine_defaults_are_the_engines_own() -> None:
    """The default profile, whose answers can be replayed, is the engine's to choose; nothing here undoes it."""
    parsed, standard = parse_configuration(MINIMAL.encode()).engine, EngineConfig()
    assert (parsed.kv_type_k, parsed.kv_type_v) == (standard.kv_type_k, standard.kv_type_v)
    assert parsed.flash_attention == standard.flash_attention
    assert (parsed.n_batch, parsed.n_ubatch) == (standard.n_batch, standard.n_ubatch)


def test_the_digest_is_that_of_the_exact_bytes() -> None:
    """A comment changes the digest: what is hashed is the file, not our reading of it."""
    data = MINIMAL.encode()
    assert parse_configuration(data).digest == "sha256:" + hashlib.sha256(data).hexdigest()
    assert parse_configuration(data + b"# x\n").digest != parse_configuration(data).digest


def test_a_short_epoch_shortens_the_overlap() -> None:
    """The overlap never exceeds the epoch."""
    assert parse_configuration(b"epoch_seconds = 5\n" + MINIMAL.encode()).overlap_s == 5


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("epoch_second = 60", "epoch_second"),
        ("epoch_seconds = 0", "epoch_seconds"),
        ("epoch_seconds = 60\noverlap_seconds = 61", "overlap_seconds"),
        ("epoch_seconds = true", "epoch_seconds"),
        ("epoch_seconds = 1.5", "epoch_seconds"),
        ('listen_host = "0.0.0.0"', "listen_host"),
        ('listen_host = "example.org"', "listen_host"),
        ("listen_port = 65536", "listen_port"),
        ("authorities = []", "authorities"),
        ('authorities = ["a b"]', "authorities"),
        ('authorities = "x"', "authorities"),
        ('simulation_platform = "/tmp"', "simulation_platform"),
        ('[privacy]\nfloor = "none"', "privacy.floor"),
        ("[privacy]\nlevel = 1", "privacy.level"),
        ("[limits]\nmax_request_bytes = 1", "limits.max_request_bytes"),
        ("[limits]\nmax_request = 1", "limits.max_request"),
        ("[engine]\nn_batch = 8\nn_ubatch = 16", "engine.n_ubatch"),
        ("[engine]\nn_batch = 8\nn_ubatch = 8", "engine.n_batch"),
        ('[engine]\nkv_type_k = "q3_k"', "engine.kv_type_k"),
        ("[engine]\nmmap = true", "engine.mmap"),
        ("engine = 1", "engine"),
    ],
)
def test_a_wrong_key_is_named(line: str, key: str) -> None:
    """Unknown, mistyped and contradictory keys are refused, by name."""
    with pytest.raises(ConfigError, match=re.escape(key)):
        configuration(line)


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('name = "m"', 'name = ""', "name"),
        ('name = "m"', 'name = "a b"', "name"),
        ("n_ctx = 64", "n_ctx = 64\nmmap = true", "mmap"),
        ("n_ctx = 64", "", "n_ctx"),
        ("0" * 64, "0" * 63, "content"),
        ("sha256:1", "1", "weights"),
        ('path = "m.gguf"', 'path = "m.gguf"\nrole = "judge"', "role"),
        ("n_ctx = 64", "n_ctx = 64\n[model.sampling]\ntemperature = -1", "temperature"),
        ("n_ctx = 64", "n_ctx = 64\n[model.sampling]\ntop_p = nan", "top_p"),
        ("n_ctx = 64", "n_ctx = 64\n[model.sampling]\nseed = 1", "seed"),
    ],
)
def test_a_wrong_model_key_is_named(old: str, new: str, key: str) -> None:
    """The same holds for models."""
    with pytest.raises(ConfigError, match=key):
        parse_configuration(MINIMAL.replace(old, new).encode())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "version = 2\n" + MINIMAL.removeprefix("version = 1\n"),
        MINIMAL.replace('"gramine"', '"none"'),
        MINIMAL.replace('"gramine"', '"simulated"'),
        'version = 1\nattester = "gramine"\n',
        MINIMAL + MODEL,
        "version = = 1",
    ],
)
def test_an_incomplete_file_is_refused(text: str) -> None:
    """No version, no attester, no platform for the simulator, no model, one name twice, no TOML."""
    with pytest.raises(ConfigError):
        parse_configuration(text.encode())


@given(st.one_of(st.binary(max_size=300), st.text(max_size=300).map(lambda text: (MINIMAL + text).encode())))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    """Any bytes give a configuration or a ConfigError."""
    with contextlib.suppress(ConfigError):
        assert isinstance(parse_configuration(data), Configuration)


def test_only_the_fixed_name_in_the_directory_is_read(tmp_path: Path) -> None:
    """A missing or oversized file is a ConfigError."""
    with pytest.raises(ConfigError, match=r"enclave\.toml"):
        load_configuration(tmp_path)
    (tmp_path / "enclave.toml").write_bytes(MINIMAL.encode())
    assert load_configuration(tmp_path).models[0].name == "m"
    (tmp_path / "enclave.toml").write_bytes(MINIMAL.encode() + b"#" * MAX_CONFIG_BYTES)
    with pytest.raises(ConfigError):
        load_configuration(tmp_path)


def test_the_documented_file_parses() -> None:
    """The example in the README is one that works."""
    readme = (ROOT / "enclave" / "README.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", readme, re.DOTALL)
    for shown, written in (
        ('"sha256:…"', f'"sha256:{"0" * 64}"'),
        ('key_id = "…"', f'key_id = "{"0" * 64}"'),
    ):
        example = example.replace(shown, written)
    parse_configuration(example.replace('"…"', '"m"').encode())
    assert "version = 1" in CONFIG


def test_nothing_reads_the_environment() -> None:
    """SECURITY: the environment is the host's; no module of the enclave looks at it."""
    package = ROOT / "enclave" / "adyton_enclave"
    for path in package.rglob("*.py"):
        assert not re.search(
            r"\benviron\b(?!\[\"\w+\"\] = )|\bgetenv\b|expandvars|expanduser", path.read_text()
        ), path


def test_the_prefix_cache_is_lent_half_of_the_cells_or_what_the_operator_says() -> None:
    """Zero turns it off; more than there is cannot be lent."""
    assert configuration().engine.prefix_cells == configuration().engine.n_ctx_total // 2
    assert configuration("[engine]\ncache_cells = 0").engine.cached_sequences == 0
    assert configuration("[engine]\ncache_cells = 100").engine.prefix_cells == 100
    with pytest.raises(ConfigError):
        configuration("[engine]\nn_ctx_total = 512\ncache_cells = 513")


SEALED = f'[model.sealed]\nkey_id = "{"5e" * 32}"\nmin_version = 3\n'


def test_a_sealed_model_names_its_key_and_its_smallest_version() -> None:
    """Both are measured, so that the host can bring back neither another key nor an older file."""
    (model,) = parse_configuration((MINIMAL + SEALED).encode()).models
    assert model.sealed is not None
    assert (model.sealed.key_id, model.sealed.min_version) == (b"\x5e" * 32, 3)
    assert parse_configuration(MINIMAL.encode()).models[0].sealed is None


def test_a_split_model_names_its_parts() -> None:
    """In their order, instead of one path."""
    text = MINIMAL.replace('path = "m.gguf"', 'paths = ["a.gguf", "b.gguf", "c.gguf"]')
    (model,) = parse_configuration(text.encode()).models
    assert (model.path, *model.more_paths) == (Path("a.gguf"), Path("b.gguf"), Path("c.gguf"))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (MINIMAL + SEALED.replace("5e", "5E"), "key_id"),
        (MINIMAL + SEALED.replace("5e", ""), "key_id"),
        (MINIMAL + SEALED.replace("= 3", "= -1"), "min_version"),
        (MINIMAL + SEALED + "key = 1\n", "key"),
        (MINIMAL.replace('path = "m.gguf"', 'paths = ["a", "b"]') + SEALED, "paths"),
        (MINIMAL.replace('path = "m.gguf"', 'path = "a"\npaths = ["a", "b"]'), "paths"),
        (MINIMAL.replace('path = "m.gguf"', "paths = []"), "paths"),
    ],
)
def test_unclear_files_of_a_model_are_refused(text: str, key: str) -> None:
    """One file, or parts, or one sealed file; and every key known."""
    with pytest.raises(ConfigError, match=key):
        parse_configuration(text.encode())
