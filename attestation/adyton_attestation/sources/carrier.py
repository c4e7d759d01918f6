# SPDX-License-Identifier: Apache-2.0
"""The key of whoever carries a bundle over the air gap: Ed25519, as PEM files that OpenSSL understands.

It says who carried, and nothing about what is carried. Make one with ``adyton endorsements keygen``, or with
``openssl genpkey -algorithm ed25519``.
"""

import re
from typing import Final, NewType

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from adyton_protocol.errors import ConfigError

CarrierId = NewType("CarrierId", str)
"""``ed25519:`` and the public key as 64 lower-case hexadecimal digits."""

CARRIER_PATTERN: Final = re.compile(r"ed25519:[0-9a-f]{64}")
SIGNATURE_BYTES: Final = 64


class CarrierKey:
    """A carrier's private key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        """Wrap a key."""
        self._key = key
        raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.carrier: Final = CarrierId(f"ed25519:{raw.hex()}")

    def __repr__(self) -> str:
        """Name the public half alone."""
        return f"CarrierKey({self.carrier})"

    @classmethod
    def generate(cls) -> "CarrierKey":
        """Make a new key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, pem: bytes) -> "CarrierKey":
        """Read PKCS #8 PEM without a passphrase.

        Raises:
            ConfigError: It is not an Ed25519 key.
        """
        try:
            key = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as cause:
            raise ConfigError("the carrier's key is not a PEM private key without a passphrase") from cause
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigError("the carrier's key is not an Ed25519 key")
        return cls(key)

    def pem(self) -> bytes:
        """Return PKCS #8 PEM."""
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def sign(self, message: bytes) -> bytes:
        """Sign; 64 bytes."""
        return self._key.sign(message)


def parse_carrier(text: str) -> CarrierId:
    """Read who is meant: ``ed25519:<hex>``, or a public key as PEM.

    Raises:
        ConfigError: Neither.
    """
    stripped = text.strip()
    if CARRIER_PATTERN.fullmatch(stripped):
        return CarrierId(stripped)
    try:
        key = load_pem_public_key(stripped.encode("utf-8"))
    except (ValueError, UnsupportedAlgorithm) as cause:
        raise ConfigError("a carrier is ed25519: and 64 hexadecimal digits, or a PEM public key") from cause
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError("the carrier's public key is not an Ed25519 key")
    return CarrierId(f"ed25519:{key.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()}")


def carried_by(carrier: CarrierId, signature: bytes, message: bytes) -> bool:
    """Whether a carrier has signed a message; both may be attacker-controlled."""
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(carrier.removeprefix("ed25519:")))
        key.verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
