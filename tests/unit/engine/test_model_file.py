# SPDX-License-Identifier: Apache-2.0
"""Verified loading: the digest is of the very bytes that llama.cpp gets, and the C stream reads them right."""

import ctypes
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_gguf import EditableModel, key_line, number, raw_file, tensor_line, text
from tiny_gguf import TinyModel

from adyton_enclave.engine import Engine, EngineConfig, ModelSpec
from adyton_enclave.engine.llama import LlamaModel
from adyton_enclave.engine.model_file import CookieFile, read_pinned
from adyton_models.model_files import pin_of
from adyton_protocol.errors import ConfigError, ModelFileError

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


def test_what_is_loaded_is_the_canonical_file(tiny: TinyModel) -> None:
    """Our header, and behind it every tensor where that header says, byte for byte."""
    plain = EditableModel.parse(tiny.path.read_bytes())
    model, image = read_pinned(str(tiny.path), tiny.pin)
    assert image.startswith(model.header)
    loaded = EditableModel.parse(bytes(image))
    assert loaded.tensors == plain.tensors
    assert loaded.metadata == plain.metadata


@pytest.mark.parametrize("key", ["llama.context_length", "tokenizer.ggml.bos_token_id"])
def test_another_header_is_refused(tiny: TinyModel, model_path: Path, key: str) -> None:
    """Before a tensor is looked at: those of this file are cut off."""
    edited = EditableModel.parse(tiny.path.read_bytes())
    edited.metadata[key] = number(7)
    model_path.write_bytes(edited.to_bytes())
    with pytest.raises(ModelFileError) as caught:
        read_pinned(str(model_path), tiny.pin)
    assert caught.value.check == "content"


def test_a_missing_file_is_a_configuration_error(tiny: TinyModel, model_path: Path) -> None:
    """Not a bare OSError."""
    with pytest.raises(ConfigError, match="cannot be read"):
        read_pinned(str(model_path), tiny.pin)


def test_a_changed_model_does_not_start(tiny: TinyModel, model_path: Path) -> None:
    """One flipped bit in the weights keeps the engine from starting."""
    data = bytearray(tiny.path.read_bytes())
    data[len(data) // 2] ^= 1
    model_path.write_bytes(data)
    engine = Engine(
        EngineConfig(threads=1), [ModelSpec(name="t", path=str(model_path), pin=tiny.pin, n_ctx=64)]
    )
    with pytest.raises(ConfigError, match="not those configured"):
        engine.start()
    assert not engine.running


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF\x03\x00\x00\x00" + b"\xff" * 64])
def test_bytes_that_are_no_model_are_refused(tiny: TinyModel, model_path: Path, content: bytes) -> None:
    """With a typed error, before llama.cpp hears of them."""
    model_path.write_bytes(content)
    with pytest.raises(ModelFileError):
        LlamaModel(str(model_path), tiny.pin)


def test_what_llama_cpp_refuses_is_a_configuration_error(tmp_path: Path) -> None:
    """A well-formed file that is no model, even when it is the configured one."""
    path = tmp_path / "other.gguf"
    path.write_bytes(
        raw_file([key_line("general.architecture", text("llama"))], [tensor_line("t", [4])], data=bytes(32))
    )
    with pytest.raises(ConfigError):
        LlamaModel(str(path), pin_of(path))
