# SPDX-License-Identifier: Apache-2.0
"""Private Ed25519 keys, and the files in which they are kept.

A key leaves :meth:`PrivateKey.to_file` sealed under a passphrase: Argon2id, then XSalsa20-Poly1305 (libsodium). The
file states the public key in the clear, so that fingerprints can be compared without the passphrase. Randomness is
passed in. No I/O.
"""

import json
from dataclasses import dataclass, field
from typing import Final, Self

from nacl import pwhash, secret
from nacl.exceptions import CryptoError
from nacl.signing import SigningKey

from adyton_attestation.signing_keys import MAX_KEY_TEXT, PublicKey, parse_public_key
from adyton_protocol.errors import ConfigError, LocalProtocolError
from adyton_protocol.strict_json import JsonObject, Members, parse_json

SEED_BYTES: Final = 32
MAX_KEY_FILE_BYTES: Final = 16 * 1024
SALT_BYTES: Final = pwhash.argon2id.SALTBYTES
NONCE_BYTES: Final = secret.SecretBox.NONCE_SIZE
KEY_FILE_VERSION: Final = 1

_MAX_OPS: Final = 16
_MAX_MEMORY_BYTES: Final = 1 << 30
"""What a key file may ask for; a hostile one must not hang whoever opens it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateKey:
    """An Ed25519 private key; never shown.

    Attributes:
        name: As of :class:`PublicKey`.
        seed: 32 bytes.
    """

    name: str
    seed: bytes = field(repr=False)

    @property
    def public(self) -> PublicKey:
        """The public half."""
        return PublicKey(name=self.name, raw=bytes(SigningKey(self.seed).verify_key))

    def sign(self, message: bytes) -> bytes:
        """Return the signature, 64 bytes."""
        return SigningKey(self.seed).sign(message).signature

    def to_file(
        self, passphrase: bytes | None, *, random: bytes, strength: "Strength | None" = None
    ) -> bytes:
        """Return the contents of a key file.

        Args:
            passphrase: None leaves the seed in the clear; the file's mode is then all that protects it.
            random: ``SALT_BYTES + NONCE_BYTES`` fresh bytes.
            strength: What guessing the passphrase shall cost.

        Raises:
            LocalProtocolError: Not that many bytes.
        """
        if len(random) != SALT_BYTES + NONCE_BYTES:
            raise LocalProtocolError(f"sealing a key takes {SALT_BYTES + NONCE_BYTES} fresh bytes")
        document: JsonObject = {
            "version": KEY_FILE_VERSION,
            "kind": "adyton release key",
            "public_key": str(self.public),
        }
        if passphrase is None:
            document["seed"] = self.seed.hex()
        else:
            strong = strength or STRONG
            salt, nonce = random[:SALT_BYTES], random[SALT_BYTES:]
            box = secret.SecretBox(_derive(passphrase, salt, strong))
            document["sealed"] = {
                "kdf": "argon2id",
                "operations": strong.operations,
                "memory_bytes": strong.memory_bytes,
                "salt": salt.hex(),
                "nonce": nonce.hex(),
                "box": box.encrypt(self.seed, nonce).ciphertext.hex(),
            }
        return json.dumps(document, indent=2).encode() + b"\n"

    @classmethod
    def from_file(cls, data: bytes, passphrase: bytes | None) -> Self:
        """Open a key file.

        Args:
            data: Contents.
            passphrase: None when there is none to give.

        Raises:
            ConfigError: Not a key file, the wrong passphrase, or none where one is needed.
        """
        members, public = _key_file(data)
        if "sealed" not in members:
            seed = members.hex("seed", min_bytes=SEED_BYTES, max_bytes=SEED_BYTES)
        else:
            if passphrase is None:
                raise ConfigError("the key file is sealed; give its passphrase")
            seed = _open(members.object("sealed"), passphrase)
        key = cls(name=public.name, seed=seed)
        if key.public != public:
            raise ConfigError("the key file states another public key than it holds")
        return key


def public_key_of(data: bytes) -> tuple[PublicKey, bool]:
    """Return the public key that a private key file states, and whether the file is sealed.

    Raises:
        ConfigError: Not a key file.
    """
    members, public = _key_file(data)
    return public, "sealed" in members


@dataclass(frozen=True, slots=True, kw_only=True)
class Strength:
    """What Argon2id costs.

    Attributes:
        operations: Passes.
        memory_bytes: Memory.
    """

    operations: int
    memory_bytes: int


STRONG: Final = Strength(
    operations=pwhash.argon2id.OPSLIMIT_SENSITIVE, memory_bytes=pwhash.argon2id.MEMLIMIT_MODERATE
)
"""256 MiB, four passes: about a second for the owner, and a second for each guess of a thief."""


def _key_file(data: bytes) -> tuple[Members, PublicKey]:
    value = parse_json(data, max_bytes=MAX_KEY_FILE_BYTES, what="key file", error=ConfigError)
    members = Members(value, "key file", ConfigError)
    members.only({"version", "kind", "public_key", "seed", "sealed"})
    members.integer("version", minimum=KEY_FILE_VERSION, maximum=KEY_FILE_VERSION)
    if members.raw("kind") != "adyton release key":
        members.refuse("kind", "not a release key")
    if ("seed" in members) == ("sealed" in members):
        raise ConfigError("key file: holds either a seed or a sealed one")
    return members, parse_public_key(members.text("public_key", max_chars=MAX_KEY_TEXT))


def _open(sealed: Members, passphrase: bytes) -> bytes:
    sealed.only({"kdf", "operations", "memory_bytes", "salt", "nonce", "box"})
    if sealed.raw("kdf") != "argon2id":
        sealed.refuse("kdf", "not argon2id")
    strength = Strength(
        operations=sealed.integer("operations", minimum=pwhash.argon2id.OPSLIMIT_MIN, maximum=_MAX_OPS),
        memory_bytes=sealed.integer(
            "memory_bytes", minimum=pwhash.argon2id.MEMLIMIT_MIN, maximum=_MAX_MEMORY_BYTES
        ),
    )
    box_bytes = SEED_BYTES + secret.SecretBox.MACBYTES
    salt = sealed.hex("salt", min_bytes=SALT_BYTES, max_bytes=SALT_BYTES)
    nonce = sealed.hex("nonce", min_bytes=NONCE_BYTES, max_bytes=NONCE_BYTES)
    box = sealed.hex("box", min_bytes=box_bytes, max_bytes=box_bytes)
    try:
        return bytes(secret.SecretBox(_derive(passphrase, salt, strength)).decrypt(box, nonce))
    except CryptoError as cause:
        raise ConfigError("the passphrase is wrong, or the key file is damaged") from cause


def _derive(passphrase: bytes, salt: bytes, strength: Strength) -> bytes:
    return pwhash.argon2id.kdf(
        secret.SecretBox.KEY_SIZE,
        passphrase,
        salt,
        opslimit=strength.operations,
        memlimit=strength.memory_bytes,
    )
