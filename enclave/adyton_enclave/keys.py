# SPDX-License-Identifier: Apache-2.0
"""Key epochs: fresh keys every few minutes, the previous ones for a short overlap, and the replay memory of each.

Rules that hold in this module:

- Private halves are OpenSSL objects from birth to death. They are never Python bytes, never written, never shared
  with another enclave; when an epoch leaves the ring and its last stream ends, they are gone, and a recorded
  request cannot be opened any more.
- Life is counted by the monotonic clock, because the wall clock belongs to the host. Only the ``not_after`` that
  clients compare with *their* clock is wall time.
- What an epoch's callers had cached goes when its keys do.
- A key id is never given out again while it is live.
- Every accepted ``enc`` is remembered for as long as its key lives. A full memory ends the epoch early.

The ring is used from the event loop's thread only; none of its methods awaits, so each is atomic.
"""

import hashlib
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from adyton_enclave.cache_namespaces import CacheNamespaces
from adyton_enclave.tls_identity import TlsKey
from adyton_protocol.digests import Digest
from adyton_protocol.errors import KeyConfigMismatch, ReplayedRequest
from adyton_protocol.hpke import Kem, KemPrivateKey
from adyton_protocol.key_config import KeyConfig
from adyton_protocol.keyset import Keyset, KeysetExtension, ModelIdentity, PublicKeyEntry, TlsKeyEntry

KEMS: Final = (Kem.X_WING, Kem.X25519)
"""In order of preference. Both are in every key list; experimental KEMs never are, because one unknown KEM makes
some clients throw the whole list away."""

_KEY_IDS: Final = 256


class ReceiptSigner:
    """An Ed25519 key that signs receipts, and nothing else.

    The key belongs to one epoch and is listed in that epoch's attested keyset.
    """

    def __init__(self) -> None:
        self._private_key = Ed25519PrivateKey.generate()
        self.public_key: Final = self._private_key.public_key().public_bytes_raw()
        self.key_id: Final = "receipt-" + hashlib.sha256(self.public_key).hexdigest()[:16]

    def sign(self, message: bytes, /) -> bytes:
        """The 64-byte signature (RFC 8032 section 5.1.6) over ``message``."""
        return self._private_key.sign(message)


@dataclass(slots=True, kw_only=True, eq=False)
class KeyEpoch:
    """The keys of one epoch, what was attested about them, and what they have already opened.

    Attributes:
        private_keys: By key id.
        keyset: What the quote binds, the public halves among it.
        ends_s: Monotonic second from which the next epoch is current.
        expires_s: Monotonic second from which nothing sealed to these keys is accepted.
        seen: Digests of the encapsulated keys that were accepted.
        namespaces: Under which its callers may share cached prefixes.
        tls_key: Authenticates the second channel; None when that is closed.
    """

    private_keys: Mapping[int, KemPrivateKey]
    keyset: Keyset
    signer: ReceiptSigner
    ends_s: float
    expires_s: float
    seen: set[bytes]
    namespaces: CacheNamespaces
    tls_key: TlsKey | None = None

    @property
    def key_configs(self) -> bytes:
        """The exact ``application/ohttp-keys`` bytes of this epoch."""
        return self.keyset.e2ee_public_keys[0].public_bytes()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRingSettings:
    """What a key ring is told once.

    Attributes:
        epoch_s: Seconds for which an epoch is current.
        overlap_s: Seconds for which it still opens requests afterwards.
        replay_entries: Accepted requests after which an epoch ends early.
        configuration_digest: Goes into every keyset.
        models: Identities of the loaded models; go into every keyset.
        ra_tls: Whether each epoch has a TLS key.
    """

    epoch_s: int
    overlap_s: int
    replay_entries: int
    configuration_digest: Digest
    models: tuple[ModelIdentity, ...]
    ra_tls: bool = False


