# SPDX-License-Identifier: Apache-2.0
"""Finds an installed Gramine, and measures and signs with its own tools.

``graminelibos`` comes with Gramine and is not on PyPI, so it is imported when it is needed and never before. Linting,
rendering and comparing manifests do without.
"""

import datetime as dt
import importlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from adyton_protocol.errors import ConfigError

VERSION: Final = "1.9"
"""Of the manifest syntax that the template, the linter and the measurement speak."""

HOW_TO_INSTALL: Final = f"""\
Gramine {VERSION} is not installed for this Python: the module graminelibos cannot be imported.
  Debian 12, Ubuntu 22.04 and 24.04: add Gramine's package repository and install the package `gramine`, as
  https://gramine.readthedocs.io/en/stable/installation.html says, then use the system's Python (apt puts the module
  there): make setup PYTHON=/usr/bin/python3, or a virtual environment made with --system-site-packages.
  From source (meson setup -Ddirect=enabled -Dsgx=enabled), as
  https://gramine.readthedocs.io/en/stable/devel/building.html says; then put its site-packages directory on the path.
Without it, `adyton-host manifest render`, `lint` and `measure --input-only` work."""

_LIBOS: Final = "libsysdb.so"
_PLACES: Final = ("", "gramine", "lib/x86_64-linux-gnu/gramine", "lib64/gramine", "lib/gramine")
_PREFIXES: Final = (Path("/usr"), Path("/usr/local"))


@dataclass(frozen=True, slots=True)
class GramineFiles:
    """What a manifest takes from an installed Gramine.

    Attributes:
        directory: Its private library directory, such as ``/usr/lib/x86_64-linux-gnu/gramine``.
    """

    directory: Path

    @property
    def libos(self) -> Path:
        """The library operating system, which Gramine loads first."""
        return self.directory / _LIBOS

    @property
    def c_library(self) -> Path:
        """Directory of the C library whose system calls go to it."""
        return self.directory / "runtime" / "glibc"

    @property
    def libpal(self) -> Path:
        """What runs first in the enclave; it is part of the measurement, not of the manifest."""
        return self.directory / "sgx" / "libpal.so"


def find(prefix: Path | None = None) -> GramineFiles | None:
    """The Gramine below ``prefix``, or without one that of the PATH or of the system; None where there is none.

    Raises:
        ConfigError: There is none below the prefix that was named.
    """
    if prefix is not None:
        found = _below(prefix)
        if found is None:
            raise ConfigError(f"no Gramine below {prefix}: no {_LIBOS} in any of {', '.join(_PLACES[1:])}")
        return found
    program = shutil.which("gramine-direct") or shutil.which("gramine-sgx")
    own = () if program is None else (Path(program).resolve().parent.parent,)
    return next((found for place in (*own, *_PREFIXES) if (found := _below(place)) is not None), None)


def _below(prefix: Path) -> GramineFiles | None:
    candidates = (GramineFiles((prefix / place).absolute()) for place in _PLACES)
    return next((each for each in candidates if each.libos.is_file() and each.c_library.is_dir()), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What Gramine's own code makes of a manifest.

    Attributes:
        mr_enclave: 32 bytes.
        isv_prod_id: Product number.
        isv_svn: Security version number.
        sigstruct: To be signed, an object of graminelibos.
    """

    mr_enclave: bytes
    isv_prod_id: int
    isv_svn: int
    sigstruct: Any


def measure(manifest: Path, libpal: Path, date: dt.date) -> Measured:
    """Compute MRENCLAVE of a fully rendered manifest, over its very bytes.

    Args:
        manifest: The file that Gramine will load as ``.manifest.sgx``.
        libpal: Of the Gramine that will run it.
        date: For the DATE field of the signature structure; it is not measured.

    Raises:
        ConfigError: Gramine is not installed, or built without SGX, or refuses the manifest.
    """
    libos = _import()
    try:
        libos.Manifest.loads(manifest.read_text(encoding="utf-8")).check()
        sigstruct = libos.get_tbssigstruct(str(manifest), date, str(libpal))
    except AttributeError as error:
        raise ConfigError("this Gramine was built without SGX; build it with -Dsgx=enabled") from error
    except Exception as error:
        raise ConfigError(f"Gramine refuses {manifest}: {error}") from error
    return Measured(
        mr_enclave=bytes(sigstruct["enclave_hash"]),
        isv_prod_id=int(sigstruct["isv_prod_id"]),
        isv_svn=int(sigstruct["isv_svn"]),
        sigstruct=sigstruct,
    )


def sign(measured: Measured, key: Path) -> bytes:
    """The SIGSTRUCT, signed with an RSA-3072 key (exponent 3) in PEM.

    Raises:
        ConfigError: The key cannot be used.
    """
    libos = _import()
    try:
        measured.sigstruct.sign(libos.sign_with_local_key, str(key))
        signed: bytes = measured.sigstruct.to_bytes()
    except Exception as error:
        raise ConfigError(
            f"cannot sign with {key}: {error}; `gramine-sgx-gen-private-key {key}` makes a key of the right kind"
        ) from error
    return signed


def _import() -> Any:
    try:
        return importlib.import_module("graminelibos")
    except (ImportError, RuntimeError) as error:  # RuntimeError: a checkout that was never installed
        raise ConfigError(HOW_TO_INSTALL) from error
