# SPDX-License-Identifier: Apache-2.0
"""``seal`` and ``release-key`` from the outside: what they write, what they refuse, where a key may go."""

import json
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from raw_gguf import EditableModel, split_files
from sealed_files import write_all
from tiny_gguf import make_tiny_gguf

from adyton_enclave.weights.model_file import ModelFile
from adyton_enclave.weights.stream import CookieStream
from adyton_enclave.weights.terms import SealedTerms
from adyton_host.catalog import choose
from adyton_host.enclave_config import EnclaveConfig
from adyton_models.catalog import default_catalog, identity_of, read_catalog, with_entry, write_catalog
from adyton_models.cli import main
from adyton_models.commands.arguments import up_command
from adyton_models.key_file import KeyFile, SealedUse, read_key_file, write_key_file
from adyton_models.key_release import Destination, ForOneModel, release_key
from adyton_models.model_files import read_files
from adyton_protocol.digests import Digest
from adyton_protocol.errors import AppraisalError, ConfigError, ModelFileError, TransportError
from adyton_protocol.model_identity import ModelPin
from adyton_protocol.sealed_model import KEY_BYTES, ModelKey, parse_sealed_header

KEY = b"\x5b" * KEY_BYTES


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    """A catalog with a whole model and a split one."""
    path = tmp_path / "catalog.toml"
    model = make_tiny_gguf(tmp_path / "tiny.gguf")
    names = list(EditableModel.parse(model.path.read_bytes()).tensors)
    write_all(
        tmp_path, split_files(EditableModel.parse(model.path.read_bytes()), [names[:2], names[2:]]), "part"
    )
    entry = (
        f'content = "{model.pin.content}"\nweights = "{model.pin.weights}"\nlicense = "CC0-1.0"\nn_ctx = 256\n'
        'sha256 = ""\n[model.sampling]\n'
    )
    path.write_text(
        f'version = 1\n[[model]]\nname = "tiny"\nfile = "tiny.gguf"\n{entry}'
        f'[[model]]\nname = "split"\nfile = "part-00001-of-00002.gguf"\n{entry}'
    )
    return path


def seal(catalog: Path, name: str, *words: str) -> int:
    """Run the command."""
    return main(["seal", name, "--catalog", str(catalog), *words])


