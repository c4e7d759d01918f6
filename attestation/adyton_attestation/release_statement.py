# SPDX-License-Identifier: Apache-2.0
"""A release statement: signed reference values of one release of one product, and how long they hold.

::

    signed bytes = "adyton release statement v1" || 00 || JCS(statement)

A statement lists enclaves. Each is identified by its measurement, or by signer, product and security version; what it
states beyond that (configurations, models, KSS fields) must fit, too, and what it leaves out is left to the policy.
``minimum_release`` withdraws every release below it. During an upgrade, the statement of the old release and that of
the new one both hold; the upgrade ends with a statement whose minimum is the new one. A statement without enclaves
only withdraws.

Signatures stand beside the statement and are not part of its log entry, so that a key can be added to a statement
that is out already. Each names its whole public key, so that anybody can check it; who counts is for the policy.

Everything read here is attacker-controlled, strict and bounded. No I/O, no clock.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NoReturn, Self, cast

from adyton_attestation.merkle import leaf_hash
from adyton_attestation.release_terms import MAX_RELEASE
from adyton_attestation.signing_keys import (
    MAX_KEY_TEXT,
    SIGNATURE_BYTES,
    PublicKey,
    parse_public_key,
)
from adyton_attestation.times import format_time
from adyton_protocol.digests import DIGEST_CHARS, DIGEST_PATTERN, Digest, jcs
from adyton_protocol.errors import AdytonError, ConfigError, ReferenceValueError
from adyton_protocol.strict_json import JsonObject, JsonValue, Members, parse_json

if TYPE_CHECKING:
    # Only the type: whoever verifies needs no code that signs.
    from adyton_attestation.private_keys import PrivateKey

STATEMENT_VERSION: Final = 1
MAX_STATEMENT_BYTES: Final = 128 * 1024
MAX_SIGNATURES: Final = 16
MAX_ENCLAVES: Final = 64
MAX_ITEMS: Final = 64
MAX_LIFE_S: Final = 3 * 366 * 86_400
"""Longest life of a statement: a forgotten one ends."""

_DOMAIN: Final = b"adyton release statement v1\x00"
_U16: Final = 2**16 - 1
_PRODUCT: Final = re.compile(r"[a-z0-9](?:[a-z0-9._/-]{0,62}[a-z0-9])?")
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._+-]{0,62}[A-Za-z0-9])?")
_MODEL: Final = re.compile(r"[!-~](?:[ -~]{0,254}[!-~])?")
"""As names of models in a keyset."""
_TIME_FORM: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedSigner:
    """Any enclave of one signer and product, at or above one security version.

    Attributes:
        mr_signer: 32 bytes.
        isv_prod_id: Exactly this product.
        min_isv_svn: At least this security version.
    """

    mr_signer: bytes
    isv_prod_id: int
    min_isv_svn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedKeySeparation:
    """The KSS fields.

    Attributes:
        config_id: 64 bytes.
        config_svn: At least this.
        isv_ext_prod_id: 16 bytes.
        isv_family_id: 16 bytes.
    """

    config_id: bytes
    config_svn: int
    isv_ext_prod_id: bytes
    isv_family_id: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedEnclave:
    """One enclave of a release. None means: not stated, the policy decides.

    Attributes:
        mr_enclave: Measurement, 32 bytes; or None if the signer is stated.
        signer: Or the signer.
        configurations: Digests of its configuration.
        models: Identities by name of model, sorted by name.
        key_separation: KSS fields.
    """

    mr_enclave: bytes | None = None
    signer: StatedSigner | None = None
    configurations: frozenset[Digest] | None = None
    models: tuple[tuple[str, frozenset[Digest]], ...] | None = None
    key_separation: StatedKeySeparation | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseStatement:
    """What a release states; parsed, and not verified.

    Attributes:
        product: Of what.
        release: Number of the release; each is higher than the one before.
        name: Its name for people, for example ``0.7.0``.
        not_before_s: Unix time from which it holds.
        not_after_s: Unix time from which it holds no more.
        minimum_release: Releases below are withdrawn, once this statement holds.
        enclaves: What may run.
        payload: The signed bytes.
    """

    product: str
    release: int
    name: str
    not_before_s: int
    not_after_s: int
    minimum_release: int
    enclaves: tuple[StatedEnclave, ...]
    payload: bytes

    @property
    def leaf(self) -> bytes:
        """Leaf hash of its log entry."""
        return leaf_hash(self.payload)

    def __str__(self) -> str:
        """For details and messages."""
        return f"release {self.release} ({self.name})"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedStatement:
    """A statement with signatures that fit the keys they name, whoever those belong to.

    Attributes:
        statement: What is stated.
        document: The statement as it was read.
        signatures: By public key, in the order in which they were made.
    """

    statement: ReleaseStatement
    document: JsonObject
    signatures: tuple[tuple[PublicKey, bytes], ...] = ()

    def signers(self, keys: Collection[PublicKey]) -> frozenset[PublicKey]:
        """Which of ``keys`` signed. SECURITY: compares the whole key, never its name or id."""
        raw = {key.raw for key, _ in self.signatures}
        return frozenset(key for key in keys if key.raw in raw)

    def signed(self, key: "PrivateKey") -> Self:
        """Return it with a signature by ``key``, instead of any it had by it."""
        mine = key.public
        others = tuple(item for item in self.signatures if item[0].raw != mine.raw)
        return type(self)(
            statement=self.statement,
            document=self.document,
            signatures=(*others, (mine, key.sign(self.statement.payload))),
        )

    def to_json(self) -> JsonObject:
        """Return the JSON object."""
        return {
            "statement": self.document,
            "signatures": [
                {"key": str(key), "signature": signature.hex()} for key, signature in self.signatures
            ],
        }


def parse_statement(data: bytes) -> SignedStatement:
    """Read a bare statement, for its first signature.

    Raises:
        ConfigError: Not a statement; the author is told what is wrong with it.
    """
    value = parse_json(data, max_bytes=MAX_STATEMENT_BYTES, what="release statement", error=ConfigError)
    return SignedStatement(
        statement=_statement(value, ConfigError), document=cast("JsonObject", value), signatures=()
    )


def parse_signed_statement(data: bytes) -> SignedStatement:
    """Read a statement with its signatures from a file of its own.

    Raises:
        ReferenceValueError: Malformed, or a signature does not fit the key that it names.
    """
    value = parse_json(
        data, max_bytes=MAX_STATEMENT_BYTES, what="signed release statement", error=ReferenceValueError
    )
    members = Members(value, "release", ReferenceValueError)
    members.only({"statement", "signatures"})
    return signed_statement(members)


def signed_statement(members: Members) -> SignedStatement:
    """Read statement and signatures from an object that may have other members.

    Raises:
        ReferenceValueError: As :func:`parse_signed_statement`.
    """
    document = members.raw("statement")
    statement = _statement(document, ReferenceValueError)
    signatures = []
    for entry in members.objects("signatures", max_items=MAX_SIGNATURES):
        entry.only({"key", "signature"})
        try:
            key = parse_public_key(entry.text("key", max_chars=MAX_KEY_TEXT))
        except ConfigError as cause:
            raise ReferenceValueError(f"release: a signature's key is unusable: {cause}") from cause
        signature = entry.hex("signature", min_bytes=SIGNATURE_BYTES, max_bytes=SIGNATURE_BYTES)
        if not key.verifies(statement.payload, signature):
            entry.refuse("signature", "not the named key's over this statement")
        signatures.append((key, signature))
    # SECURITY: one key is one voice, however often and under whatever names it signs.
    if len({key.raw for key, _ in signatures}) != len(signatures):
        members.refuse("signatures", "one key signs twice")
    return SignedStatement(
        statement=statement, document=cast("JsonObject", document), signatures=tuple(signatures)
    )


def statement_document(
    *,
    product: str,
    release: int,
    name: str,
    not_before_s: int,
    not_after_s: int,
    minimum_release: int,
    enclaves: Sequence[Mapping[str, JsonValue]],
) -> JsonObject:
    """Return the JSON object of a statement, to be read by :func:`parse_statement`."""
    return {
        "version": STATEMENT_VERSION,
        "product": product,
        "release": release,
        "name": name,
        "not_before": format_time(not_before_s),
        "not_after": format_time(not_after_s),
        "minimum_release": minimum_release,
        "enclaves": [dict(enclave) for enclave in enclaves],
    }


def _statement(value: JsonValue, error: type[AdytonError]) -> ReleaseStatement:
    members = Members(value, "statement", error)
    members.only(
        {
            "version",
            "product",
            "release",
            "name",
            "not_before",
            "not_after",
            "minimum_release",
            "enclaves",
        }
    )
    members.integer("version", minimum=STATEMENT_VERSION, maximum=STATEMENT_VERSION)
    release = members.integer("release", minimum=1, maximum=MAX_RELEASE)
    not_before_s, not_after_s = _time(members, "not_before", error), _time(members, "not_after", error)
    if not 0 < not_after_s - not_before_s <= MAX_LIFE_S:
        members.refuse("not_after", "not after not_before, or more than three years after it")
    return ReleaseStatement(
        product=members.text("product", max_chars=64, pattern=_PRODUCT),
        release=release,
        name=members.text("name", max_chars=64, pattern=_NAME),
        not_before_s=not_before_s,
        not_after_s=not_after_s,
        # SECURITY: a minimum above its own release would withdraw releases that nobody has stated yet.
        minimum_release=members.integer("minimum_release", minimum=1, maximum=release),
        enclaves=tuple(_enclave(item) for item in members.objects("enclaves", max_items=MAX_ENCLAVES)),
        payload=_DOMAIN + jcs(value),
    )


def _enclave(members: Members) -> StatedEnclave:
    members.only({"mr_enclave", "mr_signer", "configurations", "models", "key_separation"})
    if ("mr_enclave" in members) == ("mr_signer" in members):
        members.refuse("mr_enclave", "state either mr_enclave or mr_signer")
    return StatedEnclave(
        mr_enclave=_hex(members, "mr_enclave", 32) if "mr_enclave" in members else None,
        signer=_signer(members.object("mr_signer")) if "mr_signer" in members else None,
        configurations=_digests(members, "configurations") if "configurations" in members else None,
        models=_models(members) if "models" in members else None,
        key_separation=_key_separation(members.object("key_separation"))
        if "key_separation" in members
        else None,
    )


def _signer(members: Members) -> StatedSigner:
    members.only({"mr_signer", "isv_prod_id", "min_isv_svn"})
    return StatedSigner(
        mr_signer=_hex(members, "mr_signer", 32),
        isv_prod_id=members.integer("isv_prod_id", minimum=0, maximum=_U16),
        min_isv_svn=members.integer("min_isv_svn", minimum=0, maximum=_U16),
    )


def _key_separation(members: Members) -> StatedKeySeparation:
    members.only({"config_id", "config_svn", "isv_ext_prod_id", "isv_family_id"})
    return StatedKeySeparation(
        config_id=_hex(members, "config_id", 64),
        config_svn=members.integer("config_svn", minimum=0, maximum=_U16),
        isv_ext_prod_id=_hex(members, "isv_ext_prod_id", 16),
        isv_family_id=_hex(members, "isv_family_id", 16),
    )


def _models(members: Members) -> tuple[tuple[str, frozenset[Digest]], ...]:
    models = members.object("models")
    names = sorted(name for name, _ in models.items())
    if len(names) > MAX_ITEMS or any(_MODEL.fullmatch(name) is None for name in names):
        members.refuse("models", f"more than {MAX_ITEMS} models, or a name that is none")
    return tuple((name, _digests(models, name)) for name in names)


def _digests(members: Members, name: str) -> frozenset[Digest]:
    found: list[Digest] = []
    for item in members.array(name, max_items=MAX_ITEMS):
        if type(item) is not str or len(item) != DIGEST_CHARS or DIGEST_PATTERN.fullmatch(item) is None:
            members.refuse(name, "not a list of sha256: digests")
        found.append(Digest(item))
    if not found or len(set(found)) != len(found):
        members.refuse(name, "empty, or a digest stands there twice")
    return frozenset(found)


def _hex(members: Members, name: str, size_bytes: int) -> bytes:
    return members.hex(name, min_bytes=size_bytes, max_bytes=size_bytes)


def _time(members: Members, name: str, error: type[AdytonError]) -> int:
    text = members.text(name, max_chars=20, pattern=_TIME_FORM)

    def refuse() -> NoReturn:
        members.refuse(name, "no time")

    try:
        seconds = int(datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())
    except ValueError as cause:
        raise error(f"statement.{name}: no such time") from cause
    if seconds <= 0:
        refuse()
    return seconds
