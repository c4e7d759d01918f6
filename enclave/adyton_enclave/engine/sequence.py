# SPDX-License-Identifier: Apache-2.0
"""One sequence, and the group of sequences that one request asked for.

A sequence is its tokens and how many of them are computed, that is, stand in the KV cache. Everything else
follows: what is left to compute is prefill when it is several tokens and decode when it is one; the logits of
the last token give the next; a preempted sequence is one whose computed count fell back to zero.

A fork shares all computed tokens but never the last token of the prompt: each choice computes that one itself
and so gets a row of logits of its own. It costs one cell per choice and needs no special case anywhere.
"""

from collections.abc import Sequence as Seq
from enum import Enum, auto

from adyton_enclave.engine.detokenizer import TextAssembler
from adyton_enclave.engine.draw_state import DrawState
from adyton_enclave.engine.generation import Mailbox
from adyton_enclave.engine.kv_budget import KvLease
from adyton_enclave.engine.request import GenerationRequest, Usage


class Phase(Enum):
    """Where a sequence stands with the scheduler."""

    HELD = auto()  # waits until a sibling has computed the prompt
    WAITING = auto()
    RUNNING = auto()
    DONE = auto()


class Sequence:
    """One choice of one request. Owned by the loop thread."""

    __slots__ = (
        "draw_state",
        "group",
        "index",
        "lease",
        "n_computed",
        "path",
        "phase",
        "seq_id",
        "text",
        "token_ids",
    )

    def __init__(self, group: "Group", index: int) -> None:
        """Start with the prompt, nothing computed."""
        request = group.request
        self.group = group
        self.index = index
        self.path = (request.first_choice + index,)
        self.token_ids = list(request.prompt_token_ids)
        self.n_computed = 0
        self.phase = Phase.HELD
        self.seq_id = -1
        self.lease: KvLease | None = None
        self.text = TextAssembler(request.stop)
        self.draw_state: DrawState | None = None

    @property
    def n_remaining(self) -> int:
        """Tokens to compute before the next one can be drawn; at least one while the sequence lives."""
        return len(self.token_ids) - self.n_computed

    @property
    def n_generated(self) -> int:
        """Tokens drawn so far."""
        return len(self.token_ids) - self.group.n_prompt

    @property
    def n_wanted(self) -> int:
        """Tokens that may still be drawn."""
        return self.group.request.max_tokens - self.n_generated

    @property
    def has_prefix(self) -> bool:
        """True when siblings can fork from this sequence's KV cells."""
        return self.phase is Phase.RUNNING and self.n_computed >= self.group.n_shared


class Group:
    """One request: its sequences, its usage and where its events go. Owned by the loop thread."""

    __slots__ = (
        "deadline_s",
        "live",
        "mailbox",
        "n_completion",
        "n_prompt",
        "request",
        "sequences",
        "started",
    )

    def __init__(self, request: GenerationRequest, mailbox: Mailbox, deadline_s: float | None) -> None:
        """Create the sequences; ``deadline_s`` is on the engine's monotonic clock."""
        self.request = request
        self.mailbox = mailbox
        self.deadline_s = deadline_s
        self.n_prompt = len(request.prompt_token_ids)
        self.n_completion = 0
        self.started = False
        self.sequences: Seq[Sequence] = [Sequence(self, index) for index in range(request.n)]
        self.live = request.n

    @property
    def n_shared(self) -> int:
        """Prompt tokens whose cells a fork shares: all but the last."""
        return self.n_prompt - 1

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        return Usage(prompt_tokens=self.n_prompt, completion_tokens=self.n_completion)
