# SPDX-License-Identifier: Apache-2.0
"""How answers are found and compared: part of a request, and of the transcript that a receipt commits to."""

import re
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, cast, get_args

from adyton_protocol.answers.limits import MAX_FIELD_CHARACTERS
from adyton_protocol.errors import AdytonError, LocalProtocolError
from adyton_protocol.strict_json import JsonObject, Members

Extract: TypeAlias = Literal["auto", "field", "boxed", "the-answer-is", "last-number", "whole"]
Equivalence: TypeAlias = Literal["auto", "number", "choice", "text", "json"]

EXTRACTS: Final[tuple[Extract, ...]] = get_args(Extract)
EQUIVALENCES: Final[tuple[Equivalence, ...]] = get_args(Equivalence)
_MEMBERS: Final = ("extract", "field", "equivalence")
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_BAD_ESCAPE: Final = re.compile(r"~(?![01])")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRule:
    r"""How answers are found and compared.

    Attributes:
        extract: Where the answer stands. ``auto`` takes the declared field if one is named, else the last
            ``\boxed{}``, else what follows the last "The answer is", else the last number.
        field: Where it stands in an answer that is JSON: the name of a member of the outermost object, or an
            RFC 6901 pointer, which begins with ``/``. ``""`` is the whole document.
        equivalence: What the answer is. ``auto`` finds out; ``number`` compares the bare number, whatever unit it
            has, and lets all else abstain; ``choice`` does so with the letter of an option.

    Raises:
        LocalProtocolError: Made with values that :meth:`parse` would have refused.
    """

    extract: Extract = "auto"
    field: str | None = field(default=None, repr=False)
    equivalence: Equivalence = "auto"

    def __post_init__(self) -> None:
        """Refuse what :meth:`parse` refuses."""
        fault = _fault(self.extract, self.field, self.equivalence)
        if fault is not None:
            raise LocalProtocolError(f"answer rule: {fault[0]}: {fault[1]}")

    @classmethod
    def parse(cls, value: object, *, path: str, error: type[AdytonError]) -> "AnswerRule":
        """Read a rule from a JSON value of unknown origin. Members that are absent or null have their defaults.

        Args:
            value: Attacker-controlled.
            path: Where it stands, for messages.
            error: Class to raise: ``InvalidRequest`` in a request, ``ReceiptError`` in a transcript.

        Raises:
            AdytonError: Of class ``error``: no object, an unknown member, or a value that is none of the allowed.
        """
        members = Members(value, path, error)
        members.only(_MEMBERS)
        found = {name: members.raw(name) if name in members else None for name in _MEMBERS}
        extract = "auto" if found["extract"] is None else found["extract"]
        equivalence = "auto" if found["equivalence"] is None else found["equivalence"]
        fault = _fault(extract, found["field"], equivalence)
        if fault is not None:
            members.refuse(*fault)
        return cls(
            extract=cast("Extract", extract),
            field=cast("str | None", found["field"]),
            equivalence=cast("Equivalence", equivalence),
        )

    def as_json(self) -> JsonObject:
        """The rule as :meth:`parse` reads it; ``field`` only when there is one."""
        document: JsonObject = {"extract": self.extract, "equivalence": self.equivalence}
        return document if self.field is None else document | {"field": self.field}


def _fault(extract: object, pointer: object, equivalence: object) -> tuple[str, str] | None:
    """The member at fault and why, or None."""
    for name, value, allowed in (("extract", extract, EXTRACTS), ("equivalence", equivalence, EQUIVALENCES)):
        if type(value) is not str or value not in allowed:
            return name, f"not one of {', '.join(allowed)}"
    if pointer is None:
        return ("field", "missing, and the answer is to be taken from it") if extract == "field" else None
    if type(pointer) is not str or len(pointer) > MAX_FIELD_CHARACTERS:
        return "field", f"not a string of at most {MAX_FIELD_CHARACTERS} characters"
    if _SURROGATE.search(pointer) is not None or (pointer[:1] == "/" and _BAD_ESCAPE.search(pointer)):
        return "field", "neither the name of a member nor a JSON pointer"
    if extract not in {"auto", "field"}:
        return "field", f"of no use when the answer is taken by {extract!r}"
    return None
