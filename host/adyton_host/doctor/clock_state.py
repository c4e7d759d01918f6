# SPDX-License-Identifier: Apache-2.0
"""What the kernel knows of its own clock, by ``adjtimex(2)``, which needs no privilege when nothing is to be set."""

import ctypes
from dataclasses import dataclass
from typing import Final

_TIME_ERROR: Final = 5
_STA_UNSYNC: Final = 0x0040
_MICROSECONDS: Final = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockState:
    """Whether something disciplines the clock.

    Attributes:
        synchronised: NTP or the like has set it, lately.
        max_error_s: How far off the kernel thinks it may be, in seconds.
    """

    synchronised: bool
    max_error_s: float


class _Timex(ctypes.Structure):
    """The beginning of ``struct timex``; what follows is room for what the kernel writes there."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


def read_clock_state() -> ClockState | None:
    """Ask the kernel; None where it does not answer."""
    timex = _Timex()
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    except (OSError, AttributeError):
        return None
    if state < 0:
        return None
    synchronised = state != _TIME_ERROR and not timex.status & _STA_UNSYNC
    return ClockState(synchronised=synchronised, max_error_s=timex.maxerror / _MICROSECONDS)
