# SPDX-License-Identifier: Apache-2.0
"""Starts one enclave process, waits until it attests, restarts it when it ends, and stops it.

Invariants:

1. At most one enclave process of this supervisor is alive; it dies with this process, however that ends.
2. The routing table holds the enclave only between its first attestation and its end.
3. Each start has a clean environment and nothing that an earlier run could have changed: a fresh working directory, or
   that of a measured image.
4. Every start uses the same bytes of configuration, because clients pin their digest. That includes the port.
5. An enclave of another kind than the one that was to be started is ended: a real one is never replaced by a simulated.
"""

import asyncio
import contextlib
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from adyton_host.config import SupervisorTiming
from adyton_host.enclave_config import FILE_NAME
from adyton_host.errors import EnclaveStartError
from adyton_host.logs import log
from adyton_host.routing import Readiness, RoutingTable, probe
from adyton_host.state import StateDir
from adyton_protocol import media
from adyton_protocol.errors import ConfigError

_LAUNCHER: Final = Path(__file__).with_name("launch.py")
_CLEAN_ENVIRONMENT: Final[Mapping[str, str]] = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
_LOOPBACK: Final = "127.0.0.1"
_HTTP_OK: Final = 200
_CHALLENGE_BYTES: Final = 32
_PROBE_TIMEOUT_S: Final = 5.0
_KILL_WAIT_S: Final = 5.0


