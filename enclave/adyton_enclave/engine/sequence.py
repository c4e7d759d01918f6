# SPDX-License-Identifier: Apache-2.0
"""One sequence, and the group of sequences that one request asked for.

A sequence is its tokens and how many of them are computed, that is, stand in the KV cache. Everything else
follows: what is left to compute is prefill when it is several tokens and decode when it is one; the logits of
the last token give the next; a preempted sequence is one whose computed count fell back to zero.

A fork shares computed tokens but never a token whose logits it wants itself, which for a sequence that generates
is its last one: it computes that one alone and so gets a row of logits of its own. It costs one cell and needs
no special case anywhere.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from enum import Enum, auto
from typing import Protocol

from adyton_enclave.engine.doorbell import Doorbell
from adyton_enclave.engine.draw_state import DrawState
from adyton_enclave.engine.kv_budget import KvLease
from adyton_enclave.engine.probe import Probe
from adyton_enclave.engine.request import GenerationRequest, TokenLogprob, Usage
from adyton_protocol.errors import EngineError


class Phase(Enum):
    """Where a sequence stands with the scheduler."""

    HELD = auto()  # waits until a relative has computed what both begin with
    WAITING = auto()
    RUNNING = auto()
    PAUSED = auto()  # wants nothing computed for now; keeps its cells while there are enough
    RETIRED = auto()  # over, but forks that were never admitted still want its cells
    DONE = auto()


class Sequence(ABC):
    """Tokens on their way through the model. Owned by the loop thread.

    Attributes:
        path: What its draws depend on beside key and position.
        probe: What is to be read from the logits of given tokens; None when the next token is drawn instead.
        parent: Whom it was forked from, and whose first cells it can share.
        n_unborn: Forks of this one that were never admitted and may want its cells.
        admitted: True once it ever held cells.
    """

    __slots__ = (
        "admitted",
        "draw_state",
        "group",
        "lease",
        "n_computed",
        "n_unborn",
        "parent",
        "path",
        "phase",
        "probe",
        "seq_id",
        "token_ids",
    )

    def __init__(self, group: "Group", path: tuple[int, ...], token_ids: list[int]) -> None:
        """Start with these tokens, nothing computed."""
        self.group = group
        self.path = path
        self.token_ids = token_ids
        self.n_computed = 0
        self.phase = Phase.HELD
        self.seq_id = -1
        self.lease: KvLease | None = None
        self.draw_state: DrawState | None = None
        self.probe: Probe | None = None
        self.parent: Sequence | None = None
        self.n_unborn = 0
        self.admitted = False

    @property
    def n_remaining(self) -> int:
        """Tokens to compute before the next one can be drawn; at least one while the sequence runs."""
        return len(self.token_ids) - self.n_computed

    @property
    def n_shareable(self) -> int:
        """Tokens whose cells may be another's: those whose logits nobody wants any more."""
        return len(self.token_ids) - 1 if self.probe is None else self.probe.first

    @property
    def n_generated(self) -> int:
        """Tokens beyond the prompt."""
        return len(self.token_ids) - self.group.n_prompt

    @property
    @abstractmethod
    def n_wanted(self) -> int:
        """Most tokens that may still be drawn before the sequence ends or pauses."""

    @abstractmethod
    def take(self, token_id: int, piece: bytes | None, detail: TokenLogprob | None) -> Phase:
        """Append a drawn token and post what it changes.

        Args:
            token_id: It.
            piece: Its bytes; None when it ends the text.
            detail: Its log-probabilities if the request wants them.

        Returns:
            RUNNING to go on, or the phase to change to.
        """

    def report(self) -> None:
        """The probe has read all that it was to read; post it."""
        self.probe = None


class Outbox(Protocol):
    """The loop thread's side of where a group's events go. What is ``urgent`` does not wait for more."""

    bell: Doorbell
    cancelled: bool
    urgent: bool

    def close(self, failure: EngineError | None = None) -> None:
        """Queue the end, after which nothing is posted; the first end counts."""

    def collect(self, usage: Usage) -> Callable[[], None]:
        """Take everything queued; return what the event loop has to run."""


class Group(ABC):
    """One request: its sequences, its usage and where its events go. Owned by the loop thread.

    Attributes:
        deadline_s: On the engine's monotonic clock; None is never.
        started: True once any of its sequences ran.
        held: Sequences in phase HELD.
        cache_namespace: Where finished sequences are kept and looked for; None is nowhere.
        n_cached: Prompt tokens that were found there.
    """

    __slots__ = (
        "cache_namespace",
        "deadline_s",
        "held",
        "mailbox",
        "n_cached",
        "n_completion",
        "n_prompt",
        "request",
        "started",
    )

    def __init__(self, request: GenerationRequest, mailbox: Outbox, deadline_s: float | None) -> None:
        """Start with nothing computed."""
        self.request = request
        self.mailbox = mailbox
        self.deadline_s = deadline_s
        self.n_prompt = len(request.prompt_token_ids)
        self.n_completion = 0
        self.started = False
        self.held: list[Sequence] = []
        self.cache_namespace = request.cache_namespace
        self.n_cached = 0

    @property
    @abstractmethod
    def sequences(self) -> Collection[Sequence]:
        """All sequences that hold or may ever hold cells."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Most sequences that it had at a time, whether or not they wanted anything."""

    @property
    def queued(self) -> bool:
        """True while it waits for its first step."""
        return not self.started

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        return Usage(
            prompt_tokens=self.n_prompt,
            completion_tokens=self.n_completion,
            cached_prompt_tokens=self.n_cached,
        )

    @abstractmethod
    def common(self, one: Sequence, other: Sequence, /) -> int:
        """With how many tokens two different sequences of the group are known to begin alike."""

    @abstractmethod
    def forget(self, sequence: Sequence, /) -> None:
        """A sequence is done and holds nothing."""

    @property
    @abstractmethod
    def over(self) -> bool:
        """True when nothing can come any more."""
