# SPDX-License-Identifier: Apache-2.0
"""Rules about the process that starts: its command line, its environment, its configuration."""

from collections.abc import Iterable, Mapping
from typing import Final

from adyton_host.manifest.rule import Rule, must_be_absent
from adyton_host.manifest.view import View

_RUNTIME_DIRECTORY: Final = "/lib"
_ONE: Final = "1"
_POOLS: Final = ("OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
_OPENMP_PREFIXES: Final = ("OMP_", "GOMP_", "KMP_")
_OPENMP_LIBRARIES: Final = ("libgomp", "libiomp", "libomp")
_INJECTING: Final = (
    "LD_PRELOAD",
    "LD_AUDIT",
    "LD_BIND",
    "LD_DEBUG",
    "GCONV_PATH",
    "GLIBC_TUNABLES",
    "PYTHON",
)
_MAPPING_WORDS: Final = ("MMAP", "MLOCK")
_KNOWN: Final = frozenset({"LD_LIBRARY_PATH", "MALLOC_ARENA_MAX", *_POOLS})
_INTERPRETER: Final = "python"


def _arguments(manifest: View) -> Iterable[str]:
    if not manifest.argv:
        yield "loader.argv is not set"
    if manifest.option("loader.argv_src_file") is not None:
        yield "loader.argv_src_file is set"


def _isolated(manifest: View) -> Iterable[str]:
    argv = manifest.argv
    if argv and _INTERPRETER in argv[0].rpartition("/")[2] and "-I" not in _options(argv):
        yield "loader.argv has no -I"


def _options(argv: tuple[str, ...]) -> tuple[str, ...]:
    """What is said to the interpreter, before the program."""
    end = next((at for at, word in enumerate(argv) if word in {"-m", "-c"}), len(argv))
    return argv[1:end]


def _passthrough(manifest: View) -> Iterable[str]:
    for name, value in manifest.table("loader.env").items():
        if isinstance(value, Mapping) and "passthrough" in value:
            yield f"loader.env.{name} comes from the host"


def _unknown_variables(manifest: View) -> Iterable[str]:
    for name in manifest.variables:
        if name not in _KNOWN and not any(rule(name) for rule in (_injects, _openmp_name, _maps)):
            yield f"loader.env.{name}"


def _injects(name: str) -> bool:
    return name.startswith(_INJECTING)


def _openmp_name(name: str) -> bool:
    return name.startswith(_OPENMP_PREFIXES)


def _maps(name: str) -> bool:
    return any(word in name.split("_") for word in _MAPPING_WORDS)


def _injecting(manifest: View) -> Iterable[str]:
    yield from (f"loader.env.{name}" for name in manifest.variables if _injects(name))


def _library_path(manifest: View) -> Iterable[str]:
    path = manifest.variables.get("LD_LIBRARY_PATH")
    if path is None:
        yield "loader.env.LD_LIBRARY_PATH is not set"
    elif path.split(":")[0] != _RUNTIME_DIRECTORY or not all(
        part.startswith("/") for part in path.split(":")
    ):
        yield f"loader.env.LD_LIBRARY_PATH = {path!r}"


def _openmp(manifest: View) -> Iterable[str]:
    yield from (f"loader.env.{name}" for name in manifest.variables if _openmp_name(name))
    for uri, _ in manifest.trusted:
        if uri.rpartition("/")[2].startswith(_OPENMP_LIBRARIES):
            yield uri


def _mapped(manifest: View) -> Iterable[str]:
    yield from (f"loader.env.{name}" for name in manifest.variables if _maps(name))
    yield from (f"loader.argv has {word}" for word in manifest.argv if word in {"--mmap", "--mlock"})


def _arenas(manifest: View) -> Iterable[str]:
    if manifest.variables.get("MALLOC_ARENA_MAX") != _ONE:
        yield 'loader.env.MALLOC_ARENA_MAX is not "1"'


def _pools(manifest: View) -> Iterable[str]:
    yield from (f'loader.env.{name} is not "1"' for name in _POOLS if manifest.variables.get(name) != _ONE)
    if manifest.configuration is not None:
        engine = manifest.configuration.get("engine")
        threads = engine.get("threads", 0) if isinstance(engine, Mapping) else 0
        if type(threads) is not int or threads <= 0:
            yield "enclave.toml: [engine] threads is not a number above zero"


def _simulated(manifest: View) -> Iterable[str]:
    if manifest.configuration is not None and manifest.configuration.get("attester") != "gramine":
        yield "enclave.toml: attester is not gramine"


def _unmeasured(manifest: View) -> Iterable[str]:
    uri = manifest.configuration_uri
    if uri is None:
        yield "fs.start_dir is not set, or nothing is mounted there"
    elif uri not in {entry for entry, _ in manifest.trusted}:
        yield f"{uri} is not a trusted file"


def _changed(manifest: View) -> Iterable[str]:
    if manifest.configuration_changed:
        yield f"{manifest.configuration_uri} has another SHA-256 than the manifest says"


RULES: Final = (
    Rule(
        "arguments-not-fixed",
        "what the program is told has to stand in the manifest, or it is not measured where a reader looks for it",
        _arguments,
    ),
    Rule(
        "python-not-isolated",
        "without -I the interpreter searches its working directory and obeys PYTHON variables",
        _isolated,
    ),
    Rule("environment-passthrough", "the value would come from the host at every start", _passthrough),
    must_be_absent(
        "environment-file",
        ("loader.env_src_file",),
        "variables belong into the manifest, where they can be read and are checked here",
    ),
    Rule(
        "injecting-variable",
        "these variables bring in code, or change how libraries load and allocate",
        _injecting,
    ),
    Rule(
        "unknown-variable",
        "nothing in the enclave asks for it, and libraries obey variables that their users forget",
        _unknown_variables,
    ),
    Rule(
        "library-path",
        "Gramine's C library has to come first, and every directory has to be absolute: with a distribution's "
        "directory earlier, another libpython was loaded without a word",
        _library_path,
    ),
    Rule(
        "openmp",
        "libgomp waits by raw futex instructions, each of which leaves the enclave: build llama.cpp without OpenMP",
        _openmp,
    ),
    Rule(
        "mapped-model",
        "Gramine copies a mapped file whole, without sharing and without checking it, and locking memory does nothing",
        _mapped,
    ),
    Rule(
        "many-arenas", "an arena for each thread wastes enclave memory, which is committed or dear", _arenas
    ),
    Rule(
        "host-sized-pool",
        "a pool without a fixed size gets as many threads as the host claims to have processors, until slots run out",
        _pools,
    ),
    Rule(
        "simulated-attester",
        "a simulated attester vouches for anything; clients of a real enclave refuse it, and tests are its only use",
        _simulated,
    ),
    Rule(
        "configuration-not-measured",
        "the host would write the configuration, and with it which models and limits count",
        _unmeasured,
    ),
    Rule(
        "configuration-changed", "Gramine will refuse to open it; render again, or restore the file", _changed
    ),
)
