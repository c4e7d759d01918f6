# SPDX-License-Identifier: Apache-2.0
"""The image that this checkout renders: its size, its completeness, and whether Gramine accepts it."""

import ast
import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from adyton_host.manifest.libraries import C_LIBRARY, SYSTEM_DIRECTORIES
from adyton_host.manifest.lint import lint
from adyton_host.supervisor import free_port

pytestmark = pytest.mark.slow

MAX_MEASURED_FILES = 1500
MAX_MEASURED_BYTES = 200 << 20
START_S = 120
CHROOT = """
import os, sys
root, program, *arguments = sys.argv[1:]
os.chroot(root)
os.chdir("/adyton")
os.execve(program, [program, *arguments], {"LD_LIBRARY_PATH": "/lib:/python/lib", "OPENBLAS_NUM_THREADS": "1"})
"""


@pytest.fixture(scope="module")
def gramine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in for Gramine's files: the C library of this machine, and a library OS that nobody starts."""
    directory = tmp_path_factory.mktemp("gramine")
    (directory / "runtime" / "glibc").mkdir(parents=True)
    (directory / "libsysdb.so").write_bytes(b"a library OS")
    for name in C_LIBRARY:
        found = next((place / name for place in SYSTEM_DIRECTORIES if (place / name).is_file()), None)
        if found is not None:
            shutil.copyfile(found, directory / "runtime" / "glibc" / name)
    return directory


def render(output: Path, gramine: Path, *more: str) -> dict[str, object]:
    """Run the command as an operator does."""
    command = [sys.executable, "-I", "-m", "adyton_host", "manifest", "render", "--json", "--threads", "1"]
    command += ["--output", str(output), "--gramine", str(gramine), *more]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    facts: dict[str, object] = json.loads(done.stdout)
    return facts


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, gramine: Path) -> tuple[Path, dict[str, object]]:
    """The production image of this checkout."""
    output = tmp_path_factory.mktemp("image") / "out"
    return output, render(output, gramine)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory, gramine: Path) -> Path:
    """Its variant for tests."""
    directory = tmp_path_factory.mktemp("simulated")
    options = ["--simulated", "--simulation-dir", str(directory / "platform"), "--port", str(free_port())]
    render(directory / "out", gramine, *options)
    return directory / "out"


def test_the_image_is_small_and_passes_the_linter(image: tuple[Path, dict[str, object]]) -> None:
    """A purpose-built file tree: about a thousand files, and no rule is broken."""
    directory, facts = image
    assert int(str(facts["measured_files"])) < MAX_MEASURED_FILES
    assert int(str(facts["measured_bytes"])) < MAX_MEASURED_BYTES
    manifest = directory / "adyton-enclave.manifest"
    assert lint(manifest.read_bytes(), name="m", directory=directory).refused == ()


def top_level_imports(path: Path) -> Iterator[str]:
    """Modules that a file imports when it is imported, outside of ``try`` and ``if``."""
    for node in ast.parse(path.read_bytes()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


def test_what_a_module_of_the_image_imports_is_in_the_image(image: tuple[Path, dict[str, object]]) -> None:
    """Nothing that is left out is asked for by the enclave, the protocol, or what these import."""
    directory, _ = image
    (home,) = (directory / "root" / "python" / "lib").glob("python3.*")
    places = (home, home / "site-packages", home / "lib-dynload")

    def find(name: str) -> Path | None:
        relative = Path(*name.split("."))
        for place in places:
            for candidate in (place / relative / "__init__.py", (place / relative).with_suffix(".py")):
                if candidate.is_file():
                    return candidate
            if list((place / relative.parent).glob(f"{relative.name}.*so")):
                return place / relative
        return None

    waiting = ["adyton_enclave.__main__", "adyton_enclave.server", "encodings.idna", "asyncio", "ssl"]
    seen: set[str] = set()
    missing: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen or name.split(".")[0] in sys.builtin_module_names:
            continue
        seen.add(name)
        path = find(name)
        if path is None:
            # A name of an `import a.b` may be an attribute of a package, or frozen into the interpreter.
            if find(name.rpartition(".")[0]) is None and name not in {"_frozen_importlib", "_imp"}:
                missing.add(name)
        elif path.suffix == ".py":
            waiting += top_level_imports(path)
    assert missing == set()
    assert len(seen) > 200


def test_the_image_starts_without_anything_of_this_machine(simulated: Path, tmp_path: Path) -> None:
    """Locked into its own file tree, the enclave loads its models and attests: nothing is missing."""
    jail = tmp_path / "jail"
    shutil.copytree(simulated / "root", jail)
    shutil.copytree(simulated / "models", jail / "models", symlinks=False)
    (jail / "dev").mkdir()
    (jail / "dev" / "null").touch()  # Gramine has one of its own.
    (jail / "lib64").mkdir()
    shutil.copyfile(jail / "lib" / "ld-linux-x86-64.so.2", jail / "lib64" / "ld-linux-x86-64.so.2")
    (jail / "lib64" / "ld-linux-x86-64.so.2").chmod(0o555)
    (jail / "python" / "bin" / "python3").chmod(0o555)
    manifest = tomllib.loads((simulated / "adyton-enclave-simulated.manifest").read_text())
    argv = manifest["loader"]["argv"]
    command = [sys.executable, "-I", "-c", CHROOT, str(jail), *argv]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if "PermissionError" in line:
                pytest.skip("this user may not change its root directory")
            if '"ready"' in line:
                break
    finally:
        process.terminate()
        process.communicate(timeout=START_S)
    assert any('"ready"' in line for line in said), "".join(said)


def test_gramine_accepts_what_is_rendered(image: tuple[Path, dict[str, object]], simulated: Path) -> None:
    """Gramine's own schema, where Gramine is installed."""
    schema = pytest.importorskip(
        "graminelibos.manifest_check",
        reason="Gramine is not installed here (graminelibos cannot be imported)",
    ).GramineManifestSchema
    for path in (image[0] / "adyton-enclave.manifest", simulated / "adyton-enclave-simulated.manifest"):
        schema(tomllib.loads(path.read_text()))
