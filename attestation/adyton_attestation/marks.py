# SPDX-License-Identifier: Apache-2.0
"""High-water marks: the newest endorsements and releases that a relying party has seen, so that older ones are refused.

Endorsements are signed and expire, but for weeks an old set is as valid as the new one, and the relay chooses
which it serves; so it is with releases. Who keeps marks can be shown each step forward once, and no step back. Marks
are data: passed into an appraisal, returned by it, stored by the caller.

Endorsements are marked by document, because each has its own numbers: a new QE identity says nothing about the TCB
info of a family of processors, nor that about another family, nor anything about what stands below another root. One
mark over the lower number of two documents would let the other one fall back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

from adyton_attestation.certificates import TrustAnchor
from adyton_attestation.dcap import DcapClaims
from adyton_attestation.endorsements import Endorsements
from adyton_attestation.release_memory import ReleaseMark, merge_marks, read_marks
from adyton_protocol.errors import ConfigError
from adyton_protocol.strict_json import JsonObject, Members, parse_json

_U32 = 2**32 - 1
_MAX_BYTES = 64 * 1024
_MAX_LOGS = 64
_MAX_DOCUMENTS = 256
_MAX_NAME = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class HighWaterMarks:
    """The highest numbers seen.

    Attributes:
        documents: tcbEvaluationDataNumber or CRL number by document, as :func:`endorsement_numbers` names them, sorted.
        releases: What was seen of each log of releases, sorted by the log's name.
    """

    documents: tuple[tuple[str, int], ...] = ()
    releases: tuple[ReleaseMark, ...] = ()

    def number(self, document: str) -> int:
        """Return the mark of one document; 0 when it was never seen."""
        return dict(self.documents).get(document, 0)

    def release_mark(self, origin: str) -> ReleaseMark:
        """Return what was seen of one log; nothing, when it was never seen."""
        for mark in self.releases:
            if mark.origin == origin:
                return mark
        return ReleaseMark(origin=origin)

    def raised(self, documents: Mapping[str, int], release: ReleaseMark | None = None) -> Self:
        """Return marks that include what was just accepted; no mark ever falls."""
        return self.merged(
            HighWaterMarks(documents=tuple(documents.items()), releases=() if release is None else (release,))
        )

    def merged(self, other: "HighWaterMarks") -> Self:
        """Return the marks of whoever has seen both; no mark ever falls."""
        highest = dict(self.documents)
        for document, number in other.documents:
            highest[document] = max(highest.get(document, 0), number)
        return type(self)(
            documents=tuple(sorted(highest.items())),
            releases=merge_marks(self.releases, other.releases),
        )

    def to_json(self) -> JsonObject:
        """Return the JSON object to store."""
        return {
            "documents": dict(self.documents),
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
        if "evaluation_number" in members:
            # They cannot be told apart by document, and guessing low would let one of them fall back.
            raise ConfigError("marks of a development version; move the file away to start anew")
        members.only({"documents", "releases"})
        documents = members.object("documents")
        names = [name for name, _ in documents.items()]
        if len(names) > _MAX_DOCUMENTS or any(len(name) > _MAX_NAME for name in names):
            members.refuse("documents", "too many, or names that are too long")
        return cls(
            documents=tuple(
                sorted((name, documents.integer(name, minimum=0, maximum=_U32)) for name in names)
            ),
            releases=read_marks(members, "releases", _MAX_LOGS),
        )


def endorsement_numbers(
    endorsements: Endorsements,
    claims: DcapClaims,
    anchor: TrustAnchor,
    *,
    tee: Literal["sgx", "tdx"],
    ca_name: str,
) -> dict[str, int]:
    """Return the number of each signed document of a set of endorsements, by the document's name.

    Args:
        endorsements: The set; genuine, or the appraisal fails anyway.
        claims: What was verified of the platform.
        anchor: The root below which they stand.
        tee: Of the quote.
        ca_name: Common name of the platform's PCK CA.
    """
    root = f"below {anchor.sha256[:16]}"
    return {
        f"TCB info of {tee} {claims.fmspc.hex()} {root}": endorsements.tcb_info.evaluation_number,
        f"QE identity of {tee} {root}": endorsements.qe_identity.evaluation_number,
        f"root CRL {root}": claims.root_crl_number,
        f"PCK CRL of {ca_name} {root}": claims.pck_crl_number,
    }


NO_MARKS = HighWaterMarks()
"""A relying party that has seen nothing yet."""