@pytest.mark.parametrize("name", ["tiny", "split"])
def test_what_is_sealed_loads_as_the_catalog_then_says(
    catalog: Path, tmp_path: Path, name: str, capsys: Any
) -> None:
    """One command: key and file are written, the entry points to them, and the enclave can load it."""
    key, out = tmp_path / "k.key", tmp_path / "m.sealed"
    assert seal(catalog, name, "--key-out", str(key), "--out", str(out), "--register", name, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    served = choose(catalog, name)
    assert served.files == (out.resolve(),)
    assert served.key_id == printed["key_id"] == read_key_file(key).key.key_id.hex()
    assert served.min_version == 1
    config = EnclaveConfig(simulation_platform=tmp_path, models=(served,)).to_toml(port=1)
    assert f'key_id = "{served.key_id}"' in config
    pin = ModelPin(content=Digest(served.content), weights=Digest(served.weights))
    terms = SealedTerms(key_id=bytes.fromhex(served.key_id or ""), min_version=1)
    with ModelFile.open([str(out)], pin, key=read_key_file(key).key, terms=terms) as file:
        with CookieStream(file):
            assert file.content.digest == printed["content"]
        file.finish()
    assert len(parse_sealed_header(out.read_bytes()).member_bytes) == (2 if name == "split" else 1)
    (use,) = read_key_file(key).models
    assert (use.name, use.identity, use.model_version) == (name, printed["identity"], 1)


@pytest.mark.parametrize("name", ["tiny", "split"])
def test_the_identity_of_a_sealed_model_is_known_without_its_key(
    catalog: Path, tmp_path: Path, name: str, capsys: Any
) -> None:
    """The catalog says what is inside; `identity` and `list` name what the key was made for, and the same parts."""
    options = ["--catalog", str(catalog), "--json"]
    main(["identity", name, *options])
    (clear,) = json.loads(capsys.readouterr().out)
    key, out = tmp_path / "k.key", tmp_path / "m.sealed"
    assert seal(catalog, name, "--key-out", str(key), "--out", str(out), "--register", "closed") == 0
    (use,) = read_key_file(key).models
    key.unlink()
    capsys.readouterr()
    assert main(["identity", "closed", *options]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["sealed"]
    assert found["identity"] == use.identity == clear["identity"]
    assert found["parts"].items() <= clear["parts"].items()
    assert main(["identity", "closed", "--parts", "--catalog", str(catalog)]) == 0
    assert use.identity in capsys.readouterr().out
    main(["identity", "closed", "--n-ctx", "128", *options])
    assert json.loads(capsys.readouterr().out)[0]["identity"] != use.identity
    main(["list", *options])
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["closed"] | {"state": "ok", "sealed": True, "identity": use.identity} == rows["closed"]
    assert not rows[name]["sealed"]


def test_a_sealed_file_that_the_enclave_would_refuse_is_noticed(
    catalog: Path, tmp_path: Path, capsys: Any
) -> None:
    """Another version, another model, a file cut short, no sealed file at all: exit status 1."""
    key, out, old = tmp_path / "k.key", tmp_path / "m.sealed", tmp_path / "old.sealed"
    assert seal(catalog, "tiny", "--key-out", str(key), "--out", str(old)) == 0
    words = ("--key", str(key), "--out", str(out), "--model-version", "2", "--register", "closed")
    assert seal(catalog, "tiny", *words) == 0
    capsys.readouterr()
    good = out.read_bytes()
    for bad in (old.read_bytes(), good[:-1], good[:50], (tmp_path / "tiny.gguf").read_bytes()):
        out.write_bytes(bad)
        assert main(["identity", "closed", "--catalog", str(catalog)]) == 1
        assert "differs from the catalog" in capsys.readouterr().out
    assert main(["list", "--catalog", str(catalog)]) == 1
    assert "SHA-256 differs, sealed" in capsys.readouterr().out
    out.unlink()
    assert main(["identity", "closed", "--catalog", str(catalog)]) == 1
    assert "missing" in capsys.readouterr().out


def test_a_sealed_file_by_itself_is_refused_with_what_to_do(
    catalog: Path, tmp_path: Path, capsys: Any
) -> None:
    """Whatever wants to read what is inside says that it cannot, and not that the file is malformed."""
    key, out = tmp_path / "k.key", tmp_path / "m.sealed"
    assert seal(catalog, "tiny", "--key-out", str(key), "--out", str(out)) == 0
    assert main(["identity", str(out), "--catalog", str(catalog)]) == 2
    refusal = capsys.readouterr().err
    assert "it is sealed" in refusal
    assert "--register" in refusal
    with pytest.raises(ModelFileError) as caught:
        read_files(out)
    assert caught.value.check == "sealed-model"


def test_a_key_file_is_its_owners_alone(catalog: Path, tmp_path: Path) -> None:
    """Mode 0600 from the start; one that others can read is not used."""
    key = tmp_path / "k.key"
    assert seal(catalog, "tiny", "--key-out", str(key), "--out", str(tmp_path / "m.sealed")) == 0
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    key.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_key_file(key)


def test_nothing_is_overwritten(catalog: Path, tmp_path: Path, capsys: Any) -> None:
    """Neither a key nor a sealed file; and nothing is left half-written."""
    key, out = tmp_path / "k.key", tmp_path / "m.sealed"
    words = ("--key-out", str(key), "--out", str(out))
    assert seal(catalog, "tiny", *words) == 0
    before = key.read_bytes(), out.read_bytes(), sorted(tmp_path.iterdir())
    assert seal(catalog, "tiny", *words) == 2
    assert seal(catalog, "tiny", "--key", str(key), "--out", str(out)) == 2
    assert "exists" in capsys.readouterr().err
    assert (key.read_bytes(), out.read_bytes(), sorted(tmp_path.iterdir())) == before


def test_one_key_seals_several_versions(catalog: Path, tmp_path: Path) -> None:
    """The file remembers each; two sealings of the same model have nothing in common."""
    key, first, second = tmp_path / "k.key", tmp_path / "1.sealed", tmp_path / "2.sealed"
    assert seal(catalog, "tiny", "--key-out", str(key), "--out", str(first)) == 0
    assert seal(catalog, "tiny", "--key", str(key), "--out", str(second), "--model-version", "2") == 0
    file = read_key_file(key)
    assert [use.model_version for use in file.models] == [1, 2]
    newest = file.used_for("tiny")
    assert newest is not None
    assert newest.model_version == 2
    assert file.used_for("other") is None
    headers = [parse_sealed_header(path.read_bytes()) for path in (first, second)]
    assert headers[0].key_id == headers[1].key_id
    assert headers[0].file_id != headers[1].file_id
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_a_file_that_is_not_what_the_catalog_says_is_not_sealed(
    catalog: Path, tmp_path: Path, capsys: Any
) -> None:
    """Nothing is written, not even a key."""
    make_tiny_gguf(tmp_path / "tiny.gguf", seed=5)
    key, out = tmp_path / "k.key", tmp_path / "m.sealed"
    assert seal(catalog, "tiny", "--key-out", str(key), "--out", str(out)) == 2
    assert "not what the catalog says" in capsys.readouterr().err
    assert not key.exists()
    assert not out.exists()


def test_a_sealed_model_is_not_sealed_again(catalog: Path, tmp_path: Path) -> None:
    """Its clear file is what can be sealed."""
    key, out = tmp_path / "k.key", tmp_path / "m.sealed"
    assert seal(catalog, "tiny", "--key-out", str(key), "--out", str(out), "--register", "tiny") == 0
    assert read_catalog(catalog).entry("tiny").key_id
    assert seal(catalog, "tiny", "--key", str(key), "--out", str(tmp_path / "n.sealed")) == 2


def test_a_sealed_scorer_keeps_its_identity(catalog: Path, tmp_path: Path, capsys: Any) -> None:
    """The key is for the identity that `list` shows and the keyset will name, adapter included."""
    old = read_catalog(catalog).entry("tiny")
    scorer = replace(old, role="scorer", adapter="a.toml", adapter_digest=f"sha256:{'a5' * 32}")
    write_catalog(with_entry(read_catalog(catalog), scorer, make_default=False), catalog)
    key = tmp_path / "k.key"
    words = ("--key-out", str(key), "--out", str(tmp_path / "m.sealed"), "--register", "tiny")
    assert seal(catalog, "tiny", *words) == 0
    assert "--model GENERATOR" in capsys.readouterr().out
    (use,) = read_key_file(key).models
    assert use.identity == identity_of(
        scorer.content, scorer.n_ctx, scorer.sampling, scorer=scorer.scorer_parts
    )
    assert use.identity != identity_of(scorer.content, scorer.n_ctx, scorer.sampling)


def test_the_same_weights_in_the_clear_are_named(catalog: Path, tmp_path: Path, capsys: Any) -> None:
    """A scorer that is the generator's own file would give away what was sealed."""
    key = tmp_path / "k.key"
    words = ("--key-out", str(key), "--out", str(tmp_path / "m.sealed"), "--register", "tiny")
    assert seal(catalog, "tiny", *words) == 0
    assert "note: split lists the same weights in the clear" in capsys.readouterr().out
    again = ("--key", str(key), "--out", str(tmp_path / "n.sealed"), "--register", "split", "--json")
    assert seal(catalog, "split", *again) == 0
    assert json.loads(capsys.readouterr().out)["in_the_clear"] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--out", "tiny.gguf"), "exists; name another file"),
        (("--out", "nowhere/m.sealed"), "there is no directory"),
        (("--out", "m.sealed", "--register", "Not A Name"), "lower-case letters"),
    ],
)
def test_what_cannot_be_finished_leaves_no_key_behind(
    catalog: Path, tmp_path: Path, monkeypatch: Any, capsys: Any, words: tuple[str, ...], said: str
) -> None:
    """A key without its sealed file would be in the way of the next try."""
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert seal(catalog, "tiny", "--key-out", "k.key", *words) == 2
    assert said in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_a_version_does_not_go_back_by_oversight(catalog: Path, tmp_path: Path, capsys: Any) -> None:
    """Forgotten, --model-version would be 1 again, and the catalog would admit what it had shut out."""
    key = tmp_path / "k.key"
    first = ("--key-out", str(key), "--out", str(tmp_path / "1.sealed"), "--model-version", "3")
    assert seal(catalog, "tiny", *first) == 0
    again = ("--key", str(key), "--out", str(tmp_path / "2.sealed"))
    assert seal(catalog, "tiny", *again, "--register", "tiny") == 2
    assert "--model-version 4" in capsys.readouterr().err
    assert seal(catalog, "tiny", *again) == 0


