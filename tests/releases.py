# SPDX-License-Identifier: Apache-2.0
"""Releases for tests: keys from fixed seeds, statements, and a log that is kept as its keeper would keep it."""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Self

from adyton_attestation.private_keys import PrivateKey
from adyton_attestation.release_file import ReleaseFile, parse_release_file
from adyton_attestation.release_log import ReleaseLog, sign_checkpoint
from adyton_attestation.release_statement import SignedStatement, parse_statement, statement_document
from adyton_attestation.release_terms import ReleaseTerms

DAY_S = 86_400
START_S = 1_790_000_000
PRODUCT = "adyton"
ORIGIN = "releases.example.org/adyton"


def key(name: str, seed: int) -> PrivateKey:
    """A key from a fixed seed."""
    return PrivateKey(name=name, seed=bytes([seed]) * 32)


ALICE, BOB, CAROL = key("alice@example.org", 1), key("bob@example.org", 2), key("carol@example.org", 3)
KEEPER, NEXT_KEEPER, STRANGER = key(ORIGIN, 8), key(ORIGIN, 9), key("mallory@example.org", 66)


def terms(**changes: Any) -> ReleaseTerms:
    """Terms that want two of three signers."""
    fields: dict[str, Any] = {
        "product": PRODUCT,
        "signers": (ALICE.public, BOB.public, CAROL.public),
        "threshold": 2,
        "logs": (KEEPER.public,),
    }
    return ReleaseTerms(**fields | changes)


def measurement(release: int) -> bytes:
    """The measurement of a release's enclave."""
    return bytes([release]) * 32


def draft(release: int, **changes: Any) -> SignedStatement:
    """An unsigned statement that begins on the day of its number and holds for 200 days."""
    fields: dict[str, Any] = {
        "product": PRODUCT,
        "release": release,
        "name": f"0.{release}.0",
        "not_before_s": START_S + release * DAY_S,
        "not_after_s": START_S + (release + 200) * DAY_S,
        "minimum_release": max(1, release - 1),
        "enclaves": [{"mr_enclave": measurement(release).hex()}],
    }
    document = statement_document(**fields | changes)
    return parse_statement(json.dumps(document).encode())


def signed(statement: SignedStatement, *keys: PrivateKey) -> SignedStatement:
    """The statement signed by all of them; by default Alice and Bob."""
    for each in keys or (ALICE, BOB):
        statement = statement.signed(each)
    return statement


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeper:
    """Keeps a log.

    Attributes:
        log: What is in it.
        key: Signs its checkpoints.
    """

    log: ReleaseLog = field(default_factory=ReleaseLog)
    key: PrivateKey = KEEPER

    def with_release(self, release: int, *keys: PrivateKey, **changes: Any) -> Self:
        """Sign and append a release."""
        return self.with_statement(signed(draft(release, **changes), *keys))

    def with_statement(self, statement: SignedStatement) -> Self:
        """Append whatever is given, also what an honest keeper would refuse."""
        log = ReleaseLog(entries=(*self.log.entries, statement))
        return dataclasses.replace(self, log=log)

    def export(self, now_s: int, **options: Any) -> ReleaseFile:
        """The release file for clients, as of a time."""
        return self.log.export(sign_checkpoint(self.log, self.key, now_s=now_s), now_s=now_s, **options)


def keeper(*releases: int) -> Keeper:
    """A log of these releases."""
    kept = Keeper()
    for release in releases:
        kept = kept.with_release(release)
    return kept


def as_bytes(file: object) -> bytes:
    """A release file as it is sent."""
    return json.dumps(file.to_json() if isinstance(file, ReleaseFile) else file).encode()


def reread(file: ReleaseFile) -> ReleaseFile:
    """The file after its way to the client."""
    return parse_release_file(as_bytes(file))
