# SPDX-License-Identifier: Apache-2.0
"""What strategies work with: lines of steps that are extended, scored, forked and dropped, within a budget.

::

    with Search(plan, tree, scoring, splitter, prices) as search:
        lines = search.root.fork(8)
        await search.advance(lines)          # one step each, scored
        best = max(lines, key=lambda line: line.scores[-1])

A line is a branch of the generator's tree beside a branch of the scorer's: all of them share the KV cells of what they
have in common, and all are computed in the engine's one loop. What a line says depends on the request's key and on the
line's place in the tree. Shares of a budget are given out before a round begins, so timing decides nothing, unless
the budget is one of time.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from adyton_enclave.engine import TokenLogprob
from adyton_enclave.engine.tree import Branch, Tree
from adyton_enclave.scaling.ledger import Ledger, Prices
from adyton_enclave.scaling.plan import Plan
from adyton_enclave.scoring.scorer import ScoringBranch, ScoringTree
from adyton_enclave.scoring.splitter import Splitter
from adyton_protocol.errors import ContextOverflow, LocalProtocolError
from adyton_protocol.selection.candidate import Candidate, Selection

LINES: Final = Splitter(rule="newline")
"""The steps of an answer where no scorer says what a step is."""

_SLICE_TOKENS: Final = 32
"""Between two looks at the clock, where the budget is one of time."""

StopReason = str
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
    """

    candidates: tuple[Candidate, ...]
    selection: Selection
    stop_reason: StopReason
    lines: tuple["Line", ...]