def test_the_next_commands_name_the_catalog_that_was_changed(
    catalog: Path, tmp_path: Path, capsys: Any
) -> None:
    """They can be pasted, wherever the catalog lies."""
    words = ("--key-out", str(tmp_path / "k.key"), "--out", str(tmp_path / "m.sealed"), "--register", "tiny")
    assert seal(catalog, "tiny", *words) == 0
    assert f"adyton-host up --simulate --model tiny --catalog {catalog}\n" in capsys.readouterr().out
    assert up_command(default_catalog(), None) == "adyton-host up --simulate"


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[1]", b'{"version": 2}', b'{"version": 1, "key": "5b5b", "models": []}']
)
def test_what_is_no_key_file_is_refused_without_repeating_it(tmp_path: Path, content: bytes) -> None:
    """SECURITY: no message and no cause quotes what stands in a key file."""
    path = tmp_path / "k.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        read_key_file(path)
    assert "5b5b" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_damaged_key_is_noticed(tmp_path: Path) -> None:
    """One wrong digit would otherwise look like a wrong file."""
    path = tmp_path / "k.key"
    write_key_file(path, KeyFile(key=ModelKey(KEY)), new=True)
    text = path.read_text()
    path.write_text(text.replace("5b5b", "5b5c", 1))
    with pytest.raises(ConfigError, match="damaged"):
        read_key_file(path)


