# SPDX-License-Identifier: Apache-2.0
"""Reads the answers of a chat: reasoning, text and tool calls, as their pieces complete.

Log-probabilities go with the first piece that follows their tokens, so that all tokens are reported in order,
those of marks and of call syntax included.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from adyton_enclave.api.pieces import Delta, Ended, Piece, ReasoningDelta, ToolCallDelta
from adyton_enclave.api.reasoning import ReasoningSplitter
from adyton_enclave.api.tool_calls import Arguments, CallParser, CallStart, Part, Text
from adyton_enclave.engine import Event, Finished, TextDelta, TokenLogprob


class _Answer:
    """Where one choice stands."""

    def __init__(self, splitter: ReasoningSplitter | None, parser: CallParser | None) -> None:
        self.splitter = splitter
        self.parser = parser
        self.reasoning_tokens = 0
        self.logprobs: tuple[TokenLogprob, ...] = ()


class ChatReader:
    """Reads all choices of one request."""

    def __init__(
        self,
        *,
        splitter: Callable[[], ReasoningSplitter] | None,
        parser: Callable[[], CallParser] | None,
        new_call_id: Callable[[], str],
    ) -> None:
        """Take what makes the two parsers, for models that reason and requests with tools."""
        self._make_splitter = splitter
        self._make_parser = parser
        self._new_call_id = new_call_id
        self._answers: dict[int, _Answer] = {}

    @property
    def reasoning_tokens(self) -> int:
        """Tokens of reasoning and its marks, of all choices."""
        return sum(answer.reasoning_tokens for answer in self._answers.values())

    def read(self, event: Event) -> Sequence[Piece]:
        """The pieces that an event completes."""
        answer = self._answers.get(event.index)
        if answer is None:
            answer = self._answers[event.index] = _Answer(
                None if self._make_splitter is None else self._make_splitter(),
                None if self._make_parser is None else self._make_parser(),
            )
        if isinstance(event, Finished):
            return self._finish(answer, event)
        answer.logprobs += event.logprobs
        pieces: list[Delta] = []
        reasoning, text = self._split(answer, event)
        if reasoning:
            pieces.append(ReasoningDelta(index=event.index, text=reasoning))
        pieces += self._pieces(answer, event.index, text)
        return _with_logprobs(answer, pieces)

    def _finish(self, answer: _Answer, event: Finished) -> Sequence[Piece]:
        index = event.index
        reasoning, text = ("", "") if answer.splitter is None else answer.splitter.finish()
        pieces: list[Delta] = [ReasoningDelta(index=index, text=reasoning)] if reasoning else []
        pieces += self._pieces(answer, index, text)
        calls = 0
        if answer.parser is not None:
            pieces += self._worded(answer.parser, index, answer.parser.finish())
            calls = answer.parser.calls
        if answer.logprobs and not pieces:
            pieces.append(TextDelta(index=index, text=""))
        reason = "tool_calls" if calls and event.finish_reason == "stop" else event.finish_reason
        end = Ended(index=index, finish_reason=reason, usage=event.usage)
        return [*_with_logprobs(answer, pieces), end]

    @staticmethod
    def _split(answer: _Answer, event: TextDelta) -> tuple[str, str]:
        """Reasoning and other text of an event, which may join the texts of several tokens."""
        splitter = answer.splitter
        if splitter is None:
            return "", event.text
        thoughts: list[str] = []
        texts: list[str] = []
        at = 0
        for length, n_generated in event.steps or ((len(event.text), 0),):
            was_inside = splitter.inside
            thought, text = splitter.push(event.text[at : at + length])
            at += length
            thoughts.append(thought)
            texts.append(text)
            if was_inside or splitter.inside:
                answer.reasoning_tokens = n_generated
        return "".join(thoughts), "".join(texts)

    def _pieces(self, answer: _Answer, index: int, text: str) -> Sequence[Delta]:
        if answer.parser is not None:
            return self._worded(answer.parser, index, answer.parser.push(text)) if text else ()
        return (TextDelta(index=index, text=text),) if text else ()

    def _worded(self, parser: CallParser, index: int, parts: Sequence[Part]) -> Sequence[Delta]:
        # The parser has counted all calls of these parts already.
        call = parser.calls - 1 - sum(isinstance(part, CallStart) for part in parts)
        pieces: list[Delta] = []
        for part in parts:
            match part:
                case Text():
                    pieces.append(TextDelta(index=index, text=part.text))
                case CallStart():
                    call += 1
                    pieces.append(
                        ToolCallDelta(index=index, call=call, call_id=self._new_call_id(), name=part.name)
                    )
                case Arguments():
                    pieces.append(ToolCallDelta(index=index, call=call, arguments=part.text))
        return pieces


def _with_logprobs(answer: _Answer, pieces: list[Delta]) -> list[Delta]:
    if answer.logprobs and pieces:
        pieces[0] = replace(pieces[0], logprobs=answer.logprobs)
        answer.logprobs = ()
    return pieces
