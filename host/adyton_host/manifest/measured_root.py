# SPDX-License-Identifier: Apache-2.0
"""Collects the files that an enclave consists of, each under its path in the enclave's own file tree.

::

    lib/                        Gramine's C library, as far as it is needed
    gramine/libsysdb.so         Gramine's library operating system
    python/bin/python3          the interpreter
    python/lib/                 shared libraries that ELF files ask for
    python/lib/pythonX.Y/       its library, and in site-packages the packages, the enclave and the protocol
    adyton/enclave.toml         the configuration
    adyton/build/               the lists and versions that all this was made from

Nothing else is in the tree: every file is listed in the manifest with its digest, and a directory of the host is never
mounted as it is.
"""

import base64
import fnmatch
import hashlib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from adyton_host.manifest.gramine import GramineFiles
from adyton_host.manifest.interpreter import Distribution, Interpreter
from adyton_protocol.errors import ConfigError

PROGRAM: Final = "python/bin/python3"
LIBRARIES: Final = "python/lib"
RUNTIME: Final = "lib"
LIBOS: Final = "gramine/libsysdb.so"
CONFIG: Final = "adyton/enclave.toml"
BUILD: Final = "adyton/build"

REQUIREMENTS: Final = "requirements-enclave.txt"
MEASURED_FILES: Final = "measured-files.txt"
_BUILD_FILES: Final = (MEASURED_FILES, REQUIREMENTS, "llama-build.toml", "root.toml")
_RULES: Final = "root.toml"
_RULES_VERSION: Final = 1
_PACKAGES: Final = {"adyton_enclave": "enclave", "adyton_protocol": "protocol"}
_TAKEN: Final = ("*.py", "*.so", "*.so.*", "*.dist-info/METADATA")
"""Sources, libraries, and the name and version, which some packages ask for."""
_NEVER: Final = ("*/tests/*", "*/test/*", "../*", "/*")
_REQUIREMENT: Final = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)", re.MULTILINE)

Source = Path | bytes
"""A file that is copied, or its content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RootRules:
    """What ``root.toml`` says.

    Attributes:
        stdlib: Patterns of what is left out of Python's library.
        distributions: The same for packages, by name.
        also: Names of shared libraries that are loaded by name.
    """

    stdlib: tuple[str, ...]
    distributions: Mapping[str, tuple[str, ...]]
    also: tuple[str, ...]


def read_rules(manifests: Path) -> RootRules:
    """Read ``root.toml``.

    Raises:
        ConfigError: It is missing, or not what it should be.
    """
    path = manifests / _RULES
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        rules = RootRules(
            stdlib=tuple(document["stdlib"]["leave_out"]),
            distributions={name: tuple(each["leave_out"]) for name, each in document["distribution"].items()},
            also=tuple(document["libraries"]["also"]),
        )
        version = document["version"]
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is not what it should be: {error}") from error
    if version != _RULES_VERSION:
        raise ConfigError(f"{path} has version {version}; this program knows {_RULES_VERSION}")
    return rules


def requirements(manifests: Path) -> dict[str, str]:
    """Pinned versions of the packages that an enclave imports, by name.

    Raises:
        ConfigError: The list is missing or empty.
    """
    path = manifests / REQUIREMENTS
    try:
        pins = dict(_REQUIREMENT.findall(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if not pins:
        raise ConfigError(f"{path} pins no version")
    return pins


def own_modules(manifests: Path, *, extra: Iterable[str] = ()) -> Iterator[tuple[str, Path]]:
    """The modules of ``measured-files.txt`` and ``extra``, by package-relative path.

    Raises:
        ConfigError: The list is missing, or names a file that is not there.
    """
    path = manifests / MEASURED_FILES
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    for name in (*(line for line in lines if line and not line.startswith("#")), *extra):
        domain = _PACKAGES.get(name.split("/", 1)[0])
        source = manifests.parent / (domain or "") / name
        if domain is None or ".." in name or not source.is_file():
            raise ConfigError(
                f"{path} lists {name}, which is not there; `make measured-files` writes the list"
            )
        yield name, source


def collect(
    manifests: Path,
    interpreter: Interpreter,
    gramine: GramineFiles | None,
    config: bytes,
    *,
    extra_modules: Iterable[str] = (),
) -> dict[str, Source]:
    """All files of the tree by their path in it, shared libraries excepted.

    Raises:
        ConfigError: A file is missing, a package has another version than the pinned one, or a file of a package is not
            the one that was installed.
    """
    rules = read_rules(manifests)
    pins = requirements(manifests)
    home = f"{interpreter.platlibdir}/python{interpreter.version}"
    packages = f"python/{home}/site-packages"
    files: dict[str, Source] = {PROGRAM: interpreter.program, CONFIG: config}
    files |= {f"{BUILD}/{name}": manifests / name for name in _BUILD_FILES}
    files |= {f"python/{home}/{name}": path for name, path in _stdlib(interpreter.stdlib, rules.stdlib)}
    for name, version in pins.items():
        distribution = interpreter.distributions[name]
        if distribution.version != version:
            raise ConfigError(
                f"{name} {distribution.version} is installed and {version} is pinned; "
                f"install what is pinned: pip install --require-hashes -r {manifests / REQUIREMENTS}"
            )
        taken = _distribution(name, distribution, rules.distributions.get(name, ()))
        files |= {f"{packages}/{each}": path for each, path in taken}
    files |= {f"{packages}/{name}": path for name, path in own_modules(manifests, extra=extra_modules)}
    if gramine is not None:
        files[LIBOS] = gramine.libos
    return files


def _stdlib(directory: Path, leave_out: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    if not (directory / "os.py").is_file():
        raise ConfigError(f"{directory} does not hold Python's library")
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.suffix in {".py", ".so"} and not _matches(name, leave_out) and path.is_file():
            yield name, path


def _distribution(
    name: str, distribution: Distribution, leave_out: tuple[str, ...]
) -> Iterator[tuple[str, Path]]:
    for file in distribution.files:
        if not _matches(file.name, _TAKEN) or _matches(file.name, (*_NEVER, *leave_out)):
            continue
        try:
            digest = hashlib.sha256(file.path.read_bytes()).digest()
        except OSError as error:
            raise ConfigError(f"{name}: cannot read {file.path}: {error.strerror}") from error
        recorded = base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
        # SECURITY: pip checked the hashes of what it unpacked; a file that changed since then is not that package.
        if file.sha256 is not None and recorded != file.sha256:
            raise ConfigError(f"{name}: {file.path} is not what was installed; install the package again")
        yield PurePosixPath(file.name).as_posix(), file.path


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
