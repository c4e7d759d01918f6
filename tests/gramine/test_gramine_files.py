# SPDX-License-Identifier: Apache-2.0
"""What the host does to an enclave's files behind the back of the manifest, and what happens then."""

import json
from pathlib import Path

import pytest
from gramine_image import Image

pytestmark = [pytest.mark.gramine, pytest.mark.slow, pytest.mark.timeout(1200)]

LOOK = """
import errno, json, os, sys
def seen(path):
    try:
        with open(path, 'rb') as file:
            return len(file.read())
    except OSError as error:
        return errno.errorcode[error.errno]
found = {path: seen(path) for path in PATHS}
found['environment'] = sorted(os.environ)
found['arguments'] = sys.argv[1:]
try:
    from adyton_enclave.attester import GramineAttester
    GramineAttester()
except Exception as error:
    found['attester'] = type(error).__name__
try:
    os.fork()
except OSError as error:
    found['fork'] = errno.errorcode[error.errno]
print(json.dumps(found))
"""


@pytest.fixture
def own(image: Image, tmp_path: Path) -> Image:
    """An image of the test's own."""
    return image.copy(tmp_path / "image")


def test_an_enclave_sees_its_listed_files_as_they_were_and_nothing_else(own: Image) -> None:
    """Listed: readable. Not listed: EACCES. Changed: EPERM. Of the host: not there. And the rest is shut as well."""
    listed = "adyton/build/measured-files.txt"
    own.replace("adyton/added.txt", b"not in the manifest")
    own.replace("adyton/build/root.toml", (own.root / "adyton/build/root.toml").read_bytes() + b"\n")
    paths = [f"/{listed}", "/adyton/added.txt", "/adyton/build/root.toml", "/etc/passwd", "/proc/1/environ"]
    own.program(f"PATHS = {paths!r}" + LOOK)
    ran = own.run()
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found[f"/{listed}"] == (own.root / listed).stat().st_size
    assert found["/adyton/added.txt"] == "EACCES"
    assert found["/adyton/build/root.toml"] == "EPERM"
    assert found["/etc/passwd"] == "ENOENT"
    assert found["arguments"] == []
    assert "PATH" not in found["environment"]
    # Without SGX there is nothing that could attest, and with no child process nothing that could be measured twice.
    assert found["attester"] == "NotInEnclave"
    assert found["fork"] in {"EAGAIN", "ENOSYS"}


def test_a_changed_module_does_not_run(own: Image) -> None:
    """One byte more in the enclave's code, and Python cannot read it."""
    (module,) = own.root.rglob("adyton_enclave/gateway.py")
    own.replace(str(module.relative_to(own.root)), module.read_bytes() + b"\n")
    ran = own.run()
    assert ran.returncode != 0
    assert "ready" not in ran.stdout


def test_a_changed_configuration_does_not_start(own: Image) -> None:
    """Another limit, another model, another attester: none that the manifest does not know."""
    config = own.root / "adyton/enclave.toml"
    own.replace("adyton/enclave.toml", config.read_bytes() + b"\n# harmless\n")
    ran = own.run()
    assert ran.returncode == 2
    assert "enclave.toml cannot be read" in ran.stdout


@pytest.mark.parametrize("where", [0.0, 0.5, 0.999])
def test_a_changed_model_is_refused_by_its_digest(own: Image, where: float) -> None:
    """Gramine lets the enclave read model files without a hash; the enclave's own pin holds them."""
    model = next(path for path in (own.directory / "models").iterdir() if path.name.endswith("3m.gguf"))
    content = bytearray(model.read_bytes())
    content[int(len(content) * where)] ^= 1
    model.unlink()
    model.write_bytes(content)
    ran = own.run()
    assert ran.returncode == 2
    assert '"ready"' not in ran.stdout
    assert ran.stdout.splitlines()[-1].startswith("adyton-enclave: ")
