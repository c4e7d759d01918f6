# SPDX-License-Identifier: Apache-2.0
"""Keys of releases: one form each, sealed at rest, and checkpoints that only their keys sign."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from releases import ALICE, KEEPER, NEXT_KEEPER, START_S, STRANGER, keeper, key

from adyton_attestation.private_keys import PrivateKey, Strength, public_key_of
from adyton_attestation.release_log import sign_checkpoint
from adyton_attestation.signed_note import parse_note, read_checkpoint
from adyton_attestation.signing_keys import parse_public_key
from adyton_protocol.errors import ConfigError, LocalProtocolError, ReferenceValueError

WEAK = Strength(operations=1, memory_bytes=8192)
RANDOM = bytes(range(40))
NOTE = str(sign_checkpoint(keeper(1, 2).log, KEEPER, now_s=START_S))


def test_a_public_key_is_one_word_that_reads_back() -> None:
    """And two names of one key have two fingerprints, as have two keys of one name."""
    word = str(ALICE.public)
    assert parse_public_key(f" {word}\n") == ALICE.public
    others = [key("alice@example.org", 7), key("alicia@example.org", 1)]
    assert len({each.public.fingerprint for each in (ALICE, *others)}) == 3
    assert len(ALICE.public.fingerprint.replace(" ", "")) == 32


def test_the_word_is_that_of_signed_notes() -> None:
    """The key of C2SP's own documentation is read, and written the same."""
    word = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    assert str(parse_public_key(word)) == word


@given(
    st.text(max_size=120) | st.from_regex(r"[a-z@.]{1,20}\+[0-9a-f]{8}\+[A-Za-z0-9+/=]{0,50}", fullmatch=True)
)
def test_no_text_is_a_key_by_chance(text: str) -> None:
    """Whatever is typed: a typed error."""
    with pytest.raises(ConfigError):
        parse_public_key(text)


@pytest.mark.parametrize("place", range(len(str(ALICE.public))))
def test_a_mistyped_key_is_noticed(place: int) -> None:
    """One changed character anywhere, the name included."""
    word = str(ALICE.public)
    typed = word[:place] + ("B" if word[place] != "B" else "C") + word[place + 1 :]
    with pytest.raises(ConfigError):
        parse_public_key(typed)


def test_a_sealed_key_opens_with_its_passphrase_only() -> None:
    """And tells its public half without."""
    data = ALICE.to_file(b"correct horse", random=RANDOM, strength=WEAK)
    assert ALICE.seed.hex().encode() not in data
    assert public_key_of(data) == (ALICE.public, True)
    assert PrivateKey.from_file(data, b"correct horse") == ALICE
    for wrong in (b"wrong horse", b"", None):
        with pytest.raises(ConfigError):
            PrivateKey.from_file(data, wrong)


def test_a_key_file_cannot_state_another_key_than_it_holds() -> None:
    """Else a person would read out one fingerprint and sign with another key."""
    document = json.loads(ALICE.to_file(None, random=RANDOM))
    document["public_key"] = str(STRANGER.public)
    with pytest.raises(ConfigError):
        PrivateKey.from_file(json.dumps(document).encode(), None)


def test_a_key_file_cannot_ask_for_endless_work() -> None:
    """Cost parameters have bounds."""
    for member, value in (("operations", 10**6), ("memory_bytes", 1 << 40), ("operations", 0)):
        document = json.loads(ALICE.to_file(b"x", random=RANDOM, strength=WEAK))
        document["sealed"][member] = value
        with pytest.raises(ConfigError):
            PrivateKey.from_file(json.dumps(document).encode(), b"x")


@given(st.binary(max_size=200))
def test_no_bytes_are_a_key_file_by_chance(data: bytes) -> None:
    """A typed error."""
    with pytest.raises(ConfigError):
        PrivateKey.from_file(data, b"x")


def test_private_keys_do_not_show() -> None:
    """Neither in a representation nor in a file that is sealed."""
    assert ALICE.seed.hex() not in repr(ALICE)
    assert repr(ALICE.seed) not in repr(ALICE)


def test_sealing_takes_fresh_bytes() -> None:
    """Of the right number."""
    with pytest.raises(LocalProtocolError):
        ALICE.to_file(b"x", random=bytes(3))


# --- Checkpoints -------------------------------------------------------------------------------------------------


def test_a_checkpoint_reads_back() -> None:
    """Text to values and to the same text."""
    note = parse_note(NOTE)
    checkpoint = read_checkpoint(note)
    assert (checkpoint.size, checkpoint.time_s, checkpoint.origin) == (2, START_S, KEEPER.name)
    assert str(note) == NOTE
    assert checkpoint.note().text == note.text
    assert note.signed_by([KEEPER.public]) == {KEEPER.public}


def test_two_keepers_may_sign_and_unknown_ones_are_skipped() -> None:
    """So that the log's key can be changed: clients with either key are content."""
    note = parse_note(NOTE).with_signature(NEXT_KEEPER)
    again = parse_note(str(note))
    assert again.signed_by([KEEPER.public]) == {KEEPER.public}
    assert again.signed_by([NEXT_KEEPER.public, STRANGER.public]) == {NEXT_KEEPER.public}
    assert not again.signed_by([STRANGER.public])


@pytest.mark.parametrize("place", range(len(NOTE)))
def test_no_character_of_a_checkpoint_can_be_changed(place: int) -> None:
    """It is malformed then, or not signed by its keeper."""
    other = "3" if NOTE[place] != "3" else "4"
    try:
        note = parse_note(NOTE[:place] + other + NOTE[place + 1 :])
        read_checkpoint(note)
        accepted = bool(note.signed_by([KEEPER.public]))
    except ReferenceValueError:
        accepted = False
    assert not accepted


@given(st.text(max_size=300) | st.lists(st.sampled_from([*NOTE.splitlines(), "", "— a b"])).map("\n".join))
def test_no_text_is_a_signed_checkpoint_by_chance(text: str) -> None:
    """Typed errors only; pieces of a good note are good in their one order."""
    if text == NOTE:
        return
    try:
        note = parse_note(text)
        read_checkpoint(note)
        assert str(note) == text
        assert not note.signed_by([KEEPER.public]) or note.text == parse_note(NOTE).text
    except ReferenceValueError:
        pass


@pytest.mark.parametrize(
    "lines",
    [
        ["log", "2", "A" * 43 + "=", "time 2026-02-30T00:00:00Z"],
        ["log", "02", "A" * 43 + "=", "time 2026-02-03T00:00:00Z"],
        ["log", "2", "A" * 42 + "B=", "time 2026-02-03T00:00:00Z"],
        ["log", "9" * 16, "A" * 43 + "=", "time 2026-02-03T00:00:00Z"],
        ["log", "2", "A" * 43 + "="],
        ["log", "2", "A" * 43 + "=", "time 2026-02-03T00:00:00Z", "more"],
    ],
)
def test_a_checkpoint_has_one_form(lines: list[str]) -> None:
    """No impossible date, no leading zero, no spare bits, no line more or less."""
    below = NOTE.partition("\n\n")[2]
    with pytest.raises(ReferenceValueError):
        read_checkpoint(parse_note("\n".join(lines) + "\n\n" + below))
