# SPDX-License-Identifier: Apache-2.0
"""Algorithm identifiers, their byte lengths, and every domain-separation label of the sealed channel.

Only what both ends implement stands here: an identifier that is not a member cannot be negotiated.
Sources: RFC 9180 section 7, draft-connolly-cfrg-xwing-kem section 5, RFC 9458 section 4,
draft-ietf-ohai-chunked-ohttp sections 4 and 6. The two ends must never diverge here.
"""

from enum import IntEnum
from typing import Final


class Kem(IntEnum):
    """Key encapsulation mechanisms, by their HPKE registry number (16 bits)."""

    X25519 = 0x0020
    """DHKEM(X25519, HKDF-SHA256), RFC 9180 section 7.1."""
    X_WING = 0x647A
    """ML-KEM-768 and X25519 combined; stays secret when either of the two is broken."""

    @property
    def enc_bytes(self) -> int:
        """Length of the encapsulated key (Nenc), in bytes."""
        return 32 if self is Kem.X25519 else 1120

    @property
    def public_key_bytes(self) -> int:
        """Length of a public key (Npk), in bytes."""
        return 32 if self is Kem.X25519 else 1216


class Kdf(IntEnum):
    """Key derivation functions, by their HPKE registry number (16 bits)."""

    HKDF_SHA256 = 0x0001


class Aead(IntEnum):
    """Ciphers, by their HPKE registry number (16 bits)."""

    AES_128_GCM = 0x0001
    AES_256_GCM = 0x0002
    CHACHA20_POLY1305 = 0x0003

    @property
    def key_bytes(self) -> int:
        """Length of a key (Nk), in bytes."""
        return 16 if self is Aead.AES_128_GCM else 32

    @property
    def response_nonce_bytes(self) -> int:
        """Length of an OHTTP response nonce, max(Nn, Nk), in bytes: RFC 9458 section 4.4."""
        return max(AEAD_NONCE_BYTES, self.key_bytes)


SymmetricSuite = tuple[Kdf, Aead]
"""One pair of a key configuration's symmetric list."""

AEAD_NONCE_BYTES: Final = 12
"""Length of the nonce (Nn) of every supported cipher."""
AEAD_TAG_BYTES: Final = 16
"""Length of the tag (Nt) of every supported cipher."""
HASH_BYTES: Final = 32
"""Output length (Nh) of the one supported hash, SHA-256."""

DEFAULT_SUITES: Final[tuple[SymmetricSuite, ...]] = (
    (Kdf.HKDF_SHA256, Aead.AES_256_GCM),
    (Kdf.HKDF_SHA256, Aead.CHACHA20_POLY1305),
    (Kdf.HKDF_SHA256, Aead.AES_128_GCM),
)
"""What a gateway offers and accepts unless told otherwise, best first."""

# --- Labels -----------------------------------------------------------------------------------------
REQUEST_LABEL: Final = b"message/bhttp request"
RESPONSE_LABEL: Final = b"message/bhttp response"
CHUNKED_REQUEST_LABEL: Final = b"message/bhttp chunked request"
CHUNKED_RESPONSE_LABEL: Final = b"message/bhttp chunked response"
FINAL_CHUNK_AAD: Final = b"final"
"""Associated data of the one chunk that ends a chunked message."""
X_WING_LABEL: Final = bytes.fromhex("5c2e2f2f5e5c")
RECEIPT_EXPORT_LABEL: Final = b"adyton receipt v1"
"""Exporter context of the secret under which a receipt commits to an exchange; ours, not a standard's."""
RECEIPT_SECRET_BYTES: Final = 32
