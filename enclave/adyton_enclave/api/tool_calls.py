# SPDX-License-Identifier: Apache-2.0
"""Finds tool calls in the text of an answer as it grows.

A call is recognised by its head, up to the name of a declared function and the opening of its arguments; from
there on the arguments stream. Whatever turns out not to be a call is text, unchanged: nothing is lost but the syntax
around calls and the white space beside them. How the text is cut into pieces makes no difference to what comes out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from adyton_enclave.api.call_syntax import SYNTAXES, WHITE_SPACE, Match, Pattern, Verdict, scan
from adyton_enclave.engine.dialect import ToolFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Not part of any call."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallStart:
    """The next call begins."""

    name: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """More of the latest call's arguments."""

    text: str = field(repr=False)


Part = Text | CallStart | Arguments


class _State(Enum):
    TEXT = auto()
    ARGUMENTS = auto()
    BEHIND = auto()  # arguments are complete, the rest of the call is not


class _ObjectScanner:
    """Finds the end of a JSON object that arrives in pieces."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self.closed = False

    def end(self, text: str) -> int:
        """How much of ``text`` still belongs to the object."""
        for at, character in enumerate(text):
            if self._in_string:
                self._string(character)
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if not self._depth:
                    self.closed = True
                    return at + 1
        return len(text)

    def _string(self, character: str) -> None:
        if self._escaped:
            self._escaped = False
        elif character == "\\":
            self._escaped = True
        elif character == '"':
            self._in_string = False


class CallParser:
    """Splits the answer of one choice into text and calls."""

    def __init__(self, tool_format: ToolFormat, names: Sequence[str]) -> None:
        """Recognise calls of these functions."""
        self._syntax = SYNTAXES[tool_format]
        self._names = tuple(f'{name}"' for name in names)
        self._state = _State.TEXT
        self._held = ""
        self._space = ""
        self._begun = False
        self._after_text = False
        self._scanner = _ObjectScanner()
        self.calls = 0

    def push(self, text: str) -> list[Part]:
        """Add text; return what it completes."""
        self._held += text
        parts: list[Part] = []
        while self._step(parts):
            pass
        return parts

    def finish(self) -> list[Part]:
        """The answer ended: what was held back is text, unless it is the unfinished end of a call."""
        parts: list[Part] = []
        if self._state is _State.TEXT:
            self._text(self._held, parts)
            if self._space and not self.calls:
                parts.append(Text(text=self._space))
        self._held = self._space = ""
        return parts

    def _step(self, parts: list[Part]) -> bool:
        """Go one state further; false when more text is needed."""
        match self._state:
            case _State.TEXT:
                return self._search(parts)
            case _State.ARGUMENTS:
                return self._arguments(parts)
            case _State.BEHIND:
                return self._behind(parts)

    def _search(self, parts: list[Part]) -> bool:
        """Text up to where a call begins or may begin."""
        at = 0
        while (found := self._candidate(at)) is not None:
            verdict = self._opens(found)
            if isinstance(verdict, Match):
                self._text(self._held[:found], parts)
                self._start(verdict, parts)
                return True
            if verdict is Verdict.MORE:
                self._text(self._held[:found], parts)
                self._held = self._held[found:]
                return False
            at = found + 1
        self._text(self._held, parts)
        self._held = ""
        return False

    def _candidate(self, at: int) -> int | None:
        """The next place from ``at`` at which an opening stands or its beginning ends the text."""
        if self._syntax.only_at_start:
            start = len(self._held) - len(self._held.lstrip(WHITE_SPACE))
            return None if self._begun or at > start else start
        (opening,) = self._syntax.openings
        found = self._held.find(opening, at)
        if found >= 0:
            return found
        for length in range(min(len(opening) - 1, len(self._held) - at), 0, -1):
            if self._held.endswith(opening[:length]):
                return len(self._held) - length
        return None

    def _opens(self, at: int) -> Match | Verdict:
        verdicts = [self._scan((opening, *self._syntax.first), at) for opening in self._syntax.openings]
        for verdict in verdicts:
            if isinstance(verdict, Match):
                return verdict
        return Verdict.MORE if Verdict.MORE in verdicts else Verdict.NO

    def _start(self, match: Match, parts: list[Part]) -> None:
        self._held = self._held[match.end :]
        self._space = ""
        self._begun = True
        self._after_text = False
        self.calls += 1
        self._state = _State.ARGUMENTS
        self._scanner = _ObjectScanner()
        parts.append(CallStart(name=match.name))

    def _arguments(self, parts: list[Part]) -> bool:
        """Arguments up to the brace that closes them."""
        end = self._scanner.end(self._held)
        text, self._held = self._held[:end], self._held[end:]
        if text:
            parts.append(Arguments(text=text))
        if not self._scanner.closed:
            return False
        self._state = _State.BEHIND
        return True

    def _behind(self, parts: list[Part]) -> bool:
        """The rest of a call's syntax, or the next call of the group."""
        last = self._scan(self._syntax.last, 0)
        if isinstance(last, Match):
            self._held = self._held[last.end :]
            self._state = _State.TEXT
            return True
        following = self._scan(self._syntax.following, 0) if self._syntax.following else Verdict.NO
        if isinstance(following, Match):
            self._start(following, parts)
            return True
        if Verdict.MORE in (last, following):
            return False
        self._state = _State.TEXT
        return True

    def _text(self, text: str, parts: list[Part]) -> None:
        """Emit text; white space beside calls waits for something that is none."""
        text = self._space + text
        self._space = ""
        if text.strip(WHITE_SPACE):
            self._begun = self._after_text = True
        if not self._after_text:
            self._space = text
        elif text:
            parts.append(Text(text=text))

    def _scan(self, pattern: Pattern, at: int) -> Match | Verdict:
        return scan(self._held, at, pattern, self._names)
