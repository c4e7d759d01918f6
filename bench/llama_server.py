# SPDX-License-Identifier: Apache-2.0
"""Build llama-server from the llama.cpp source inside the pinned llama-cpp-python, with the wheel's flags.

The peer of ``engine.py`` must run the very same kernels. So its source is the source distribution that the wheel
is built from, checked against the digest in ``requirements-enclave.txt``, and its flags are those in
``llama-build.toml`` with the server switched on and its web page and TLS left out. The program is cached outside
the repository, keyed like the wheel.

Usage: ``python bench/llama_server.py``; prints the program's path.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
MANIFESTS: Final = ROOT / "manifests"
SERVER_FLAGS: Final = {
    "BUILD_SHARED_LIBS": "ON",
    # What scikit-build, which builds the wheel, asks for.
    "CMAKE_BUILD_TYPE": "Release",
    "LLAMA_BUILD_APP": "OFF",
    "LLAMA_BUILD_COMMON": "ON",
    "LLAMA_BUILD_SERVER": "ON",
    "LLAMA_BUILD_TOOLS": "ON",
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",
    "LLAMA_OPENSSL": "OFF",
}
_STEP: Final = re.compile(rb"\[(\d+)/(\d+)\]")
_PERCENT: Final = re.compile(rb"\[ *(\d+)%\]")
_BAR_WIDTH: Final = 32


def default_cache() -> Path:
    """Where programs are kept, honouring ``XDG_CACHE_HOME``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adyton" / "llama-server"


def _pinned_digest(package: str, version: str) -> str:
    """SHA-256 of the source distribution, from the hashed requirements of the enclave."""
    text = (MANIFESTS / "requirements-enclave.txt").read_text(encoding="utf-8")
    found = re.search(
        rf"^{re.escape(package)}=={re.escape(version)} \\\n\s+--hash=sha256:([0-9a-f]{{64}})$",
        text,
        re.MULTILINE,
    )
    if found is None:
        raise SystemExit(f"requirements-enclave.txt pins no single file of {package} {version}")
    return found[1]


def _cpu_and_flags_key(specification: bytes) -> str:
    """16 hex digits over what shapes the program: the wheel's key, and the flags added here."""
    sys.path.insert(0, str(MANIFESTS))
    from build_llama import cache_key  # noqa: PLC0415 - found through the path above

    extra = repr(sorted(SERVER_FLAGS.items())).encode()
    return cache_key(specification + extra)


def _fetch(package: str, version: str, digest: str, directory: Path) -> Path:
    """Download the source distribution with pip, and check it."""
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
         "--no-binary", package, f"{package}=={version}", "--dest", str(directory)],
        check=True, stdout=sys.stderr,
    )  # fmt: skip
    archives = sorted(directory.glob("*.tar.gz"))
    if len(archives) != 1:
        raise SystemExit("pip downloaded no source distribution")
    with archives[0].open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != digest:
        raise SystemExit(f"{archives[0].name} has SHA-256 {found}, but {digest} is pinned")
    return archives[0]


def _show(line: bytes, started_s: float) -> None:
    step = _STEP.search(line)
    percent = _PERCENT.search(line)
    if step:
        share = int(step[1]) / int(step[2])
    elif percent:
        share = int(percent[1]) / 100
    else:
        return
    elapsed_s = int(time.monotonic() - started_s)
    filled = int(_BAR_WIDTH * share)
    bar = "#" * filled + "." * (_BAR_WIDTH - filled)
    print(
        f"\r  compiling llama-server [{bar}] {share:4.0%}  {elapsed_s // 60}:{elapsed_s % 60:02d} ",
        end="", file=sys.stderr, flush=True,
    )  # fmt: skip


def _run(command: list[str], log_path: Path, *, show: bool) -> None:
    started_s = time.monotonic()
    with (
        log_path.open("ab") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process,
    ):
        if process.stdout is None:
            raise SystemExit("the build gave no output to follow")
        for line in process.stdout:
            log.write(line)
            if show:
                _show(line, started_s)
    if show:
        print(file=sys.stderr)
    if process.returncode != 0:
        kept = Path(tempfile.gettempdir()) / "adyton-llama-server-build.log"
        shutil.copy(log_path, kept)
        tail = b"\n".join(kept.read_bytes().splitlines()[-15:]).decode(errors="replace")
        raise SystemExit(f"{tail}\n\nllama-server did not compile. The whole log is in {kept}.")


def build(specification: dict[str, dict[str, str]], scratch: Path) -> Path:
    """Compile into ``scratch``; return the directory that holds the program and its libraries.

    Raises:
        SystemExit: Download, digest or compilation failed; the message says which.
    """
    package, version = specification["source"]["package"], specification["source"]["version"]
    archive = _fetch(package, version, _pinned_digest(package, version), scratch)
    with tarfile.open(archive) as tar:
        tar.extractall(scratch, filter="data")
    source = next(scratch.glob("*/vendor/llama.cpp"))
    flags = {**specification["cmake"], **SERVER_FLAGS}
    tree = scratch / "build"
    log_path = scratch / "build.log"
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    options = [f"-D{name}={value}" for name, value in flags.items()]
    _run(["cmake", "-S", str(source), "-B", str(tree), *generator, *options], log_path, show=False)
    jobs = str(os.cpu_count() or 1)
    _run(["cmake", "--build", str(tree), "--target", "llama-server", "--parallel", jobs], log_path, show=True)
    return tree / "bin"


def llama_server(cache: Path | None = None) -> Path:
    """Return the path of llama-server, building it first where needed."""
    raw = (MANIFESTS / "llama-build.toml").read_bytes()
    slot = (cache or default_cache()) / _cpu_and_flags_key(raw)
    program = slot / "llama-server"
    if program.exists():
        return program
    print("  llama-server is built from source, once; this takes 2 to 20 minutes.", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="adyton-llama-server-") as scratch:
        binaries = build(tomllib.loads(raw.decode()), Path(scratch))
        install(binaries, slot)
    return program


def install(binaries: Path, slot: Path) -> None:
    """Copy program and libraries to ``slot``, the program last, so that its presence means completeness."""
    slot.mkdir(parents=True, exist_ok=True)
    for library in sorted(binaries.glob("*.so*")):
        shutil.copy(library, slot / library.name)
    partial = slot / f"llama-server.{os.getpid()}.part"
    shutil.copy(binaries / "llama-server", partial)
    partial.replace(slot / "llama-server")


def environment(program: Path) -> dict[str, str]:
    """The environment in which the program finds its own libraries."""
    return {**os.environ, "LD_LIBRARY_PATH": str(program.parent)}


def main() -> int:
    """Print the path of llama-server, built with the wheel's flags."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--cache", type=Path, default=default_cache(), help="directory of cached programs")
    print(llama_server(parser.parse_args().cache))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
