# SPDX-License-Identifier: Apache-2.0
"""A release file is believed for its signatures, its log and its time, and never for what carries it."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import release_vectors
from hypothesis import given, settings
from hypothesis import strategies as st
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
    as_bytes,
    draft,
    keeper,
    reread,
    signed,
    terms,
)

from adyton_attestation.release_file import (
    VerifiedReleases,
    check_history,
    check_log,
    check_signatures,
    parse_release_file,
    verify_release_file,
)
from adyton_attestation.release_log import ReleaseLog, parse_log, sign_checkpoint
from adyton_attestation.release_memory import ReleaseMark, merge_marks
from adyton_attestation.release_statement import parse_signed_statement, parse_statement
from adyton_attestation.release_terms import ReleaseTerms
from adyton_attestation.signing_keys import parse_public_key
from adyton_protocol.errors import ConfigError, ReferenceValueError, ReleaseLogForked, ReleaseRolledBack

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "releases.json").read_text())
NOW_S = START_S + 10 * DAY_S
KEPT = keeper(5, 6, 7)


def judged(
    data: bytes, expected: ReleaseTerms, mark: ReleaseMark, now_s: int
) -> VerifiedReleases | tuple[str, str]:
    """What holds; or the check that refuses and the code of its error."""
    check = "release-signatures"
    try:
        file = parse_release_file(data)
        check_signatures(file, expected)
        check = "release-log"
        check_log(file, expected, now_s)
        verified = check_history(file, expected, mark, now_s)
    except ReferenceValueError as error:
        return check, error.code
    return verified if verified.in_force() else ("reference-values", "reference-values")


@pytest.mark.parametrize("case", VECTORS["vectors"], ids=lambda case: case["name"].replace(" ", "-"))
def test_vectors(case: dict[str, Any]) -> None:
    """Accepted with these releases in force, or refused by this check with this code."""
    facts = VECTORS["terms"] | {name: case[name] for name in ("minimum_release", "logs") if name in case}
    expected = ReleaseTerms(
        **facts
        | {
            "signers": tuple(parse_public_key(text) for text in facts["signers"]),
            "logs": tuple(parse_public_key(text) for text in facts["logs"]),
        }
    )
    seen = case.get("seen", {"origin": ORIGIN, "floor": 0, "size": 0, "root": "00" * 32})
    mark = ReleaseMark(**seen | {"root": bytes.fromhex(seen["root"])})
    found = judged(as_bytes(case["file"]), expected, mark, case["at"])
    if "rejected" in case:
        assert found == (case["rejected"]["check"], case["rejected"]["code"])
        return
    assert isinstance(found, VerifiedReleases)
    assert {
        "in_force": [item.release for item in found.in_force()],
        "floor": found.floor,
        "size": found.mark.size,
    } == case["accepted"]


def test_the_vectors_are_what_their_script_makes() -> None:
    """Byte for byte, and each has its own name."""
    assert release_vectors.document() == VECTORS
    names = [case["name"] for case in VECTORS["vectors"]]
    assert len(set(names)) == len(names)


# --- Upgrades, rollbacks, memory ---------------------------------------------------------------------------------


def follow(*files: tuple[Keeper, int]) -> VerifiedReleases:
    """A client that is shown one file after the other; returns what it makes of the last."""
    mark = ReleaseMark(origin=ORIGIN)
    for kept, now_s in files:
        verified = verify_release_file(reread(kept.export(now_s)), terms(), now_s=now_s, mark=mark)
        mark = verified.mark
    return verified


def test_an_upgrade_overlaps_and_ends() -> None:
    """The old release holds beside the new one until a statement withdraws it, and not afterwards."""
    during = follow((keeper(5, 6), NOW_S), (KEPT, NOW_S + 1))
    assert [item.release for item in during.in_force()] == [6, 7]
    after = follow((KEPT, NOW_S), (KEPT.with_release(8, minimum_release=8), NOW_S + 1))
    assert [item.release for item in after.in_force()] == [8]
    assert after.mark.floor == 8


def test_an_operator_who_rolls_back_is_refused() -> None:
    """Whoever has seen the newer file refuses the older one, although every signature on it is good."""
    with pytest.raises(ReleaseRolledBack):
        follow((KEPT, NOW_S), (keeper(5, 6), NOW_S + 1))


def test_a_client_that_was_away_for_years_catches_up() -> None:
    """The file proves growth from each of the last 64 sizes; for earlier ones it says what to ask for."""
    long = keeper(*range(1, 81))
    at = START_S + 90 * DAY_S
    recent = ReleaseMark(origin=ORIGIN, floor=15, size=16, root=sign(long, 16))
    early = ReleaseMark(origin=ORIGIN, floor=2, size=3, root=sign(long, 3))
    verify_release_file(reread(long.export(at)), terms(), now_s=at, mark=recent)
    with pytest.raises(ReferenceValueError, match="--since 3"):
        verify_release_file(reread(long.export(at)), terms(), now_s=at, mark=early)
    verify_release_file(reread(long.export(at, since=[3])), terms(), now_s=at, mark=early)


def sign(kept: Keeper, size: int) -> bytes:
    """Root of the first entries."""
    return ReleaseLog(entries=kept.log.entries[:size]).checkpoint(ORIGIN, 0).root


def test_a_fork_is_its_own_error_and_not_to_be_retried() -> None:
    """The keeper rewrote an entry that was seen."""
    rewritten = keeper(5).with_release(6, name="0.6.1").with_release(7).with_release(8)
    with pytest.raises(ReleaseLogForked) as caught:
        follow((KEPT, NOW_S), (rewritten, NOW_S + 1))
    assert not caught.value.retry_safe


def test_what_was_withdrawn_stays_withdrawn() -> None:
    """The remembered floor holds after the statement that set it has expired, and in another file."""
    mark = ReleaseMark(origin=ORIGIN, floor=7)
    verified = verify_release_file(reread(KEPT.export(NOW_S)), terms(), now_s=NOW_S, mark=mark)
    assert [item.release for item in verified.in_force()] == [7]
    assert "withdrawn" in verified.explain()


def test_the_policys_minimum_is_not_remembered() -> None:
    """A slip in the policy can be taken back; a statement cannot."""
    found = verify_release_file(reread(KEPT.export(NOW_S)), terms(minimum_release=7), now_s=NOW_S)
    assert (found.floor, found.mark.floor) == (7, 6)


def test_marks_merge_upwards() -> None:
    """Floor and size each keep their highest; logs are kept apart."""
    low = ReleaseMark(origin="a", floor=3, size=9, root=b"\x09" * 32)
    high = ReleaseMark(origin="a", floor=4, size=2, root=b"\x02" * 32)
    other = ReleaseMark(origin="b", floor=1, size=1)
    merged = merge_marks((other, low), (high,))
    assert merged == (ReleaseMark(origin="a", floor=4, size=9, root=b"\x09" * 32), other)
    assert merge_marks(merged, (low,)) == merged


def test_no_client_depends_on_what_strangers_sign() -> None:
    """A policy with fewer or other signers decides for itself."""
    data = as_bytes(KEPT.export(NOW_S))
    verify_release_file(parse_release_file(data), terms(signers=(BOB.public,), threshold=1), now_s=NOW_S)
    for changes in ({"signers": (CAROL.public,), "threshold": 1}, {"threshold": 3}):
        with pytest.raises(ReferenceValueError):
            verify_release_file(parse_release_file(data), terms(**changes), now_s=NOW_S)


def test_a_key_added_later_needs_no_new_entry() -> None:
    """Rotation: the statement of the running release gets the new key's signature; the log stays as it is."""
    rotated = KEPT.log.with_signatures_of([signed(draft(6), CAROL), signed(draft(7), CAROL)])
    file = rotated.export(sign_checkpoint(rotated, KEEPER, now_s=NOW_S), now_s=NOW_S)
    assert file.checkpoint.root == KEPT.export(NOW_S).checkpoint.root
    verify_release_file(reread(file), terms(signers=(CAROL.public,), threshold=1), now_s=NOW_S)
    with pytest.raises(ConfigError):
        KEPT.log.with_signatures_of([signed(draft(6, name="0.6.1"), CAROL)])


