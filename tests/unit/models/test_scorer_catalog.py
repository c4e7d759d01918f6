# SPDX-License-Identifier: Apache-2.0
"""Bringing a scorer: checked by its golden vectors, listed with adapter and head, and named by a generator."""

import json
import shutil
from pathlib import Path

import pytest
from tiny_gguf import make_tiny_gguf
from tiny_scorers import golden_adapter, make_scorer

from adyton_host.catalog import choose, with_scorer
from adyton_host.enclave_config import EnclaveConfig
from adyton_models.catalog import read_catalog
from adyton_models.cli import main
from adyton_models.key_file import read_key_file


def test_a_scorer_is_added_listed_and_started_with_its_generator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The identity that is printed has adapter and head in it; the host hands all of it to the enclave."""
    tiny = make_scorer(tmp_path, "skywork")
    adapter = golden_adapter(tiny, tmp_path / "judge.toml")
    generator = make_tiny_gguf(tmp_path / "gen.gguf")
    catalog = tmp_path / "catalog.toml"
    common = ["--license", "CC0-1.0", "--n-ctx", "256", "--no-trial", "--catalog", str(catalog), "--json"]
    judge = ["add", str(tiny.path), "--name", "judge", "--adapter", str(adapter), "--head", str(tiny.head)]
    assert main([*judge, *common]) == 0
    added = json.loads(capsys.readouterr().out)
    assert read_catalog(catalog).default is None
    assert main(["add", str(generator.path), "--name", "gen", "--scorer", "judge", *common]) == 0
    capsys.readouterr()
    assert main(["list", "--catalog", str(catalog), "--json"]) == 0
    listed = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert listed["judge"]["role"] == "scorer"
    assert listed["judge"]["identity"] == added["identity"]
    assert listed["gen"]["scorer"] == "judge"
    assert main(["identity", "judge", "--catalog", str(catalog), "--parts"]) == 0
    shown = capsys.readouterr().out
    entry = read_catalog(catalog).entry("judge")
    assert all(part in shown for part in (added["identity"], entry.adapter_digest, entry.head_digest))
    models = with_scorer(catalog, choose(catalog, None))
    assert [model.name for model in models] == ["gen", "judge"]
    text = EnclaveConfig(simulation_platform=tmp_path, models=models).to_toml(port=1)
    assert f'adapter_digest = "{entry.adapter_digest}"' in text
    # Another byte in the adapter, another identity.
    adapter.write_text(adapter.read_text() + "# measured again\n")
    assert main([*judge, *common]) == 0
    assert json.loads(capsys.readouterr().out)["identity"] != added["identity"]


def test_the_identity_of_a_scorer_is_one_sealed_or_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Adapter and head are in it, for the key as well; other ones beside the model are noticed."""
    tiny = make_scorer(tmp_path, "skywork")
    adapter = golden_adapter(tiny, tmp_path / "judge.toml")
    options = ["--catalog", str(tmp_path / "catalog.toml")]
    judge = ["add", str(tiny.path), "--name", "judge", "--adapter", str(adapter), "--head", str(tiny.head)]
    assert main([*judge, "--license", "CC0-1.0", "--n-ctx", "256", "--no-trial", *options, "--json"]) == 0
    added = json.loads(capsys.readouterr().out)
    key, out = tmp_path / "k.key", tmp_path / "judge.sealed"
    sealing = ["seal", "judge", "--key-out", str(key), "--out", str(out), "--register", "judge"]
    assert main([*sealing, *options]) == 0
    (use,) = read_key_file(key).models
    capsys.readouterr()
    assert main(["identity", "judge", *options, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["identity"] == use.identity == added["identity"]
    assert found["scorer"]["adapter"]
    assert found["scorer"]["head"]
    assert tiny.head is not None
    for beside in (adapter, tiny.head):
        content = beside.read_bytes()
        beside.write_bytes(content + b" ")
        assert main(["identity", "judge", *options]) == 1
        assert "differs from the catalog" in capsys.readouterr().out
        beside.unlink()
        assert main(["identity", "judge", *options]) == 1
        assert "missing" in capsys.readouterr().out
        beside.write_bytes(content)


def test_a_scorer_that_is_not_checked_or_fails_is_not_added(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without golden vectors, with a wrong read position, or with roles that contradict one another."""
    tiny = make_scorer(tmp_path, "rlhflow")
    catalog = tmp_path / "catalog.toml"
    plain = tmp_path / "plain.toml"
    shutil.copy(tiny.adapter, plain)
    add = ["add", str(tiny.path), "--name", "judge", "--license", "CC0-1.0", "--n-ctx", "256"]
    options = ["--catalog", str(catalog)]
    assert main([*add, "--adapter", str(plain), *options]) == 1
    assert "has no golden vectors" in capsys.readouterr().out
    golden = golden_adapter(tiny, tmp_path / "golden.toml")
    golden.write_text(golden.read_text().replace("offset = -1", "offset = -2"))
    assert main([*add, "--adapter", str(golden), *options]) == 1
    assert "golden vector 1, step 1" in capsys.readouterr().out
    assert not catalog.exists()
    for wrong in (
        ["--head", str(plain)],
        ["--adapter", str(golden), "--default"],
        ["--adapter", str(golden), "--embeddings"],
        ["--scorer", "nobody"],
    ):
        assert main([*add, *wrong, *options]) == 2
