# SPDX-License-Identifier: Apache-2.0
"""Enclave images for gramine-direct, rendered as an operator renders them, and ways to run and to spoil them."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

BIN = Path(sys.executable).parent
GRAMINE = shutil.which("gramine-direct")
START_TIMEOUT_S = 240.0
"""For the whole of Python, the libraries and the model; a busy machine without Gramine's own C library needs it."""
_POLL_S = 0.1


def free_port() -> int:
    """A loopback port that nobody listens on now. An image names its port, because it is measured."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
        return port


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A rendered image of the variant that simulates.

    Attributes:
        directory: What Gramine is started in.
        simulation_dir: The simulated platform, with a policy that accepts this very image.
        port: Where its enclave listens.
        facts: What rendering said about it.
    """

    directory: Path
    simulation_dir: Path
    port: int
    facts: dict[str, object]

    @property
    def manifest(self) -> Path:
        """The file that Gramine reads."""
        (found,) = self.directory.glob("*.manifest")
        return found

    @property
    def root(self) -> Path:
        """The measured files."""
        return self.directory / "root"

    def copy(self, directory: Path) -> "Image":
        """The same, to be spoiled: files of its own, and the same links to models."""
        shutil.copytree(self.directory, directory, symlinks=True, copy_function=os.link)
        return Image(
            directory=directory, simulation_dir=self.simulation_dir, port=self.port, facts=self.facts
        )

    def replace(self, name: str, content: bytes) -> None:
        """Change a measured file behind the back of the manifest, or add one that it does not know."""
        path = self.root / name
        path.unlink(missing_ok=True)
        path.write_bytes(content)

    def program(self, code: str) -> None:
        """Have the measured Python run ``code`` instead of the enclave; everything else stays."""
        before = json.dumps(["-m", "adyton_enclave"])[1:-1]
        text = self.manifest.read_text()
        assert before in text
        path = self.manifest
        path.unlink()
        path.write_text(text.replace(before, json.dumps(["-c", code])[1:-1]))

    def run(self, timeout_s: float = START_TIMEOUT_S) -> subprocess.CompletedProcess[str]:
        """Run it under Gramine until it ends by itself."""
        # Gramine writes both streams of the program to its own standard output, and what it says itself to the other.
        return subprocess.run(
            self._command(),
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    @contextlib.contextmanager
    def running(self, log: Path) -> Iterator[subprocess.Popen[bytes]]:
        """Run it under Gramine until the block ends; the block begins when it is ready."""
        with (
            log.open("wb") as output,
            subprocess.Popen(self._command(), cwd=self.directory, stdout=output, stderr=output) as process,
        ):
            try:
                self._wait_until_ready(process, log)
                yield process
            finally:
                process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=60)
                process.kill()

    def _command(self) -> list[str]:
        return [GRAMINE or "gramine-direct", self.manifest.stem]

    def _wait_until_ready(self, process: subprocess.Popen[bytes], log: Path) -> None:
        until = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < until:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"http://127.0.0.1:{self.port}/readyz", timeout=5, trust_env=False).is_success:
                    return
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_POLL_S)
                break
        raise TimeoutError(
            f"the enclave did not become ready under Gramine:\n{log.read_text(errors='replace')}"
        )


def render(directory: Path, *options: str) -> Image:
    """Render an image with ``adyton-host manifest render --simulated``, on a free port."""
    port = free_port()
    simulation = directory / "simulation"
    done = subprocess.run(
        [str(BIN / "adyton-host"), "manifest", "render", "--simulated", "--json", "--port", str(port),
         "--output", str(directory / "image"), "--simulation-dir", str(simulation), *options],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"no image could be rendered:\n{done.stderr}")
    return Image(
        directory=directory / "image", simulation_dir=simulation, port=port, facts=json.loads(done.stdout)
    )
