# SPDX-License-Identifier: Apache-2.0
"""The release file: what a client gets of a log of releases, and what makes it believe that.

::

    {"version": 1,
     "checkpoint": "<signed note>",
     "releases": [{"statement": {...}, "signatures": [...], "index": 6, "inclusion": ["<hex>", ...]}, ...],
     "consistency": [{"size": 6, "proof": ["<hex>", ...]}, ...]}

It is verified in this order; ``docs/reference-values.md`` has the reasons.

1. It has this form, within limits, and every signature in it fits the key that it names.
2. Every statement is about the expected product and signed by enough of the expected keys.
3. The checkpoint is signed by an expected key, is of that key's log, and is neither dated ahead nor too old.
4. Every statement is in the log at its place, with rising release numbers and minima that do not fall. The newest
   entry of the log is among them, so that no withdrawal can be held back.
5. The log contains what was seen of it before; what is seen now is not older.
6. A release holds if it has begun, has not ended, and is not below the floor: the highest minimum of all statements
   that have begun, of the policy, and of the past.

The file is attacker-controlled; time, keys and memory are arguments. No I/O, no clock.
"""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from adyton_attestation.merkle import (
    HASH_BYTES,
    MAX_PROOF_HASHES,
    MAX_TREE_SIZE,
    verify_consistency,
    verify_inclusion,
)
from adyton_attestation.release_memory import ReleaseMark
from adyton_attestation.release_statement import (
    ReleaseStatement,
    SignedStatement,
    signed_statement,
)
from adyton_attestation.release_terms import ReleaseTerms
from adyton_attestation.signed_note import (
    MAX_NOTE_CHARS,
    Checkpoint,
    SignedNote,
    parse_note,
    read_checkpoint,
)
from adyton_attestation.times import format_time
from adyton_protocol.errors import (
    ReferenceValueError,
    ReleaseLogForked,
    ReleaseRolledBack,
)
from adyton_protocol.media import MAX_RELEASES_BYTES
from adyton_protocol.strict_json import JsonObject, Members, parse_json

FILE_VERSION: Final = 1
MAX_STATEMENTS: Final = 16
MAX_CONSISTENCY: Final = 256
MAX_AHEAD_S: Final = 300
"""How far the log keeper's clock may be ahead of the relying party's, in seconds."""

