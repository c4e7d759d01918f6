# SPDX-License-Identifier: Apache-2.0
"""The state directory: one lock, one record of who runs, the logs, and the enclave's run directories."""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from adyton_protocol.errors import ConfigError

RECORD_NAME: Final = "host.json"
RELAY_LOG_NAME: Final = "relay.log"
ENCLAVE_LOG_NAME: Final = "enclave.log"
RELEASES_NAME: Final = "releases.json"
"""Signed reference values for clients to fetch; the operator puts them there, whenever there are new ones."""
_LOCK_NAME: Final = "lock"
_SIMULATION_LOCK_NAME: Final = ".host.lock"
_RUNS_NAME: Final = "run"
_PRIVATE_DIR: Final = 0o700
_PRIVATE_FILE: Final = 0o600
_MAX_LOG_BYTES: Final = 8 * 1024 * 1024
_TAIL_BYTES: Final = 4096


class StateDir:
    """The files of one host; made by :func:`hold_state_dir`, which proves that we hold the lock."""

    def __init__(self, path: Path) -> None:
        """Name the files below ``path``."""
        self.path = path
        self.record_path = path / RECORD_NAME
        self.relay_log = path / RELAY_LOG_NAME
        self.enclave_log = path / ENCLAVE_LOG_NAME
        self.releases = path / RELEASES_NAME

    def new_run_dir(self) -> Path:
        """A fresh, empty working directory for one enclave process."""
        runs = self.path / _RUNS_NAME
        runs.mkdir(mode=_PRIVATE_DIR, exist_ok=True)
        run_dir = runs / secrets.token_hex(8)
        run_dir.mkdir(mode=_PRIVATE_DIR)
        return run_dir

    def open_enclave_log(self) -> int:
        """A descriptor that appends to the enclave's log; one old log is kept."""
        if self.enclave_log.exists() and self.enclave_log.stat().st_size > _MAX_LOG_BYTES:
            self.enclave_log.replace(self.enclave_log.with_suffix(".log.1"))
        return os.open(self.enclave_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, _PRIVATE_FILE)

    def enclave_log_tail(self, since_bytes: int) -> str:
        """The end of what the enclave logged after position ``since_bytes``."""
        try:
            with self.enclave_log.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(since_bytes, size - _TAIL_BYTES))
                return file.read().decode("utf-8", "replace").strip()
        except OSError:
            return ""

    def write_record(self, record: Mapping[str, object]) -> None:
        """Say who runs here, for ``adyton-host status``; replaced in one step."""
        fresh = self.record_path.with_suffix(".new")
        fresh.write_text(json.dumps(record) + "\n", encoding="utf-8")
        fresh.replace(self.record_path)

    def clear(self) -> None:
        """Remove what only a running host has."""
        self.record_path.unlink(missing_ok=True)
        shutil.rmtree(self.path / _RUNS_NAME, ignore_errors=True)


def read_record(path: Path) -> dict[str, object] | None:
    """What the host that runs on this state directory wrote about itself, or None."""
    try:
        record = json.loads((path / RECORD_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


@contextlib.contextmanager
def hold_lock(directory: Path, name: str) -> Iterator[None]:
    """Create the directory if need be and hold its lock ``name`` for this process alone.

    Raises:
        ConfigError: The directory cannot be used.
        BlockingIOError: Another process holds the lock.
    """
    try:
        directory.mkdir(mode=_PRIVATE_DIR, parents=True, exist_ok=True)
        lock = os.open(directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PRIVATE_FILE)
    except OSError as error:
        raise ConfigError(f"cannot use the directory {directory}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def hold_state_dir(path: Path) -> Iterator[StateDir]:
    """Hold a state directory for this process alone.

    Raises:
        ConfigError: It cannot be created, or another host runs on it.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(hold_lock(path, _LOCK_NAME))
        except BlockingIOError as error:
            record = read_record(path) or {}
            who = f" (process {record.get('pid')}, {record.get('base_url')})" if record else ""
            raise ConfigError(
                f"another adyton-host already runs on the state directory {path}{who}; stop it, or give this "
                "one its own with --state, --simulation-dir and --port"
            ) from error
        state = StateDir(path)
        state.clear()
        stack.callback(state.clear)
        yield state


@contextlib.contextmanager
def hold_simulation_dir(path: Path) -> Iterator[None]:
    """Hold a simulation directory: its policy accepts the enclave of one host at a time.

    Raises:
        ConfigError: It cannot be created, or another host uses it.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(hold_lock(path, _SIMULATION_LOCK_NAME))
        except BlockingIOError as error:
            raise ConfigError(
                f"another adyton-host already uses the simulation directory {path}; give this one its own "
                "with --simulation-dir"
            ) from error
        yield
