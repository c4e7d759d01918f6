# SPDX-License-Identifier: Apache-2.0
"""Who is a guest in a step, and in which order guests get their places.

A wide request has more sequences than anybody reads along: a tree search, many candidates. Beside streams its
sequences are guests: they share a few places, and one keeps its place until it ends or pauses. With turns for each
token all would end late and hold cells meanwhile. A prompt is computed like anybody's.
"""

from collections.abc import Iterable
from itertools import chain, zip_longest
from typing import Final

from adyton_enclave.engine.sequence import Group, Phase, Sequence

MAX_STREAMS: Final = 4
"""A request with more sequences than this is a wide one."""

GUEST_SHARE: Final = 0.4
"""Of what streams take of a step, guests may take so much in addition. A step of another model that nobody reads along
with may take as much again, so that a stream's gap between tokens grows by four fifths at most."""


def places(n_streams: int) -> int:
    """Most tokens of guests in a step that serves so many streams."""
    return max(1, int(GUEST_SHARE * n_streams))


def is_wide(sequence: Sequence) -> bool:
    """True for a sequence of a wide request."""
    return sequence.group.width > MAX_STREAMS


def is_guest(sequence: Sequence) -> bool:
    """True for a sequence of a wide request that is beyond its prompt, or waits to begin there."""
    if not is_wide(sequence):
        return False
    group = sequence.group
    return sequence.n_computed >= group.n_prompt - 1 if sequence.phase is Phase.RUNNING else group.started


def in_turn(guests: Iterable[Sequence], turn: int) -> list[Sequence]:
    """The first of each request, then the second of each; another request begins with every turn."""
    lines: dict[Group, list[Sequence]] = {}
    for sequence in guests:
        lines.setdefault(sequence.group, []).append(sequence)
    order = list(lines.values())
    shift = turn % max(1, len(order))
    ranks = chain.from_iterable(zip_longest(*order[shift:], *order[:shift]))
    return [sequence for sequence in ranks if sequence is not None]