Standing: TypeAlias = Literal["in force", "not yet in force", "expired", "withdrawn"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedStatement:
    """A statement with the proof that it is in the log; parsed, the proof not verified."""

    signed: SignedStatement
    index: int
    inclusion: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseFile:
    """A release file; parsed, and not verified.

    Attributes:
        note: The checkpoint with its signatures.
        checkpoint: The same, read.
        releases: Statements, in the order of the log.
        consistency: Proofs by size of the earlier tree.
    """

    note: SignedNote
    checkpoint: Checkpoint
    releases: tuple[LoggedStatement, ...]
    consistency: tuple[tuple[int, tuple[bytes, ...]], ...]

    def to_json(self) -> JsonObject:
        """Return the JSON object."""
        return {
            "version": FILE_VERSION,
            "checkpoint": str(self.note),
            "releases": [
                {
                    **item.signed.to_json(),
                    "index": item.index,
                    "inclusion": [value.hex() for value in item.inclusion],
                }
                for item in self.releases
            ],
            "consistency": [
                {"size": size, "proof": [value.hex() for value in proof]} for size, proof in self.consistency
            ],
        }


def parse_release_file(data: bytes) -> ReleaseFile:
    """Step 1: read a release file.

    Raises:
        ReferenceValueError: Malformed, or a signature does not fit the key that it names.
    """
    value = parse_json(data, max_bytes=MAX_RELEASES_BYTES, what="release file", error=ReferenceValueError)
    members = Members(value, "release file", ReferenceValueError)
    members.only({"version", "checkpoint", "releases", "consistency"})
    members.integer("version", minimum=FILE_VERSION, maximum=FILE_VERSION)
    note = parse_note(members.text("checkpoint", max_chars=MAX_NOTE_CHARS))
    consistency = []
    for item in members.objects("consistency", max_items=MAX_CONSISTENCY):
        item.only({"size", "proof"})
        size = item.integer("size", minimum=1, maximum=MAX_TREE_SIZE)
        consistency.append((size, _hashes(item, "proof")))
    if len({size for size, _ in consistency}) != len(consistency):
        members.refuse("consistency", "two proofs from one size")
    return ReleaseFile(
        note=note,
        checkpoint=read_checkpoint(note),
        releases=tuple(_logged(item) for item in members.objects("releases", max_items=MAX_STATEMENTS)),
        consistency=tuple(consistency),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedReleases:
    """Statements that steps 1 to 5 found to be genuine, logged, and not older than what was seen.

    Attributes:
        statements: In the order of the log; the newest last.
        checkpoint: Of the log.
        floor: The lowest release that is not withdrawn.
        mark: What to remember.
        now_s: Unix time at which that holds.
    """

    statements: tuple[ReleaseStatement, ...]
    checkpoint: Checkpoint
    floor: int
    mark: ReleaseMark
    now_s: int

    def standing(self, statement: ReleaseStatement) -> Standing:
        """Step 6, for one of the statements."""
        # SECURITY: withdrawn comes first; what is withdrawn stays so whatever its dates say.
        if statement.release < self.floor:
            return "withdrawn"
        if self.now_s < statement.not_before_s:
            return "not yet in force"
        return "in force" if self.now_s < statement.not_after_s else "expired"

    def in_force(self) -> tuple[ReleaseStatement, ...]:
        """The statements that hold."""
        return tuple(item for item in self.statements if self.standing(item) == "in force")

    def explain(self) -> str:
        """How each statement stands, in words."""
        return "; ".join(f"{item} is {self._with_date(item)}" for item in self.statements) or "no release"

    def _with_date(self, item: ReleaseStatement) -> str:
        standing = self.standing(item)
        return {
            "withdrawn": f"withdrawn, the lowest accepted is {self.floor}",
            "not yet in force": f"not in force before {format_time(item.not_before_s)}",
            "expired": f"expired since {format_time(item.not_after_s)}",
            "in force": f"in force until {format_time(item.not_after_s)}",
        }[standing]


def check_signatures(file: ReleaseFile, terms: ReleaseTerms) -> None:
    """Step 2: every statement is about the product and signed by enough of the expected keys.

    Raises:
        ReferenceValueError: One is not.
    """
    if not file.releases:
        raise ReferenceValueError("the release file has no statement")
    for item in file.releases:
        statement = item.signed.statement
        if statement.product != terms.product:
            raise ReferenceValueError(
                f"{statement} is of the product {statement.product!r}, not {terms.product!r}"
            )
        found = len(item.signed.signers(terms.signers))
        if found < terms.threshold:
            raise ReferenceValueError(
                f"{statement} is signed by {found} of the policy's signers; {terms.threshold} must"
            )


def check_log(file: ReleaseFile, terms: ReleaseTerms, now_s: int) -> None:
    """Steps 3 and 4: the checkpoint is good and recent, and the log has every statement, the newest among them.

    Raises:
        ReferenceValueError: Not so.
    """
    checkpoint = file.checkpoint
    if checkpoint.origin != terms.origin or not file.note.signed_by(terms.logs):
        raise ReferenceValueError(f"the checkpoint is not signed by a key of the log {terms.origin}")
    if checkpoint.time_s > now_s + MAX_AHEAD_S:
        raise ReferenceValueError(
            f"the checkpoint is of {format_time(checkpoint.time_s)}, which is yet to come"
        )
    # SECURITY: without an age, whoever carries the file could hold a withdrawal back for as long as he likes.
    if now_s - checkpoint.time_s > terms.max_age_s:
        raise ReferenceValueError(
            f"the checkpoint is of {format_time(checkpoint.time_s)}, older than {terms.max_age_s} seconds"
        )
    before: tuple[int, int, int] = (-1, 0, 0)
    for item in file.releases:
        statement = item.signed.statement
        if not verify_inclusion(statement.leaf, item.index, checkpoint.size, item.inclusion, checkpoint.root):
            raise ReferenceValueError(f"{statement} is not in the log, or not as it stands here")
        here = (item.index, statement.release, statement.minimum_release)
        if here[0] <= before[0] or here[1] <= before[1] or here[2] < before[2]:
            raise ReferenceValueError(f"{statement} is out of order: numbers rise, minima never fall")
        before = here
    # SECURITY: the newest statement has the last word on what is withdrawn.
    if before[0] != checkpoint.size - 1:
        raise ReferenceValueError("the newest statement of the log is held back")


def check_history(file: ReleaseFile, terms: ReleaseTerms, mark: ReleaseMark, now_s: int) -> VerifiedReleases:
    """Step 5: the log contains what was seen before, and nothing older is shown.

    Only for a file that passed :func:`check_signatures` and :func:`check_log`.

    Raises:
        ReleaseRolledBack: Older than what was seen.
        ReleaseLogForked: Another history than what was seen.
        ReferenceValueError: The proof that the log grew from what was seen is missing.
    """
    checkpoint = file.checkpoint
    if checkpoint.size < mark.size:
        raise ReleaseRolledBack(
            f"the log has {checkpoint.size} entries here, and had {mark.size} before; get the newest release file"
        )
    if mark.size:
        proof = () if checkpoint.size == mark.size else dict(file.consistency).get(mark.size)
        if proof is None:
            raise ReferenceValueError(
                f"the release file does not prove that the log grew from the {mark.size} entries that were seen; "
                f"its keeper makes one that does with: adyton release export --since {mark.size}"
            )
        if not verify_consistency(mark.size, mark.root, checkpoint.size, checkpoint.root, proof):
            raise ReleaseLogForked(
                f"the log of {checkpoint.size} entries does not contain the {mark.size} that were seen before"
            )
    statements = tuple(item.signed.statement for item in file.releases)
    begun = [item.minimum_release for item in statements if item.not_before_s <= now_s]
    floor = max(terms.minimum_release, mark.floor, *begun, 1)
    if statements[-1].release < mark.floor:
        raise ReleaseRolledBack(
            f"the newest is {statements[-1]}; releases below {mark.floor} were withdrawn before"
        )
    return VerifiedReleases(
        statements=statements,
        checkpoint=checkpoint,
        floor=floor,
        # SECURITY: the policy's own minimum is not remembered, or a slip in it could not be taken back.
        mark=mark.merged(
            ReleaseMark(
                origin=checkpoint.origin,
                floor=max([mark.floor, *begun]),
                size=checkpoint.size,
                root=checkpoint.root,
            )
        ),
        now_s=now_s,
    )


def verify_release_file(
    file: ReleaseFile, terms: ReleaseTerms, *, now_s: int, mark: ReleaseMark | None = None
) -> VerifiedReleases:
    """Steps 2 to 5 at once.

    Raises:
        ReferenceValueError: As the steps.
    """
    check_signatures(file, terms)
    check_log(file, terms, now_s)
    return check_history(file, terms, mark or ReleaseMark(origin=terms.origin), now_s)


def _logged(members: Members) -> LoggedStatement:
    members.only({"statement", "signatures", "index", "inclusion"})
    return LoggedStatement(
        signed=signed_statement(members),
        index=members.integer("index", minimum=0, maximum=MAX_TREE_SIZE),
        inclusion=_hashes(members, "inclusion"),
    )


def _hashes(members: Members, name: str) -> tuple[bytes, ...]:
    found: list[bytes] = []
    for item in members.array(name, max_items=MAX_PROOF_HASHES):
        if type(item) is not str or len(item) != 2 * HASH_BYTES:
            members.refuse(name, "not a list of hashes in lower-case hexadecimal")
        found.append(_hash(members, name, item))
    return tuple(found)


def _hash(members: Members, name: str, text: str) -> bytes:
    if any(character not in "0123456789abcdef" for character in text):
        members.refuse(name, "not a list of hashes in lower-case hexadecimal")
    return bytes.fromhex(text)
