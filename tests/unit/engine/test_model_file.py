# SPDX-License-Identifier: Apache-2.0
"""Verified loading: only the pinned model becomes one; unit/enclave/test_model_weights.py has its way in."""

from pathlib import Path

import pytest
from raw_gguf import EditableModel, key_line, number, raw_file, tensor_line, text
from tiny_gguf import TinyModel

from adyton_enclave.engine import Engine, EngineConfig, ModelSpec
from adyton_enclave.engine.llama import LlamaModel
from adyton_models.model_files import pin_of
from adyton_protocol.errors import ConfigError, ModelFileError


@pytest.mark.parametrize("key", ["llama.context_length", "tokenizer.ggml.bos_token_id"])
def test_another_header_is_refused(tiny: TinyModel, model_path: Path, key: str) -> None:
    """Before a tensor is looked at: those of this file are cut off."""
    edited = EditableModel.parse(tiny.path.read_bytes())
    edited.metadata[key] = number(7)
    model_path.write_bytes(edited.to_bytes())
    with pytest.raises(ModelFileError) as caught:
        LlamaModel(str(model_path), tiny.pin)
    assert caught.value.check == "content"


def test_a_missing_file_is_a_configuration_error(tiny: TinyModel, model_path: Path) -> None:
    """Not a bare OSError."""
    with pytest.raises(ConfigError, match="cannot be read"):
        LlamaModel(str(model_path), tiny.pin)


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
