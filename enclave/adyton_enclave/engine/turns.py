# SPDX-License-Identifier: Apache-2.0
"""Which of several models computes next: the one that has computed for the shortest time.

Models share the compute threads, one step at a time. Steps are of very different lengths (a large generator, a small
scorer), so that equal numbers of steps would starve the small model: what is shared is time. A model that has nothing
to do earns no credit for later.

A model that works where nobody waits for single tokens (it judges, or it grows a wide tree) stands in the background of
models that stream. It gets at most one step between two of theirs, and earns no credit for the rest either.
"""

from collections.abc import Collection, Iterable


class Turns:
    """The time that each model has had. Owned by the loop thread."""

    def __init__(self, names: Iterable[str]) -> None:
        """Everybody starts equal; whoever is named first goes first."""
        self._spent_s = dict.fromkeys(names, 0.0)
        self._busy: frozenset[str] = frozenset()
        self._in_background = False

    def next(self, busy: Collection[str], background: Collection[str] = ()) -> str | None:
        """Whose turn it is.

        Args:
            busy: Those that have something to do.
            background: Those in whose steps nobody reads along.

        Returns:
            A name; None if nobody has anything to do.
        """
        stayed = self._busy.intersection(busy)
        floor_s = min((self._spent_s[name] for name in stayed), default=None)
        if floor_s is not None:
            for name in busy:
                if name not in stayed:
                    self._spent_s[name] = max(self._spent_s[name], floor_s)
        self._busy = frozenset(busy)
        names = [name for name in self._spent_s if name in busy]
        ahead = [name for name in names if name not in background]
        if ahead and self._in_background:
            floor_s = min(map(self._spent_s.__getitem__, ahead))
            for name in background:
                self._spent_s[name] = max(self._spent_s[name], floor_s)
            names = ahead
        chosen = min(names, key=self._spent_s.__getitem__, default=None)
        self._in_background = chosen in background
        return chosen

    def charge(self, name: str, elapsed_s: float) -> None:
        """Count a step.

        Args:
            name: Whose.
            elapsed_s: From a clock that the host may control, which then decides who waits for whom, as it can
                anyway; it never counts backwards here.
        """
        self._spent_s[name] += max(elapsed_s, 0.0)
