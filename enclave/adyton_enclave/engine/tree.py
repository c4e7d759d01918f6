# SPDX-License-Identifier: Apache-2.0
r"""The caller's end of a tree search: extend branches, fork them, prune them, ask a model about them.

A tree grows from one prompt. Its branches share the KV cells of what they have in common, and those of all trees,
choices and models are computed in the same loop::

    with engine.open_tree(request) as tree:
        branches = tree.root.fork(8)
        steps = await asyncio.gather(*(branch.extend(until=("\n",)) for branch in branches))
        best, *others = sorted(branches, key=score)
        for branch in others:
            branch.prune()
        branches = best.fork(8)

What is drawn on a branch depends on the request, on the branch's path and on its tokens, and on nothing else:
neither on when it was forked or paused nor on what else was computed. The root's path is that of an ordinary
choice, so a root that is extended to its end gives the answer of the ordinary request; the ``k``-th fork of a
branch adds ``k`` to its path.

Everything here runs in one event loop. Orders take effect before the engine's next step, in the order in which
they were given.
"""

import asyncio
import itertools
import math
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Final, Self, TypeVar

from adyton_enclave.engine.doorbell import Doorbell
from adyton_enclave.engine.evaluation import Evaluation, Question
from adyton_enclave.engine.generation import abandon
from adyton_enclave.engine.loaded_model import LoadedModel
from adyton_enclave.engine.request import GenerationRequest, Usage
from adyton_enclave.engine.tree_group import Extension, Order, Result, TreeGroup
from adyton_protocol.errors import (
    Cancelled,
    ContextOverflow,
    EngineError,
    InvalidRequest,
    LocalProtocolError,
)

Command = Callable[..., None]
"""A method of :class:`TreeGroup` with all arguments but the group, the scheduler and the branch's number."""

R = TypeVar("R", Extension, Evaluation)

MAX_FORKS: Final = 2**32
"""Of one branch: an element of a path has 32 bits."""


