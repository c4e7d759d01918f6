# SPDX-License-Identifier: Apache-2.0
"""What sizes and times of a sealed answer give away: the three profiles, and the arithmetic of each.

The host sees the length of every sealed chunk and the moment it passes. A profile is chosen inside the sealed
request (body member ``privacy``) and can only be raised, never lowered, by the operator's floor:

``off``
    Nothing is padded.
``size``
    Whole answers are padded to the protocol's size buckets, streamed chunks to a multiple of 256 bytes and at
    least 512, so that the length of a single token does not show. The number of chunks and their times do.
``cadence``
    A stream is one frame of 512 bytes per 100 ms from acceptance to a bucketed end, whatever the model does in
    between; a whole answer waits for the end of its bucket. The bucket is all that shows.

This module computes; it neither sleeps nor sends.
"""

import enum
from typing import Final

CHUNK_BYTES: Final = 256
"""Streamed chunks of profile ``size`` are padded to a multiple of this."""
MINIMUM_CHUNK_BYTES: Final = 512
"""...and to at least this: one delta event is about 220 bytes, so that a single multiple of 256 would tell
long tokens from short ones."""
FRAME_BYTES: Final = 512
"""Size of every frame of profile ``cadence``."""
TICK_S: Final = 0.1
"""Time from one frame of profile ``cadence`` to the next, in seconds."""

_FIRST_END_TICKS: Final = 16
_LARGEST_POWER_TICKS: Final = 512


class Profile(enum.StrEnum):
    """How much of an answer's size and timing is hidden from the host."""

    OFF = "off"
    SIZE = "size"
    CADENCE = "cadence"

    @property
    def rank(self) -> int:
        """Order of strictness: a higher rank hides more."""
        return list(Profile).index(self)


def effective_profile(requested: Profile | None, *, default: Profile, floor: Profile) -> Profile:
    """The profile that serves a request: what it asked for or the default, raised to the floor."""
    chosen = default if requested is None else requested
    return max(chosen, floor, key=lambda profile: profile.rank)


def padded_chunk_bytes(length: int) -> int:
    """Size to which a streamed chunk of ``length`` bytes is padded under profile ``size``."""
    multiple = -(-length // CHUNK_BYTES) * CHUNK_BYTES
    return max(MINIMUM_CHUNK_BYTES, multiple)


def end_tick(ticks: int) -> int:
    """The bucketed number of ticks after which an exchange of ``ticks`` ticks may end.

    Powers of two from 16 (1.6 s) to 512 (51.2 s), then multiples of 512.
    """
    if ticks <= _FIRST_END_TICKS:
        return _FIRST_END_TICKS
    if ticks <= _LARGEST_POWER_TICKS:
        return 1 << (ticks - 1).bit_length()
    return -(-ticks // _LARGEST_POWER_TICKS) * _LARGEST_POWER_TICKS
