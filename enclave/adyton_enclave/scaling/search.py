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
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import compress
from types import TracebackType
from typing import Final, Literal, Self

from adyton_enclave.engine import Usage
from adyton_enclave.engine.tree import Tree
from adyton_enclave.scaling.ledger import Ledger, Prices
from adyton_enclave.scaling.line import Line
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

StopReason = Literal["complete", "agreed", "budget", "time", "context"]
"""``complete``: all candidates are there. ``agreed``: the vote was decided. ``budget``, ``time``: spent.
``context``: no further prompt fits."""


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
    lines: tuple[Line, ...]
    nodes: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """What a next attempt is told of those before.

    Attributes:
        best: The best answer so far.
        worst: The worst of the last attempts; None where they were all alike.
    """

    best: str = field(repr=False)
    worst: str | None = field(repr=False)


Replant = Callable[[Feedback, int], Awaitable[Tree]]
"""Opens the tree of another prompt. The number of prompts before it is another beginning of its draws' path."""


class Search:
    """One search under way. Use it as a context manager: leaving frees everything that it holds.

    Attributes:
        plan: What was asked for.
        ledger: What was spent.
        root: The line without any step.
        blank: Another one, which strategies leave to the padding; None where nothing is padded.
        splitter: What a step is.
        replanter: How to go on from another prompt; None where that cannot be.
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
        self.replanter: Replant | None = None
        self._earlier: list[Usage] = []
        self._scoring = scoring
        self._notify = notify
        self._n_ended = 0
        self._turn = asyncio.Lock()
        self._places = asyncio.Semaphore(plan.in_flight)
        prompt_tokens = len(tree.request.prompt_token_ids)
        self.ledger = Ledger(plan.budget, prices, prompt_tokens=prompt_tokens, clock=clock)
        self._unread = None if scoring is None else Reading(scoring.root).hold()
        self.root, self.blank = self._plant()
        self.book_scoring()

    @property
    def scores(self) -> bool:
        """Whether there is a scorer."""
        return self._scoring is not None

    @property
    def max_tokens(self) -> int:
        """Most tokens of a line."""
        return self._tree.request.max_tokens

    @property
    def usage(self) -> Usage:
        """Tokens of the generator so far."""
        parts = (*self._earlier, self._tree.usage)
        return Usage(
            prompt_tokens=sum(part.prompt_tokens for part in parts),
            completion_tokens=sum(part.completion_tokens for part in parts),
            cached_prompt_tokens=sum(part.cached_prompt_tokens for part in parts),
        )

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

    async def replant(self, feedback: Feedback) -> None:
        """Go on from the prompt that follows on what was found so far: ``root`` is a line of the new tree.

        Lines of the old one keep their texts and scores, and cannot be extended any more.

        Raises:
            LocalProtocolError: The search was opened with one prompt for all.
            ContextOverflow: The new prompt leaves no room for an answer; nothing changed.
            EngineError: What else went wrong.
        """
        if self.replanter is None:
            raise LocalProtocolError("this search has one prompt")
        tree = await self.replanter(feedback, len(self._earlier) + 1)
        self._earlier.append(self._tree.usage)
        self._tree.close()
        self._tree = tree
        self.ledger.prompted(len(tree.request.prompt_token_ids))
        self.root, self.blank = self._plant()

    def stop_reason(self, lines: Sequence[Line]) -> StopReason:
        """Why these lines are not extended any more."""
        if all(line.ended for line in lines):
            return "complete"
        return self.spent_reason

    @property
    def spent_reason(self) -> Literal["time", "budget"]:
        """What is spent, when something is."""
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

    def _plant(self) -> tuple[Line, Line | None]:
        root = Line(self._tree.root, self._unread, self.splitter)
        # Made before anything else, because a strategy may use the root up.
        return root, root.fork()[0] if self.plan.pad_to_budget else None

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
        self.ledger.found(self.usage.cached_prompt_tokens)
        self._n_ended += line.ended
        self._notify(
            Progress(
                ended=self._n_ended,
                alive=max(0, self.plan.n - self._n_ended),
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