class Branch:
    """A branch of a tree: a sequence of tokens that can be continued in several ways. Made by :meth:`fork`.

    Attributes:
        path: What its draws depend on, beside the request and its tokens.
        number: Its name within the tree.
    """

    def __init__(self, link: "Link", number: int, path: tuple[int, ...], parent: "Branch | None") -> None:
        """Only :class:`Tree` and :meth:`fork` make these."""
        self.path = path
        self._link = link
        self.number = number
        self._n_forks = 0
        self._pruned = False
        self._extending: asyncio.Future[Extension] | None = None
        self._evaluating: asyncio.Future[Evaluation] | None = None
        self._token_ids = list(link.request.prompt_token_ids if parent is None else parent.token_ids)
        self._text = "" if parent is None else parent.text
        self._ended = parent is not None and parent.ended
        if parent is not None:
            self._logprob = parent.logprob
        else:
            self._logprob = math.nan if link.request.logprobs is None else 0.0

    @property
    def token_ids(self) -> tuple[int, ...]:
        """All tokens: the prompt, what was appended, what was generated."""
        return tuple(self._token_ids)

    @property
    def text(self) -> str:
        """The text of all that was generated, without a stop string."""
        return self._text

    @property
    def logprob(self) -> float:
        """Log-probability of all that was generated; NaN unless the request asked for log-probabilities."""
        return self._logprob

    @property
    def ended(self) -> bool:
        """True when there is nothing to extend: the text ended, or the branch is as long as the request allows."""
        return self._ended or not self.n_left

    @property
    def n_left(self) -> int:
        """Tokens by which the branch may still grow."""
        request = self._link.request
        return len(request.prompt_token_ids) + request.max_tokens - len(self._token_ids)

    @property
    def busy(self) -> bool:
        """True while it is extended or evaluated."""
        return self._extending is not None or self._evaluating is not None

    def fork(self, n: int = 1) -> list["Branch"]:
        """Make ``n`` branches that begin with all tokens of this one. Costs nothing until they are extended.

        Raises:
            LocalProtocolError: The branch is busy or was pruned.
        """
        self._check_idle()
        if n < 1 or self._n_forks + n > MAX_FORKS:
            raise LocalProtocolError("a branch is forked at least once")
        first, self._n_forks = self._n_forks, self._n_forks + n
        return [self._link.sprout(self, (*self.path, k)) for k in range(first, first + n)]

    async def extend(self, *, until: Sequence[str] = (), max_tokens: int | None = None) -> Extension:
        """Generate on this branch, then pause. If the waiting task is cancelled, the branch is pruned.

        Args:
            until: Delimiters: the extension is over with the token that completes one of them. They stay in the
                text. Only text of this extension counts.
            max_tokens: Most tokens of this extension; None is as many as the request allows.

        Raises:
            LocalProtocolError: The branch is busy, was pruned, or has ended.
            InvalidRequest: An empty delimiter, or no token at all.
            Cancelled: The tree was closed or the branch pruned meanwhile, or the tree's time is up.
            EngineError: What else ended the tree.
        """
        self._check_idle()
        if self.ended:
            raise LocalProtocolError("the branch has ended")
        if any(not text for text in until):
            raise InvalidRequest("a delimiter must not be empty")
        limit = self.n_left if max_tokens is None else max_tokens
        if limit < 1:
            raise InvalidRequest("an extension has at least one token")
        future: asyncio.Future[Extension] = asyncio.get_running_loop().create_future()
        self._extending = future
        self._link.begin(self, partial(TreeGroup.extend, until=tuple(until), max_tokens=limit))
        return await self._result(future)

    def append(self, token_ids: Sequence[int]) -> None:
        """Continue the branch with given tokens. They are computed when it is next extended or evaluated.

        A branch that ended goes on. The tokens are no part of ``text`` and ``logprob``.

        Raises:
            LocalProtocolError: The branch is busy or was pruned, or its answer has to follow a grammar.
            InvalidRequest: Token ids outside the vocabulary.
            ContextOverflow: More than the request allows.
        """
        self._check_idle()
        if self._link.request.constraint is not None:
            raise LocalProtocolError("nothing is put into an answer that has to follow a grammar")
        self._link.check_token_ids(token_ids)
        if len(token_ids) > self.n_left:
            raise ContextOverflow(f"{len(token_ids)} more tokens where {self.n_left} are allowed")
        self._token_ids += token_ids
        self._ended = False
        self._link.order(self, partial(TreeGroup.append, token_ids=tuple(token_ids)))

    async def evaluate(self, question: Question) -> Evaluation:
        """Compute all tokens of this branch and report logits at some of them, then pause.

        Only what is not in the cache is computed: after :meth:`append`, the appended tokens. Asking at an earlier
        position again costs all tokens from there. If the waiting task is cancelled, the branch is pruned.

        Raises:
            LocalProtocolError: The branch is busy or was pruned.
            InvalidRequest: A position or a label that does not exist, or hidden states that are not kept.
            Cancelled: The tree was closed or the branch pruned meanwhile, or the tree's time is up.
            EngineError: What else ended the tree.
        """
        self._check_idle()
        self._link.check_token_ids(question.label_ids)
        if question.n_top > self._link.n_vocab:
            raise InvalidRequest("more top logits than tokens in the vocabulary")
        if question.hidden and not self._link.hidden_width:
            raise InvalidRequest("this model was loaded without hidden states")
        length = len(self._token_ids)
        if not all(-length <= position < length for position in question.positions):
            raise InvalidRequest("a position lies outside the branch")
        future: asyncio.Future[Evaluation] = asyncio.get_running_loop().create_future()
        self._evaluating = future
        self._link.begin(self, partial(TreeGroup.evaluate, question=question))
        return await self._result(future)

    def prune(self) -> None:
        """Drop the branch, whatever it is doing; its forks live on. Idempotent."""
        if not self._pruned:
            self._pruned = True
            self._link.mailbox.busy.pop(self.number, None)
            self.fail(Cancelled("the branch was pruned"))
            self._link.order(self, TreeGroup.prune)

    def receive(self, result: Result) -> None:
        """Take the result of what the branch was doing. For the tree's mailbox."""
        if isinstance(result, Extension):
            future, self._extending = self._extending, None
            self._token_ids += result.token_ids
            self._text = self._text[: len(self._text) - result.n_recalled] + result.text
            self._logprob += result.logprob
            self._ended = result.reason == "stop"
            if future is not None and not future.done():
                future.set_result(result)
        else:
            waiting, self._evaluating = self._evaluating, None
            if waiting is not None and not waiting.done():
                waiting.set_result(result)

    def fail(self, error: EngineError) -> None:
        """End what the branch is doing. For the tree."""
        for future in (self._extending, self._evaluating):
            if future is not None and not future.done():
                future.set_exception(error)
        self._extending = self._evaluating = None

    async def _result(self, future: "asyncio.Future[R]") -> R:
        try:
            return await future
        except asyncio.CancelledError:
            self.prune()
            raise

    def _check_idle(self) -> None:
        if self._pruned:
            raise LocalProtocolError("the branch was pruned")
        if self.busy:
            raise LocalProtocolError("the branch is busy")
        self._link.check_open()


