# SPDX-License-Identifier: Apache-2.0
"""The workload keyset: keys of one epoch, and all else that the quote shall bind (``aci/1`` section 3.1).

The keyset is the identity. Its digest, SHA-256 over the JCS form of *everything received*, members unknown to
us included, is what the quote binds through the statement. Our extension member ``adyton`` is strict: it says
what may change an answer, so a member that we do not understand is an error there.

Invariants of every :class:`Keyset`, built or parsed: key ids are unique within a role, no public key serves
two roles, and ``to_json()`` is exactly what ``digest()`` digests. Whether the keyset has expired or its
lifetime is plausible is the appraisal's question; nothing here has a clock.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypedDict, cast

from adyton_protocol.digests import DIGEST_CHARS, DIGEST_PATTERN, Digest, jcs, sha256_hex
from adyton_protocol.errors import LocalProtocolError, MalformedEvidence, RemoteProtocolError
from adyton_protocol.key_config import KeyConfig, encode_key_configs, parse_key_configs
from adyton_protocol.strict_json import MAX_SAFE_INTEGER, JsonObject, JsonValue, Members, json_value

ALGO_ED25519: Final = "ed25519"
ALGO_OHTTP: Final = "ohttp-chunked"
EXTENSION: Final = "adyton"
EXTENSION_VERSION: Final = 1

MAX_NOT_AFTER_S: Final = 253_402_300_799
"""The last second of the year 9999."""
MAX_KEYS: Final = 16
MAX_MODELS: Final = 64
MAX_OHTTP_KEYS_BYTES: Final = 16 * 1024
ED25519_PUBLIC_KEY_BYTES: Final = 32
SPKI_SHA256_BYTES: Final = 32

_NAME: Final = re.compile(r"[!-~](?:[ -~]{0,254}[!-~])?")
"""Printable ASCII without blanks at either end: names are shown to people and compared byte for byte."""
_MAX_NAME_CHARS: Final = 256
_MAX_KEY_CHARS: Final = 2 * MAX_OHTTP_KEYS_BYTES
_SPKI: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKeyEntry:
    """One listed public key.

    Attributes:
        key_id: Name of the key, unique within its role; up to 256 printable ASCII characters.
        algo: ``ed25519``, ``ohttp-chunked``, or something that we skip.
        public_key: Lower-case hexadecimal for the two algorithms that we know: the 32-byte Ed25519 key, or
            the exact ``application/ohttp-keys`` bytes.
    """

    key_id: str
    algo: str
    public_key: str

    @classmethod
    def ed25519(cls, key_id: str, public_key: bytes) -> "PublicKeyEntry":
        """List an Ed25519 public key (32 bytes)."""
        return cls(key_id=key_id, algo=ALGO_ED25519, public_key=public_key.hex())

    @classmethod
    def ohttp(cls, key_id: str, configs: Sequence[KeyConfig]) -> "PublicKeyEntry":
        """List key configurations, the preferred one first, as one entry."""
        return cls(key_id=key_id, algo=ALGO_OHTTP, public_key=encode_key_configs(configs).hex())

    def public_bytes(self) -> bytes:
        """Return the key of an algorithm that we know, decoded.

        Raises:
            MalformedEvidence: The encoding of a skipped algorithm is not hexadecimal.
        """
        try:
            return bytes.fromhex(self.public_key)
        except ValueError as cause:
            raise MalformedEvidence("a public key is not hexadecimal") from cause

    def to_json(self) -> JsonObject:
        """Return the JSON object."""
        return {"key_id": self.key_id, "algo": self.algo, "public_key": self.public_key}


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsKeyEntry:
    """One TLS key that clients pin.

    Attributes:
        spki_sha256: SHA-256 of the SubjectPublicKeyInfo, 64 lower-case hexadecimal digits.
        domain: The only host name that it serves, or None.
    """

    spki_sha256: str
    domain: str | None = None

    def to_json(self) -> JsonObject:
        """Return the JSON object."""
        value: JsonObject = {"spki_sha256": self.spki_sha256}
        return value if self.domain is None else value | {"domain": self.domain}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelIdentity:
    """A model by its public name and the digest over everything that makes its answers."""

    name: str
    identity: Digest

    def to_json(self) -> JsonObject:
        """Return the JSON object."""
        return {"name": self.name, "identity": self.identity}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysetExtension:
    """What we have the quote bind besides keys; the member ``adyton`` of the keyset.

    Attributes:
        epoch: Number of the key epoch, counted from 0 by each enclave run.
        previous_keyset_digest: Digest of the keyset of the epoch before, or None in the first.
        configuration_digest: Digest over the enclave's whole configuration.
        models: Every model that may answer or score, with distinct names.
    """

    epoch: int
    previous_keyset_digest: Digest | None
    configuration_digest: Digest
    models: tuple[ModelIdentity, ...]

    def to_json(self) -> JsonObject:
        """Return the JSON object."""
        return {
            "version": EXTENSION_VERSION,
            "epoch": self.epoch,
            "previous_keyset_digest": self.previous_keyset_digest,
            "configuration_digest": self.configuration_digest,
            "models": [model.to_json() for model in self.models],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyset:
    """A workload keyset.

    Attributes:
        subject: A name for the service, meaningful under a policy only, or None.
        not_after: Unix time in seconds after which nothing of the keyset is accepted.
        receipt_signing_keys: Keys that sign receipts and nothing else.
        e2ee_public_keys: Keys to which requests are sealed.
        tls_public_keys: TLS keys that clients pin.
        extension: What else the quote binds.

    Raises:
        LocalProtocolError: Built from values that the parser would refuse.
    """

    subject: str | None
    not_after: int
    receipt_signing_keys: tuple[PublicKeyEntry, ...]
    e2ee_public_keys: tuple[PublicKeyEntry, ...]
    tls_public_keys: tuple[TlsKeyEntry, ...] = ()
    extension: KeysetExtension
    _canonical: bytes = field(init=False, repr=False)
    _digest: Digest = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Fix the canonical form, after checking it as hostile input would be checked."""
        document: JsonObject = {
            "subject": self.subject,
            "not_after": self.not_after,
            "receipt_signing_keys": [key.to_json() for key in self.receipt_signing_keys],
            "e2ee_public_keys": [key.to_json() for key in self.e2ee_public_keys],
            "tls_public_keys": [key.to_json() for key in self.tls_public_keys],
            EXTENSION: self.extension.to_json(),
        }
        try:
            _read(json_value(document, what="keyset", error=MalformedEvidence))
        except MalformedEvidence as cause:
            raise LocalProtocolError(f"not a valid keyset: {cause}") from cause
        self._fix(jcs(document))

    def _fix(self, canonical: bytes) -> None:
        object.__setattr__(self, "_canonical", canonical)
        object.__setattr__(self, "_digest", sha256_hex(canonical))

    def to_json(self) -> JsonObject:
        """Return the JSON object, unknown members of a parsed keyset included."""
        return cast("JsonObject", json.loads(self._canonical))

    def to_bytes(self) -> bytes:
        """Return the canonical form, which is what the digest covers."""
        return self._canonical

    def digest(self) -> Digest:
        """Return ``workload_keyset_digest``; computed once."""
        return self._digest

    def key_configs(self) -> tuple[KeyConfig, ...]:
        """Return the key configurations of the one ``ohttp-chunked`` entry, preferred first.

        Raises:
            MalformedEvidence: There is not exactly one such entry, or it is malformed.
        """
        entries = [key for key in self.e2ee_public_keys if key.algo == ALGO_OHTTP]
        if len(entries) != 1:
            raise MalformedEvidence("the keyset does not list exactly one ohttp-chunked key")
        try:
            return parse_key_configs(entries[0].public_bytes())
        except RemoteProtocolError as cause:
            raise MalformedEvidence("the keyset's key configurations are malformed") from cause


