# SPDX-License-Identifier: Apache-2.0
"""Hostile models: refused by a typed error, or loaded without harm. Nothing ends the process."""

import subprocess
import sys
from pathlib import Path

import pytest
from model_mutations import mutants
from raw_gguf import EditableModel, number, text
from tiny_bert import make_tiny_bert
from tiny_gguf import make_tiny_gguf

from adyton_enclave.engine.llama import LlamaModel
from adyton_models.model_files import pin_of
from adyton_protocol.errors import ModelFileError
from adyton_protocol.gguf_types import ValueType

TRIES = 220
LOADER = Path(__file__).parents[2] / "load_models.py"


def test_a_pinned_model_that_would_end_the_process_is_refused(tmp_path: Path) -> None:
    """A configuration may pin an absurd model; it is refused between the pin and llama.cpp."""
    plain = make_tiny_gguf(tmp_path / "plain.gguf").path.read_bytes()
    for index, (key, value) in enumerate(
        {
            "llama.block_count": number(2**31),
            "llama.attention.head_count": number(0),
            "llama.attention.layer_norm_rms_epsilon": number(float("nan"), ValueType.FLOAT32),
            "tokenizer.ggml.model": text("none"),
            "tokenizer.chat_template": text("x" * 300_000),
        }.items()
    ):
        model = EditableModel.parse(plain)
        model.metadata[key] = value
        path = tmp_path / f"{index}.gguf"
        path.write_bytes(model.to_bytes())
        with pytest.raises(ModelFileError) as caught:
            LlamaModel(str(path), pin_of(path))
        assert caught.value.check in {"hyperparameter", "tokenizer", "template"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_edited_model_ends_or_holds_up_the_process(tmp_path: Path, seed: int) -> None:
    """Headers, vocabularies and tensors of real files, edited at random: whatever passes the checks loads and computes,
    or is refused by llama.cpp with an error. A child process does it, for it may die.
    """
    bases = [
        make_tiny_gguf(tmp_path / "plain.gguf").path.read_bytes(),
        make_tiny_gguf(tmp_path / "window.gguf", window=32).path.read_bytes(),
        make_tiny_bert(tmp_path / "encoder.gguf").path.read_bytes(),
    ]
    what = {}
    for index, (edit, data) in enumerate(mutants(bases, seed, TRIES)):
        path = tmp_path / f"{index}.gguf"
        path.write_bytes(data)
        what[str(path)] = edit
    assert len(what) > TRIES // 5
    command = [sys.executable, "-W", "ignore", str(LOADER), *what]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        status, output = str(ran.returncode), ran.stdout
    except subprocess.TimeoutExpired as error:
        status, output = "no end", (error.stdout or b"").decode()
    last = next(line for line in reversed(output.splitlines()) if line.startswith("begin "))
    assert status == "0", f"{status}: {what[last.removeprefix('begin ')]}"
    assert output.count("end decoded") + output.count("end embedded") > len(what) // 4
