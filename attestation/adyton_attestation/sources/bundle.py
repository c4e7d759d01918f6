# SPDX-License-Identifier: Apache-2.0
"""The air-gap bundle: endorsements of many platforms in one signed file, for places without a network.

::

    {"bundle": {"version": 1, "made_at": "2026-11-21T12:00:00Z",
                "sets": [{"family": "sgx-00906ed50000-platform", "source": "...", "fetched_at": "...",
                          "endorsements": {QuoteCollateralV3}}, ...],
                "files": [{"name": "policy.toml", "content": "<base64>"}, ...]},
     "carrier": "<name>+<key id>+<base64>", "signature": "<hex>"}

The signature is Ed25519 (with a key as ``adyton release keygen`` makes it) over ``"adyton endorsement bundle v1"``, a
zero byte, and the canonical form (RFC 8785) of ``bundle``. It says who carried the file here. It does not make anything
in it true: endorsements still count by Intel's signatures alone, release statements by their signers', and a policy by
who chooses it. ``files`` are opaque here: whatever else has to cross the gap.
"""

import base64
import binascii
import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self

from adyton_attestation.private_keys import PrivateKey
from adyton_attestation.signing_keys import MAX_KEY_TEXT, SIGNATURE_BYTES, PublicKey, parse_public_key
from adyton_attestation.sources.family import PlatformFamily
from adyton_attestation.times import format_time
from adyton_protocol.digests import jcs
from adyton_protocol.errors import ConfigError, EndorsementError
from adyton_protocol.strict_json import JsonObject, JsonValue, Members, parse_json

BUNDLE_VERSION: Final = 1
MAX_BUNDLE_BYTES: Final = 16 * 1024 * 1024
MAX_SETS: Final = 256
MAX_FILES: Final = 16
MAX_FILE_BYTES: Final = 1 << 20

_DOMAIN: Final = b"adyton endorsement bundle v1\x00"
_MAX_TEXT: Final = 512
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_TIME: Final = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class CarriedSet:
    """One set in a bundle; nobody has looked at it yet.

    Attributes:
        family: What the carrier says that it is about.
        source: Where the carrier says that it came from.
        fetched_s: When.
        data: ``QuoteCollateralV3`` JSON.
    """

    family: PlatformFamily
    source: str
    fetched_s: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CarriedFile:
    """An opaque file in a bundle.

    Attributes:
        name: A bare file name.
        content: At most :data:`MAX_FILE_BYTES`.
    """

    name: str
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What was carried.

    Attributes:
        carrier: The key that signed.
        made_s: When, Unix time.
        sets: Endorsements, one set for each family.
        files: Opaque files.
    """

    carrier: PublicKey
    made_s: int
    sets: tuple[CarriedSet, ...]
    files: tuple[CarriedFile, ...] = ()

    def set_of(self, family: PlatformFamily) -> CarriedSet | None:
        """Return the set of a family, or None."""
        return next((item for item in self.sets if item.family == family), None)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read an attacker-controlled bundle and check its signature under the key that it names.

        Whether that is the key of somebody known is the caller's question.

        Raises:
            EndorsementError: It is no bundle, or not as it was signed.
        """
        value = parse_json(data, max_bytes=MAX_BUNDLE_BYTES, what="bundle", error=EndorsementError)
        members = Members(value, "bundle file", EndorsementError)
        members.only({"bundle", "carrier", "signature"})
        carrier = _carrier(members)
        signature = members.hex("signature", min_bytes=SIGNATURE_BYTES, max_bytes=SIGNATURE_BYTES)
        body = members.object("bundle")
        # SECURITY: before anything of it is used; a bundle that was cut or spliced is none.
        if not carrier.verifies(_signed(members.raw("bundle")), signature):
            raise EndorsementError("bundle: its signature does not hold; the file was changed on its way")
        body.only({"version", "made_at", "sets", "files"})
        body.integer("version", minimum=BUNDLE_VERSION, maximum=BUNDLE_VERSION)
        sets = tuple(_read_set(item) for item in body.objects("sets", max_items=MAX_SETS))
        files = tuple(_read_file(item) for item in body.objects("files", max_items=MAX_FILES))
        if len({item.family for item in sets}) != len(sets) or len({item.name for item in files}) != len(
            files
        ):
            raise EndorsementError("bundle: a platform family or a file is there twice")
        return cls(carrier=carrier, made_s=_time(body, "made_at"), sets=sets, files=files)


def looks_like_bundle(data: bytes) -> bool:
    """Whether bytes are meant to be a bundle, sound or not, rather than one set of endorsements."""
    try:
        value: object = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and "bundle" in value


def make_bundle(
    key: PrivateKey, sets: tuple[CarriedSet, ...], files: tuple[CarriedFile, ...] = (), *, made_s: int
) -> bytes:
    """Put together and sign a bundle; reads back with :meth:`Bundle.parse`.

    Raises:
        EndorsementError: Too much for one bundle, or a family or file twice, or a file name that is none.
    """
    body: JsonObject = {
        "version": BUNDLE_VERSION,
        "made_at": format_time(made_s),
        "sets": [
            {
                "family": item.family.label,
                "source": item.source,
                "fetched_at": format_time(item.fetched_s),
                "endorsements": json.loads(item.data),
            }
            for item in sorted(sets, key=lambda item: item.family)
        ],
        "files": [
            {"name": item.name, "content": base64.b64encode(item.content).decode("ascii")}
            for item in sorted(files, key=lambda item: item.name)
        ],
    }
    signature = key.sign(_signed(body)).hex()
    document = {"bundle": body, "carrier": str(key.public), "signature": signature}
    data = json.dumps(document, indent=1).encode("utf-8") + b"\n"
    Bundle.parse(data)
    return data


def _signed(body: JsonValue) -> bytes:
    return _DOMAIN + jcs(body)


def _carrier(members: Members) -> PublicKey:
    try:
        return parse_public_key(members.text("carrier", max_chars=MAX_KEY_TEXT))
    except ConfigError as cause:
        raise EndorsementError(f"bundle file.carrier: {cause}") from cause


def _read_set(members: Members) -> CarriedSet:
    members.only({"family", "source", "fetched_at", "endorsements"})
    family = PlatformFamily.parse(members.text("family", max_chars=_MAX_TEXT))
    if family is None:
        members.refuse("family", "not a platform family")
    members.object("endorsements")
    return CarriedSet(
        family=family,
        source=members.text("source", max_chars=_MAX_TEXT),
        fetched_s=_time(members, "fetched_at"),
        data=jcs(members.raw("endorsements")),
    )


def _read_file(members: Members) -> CarriedFile:
    members.only({"name", "content"})
    # SECURITY: bare names only; whoever unpacks a bundle must not be led out of his directory.
    name = members.text("name", max_chars=_MAX_TEXT, pattern=_FILE_NAME)
    text = members.text("content", max_chars=2 * MAX_FILE_BYTES, min_chars=0)
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as cause:
        raise EndorsementError(f"bundle: file {name!r} is not base64") from cause
    if len(content) > MAX_FILE_BYTES:
        raise EndorsementError(f"bundle: file {name!r} is larger than {MAX_FILE_BYTES} bytes")
    return CarriedFile(name=name, content=content)


def _time(members: Members, name: str) -> int:
    text = members.text(name, max_chars=40, pattern=_TIME)
    try:
        return int(datetime.fromisoformat(text).timestamp())
    except (ValueError, OverflowError) as cause:
        raise EndorsementError(f"bundle: {name} is not a time") from cause