def keyset_digest(document: JsonObject) -> Digest:
    """Return the digest of any keyset object, ours or not: SHA-256 over its JCS form."""
    return sha256_hex(jcs(document))


def parse_keyset(value: object) -> Keyset:
    """Read an attacker-controlled keyset object.

    Members unknown to us are kept for the digest, except inside ``adyton``, where they are refused.

    Args:
        value: A parsed JSON value. Parse the bytes with :func:`~adyton_protocol.strict_json.parse_json`, or
            duplicate members go unnoticed.

    Raises:
        MalformedEvidence: Anything is missing, of the wrong type, form or size, or contradicts itself.
    """
    document = json_value(value, what="keyset", error=MalformedEvidence)
    keyset = Keyset(**_read(document))
    # SECURITY: the constructor knows only the members that we read; the digest covers what was received.
    keyset._fix(jcs(document))  # noqa: SLF001 - the class and its reader are one thing
    return keyset


class _Contents(TypedDict):
    subject: str | None
    not_after: int
    receipt_signing_keys: tuple[PublicKeyEntry, ...]
    e2ee_public_keys: tuple[PublicKeyEntry, ...]
    tls_public_keys: tuple[TlsKeyEntry, ...]
    extension: KeysetExtension


def _read(document: JsonValue) -> _Contents:
    """Check a keyset object and return its members."""
    members = Members(document, "keyset", MalformedEvidence)
    receipt_keys = _public_keys(members, "receipt_signing_keys")
    e2ee_keys = _public_keys(members, "e2ee_public_keys")
    if {key.public_key for key in receipt_keys} & {key.public_key for key in e2ee_keys}:
        raise MalformedEvidence("keyset: one public key serves two roles")
    return {
        "subject": members.optional_text("subject", max_chars=_MAX_NAME_CHARS, pattern=_NAME),
        "not_after": members.integer("not_after", minimum=1, maximum=MAX_NOT_AFTER_S),
        "receipt_signing_keys": receipt_keys,
        "e2ee_public_keys": e2ee_keys,
        "tls_public_keys": tuple(
            TlsKeyEntry(
                spki_sha256=entry.text("spki_sha256", max_chars=2 * SPKI_SHA256_BYTES, pattern=_SPKI),
                domain=entry.optional_text("domain", max_chars=_MAX_NAME_CHARS, pattern=_NAME),
            )
            for entry in members.objects("tls_public_keys", max_items=MAX_KEYS)
        ),
        "extension": _extension(members.object(EXTENSION)),
    }


