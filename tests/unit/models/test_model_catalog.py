# SPDX-License-Identifier: Apache-2.0
"""The catalog file and the commands that keep it."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_gguf import make_tiny_gguf

from adyton_models.catalog import (
    Catalog,
    Entry,
    Sampling,
    read_catalog,
    render_catalog,
    sha256_of,
    with_entry,
    write_catalog,
)
from adyton_models.cli import main
from adyton_models.model_files import pin_of
from adyton_protocol.errors import ConfigError
from adyton_protocol.model_identity import ModelPin

DIGEST = "sha256:" + "ab" * 32
WHOLE = (
    "version = 1\n[[model]]\nname='a'\nfile='f'\nsha256='0'\ncontent='c'\nweights='w'\n"
    "license='MIT'\nn_ctx=1\n"
)


def entry(name: str, file: str, **more) -> Entry:
    """An entry of a model."""
    return Entry(
        name=name,
        file=file,
        sha256="0" * 64,
        content=DIGEST,
        weights=DIGEST,
        license="MIT",
        n_ctx=512,
        **more,
    )


ENTRY = entry("a", "a.gguf", sampling=Sampling(top_k=1))


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_what_is_written_is_read_back(description: str) -> None:
    """Any description survives the TOML."""
    added = entry("a", "a.gguf", description=description)
    catalog = with_entry(Catalog(default=None, models=(ENTRY,)), added, make_default=True)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "catalog.toml"
        path.write_bytes(render_catalog(catalog).encode())
        assert read_catalog(path) == catalog


def test_an_entry_replaces_its_namesake() -> None:
    """Adding a name again changes its entry in place and keeps the default."""
    other = Entry(
        name="b", file="b.gguf", sha256="1" * 64, content=DIGEST, weights=DIGEST, license="MIT", n_ctx=512
    )
    catalog = with_entry(
        with_entry(Catalog(default=None, models=()), ENTRY, make_default=False), other, make_default=False
    )
    newer = Entry(
        name="a", file="c.gguf", sha256="2" * 64, content=DIGEST, weights=DIGEST, license="MIT", n_ctx=512
    )
    changed = with_entry(catalog, newer, make_default=False)
    assert [each.file for each in changed.models] == ["c.gguf", "b.gguf"]
    assert changed.default == "a"
    assert changed.entry(None) == newer
    with pytest.raises(ConfigError, match="it has: a, b"):
        changed.entry("ghost")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "version = 2",
        "version = 1\nunknown = 1",
        "version = 1\n[[model]]\nname = 'a'",
        WHOLE + "bogus=1",
        WHOLE + "[model.sampling]\nbogus=1",
        "= nonsense",
    ],
)
def test_unusable_catalogs_are_refused(tmp_path: Path, text: str) -> None:
    """Unknown versions, unknown keys, missing keys and broken TOML are configuration errors."""
    path = tmp_path / "catalog.toml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        read_catalog(path)


def test_add_then_list_notices_a_changed_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`add` records the digest of the file; `list` fails once the file is another."""
    model, catalog = make_tiny_gguf(tmp_path / "m.gguf").path, tmp_path / "catalog.toml"
    arguments = ["add", str(model), "--name", "m", "--license", "MIT", "--catalog", str(catalog)]
    assert main([*arguments, "--no-trial"]) == 0
    listed = read_catalog(catalog).entry("m")
    assert listed.sha256 == sha256_of(model)
    assert ModelPin(content=listed.content, weights=listed.weights) == pin_of(model)
    assert main(["list", "--catalog", str(catalog)]) == 0
    make_tiny_gguf(model, seed=1)
    capsys.readouterr()
    assert main(["list", "--json", "--catalog", str(catalog)]) == 1
    assert json.loads(capsys.readouterr().out)[0]["state"] == "SHA-256 differs"


def test_a_scorer_is_listed_with_whom_it_judges_and_missed_by_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A generator without the scorer that it names is not served, so whoever removes it has to know."""
    path = tmp_path / "catalog.toml"
    models = (
        entry("a", "a.gguf", scorer="judge"),
        entry("judge", "b.gguf", role="scorer", adapter="j.toml", adapter_digest=DIGEST),
    )
    write_catalog(Catalog(default="a", models=models), path)
    assert main(["list", "--catalog", str(path)]) == 1
    listed = capsys.readouterr().out
    assert "  judged by judge\n" in listed
    assert "  scorer\n" in listed
    assert main(["remove", "judge", "--catalog", str(path)]) == 0
    assert "a names it as its scorer and cannot be served so" in capsys.readouterr().out


def test_add_refuses_what_is_no_gguf(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong file is refused with a sentence and status 2, and no catalog is written."""
    model, catalog = tmp_path / "m.bin", tmp_path / "catalog.toml"
    model.write_bytes(b"PK")
    assert main(["add", str(model), "--name", "m", "--license", "MIT", "--catalog", str(catalog)]) == 2
    assert "not a GGUF" in capsys.readouterr().err
    assert not catalog.exists()


def test_a_catalog_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """The old one stays."""
    with pytest.raises(ConfigError, match="cannot write"):
        write_catalog(Catalog(default=None, models=()), tmp_path / "missing" / "catalog.toml")


def test_problems_prints_what_check_accepts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A printed problem and its solution pass `check`; a wrong answer makes it exit with 1."""
    assert main(["problems", "--n", "1", "--jsonl", "--seed", "5"]) == 0
    made = json.loads(capsys.readouterr().out)
    problem, solution = tmp_path / "p", tmp_path / "s"
    problem.write_text(made["problem"])
    solution.write_text(made["solution"])
    assert main(["check", "--problem", f"@{problem}", "--solution", f"@{solution}"]) == 0
    assert "final answer: right" in capsys.readouterr().out
    assert main(["check", "--problem", made["problem"], "--solution", "The answer is: 777"]) == 1
    assert main(["check", "--problem", "Why?", "--solution", "x"]) == 2


@pytest.mark.parametrize(
    "command", ["problems", "check", "list", "add", "remove", "identity", "eval", "train", "export"]
)
def test_every_command_teaches_by_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` of every command shows at least one whole command line."""
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    assert f"adyton-models {command} " in capsys.readouterr().out.split("examples:")[1]