class Line:
    """A sequence of steps with their scores. Made by :class:`Search` and :meth:`fork`.

    Attributes:
        text: All that was generated.
        scores: Of the steps so far, those of its ancestors included; empty without a scorer.
        unscored: The text has become too long for the scorer, so ``scores`` says nothing any more.
        parent: The line that it was forked from.
        logprobs: One item per generated token, in the detail that the request asked for.
    """

    def __init__(
        self, search: "Search", branch: Branch, scoring: ScoringBranch | None, parent: "Line | None"
    ) -> None:
        """Begin without any step; :meth:`fork` begins where a line is."""
        self._search = search
        self._branch = branch
        self._scoring = scoring
        self.parent = parent
        self._waiting = ""
        self._complete = False
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
        """Of the steps so far."""
        return () if self._scoring is None or self.unscored else self._scoring.scores

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
        return len(self._branch.token_ids) - self._search.n_prompt

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
        branches = self._branch.fork(n)
        scorings: Sequence[ScoringBranch | None] = (
            [None] * n if self._scoring is None else self._scoring.fork(n)
        )
        return [self._twin(branch, scoring) for branch, scoring in zip(branches, scorings, strict=True)]

    def drop(self) -> None:
        """Give up the line; its text and scores stay readable, its forks live on. Idempotent."""
        self.dropped = True
        self._branch.prune()
        if self._scoring is not None:
            self._scoring.prune()

    async def extend(self, max_tokens: int, *, whole: bool) -> None:
        """Generate up to the end of the step or, if ``whole``, of the text; then score what is complete.

        A step that ``max_tokens`` cut off is continued by the next call and scored then.
        """
        splitter = self._search.splitter
        extension = await self._branch.extend(until=() if whole else splitter.ends, max_tokens=max_tokens)
        self._search.ledger.generated(len(extension.token_ids))
        self.logprobs += extension.logprobs
        self._waiting += extension.text
        if extension.n_recalled:
            # A stop string began in a step that was scored before; the score stays that of the longer step.
            self._waiting = ""
        self._complete = extension.reason == "stop"
        if extension.reason in ("until", "stop", "limit"):
            await self._score(splitter)

    def _twin(self, branch: Branch, scoring: ScoringBranch | None) -> "Line":
        twin = Line(self._search, branch, scoring, self)
        twin._waiting, twin._complete, twin.unscored = self._waiting, self._complete, self.unscored
        twin.logprobs, twin.n_steps = self.logprobs, self.n_steps
        return twin

    async def _score(self, splitter: Splitter) -> None:
        """Score the waiting text, all but the head of a step that follows."""
        text, self._waiting = self._waiting, ""
        head = splitter.opens_next
        if head and not self.ended and text.endswith(head):
            text, self._waiting = text[: -len(head)], head
        steps = splitter.split(text)
        self.n_steps += len(steps)
        if self._scoring is None or self.unscored or not steps:
            return
        try:
            await self._scoring.extend(*steps)
        except ContextOverflow:
            self.unscored = True
        self._search.book_scoring()


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
    ) -> None:
        """Take over the trees.

        Args:
            plan: What to do.
            tree: Of the generator; its request asks for log-probabilities.
            scoring: Of the scorer; None where there is none.
            splitter: The scorer's.
            prices: FLOPs of a token.
            notify: Is told whenever a line has been extended.
        """
        if tree.request.logprobs is None:
            raise LocalProtocolError("a search needs log-probabilities")
        self.plan = plan
        self.splitter = splitter
        self._tree = tree
        self._scoring = scoring
        self._notify = notify
        self._n_scored = 0
        self._n_ended = 0
        self._places = asyncio.Semaphore(plan.in_flight)
        self.n_prompt = len(tree.request.prompt_token_ids)
        self.max_tokens = tree.request.max_tokens
        self.ledger = Ledger(plan.budget, prices, prompt_tokens=self.n_prompt)
        self.root = Line(self, tree.root, None if scoring is None else scoring.root, None)

    @property
    def scores(self) -> bool:
        """Whether there is a scorer."""
        return self._scoring is not None

    async def advance(self, lines: Sequence[Line]) -> None:
        """Extend and score every line that goes on, by one step.

        Each gets an equal share of what is left of the budget. Lines whose step is cut off by their share go on in
        another round while anything is left.

        Raises:
            EngineError: What ended a line early; the other lines have stopped too.
        """
        await self._rounds(lines, whole=False)

    async def finish(self, lines: Sequence[Line]) -> None:
        """Extend every line to its end, and score its steps together; otherwise like :meth:`advance`."""
        await self._rounds(lines, whole=True)

    def book_scoring(self) -> None:
        """Book what the scorer has read since the last time."""
        if self._scoring is not None:
            total = self._scoring.usage.prompt_tokens
            self.ledger.scored(total - self._n_scored)
            self._n_scored = total

    def stop_reason(self, lines: Sequence[Line]) -> StopReason:
        """Why these lines are not extended any more."""
        if all(line.ended for line in lines):
            return "complete"
        return "time" if self.ledger.time_is_up else "budget"

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
        steps = {id(line): line.n_steps for line in lines}
        going = [line for line in lines if not line.ended]
        while going and not self.ledger.exhausted:
            shares = self._shares(len(going))
            await _together(
                [
                    self._extend(line, share, whole=whole)
                    for line, share in zip(going, shares, strict=True)
                    if share
                ]
            )
            going = [line for line in going if not line.ended and (whole or line.n_steps == steps[id(line)])]

    async def _extend(self, line: Line, share: int, *, whole: bool) -> None:
        async with self._places:
            await line.extend(share, whole=whole)
        self.ledger.computed(self.n_prompt - self._tree.usage.cached_prompt_tokens)
        self._n_ended += line.ended
        spent = self.ledger.spent
        self._notify(
            Progress(
                ended=self._n_ended,
                alive=self.plan.n - self._n_ended,
                policy_tokens=spent.policy_tokens,
            )
        )

    def _shares(self, n: int) -> list[int]:
        """Tokens that each of ``n`` lines may generate in this round."""
        left = self.ledger.tokens_left
        most = self.max_tokens if self.plan.budget.time_s is None else _SLICE_TOKENS
        if left is None:
            return [most] * n
        return [min(most, left // n + (index < left % n)) for index in range(n)]


async def _together(work: Sequence[Coroutine[None, None, None]]) -> None:
    """Run all at once; when one fails, the others are cancelled and its error is raised."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