def free_port(preferred: int = 0) -> int:
    """A loopback TCP port that was free a moment ago: ``preferred`` if possible, any other otherwise."""
    for wanted in (preferred, 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial, contextlib.suppress(OSError):
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((_LOOPBACK, wanted))
            port: int = trial.getsockname()[1]
            return port
    raise ConfigError("no loopback port is free for the enclave")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnclaveLaunch:
    """How to start an enclave; :mod:`adyton_host.launching` makes them.

    Attributes:
        command: Program and arguments. The enclave itself takes no arguments of its own.
        config: The text of its configuration file, which is written into a fresh directory at each start; or the
            measured configuration of an image, which is only shown to others.
        port: The loopback port on which that text makes it listen.
        tee_type: What its attestation report has to call the platform: ``sgx`` or ``simulated``.
        image_dir: Working directory that brings its own configuration; None for a fresh one.
        start_timeout_s: From starting the process until it attests; None for the supervisor's own deadline.
    """

    command: Sequence[str]
    config: str
    port: int
    tee_type: str
    image_dir: Path | None = None
    start_timeout_s: float | None = None


def stated_tee_type(report: bytes) -> str | None:
    """What an attestation report calls its platform; None if it does not say. Believing it is the client's decision."""
    try:
        attestation = json.loads(report)["attestation"]
        stated = attestation["tee_type"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return stated if isinstance(stated, str) else None


class _Running:
    """One enclave process and where it listens."""

    def __init__(
        self, process: asyncio.subprocess.Process, *, port: int, run_dir: Path, log_start: int
    ) -> None:
        self.process = process
        self.base_url = f"http://{_LOOPBACK}:{port}"
        self.run_dir = run_dir
        self.log_start = log_start


class Supervisor:
    """Keeps one enclave alive."""

    def __init__(
        self,
        launch: EnclaveLaunch,
        *,
        state: StateDir,
        table: RoutingTable,
        client: httpx.AsyncClient,
        timing: SupervisorTiming,
        on_restart: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start nothing yet.

        Args:
            launch: What to start.
            state: Where run directories and the enclave's log go.
            table: Told when the enclave comes and goes.
            client: Used for readiness and attestation probes.
            timing: Deadlines and pauses.
            on_restart: Called at each restart.
            clock: Monotonic seconds.
        """
        self._launch = launch
        self._state = state
        self._table = table
        self._client = client
        self._timing = timing
        self._on_restart = on_restart
        self._clock = clock
        self._running: _Running | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the enclave, or None between two runs."""
        return None if self._running is None else self._running.process.pid

    async def start(self) -> None:
        """Start the enclave, wait until it attests, and keep it alive from then on.

        Raises:
            EnclaveStartError: It ended or did not attest in time. Nothing is left running.
        """
        await self._start_once()
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Stop keeping the enclave alive and end it: SIGTERM, then SIGKILL after the grace time."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        await self._end()

    async def _start_once(self) -> None:
        try:
            self._running = await self._spawn()
            readiness = await self._wait_until_attests(self._running)
        except BaseException:
            await self._end()
            raise
        self._table.add(self._running.base_url, readiness)
        log("enclave-attests", pid=self._running.process.pid)

    async def _spawn(self) -> _Running:
        port, run_dir = self._launch.port, self._state.new_run_dir()
        if self._launch.image_dir is None:
            config = run_dir / FILE_NAME
            config.write_text(self._launch.config, encoding="utf-8")
            config.chmod(0o400)
        log_fd = self._state.open_enclave_log()
        try:
            log_start = os.fstat(log_fd).st_size
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                str(_LAUNCHER),
                str(os.getpid()),
                *self._launch.command,
                cwd=self._launch.image_dir or run_dir,
                env=dict(_CLEAN_ENVIRONMENT),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log_fd,
                stderr=log_fd,
                # Ctrl-C in a terminal reaches this process alone, which then ends the enclave in order.
                start_new_session=True,
            )
        finally:
            os.close(log_fd)
        log("enclave-started", pid=process.pid)
        return _Running(process, port=port, run_dir=run_dir, log_start=log_start)

    async def _wait_until_attests(self, running: _Running) -> Readiness:
        timeout_s = self._launch.start_timeout_s or self._timing.start_timeout_s
        exited = asyncio.create_task(running.process.wait())
        attests = asyncio.create_task(self._poll_until_attests(running))
        try:
            await asyncio.wait(
                (exited, attests),
                timeout=timeout_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if attests.done():
                return await attests
            if exited.done():
                reason = f"the enclave ended with status {exited.result()} before it attested"
            else:
                reason = f"the enclave did not attest within {timeout_s:g} seconds"
        finally:
            for task in (exited, attests):
                task.cancel()
            await asyncio.gather(exited, attests, return_exceptions=True)
        raise EnclaveStartError(
            f"{reason}; its log is {self._state.enclave_log}",
            log_tail=self._state.enclave_log_tail(running.log_start),
        )

    async def _poll_until_attests(self, running: _Running) -> Readiness:
        while True:
            readiness = await probe(self._client, running.base_url, _PROBE_TIMEOUT_S)
            if readiness.ready and await self._attests(running):
                return readiness
            await asyncio.sleep(self._timing.poll_s)

    async def _attests(self, running: _Running) -> bool:
        """Whether the enclave answers a fresh challenge. The host cannot and need not judge the evidence.

        Raises:
            EnclaveStartError: It says that it is of another kind than what was started.
        """
        url = f"{running.base_url}{media.ATTESTATION_PATH}?nonce={secrets.token_hex(_CHALLENGE_BYTES)}"
        try:
            response = await self._client.get(url, timeout=_PROBE_TIMEOUT_S)
        except httpx.HTTPError:
            return False
        if response.status_code != _HTTP_OK or not response.content:
            return False
        found = stated_tee_type(response.content)
        # SECURITY: nothing falls back. Clients refuse the wrong kind by themselves; here the operator learns of it.
        if found != self._launch.tee_type:
            raise EnclaveStartError(
                f"the enclave attests as {found!r}, and {self._launch.tee_type!r} was to be started; it was ended"
            )
        return True

    async def _keep(self) -> None:
        """Restart the enclave whenever it ends, with growing pauses while it keeps failing."""
        failures = 0
        while True:
            if self._running is not None:
                started_s = self._clock()
                status = await self._running.process.wait()
                log("enclave-ended", level=logging.WARNING, status=status)
                await self._end()
                failures = 0 if self._clock() - started_s >= self._timing.stable_s else failures
            pause_s = min(self._timing.backoff_first_s * 2.0**failures, self._timing.backoff_max_s)
            failures += 1
            await asyncio.sleep(pause_s)
            self._on_restart()
            try:
                await self._start_once()
            except (EnclaveStartError, OSError) as error:
                log("enclave-restart-failed", level=logging.ERROR, reason=type(error).__name__)

    async def _end(self) -> None:
        running, self._running = self._running, None
        if running is None:
            return
        self._table.remove(running.base_url)
        process = running.process
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(self._timing.stop_grace_s):
                    await process.wait()
            except TimeoutError:
                log("enclave-killed", level=logging.WARNING, pid=process.pid)
                # Its whole group, while the number is still its own: it is not reaped yet.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                async with asyncio.timeout(_KILL_WAIT_S):
                    await process.wait()
        shutil.rmtree(running.run_dir, ignore_errors=True)
