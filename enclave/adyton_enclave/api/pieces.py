# SPDX-License-Identifier: Apache-2.0
"""What an answer consists of, before any endpoint words it: text, reasoning, tool calls, the end.

The engine's text deltas become pieces in a :class:`Reader`, one per request. Presenters word pieces. A whole answer
is the same pieces, gathered, so that it says what the stream would have said.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from adyton_enclave.engine import Event, Finished, TextDelta, TokenLogprob, Usage

EndReason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningDelta:
    """More of what choice ``index`` thinks before it answers."""

    index: int
    text: str = field(repr=False)
    logprobs: tuple[TokenLogprob, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallDelta:
    """More of a tool call of choice ``index``.

    Attributes:
        call: Which call of this choice, from 0.
        call_id: Set on the first piece of each call only.
        name: The function; set on the first piece of each call only.
        arguments: More of the JSON text of the arguments.
    """

    index: int
    call: int
    call_id: str | None = None
    name: str | None = field(default=None, repr=False)
    arguments: str = field(default="", repr=False)
    logprobs: tuple[TokenLogprob, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """Choice ``index`` is complete."""

    index: int
    finish_reason: EndReason
    usage: Usage


Delta = TextDelta | ReasoningDelta | ToolCallDelta
Piece = Delta | Ended


class Reader(Protocol):
    """Turns the engine's events of one request into pieces. Keeps the state of every choice."""

    @property
    def reasoning_tokens(self) -> int:
        """Tokens so far that were reasoning, of all choices."""
        ...

    def read(self, event: Event) -> Sequence[Piece]:
        """The pieces that an event completes; every character of its text is in some piece, now or later."""
        ...


class PlainReader:
    """All text is text."""

    reasoning_tokens = 0

    def read(self, event: Event) -> Sequence[Piece]:
        """The event itself."""
        if isinstance(event, Finished):
            return (Ended(index=event.index, finish_reason=event.finish_reason, usage=event.usage),)
        return (event,)


@dataclass(slots=True, kw_only=True)
class ToolCall:
    """A tool call, gathered."""

    call_id: str
    name: str = field(repr=False)
    arguments: list[str] = field(default_factory=list, repr=False)


@dataclass(slots=True, kw_only=True)
class Choice:
    """One answer, gathered.

    Attributes:
        pieces: Everything in the order in which it came.
    """

    pieces: list[Piece] = field(default_factory=list, repr=False)
    text: list[str] = field(default_factory=list, repr=False)
    reasoning: list[str] = field(default_factory=list, repr=False)
    tool_calls: list[ToolCall] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list, repr=False)
    finish_reason: EndReason | None = None

    def add(self, piece: Piece) -> None:
        """Take in the next piece of this choice."""
        self.pieces.append(piece)
        if isinstance(piece, Ended):
            self.finish_reason = piece.finish_reason
            return
        self.logprobs.extend(piece.logprobs)
        match piece:
            case TextDelta():
                self.text.append(piece.text)
            case ReasoningDelta():
                self.reasoning.append(piece.text)
            case ToolCallDelta():
                if piece.call_id is not None:
                    self.tool_calls.append(ToolCall(call_id=piece.call_id, name=piece.name or ""))
                self.tool_calls[piece.call].arguments.append(piece.arguments)

    @property
    def mean_logprob(self) -> float:
        """Mean log-probability of the tokens; that of an empty answer is the worst there is."""
        if not self.logprobs:
            return float("-inf")
        return sum(entry.logprob for entry in self.logprobs) / len(self.logprobs)


def best(choices: Sequence[Choice], *, prompts: int, n: int) -> list[Choice]:
    """The ``n`` choices of each prompt with the highest mean log-probability, best first; ties by index."""
    each = len(choices) // prompts
    if each == n:
        return list(choices)
    chosen: list[Choice] = []
    for at in range(0, len(choices), each):
        ranked = sorted(choices[at : at + each], key=lambda choice: -choice.mean_logprob)
        chosen += ranked[:n]
    return chosen
