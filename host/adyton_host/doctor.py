# SPDX-License-Identifier: Apache-2.0
"""Looks at a machine before an appliance is started on it, and says what is missing in plain language."""

import importlib.util
import os
import shutil
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from adyton_host.catalog import choose, default_catalog, with_scorer
from adyton_protocol.errors import ConfigError

Verdict = Literal["pass", "fail", "skip"]

_OLDEST_PYTHON: Final = (3, 11)
_FIRST_UNTRIED_PYTHON: Final = (3, 14)
_SGX_DEVICE: Final = Path("/dev/sgx_enclave")
_PACKAGES: Final = ("adyton_enclave", "adyton_attestation", "llama_cpp", "uvicorn", "fastapi")
_COMPILERS: Final = (("cc", "gcc", "clang"), ("c++", "g++", "clang++"))
_MEBIBYTE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One look at one thing.

    Attributes:
        name: What was looked at.
        verdict: ``skip`` means "not needed for simulation, needed for real hardware".
        detail: What was found, and what to do about it.
    """

    name: str
    verdict: Verdict
    detail: str


def examine(*, host: str, port: int, catalog: Path | None) -> tuple[Finding, ...]:
    """Look at everything; reads, never changes, anything."""
    return (
        _python(),
        *(_package(name) for name in _PACKAGES),
        _compilers(),
        _processors(),
        _catalog(catalog),
        _port(host, port),
        _sgx_device(),
        _gramine(),
    )


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    supported = _OLDEST_PYTHON <= sys.version_info[:2] < _FIRST_UNTRIED_PYTHON
    return Finding(
        name="python",
        verdict="pass" if supported else "fail",
        detail=version if supported else f"{version}; versions 3.11 to 3.13 are supported",
    )


def _package(name: str) -> Finding:
    if importlib.util.find_spec(name) is not None:
        return Finding(name=f"package {name}", verdict="pass", detail="installed")
    return Finding(
        name=f"package {name}", verdict="fail", detail="not installed; `make setup` in a checkout installs it"
    )


def _compilers() -> Finding:
    found = [next((name for name in names if shutil.which(name)), None) for names in _COMPILERS]
    if all(found):
        return Finding(name="toolchain", verdict="pass", detail=" and ".join(filter(None, found)))
    return Finding(
        name="toolchain",
        verdict="skip" if importlib.util.find_spec("llama_cpp") else "fail",
        detail="no C and C++ compiler to build llama-cpp-python with (Debian: apt install build-essential)",
    )


def _processors() -> Finding:
    count = len(os.sched_getaffinity(0))
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Finding(
        name="processors and memory", verdict="pass", detail=f"{count}, {memory_bytes // _MEBIBYTE} MiB"
    )


def _catalog(path: Path | None) -> Finding:
    try:
        catalog = path if path is not None else default_catalog()
        model, *others = with_scorer(catalog, choose(catalog, None))
    except ConfigError as error:
        return Finding(name="model", verdict="fail", detail=str(error))
    detail = f"{model.name}: {model.path}"
    if model.key_id is not None:
        detail += f" (sealed: `up` waits until its key {model.key_id[:16]}... is released)"
    detail += "".join(f", judged by {other.name}: {other.path}" for other in others)
    return Finding(name="model", verdict="pass", detail=detail)


def _port(host: str, port: int) -> Finding:
    name = f"port {port}"
    try:
        with socket.create_server((host, port)):
            return Finding(name=name, verdict="pass", detail=f"free on {host}")
    except OSError as error:
        return Finding(
            name=name, verdict="fail", detail=f"{error.strerror} on {host}; choose another with --port"
        )


def _sgx_device() -> Finding:
    name = "SGX device"
    if not _SGX_DEVICE.exists():
        return Finding(
            name=name,
            verdict="skip",
            detail=f"no {_SGX_DEVICE}: this machine can only run simulated enclaves",
        )
    if not os.access(_SGX_DEVICE, os.R_OK | os.W_OK):
        return Finding(
            name=name, verdict="fail", detail=f"{_SGX_DEVICE} is there, but this user may not open it"
        )
    return Finding(name=name, verdict="pass", detail=str(_SGX_DEVICE))


def _gramine() -> Finding:
    found = shutil.which("gramine-sgx")
    if found is None:
        return Finding(
            name="Gramine",
            verdict="skip",
            detail="no gramine-sgx: needed for real enclaves, not for simulation",
        )
    return Finding(name="Gramine", verdict="pass", detail=found)
