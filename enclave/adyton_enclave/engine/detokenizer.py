# SPDX-License-Identifier: Apache-2.0
"""Token bytes to text for one choice: whole UTF-8 characters only, and never a piece of a stop string.

A token may end in the middle of a character, and a stop string may straddle tokens. Text is held back while
either is possible. Each token's log-probabilities wait for the token's own text, so that a choice reports
exactly the tokens of the text that it returns.
"""

import codecs
from collections import deque
from collections.abc import Sequence

from adyton_enclave.engine.request import TokenLogprob


class StopMatcher:
    """Finds the first stop string in a text that arrives in pieces, however it is cut into them.

    First is the match that is complete first; of two that end together, the one that began first. (The match
    that *begins* first would not do: whether it is one at all may only show later.) ``push`` returns text
    that certainly precedes every possible match.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        """Take non-empty stop strings."""
        self._stops = tuple(stops)
        self._held = ""
        self._longest = max(map(len, self._stops), default=0)
        self.stopped = False

    def push(self, text: str) -> str:
        """Add text; return what is safe to show. After a match everything else is swallowed."""
        if self.stopped:
            return ""
        if not self._stops:
            return text
        held = self._held + text
        matches = [(start + len(stop), start) for stop in self._stops if (start := held.find(stop)) >= 0]
        if matches:
            self.stopped = True
            self._held = ""
            return held[: min(matches)[1]]
        keep = self._open_suffix(held)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def finish(self) -> str:
        """Return what was held back, when the text ends without a match."""
        held, self._held = self._held, ""
        return held

    def _open_suffix(self, text: str) -> int:
        """Length of the longest suffix of ``text`` with which a stop string begins."""
        for length in range(min(len(text), self._longest - 1), 0, -1):
            suffix = text[-length:]
            if any(stop.startswith(suffix) for stop in self._stops):
                return length
        return 0


class TextAssembler:
    """The text of one choice as it grows.

    Bytes that are no UTF-8 become U+FFFD, as everywhere; an unfinished character at the very end too.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        """Start empty."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._matcher = StopMatcher(stops)
        self._decoded = 0
        self._shown = 0
        self._waiting: deque[tuple[int, TokenLogprob]] = deque()

    @property
    def stopped(self) -> bool:
        """True after a stop string was found."""
        return self._matcher.stopped

    def push(self, piece: bytes, logprob: TokenLogprob | None) -> tuple[str, tuple[TokenLogprob, ...]]:
        """Add one token; return the text and the tokens that may be shown now.

        A token may be shown when the text before it has been, so it comes with its own text or earlier.
        """
        start = self._decoded
        decoded = self._decoder.decode(piece)
        self._decoded += len(decoded)
        text = self._matcher.push(decoded)
        self._shown += len(text)
        if logprob is None:
            return text, ()
        self._waiting.append((start, logprob))
        return text, self._ready(at_end=False)

    def finish(self) -> tuple[str, tuple[TokenLogprob, ...]]:
        """The choice ended: flush. Nothing follows a stop string."""
        if self.stopped:
            return "", self._ready(at_end=False)
        tail = self._decoder.decode(b"", final=True)
        text = self._matcher.push(tail) + self._matcher.finish()
        self._shown += len(text)
        return text, self._ready(at_end=not self.stopped)

    def _ready(self, *, at_end: bool) -> tuple[TokenLogprob, ...]:
        ready = []
        while self._waiting and (at_end or self._waiting[0][0] < self._shown):
            ready.append(self._waiting.popleft()[1])
        return tuple(ready)
