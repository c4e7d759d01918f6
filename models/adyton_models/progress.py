# SPDX-License-Identifier: Apache-2.0
"""A progress bar on standard error: redrawn on a terminal, one line every so often in a log."""

import sys
import time
from typing import TextIO

_WIDTH = 28
_REDRAW_EVERY_S = 0.2
_LOG_EVERY_S = 30.0


class ProgressBar:
    """Shows how much is done, how long it took and how long it will take, and a note."""

    def __init__(self, label: str, *, stream: TextIO | None = None) -> None:
        self._label = label
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._started = time.monotonic()
        self._first: float | None = None
        self._drawn = float("-inf")

    def update(self, share: float, note: str = "") -> None:
        """Show that `share` in [0, 1] is done."""
        now = time.monotonic()
        if self._first is None:
            self._first = share
        every_s = _REDRAW_EVERY_S if self._terminal else _LOG_EVERY_S
        if now - self._drawn < every_s and share < 1.0:
            return
        self._drawn = now
        used_s = now - self._started
        gained = share - self._first
        left = f", {_clock(used_s * (1.0 - share) / gained)} left" if gained > 0.0 and share < 1.0 else ""
        full = round(_WIDTH * min(share, 1.0))
        bar = "#" * full + "." * (_WIDTH - full)
        line = f"{self._label} [{bar}] {share:6.1%} {_clock(used_s)}{left}  {note}"
        self._stream.write(f"\r\x1b[2K{line}" if self._terminal else f"{line}\n")
        self._stream.flush()

    def message(self, text: str) -> None:
        """Print a line above the bar."""
        self._stream.write(f"\r\x1b[2K{text}\n" if self._terminal else f"{text}\n")
        self._drawn = float("-inf")

    def close(self) -> None:
        """Leave the bar behind and go to the next line."""
        if self._terminal:
            self._stream.write("\n")
            self._stream.flush()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
