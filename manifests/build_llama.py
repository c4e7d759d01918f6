# SPDX-License-Identifier: Apache-2.0
"""Build the llama-cpp-python wheel with the project's flags, once per machine, and print its path.

Reads ``llama-build.toml`` beside it. The wheel is cached outside the repository, keyed by version, flags,
Python ABI and CPU features (the kernels are compiled for the CPU they run on), so that a second checkout or
a second virtual environment costs nothing. Standard library only: it runs before anything is installed.

Usage: ``python manifests/build_llama.py [--cache DIR] [--print-key]``
"""

import argparse
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Final

SPECIFICATION: Final = Path(__file__).with_name("llama-build.toml")
_STEP = re.compile(rb"\[(\d+)/(\d+)\]")
_BAR_WIDTH: Final = 32


def default_cache() -> Path:
    """Return the directory of cached wheels, honouring ``XDG_CACHE_HOME``."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "adyton" / "wheels"


def cpu_features() -> str:
    """Return what the compiler's ``-march=native`` depends on: the CPU's feature flags."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(("flags", "Features")):
                return " ".join(sorted(line.split(":", 1)[1].split()))
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cache_key(specification: bytes) -> str:
    """Return the key under which the wheel is cached: 16 hex digits over everything that shapes it."""
    facts = (
        specification,
        sysconfig.get_platform().encode(),
        (sys.implementation.cache_tag or sys.version).encode(),
        cpu_features().encode(),
    )
    digest = hashlib.sha256()
    for fact in facts:
        digest.update(len(fact).to_bytes(8, "big") + fact)
    return digest.hexdigest()[:16]


def _show(done: int, total: int, started_s: float) -> None:
    elapsed_s = int(time.monotonic() - started_s)
    clock = f"{elapsed_s // 60}:{elapsed_s % 60:02d}"
    if sys.stderr.isatty():
        filled = _BAR_WIDTH * done // max(total, 1)
        bar = "#" * filled + "." * (_BAR_WIDTH - filled)
        print(f"\r  compiling llama.cpp [{bar}] {done}/{total}  {clock} ", end="", file=sys.stderr)
    elif done == total or done % 20 == 0:
        print(f"  compiling llama.cpp {done}/{total}  {clock}", file=sys.stderr, flush=True)


def build(specification: dict[str, dict[str, str]], destination: Path) -> Path:
    """Compile the wheel into ``destination``, showing progress on standard error.

    Raises:
        SystemExit: The build failed; the log's end and the path of the whole log have been printed.
    """
    package, version = specification["source"]["package"], specification["source"]["version"]
    environment = dict(os.environ)
    flags = specification["cmake"].items()
    environment["CMAKE_ARGS"] = " ".join(f"-D{name}={value}" for name, value in flags)
    environment.setdefault("CMAKE_BUILD_PARALLEL_LEVEL", str(os.cpu_count() or 1))
    log_path = destination / "build.log"
    command = [
        sys.executable, "-m", "pip", "wheel", "--verbose", "--no-deps", "--no-binary", package,
        f"{package}=={version}", "--wheel-dir", str(destination),
    ]  # fmt: skip
    started_s = time.monotonic()
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)
        if process.stdout is None:
            raise SystemExit("pip gave no output to follow")
        shown = -1
        for line in process.stdout:
            log.write(line)
            step = _STEP.search(line)
            if step and int(step[1]) != shown:
                shown = int(step[1])
                _show(shown, int(step[2]), started_s)
        if sys.stderr.isatty():
            print(file=sys.stderr)
        status = process.wait()
    if status != 0:
        kept = Path(tempfile.gettempdir()) / "adyton-llama-build.log"
        shutil.copy(log_path, kept)
        tail = b"\n".join(kept.read_bytes().splitlines()[-15:]).decode(errors="replace")
        raise SystemExit(
            f"{tail}\n\nllama-cpp-python did not compile. The whole log is in {kept}.\n"
            "It needs a C and C++ compiler and the Python headers "
            "(Debian: apt-get install build-essential python3-dev)."
        )
    wheels = sorted(destination.glob("*.whl"))
    if not wheels:
        raise SystemExit("pip reported success but left no wheel")
    return wheels[0]


def main() -> int:
    """Print the path of a wheel built with the project's flags, building it first where needed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--cache", type=Path, default=default_cache(), help="directory of cached wheels")
    parser.add_argument("--print-key", action="store_true", help="print the cache key and stop")
    arguments = parser.parse_args()
    raw = SPECIFICATION.read_bytes()
    key = cache_key(raw)
    if arguments.print_key:
        print(key)
        return 0
    slot: Path = arguments.cache / key
    cached = sorted(slot.glob("*.whl"))
    if cached:
        print(cached[0])
        return 0
    print(
        "  llama-cpp-python has no binary wheels with these flags; compiling it takes 1 to 20 minutes, once.",
        file=sys.stderr,
    )
    with tempfile.TemporaryDirectory(prefix="adyton-llama-") as scratch:
        wheel = build(tomllib.loads(raw.decode()), Path(scratch))
        slot.mkdir(parents=True, exist_ok=True)
        # A rename is atomic only within one file system, so copy beside the destination first.
        partial = slot / f"{wheel.name}.{os.getpid()}.part"
        shutil.copy(wheel, partial)
        final = slot / wheel.name
        partial.replace(final)
    print(final)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
