# SPDX-License-Identifier: Apache-2.0
"""A tree of branches in the loop: what the caller's orders do to it, and what comes of them.

All of this runs in the loop thread. Orders were checked where they were given (``tree.Branch``): here they come
in the order in which they were given, and are obeyed before the next step.
"""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Literal, Protocol

from adyton_enclave.engine.branch_text import BranchText
from adyton_enclave.engine.evaluation import Evaluation, Question
from adyton_enclave.engine.probe import Probe
from adyton_enclave.engine.request import GenerationRequest, TokenLogprob, Usage
from adyton_enclave.engine.scheduler import Scheduler
from adyton_enclave.engine.sequence import Group, Outbox, Phase, Sequence

PauseReason = Literal["until", "length", "stop", "limit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """What one ``extend`` added to a branch.

    Attributes:
        token_ids: Generated tokens, with the end-of-text token if it came.
        text: Their text, a delimiter of ``until`` included, a stop string not.
        n_recalled: Characters at the end of the text of *earlier* extensions that turned out to belong to a
            stop string.
        reason: ``until``: a delimiter came. ``length``: the extension has as many tokens as it was allowed.
            ``stop``: the model or a stop string ended the text. ``limit``: the branch has as many tokens as the
            request allows.
        logprobs: One item per token if the request asked for log-probabilities, else empty.
    """

    token_ids: tuple[int, ...] = field(repr=False)
    text: str = field(repr=False)
    n_recalled: int
    reason: PauseReason
    logprobs: tuple[TokenLogprob, ...] = field(default=(), repr=False)

    @property
    def logprob(self) -> float:
        """Sum of the tokens' log-probabilities under the raw logits; NaN if the request did not ask for them."""
        if len(self.logprobs) < len(self.token_ids):
            return math.nan
        return math.fsum(token.logprob for token in self.logprobs)


Result = Extension | Evaluation


class TreeOutbox(Outbox, Protocol):
    """Where results go."""

    def post(self, number: int, result: Result) -> None:
        """Queue the result of what branch ``number`` was doing."""


class BranchSequence(Sequence):
    """One branch of a tree. Owned by the loop thread."""

    __slots__ = ("_details", "_first", "_limit", "_tree", "depth", "n_inherited", "number", "text")

    def __init__(self, tree: "TreeGroup", number: int, path: tuple[int, ...], token_ids: list[int]) -> None:
        """Start paused."""
        super().__init__(tree, path, token_ids)
        self._tree = tree
        self.number = number
        self.depth = 0
        self.n_inherited = 0
        self.text = BranchText(tree.request.stop)
        self.phase = Phase.PAUSED
        self._first = self._limit = len(token_ids)
        self._details: list[TokenLogprob] = []

    @property
    def n_wanted(self) -> int:
        """Most tokens that may still be drawn before the branch pauses."""
        return self._limit - len(self.token_ids)

    def fork(self, number: int, path: tuple[int, ...]) -> "BranchSequence":
        """A new branch that begins with all tokens of this one."""
        child = BranchSequence(self._tree, number, path, list(self.token_ids))
        child.parent, child.depth, child.n_inherited = self, self.depth + 1, len(self.token_ids)
        child.text = self.text.fork()
        self.n_unborn += 1
        return child

    def append(self, token_ids: Collection[int]) -> None:
        """Continue with given tokens."""
        self.token_ids.extend(token_ids)
        if self.draw_state is not None and self.draw_state.edits is not None:
            for token_id in token_ids:
                self.draw_state.edits.accept(token_id)

    def begin_extension(self, until: tuple[str, ...], max_tokens: int) -> None:
        """Draw tokens from now on."""
        self._first = len(self.token_ids)
        self._limit = min(self._first + max_tokens, self._tree.max_length)
        self._details = []
        self.text.begin(until)

    def begin_evaluation(self, question: Question) -> int:
        """Read logits from now on; the first position to read."""
        self._limit = len(self.token_ids)
        self.probe = Probe(question, len(self.token_ids))
        return self.probe.first

    def take(self, token_id: int, piece: bytes | None, detail: TokenLogprob | None) -> Phase:
        """Append a drawn token; at the end of the extension post it and pause."""
        self.token_ids.append(token_id)
        self.group.n_completion += 1
        if detail is not None:
            self._details.append(detail)
        reason: PauseReason | None = None
        if piece is None:
            self.text.finish()
            reason = "stop"
        elif self.text.push(piece):
            reason = "stop"
        elif self.text.reached:
            reason = "until"
        elif len(self.token_ids) >= self._limit:
            reason = "limit" if self._limit == self._tree.max_length else "length"
        if reason is None:
            return Phase.RUNNING
        step, cut = self.text.step, self.text.cut
        extension = Extension(
            token_ids=tuple(self.token_ids[self._first :]),
            text=step[: max(0, len(step) - cut)],
            n_recalled=max(0, cut - len(step)),
            reason=reason,
            logprobs=tuple(self._details),
        )
        self._tree.mailbox.post(self.number, extension)
        return Phase.PAUSED

    def report(self) -> None:
        """Post the evaluation."""
        if self.probe is not None:
            self._tree.mailbox.post(self.number, self.probe.result())
        super().report()


class TreeGroup(Group):
    """All branches of a tree. Owned by the loop thread."""

    __slots__ = ("_asked", "_branches", "_n_appended", "_width", "max_length")

    mailbox: TreeOutbox

    def __init__(self, request: GenerationRequest, mailbox: TreeOutbox, deadline_s: float | None) -> None:
        """Start with a paused root, number 0, of which nothing is computed."""
        super().__init__(request, mailbox, deadline_s)
        self.max_length = self.n_prompt + request.max_tokens
        root = BranchSequence(self, 0, (request.first_choice,), list(request.prompt_token_ids))
        self._branches = {0: root}
        self._width = 1
        self._n_appended = 0
        self._asked = False

    @property
    def sequences(self) -> Collection[BranchSequence]:
        """Branches that were not pruned, and pruned ones whose cells are still wanted."""
        return self._branches.values()

    @property
    def width(self) -> int:
        """Most branches that held or might have held cells at a time."""
        return self._width

    @property
    def queued(self) -> bool:
        """True while it waits for its first step."""
        return self._asked and not self.started

    @property
    def usage(self) -> Usage:
        """Given and generated tokens so far, each once, however many branches share them."""
        return Usage(
            prompt_tokens=self.n_prompt + self._n_appended,
            completion_tokens=self.n_completion,
            cached_prompt_tokens=self.n_cached,
        )

    @property
    def over(self) -> bool:
        """Never: only its owner closes a tree."""
        return False

    def common(self, one: Sequence, other: Sequence, /) -> int:
        """Tokens up to the fork at which two branches part."""
        if not isinstance(one, BranchSequence) or not isinstance(other, BranchSequence):
            raise TypeError("a tree is made of branches")
        at: Sequence | None = one
        to: Sequence | None = other
        common = min(len(one.token_ids), len(other.token_ids))
        while at is not to and isinstance(at, BranchSequence) and isinstance(to, BranchSequence):
            if at.depth >= to.depth:
                common, at = min(common, at.n_inherited), at.parent
            else:
                common, to = min(common, to.n_inherited), to.parent
        return common

    def forget(self, sequence: Sequence, /) -> None:
        """Let go of a branch that is over; its descendants still need to know where they parted."""
        if isinstance(sequence, BranchSequence):
            del self._branches[sequence.number]
            sequence.token_ids = []

    def fork(self, scheduler: Scheduler, number: int, child: int, path: tuple[int, ...]) -> None:
        """Make a paused branch ``child`` of branch ``number``."""
        del scheduler  # A fork costs nothing before it is extended.
        self._branches[child] = self._branches[number].fork(child, path)
        self._width = max(self._width, len(self._branches))

    def append(self, scheduler: Scheduler, number: int, token_ids: tuple[int, ...]) -> None:
        """Continue a paused branch with given tokens."""
        del scheduler
        self._n_appended += len(token_ids)
        self._branches[number].append(token_ids)

    def extend(self, scheduler: Scheduler, number: int, until: tuple[str, ...], max_tokens: int) -> None:
        """Let a paused branch generate."""
        branch = self._branches[number]
        branch.begin_extension(until, max_tokens)
        scheduler.rewind(branch, len(branch.token_ids) - 1)
        self._resume(scheduler, branch)

    def evaluate(self, scheduler: Scheduler, number: int, question: Question) -> None:
        """Let a paused branch answer a question."""
        branch = self._branches[number]
        scheduler.rewind(branch, branch.begin_evaluation(question))
        self._resume(scheduler, branch)

    def prune(self, scheduler: Scheduler, number: int) -> None:
        """Drop a branch, whatever it is doing."""
        scheduler.drop(self._branches[number])

    def _resume(self, scheduler: Scheduler, branch: BranchSequence) -> None:
        self._asked = True
        scheduler.resume(branch)


@dataclass(frozen=True, slots=True)
class Order:
    """Something to do in a tree, for its lane."""

    group: TreeGroup
    obey: Callable[[Scheduler], None] = field(repr=False)
