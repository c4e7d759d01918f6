# SPDX-License-Identifier: Apache-2.0
"""High-water marks: the newest endorsements and releases that a relying party has seen, so that older ones are refused.

Endorsements are signed and expire, but for weeks an old set is as valid as the new one, and the relay chooses
which it serves; so it is with releases. Who keeps marks can be shown each step forward once, and no step back. Marks
are data: passed into an appraisal, returned by it, stored by the caller.
"""

from dataclasses import dataclass
from typing import Self

from adyton_attestation.release_memory import ReleaseMark, merge_marks, read_marks
from adyton_protocol.errors import ConfigError
from adyton_protocol.strict_json import JsonObject, Members, parse_json

_U32 = 2**32 - 1
_MAX_BYTES = 64 * 1024
_MAX_LOGS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class HighWaterMarks:
    """The highest numbers seen.

    Attributes:
        evaluation_number: tcbEvaluationDataNumber, the lower of TCB info and QE identity.
        root_crl_number: CRL number of the root.
        pck_crl_numbers: CRL number by name of the PCK CA, sorted.
        releases: What was seen of each log of releases, sorted by the log's name.
    """

    evaluation_number: int = 0
    root_crl_number: int = 0
    pck_crl_numbers: tuple[tuple[str, int], ...] = ()
    releases: tuple[ReleaseMark, ...] = ()

    def pck_crl_number(self, ca_name: str) -> int:
        """Return the mark of one PCK CA; 0 when it was never seen."""
        return dict(self.pck_crl_numbers).get(ca_name, 0)

    def release_mark(self, origin: str) -> ReleaseMark:
        """Return what was seen of one log; nothing, when it was never seen."""
        for mark in self.releases:
            if mark.origin == origin:
                return mark
        return ReleaseMark(origin=origin)

    def raised(
        self,
        *,
        evaluation_number: int,
        root_crl_number: int,
        ca_name: str,
        pck_crl_number: int,
        release: ReleaseMark | None = None,
    ) -> Self:
        """Return marks that include what was just accepted; no mark ever falls."""
        return self.merged(
            HighWaterMarks(
                evaluation_number=evaluation_number,
                root_crl_number=root_crl_number,
                pck_crl_numbers=((ca_name, pck_crl_number),),
                releases=() if release is None else (release,),
            )
        )

    def merged(self, other: "HighWaterMarks") -> Self:
        """Return the marks of whoever has seen both; no mark ever falls."""
        by_ca = dict(self.pck_crl_numbers)
        for ca_name, number in other.pck_crl_numbers:
            by_ca[ca_name] = max(by_ca.get(ca_name, 0), number)
        return type(self)(
            evaluation_number=max(self.evaluation_number, other.evaluation_number),
            root_crl_number=max(self.root_crl_number, other.root_crl_number),
            pck_crl_numbers=tuple(sorted(by_ca.items())),
            releases=merge_marks(self.releases, other.releases),
        )

    def to_json(self) -> JsonObject:
        """Return the JSON object to store."""
        return {
            "evaluation_number": self.evaluation_number,
            "root_crl_number": self.root_crl_number,
            "pck_crl_numbers": dict(self.pck_crl_numbers),
            "releases": [mark.to_json() for mark in self.releases],
        }

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read stored marks.

        Raises:
            ConfigError: Not what :meth:`to_json` wrote.
        """
        value = parse_json(data, max_bytes=_MAX_BYTES, what="high-water marks", error=ConfigError)
        members = Members(value, "marks", ConfigError)
        members.only({"evaluation_number", "root_crl_number", "pck_crl_numbers", "releases"})
        by_ca = members.object("pck_crl_numbers")
        return cls(
            evaluation_number=members.integer("evaluation_number", minimum=0, maximum=_U32),
            root_crl_number=members.integer("root_crl_number", minimum=0, maximum=_U32),
            pck_crl_numbers=tuple(
                sorted((name, by_ca.integer(name, minimum=0, maximum=_U32)) for name, _ in by_ca.items())
            ),
            # Files of before there were releases have seen none.
            releases=read_marks(members, "releases", _MAX_LOGS) if "releases" in members else (),
        )


NO_MARKS = HighWaterMarks()
"""A relying party that has seen nothing yet."""