# --- Release ----------------------------------------------------------------------------------------------


class Appraiser:
    """Accepts everything, and says that the keyset names these models."""

    def __init__(self, **models: str) -> None:
        self.models = models

    def appraise(self, *_: Any, **__: Any) -> Any:
        """A verdict with a keyset."""
        models = [type("Model", (), {"name": n, "identity": i})() for n, i in self.models.items()]
        extension = type("Extension", (), {"models": models})()
        return type("Verdict", (), {"keyset": type("Keyset", (), {"extension": extension})()})()


def test_an_enclave_with_another_model_is_not_accepted() -> None:
    """Whatever the policy says: the keyset has to name this model with this identity."""
    wanted, other = Digest("sha256:" + "11" * 32), Digest("sha256:" + "22" * 32)

    def appraise(**models: str) -> Any:
        return ForOneModel(Appraiser(**models), "mine", wanted).appraise(
            None,
            None,
            challenge="",
            now_s=0,  # type: ignore[arg-type]
        )

    assert appraise(mine=wanted, other=other)
    for models in ({"mine": other}, {"other": wanted}, {}):
        with pytest.raises(AppraisalError) as caught:
            appraise(**models)
        assert caught.value.check == "released-model"


def test_no_host_no_release_and_nothing_is_sent(tmp_path: Path) -> None:
    """The first thing that goes out is a challenge; the key does not, whatever fails."""
    sent: list[httpx.Request] = []

    def refuse(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        raise httpx.ConnectError("nobody is there")

    from adyton_attestation.policy import AppraisalPolicy  # noqa: PLC0415

    policy = AppraisalPolicy.from_toml(
        (Path(__file__).parents[3] / "manifests" / "policies" / "production.toml").read_bytes()
    )
    destination = Destination(
        url="http://127.0.0.1:1", model="mine", identity=Digest("sha256:" + "11" * 32), policy=policy
    )
    with pytest.raises(TransportError):
        release_key(ModelKey(KEY), destination, outer=httpx.MockTransport(refuse))
    assert [request.method for request in sent] == ["GET"]


def test_a_key_for_another_model_asks_for_the_identity(tmp_path: Path, capsys: Any) -> None:
    """The tool does not guess for which model a key is; it says what to do."""
    path = tmp_path / "k.key"
    digest = Digest("sha256:" + "11" * 32)
    use = SealedUse(name="mine", content=digest, identity=digest, model_version=1)
    write_key_file(path, KeyFile(key=ModelKey(KEY)).with_use(use), new=True)
    assert main(["release-key", "other", "--key", str(path), "--policy", "p.json"]) == 2
    assert "--identity" in capsys.readouterr().err
    assert main(["release-key", "mine", "--key", str(path)]) == 2
    capsys.readouterr()
    (tmp_path / "p.json").write_text("no policy")
    assert main(["release-key", "mine", "--key", str(path), "--policy", str(tmp_path / "p.json")]) == 2
    assert str(tmp_path / "p.json") in capsys.readouterr().err
    assert main(["release-key", "mine", "--key", str(path), "--identity", "x", "--policy", "p.json"]) == 2
