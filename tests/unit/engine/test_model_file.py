# SPDX-License-Identifier: Apache-2.0
"""Verified loading: the digest is of the very bytes that llama.cpp gets, and the C stream reads them right."""

import ctypes
import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_gguf import TinyModel

from adyton_enclave.engine import Engine, EngineConfig, ModelSpec
from adyton_enclave.engine.llama import LlamaModel
from adyton_enclave.engine.model_file import CookieFile, read_verified
from adyton_protocol.errors import ConfigError

_LIBC = ctypes.CDLL(None)
_LIBC.fread.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p]
_LIBC.fread.restype = ctypes.c_size_t
_LIBC.fseek.argtypes = [ctypes.c_void_p, ctypes.c_long, ctypes.c_int]
_LIBC.ftell.argtypes = [ctypes.c_void_p]
_LIBC.ftell.restype = ctypes.c_long
_LIBC.fwrite.argtypes = _LIBC.fread.argtypes
_LIBC.fwrite.restype = ctypes.c_size_t


def _fread(stream: CookieFile, count: int) -> bytes:
    buffer = ctypes.create_string_buffer(count or 1)
    length = _LIBC.fread(buffer, 1, count, stream.pointer)
    return buffer.raw[:length]


@settings(max_examples=50)
@given(
    data=st.binary(max_size=20_000),
    moves=st.lists(
        st.tuples(st.integers(0, 2), st.integers(-30_000, 30_000), st.integers(0, 9000)), max_size=12
    ),
)
def test_the_stream_reads_and_seeks_like_a_file(data: bytes, moves: list[tuple[int, int, int]]) -> None:
    """Any seeks and reads through the C library give what the bytes say; bad seeks fail."""
    with CookieFile(bytearray(data)) as stream:
        position = 0
        for whence, offset, count in moves:
            target = (0, position, len(data))[whence] + offset
            status = _LIBC.fseek(stream.pointer, offset, whence)
            assert (status == 0) == (0 <= target <= len(data))
            if status:
                # Where a stream stands after a failed seek is the C library's business.
                assert _LIBC.fseek(stream.pointer, position, 0) == 0
            else:
                position = target
            assert _LIBC.ftell(stream.pointer) == position
            assert _fread(stream, count) == data[position : position + count]
            position = min(position + count, len(data))


def test_the_stream_cannot_be_written() -> None:
    """Bytes that were verified stay what they are."""
    data = bytearray(b"abc")
    with CookieFile(data) as stream:
        assert _LIBC.fwrite(b"xyz", 1, 3, stream.pointer) == 0
    assert data == b"abc"


def test_a_closed_stream_lets_go() -> None:
    """Closing twice is fine, the bytes may be resized again, and the pointer is gone."""
    data = bytearray(b"abc")
    stream = CookieFile(data)
    stream.close()
    stream.close()
    data.extend(b"d")
    with pytest.raises(ValueError, match="closed"):
        _ = stream.pointer


def test_the_right_digest_gives_the_bytes(model_path: Path) -> None:
    """With and without the prefix that digests carry elsewhere."""
    model_path.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    assert (
        read_verified(str(model_path), digest)
        == read_verified(str(model_path), "sha256:" + digest)
        == b"weights"
    )


@pytest.mark.parametrize("content", [b"", b"weight", b"weights!", b"Weights"])
def test_other_bytes_are_refused(model_path: Path, content: bytes) -> None:
    """Shorter, longer and changed files are an operator's error."""
    model_path.write_bytes(content)
    with pytest.raises(ConfigError, match="digest"):
        read_verified(str(model_path), hashlib.sha256(b"weights").hexdigest())


def test_a_missing_file_is_a_configuration_error(model_path: Path) -> None:
    """Not a bare OSError."""
    with pytest.raises(ConfigError, match="cannot be read"):
        read_verified(str(model_path), "0" * 64)


def test_a_changed_model_does_not_start(tiny: TinyModel, model_path: Path) -> None:
    """One flipped bit in the weights keeps the engine from starting."""
    data = bytearray(tiny.path.read_bytes())
    data[-1] ^= 1
    model_path.write_bytes(data)
    engine = Engine(
        EngineConfig(threads=1), [ModelSpec(name="t", path=str(model_path), sha256=tiny.sha256, n_ctx=64)]
    )
    with pytest.raises(ConfigError, match="digest"):
        engine.start()
    assert not engine.running


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF\x03\x00\x00\x00" + b"\xff" * 64])
def test_bytes_that_are_no_model_are_refused(model_path: Path, content: bytes) -> None:
    """Even when their digest is the configured one."""
    model_path.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot load"):
        LlamaModel(str(model_path), hashlib.sha256(content).hexdigest())
