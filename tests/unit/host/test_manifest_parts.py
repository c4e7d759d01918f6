# SPDX-License-Identifier: Apache-2.0
"""Parts of rendering: what ELF files ask for, how large models are, how an enclave is sized."""

import contextlib
import struct
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_image import elf, gguf, make_tiny_image

from adyton_enclave import config as enclave_config
from adyton_enclave.engine import EngineConfig
from adyton_enclave.weights import model_file
from adyton_host.manifest import budget
from adyton_host.manifest.elf import Needs, needs
from adyton_host.manifest.gramine import find
from adyton_host.manifest.interpreter import ask, read_cpu
from adyton_host.model_memory import read_shape
from adyton_protocol.errors import ConfigError

SHIPPED = Path(__file__).resolve().parents[3] / "models" / "shipped"


def test_what_an_elf_file_asks_for_is_read(tmp_path: Path) -> None:
    """Libraries, where to look for them, and the program that loads it."""
    path = tmp_path / "it.so"
    path.write_bytes(elf(["liba.so.1", "libb.so"], runpath="$ORIGIN/../lib:/opt", interpreter="/lib64/ld.so"))
    assert needs(path) == Needs(
        libraries=("liba.so.1", "libb.so"), search=("$ORIGIN/../lib", "/opt"), interpreter="/lib64/ld.so"
    )
    path.write_bytes(elf())
    assert needs(path) == Needs(libraries=(), search=(), interpreter="")


def test_a_real_program_asks_for_the_c_library() -> None:
    """This interpreter, as a compiler and a linker made it."""
    found = needs(Path(sys.executable).resolve())
    assert "libc.so.6" in found.libraries
    assert found.interpreter.endswith("ld-linux-x86-64.so.2")


WHOLE = elf(["liba.so.1", "libb.so"], runpath="$ORIGIN", interpreter="/lib64/ld.so")


@given(
    st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=8)), max_size=6),
    st.integers(0),
)
def test_a_damaged_elf_file_is_an_error_or_something_else(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, bytes]], cut: int
) -> None:
    """Whatever stands in it: needs are read, or it is refused; nothing else happens."""
    data = bytearray(WHOLE)
    for at, new in edits:
        data[at : at + len(new)] = new
    path = tmp_path_factory.getbasetemp() / "damaged.so"
    path.write_bytes(bytes(data[: len(data) - cut % len(data)]))
    with contextlib.suppress(ConfigError):
        assert isinstance(needs(path), Needs)


def test_the_shape_of_the_shipped_model_is_read() -> None:
    """Sizes come from the header of the file; the cache of a token is keys and values of all layers."""
    shape = read_shape(SHIPPED / "adyton-words-3m.gguf")
    assert shape.file_bytes == (SHIPPED / "adyton-words-3m.gguf").stat().st_size
    assert shape.layers > 0
    assert shape.vocabulary > 100
    assert shape.kv_bytes(100, kv_type_k="f16", kv_type_v="f16") == 200 * (
        shape.key_values + shape.value_values
    )
    assert shape.kv_bytes(32, kv_type_k="q8_0", kv_type_v="q8_0") == 34 * (
        shape.key_values + shape.value_values
    )


def test_the_parts_of_a_split_model_count_together(tmp_path: Path) -> None:
    """The header is in the first part, the size in all."""
    first, second = tmp_path / "a.gguf", tmp_path / "b.gguf"
    first.write_bytes(gguf())
    second.write_bytes(bytes(1000))
    assert read_shape(first, second).file_bytes == len(gguf()) + 1000
    assert read_shape(first, second).key_values == 2 * 2 * 16


@given(
    st.lists(st.tuples(st.integers(0, len(gguf()) - 1), st.binary(min_size=1, max_size=8)), max_size=6),
    st.integers(0),
)
def test_a_damaged_model_is_an_error_or_something_else(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, bytes]], cut: int
) -> None:
    """Whatever stands in a header: sizes are read, or the file is refused; nothing hangs and nothing else is raised."""
    data = bytearray(gguf())
    for at, new in edits:
        data[at : at + len(new)] = new
    path = tmp_path_factory.getbasetemp() / "damaged.gguf"
    path.write_bytes(bytes(data[: len(data) - cut % len(data)]))
    with contextlib.suppress(ConfigError):
        read_shape(path)


def test_a_header_that_claims_endless_lists_is_refused(tmp_path: Path) -> None:
    """Numbers in a header are claims; nobody allocates what they say."""
    path = tmp_path / "huge.gguf"
    path.write_bytes(
        b"GGUF"
        + struct.pack("<IQQ", 3, 0, 1)
        + struct.pack("<Q", 1)
        + b"x"
        + struct.pack("<IIQ", 9, 4, 2**60)
    )
    with pytest.raises(ConfigError):
        read_shape(path)


