# SPDX-License-Identifier: Apache-2.0
"""``adyton-host tune`` as an operator types it, measuring the real engine with a tiny model."""

import json
from pathlib import Path

import pytest
from tiny_gguf import TinyModel, make_tiny_gguf

from adyton_enclave.config import parse_configuration
from adyton_host import cli
from adyton_host.enclave_config import EnclaveConfig, read_overrides
from tiny_appliance import TINY, tiny_catalog

QUICK = ("--seconds", "1", "--streams", "2", "--prompt-tokens", "48", "--answer-tokens", "8")


@pytest.fixture
def tiny_file(tmp_path: Path) -> TinyModel:
    """A model that is in no catalog."""
    return make_tiny_gguf(tmp_path / "mine.gguf", width=256)


def test_a_file_is_tuned_and_its_settings_are_accepted(
    tiny_file: TinyModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The report says what was measured and what clients will see; the file written is one that `up` takes."""
    target = tmp_path / "engine.toml"
    start = tmp_path / "start.toml"
    start.write_text(
        "epoch_seconds = 600\n[limits]\nmax_sequences = 4\n[engine]\nn_batch = 64\nn_ubatch = 64\n"
    )
    options = ("--json", "--allow-inexact", "--write", str(target), "--enclave-config", str(start))
    assert cli.main(["tune", str(tiny_file.path), *QUICK, *options]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["model"] == "mine"
    assert told["start"]["n_batch"] == 64
    stages = {row["stage"] for row in told["rows"]}
    assert {"threads", "batch sizes", "cache types"} <= stages
    assert all(row["answer_tokens_per_s"] > 0 for row in told["rows"])
    inexact = [row for row in told["rows"] if not row["exact"]]
    assert inexact
    assert {(row["settings"]["kv_type_k"], row["settings"]["kv_type_v"]) for row in inexact} == {
        ("f16", "f16")
    }
    overrides = read_overrides(target)
    assert overrides["epoch_seconds"] == 600
    whole = EnclaveConfig(simulation_platform=tmp_path, models=(), overrides=overrides).to_toml(port=1)
    whole = whole.replace("model = []", "") + (
        f'[[model]]\nname = "mine"\npath = "x"\n'
        f'content = "{tiny_file.pin.content}"\nweights = "{tiny_file.pin.weights}"\nn_ctx = 64\n'
    )
    engine = parse_configuration(whole.encode()).engine
    assert {name: getattr(engine, name) for name in told["best"]} == told["best"]
    before, after = told["measurement"]["model_identity"]
    types = ("kv_type_k", "kv_type_v")
    assert (before == after) == all(told["best"][name] == told["start"][name] for name in types)
    assert told["measurement"]["mrenclave"] == "unchanged"


def test_a_model_of_the_catalog_is_tuned_with_other_weights_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other weights are measured and shown, and never chosen."""
    catalog = tiny_catalog(tmp_path)
    assert cli.main(["tune", TINY, "--catalog", str(catalog), "--quantize", "Q4_0", *QUICK]) == 0
    out = capsys.readouterr().out
    assert "weights Q4_0" in out
    assert "MRENCLAVE             unchanged" in out
    assert "reproducible answers  yes" in out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["no-such-model"], "no model called"),
        (["gone.gguf"], "no file gone.gguf"),
        ([TINY, "--compare", "gone.gguf"], "gone.gguf does not exist"),
        ([TINY, "--write", "/no/such/dir/x.toml"], "does not exist"),
        ([TINY, "--quantize", "Q99"], "no quantisation called Q99"),
        ([TINY, "--enclave-config", "gone.toml"], "cannot read"),
    ],
)
def test_what_cannot_be_tuned_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    """In one line, with the status of a wrong command line, and before anything is measured."""
    assert cli.main(["tune", *options, "--catalog", str(tiny_catalog(tmp_path)), *QUICK]) == 2
    assert said in capsys.readouterr().err


def test_a_file_that_is_no_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The measuring process says so, and lives on to say it."""
    (tmp_path / "bad.gguf").write_bytes(b"GGUF, not really")
    assert cli.main(["tune", str(tmp_path / "bad.gguf"), *QUICK]) == 2
    assert "GGUF version" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--streams", "--seconds", "--prompt-tokens", "--answer-tokens"])
@pytest.mark.parametrize("value", ["0", "-1", "x", "1e3", "99999999999"])
def test_numbers_are_positive(option: str, value: str) -> None:
    """The parser refuses them with its own status."""
    with pytest.raises(SystemExit) as raised:
        cli.main(["tune", option, value])
    assert raised.value.code == 2
