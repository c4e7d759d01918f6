# SPDX-License-Identifier: Apache-2.0
"""Catalog, enclave configuration and command line: what is accepted, and what is said about the rest."""

import json
import socket
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton_host import cli
from adyton_host.catalog import CatalogModel, choose, load_catalog, with_scorer
from adyton_host.enclave_config import EnclaveConfig, read_overrides
from adyton_host.service import base_url_of, bind
from adyton_protocol.errors import ConfigError

DIGEST = "sha256:" + "9f" * 32
ADAPTER = ('adapter = "judge.toml"', f'adapter_digest = "{DIGEST}"')
WEIGHTS = "sha256:" + "8e" * 32


def entry(name: str, role: str = "generator", *extra: str) -> str:
    """A complete entry of a catalog."""
    lines = [
        "[[model]]", f'name = "{name}"', f'file = "{name}.gguf"', f'content = "{DIGEST}"', f'weights = "{WEIGHTS}"',
        'license = "Apache-2.0"', "n_ctx = 512", f'role = "{role}"', *extra,
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    """Two models that answer and one that does not."""
    path = tmp_path / "catalog.toml"
    path.write_text(
        'version = 1\ndefault = "second"\n'
        + entry("first")
        + entry("second", "generator", "[model.sampling]", "temperature = 0.5")
        + entry("judge", "scorer", *ADAPTER)
    )
    for name in ("first", "second", "judge"):
        (tmp_path / f"{name}.gguf").write_bytes(b"GGUF")
    return path


def test_the_named_model_the_default_or_the_first_is_chosen(catalog: Path) -> None:
    """In this order; paths are relative to the catalog."""
    assert choose(catalog, "first").path == catalog.parent / "first.gguf"
    assert choose(catalog, None).name == "second"
    assert choose(catalog, None).sampling == {"temperature": 0.5}
    catalog.write_text("version = 1\n" + entry("judge", "scorer", *ADAPTER) + entry("first"))
    assert choose(catalog, None).name == "first"


@pytest.mark.parametrize("name", ["absent", "judge"])
def test_an_unknown_model_is_answered_with_the_names_there_are(catalog: Path, name: str) -> None:
    """Also for a model that exists but does not answer."""
    with pytest.raises(ConfigError, match="first, second"):
        choose(catalog, name)


def test_an_embedding_model_is_served_when_it_is_named(catalog: Path) -> None:
    """Never as the first of a catalog; the enclave learns what it may do."""
    text = (
        "version = 1\n"
        + entry("vectors", "embedding", "embeddings = true", "matryoshka = true")
        + entry("first")
    )
    catalog.write_text(text)
    (catalog.parent / "vectors.gguf").write_bytes(b"GGUF")
    assert choose(catalog, None).name == "first"
    chosen = choose(catalog, "vectors")
    config = EnclaveConfig(simulation_platform=Path("/p"), models=(chosen,))
    (model,) = tomllib.loads(config.to_toml(port=1))["model"]
    assert (model["role"], model["embeddings"], model["matryoshka"]) == ("embedding", True, True)
    catalog.write_text("version = 1\n" + entry("wrong", "embedding", 'embeddings = "yes"'))
    with pytest.raises(ConfigError, match="embeddings"):
        load_catalog(catalog)


def test_a_generator_is_started_with_its_scorer(catalog: Path) -> None:
    """The enclave learns of both, and where adapter and head lie; a scorer or a file that is not there is named."""
    head = ('head = "head.gguf"', f'head_digest = "{WEIGHTS}"')
    judged = entry("judged", "generator", 'scorer = "judge"')
    catalog.write_text("version = 1\n" + judged + entry("judge", "scorer", *ADAPTER, *head))
    for name in ("judged.gguf", "judge.toml", "head.gguf"):
        (catalog.parent / name).write_bytes(b"")
    models = with_scorer(catalog, choose(catalog, "judged"))
    text = EnclaveConfig(simulation_platform=Path("/p"), models=models).to_toml(port=1)
    generator, scorer = tomllib.loads(text)["model"]
    assert (generator["role"], generator["scorer"]) == ("generator", "judge")
    assert scorer["role"] == "scorer"
    assert scorer["adapter"] == str(catalog.parent / "judge.toml")
    assert (scorer["adapter_digest"], scorer["head_digest"]) == (DIGEST, WEIGHTS)
    assert with_scorer(catalog, models[1]) == (models[1],)
    (catalog.parent / "head.gguf").unlink()
    with pytest.raises(ConfigError, match=r"head\.gguf"):
        with_scorer(catalog, models[0])
    catalog.write_text("version = 1\n" + judged + entry("judge"))
    with pytest.raises(ConfigError, match="names 'judge' as its scorer"):
        with_scorer(catalog, models[0])


def test_a_missing_model_file_is_named(catalog: Path) -> None:
    """The operator learns which file, and what makes it."""
    (catalog.parent / "first.gguf").unlink()
    with pytest.raises(ConfigError, match=r"first\.gguf"):
        choose(catalog, "first")


@pytest.mark.parametrize(
    "text",
    [
        "not toml [",
        "",
        'surprise = 1\n[[model]]\nname = "x"',
        'default = "absent"\n' + entry("first"),
        entry("first").replace(DIGEST, "sha256:" + "9F" * 32),
        entry("first").replace(WEIGHTS, "8e" * 32),
        entry("first").replace(DIGEST, "sha256:9f"),
        entry("first").replace("512", "0"),
        entry("first").replace("512", '"512"'),
        entry("first").replace('license = "Apache-2.0"\n', ""),
        entry("first", "generator", "surprise = 1"),
        entry("judge", "scorer"),
        entry("judge", "scorer", ADAPTER[0]),
        entry("judge", "scorer", *ADAPTER, 'head = "head.gguf"'),
        entry("first", "generator", "scorer = 1"),
        entry("first", "generator", "[model.sampling]", 'temperature = "hot"'),
        "model = 3",
        "model = [3]",
    ],
)
def test_an_unusable_catalog_is_a_configuration_error(tmp_path: Path, text: str) -> None:
    """No entry is half-read, and unknown keys are errors."""
    path = tmp_path / "catalog.toml"
    path.write_text("version = 1\n" + text)
    with pytest.raises(ConfigError):
        load_catalog(path)
    path.write_text(entry("first"))
    with pytest.raises(ConfigError, match="version"):
        load_catalog(path)


SCALARS = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text()


@given(
    st.dictionaries(st.sampled_from(["privacy", "limits", "engine"]),
                    st.dictionaries(st.from_regex(r"\A[a-z_]+\Z"), SCALARS | st.lists(SCALARS.filter(bool)))),
    st.text(), st.lists(st.text(), min_size=1),
)  # fmt: skip
def test_the_enclave_reads_what_the_host_meant(
    overrides: dict[str, object], text: str, authorities: list[str]
) -> None:
    """Whatever the operator sets, the written TOML parses back to exactly that."""
    model = CatalogModel(
        name=text, path=Path("/m.gguf"), content=DIGEST, weights=WEIGHTS, license=text, n_ctx=512, role="generator",
        sampling={"temperature": 0.5, "top_k": 40},
    )  # fmt: skip
    config = EnclaveConfig(
        simulation_platform=Path("/p"),
        models=(model, model),
        overrides={**overrides, "authorities": authorities},
    )
    document = tomllib.loads(config.to_toml(port=8471))
    assert document == {
        "version": 1, "listen_host": "127.0.0.1", "listen_port": 8471, "attester": "simulated",
        "simulation_platform": "/p", **overrides, "authorities": authorities,
        "model": [{"name": text, "path": "/m.gguf", "content": DIGEST, "weights": WEIGHTS,
                   "role": "generator", "n_ctx": 512,
                   "license": text, "sampling": {"temperature": 0.5, "top_k": 40}}] * 2,
    }  # fmt: skip


def test_overrides_cannot_set_what_is_the_hosts(tmp_path: Path) -> None:
    """Listening address, attester and models are not the override file's business."""
    path = tmp_path / "enclave.toml"
    path.write_text("epoch_seconds = 60\n[limits]\nmax_queue = 1\n")
    assert read_overrides(path) == {"epoch_seconds": 60, "limits": {"max_queue": 1}}
    for text in ('attester = "gramine"', "listen_port = 1", "[[model]]\nx = 1", "not toml ["):
        path.write_text(text)
        with pytest.raises(ConfigError):
            read_overrides(path)


def test_without_simulate_nothing_starts(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Nobody gets a simulated enclave without asking for one; the message says what is missing."""
    assert cli.main(["up", "--state", str(tmp_path / "state")]) == 2
    assert "--simulate" in capsys.readouterr().err
    assert not (tmp_path / "state").exists()


def test_a_bad_model_name_ends_before_anything_starts(
    capsys: pytest.CaptureFixture[str], catalog: Path, tmp_path: Path
) -> None:
    """Exit status 2, the names on stderr, no files."""
    arguments = ["up", "--simulate", "--catalog", str(catalog), "--model", "absent"]
    assert cli.main([*arguments, "--state", str(tmp_path / "state")]) == 2
    assert "first, second" in capsys.readouterr().err
    assert not (tmp_path / "state").exists()


def test_a_taken_port_is_explained() -> None:
    """The relay's address is taken before anything else is started."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError, match="--port"):
        bind("127.0.0.1", taken.getsockname()[1])


def test_the_listener_names_tcp_as_its_protocol() -> None:
    """Otherwise asyncio leaves Nagle's algorithm on, and small chunks wait 40 ms each."""
    with bind("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "http://127.0.0.1:"), ("0.0.0.0", "http://127.0.0.1:")],  # noqa: S104
)
def test_the_base_url_is_one_that_a_client_can_use(host: str, url: str) -> None:
    """Also when the relay listens on every address."""
    with bind(host, 0) as listener:
        assert base_url_of(listener) == f"{url}{listener.getsockname()[1]}"


def test_status_of_nothing_is_an_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """No record, no host."""
    assert cli.main(["status", "--state", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_doctor_gives_a_verdict_on_each_thing(capsys: pytest.CaptureFixture[str], catalog: Path) -> None:
    """Machine-readable findings have a name, a verdict and a detail each; a taken port fails."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        arguments = [
            "doctor",
            "--simulate",
            "--json",
            "--catalog",
            str(catalog),
            "--port",
            str(taken.getsockname()[1]),
        ]
        assert cli.main(arguments) == 1
    findings = {finding["name"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert findings["python"]["verdict"] == "pass"
    assert findings["model"]["verdict"] == "pass"
    assert [name for name, finding in findings.items() if name.startswith("port")] != []
    assert {finding["verdict"] for finding in findings.values()} <= {"pass", "warn", "fail", "skip"}
    assert all(finding["fix"] for finding in findings.values() if finding["verdict"] == "fail")


@pytest.mark.parametrize("command", [[], ["up"], ["status"], ["doctor"]])
def test_help_explains(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    """Every command explains itself and exits with 0."""
    with pytest.raises(SystemExit) as caught:
        cli.main([*command, "--help"])
    assert caught.value.code == 0
    assert "adyton-host" in capsys.readouterr().out


def test_a_split_model_is_found_by_the_name_of_its_first_part(tmp_path: Path) -> None:
    """Every part is named to the enclave; a part that is missing is named to the operator."""
    catalog = tmp_path / "catalog.toml"
    catalog.write_text("version = 1\n" + entry("m-00001-of-00003"))
    paths = [tmp_path / f"m-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    for path in paths[:2]:
        path.write_bytes(b"x")
    with pytest.raises(ConfigError, match="m-00003-of-00003"):
        choose(catalog, None)
    paths[2].write_bytes(b"x")
    chosen = choose(catalog, None)
    assert list(chosen.files) == [path.resolve() for path in paths]
    config = EnclaveConfig(simulation_platform=tmp_path, models=(chosen,)).to_toml(port=1)
    (model,) = tomllib.loads(config)["model"]
    assert model["paths"] == [str(path) for path in chosen.files]
    assert "path" not in model


def test_a_sealed_model_is_handed_on_with_its_terms(tmp_path: Path) -> None:
    """Key id and smallest version go into the measured configuration; a clear model has neither."""
    catalog = tmp_path / "catalog.toml"
    sealed = entry("sealed", "generator", f'key_id = "{"5e" * 32}"', "min_version = 4")
    catalog.write_text("version = 1\n" + sealed + entry("clear"))
    _, models = load_catalog(catalog)
    config = EnclaveConfig(simulation_platform=tmp_path, models=models).to_toml(port=1)
    first, second = tomllib.loads(config)["model"]
    assert first["sealed"] == {"key_id": "5e" * 32, "min_version": 4}
    assert "sealed" not in second


def test_a_missing_file_is_copied_when_it_is_sealed_and_made_or_added_else(tmp_path: Path) -> None:
    """Whoever serves a sealed model cannot make its file."""
    catalog = tmp_path / "catalog.toml"
    sealed = entry("sealed", "generator", f'key_id = "{"5e" * 32}"')
    catalog.write_text("version = 1\n" + sealed + entry("clear"))
    with pytest.raises(ConfigError, match="copy the sealed file there"):
        choose(catalog, "sealed")
    with pytest.raises(ConfigError, match="make models"):
        choose(catalog, "clear")


@pytest.mark.parametrize(
    "line", ['key_id = "5e"', "min_version = 2", f'key_id = "{"5e" * 32}"\nmin_version = -1']
)
def test_an_unclear_sealed_entry_is_refused(catalog: Path, line: str) -> None:
    """A key id has its form, and a version belongs to a sealed file."""
    text = catalog.read_text(encoding="utf-8")
    catalog.write_text(text.replace("license =", f"{line}\nlicense =", 1), encoding="utf-8")
    with pytest.raises(ConfigError):
        load_catalog(catalog)