class TreeMailbox:
    """Results on their way to one event loop. The loop thread holds this, not the Tree.

    ``post``, ``close`` and ``collect`` are for the loop thread, the rest for the event loop. ``cancelled`` is
    written by one side and read by the other, and only ever becomes true. Every result is ``urgent``: nothing more
    comes from a branch before somebody has seen it.
    """

    __slots__ = (
        "_closing",
        "_failure_out",
        "_outgoing",
        "bell",
        "busy",
        "cancelled",
        "ended",
        "failure",
        "urgent",
        "usage",
    )

    def __init__(self, bell: Doorbell, usage: Usage) -> None:
        """Start empty; ``bell`` rings in the caller's event loop."""
        self.bell = bell
        self.usage = usage
        self.cancelled = False
        self.ended = False
        self.urgent = False
        self.failure: EngineError | None = None
        self.busy: dict[int, Branch] = {}
        self._closing = False
        self._failure_out: EngineError | None = None
        self._outgoing: list[tuple[int, Result]] = []

    def post(self, number: int, result: Result) -> None:
        """Queue the result of what branch ``number`` was doing."""
        self._outgoing.append((number, result))
        self.urgent = True

    def close(self, failure: EngineError | None = None) -> None:
        """Queue the end, after which nothing is posted; the first end counts."""
        if not self._closing:
            self._closing = self.urgent = True
            self._failure_out = failure

    def collect(self, usage: Usage) -> Callable[[], None]:
        """Take everything queued; return what the event loop has to run."""
        results, self._outgoing = self._outgoing, []
        self.urgent = False
        ends, failure = self._closing, self._failure_out

        def receive() -> None:
            self.usage = usage
            for number, result in results:
                # A branch that was pruned meanwhile is not there any more.
                if (branch := self.busy.pop(number, None)) is not None:
                    branch.receive(result)
            if ends and not self.ended:
                self.ended = True
                self.failure = failure
                self.fail()

        return receive

    def fail(self) -> None:
        """Fail whatever is still under way."""
        busy, self.busy = self.busy, {}
        for branch in busy.values():
            branch.fail(self.failure or Cancelled("the tree was closed"))


class Link:
    """What the branches of a tree need to reach it. When the last of them is gone, so is the tree."""

    def __init__(
        self,
        group: TreeGroup,
        mailbox: TreeMailbox,
        model: LoadedModel,
        send: Callable[[Order], None],
        notify: Callable[[], None],
    ) -> None:
        """Only the engine makes these.

        Args:
            group: The tree in the loop; nothing that changes is touched here.
            mailbox: Where its results come.
            model: What it is about.
            send: Puts an order into the engine's inbox.
            notify: Wakes the loop thread.
        """
        self.request = group.request
        self.n_vocab = model.n_vocab
        self.hidden_width = model.hidden_width
        self.mailbox = mailbox
        self._group = group
        self._send = send
        self._notify = notify
        self._numbers = itertools.count(1)
        self._finalizer = weakref.finalize(self, abandon, mailbox, notify)
        self._finalizer.atexit = False

    def close(self) -> None:
        """Free everything; what is under way fails."""
        abandon(self.mailbox, self._notify)
        self.mailbox.fail()

    def check_open(self) -> None:
        """Raise what ended the tree, if something did."""
        if self.mailbox.failure is not None:
            raise self.mailbox.failure
        if self.mailbox.cancelled or self.mailbox.ended:
            raise Cancelled("the tree was closed")

    def check_token_ids(self, token_ids: Sequence[int]) -> None:
        """Raise InvalidRequest if one lies outside the vocabulary."""
        if not all(0 <= token_id < self.n_vocab for token_id in token_ids):
            raise InvalidRequest("a token id lies outside the vocabulary")

    def sprout(self, parent: Branch, path: tuple[int, ...]) -> Branch:
        """Make a fork of a branch."""
        child = Branch(self, next(self._numbers), path, parent)
        self.order(parent, partial(TreeGroup.fork, child=child.number, path=path))
        return child

    def begin(self, branch: Branch, command: Command) -> None:
        """Send an order on which a result follows."""
        self.mailbox.busy[branch.number] = branch
        self.order(branch, command)

    def order(self, branch: Branch, command: Command) -> None:
        """Send an order."""
        self._send(Order(self._group, partial(command, self._group, number=branch.number)))


class Tree:
    """A tree search under way. Use it as a context manager: leaving closes it and frees everything it holds.

    Attributes:
        root: The branch of the prompt alone.
    """

    def __init__(self, link: Link) -> None:
        """Only :meth:`Engine.open_tree` makes these."""
        self._link = link
        self.root = Branch(link, 0, (link.request.first_choice,), None)

    @property
    def request(self) -> GenerationRequest:
        """What it was opened with."""
        return self._link.request

    @property
    def usage(self) -> Usage:
        """Tokens so far: given ones (the prompt, what was appended) and generated ones, each once."""
        return self._link.mailbox.usage

    def close(self) -> None:
        """Free everything within one step; what is under way fails with Cancelled. Idempotent."""
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
