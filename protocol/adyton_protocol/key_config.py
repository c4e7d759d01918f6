# SPDX-License-Identifier: Apache-2.0
"""Key configurations: which public keys a gateway has, and what may be used with them (RFC 9458 section 3).

One configuration, all integers in network byte order::

    key id (1) | KEM id (2) | public key (Npk) | length of the list (2) | {KDF id (2), AEAD id (2)} ...

A collection (``application/ohttp-keys``) is a non-empty sequence of configurations, each after its length
(2 bytes). What this reader does with the unexpected:

* An encoding error anywhere discards the whole collection: recovering some of it would let a sender
  segregate clients (RFC 9458 section 3.2).
* An entry of an unknown KEM is skipped by its length prefix, because its inside cannot be judged. Unknown
  symmetric pairs are skipped; an entry with no pair left is skipped too.
* A key id that occurs twice is an error, as is a collection of which nothing is left.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from adyton_protocol.errors import LocalProtocolError, RemoteProtocolError
from adyton_protocol.hpke import KemPrivateKey, check_public_key
from adyton_protocol.suite import DEFAULT_SUITES, Aead, Kdf, Kem, SymmetricSuite

__all__ = ["KeyConfig", "encode_key_configs", "parse_key_config", "parse_key_configs"]

_HEAD_BYTES: Final = 3
_PAIR_BYTES: Final = 4
_MAX_PAIRS: Final = 65532 // _PAIR_BYTES
_MAX_KEY_ID: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyConfig:
    """One public key of a gateway.

    Attributes:
        key_id: 0 to 255; travels in the clear, and routes the request.
        kem: KEM of the key.
        public_key: 32 bytes (X25519) or 1216 bytes (X-Wing).
        suites: Permitted pairs, the gateway's preferred one first; never empty.

    Raises:
        LocalProtocolError: A field is out of range.
    """

    key_id: int
    kem: Kem
    public_key: bytes
    suites: tuple[SymmetricSuite, ...] = DEFAULT_SUITES

    def __post_init__(self) -> None:
        """Refuse what could not be encoded."""
        if not 0 <= self.key_id <= _MAX_KEY_ID:
            raise LocalProtocolError("a key id is one byte")
        if not 0 < len(self.suites) <= _MAX_PAIRS:
            raise LocalProtocolError("a key configuration needs 1 to 16383 symmetric suites")
        try:
            check_public_key(self.kem, self.public_key)
        except RemoteProtocolError as error:
            raise LocalProtocolError("a key configuration needs a valid public key") from error

    @classmethod
    def of(
        cls, key_id: int, private_key: KemPrivateKey, suites: tuple[SymmetricSuite, ...] = DEFAULT_SUITES
    ) -> Self:
        """Describe the public half of ``private_key``."""
        return cls(key_id=key_id, kem=private_key.kem, public_key=private_key.public_bytes, suites=suites)

    def encode(self) -> bytes:
        """Return this one configuration, without a length prefix (the form that Firefox takes)."""
        pairs = b"".join(kdf.to_bytes(2, "big") + aead.to_bytes(2, "big") for kdf, aead in self.suites)
        return (
            self.key_id.to_bytes(1, "big")
            + self.kem.to_bytes(2, "big")
            + self.public_key
            + len(pairs).to_bytes(2, "big")
            + pairs
        )


def encode_key_configs(configs: Iterable[KeyConfig]) -> bytes:
    """Return the ``application/ohttp-keys`` collection of ``configs``, in their order.

    Raises:
        LocalProtocolError: There is none, or two have the same key id.
    """
    encoded = [config.encode() for config in configs]
    if not encoded or len({entry[0] for entry in encoded}) != len(encoded):
        raise LocalProtocolError("a collection needs one or more configurations with distinct key ids")
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in encoded)


def parse_key_config(data: bytes) -> KeyConfig:
    """Parse one attacker-controlled configuration without length prefix.

    Raises:
        RemoteProtocolError: It is malformed, or names nothing that we support.
    """
    config = _parse_entry(data)
    if config is None:
        raise RemoteProtocolError("the key configuration uses no supported algorithm")
    return config


def parse_key_configs(data: bytes) -> tuple[KeyConfig, ...]:
    """Parse an attacker-controlled ``application/ohttp-keys`` collection.

    Returns:
        The supported configurations, in the order of the collection; at least one.

    Raises:
        RemoteProtocolError: The collection is malformed anywhere, or nothing in it is supported.
    """
    configs: list[KeyConfig] = []
    key_ids: set[int] = set()
    offset = 0
    while offset < len(data):
        start = offset + 2
        offset = start + int.from_bytes(data[offset:start], "big")
        if start > len(data) or offset > len(data):
            raise RemoteProtocolError("the key collection is cut off")
        entry = data[start:offset]
        config = _parse_entry(entry)
        if entry[0] in key_ids:
            raise RemoteProtocolError("a key id occurs twice")
        key_ids.add(entry[0])
        if config is not None:
            configs.append(config)
    if not configs:
        raise RemoteProtocolError("the key collection holds no supported configuration")
    return tuple(configs)


def _parse_entry(entry: bytes) -> KeyConfig | None:
    """Parse one configuration; None when it is well-formed as far as we can see, but not supported."""
    if len(entry) < _HEAD_BYTES:
        raise RemoteProtocolError("a key configuration is cut off")
    try:
        kem = Kem(int.from_bytes(entry[1:_HEAD_BYTES], "big"))
    except ValueError:
        return None
    end_of_key = _HEAD_BYTES + kem.public_key_bytes
    pairs = entry[end_of_key + 2 :]
    announced = int.from_bytes(entry[end_of_key : end_of_key + 2], "big")
    if not pairs or announced != len(pairs) or len(pairs) % _PAIR_BYTES:
        raise RemoteProtocolError("a key configuration has a malformed list of symmetric suites")
    public_key = entry[_HEAD_BYTES:end_of_key]
    check_public_key(kem, public_key)
    suites = tuple(_supported_suites(pairs))
    return KeyConfig(key_id=entry[0], kem=kem, public_key=public_key, suites=suites) if suites else None


def _supported_suites(pairs: bytes) -> Iterable[SymmetricSuite]:
    for offset in range(0, len(pairs), _PAIR_BYTES):
        try:
            kdf = Kdf(int.from_bytes(pairs[offset : offset + 2], "big"))
            aead = Aead(int.from_bytes(pairs[offset + 2 : offset + _PAIR_BYTES], "big"))
        except ValueError:
            continue
        yield kdf, aead
