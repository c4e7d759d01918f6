# SPDX-License-Identifier: Apache-2.0
"""What every appliance needs, simulated or not: Python, packages, a model, a port."""

import importlib.util
import os
import shutil
import socket
import sys
from pathlib import Path
from typing import Final

from adyton_host.catalog import CatalogModel, choose, default_catalog, with_scorer
from adyton_host.doctor.finding import Finding, failed, passed, skipped
from adyton_protocol.errors import ConfigError

_OLDEST_PYTHON: Final = (3, 11)
_FIRST_UNTRIED_PYTHON: Final = (3, 14)
_PACKAGES: Final = ("adyton_enclave", "adyton_attestation", "llama_cpp", "uvicorn", "fastapi")
_COMPILERS: Final = (("cc", "gcc", "clang"), ("c++", "g++", "clang++"))
_MEBIBYTE: Final = 1024 * 1024


def examine_software() -> tuple[Finding, ...]:
    """Interpreter, packages, compilers, processors."""
    return (examine_python(), *(_package(name) for name in _PACKAGES), _compilers(), _processors())


def examine_python() -> Finding:
    """Whether this interpreter is one that the appliance is tried with."""
    version = ".".join(map(str, sys.version_info[:3]))
    if _OLDEST_PYTHON <= sys.version_info[:2] < _FIRST_UNTRIED_PYTHON:
        return passed("python", version)
    return failed(
        "python",
        f"{version}; versions 3.11 to 3.13 are supported",
        "sudo apt install python3.12 python3.12-venv",
    )


def _package(name: str) -> Finding:
    if importlib.util.find_spec(name) is not None:
        return passed(f"package {name}", "installed")
    return failed(f"package {name}", "not installed", "make setup (in a checkout)")


def _compilers() -> Finding:
    found = [next((name for name in names if shutil.which(name)), None) for names in _COMPILERS]
    if all(found):
        return passed("toolchain", " and ".join(filter(None, found)))
    if importlib.util.find_spec("llama_cpp"):
        return skipped("toolchain", "no C and C++ compiler, and llama-cpp-python is built already")
    return failed(
        "toolchain",
        "no C and C++ compiler to build llama-cpp-python with",
        "sudo apt install build-essential",
    )


def _processors() -> Finding:
    count = len(os.sched_getaffinity(0))
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return passed("processors and memory", f"{count}, {memory_bytes // _MEBIBYTE} MiB")


def examine_model(path: Path | None) -> tuple[Finding, tuple[CatalogModel, ...]]:
    """The model that would be served without further words, and the one that judges it."""
    try:
        catalog = path if path is not None else default_catalog()
        model, *others = models = with_scorer(catalog, choose(catalog, None))
    except ConfigError as error:
        return failed("model", str(error), "make models, or adyton-models add FILE.gguf"), ()
    detail = f"{model.name}: {model.path}"
    if model.key_id is not None:
        detail += f" (sealed: `up` waits until its key {model.key_id[:16]}... is released)"
    detail += "".join(f", judged by {other.name}: {other.path}" for other in others)
    return passed("model", detail), models


def examine_port(host: str, port: int) -> Finding:
    """Whether the relay could listen there."""
    name = f"port {port}"
    try:
        with socket.create_server((host, port)):
            return passed(name, f"free on {host}")
    except OSError as error:
        return failed(
            name,
            f"{os.strerror(error.errno or 0)} on {host}",
            f"choose another --port, or see who has it: ss -ltnp 'sport = :{port}'",
        )
