# SPDX-License-Identifier: Apache-2.0
"""A search behind one request, read like any other work: events, usage, an end.

While it runs there is progress to tell and no text, because no candidate is the answer before the choice is made. Then
the chosen candidates come as ordinary deltas, so that readers and presenters do with them what they always do.
"""

import asyncio
import codecs
import contextlib
import weakref
from collections.abc import AsyncGenerator, Callable, Iterable
from itertools import chain
from typing import Final

from adyton_enclave.api.ports import Engine, Scorer
from adyton_enclave.api.search_gate import SearchGate
from adyton_enclave.api.search_order import SearchOrder
from adyton_enclave.engine import Event, Finished, GenerationRequest, TextDelta, TokenLogprob, Usage
from adyton_enclave.scaling.line import Line
from adyton_enclave.scaling.search import Progress, Search
from adyton_enclave.scaling.strategies import Finding, FollowUp, conduct, open_search
from adyton_protocol.errors import EngineError, LocalProtocolError
from adyton_protocol.selection.candidate import Selection

PROGRESS_S: Final = 0.25
"""Seconds from one telling of progress to the next: a search has many steps, and each event is a sealed chunk."""


class _Watch:
    """The latest progress, and whether anything is new."""

    def __init__(self) -> None:
        self.progress: Progress | None = None
        self.changed = asyncio.Event()

    def notify(self, progress: Progress) -> None:
        self.progress = progress
        self.changed.set()


class SearchWork:
    """One search. Whoever reads :meth:`events` to the end, breaks off or is cancelled leaves nothing running.

    Attributes:
        order: What was asked for.
    """

    sure: Final = 1
    """Choices that will come whatever happens; how many there are in all shows in the end."""

    def __init__(
        self,
        search: Search,
        order: SearchOrder,
        watch: _Watch,
        leave: Callable[[], None],
        *,
        wants_logprobs: bool,
    ) -> None:
        """Take over an open search; :meth:`submit` makes these."""
        self.order = order
        self._search = search
        self._watch = watch
        self._wants_logprobs = wants_logprobs
        self._finding: Finding | None = None
        # Also when nobody ever reads the answer.
        self._leave = weakref.finalize(self, leave)
        self._leave.atexit = False

    @classmethod
    def submit(
        cls,
        engine: Engine,
        scorer: Scorer | None,
        request: GenerationRequest,
        problem: str,
        order: SearchOrder,
        gate: SearchGate,
        follow_up: FollowUp | None = None,
    ) -> "SearchWork":
        """Open the trees.

        Args:
            engine: Of the generator.
            scorer: Of the generator's answers.
            request: For one answer.
            problem: What the scorer is told is asked (attacker-controlled).
            order: What to do.
            gate: Lets the tenant in, or not.
            follow_up: Makes a prompt that tells of earlier answers.

        Raises:
            EngineError: Nothing was begun.
        """
        watch = _Watch()
        leave = gate.enter(request.tenant)
        try:
            search = open_search(
                order.plan, engine, scorer, request, problem, notify=watch.notify, follow_up=follow_up
            )
        except EngineError:
            leave()
            raise
        return cls(search, order, watch, leave, wants_logprobs=request.logprobs is not None)

    @property
    def usage(self) -> Usage:
        """Tokens of the generator so far: the prompt once, and every token of every candidate."""
        return self._search.usage if self._finding is None else self._finding.usage

    @property
    def max_tokens(self) -> int:
        """Longest candidate."""
        return self._search.max_tokens

    @property
    def finding(self) -> Finding:
        """What came of it.

        Raises:
            LocalProtocolError: The events were not read to their end.
        """
        if self._finding is None:
            raise LocalProtocolError("the search is not over")
        return self._finding

    @property
    def chosen(self) -> tuple[int, ...]:
        """The candidate of each choice of the answer, best first."""
        finding = self.finding
        return _chosen(self.order, finding.outcome.selection, len(finding.outcome.candidates))

    def cancel(self) -> None:
        """Stop everything. Idempotent."""
        self._search.close()
        self._leave()

    async def events(self) -> AsyncGenerator[Event | Progress, None]:
        """Progress while there is something to tell, then the chosen candidates.

        Raises:
            EngineError: What ended the search early.
        """
        running = asyncio.create_task(self._conduct())
        running.add_done_callback(lambda _: self._watch.changed.set())
        try:
            async with contextlib.aclosing(self._progress(running)) as told:
                async for progress in told:
                    yield progress
            self._finding = await running
            lines = self._finding.outcome.lines
            for index, candidate in enumerate(self.chosen):
                yield self._told(index, lines[candidate])
                complete = self._finding.outcome.candidates[candidate].complete
                yield Finished(
                    index=index, finish_reason="stop" if complete else "length", usage=self._finding.usage
                )
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            self.cancel()

    async def _conduct(self) -> Finding:
        finding = await conduct(self._search)
        budget = self.order.plan.budget
        if self.order.plan.pad_to_budget and budget.time_s is not None:
            # SECURITY: an answer that is there earlier would tell that the question was easy.
            await asyncio.sleep(max(0.0, budget.time_s - finding.spent.time_s))
        return finding

    async def _progress(self, running: "asyncio.Task[Finding]") -> AsyncGenerator[Progress, None]:
        clock = asyncio.get_running_loop().time
        due_s = clock()
        while not running.done():
            await self._watch.changed.wait()
            self._watch.changed.clear()
            progress = self._watch.progress
            # SECURITY: how soon lines end is what padding hides.
            told = running.done() or self.order.plan.pad_to_budget
            if not told and progress is not None and clock() >= due_s:
                due_s = clock() + PROGRESS_S
                yield progress

    def _told(self, index: int, line: Line) -> TextDelta:
        """A candidate as the delta of a choice, in one piece."""
        tokens, steps = _spelt(line.text, line.logprobs)
        logprobs = tokens if self._wants_logprobs else ()
        return TextDelta(index=index, text=line.text, logprobs=logprobs, steps=steps)


def _chosen(order: SearchOrder, selection: Selection, n_candidates: int) -> tuple[int, ...]:
    """The candidates that come back, best first."""
    if order.returns == "all":
        ranked: Iterable[int] = chain(selection.winners, range(n_candidates))
    elif order.fills:
        ranked = chain(selection.winners, *(vote.members for vote in selection.votes), range(n_candidates))
    else:
        ranked = selection.winners
    return tuple(dict.fromkeys(ranked))[: order.most]


def _spelt(
    text: str, tokens: Iterable[TokenLogprob]
) -> tuple[tuple[TokenLogprob, ...], tuple[tuple[int, int], ...]]:
    """Which tokens wrote a text, those of the end and of a stop string left out; and how much of it each had done."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    kept: list[TokenLogprob] = []
    steps: list[tuple[int, int]] = []
    at = 0
    for number, token in enumerate(tokens, 1):
        if at >= len(text):
            break
        n_characters = min(len(decoder.decode(token.bytes)), len(text) - at)
        kept.append(token)
        steps.append((n_characters, number))
        at += n_characters
    if steps and at < len(text):
        # Spelt-out control tokens have no bytes.
        steps.append((len(text) - at, len(kept)))
    return tuple(kept), tuple(steps)