class KeyRing:
    """The current epoch and those that still overlap it."""

    def __init__(
        self,
        settings: KeyRingSettings,
        *,
        monotonic: Callable[[], float],
        wall_s: Callable[[], int],
        first_key_id: int,
        forget: Callable[[AbstractSet[bytes]], None] = lambda _namespaces: None,
    ) -> None:
        """Make the first epoch.

        Args:
            settings: See there.
            monotonic: Seconds by a clock that never goes back.
            wall_s: Unix seconds, only for what clients read.
            first_key_id: Where to start counting key ids, 0 to 255. A random start keeps a restarted enclave
                from announcing, under the same id, a key that a client would mistake for the one it attested.
            forget: Told which cache namespaces died with an epoch.
        """
        self._settings = settings
        self._monotonic = monotonic
        self._wall_s = wall_s
        self._forget = forget
        self._next_key_id = first_key_id % _KEY_IDS
        self._next_number = 0
        self._previous_digest: Digest | None = None
        self._epochs: list[KeyEpoch] = []
        self.rotate()

    def rotate(self) -> KeyEpoch:
        """Begin a new epoch now. Of the older ones, only the newest is kept, and not beyond its own overlap."""
        now_s = self._monotonic()
        older = self._epochs[-1:]
        for epoch in older:
            epoch.ends_s = min(epoch.ends_s, now_s)
            epoch.expires_s = min(epoch.expires_s, now_s + self._settings.overlap_s)
        self._keep([*older, self._make_epoch(now_s)])
        return self._epochs[-1]

    def current(self) -> KeyEpoch:
        """The epoch that new clients get, begun now if the last one is over."""
        self._advance()
        return self._epochs[-1]

    def find(self, key_id: int) -> KeyEpoch | None:
        """The live epoch that owns a key id, or None when there is none (any more)."""
        self._advance()
        for epoch in self._epochs:
            if key_id in epoch.private_keys:
                return epoch
        return None

    def live_key_ids(self) -> tuple[int, ...]:
        """Key ids that open requests now; public, the host routes by them."""
        self._advance()
        return tuple(key_id for epoch in reversed(self._epochs) for key_id in epoch.private_keys)

    def seconds_to_change(self) -> float:
        """Seconds until a key is born or dies."""
        now_s = self._monotonic()
        moments = [self._epochs[-1].ends_s, *(epoch.expires_s for epoch in self._epochs)]
        return max(0.0, min(moments) - now_s)

    def remember(self, epoch: KeyEpoch, enc: bytes) -> None:
        """Accept an encapsulated key once. Call it right after the first successful open, before any work.

        SECURITY: test and insertion are one step without an await between them, and the memory belongs to the
        epoch, so that it cannot be shorter-lived than the private key. An ``enc`` that was never opened is not
        remembered, or anybody could fill the memory with noise.

        Raises:
            ReplayedRequest: This ``enc`` was accepted before.
            KeyConfigMismatch: The epoch's memory is full; the caller has to seal to a newer key.
        """
        digest = hashlib.sha256(enc).digest()
        if digest in epoch.seen:
            raise ReplayedRequest("this sealed request was accepted before")
        # The newest epoch is replaced when it is full. It then overlaps with as much room again; past that it is
        # better to send clients back to attestation than to forget a single request.
        if len(epoch.seen) >= 2 * self._settings.replay_entries:
            raise KeyConfigMismatch("the key has been used too often")
        epoch.seen.add(digest)
        if epoch is self._epochs[-1] and len(epoch.seen) >= self._settings.replay_entries:
            self.rotate()

    def _advance(self) -> None:
        """Begin the next epoch if it is time, and let go of what has expired."""
        now_s = self._monotonic()
        if now_s >= self._epochs[-1].ends_s:
            self.rotate()
        if any(now_s >= epoch.expires_s for epoch in self._epochs):
            self._keep([epoch for epoch in self._epochs if now_s < epoch.expires_s])

    def _keep(self, epochs: list[KeyEpoch]) -> None:
        """Let go of all other epochs, and of what their callers had cached."""
        gone = [epoch for epoch in self._epochs if epoch not in epochs]
        self._epochs = epochs
        for epoch in gone:
            self._forget(epoch.namespaces.end())

    def _take_key_id(self) -> int:
        """The next id, counting round. At most two epochs live, so an id returns long after its key is gone."""
        key_id = self._next_key_id
        self._next_key_id = (key_id + 1) % _KEY_IDS
        return key_id

    def _make_epoch(self, now_s: float) -> KeyEpoch:
        private_keys: dict[int, KemPrivateKey] = {}
        configs: list[KeyConfig] = []
        for kem in KEMS:
            key_id = self._take_key_id()
            private_key = KemPrivateKey.generate(kem)
            private_keys[key_id] = private_key
            configs.append(KeyConfig.of(key_id, private_key))
        signer = ReceiptSigner()
        tls_key = TlsKey() if self._settings.ra_tls else None
        life_s = self._settings.epoch_s + self._settings.overlap_s
        keyset = self._make_keyset(configs, signer, tls_key, not_after=self._wall_s() + life_s)
        self._previous_digest = keyset.digest()
        return KeyEpoch(
            private_keys=private_keys,
            keyset=keyset,
            signer=signer,
            ends_s=now_s + self._settings.epoch_s,
            expires_s=now_s + life_s,
            seen=set(),
            namespaces=CacheNamespaces(),
            tls_key=tls_key,
        )

    def _make_keyset(
        self, configs: list[KeyConfig], signer: ReceiptSigner, tls_key: TlsKey | None, *, not_after: int
    ) -> Keyset:
        number = self._next_number
        self._next_number += 1
        return Keyset(
            subject=None,
            not_after=not_after,
            receipt_signing_keys=(PublicKeyEntry.ed25519(signer.key_id, signer.public_key),),
            e2ee_public_keys=(PublicKeyEntry.ohttp(f"ohttp-{number}", configs),),
            # The last epoch's key as well: it serves until the new one's certificate has its quotes.
            tls_public_keys=tuple(
                TlsKeyEntry(spki_sha256=key.spki_sha256)
                for key in (tls_key, *(epoch.tls_key for epoch in self._epochs[-1:]))
                if key is not None
            ),
            extension=KeysetExtension(
                epoch=number,
                previous_keyset_digest=self._previous_digest,
                configuration_digest=self._settings.configuration_digest,
                models=self._settings.models,
            ),
        )


class Admission:
    """One request's way to a key: finds it by id, and later remembers the request in that very epoch.

    Holding on to the epoch makes sure that two copies of a request that arrive around its end are still told
    apart by the same memory.
    """

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring
        self._epoch: KeyEpoch | None = None

    def lookup(self, key_id: int) -> KemPrivateKey | None:
        """The private key with this id, or None when it is unknown or gone."""
        self._epoch = self._ring.find(key_id)
        return None if self._epoch is None else self._epoch.private_keys[key_id]

    def accept(self, enc: bytes) -> KeyEpoch:
        """Remember the opened request; see :meth:`KeyRing.remember`.

        Returns:
            The epoch whose receipt key signs the answer.
        """
        if self._epoch is None:
            raise KeyConfigMismatch("the sealed request names an unknown key")
        self._ring.remember(self._epoch, enc)
        return self._epoch
