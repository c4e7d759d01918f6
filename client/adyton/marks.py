# SPDX-License-Identifier: Apache-2.0
"""High-water marks at rest: the newest endorsements and releases that this user has accepted; older ones are refused.

Kept for real appliances only. A simulated installation makes new roots as it likes, and its marks live and die
with the client object.
"""

import fcntl
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from adyton_attestation.marks import NO_MARKS, HighWaterMarks
from adyton_protocol.errors import ConfigError

_LOGGER: Final = logging.getLogger("adyton")
_PRIVATE: Final = 0o600

KeepMarks = Callable[[HighWaterMarks], None]
"""Called with the marks of every appraisal that passed."""


def default_path() -> Path:
    """Where the marks of this user are kept."""
    return Path.home() / ".local" / "state" / "adyton" / "marks.json"


def forget(_marks: HighWaterMarks) -> None:
    """Keep nothing beyond the client object."""


class MarkFile:
    """One file of marks, shared by all clients of a user."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> HighWaterMarks:
        """Read the marks; a user who has none starts with nothing seen.

        Raises:
            ConfigError: The file cannot be read, or is not what :meth:`keep` writes. Whoever damages it must
                not lower the marks.
        """
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return NO_MARKS
        except OSError as error:
            raise ConfigError(f"the high-water marks in {self._path} cannot be read") from error
        return HighWaterMarks.from_json(data)

    def keep(self, marks: HighWaterMarks) -> None:
        """Raise the kept marks; none of them ever falls, whatever other clients write meanwhile.

        Raises:
            ConfigError: The file is damaged.
        """
        before = self.load()
        if before.merged(marks) == before:
            return
        with self._alone():
            # SECURITY: read again under the lock; what another client raised since must not be written over.
            raised = self.load().merged(marks)
            beside = self._path.with_name(f"{self._path.name}.{os.getpid()}")
            try:
                beside.write_text(json.dumps(raised.to_json()) + "\n", encoding="utf-8")
                beside.replace(self._path)
            except OSError as error:
                # A read-only home must not cost the user his appliance; this process still holds the marks.
                _LOGGER.warning("high-water marks cannot be kept in %s: %s", self._path, error.strerror)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other clients of the user, in this process or another, from writing; they wait.

        The lock is on a file beside the marks, because these are replaced. It stays, and holds nothing.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(
                self._path.with_name(f"{self._path.name}.lock"),
                os.O_RDWR | os.O_CREAT | os.O_CLOEXEC,
                _PRIVATE,
            )
        except OSError as error:
            # Writing will fail, too, and say so; where it does not, marks without a lock are better than none.
            _LOGGER.warning("high-water marks cannot be locked: %s", error.strerror)
            yield
            return
        try:
            _lock(lock)
            yield
        finally:
            # Closing lets the lock go.
            os.close(lock)


def _lock(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        # Some network file systems have no locks.
        _LOGGER.warning("high-water marks cannot be locked: %s", error.strerror)
