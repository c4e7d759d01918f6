# SPDX-License-Identifier: Apache-2.0
"""How a problem and its steps are laid out as text, with slots for what is filled in.

A layout is a prefix (what comes before the first step), a first step and every further step, each a sequence of plain
text and slots. ``{problem}``, ``{step}``, ``{tag}`` and ``{bos}`` are the slots; ``{{`` and ``}}`` are braces.
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

MAX_TEMPLATE_CHARS: Final = 8192

_PARTS: Final = re.compile(r"(\{\{|\}\}|\{[a-z]{1,16}\}|[{}])")


class Slot(Enum):
    """What is filled in."""

    BOS = "bos"
    PROBLEM = "problem"
    STEP = "step"
    TAG = "tag"


Piece = str | Slot
Template = tuple[Piece, ...]
"""Text and slots in order; two texts never follow one another, and none is empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextLayout:
    """A layout that is written out.

    Attributes:
        prefix: Holds the problem.
        first_step: Holds the step and behind it the tag, if the scorer has one.
        step: Likewise, for all steps but the first.
    """

    prefix: Template
    first_step: Template
    step: Template


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnsLayout:
    """A layout by the model's own chat template: each step is a turn of the user, the tag a turn of the assistant.

    Attributes:
        system: A system message before all turns, or None.
        first_user: Holds the problem and behind it the first step.
        user: Holds a further step.
    """

    system: str | None
    first_user: Template
    user: Template


def parse_template(text: str) -> Template:
    """Cut a template into text and slots.

    Raises:
        ValueError: A brace that is neither doubled nor part of a slot, or an unknown slot.
    """
    pieces: list[Piece] = []
    for part in _PARTS.split(text):
        if part in {"{{", "}}"} or not part.startswith(("{", "}")):
            _append(pieces, part[:1] if part in {"{{", "}}"} else part)
        elif len(part) == 1:
            raise ValueError("has a brace that is neither doubled nor part of a slot")
        elif part[1:-1] not in _SLOTS:
            raise ValueError("has an unknown slot; there are " + ", ".join(f"{{{name}}}" for name in _SLOTS))
        else:
            pieces.append(_SLOTS[part[1:-1]])
    return tuple(pieces)


def slots_of(template: Template) -> list[Slot]:
    """The slots of a template in order."""
    return [piece for piece in template if isinstance(piece, Slot)]


def _append(pieces: list[Piece], text: str) -> None:
    if not text:
        return
    if pieces and isinstance(before := pieces[-1], str):
        pieces[-1] = before + text
    else:
        pieces.append(text)


_SLOTS: Final = {slot.value: slot for slot in Slot}