@pytest.mark.parametrize(
    "changes",
    [
        {"signers": ()},
        {"logs": ()},
        {"threshold": 0},
        {"threshold": 4},
        {"signers": (ALICE.public, ALICE.public), "threshold": 2},
        {"signers": (ALICE.public, KEEPER.public), "threshold": 2},
        {"logs": (KEEPER.public, STRANGER.public)},
        {"max_age_s": 0},
        {"max_age_s": 10**9},
        {"minimum_release": 0},
    ],
)
def test_terms_that_would_not_mean_what_they_say_are_refused(changes: dict[str, Any]) -> None:
    """Nobody signs, everybody would have to twice, one key has two roles or two voices, the log has two names."""
    with pytest.raises(ConfigError):
        terms(**changes)


def test_a_log_may_have_two_keys_of_one_name() -> None:
    """While its key is being changed."""
    assert terms(logs=(KEEPER.public, NEXT_KEEPER.public)).origin == ORIGIN


# --- Hostile bytes -----------------------------------------------------------------------------------------------


@given(st.binary(max_size=400))
def test_no_bytes_are_a_release_by_chance(data: bytes) -> None:
    """Typed errors only."""
    for parse, error in (
        (parse_release_file, ReferenceValueError),
        (parse_signed_statement, ReferenceValueError),
        (parse_statement, ConfigError),
    ):
        with pytest.raises(error):
            parse(data)


VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just([]) | st.just({})


def places(value: Any, at: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Paths of all values below a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for key, item in items for path in ((*at, key), *places(item, (*at, key)))]


DOCUMENT = KEPT.export(NOW_S).to_json()
PLACES = places(DOCUMENT)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PLACES), VALUES, st.sampled_from(["replace", "remove", "add"]))
def test_no_edit_of_a_release_file_says_more_than_it_did(
    path: tuple[str | int, ...], value: object, how: str
) -> None:
    """Any value put anywhere, any member removed or added: refused, or the same releases hold."""
    changed: Any = copy.deepcopy(DOCUMENT)
    place = changed
    for step in path[:-1]:
        place = place[step]
    if how == "remove":
        del place[path[-1]]
    elif how == "add" and isinstance(place, dict):
        place["x"] = value
    else:
        place[path[-1]] = value
    found = judged(as_bytes(changed), terms(), ReleaseMark(origin=ORIGIN), NOW_S)
    if isinstance(found, VerifiedReleases):
        assert {item.payload for item in found.in_force()} <= {
            entry.statement.payload for entry in KEPT.log.entries[1:]
        }
        assert found.floor == 6


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("release", 0),
        ("release", 2**31),
        ("name", "a b"),
        ("product", "A"),
        ("not_before", "2026-09-27T14:13:20+00:00"),
        ("not_before", "2026-02-30T00:00:00Z"),
        ("not_after", "2026-01-01T00:00:00Z"),
        ("not_after", "2036-01-01T00:00:00Z"),
        ("minimum_release", 6),
        ("version", 2),
        ("enclaves", [{}]),
        ("enclaves", [{"mr_enclave": "00"}]),
        ("enclaves", [{"mr_enclave": "00" * 32, "mr_signer": {}}]),
        ("enclaves", [{"mr_enclave": "00" * 32, "configurations": []}]),
        ("enclaves", [{"mr_enclave": "00" * 32, "configurations": ["sha256:" + "0" * 64] * 2}]),
        ("enclaves", [{"mr_enclave": "00" * 32, "models": {"": ["sha256:" + "0" * 64]}}]),
        ("enclaves", [{"mr_enclave": "00" * 32, "models": {"m": []}}]),
        ("enclaves", [{"mr_enclave": "00" * 32}] * 65),
    ],
)
def test_the_author_of_a_statement_is_told(member: str, value: object) -> None:
    """Numbers, names, dates and enclaves that make no sense do not get as far as a signature."""
    document = dict(draft(5).document) | {member: value}
    with pytest.raises(ConfigError, match=member.partition(".")[0]):
        parse_statement(json.dumps(document).encode())


