# SPDX-License-Identifier: Apache-2.0
"""Public Ed25519 keys of the people and machines behind a release, each with a name.

A public key is written as one word, as Go's checksum database and C2SP's signed notes do::

    <name>+<key id, 8 hexadecimal digits>+<base64 of 01 || public key>

The key id is the first four bytes of SHA-256(name || 0A || 01 || public key). It finds a key and proves nothing; what
people compare is the fingerprint. The name is for people, and part of key id and fingerprint.

The private halves are in :mod:`adyton_attestation.private_keys`.
"""

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import Final

from adyton_protocol.errors import ConfigError, LocalProtocolError

PUBLIC_KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
KEY_ID_BYTES: Final = 4
MAX_KEY_TEXT: Final = 256

_ED25519: Final = b"\x01"
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/@-]{0,126}[A-Za-z0-9])?")
_KEY_ID: Final = re.compile(r"[0-9a-f]{8}")
_FINGERPRINT_DOMAIN: Final = b"adyton release key fingerprint v1\x00"
_FINGERPRINT_BYTES: Final = 20
_FINGERPRINT_GROUP: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """An Ed25519 public key with the name it is known by.

    Attributes:
        name: 1 to 128 characters out of A-Z a-z 0-9 . _ / @ -
        raw: 32 bytes.
    """

    name: str
    raw: bytes

    def __post_init__(self) -> None:
        """Refuse what could not be written.

        Raises:
            LocalProtocolError: Wrong form.
        """
        if _NAME.fullmatch(self.name) is None or len(self.raw) != PUBLIC_KEY_BYTES:
            raise LocalProtocolError(
                "a key has a name (letters, digits, . _ / @ - within, at most 128) and 32 bytes"
            )

    @property
    def key_id(self) -> bytes:
        """Four bytes that find the key among others."""
        text = self.name.encode("ascii") + b"\n" + _ED25519 + self.raw
        return hashlib.sha256(text).digest()[:KEY_ID_BYTES]

    @property
    def fingerprint(self) -> str:
        """What two people read to each other: 160 bits over name and key, eight groups of four in base32."""
        name = self.name.encode("ascii")
        digest = hashlib.sha256(_FINGERPRINT_DOMAIN + len(name).to_bytes(1, "big") + name + self.raw).digest()
        text = base64.b32encode(digest[:_FINGERPRINT_BYTES]).decode("ascii")
        return " ".join(text[at : at + _FINGERPRINT_GROUP] for at in range(0, len(text), _FINGERPRINT_GROUP))

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Say whether the signature (64 bytes, attacker-controlled) is this key's over the message."""
        # Imported here: whoever only reads a policy with keys in it needs no libsodium, and it takes time to load.
        from nacl.exceptions import CryptoError  # noqa: PLC0415
        from nacl.signing import VerifyKey  # noqa: PLC0415

        try:
            VerifyKey(self.raw).verify(message, signature)
        except (CryptoError, ValueError):
            return False
        return True

    def __str__(self) -> str:
        """The one-word form."""
        encoded = base64.b64encode(_ED25519 + self.raw).decode("ascii")
        return f"{self.name}+{self.key_id.hex()}+{encoded}"


def parse_public_key(text: str) -> PublicKey:
    """Read the one-word form; attacker-controlled or typed by a person.

    Raises:
        ConfigError: Not of the form, or the key id is another key's.
    """
    name, plus, rest = text.strip().partition("+")
    key_id, second, encoded = rest.partition("+")
    if len(text) > MAX_KEY_TEXT or not plus or not second or _KEY_ID.fullmatch(key_id) is None:
        raise ConfigError("a public key is one word: name+keyid+base64, as `adyton release keygen` prints it")
    try:
        raw = base64.b64decode(encoded, validate=True)
    except ValueError as cause:
        raise ConfigError("a public key is not base64 behind its second plus") from cause
    if raw[:1] != _ED25519 or len(raw) != 1 + PUBLIC_KEY_BYTES:
        raise ConfigError("a public key is not an Ed25519 key")
    try:
        key = PublicKey(name=name, raw=raw[1:])
    except LocalProtocolError as cause:
        raise ConfigError(f"a public key is unusable: {cause}") from cause
    if str(key) != text.strip():
        raise ConfigError("a public key does not fit its key id: it was mistyped or changed")
    return key
