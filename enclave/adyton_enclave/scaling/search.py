# SPDX-License-Identifier: Apache-2.0
"""What strategies work with: lines of steps that are extended, scored, forked and dropped, within a budget.

::

    with Search(plan, tree, scoring, splitter, prices) as search:
        lines = search.root.fork(8)
        await search.advance(lines)          # one step each, scored
        best = max(lines, key=lambda line: line.scores[-1])

A line is a branch of the generator's tree and a place in the tree of what the scorer has read
(:mod:`~adyton_enclave.scaling.reading`): lines share the KV cells of what they have in common, and all are computed in
the engine's one loop. What a line says depends on the request's key and on the line's place in the tree.

Work goes in rounds: shares of the budget are given out, lines generate, then the scorer reads what is new, together.
So timing decides nothing, unless the budget is one of time.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import compress
from types import TracebackType
from typing import Final, Literal, Self

from adyton_enclave.engine import TokenLogprob, Usage
from adyton_enclave.engine.tree import Branch, Tree
from adyton_enclave.scaling.ledger import Ledger, Prices
from adyton_enclave.scaling.plan import Plan
from adyton_enclave.scaling.reading import Reading, Steps, affordable, read_on, together
from adyton_enclave.scaling.tree_record import Node
from adyton_enclave.scoring.scorer import ScoringTree
from adyton_enclave.scoring.splitter import Splitter
from adyton_protocol.errors import LocalProtocolError
from adyton_protocol.selection.candidate import Candidate, Selection
from adyton_protocol.selection.choose import select

LINES: Final = Splitter(rule="newline")
"""The steps of an answer where no scorer says what a step is."""

STEP_TOKENS: Final = 256
"""A step that has not ended after so many is taken as it stands, as in the reference code of REBASE."""

_SLICE_TOKENS: Final = 32
"""Between two looks at the clock, where the budget is one of time."""

StopReason = Literal["complete", "agreed", "budget", "time"]
"""``complete``: all candidates are there. ``agreed``: the vote was decided. ``budget``, ``time``: spent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a search is; nothing of its content.

    Attributes:
        ended: Lines that came to an end.
        alive: Lines that are still extended.
        policy_tokens: Generated so far.
    """

    ended: int
    alive: int
    policy_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a strategy comes to.

    Attributes:
        candidates: Everything that was an answer or on its way to one, in the order of its making.
        selection: What was chosen among them.
        stop_reason: See :data:`StopReason`.
        lines: The line of each candidate.
        nodes: What a tree search has tried; empty for other strategies.
    """

    candidates: tuple[Candidate, ...]
    selection: Selection
    stop_reason: StopReason
    lines: tuple["Line", ...]
    nodes: tuple[Node, ...] = ()


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
        self, search: "Search", branch: Branch, reading: Reading | None, parent: "Line | None"
    ) -> None:
        """Begin without any step; :meth:`fork` begins where a line is."""
        self._search = search
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
        """Sum of the log-probabilities of all that was generated."""
        return self._branch.logprob

    @property
    def path(self) -> tuple[int, ...]:
        """Its place in the tree, on which its draws depend."""
        return self._branch.path

    @property
    def n_tokens(self) -> int:
        """Generated tokens from the prompt to here."""
        return self._search.max_tokens - self._branch.n_left

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
            twin = Line(self._search, branch, self.reading, self)
            twin._waiting, twin._complete, twin.unscored = self._waiting, self._complete, self.unscored
            twin._cut_off, twin.logprobs, twin.n_steps = self._cut_off, self.logprobs, self.n_steps
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
        until = () if whole else self._search.splitter.ends
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
        splitter = self._search.splitter
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


