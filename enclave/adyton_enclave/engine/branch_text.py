# SPDX-License-Identifier: Apache-2.0
"""The text of one branch of a tree, step by step.

Nothing is held back, because nobody reads a step before it is over. A character whose bytes are not all there yet
belongs to the step in which its last byte comes.
"""

import codecs
from collections.abc import Sequence as Seq


class BranchText:
    """Bytes to text for one branch. Owned by the loop thread."""

    __slots__ = ("_decoder", "_past", "_stops", "_until", "cut", "reached", "step")

    def __init__(self, stops: Seq[str]) -> None:
        """Start empty; any of ``stops`` ends the text before it, also where it straddles steps."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stops = tuple(stops)
        self._past = ""  # as much of earlier steps as a stop string could begin in
        self._until: tuple[str, ...] = ()
        self.step = ""
        self.reached = False
        self.cut = 0

    def fork(self) -> "BranchText":
        """The same text between two steps, to go on from independently."""
        twin = BranchText(self._stops)
        twin._decoder.setstate(self._decoder.getstate())
        twin._past = self._past + self.step
        return twin

    def begin(self, until: Seq[str]) -> None:
        """Begin a step that is over as soon as it has any of ``until`` in it."""
        keep = max(map(len, self._stops), default=1) - 1
        past = self._past + self.step
        self._past = past[len(past) - keep :] if keep else ""
        self._until = tuple(until)
        self.step = ""
        self.reached = False
        self.cut = 0

    def push(self, piece: bytes) -> bool:
        """Add a token; True if a stop string ended the text.

        Then ``cut`` characters of it go: the stop string and what follows, earlier steps included.
        """
        new = self._decoder.decode(piece)
        if not new:
            return False
        before = len(self.step)
        self.step += new
        self.reached = any(self.step.find(text, max(0, before - len(text) + 1)) >= 0 for text in self._until)
        return bool(self._stops) and self._stopped(before)

    def finish(self) -> None:
        """The text ended; bytes of an unfinished character become U+FFFD."""
        self.step += self._decoder.decode(b"", final=True)

    def _stopped(self, before: int) -> bool:
        text = self._past + self.step
        old = len(self._past) + before
        # First is the match that is complete first; of two that end together, the one that began first.
        matches = [
            (start + len(stop), start)
            for stop in self._stops
            if (start := text.find(stop, max(0, old - len(stop) + 1))) >= 0
        ]
        if matches:
            self.cut = len(text) - min(matches)[1]
        return bool(matches)
