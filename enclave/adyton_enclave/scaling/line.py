# SPDX-License-Identifier: Apache-2.0
"""A line of steps: a branch of the generator's tree, and a place in the tree of what the scorer has read."""

import math

from adyton_enclave.engine import TokenLogprob
from adyton_enclave.engine.tree import Branch
from adyton_enclave.scaling.reading import Reading, Steps
from adyton_enclave.scoring.splitter import Splitter
from adyton_protocol.selection.candidate import Candidate


class Line:
    """A sequence of steps with their scores. Made by :class:`Search` and :meth:`fork`.

    Attributes:
        parent: The line that it was forked from.
        reading: Where its steps stand with the scorer; None without a scorer, or when it is ``unscored``.
        unscored: The scorer has no room for its steps, or the budget none, so ``scores`` says nothing any more.
        logprobs: One item per generated token, in the detail that the request asked for.
        n_steps: Complete steps so far.
        dropped: Whether it was given up.
    """

    def __init__(
        self, branch: Branch, reading: Reading | None, splitter: Splitter, parent: "Line | None" = None
    ) -> None:
        """Begin without any step; :meth:`fork` begins where a line is."""
        self._splitter = splitter
        self._branch = branch
        self.parent = parent
        self.reading = None if reading is None else reading.hold()
        self._waiting = ""
        self._complete = False
        self._cut_off = False
        self.unscored = False
        self.logprobs: tuple[TokenLogprob, ...] = ()
        self.n_steps = 0
        self.dropped = False
        self._most_tokens = branch.n_left

    @property
    def text(self) -> str:
        """All that was generated, without a stop string."""
        return self._branch.text

    @property
    def scores(self) -> tuple[float, ...]:
        """Of the steps so far, those of its ancestors included; empty without a scorer."""
        return () if self.reading is None else self.reading.scores

    @property
    def ended(self) -> bool:
        """Whether nothing can be added: the text is complete, or as long as the request allows."""
        return self._branch.ended

    @property
    def logprob(self) -> float:
        """Sum of the log-probabilities of all that was generated, however many goes it took."""
        return math.fsum(token.logprob for token in self.logprobs)

    @property
    def path(self) -> tuple[int, ...]:
        """Its place in the tree, on which its draws depend."""
        return self._branch.path

    @property
    def n_tokens(self) -> int:
        """Generated tokens from the prompt to here."""
        return self._most_tokens - self._branch.n_left

    def candidate(self) -> Candidate:
        """The line as what can be chosen."""
        return Candidate(
            text=self.text,
            n_tokens=self.n_tokens,
            logprob=min(0.0, self.logprob),
            scores=self.scores,
            complete=self._complete,
        )

    def fork(self, n: int = 1) -> list["Line"]:
        """Make ``n`` lines that begin like this one. Costs nothing until they are extended."""
        twins = []
        for branch in self._branch.fork(n):
            twin = Line(branch, self.reading, self._splitter, self)
            twin._waiting, twin._complete, twin.unscored = self._waiting, self._complete, self.unscored
            twin._cut_off, twin.logprobs, twin.n_steps = self._cut_off, self.logprobs, self.n_steps
            twin._most_tokens = self._most_tokens
            twins.append(twin)
        return twins

    def drop(self) -> None:
        """Give up the line; its text and scores stay readable, its forks live on. Idempotent."""
        if not self.dropped:
            self.dropped = True
            self._branch.prune()
            if self.reading is not None:
                self.reading.release()

    async def generate(self, max_tokens: int, *, whole: bool) -> int:
        """Go on to the end of the step or, if ``whole``, of the text. For :class:`Search`.

        A step that ``max_tokens`` cut off is continued by the next call.

        Returns:
            Tokens that were generated.
        """
        until = () if whole else self._splitter.ends
        extension = await self._branch.extend(until=until, max_tokens=max_tokens)
        self.logprobs += extension.logprobs
        # Of a stop string that began in a step that was read before, the step keeps its part.
        kept = max(0, len(self._waiting) - extension.n_recalled)
        self._waiting = self._waiting[:kept] + extension.text
        self._complete = extension.reason == "stop"
        self._cut_off = extension.reason == "length"
        return len(extension.token_ids)

    def take_steps(self, *, as_they_stand: bool = False) -> Steps:
        """Steps that were not taken before, to be scored. For :class:`Search`.

        Args:
            as_they_stand: Take a step that was cut off, too.
        """
        if self._cut_off and not as_they_stand:
            return ()
        splitter = self._splitter
        text, self._waiting = self._waiting, ""
        head = splitter.opens_next
        if head and not self.ended and text.endswith(head):
            # It is the beginning of the step that follows.
            text, self._waiting = text[: -len(head)], head
        steps = tuple(splitter.split(text))
        self.n_steps += len(steps)
        return steps

    def stand(self, reading: Reading | None) -> None:
        """Take over a place that is held for this line, or none. For :class:`Search`."""
        if self.reading is not None:
            self.reading.release()
        self.reading = reading
        self.unscored = reading is None
