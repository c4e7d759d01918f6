# SPDX-License-Identifier: Apache-2.0
"""Tells a model's reasoning from its answer, by the marks of its dialect."""

from typing import Final

_SPACE: Final = " \n\r\t"


class ReasoningSplitter:
    """Splits the text of one choice. How the text is cut into pieces makes no difference.

    Reasoning stands at the start of an answer or nowhere. White space around the marks belongs to neither side.
    """

    def __init__(self, marks: tuple[str, str], *, open_already: bool) -> None:
        """Take the marks; ``open_already`` when the prompt ended with the first one."""
        self._opening, self._closing = marks
        self._held = ""
        self._inside = open_already
        self._before = not open_already
        self._strip = True
        self.reasoned = open_already

    @property
    def inside(self) -> bool:
        """True while the model reasons."""
        return self._inside

    def push(self, text: str) -> tuple[str, str]:
        """Add text; return the reasoning and the answer text that it completes."""
        self._held += text
        if self._before:
            start = self._held.lstrip(_SPACE)
            if start.startswith(self._opening):
                self._held = start[len(self._opening) :]
                self._before, self._inside, self.reasoned = False, True, True
            elif self._opening.startswith(start):
                return "", ""
            else:
                self._before, self._strip = False, False
        reasoning = self._reasoning() if self._inside else ""
        return reasoning, "" if self._inside else self._answer()

    def finish(self) -> tuple[str, str]:
        """The text ended: what was held back is what it seemed to be."""
        held, self._held = self._held, ""
        return (held, "") if self._inside else ("", held)

    def _reasoning(self) -> str:
        if self._strip:
            self._held = self._held.lstrip(_SPACE)
            if not self._held:
                return ""
        end = self._held.find(self._closing)
        if end >= 0:
            reasoning, self._held = self._held[:end].rstrip(_SPACE), self._held[end + len(self._closing) :]
            self._inside, self._strip = False, True
            return reasoning
        keep = self._open_suffix()
        reasoning, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        self._strip = self._strip and not reasoning
        return reasoning

    def _answer(self) -> str:
        if self._strip:
            self._held = self._held.lstrip(_SPACE)
            self._strip = not self._held
        answer, self._held = self._held, ""
        return answer

    def _open_suffix(self) -> int:
        """Characters at the end that may belong to the closing mark, white space before it included."""
        for length in range(min(len(self._closing) - 1, len(self._held)), 0, -1):
            if self._closing.startswith(self._held[-length:]):
                before = self._held[: len(self._held) - length]
                return length + len(before) - len(before.rstrip(_SPACE))
        return len(self._held) - len(self._held.rstrip(_SPACE))
