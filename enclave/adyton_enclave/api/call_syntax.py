# SPDX-License-Identifier: Apache-2.0
"""How the known formats write tool calls, and whether a text goes on like that."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from adyton_enclave.engine.dialect import ToolFormat

MAX_SPACE: Final = 64
"""White space in a row, within the syntax of a call."""
WHITE_SPACE: Final = " \n\r\t"


class Item(Enum):
    """A part of a pattern that is not a literal."""

    SPACE = auto()  # any white space, or none
    NAME = auto()  # a declared function, and the quote after it
    BRACE = auto()  # the brace that opens the arguments, which stays in the text


Pattern = tuple[str | Item, ...]
_S: Final = Item.SPACE


def _head(arguments: str) -> Pattern:
    name: Pattern = (_S, "{", _S, '"name"', _S, ":", _S, '"', Item.NAME)
    return (*name, _S, ",", _S, f'"{arguments}"', _S, ":", _S, Item.BRACE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Syntax:
    """How a format writes calls.

    Attributes:
        openings: What a group of calls may begin with; an empty one only counts at the start of an answer.
        first: From behind the opening to the arguments of the first call.
        following: From the end of some arguments to the arguments of the next call of the same group.
        last: From the end of some arguments to the end of the group.
        only_at_start: Calls stand at the start of an answer or nowhere.
    """

    openings: tuple[str, ...]
    first: Pattern
    following: Pattern | None
    last: Pattern
    only_at_start: bool = False


_HERMES: Final = Syntax(
    openings=("<tool_call>",), first=_head("arguments"), following=None, last=(_S, "}", _S, "</tool_call>")
)
SYNTAXES: Final = {
    ToolFormat.HERMES: _HERMES,
    ToolFormat.GENERIC: _HERMES,
    ToolFormat.MISTRAL: Syntax(
        openings=("[TOOL_CALLS]",),
        first=(_S, "[", *_head("arguments")),
        following=(_S, "}", _S, ",", *_head("arguments")),
        last=(_S, "}", _S, "]"),
    ),
    ToolFormat.LLAMA3: Syntax(
        openings=("<|python_tag|>", ""),
        first=_head("parameters"),
        following=None,
        last=(_S, "}"),
        only_at_start=True,
    ),
}


class Verdict(Enum):
    """Why there is no match."""

    MORE = auto()  # it may become a match
    NO = auto()


@dataclass(frozen=True, slots=True)
class Match:
    """Where the pattern ends, and the function that it names."""

    end: int
    name: str


def scan(held: str, at: int, pattern: Pattern, names: Sequence[str]) -> Match | Verdict:
    """Whether a text goes on with a pattern.

    Args:
        held: The text.
        at: Where to look.
        pattern: What to look for.
        names: Declared functions, each with a quote behind it.
    """
    name = ""
    for item in pattern:
        match item:
            case Item.SPACE:
                begin = at
                at = _skip(held, at)
                if at - begin > MAX_SPACE:
                    return Verdict.NO
            case Item.NAME:
                found = next((option for option in names if held.startswith(option, at)), None)
                if found is None:
                    rest = held[at:]
                    return _verdict(possible=any(option.startswith(rest) for option in names))
                name = found[:-1]
                at += len(found)
            case Item.BRACE:
                if held[at : at + 1] != "{":
                    return _verdict(possible=at == len(held))
            case str():
                if not held.startswith(item, at):
                    return _verdict(possible=item.startswith(held[at:]))
                at += len(item)
    return Match(at, name)


def _skip(held: str, at: int) -> int:
    while at < len(held) and held[at] in WHITE_SPACE:
        at += 1
    return at


def _verdict(*, possible: bool) -> Verdict:
    return Verdict.MORE if possible else Verdict.NO
