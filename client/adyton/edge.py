# SPDX-License-Identifier: Apache-2.0
"""The client's clock and entropy, taken here once and passed as arguments everywhere else."""

import secrets
import time
from collections.abc import Callable

Clock = Callable[[], int]
"""Seconds since the Unix epoch, by the relying party's own clock (never by the appliance's)."""

ChallengeSource = Callable[[], str]
"""A fresh, unpredictable challenge of 32 bytes as 64 lower-case hexadecimal digits."""


def wall_clock_s() -> int:
    """Read the local wall clock; certificates, CRLs and keysets are dated by it."""
    return int(time.time())  # noqa: TID251 - this is the edge where the clock is taken.


def fresh_challenge() -> str:
    """Draw the challenge that the enclave's next quote has to contain."""
    return secrets.token_hex(32)
