# SPDX-License-Identifier: Apache-2.0
"""``adyton-host manifest lint | measure | sign``: what they print, refuse and write."""

import hashlib
import importlib
import json
import sys
from pathlib import Path

import pytest
from manifest_corpus import CORPUS
from tiny_image import TinyImage, make_tiny_image

from adyton_host.cli import main
from adyton_host.manifest.render import plan, write

FAKE_GRAMINE = '''
"""Stands in for Gramine's own tools: the measurement is a digest over manifest and libpal."""
import hashlib, pathlib

class _Sigstruct(dict):
    def sign(self, callback, key):
        self["signature"] = callback(b"to be signed", key)
    def to_bytes(self):
        return self["enclave_hash"] + self["signature"] + self["date"].encode()

class Manifest:
    @classmethod
    def loads(cls, text):
        return cls()
    def check(self):
        return True

def get_tbssigstruct(path, date, libpal):
    data = pathlib.Path(path).read_bytes() + pathlib.Path(libpal).read_bytes()
    return _Sigstruct(enclave_hash=hashlib.sha256(data).digest(), isv_prod_id=1, isv_svn=1, date=str(date))

def sign_with_local_key(data, key):
    return hashlib.sha256(data + pathlib.Path(key).read_bytes()).digest()
'''


@pytest.fixture
def image(tmp_path: Path) -> TinyImage:
    """What images are rendered from; its Gramine has a libpal."""
    made = make_tiny_image(tmp_path / "here")
    (made.root / "gramine" / "sgx").mkdir()
    (made.root / "gramine" / "sgx" / "libpal.so").write_bytes(b"libpal")
    return made


@pytest.fixture
def gramine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Gramine that can be imported."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "graminelibos.py").write_text(FAKE_GRAMINE)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.delitem(sys.modules, "graminelibos", raising=False)


def test_lint_prints_each_refusal_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    """A person reads which rule is broken, why there is one, and by what; the status is 1."""
    assert main(["manifest", "lint", str(CORPUS / "combination-measuring.toml")]) == 1
    said = capsys.readouterr().out
    assert "REFUSED debug-enclave: the host can read and change the memory of a debug enclave" in said
    assert "sgx.debug = true" in said
    assert "6 broken" in said
    assert "waived  allowed-file (pinned-models)" in said


def test_lint_passes_the_secure_manifest(capsys: pytest.CaptureFixture[str]) -> None:
    """Status 0, and the waiver is shown all the same."""
    assert main(["manifest", "lint", str(CORPUS / "production.toml")]) == 0
    assert "none broken" in capsys.readouterr().out


