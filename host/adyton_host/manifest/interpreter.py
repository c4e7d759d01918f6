# SPDX-License-Identifier: Apache-2.0
"""Asks a Python interpreter where its own files and those of its packages lie, and how llama.cpp was compiled.

The interpreter that is measured need not be the one that runs this program; it is asked in a process of its own, so
that nothing of the enclave is imported here.
"""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from adyton_protocol.errors import ConfigError

_TIMEOUT_S: Final = 120.0
_WHERE: Final = """
import importlib.metadata, json, os, sys, sysconfig

def described(name):
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    files = [[str(f), str(f.locate()), f.hash.value if f.hash and f.hash.mode == "sha256" else None]
             for f in found.files or []]
    return {"version": found.version, "files": files}

print(json.dumps({
    "version": "%d.%d" % sys.version_info[:2],
    "program": os.path.realpath(getattr(sys, "_base_executable", sys.executable)),
    "stdlib": sysconfig.get_path("platstdlib", vars={"platbase": sys.base_exec_prefix}),
    "libraries": sysconfig.get_config_var("LIBDIR") or "",
    "platlibdir": sys.platlibdir,
    "distributions": {name: described(name) for name in sys.argv[1:]},
}))
"""
_CPU: Final = "import llama_cpp; print(llama_cpp.llama_print_system_info().decode())"


@dataclass(frozen=True, slots=True)
class InstalledFile:
    """One file of a distribution: its name in the wheel, where it lies, and its recorded SHA-256 (base64url)."""

    name: str
    path: Path
    sha256: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """An installed distribution package."""

    version: str
    files: tuple[InstalledFile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """Where an interpreter keeps its files.

    Attributes:
        version: Such as ``3.11``.
        program: The executable itself, not a link to it.
        stdlib: Directory of the standard library.
        library_dir: Where its own shared library would be.
        platlibdir: ``lib`` or ``lib64``: the directory below a prefix that it looks for its library in.
        distributions: Installed packages by name.
        cpu: Instruction sets that llama.cpp was compiled for, such as ``AVX512``.
    """

    version: str
    program: Path
    stdlib: Path
    library_dir: Path
    platlibdir: str
    distributions: Mapping[str, Distribution]
    cpu: frozenset[str]


def ask(python: Path, distributions: Sequence[str]) -> Interpreter:
    """Ask ``python`` about itself and the named distributions.

    Raises:
        ConfigError: It cannot be run, or lacks one of them.
    """
    facts: dict[str, Any] = json.loads(_run(python, _WHERE, distributions))
    missing = sorted(name for name, found in facts["distributions"].items() if found is None)
    if missing:
        raise ConfigError(
            f"{python} lacks {', '.join(missing)}; install what an enclave needs: "
            "pip install --require-hashes -r manifests/requirements-enclave.txt"
        )
    return Interpreter(
        version=facts["version"],
        program=Path(facts["program"]),
        stdlib=Path(facts["stdlib"]),
        library_dir=Path(facts["libraries"]),
        platlibdir=facts["platlibdir"],
        distributions={
            name: Distribution(
                version=found["version"],
                files=tuple(InstalledFile(name, Path(path), digest) for name, path, digest in found["files"]),
            )
            for name, found in facts["distributions"].items()
        },
        cpu=read_cpu(_run(python, _CPU, ())),
    )


def read_cpu(system_info: str) -> frozenset[str]:
    """The instruction sets in the text of ``llama_print_system_info``: ``CPU : AVX = 1 | AVX512 = 1 | ...``."""
    pairs = (part.rpartition(":")[2].partition("=") for part in system_info.split("|"))
    return frozenset(name.strip() for name, _, value in pairs if value.strip() == "1")


def _run(python: Path, program: str, arguments: Sequence[str]) -> str:
    try:
        done = subprocess.run(  # noqa: S603 -- the interpreter that the operator named; no shell
            [str(python), "-I", "-c", program, *arguments],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{python} cannot be run as a Python interpreter") from error
    if done.returncode != 0:
        raise ConfigError(f"{python} could not be asked about itself:\n{done.stderr.strip()}")
    return done.stdout
