# SPDX-License-Identifier: Apache-2.0
"""Makes ``tests/vectors/releases.json``: ``PYTHONPATH=tests python tests/release_vectors.py > FILE``.

Every key is from a fixed seed and Ed25519 draws no randomness, so that the same bytes come out each time.
"""

import copy
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from releases import (
    ALICE,
    BOB,
    CAROL,
    DAY_S,
    KEEPER,
    NEXT_KEEPER,
    ORIGIN,
    START_S,
    STRANGER,
    Keeper,
    draft,
    keeper,
    measurement,
    signed,
    terms,
)

from adyton_attestation.merkle import inclusion_proof, root_hash
from adyton_attestation.release_log import sign_checkpoint

NOW_S = START_S + 10 * DAY_S
KEPT = keeper(5, 6, 7)
Document = dict[str, Any]


def vector(name: str, file: Any, verdict: Document, **more: Any) -> Document:
    """One vector."""
    return {"name": name, "at": more.pop("at", NOW_S), **more, "file": file, **verdict}


def accepted(*in_force: int, floor: int, size: int) -> Document:
    """These releases hold."""
    return {"accepted": {"in_force": list(in_force), "floor": floor, "size": size}}


def rejected(check: str, code: str = "reference-values") -> Document:
    """Refused."""
    return {"rejected": {"check": check, "code": code}}


def exported(kept: Keeper = KEPT, now_s: int = NOW_S, **options: Any) -> Document:
    """A release file as JSON."""
    return kept.export(now_s, **options).to_json()


def edited(path: list[str | int], value: object, document: Document | None = None) -> Document:
    """A release file with one member changed."""
    changed: Any = copy.deepcopy(document or exported())
    place = changed
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return dict(changed)


def seen(kept: Keeper, floor: int) -> Document:
    """What a client remembers of a log."""
    return {
        "origin": ORIGIN,
        "floor": floor,
        "size": len(kept.log.entries),
        "root": root_hash(kept.log.leaves).hex(),
    }


def good() -> Iterator[Document]:
    """What is accepted."""
    yield vector("old and new overlap during an upgrade", exported(), accepted(6, 7, floor=6, size=3))
    yield vector(
        "a third signature does no harm",
        exported(keeper(5, 6).with_release(7, ALICE, BOB, CAROL)),
        accepted(6, 7, floor=6, size=3),
    )
    yield vector(
        "signatures of strangers are skipped",
        exported(keeper(5, 6).with_release(7, STRANGER, CAROL, ALICE)),
        accepted(6, 7, floor=6, size=3),
    )
    yield vector(
        "the upgrade has ended",
        exported(KEPT.with_release(8, minimum_release=7)),
        accepted(7, 8, floor=7, size=4),
    )
    yield vector(
        "a release that is announced withdraws nothing yet",
        exported(KEPT.with_release(20, minimum_release=20)),
        accepted(6, 7, floor=6, size=4),
    )
    yield vector(
        "and does once it has begun",
        exported(KEPT.with_release(20, minimum_release=20), START_S + 21 * DAY_S),
        accepted(20, floor=20, size=4),
        at=START_S + 21 * DAY_S,
    )
    yield vector(
        "the log grew from what was seen",
        exported(),
        accepted(6, 7, floor=6, size=3),
        seen=seen(keeper(5), 4),
    )
    yield vector("the same as before", exported(), accepted(6, 7, floor=6, size=3), seen=seen(KEPT, 6))
    yield vector(
        "the policy's own minimum counts", exported(), accepted(7, floor=7, size=3), minimum_release=7
    )
    both = sign_checkpoint(KEPT.log, KEEPER, now_s=NOW_S).with_signature(NEXT_KEEPER)
    yield vector(
        "the log's key is being changed",
        edited(["checkpoint"], str(both)),
        accepted(6, 7, floor=6, size=3),
        logs=[str(NEXT_KEEPER.public)],
    )


def signatures() -> Iterator[Document]:
    """What is refused for who signed it, or for its form."""
    check = "release-signatures"
    yield vector("one signer of two", exported(keeper(5, 6).with_release(7, ALICE)), rejected(check))
    yield vector(
        "signed by strangers", exported(keeper(5, 6).with_release(7, ALICE, STRANGER)), rejected(check)
    )
    again = exported(keeper(5, 6).with_release(7, ALICE))
    again["releases"][-1]["signatures"] *= 2
    yield vector("one key signs twice", again, rejected(check))
    renamed = replace(ALICE, name="alice.again@example.org")
    raw = signed(draft(7), ALICE)
    both = replace(raw, signatures=(*raw.signatures, *signed(draft(7), renamed).signatures))
    yield vector(
        "one key signs under two names", exported(keeper(5, 6).with_statement(both)), rejected(check)
    )
    yield vector(
        "an edited measurement",
        edited(["releases", -1, "statement", "enclaves", 0, "mr_enclave"], measurement(9).hex()),
        rejected(check),
    )
    for member, value in (("release", 9), ("name", "1.0"), ("minimum_release", 1), ("product", "other")):
        yield vector(
            f"an edited {member}", edited(["releases", -1, "statement", member], value), rejected(check)
        )
    yield vector(
        "an edited end",
        edited(["releases", -1, "statement", "not_after"], "2028-01-01T00:00:00Z"),
        rejected(check),
    )
    yield vector("another product", exported(Keeper().with_release(5, product="other")), rejected(check))
    borrowed = replace(draft(8), signatures=signed(draft(7)).signatures)
    yield vector(
        "in the log, under the signatures of another statement",
        exported(KEPT.with_statement(borrowed)),
        rejected(check),
    )
    yield vector("an unknown member", edited(["releases", -1, "statement", "x"], 1), rejected(check))
    yield vector("an unknown version", edited(["version"], 2), rejected(check))
    yield vector("no statement", edited(["releases"], []), rejected(check))


