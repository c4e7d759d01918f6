# SPDX-License-Identifier: Apache-2.0
"""HPKE in base mode (RFC 9180) over X25519 or X-Wing, with contexts and exported secrets.

The primitives are OpenSSL's, reached through ``cryptography``; this module adds the key schedule. It is
our own because no maintained library offers contexts, export and a post-quantum KEM together.

Invariants:

* Private keys stay OpenSSL objects. Nothing here turns one into bytes.
* A context seals or opens; it never does both, so no two messages can share a nonce.
* A failed open leaves the context where it was, and is always the same error.

Not here: the authenticated and pre-shared-key modes, other KDFs, serialisation of private keys.
"""

import hashlib
import hmac
from typing import Final, Self, final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from adyton_protocol.errors import LocalProtocolError, OpenError, RemoteProtocolError
from adyton_protocol.suite import AEAD_NONCE_BYTES, HASH_BYTES, X_WING_LABEL, Aead, Kdf, Kem

__all__ = [
    "Aead",
    "AeadKey",
    "Kdf",
    "Kem",
    "KemPrivateKey",
    "RecipientContext",
    "SenderContext",
    "check_public_key",
    "hkdf_expand",
    "hkdf_extract",
    "setup_recipient",
    "setup_sender",
]

_MLKEM_PUBLIC_BYTES: Final = 1184
_MLKEM_CIPHERTEXT_BYTES: Final = 1088
_MODE_BASE: Final = b"\x00"
_MAX_SEQUENCE: Final = (1 << (8 * AEAD_NONCE_BYTES)) - 1
_MAX_EXPORT_BYTES: Final = 255 * HASH_BYTES


# --- Key derivation (RFC 5869; RFC 9180 section 4) --------------------------------------------------


def hkdf_extract(salt: bytes, ikm: bytes | bytearray) -> bytes:
    """Return HKDF-SHA256-Extract: a 32-byte pseudorandom key. An empty salt stands for 32 zero bytes."""
    return hmac.digest(salt or bytes(HASH_BYTES), ikm, "sha256")


