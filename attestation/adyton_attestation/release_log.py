# SPDX-License-Identifier: Apache-2.0
"""The log of releases, for whoever keeps it: a text file of signed statements, one in a line, that only grows.

The tree is over the statements, without their signatures. A checkpoint beside the file says how many there are and
what their root is; before anything is appended or exported, the file must be what the last checkpoint says. One log
is of one product. Everything here is pure; the command ``adyton release`` reads and writes the files.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

from adyton_attestation.merkle import consistency_proof, inclusion_proof, root_hash
from adyton_attestation.private_keys import PrivateKey
from adyton_attestation.release_file import (
    MAX_CONSISTENCY,
    MAX_STATEMENTS,
    LoggedStatement,
    ReleaseFile,
)
from adyton_attestation.release_statement import (
    MAX_STATEMENT_BYTES,
    SignedStatement,
    parse_signed_statement,
)
from adyton_attestation.signed_note import Checkpoint, SignedNote, read_checkpoint
from adyton_protocol.digests import jcs
from adyton_protocol.errors import ConfigError, ReferenceValueError

MAX_ENTRIES: Final = 4096
MAX_LOG_BYTES: Final = 64 * 1024 * 1024
RECENT_SIZES: Final = 64
"""How many earlier sizes of the log an export proves consistency with, unless told otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseLog:
    """All statements of a log, oldest first.

    Attributes:
        entries: Their numbers rise and their minima never fall.
    """

    entries: tuple[SignedStatement, ...] = ()

    @property
    def leaves(self) -> tuple[bytes, ...]:
        """Leaf hashes."""
        return tuple(entry.statement.leaf for entry in self.entries)

    def checkpoint(self, origin: str, now_s: int) -> Checkpoint:
        """Say what the log is, at a time."""
        return Checkpoint(origin=origin, size=len(self.entries), root=root_hash(self.leaves), time_s=now_s)

    def continues(self, checkpoint: Checkpoint) -> bool:
        """Whether the log begins with what a checkpoint says."""
        return (
            checkpoint.size <= len(self.entries)
            and root_hash(self.leaves[: checkpoint.size]) == checkpoint.root
        )

    def appended(self, signed: SignedStatement) -> Self:
        """Return the log with one more statement.

        Raises:
            ConfigError: It is unsigned, of another product, or not newer than the last one.
        """
        if not signed.signatures:
            raise ConfigError("a statement is signed before it enters the log: adyton release sign")
        if len(self.entries) >= MAX_ENTRIES:
            raise ConfigError(f"a log has at most {MAX_ENTRIES} entries")
        if self.entries:
            _check_order(self.entries[-1], signed)
        return replace(self, entries=(*self.entries, signed))

    def line(self, index: int) -> bytes:
        """The line of one entry, as it stands in the file."""
        return jcs(self.entries[index].to_json()) + b"\n"

    def with_signatures_of(self, given: Iterable[SignedStatement]) -> Self:
        """Return the log with further signatures on statements that it has.

        Raises:
            ConfigError: It does not have one of them.
        """
        places = {entry.statement.payload: place for place, entry in enumerate(self.entries)}
        entries = list(self.entries)
        for signed in given:
            place = places.get(signed.statement.payload)
            if place is None:
                raise ConfigError(f"{signed.statement} is not in the log as it stands in the given file")
            known = {key.raw for key, _ in entries[place].signatures}
            more = tuple(item for item in signed.signatures if item[0].raw not in known)
            entries[place] = replace(entries[place], signatures=entries[place].signatures + more)
        return replace(self, entries=tuple(entries))

    def export(self, note: SignedNote, *, now_s: int, since: Sequence[int] = ()) -> ReleaseFile:
        """Return the release file for clients: what is not withdrawn or expired, and the newest in any case.

        Args:
            note: The signed checkpoint of this very log.
            now_s: Unix time.
            since: Further sizes of the log that clients may have seen.

        Raises:
            ConfigError: The checkpoint is of another log, or too many releases are not withdrawn.
        """
        checkpoint = read_checkpoint(note)
        size = len(self.entries)
        if not size or checkpoint.size != size or not self.continues(checkpoint):
            raise ConfigError(
                "the checkpoint is not of this log; sign one with: adyton release append --refresh"
            )
        leaves = self.leaves
        begun = [e.statement.minimum_release for e in self.entries if e.statement.not_before_s <= now_s]
        floor = max(begun, default=1)
        kept = [
            index
            for index, entry in enumerate(self.entries)
            if index == size - 1 or (entry.statement.release >= floor and now_s < entry.statement.not_after_s)
        ]
        if len(kept) > MAX_STATEMENTS:
            raise ConfigError(
                f"{len(kept)} releases are neither withdrawn nor expired, and a file has room for "
                f"{MAX_STATEMENTS}; withdraw old ones by a statement with a higher minimum_release"
            )
        sizes = sorted({*range(max(1, size - RECENT_SIZES), size), *(n for n in since if 0 < n < size)})
        if len(sizes) > MAX_CONSISTENCY:
            raise ConfigError(f"a release file has room for {MAX_CONSISTENCY} consistency proofs")
        return ReleaseFile(
            note=note,
            checkpoint=checkpoint,
            releases=tuple(
                LoggedStatement(
                    signed=self.entries[index], index=index, inclusion=inclusion_proof(leaves, index)
                )
                for index in kept
            ),
            consistency=tuple((n, consistency_proof(leaves, n)) for n in sizes),
        )


def parse_log(data: bytes) -> ReleaseLog:
    """Read a log file.

    Raises:
        ConfigError: Not a log, or one whose statements are out of order.
    """
    if len(data) > MAX_LOG_BYTES or (data and not data.endswith(b"\n")):
        raise ConfigError("the log is too large, or its last line is cut off")
    log = ReleaseLog()
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        if len(line) > MAX_STATEMENT_BYTES:
            raise ConfigError(f"line {number} of the log is too long")
        try:
            log = log.appended(parse_signed_statement(line))
        except ReferenceValueError as cause:
            raise ConfigError(f"line {number} of the log: {cause}") from cause
        if log.line(-1) != line + b"\n":
            raise ConfigError(f"line {number} of the log is not in its one form")
    return log


def sign_checkpoint(log: ReleaseLog, key: PrivateKey, *, now_s: int) -> SignedNote:
    """Return the checkpoint of a log, signed by its keeper; the log's name is the key's."""
    return log.checkpoint(key.name, now_s).note().with_signature(key)


def _check_order(last: SignedStatement, new: SignedStatement) -> None:
    before, after = last.statement, new.statement
    if after.product != before.product:
        raise ConfigError(f"the log is of the product {before.product!r}, the statement of {after.product!r}")
    if after.release <= before.release:
        raise ConfigError(f"{after} does not come after {before}, the last in the log; numbers rise")
    if after.minimum_release < before.minimum_release:
        raise ConfigError(
            f"{after} would bring back releases that {before} withdrew (minimum {before.minimum_release})"
        )
