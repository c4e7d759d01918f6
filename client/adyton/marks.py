# SPDX-License-Identifier: Apache-2.0
"""High-water marks at rest: the newest endorsements and releases that this user has accepted; older ones are refused.

Kept for real appliances only. A simulated installation makes new roots as it likes, and its marks live and die
with the client object.
"""

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from adyton_attestation.marks import NO_MARKS, HighWaterMarks
from adyton_protocol.errors import ConfigError

_LOGGER: Final = logging.getLogger("adyton")

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
        """Raise the kept marks; none of them ever falls, whatever other clients wrote meanwhile.

        Raises:
            ConfigError: The file is damaged.
        """
        before = self.load()
        raised = before.merged(marks)
        if raised == before:
            return
        beside = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            beside.write_text(json.dumps(raised.to_json()) + "\n", encoding="utf-8")
            beside.replace(self._path)
        except OSError as error:
            # A read-only home must not cost the user his appliance; this process still holds the marks.
            _LOGGER.warning("high-water marks cannot be kept in %s: %s", self._path, error.strerror)
