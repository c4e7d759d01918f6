# SPDX-License-Identifier: Apache-2.0
"""Key epochs: how long a key lives, that ids do not clash, and that nothing is accepted twice."""

import gc
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import VerifyKey
from unit.enclave.harness import Enclave, FakeClock, digest_of

from adyton_enclave.keys import Admission, KeyRing, KeyRingSettings, ReceiptSigner
from adyton_protocol.errors import KeyConfigMismatch, ReplayedRequest
from adyton_protocol.keyset import ModelIdentity

MODELS = (ModelIdentity(name="fake", identity=digest_of("model")),)


def ring_of(
    clock: FakeClock, *, epoch_s: int = 900, overlap_s: int = 300, entries: int = 100, first: int = 0
) -> KeyRing:
    """A ring on a test's clock."""
    settings_ = KeyRingSettings(
        epoch_s=epoch_s,
        overlap_s=overlap_s,
        replay_entries=entries,
        configuration_digest=digest_of("configuration"),
        models=MODELS,
    )
    return KeyRing(settings_, monotonic=lambda: clock.now_s, wall_s=lambda: clock.wall, first_key_id=first)


def test_an_epoch_ends_on_time_and_overlaps() -> None:
    """Current for 900 s, opening for 300 s more, gone at 1,200 s sharp."""
    clock = FakeClock()
    ring = ring_of(clock)
    first = ring.current()
    (key_id, other) = first.private_keys
    clock.advance(899.9)
    assert ring.current() is first
    clock.advance(0.1)
    assert ring.current() is not first
    assert ring.find(key_id) is first
    assert ring.find(other) is first
    clock.advance(299.9)
    assert ring.find(key_id) is first
    clock.advance(0.1)
    assert ring.find(key_id) is None


def test_life_is_counted_by_the_monotonic_clock() -> None:
    """A host that sets the wall clock back or forth changes no key's life."""
    clock = FakeClock()
    ring = ring_of(clock)
    first = ring.current()
    clock.wall += 10**6
    assert ring.current() is first
    clock.wall -= 2 * 10**6
    clock.now_s += 900
    assert ring.current() is not first


def test_a_private_key_is_gone_when_its_life_is_over() -> None:
    """Nothing holds on to an expired epoch: a recorded request cannot be opened any more."""
    clock = FakeClock()
    ring = ring_of(clock)
    gone = weakref.ref(ring.current().signer)
    clock.advance(1200)
    ring.current()
    gc.collect()
    assert gone() is None


def test_keysets_are_chained_and_bounded() -> None:
    """Each keyset names its predecessor, its number, and the moment after which nobody may use it."""
    clock = FakeClock()
    ring = ring_of(clock)
    first = ring.current().keyset
    clock.advance(900)
    second = ring.current().keyset
    assert first.extension.previous_keyset_digest is None
    assert second.extension.previous_keyset_digest == first.digest()
    assert (first.extension.epoch, second.extension.epoch) == (0, 1)
    assert second.not_after == clock.wall + 1200
    assert second.extension.models == MODELS
    assert first.receipt_signing_keys != second.receipt_signing_keys


@settings(max_examples=20)
@given(first=st.integers(0, 255), steps=st.lists(st.integers(1, 1500), min_size=1, max_size=30))
def test_live_key_ids_never_clash(first: int, steps: list[int]) -> None:
    """Whatever the rhythm, ids that open requests at the same time are distinct."""
    clock = FakeClock()
    ring = ring_of(clock, first=first)
    for step in steps:
        clock.advance(step)
        ids = ring.live_key_ids()
        assert len(set(ids)) == len(ids)
        assert set(ring.current().private_keys) <= set(ids)
        for key_id in ids:
            epoch = ring.find(key_id)
            assert epoch is not None
            assert key_id in epoch.private_keys


def test_key_ids_wrap_around() -> None:
    """After 255 comes 0, unless that is live."""
    clock = FakeClock()
    ring = ring_of(clock, first=255)
    assert set(ring.current().private_keys) == {255, 0}
    for _ in range(130):
        ring.rotate()
        assert len(set(ring.live_key_ids())) == 4


def test_an_encapsulation_is_accepted_once_per_key_life() -> None:
    """The second time is a replay, also after a rotation."""
    clock = FakeClock()
    ring = ring_of(clock)
    admission = Admission(ring)
    (key_id, _) = ring.current().private_keys
    assert admission.lookup(key_id) is not None
    admission.accept(b"enc")
    with pytest.raises(ReplayedRequest):
        admission.accept(b"enc")
    clock.advance(900)
    late = Admission(ring)
    assert late.lookup(key_id) is not None
    with pytest.raises(ReplayedRequest):
        late.accept(b"enc")


def test_two_copies_in_flight_at_the_end_of_a_key_are_told_apart() -> None:
    """A copy that was looked up before the key died meets the same memory after it."""
    clock = FakeClock()
    ring = ring_of(clock)
    (key_id, _) = ring.current().private_keys
    one, two = Admission(ring), Admission(ring)
    assert one.lookup(key_id)
    assert two.lookup(key_id)
    clock.advance(5000)
    ring.current()
    one.accept(b"enc")
    with pytest.raises(ReplayedRequest):
        two.accept(b"enc")


def test_a_full_memory_ends_the_epoch_early() -> None:
    """At the limit a new epoch begins; the full key overlaps with room again, then asks for a newer key."""
    clock = FakeClock()
    ring = ring_of(clock, entries=16)
    full = ring.current()
    for number in range(16):
        ring.remember(full, bytes([number]))
    assert ring.current() is not full
    assert full.expires_s == clock.now_s + 300
    for number in range(16, 32):
        ring.remember(full, bytes([number]))
    with pytest.raises(KeyConfigMismatch):
        ring.remember(full, b"one more")
    with pytest.raises(ReplayedRequest):
        ring.remember(full, bytes([0]))
    assert len(full.seen) == 32


def test_an_unknown_key_is_not_accepted() -> None:
    """Nothing is accepted under a key that was not found."""
    admission = Admission(ring_of(FakeClock()))
    assert admission.lookup(200) is None
    with pytest.raises(KeyConfigMismatch):
        admission.accept(b"enc")


def test_the_receipt_key_signs_what_anybody_can_verify() -> None:
    """An independent Ed25519 implementation accepts the signature; the private half is no attribute."""
    signer = ReceiptSigner()
    VerifyKey(signer.public_key).verify(b"message", signer.sign(b"message"))
    assert not [
        value for value in vars(signer).values() if isinstance(value, bytes) and value != signer.public_key
    ]


def test_no_private_key_is_python_bytes() -> None:
    """Reachable from an epoch are public bytes and OpenSSL objects, nothing else of that size."""
    epoch = Enclave().ring.current()
    for private_key in epoch.private_keys.values():
        slots = [getattr(private_key, name) for name in type(private_key).__slots__]
        assert [value for value in slots if isinstance(value, bytes)] == [private_key.public_bytes]


def test_the_time_to_the_next_change_is_known() -> None:
    """The rotation task sleeps exactly until a key is born or dies."""
    clock = FakeClock()
    ring = ring_of(clock)
    assert ring.seconds_to_change() == 900
    clock.advance(900)
    ring.current()
    assert ring.seconds_to_change() == 300
    clock.advance(300)
    ring.current()
    assert ring.seconds_to_change() == 600
