# SPDX-License-Identifier: Apache-2.0
"""The measuring process of ``adyton-host tune``: JSON lines to and from ``adyton_enclave.probe``.

The host loads no enclave code. What is measured are the engine's own classes, in a process that serves nobody.
"""

import json
import subprocess
import sys
from types import TracebackType
from typing import Final, Self

from adyton_host.simulation import package_dir
from adyton_protocol.errors import ConfigError

_MODULE: Final = "adyton_enclave.probe"
_END_TIMEOUT_S: Final = 30.0


class Probe:
    """The process, as a context manager. Not thread-safe."""

    def __init__(self) -> None:
        """Start it.

        Raises:
            ConfigError: The enclave package is not installed.
        """
        package_dir("adyton_enclave")
        self._process = subprocess.Popen(  # noqa: S603 -- our own interpreter and module; no shell
            [sys.executable, "-I", "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ask(self, what: str, **members: object) -> dict[str, object]:
        """Send one request and wait for its answer.

        Raises:
            ConfigError: The probe cannot do it, with its reason; or it died.
        """
        process = self._process
        if process.stdin is None or process.stdout is None:
            raise ConfigError("the measuring process has no pipes")
        try:
            process.stdin.write(json.dumps({what: members}) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise ConfigError(
                f"the measuring process died (status {process.poll()}); is there enough memory?"
            )
        answer = json.loads(line)
        if not isinstance(answer, dict) or "error" in answer:
            raise ConfigError(str(answer.get("error")) if isinstance(answer, dict) else "no answer")
        return answer

    def close(self) -> None:
        """End the process. Idempotent."""
        process = self._process
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._process.kill()
        self.close()