class Search:
    """One search under way. Use it as a context manager: leaving frees everything that it holds.

    Attributes:
        plan: What was asked for.
        ledger: What was spent.
        root: The line without any step.
        splitter: What a step is.
        n_prompt: Tokens of the prompt.
    """

    def __init__(
        self,
        plan: Plan,
        tree: Tree,
        scoring: ScoringTree | None,
        *,
        splitter: Splitter = LINES,
        prices: Prices,
        notify: Callable[[Progress], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take over the trees.

        Args:
            plan: What to do.
            tree: Of the generator; its request asks for log-probabilities.
            scoring: Of the scorer; None where there is none.
            splitter: The scorer's.
            prices: FLOPs of a token.
            notify: Is told whenever a line has been extended.
            clock: Seconds, monotonic.
        """
        if tree.request.logprobs is None:
            raise LocalProtocolError("a search needs log-probabilities")
        self.plan = plan
        self.splitter = splitter
        self._tree = tree
        self._scoring = scoring
        self._notify = notify
        self._n_ended = 0
        self._turn = asyncio.Lock()
        self._places = asyncio.Semaphore(plan.in_flight)
        self.n_prompt = len(tree.request.prompt_token_ids)
        self.max_tokens = tree.request.max_tokens
        self.ledger = Ledger(plan.budget, prices, prompt_tokens=self.n_prompt, clock=clock)
        self.root = Line(self, tree.root, None if scoring is None else Reading(scoring.root), None)
        self.book_scoring()

    @property
    def scores(self) -> bool:
        """Whether there is a scorer."""
        return self._scoring is not None

    @property
    def usage(self) -> Usage:
        """Tokens of the generator so far."""
        return self._tree.usage

    async def advance(self, lines: Sequence[Line]) -> None:
        """Extend and score every line that goes on, by one step.

        Each gets an equal share of what is left of the budget. Lines whose step is cut off by their share go on in
        another round while anything is left, and while the step has less than :data:`STEP_TOKENS`. A second call
        waits for the first.

        Raises:
            EngineError: What ended a line early; the other lines have stopped too.
        """
        await self._rounds(lines, whole=False)

    async def finish(self, lines: Sequence[Line]) -> None:
        """Extend every line to its end, and score its steps together; otherwise like :meth:`advance`."""
        await self._rounds(lines, whole=True)

    def stop_reason(self, lines: Sequence[Line]) -> StopReason:
        """Why these lines are not extended any more."""
        if all(line.ended for line in lines):
            return "complete"
        return "time" if self.ledger.time_is_up else "budget"

    def outcome(self, lines: Sequence[Line], stop_reason: StopReason | None = None) -> Outcome:
        """Choose among lines by the plan's rule.

        Args:
            lines: At least one, in the order of their making.
            stop_reason: Why they are all; by default :meth:`stop_reason`.
        """
        candidates = tuple(line.candidate() for line in lines)
        return Outcome(
            candidates=candidates,
            selection=select(candidates, self.plan.rule),
            stop_reason=self.stop_reason(lines) if stop_reason is None else stop_reason,
            lines=tuple(lines),
        )

    def book_scoring(self) -> None:
        """Book what the scorer has read since the last time."""
        if self._scoring is not None:
            self.ledger.scored(self._scoring.usage.prompt_tokens - self.ledger.spent.scorer_tokens)

    def close(self) -> None:
        """Free everything within one step. Idempotent."""
        self._tree.close()
        if self._scoring is not None:
            self._scoring.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _rounds(self, lines: Sequence[Line], *, whole: bool) -> None:
        async with self._turn:
            begun = {line: (line.n_steps, line.n_tokens) for line in lines}

            def room(line: Line) -> int:
                """Tokens that the line may still have in these rounds."""
                n_steps, n_tokens = begun[line]
                if line.ended or (line.n_steps > n_steps and not whole):
                    return 0
                return self.max_tokens if whole else STEP_TOKENS - (line.n_tokens - n_tokens)

            while (going := [line for line in lines if room(line)]) and not self.ledger.exhausted:
                rooms = [room(line) for line in going]
                shares = map(min, self._shares(len(going)), rooms)
                await together(
                    [
                        self._generate(line, share, whole=whole)
                        for line, share in zip(going, shares, strict=True)
                        if share
                    ]
                )
                await self._score(going, {line for line in going if not room(line)})

    async def _generate(self, line: Line, share: int, *, whole: bool) -> None:
        async with self._places:
            self.ledger.generated(await line.generate(share, whole=whole))
        self.ledger.found(self._tree.usage.cached_prompt_tokens)
        self._n_ended += line.ended
        self._notify(
            Progress(
                ended=self._n_ended,
                alive=self.plan.n - self._n_ended,
                policy_tokens=self.ledger.spent.policy_tokens,
            )
        )

    async def _score(self, lines: Sequence[Line], full: Collection[Line]) -> None:
        """Let the scorer read what the lines have said since it last did; of the ``full``, cut off steps too."""
        speakers: list[Line] = []
        wanted: list[tuple[Reading, Steps]] = []
        for line in lines:
            steps = line.take_steps(as_they_stand=line in full)
            if line.reading is not None and steps:
                speakers.append(line)
                wanted.append((line.reading, steps))
        if (left := self.ledger.scorer_tokens_left) is not None:
            paid = affordable(wanted, left)
            for line, is_paid in zip(speakers, paid, strict=True):
                if not is_paid:
                    line.stand(None)
            speakers, wanted = list(compress(speakers, paid)), list(compress(wanted, paid))
        for line, reading in zip(speakers, await read_on(wanted), strict=True):
            line.stand(reading)
        self.book_scoring()

    def _shares(self, n: int) -> list[int]:
        """Tokens that each of ``n`` lines may generate in this round."""
        left = self.ledger.tokens_left
        most = self.max_tokens if self.plan.budget.time_s is None else _SLICE_TOKENS
        if left is None:
            return [most] * n
        return [min(most, left // n + (index < left % n)) for index in range(n)]