def test_defaults_of_the_host_are_those_of_the_enclave() -> None:
    """The host sizes an enclave by what the enclave will do when the configuration is silent."""
    engine = EngineConfig()
    assert enclave_config.DEFAULT_N_CTX_TOTAL == budget.DEFAULT_N_CTX_TOTAL
    assert engine.n_batch == engine.n_ubatch == budget.DEFAULT_N_BATCH
    assert (engine.kv_type_k, engine.kv_type_v) == budget.DEFAULT_KV_TYPES
    assert enclave_config.Limits().max_connections == budget.DEFAULT_CONNECTIONS
    assert model_file._MAX_THREADS <= budget._WEIGHT_THREADS


def test_an_enclave_grows_with_model_and_cache(tmp_path: Path) -> None:
    """More cells and more threads need more; what is chosen is the next power of two above the sum."""
    models = make_tiny_image(tmp_path).wanted().models
    small = budget.make_budget(models, {"engine": {"threads": 1, "n_ctx_total": 1024}})
    large = budget.make_budget(models, {"engine": {"threads": 64, "n_ctx_total": 1 << 24}})
    assert sum(small.parts.values()) < sum(large.parts.values())
    assert large.threads == small.threads + 63
    for made in (small, large):
        assert made.enclave_bytes & (made.enclave_bytes - 1) == 0
        assert made.enclave_bytes // 2 < sum(made.parts.values()) <= made.enclave_bytes


def test_a_sealed_model_needs_a_size_from_the_operator(tmp_path: Path) -> None:
    """Its header is sealed as well, so the host cannot read sizes from it."""
    small, _ = make_tiny_image(tmp_path).wanted().models
    sealed = replace(small, key_id="ab" * 32)
    with pytest.raises(ConfigError, match="--enclave-size"):
        budget.make_budget((sealed,), {"engine": {"threads": 1}})
    assert (
        budget.make_budget((sealed,), {"engine": {"threads": 1}}, enclave_bytes=1 << 34).enclave_bytes
        == 1 << 34
    )


@pytest.mark.parametrize("size", [0, 3 << 30, -(1 << 30)])
def test_only_powers_of_two_are_sizes_of_an_enclave(size: int, tmp_path: Path) -> None:
    """SGX knows no others."""
    with pytest.raises(ConfigError, match="power of two"):
        budget.make_budget(
            make_tiny_image(tmp_path).wanted().models, {"engine": {"threads": 1}}, enclave_bytes=size
        )


@given(st.integers(0, 1 << 50))
def test_sizes_are_read_as_they_are_written(size: int) -> None:
    """Gramine's notation, there and back."""
    assert budget.parse_size(budget.format_size(size)) == size


@pytest.mark.parametrize("text", ["", "G", "-1G", "1.5G", "4T", "4 G", "٤G"])
def test_other_notations_are_refused(text: str) -> None:
    """A size that Gramine would read in another way is an error here."""
    with pytest.raises(ConfigError):
        budget.parse_size(text)


def test_what_llama_was_compiled_for_is_read_from_itself() -> None:
    """Only features that are on count."""
    assert read_cpu("CPU : SSE3 = 1 | AVX = 1 | AVX512 = 0 | AMX_INT8 = 1 | REPACK = 1 | ") == {
        "SSE3", "AVX", "AMX_INT8", "REPACK",
    }  # fmt: skip


def test_an_interpreter_describes_itself_and_its_packages() -> None:
    """This one: its library, its packages with recorded digests, and what is missing by name."""
    found = ask(Path(sys.executable), ["numpy"])
    assert found.version == f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert (found.stdlib / "os.py").is_file()
    recorded = {file.name: file.sha256 for file in found.distributions["numpy"].files}
    assert recorded["numpy/__init__.py"]
    assert "AVX" in found.cpu
    with pytest.raises(ConfigError, match="lacks no-such-package; install"):
        ask(Path(sys.executable), ["numpy", "no-such-package"])


def test_what_is_no_interpreter_is_an_error() -> None:
    """The operator named another program."""
    for program in ("/bin/false", "/nonexistent"):
        with pytest.raises(ConfigError):
            ask(Path(program), [])


def test_gramine_is_found_below_a_prefix_or_named_directly(tmp_path: Path) -> None:
    """Distributions put it into different directories; a prefix without it is an error, not a fallback."""
    for place in ("lib/x86_64-linux-gnu/gramine", "lib64/gramine"):
        prefix = tmp_path / place.replace("/", "-")
        (prefix / place / "runtime" / "glibc").mkdir(parents=True)
        (prefix / place / "libsysdb.so").touch()
        for named in (prefix, prefix / place):
            found = find(named)
            assert found is not None
            assert found.libos == prefix / place / "libsysdb.so"
    with pytest.raises(ConfigError, match="no Gramine below"):
        find(tmp_path)
