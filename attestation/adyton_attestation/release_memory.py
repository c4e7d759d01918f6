# SPDX-License-Identifier: Apache-2.0
"""What a relying party remembers of a log of releases, so that nobody takes it back to an older one.

For each log: the lowest release that is not withdrawn, and size and root of the largest tree that was shown. Data,
like all high-water marks: passed into an appraisal, returned by it, stored by the caller.
"""

import re
from dataclasses import dataclass
from typing import Final, Self

from adyton_protocol.digests import SHA256_BYTES
from adyton_protocol.errors import ConfigError
from adyton_protocol.strict_json import MAX_SAFE_INTEGER, JsonObject, Members

_ORIGIN: Final = re.compile(r"[A-Za-z0-9._/@-]{1,128}")
_MAX_RELEASE: Final = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseMark:
    """What was seen of one log.

    Attributes:
        origin: Its name.
        floor: The lowest release that is accepted.
        size: Entries of the largest tree that was shown; 0 before any.
        root: Its root, 32 bytes.
    """

    origin: str
    floor: int = 0
    size: int = 0
    root: bytes = bytes(SHA256_BYTES)

    def merged(self, other: "ReleaseMark") -> "ReleaseMark":
        """Return the mark of whoever has seen both; nothing falls."""
        larger = max(self, other, key=lambda mark: mark.size)
        return ReleaseMark(
            origin=self.origin,
            floor=max(self.floor, other.floor),
            size=larger.size,
            root=larger.root,
        )

    def to_json(self) -> JsonObject:
        """Return the JSON object to store."""
        return {"origin": self.origin, "floor": self.floor, "size": self.size, "root": self.root.hex()}

    @classmethod
    def from_json(cls, members: Members) -> Self:
        """Read a stored mark.

        Raises:
            ConfigError: Not what :meth:`to_json` wrote.
        """
        members.only({"origin", "floor", "size", "root"})
        return cls(
            origin=members.text("origin", max_chars=128, pattern=_ORIGIN),
            floor=members.integer("floor", minimum=0, maximum=_MAX_RELEASE),
            size=members.integer("size", minimum=0, maximum=MAX_SAFE_INTEGER),
            root=members.hex("root", min_bytes=SHA256_BYTES, max_bytes=SHA256_BYTES),
        )


def merge_marks(*groups: tuple[ReleaseMark, ...]) -> tuple[ReleaseMark, ...]:
    """Return one mark for each log, sorted by origin; nothing falls."""
    by_origin: dict[str, ReleaseMark] = {}
    for mark in (mark for group in groups for mark in group):
        before = by_origin.get(mark.origin)
        by_origin[mark.origin] = mark if before is None else before.merged(mark)
    return tuple(mark for _, mark in sorted(by_origin.items()))


def read_marks(items: Members, name: str, max_items: int) -> tuple[ReleaseMark, ...]:
    """Read stored marks.

    Raises:
        ConfigError: Malformed, or a log stands there twice.
    """
    marks = tuple(ReleaseMark.from_json(item) for item in items.objects(name, max_items=max_items))
    if len({mark.origin for mark in marks}) != len(marks):
        raise ConfigError(f"{name}: a log stands there twice")
    return marks