def log() -> Iterator[Document]:
    """What is refused for the log."""
    check = "release-log"
    unlogged = exported()
    unlogged["releases"][-1] |= signed(draft(8)).to_json()
    yield vector("signed and not in the log", unlogged, rejected(check))
    yield vector("in the log at another place", edited(["releases", 0, "index"], 0), rejected(check))
    yield vector("an edited proof", edited(["releases", -1, "inclusion", 0], "00" * 32), rejected(check))
    held_back = exported()
    held_back["releases"] = held_back["releases"][:-1]
    yield vector("the newest statement is held back", held_back, rejected(check))
    swapped = exported()
    swapped["releases"].reverse()
    yield vector("statements out of order", swapped, rejected(check))
    revived = KEPT.with_statement(signed(draft(5)))
    yield vector(
        "an old statement logged once more", without_order(revived), rejected(check), seen=seen(KEPT, 6)
    )
    yield vector(
        "an old statement logged once more, alone",
        edited(["releases"], without_order(revived)["releases"][-1:], without_order(revived)),
        rejected(check, "release-rolled-back"),
        seen=seen(KEPT, 6),
    )
    yield vector(
        "a minimum that falls", without_order(KEPT.with_release(8, minimum_release=1)), rejected(check)
    )
    mallory = replace(STRANGER, name=ORIGIN)
    yield vector("a checkpoint by a stranger", exported(replace(KEPT, key=mallory)), rejected(check))
    yield vector(
        "a checkpoint of another log",
        exported(replace(KEPT, key=replace(KEEPER, name="other/log"))),
        rejected(check),
    )
    note = exported()["checkpoint"]
    yield vector(
        "an edited checkpoint", edited(["checkpoint"], note.replace("\n3\n", "\n4\n")), rejected(check)
    )
    yield vector("a checkpoint too old", exported(now_s=NOW_S - 32 * DAY_S), rejected(check))
    yield vector("a checkpoint from the future", exported(now_s=NOW_S + 301), rejected(check))
    yield vector(
        "rolled back by whoever carries it",
        exported(keeper(5, 6)),
        rejected(check, "release-rolled-back"),
        seen=seen(KEPT, 6),
    )
    fork = keeper(5).with_release(6, name="0.6.1")
    for name, before in (("a fork of the same size", fork.with_release(7)), ("a fork that grew", fork)):
        yield vector(name, exported(), rejected(check, "release-log-forked"), seen=seen(before, 4))
    yield vector(
        "no proof from what was seen",
        edited(["consistency"], []),
        rejected(check),
        seen=seen(keeper(5), 4),
    )


def times() -> Iterator[Document]:
    """What is refused because nothing holds."""
    check = "reference-values"
    alone = Keeper().with_release(5)
    for name, at in (("not yet valid", START_S + 5 * DAY_S - 1), ("expired", START_S + 205 * DAY_S)):
        yield vector(name, exported(alone, at), rejected(check), at=at)
    for name, at in (
        ("on its first second", START_S + 5 * DAY_S),
        ("on its last", START_S + 205 * DAY_S - 1),
    ):
        yield vector(name, exported(alone, at), accepted(5, floor=4, size=1), at=at)
    yield vector("below the policy's minimum", exported(), rejected(check), minimum_release=8)


def without_order(kept: Keeper) -> Document:
    """The file of a keeper who does not mind in what order things are, with every statement in it."""
    made = exported(kept)
    leaves = kept.log.leaves
    made["releases"] = [
        {
            **entry.to_json(),
            "index": index,
            "inclusion": [value.hex() for value in inclusion_proof(leaves, index)],
        }
        for index, entry in enumerate(kept.log.entries)
    ]
    return made


def document() -> Document:
    """All vectors."""
    expected = terms()
    return {
        "description": "Release files, the time and the memory of a client, and the verdict: which releases hold, "
        "or the check that refuses and the code of its error. 'minimum_release' and 'logs' change the terms.",
        "terms": {
            "product": expected.product,
            "signers": [str(key) for key in expected.signers],
            "threshold": expected.threshold,
            "logs": [str(key) for key in expected.logs],
            "max_age_s": expected.max_age_s,
        },
        "vectors": [*good(), *signatures(), *log(), *times()],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(document(), indent=1) + "\n")