def _public_keys(members: Members, role: str) -> tuple[PublicKeyEntry, ...]:
    """Read the keys of one role; the encoding is checked for the algorithms that we know."""
    keys = []
    for entry in members.objects(role, max_items=MAX_KEYS):
        algo = entry.text("algo", max_chars=_MAX_NAME_CHARS, pattern=_NAME)
        if algo == ALGO_ED25519:
            entry.hex("public_key", min_bytes=ED25519_PUBLIC_KEY_BYTES, max_bytes=ED25519_PUBLIC_KEY_BYTES)
        elif algo == ALGO_OHTTP:
            entry.hex("public_key", min_bytes=1, max_bytes=MAX_OHTTP_KEYS_BYTES)
        key_id = entry.text("key_id", max_chars=_MAX_NAME_CHARS, pattern=_NAME)
        public_key = entry.text("public_key", max_chars=_MAX_KEY_CHARS)
        keys.append(PublicKeyEntry(key_id=key_id, algo=algo, public_key=public_key))
    for values in ([key.key_id for key in keys], [key.public_key for key in keys]):
        if len(set(values)) != len(values):
            members.refuse(role, "a key or a key id is listed twice")
    return tuple(keys)


def _extension(members: Members) -> KeysetExtension:
    """Read our extension; unknown members and versions are refused."""
    members.only(("version", "epoch", "previous_keyset_digest", "configuration_digest", "models"))
    members.integer("version", minimum=EXTENSION_VERSION, maximum=EXTENSION_VERSION)
    # Null says that there is no epoch before; leaving it out is not a way to say so.
    previous = members.raw("previous_keyset_digest")
    models = []
    for entry in members.objects("models", max_items=MAX_MODELS):
        entry.only(("name", "identity"))
        name = entry.text("name", max_chars=_MAX_NAME_CHARS, pattern=_NAME)
        models.append(ModelIdentity(name=name, identity=_digest(entry, "identity")))
    if len({model.name for model in models}) != len(models):
        members.refuse("models", "a name is listed twice")
    return KeysetExtension(
        epoch=members.integer("epoch", minimum=0, maximum=MAX_SAFE_INTEGER),
        previous_keyset_digest=None if previous is None else _digest(members, "previous_keyset_digest"),
        configuration_digest=_digest(members, "configuration_digest"),
        models=tuple(models),
    )


def _digest(members: Members, name: str) -> Digest:
    return Digest(members.text(name, max_chars=DIGEST_CHARS, pattern=DIGEST_PATTERN))
