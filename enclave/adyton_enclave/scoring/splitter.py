# SPDX-License-Identifier: Apache-2.0
"""Cuts an answer into the steps that a scorer judges one by one. Every rule takes time linear in the text."""

import re
from dataclasses import dataclass
from typing import Final, Literal, get_args

Rule = Literal["newline", "blank-line", "numbered", "delimiter"]
RULES: Final[tuple[Rule, ...]] = get_args(Rule)

Whitespace = Literal["keep", "strip", "squeeze"]
WHITESPACE: Final[tuple[Whitespace, ...]] = get_args(Whitespace)

_NUMBERED: Final = re.compile(r"^(?=Step [0-9]{1,4}:)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Splitter:
    """A rule by which answers fall into steps.

    Attributes:
        rule: ``newline``: every line. ``blank-line``: paragraphs. ``numbered``: whatever begins with ``Step 1:`` at
            the start of a line. ``delimiter``: what stands between two delimiters.
        delimiter: For the rule of that name, else empty.
    """

    rule: Rule
    delimiter: str = ""

    def split(self, text: str) -> list[str]:
        """The steps of an answer (attacker-controlled), none of them blank; possibly none at all."""
        return [part for part in self._parts(text) if part.strip()]

    @property
    def ends(self) -> tuple[str, ...]:
        """Texts with which a step is complete while an answer is still being written.

        A numbered step is complete with the head of the next, which then begins with the number.
        """
        match self.rule:
            case "newline":
                return ("\n",)
            case "blank-line":
                return ("\n\n",)
            case "numbered":
                return ("\nStep ",)
            case "delimiter":
                return (self.delimiter,)

    @property
    def opens_next(self) -> str:
        """What stands at the end of ``ends`` but belongs to the next step."""
        return "Step " if self.rule == "numbered" else ""

    def _parts(self, text: str) -> list[str]:
        match self.rule:
            case "newline":
                return text.split("\n")
            case "blank-line":
                return _paragraphs(text)
            case "numbered":
                return _NUMBERED.split(text)
            case "delimiter":
                return text.split(self.delimiter)


def tidy(text: str, whitespace: Whitespace) -> str:
    """Text with its white space as a scorer was trained to see it."""
    match whitespace:
        case "keep":
            return text
        case "strip":
            return text.strip()
        case "squeeze":
            return " ".join(text.split())


def _paragraphs(text: str) -> list[str]:
    paragraphs: list[list[str]] = [[]]
    for line in text.split("\n"):
        if line.strip():
            paragraphs[-1].append(line)
        elif paragraphs[-1]:
            paragraphs.append([])
    return ["\n".join(lines) for lines in paragraphs]