def hkdf_expand(prk: bytes, info: bytes, length: int) -> bytes:
    """Return ``length`` bytes (at most 8160) of HKDF-SHA256-Expand."""
    if not 0 <= length <= _MAX_EXPORT_BYTES:
        raise LocalProtocolError(f"HKDF-SHA256 expands to at most {_MAX_EXPORT_BYTES} bytes")
    block = b""
    output = b""
    for counter in range(1, -(-length // HASH_BYTES) + 1):
        block = hmac.digest(prk, block + info + counter.to_bytes(1, "big"), "sha256")
        output += block
    return output[:length]


def _labeled_extract(suite_id: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return hkdf_extract(salt, b"HPKE-v1" + suite_id + label + ikm)


def _labeled_expand(suite_id: bytes, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    return hkdf_expand(prk, length.to_bytes(2, "big") + b"HPKE-v1" + suite_id + label + info, length)


# --- Key encapsulation ------------------------------------------------------------------------------


@final
class KemPrivateKey:
    """A private key for one KEM, held as OpenSSL objects.

    SECURITY: there is deliberately no way to read the private half, to build one from bytes, or to copy it
    between processes: a key that rotates away must be gone.
    """

    __slots__ = ("_mlkem", "_public_bytes", "_x25519")

    def __init__(self, x25519: X25519PrivateKey, mlkem: MLKEM768PrivateKey | None = None) -> None:
        """Wrap existing keys: X25519 alone, or X25519 with ML-KEM-768 for X-Wing."""
        self._x25519 = x25519
        self._mlkem = mlkem
        public = x25519.public_key().public_bytes_raw()
        if mlkem is not None:
            public = mlkem.public_key().public_bytes_raw() + public
        self._public_bytes = public

    @classmethod
    def generate(cls, kem: Kem) -> Self:
        """Draw a new private key from OpenSSL's generator."""
        mlkem = MLKEM768PrivateKey.generate() if kem is Kem.X_WING else None
        return cls(X25519PrivateKey.generate(), mlkem)

    @property
    def kem(self) -> Kem:
        """The KEM that this key belongs to."""
        return Kem.X25519 if self._mlkem is None else Kem.X_WING

    @property
    def public_bytes(self) -> bytes:
        """The public key: 32 bytes (X25519), or 1216 (X-Wing: ML-KEM-768, then X25519)."""
        return self._public_bytes

    def decapsulate(self, enc: bytes) -> bytes:
        """Return the 32-byte shared secret of an attacker-controlled encapsulated key.

        Raises:
            OpenError: ``enc`` has the wrong length or leads to the all-zero X25519 secret.
        """
        try:
            if self._mlkem is None:
                dh = self._x25519.exchange(X25519PublicKey.from_public_bytes(enc))
                return _dhkem_secret(dh, enc, self._public_bytes)
            ct_x = enc[_MLKEM_CIPHERTEXT_BYTES:]
            ss_m = self._mlkem.decapsulate(enc[:_MLKEM_CIPHERTEXT_BYTES])
            ss_x = self._x25519.exchange(X25519PublicKey.from_public_bytes(ct_x))
        except ValueError:
            # SECURITY: the cause is dropped. OpenSSL refuses wrong lengths and the all-zero secret (RFC 9180
            # section 7.1.4).
            raise OpenError from None
        return _x_wing_secret(ss_m, ss_x, ct_x, self._public_bytes[_MLKEM_PUBLIC_BYTES:])

    def __repr__(self) -> str:
        return f"<KemPrivateKey {self.kem.name}>"


def check_public_key(kem: Kem, public_key: bytes) -> None:
    """Check an attacker-controlled public key as far as that is possible without using it.

    Raises:
        RemoteProtocolError: The length is wrong, or an ML-KEM coefficient is out of range (FIPS 203
            section 7.2).
    """
    if len(public_key) != kem.public_key_bytes:
        raise RemoteProtocolError(f"a {kem.name} public key has {kem.public_key_bytes} bytes")
    if kem is Kem.X_WING:
        try:
            MLKEM768PublicKey.from_public_bytes(public_key[:_MLKEM_PUBLIC_BYTES])
        except ValueError as error:
            raise RemoteProtocolError("not an ML-KEM-768 public key") from error


def _encapsulate(kem: Kem, public_key: bytes, ephemeral: X25519PrivateKey) -> tuple[bytes, bytes]:
    """Return (shared secret, enc). ML-KEM draws its own randomness inside OpenSSL."""
    check_public_key(kem, public_key)
    ct_x = ephemeral.public_key().public_bytes_raw()
    pk_x = public_key[-32:]
    try:
        ss_x = ephemeral.exchange(X25519PublicKey.from_public_bytes(pk_x))
    except ValueError as error:
        # SECURITY: OpenSSL refuses the all-zero secret; X-Wing does not demand it, we do for both.
        raise RemoteProtocolError("the public key is a point of low order") from error
    if kem is Kem.X25519:
        return _dhkem_secret(ss_x, ct_x, public_key), ct_x
    mlkem = MLKEM768PublicKey.from_public_bytes(public_key[:_MLKEM_PUBLIC_BYTES])
    ss_m, ct_m = mlkem.encapsulate()
    return _x_wing_secret(ss_m, ss_x, ct_x, pk_x), ct_m + ct_x


def _dhkem_secret(dh: bytes, enc: bytes, public_key: bytes) -> bytes:
    """ExtractAndExpand of RFC 9180 section 4.1."""
    suite_id = b"KEM" + Kem.X25519.to_bytes(2, "big")
    eae_prk = _labeled_extract(suite_id, b"", b"eae_prk", dh)
    return _labeled_expand(suite_id, eae_prk, b"shared_secret", enc + public_key, HASH_BYTES)


def _x_wing_secret(ss_m: bytes, ss_x: bytes, ct_x: bytes, pk_x: bytes) -> bytes:
    """Combiner of draft-connolly-cfrg-xwing-kem section 5.3."""
    return hashlib.sha3_256(ss_m + ss_x + ct_x + pk_x + X_WING_LABEL).digest()


# --- Numbered authenticated encryption (RFC 9180 section 5.2) ---------------------------------------


@final
class AeadKey:
    """A key, a base nonce and the number of the next message. Both ends of one direction hold one.

    The nonce of message ``i`` is the base nonce XOR ``i``. Used for HPKE contexts and, because the chunked
    draft derives its nonces the same way, for OHTTP responses.
    """

    __slots__ = ("_base_nonce", "_cipher", "_sequence")

    def __init__(self, aead: Aead, key: bytes, base_nonce: bytes) -> None:
        """Take ``key`` (Nk bytes) and ``base_nonce`` (12 bytes); numbering starts at 0."""
        self._cipher = ChaCha20Poly1305(key) if aead is Aead.CHACHA20_POLY1305 else AESGCM(key)
        self._base_nonce = int.from_bytes(base_nonce, "big")
        self._sequence = 0

    def _aead_nonce(self) -> bytes:
        # SECURITY: the limit comes before the nonce, or the last nonce would be used twice.
        if self._sequence >= _MAX_SEQUENCE:
            raise LocalProtocolError("the message limit of this key is reached")
        return (self._base_nonce ^ self._sequence).to_bytes(AEAD_NONCE_BYTES, "big")

    def seal(self, aad: bytes, plaintext: bytes) -> bytes:
        """Seal the next message; the result is 16 bytes longer.

        Raises:
            LocalProtocolError: The message limit is reached.
        """
        sealed = self._cipher.encrypt(self._aead_nonce(), plaintext, aad)
        self._sequence += 1
        return sealed

    def open(self, aad: bytes, sealed: bytes) -> bytes:
        """Open the next message, which is attacker-controlled. On failure the number does not advance.

        Raises:
            OpenError: The message is not authentic, or is not the next one.
            LocalProtocolError: The message limit is reached.
        """
        try:
            plaintext = self._cipher.decrypt(self._aead_nonce(), sealed, aad)
        except InvalidTag:
            # SECURITY: the cause is dropped, so that all failures look alike.
            raise OpenError from None
        self._sequence += 1
        return plaintext


class _Context:
    __slots__ = ("_exporter_secret", "_key", "_suite_id")

    def __init__(self, suite_id: bytes, key: AeadKey, exporter_secret: bytes) -> None:
        self._suite_id = suite_id
        self._key = key
        self._exporter_secret = exporter_secret

    def export(self, exporter_context: bytes, length: int) -> bytes:
        """Return a secret of ``length`` bytes that only the two ends can compute (RFC 9180 section 5.3).

        Raises:
            LocalProtocolError: ``length`` is negative or exceeds 8160.
        """
        if not 0 <= length <= _MAX_EXPORT_BYTES:
            raise LocalProtocolError(f"an exported secret has at most {_MAX_EXPORT_BYTES} bytes")
        return _labeled_expand(self._suite_id, self._exporter_secret, b"sec", exporter_context, length)


@final
class SenderContext(_Context):
    """The end that seals."""

    __slots__ = ()

    def seal(self, aad: bytes, plaintext: bytes) -> bytes:
        """Seal the next message; the result is 16 bytes longer.

        Raises:
            LocalProtocolError: The message limit is reached.
        """
        return self._key.seal(aad, plaintext)


@final
class RecipientContext(_Context):
    """The end that opens."""

    __slots__ = ()

    def open(self, aad: bytes, sealed: bytes) -> bytes:
        """Open the next message, which is attacker-controlled. On failure the number does not advance.

        Raises:
            OpenError: The message is not authentic, or is not the next one.
        """
        return self._key.open(aad, sealed)


# --- Setup (RFC 9180 section 5.1) -------------------------------------------------------------------


def _key_schedule(
    kem: Kem, kdf: Kdf, aead: Aead, shared_secret: bytes, info: bytes
) -> tuple[bytes, AeadKey, bytes]:
    """KeySchedule of RFC 9180 section 5.1 for base mode; returns the arguments of a context."""
    suite_id = b"HPKE" + kem.to_bytes(2, "big") + kdf.to_bytes(2, "big") + aead.to_bytes(2, "big")
    psk_id_hash = _labeled_extract(suite_id, b"", b"psk_id_hash", b"")
    info_hash = _labeled_extract(suite_id, b"", b"info_hash", info)
    schedule = _MODE_BASE + psk_id_hash + info_hash
    secret = _labeled_extract(suite_id, shared_secret, b"secret", b"")
    key = _labeled_expand(suite_id, secret, b"key", schedule, aead.key_bytes)
    base_nonce = _labeled_expand(suite_id, secret, b"base_nonce", schedule, AEAD_NONCE_BYTES)
    exporter_secret = _labeled_expand(suite_id, secret, b"exp", schedule, HASH_BYTES)
    return suite_id, AeadKey(aead, key, base_nonce), exporter_secret


def setup_sender(
    kem: Kem,
    kdf: Kdf,
    aead: Aead,
    public_key: bytes,
    info: bytes,
    *,
    insecure_ephemeral: X25519PrivateKey | None = None,
) -> tuple[bytes, SenderContext]:
    """Encapsulate to ``public_key`` and return the encapsulated key with the sealing context.

    Args:
        kem: The KEM of ``public_key``.
        kdf: Key derivation function.
        aead: Cipher.
        public_key: 32 bytes (X25519) or 1216 bytes (X-Wing); attacker-controlled unless attested.
        info: Binds the context to its purpose.
        insecure_ephemeral: The X25519 key to encapsulate with; only test vectors pass one. SECURITY: using one twice
            breaks confidentiality.

    Raises:
        RemoteProtocolError: The public key is unusable.
    """
    own = X25519PrivateKey.generate() if insecure_ephemeral is None else insecure_ephemeral
    shared_secret, enc = _encapsulate(kem, public_key, own)
    return enc, SenderContext(*_key_schedule(kem, kdf, aead, shared_secret, info))


def setup_recipient(
    private_key: KemPrivateKey, kdf: Kdf, aead: Aead, enc: bytes, info: bytes
) -> RecipientContext:
    """Decapsulate attacker-controlled ``enc`` and return the opening context.

    Raises:
        OpenError: ``enc`` is unusable.
    """
    shared_secret = private_key.decapsulate(enc)
    return RecipientContext(*_key_schedule(private_key.kem, kdf, aead, shared_secret, info))