def test_a_statement_without_enclaves_only_withdraws() -> None:
    """No new release is needed to call a bad one back."""
    kept = KEPT.with_release(8, minimum_release=8, enclaves=[])
    verified = verify_release_file(reread(kept.export(NOW_S)), terms(), now_s=NOW_S)
    assert [item.enclaves for item in verified.in_force()] == [()]


# --- The log's keeper --------------------------------------------------------------------------------------------


def lines(kept: Keeper) -> bytes:
    """The log file."""
    return b"".join(kept.log.line(index) for index in range(len(kept.log.entries)))


def test_a_log_file_reads_back() -> None:
    """And is what its checkpoint says."""
    log = parse_log(lines(KEPT))
    assert log == KEPT.log
    assert log.continues(KEPT.export(NOW_S).checkpoint)
    assert parse_log(b"") == ReleaseLog()


@pytest.mark.parametrize(
    "release",
    [draft(8), signed(draft(7)), signed(draft(8, minimum_release=5)), signed(draft(8, product="other"))],
    ids=["unsigned", "not newer", "falling minimum", "another product"],
)
def test_an_honest_keeper_appends_nothing_that_clients_refuse(release: Any) -> None:
    """Before it is in the log for ever."""
    with pytest.raises(ConfigError):
        KEPT.log.appended(release)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(lines(KEPT)) - 1), st.integers(1, 255))
def test_a_changed_log_file_is_noticed(at: int, flip: int) -> None:
    """One byte anywhere: the file is no log, or not the one that the checkpoint is of."""
    data = bytearray(lines(KEPT))
    data[at] ^= flip
    try:
        log = parse_log(bytes(data))
    except ConfigError:
        return
    assert not log.continues(KEPT.export(NOW_S).checkpoint) or log.leaves == KEPT.log.leaves


def test_a_file_that_is_cut_off_is_noticed() -> None:
    """Within a line, it is no log; between lines, it is not what the checkpoint says."""
    whole = lines(KEPT)
    with pytest.raises(ConfigError):
        parse_log(whole[:-1])
    assert not parse_log(KEPT.log.line(0)).continues(KEPT.export(NOW_S).checkpoint)


def test_only_the_own_checkpoint_makes_an_export() -> None:
    """Neither one of an earlier log nor one of another."""
    for other in (keeper(5, 6), keeper(5, 6).with_release(7, name="0.7.1"), keeper(5, 6, 7, 8)):
        note = sign_checkpoint(other.log, KEEPER, now_s=NOW_S)
        with pytest.raises(ConfigError):
            KEPT.log.export(note, now_s=NOW_S)


def test_an_export_has_what_holds_and_the_newest() -> None:
    """Withdrawn and expired statements stay in the log and leave the file."""
    kept = KEPT.with_release(8, minimum_release=7).with_release(9, minimum_release=7, enclaves=[])
    assert [item.index for item in kept.export(NOW_S).releases] == [2, 3, 4]
    assert [item.index for item in kept.export(START_S + 300 * DAY_S).releases] == [4]


def test_a_file_has_room_for_so_many_releases() -> None:
    """Whoever never withdraws anything is told to."""
    kept = Keeper()
    for release in range(1, 19):
        kept = kept.with_release(release, minimum_release=1)
    with pytest.raises(ConfigError, match="withdraw"):
        kept.export(START_S + 30 * DAY_S)