def test_lint_speaks_json(capsys: pytest.CaptureFixture[str]) -> None:
    """A pipeline gets the same facts."""
    assert main(["manifest", "lint", str(CORPUS / "bytecode.toml"), "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert facts["passed"] is False
    assert [each["rule"] for each in facts["refused"]] == ["bytecode"]
    assert facts["refused"][0]["found"] == ["file:root/python/lib/os.cpython-311.pyc"]
    assert facts["waived"][0]["waiver"] == "pinned-models"


def test_lint_lists_its_rules(capsys: pytest.CaptureFixture[str]) -> None:
    """All of them, for people and for programs."""
    assert main(["manifest", "lint", "--rules", "--json"]) == 0
    rules = json.loads(capsys.readouterr().out)
    assert main(["manifest", "lint", "--rules"]) == 0
    said = capsys.readouterr().out
    assert all(rule["rule"] in said and rule["reason"] in said for rule in rules)


def test_lint_of_nothing_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 2: there is no verdict about a manifest that is not there."""
    assert main(["manifest", "lint", str(tmp_path)]) == 2
    assert main(["manifest", "lint", str(tmp_path / "absent.manifest")]) == 2
    assert "cannot read" in capsys.readouterr().err


def test_measuring_the_input_needs_no_gramine(
    image: TinyImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The digest is that of the manifest, and the configuration's is what the enclave will attest."""
    made = plan(image.wanted())
    write(made, tmp_path / "out")
    assert main(["manifest", "measure", str(tmp_path / "out"), "--input-only", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "measurement_input_digest": made.input_digest,
        "configuration_digest": "sha256:" + hashlib.sha256(made.config.encode()).hexdigest(),
    }


def test_without_gramine_the_error_says_how_to_install_it(
    image: TinyImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2, and a way on."""
    if importlib.util.find_spec("graminelibos") is not None:
        pytest.skip("Gramine is installed here")
    write(plan(image.wanted()), tmp_path / "out")
    (tmp_path / "key.pem").write_text("key")
    prefix = str(image.root / "gramine")
    for step in (["measure"], ["sign", "--key", str(tmp_path / "key.pem")]):
        assert main(["manifest", *step, str(tmp_path / "out"), "--gramine", prefix]) == 2
        assert "install the package `gramine`" in capsys.readouterr().err


@pytest.mark.usefixtures("gramine")
def test_what_is_signed_is_what_was_rendered(
    image: TinyImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The signed manifest has the rendered bytes, signing again gives the same, and the measurement is printed."""
    made = plan(image.wanted())
    out = tmp_path / "out"
    write(made, out)
    (tmp_path / "key.pem").write_text("key")
    command = ["manifest", "sign", str(out), "--key", str(tmp_path / "key.pem"), "--json"]
    command += ["--gramine", str(image.root / "gramine")]
    assert main(command) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["mr_enclave"] == hashlib.sha256(made.manifest + b"libpal").hexdigest()
    assert (out / "adyton-enclave.manifest.sgx").read_bytes() == made.manifest
    signature = (out / "adyton-enclave.sig").read_bytes()
    assert main(command) == 0
    assert (out / "adyton-enclave.sig").read_bytes() == signature
    capsys.readouterr()
    assert main(["manifest", "measure", str(out), "--gramine", str(image.root / "gramine"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mr_enclave"] == facts["mr_enclave"]


@pytest.mark.usefixtures("gramine")
def test_what_the_linter_refuses_is_never_signed(
    image: TinyImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor is there a switch for it: the simulated variant gets no signature."""
    out = tmp_path / "out"
    write(plan(image.wanted(simulation_platform=image.root / "platform")), out)
    (tmp_path / "key.pem").write_text("key")
    command = ["manifest", "sign", str(out), "--key", str(tmp_path / "key.pem")]
    assert main([*command, "--gramine", str(image.root / "gramine")]) == 1
    assert "REFUSED simulator" in capsys.readouterr().out
    assert not list(out.glob("*.sig")) + list(out.glob("*.sgx"))
    with pytest.raises(SystemExit):
        main([*command, "--waive", "simulator"])


@pytest.mark.usefixtures("gramine")
@pytest.mark.parametrize("damage", ["changed", "missing", "added"])
def test_an_image_whose_files_differ_is_not_signed(
    damage: str, image: TinyImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that was changed, removed or slipped in after rendering is found before a signature covers it."""
    out = tmp_path / "out"
    write(plan(image.wanted()), out)
    victim = out / "root" / "python" / "lib" / "python3.11" / "os.py"
    victim.unlink()
    if damage == "changed":
        victim.write_text("# changed\n")
    if damage == "added":
        victim.write_bytes(b"# os.py\n")
        (victim.parent / "sitecustomize.py").write_text("# slipped in\n")
    (tmp_path / "key.pem").write_text("key")
    command = ["manifest", "sign", str(out), "--key", str(tmp_path / "key.pem")]
    assert main([*command, "--gramine", str(image.root / "gramine")]) == 2
    said = capsys.readouterr().err
    assert {
        "changed": "os.py was changed",
        "missing": "os.py is missing",
        "added": "sitecustomize.py is not listed",
    }[damage] in said
    assert not list(out.glob("*.sig"))


def test_an_enclave_needs_a_fixed_port(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Any free port would be another measurement at every start."""
    assert main(["manifest", "render", "--output", str(tmp_path / "out"), "--port", "0"]) == 2
    assert "--port" in capsys.readouterr().err
