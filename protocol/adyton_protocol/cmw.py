# SPDX-License-Identifier: Apache-2.0
"""Conceptual Message Wrappers (RFC 9999): records and collections, in JSON and in CBOR.

A wrapper says what its parts are and protects none of them. Both encodings are read strictly: the JSON form by the
rules of ``strict_json``, the CBOR form in its one deterministic encoding. Read are records, collections of depth
:data:`MAX_COLLECTION_DEPTH`, and, in CBOR, tags that stand for CoAP content formats (RFC 9277 appendix B). What the
labels of a collection mean is the business of whoever defined its type; ours is in ``cmw_evidence``.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar, cast

from adyton_protocol import cbor
from adyton_protocol.digests import jcs
from adyton_protocol.errors import LocalProtocolError, MalformedEvidence
from adyton_protocol.strict_json import JsonValue, parse_json

REFERENCE_VALUES: Final = 1 << 0
ENDORSEMENTS: Final = 1 << 1
EVIDENCE: Final = 1 << 2
ATTESTATION_RESULTS: Final = 1 << 3
APPRAISAL_POLICY: Final = 1 << 4
_ALL_INDICATORS: Final = 0x1F

TYPE_KEY: Final = "__cmwc_t"
MAX_CMW_BYTES: Final = 2 * 1024 * 1024
"""Largest wrapper that is read: a report and its endorsements, in base64."""
MAX_COLLECTION_DEPTH: Final = 2

_MAX_ITEMS: Final = 16
_MAX_TYPE_CHARS: Final = 256
_MAX_CONTENT_FORMAT: Final = 0xFFFF
_FIRST_TAG: Final = 1_668_546_817
"""TN(0) of RFC 9277 appendix B; numbers go on 255 to each block of 256."""
_LAST_TAG: Final = 1_668_612_095
_TOKEN: Final = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"  # noqa: S105 - of a media type
_MEDIA_TYPE: Final = re.compile(
    rf"{_TOKEN}/{_TOKEN}(?: ?; ?{_TOKEN}=(?:{_TOKEN}|\"[ !#-\[\]-~]{{0,200}}\"))*"
)
_TYPE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+|[0-2](?:\.(?:0|[1-9][0-9]*))+")
"""An absolute URI or an object identifier."""
_LABEL: Final = re.compile(r"[ -~]{1,128}")
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One conceptual message.

    Attributes:
        type: Media type, or in CBOR a CoAP content format.
        value: The message, at least one byte.
        indicator: Which kinds of message the value holds, as bits; None leaves it to the type.
        tagged: In CBOR, written as a tag that stands for the content format, which has no indicator.

    Raises:
        LocalProtocolError: Built from values that the parser would refuse.
    """

    type: str | int
    value: bytes
    indicator: int | None = None
    tagged: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be written."""
        try:
            _check_record(self)
        except MalformedEvidence as cause:
            raise LocalProtocolError(str(cause)) from cause


Label: TypeAlias = str | int
V = TypeVar("V")


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """Several wrappers under labels.

    Attributes:
        type: Absolute URI or object identifier that says what the labels mean, or None.
        items: The wrappers by label, at least one; integers label in CBOR only.

    Raises:
        LocalProtocolError: Built from values that the parser would refuse.
    """

    type: str | None
    items: "Mapping[Label, Cmw]"

    def __post_init__(self) -> None:
        """Refuse what cannot be written."""
        try:
            _check_collection(self)
        except MalformedEvidence as cause:
            raise LocalProtocolError(str(cause)) from cause


Cmw: TypeAlias = Record | Collection


def to_json(cmw: Cmw) -> bytes:
    """Write a wrapper as JSON, in canonical form (RFC 8785).

    Raises:
        LocalProtocolError: A type or a label is a number, which JSON cannot say.
    """
    return jcs(_json(cmw))


def to_cbor(cmw: Cmw) -> bytes:
    """Write a wrapper as deterministic CBOR."""
    return cbor.encode(_cbor(cmw))


def parse_json_cmw(data: bytes) -> Cmw:
    """Read attacker-controlled bytes as a wrapper in JSON.

    Raises:
        MalformedEvidence: Not a wrapper, or not one of the forms that are read here.
    """
    return _from_json(parse_json(data, max_bytes=MAX_CMW_BYTES, what="CMW", error=MalformedEvidence), 0)


def parse_cbor_cmw(data: bytes) -> Cmw:
    """Read attacker-controlled bytes as a wrapper in CBOR.

    Raises:
        MalformedEvidence: Not a wrapper, not in deterministic form, or not one of the forms that are read here.
    """
    return _from_cbor(cbor.decode(data, max_bytes=MAX_CMW_BYTES, what="CMW", error=MalformedEvidence), 0)


# --- Rules of both encodings ------------------------------------------------------------------------------------


def _check_record(record: Record) -> None:
    if type(record.type) is str:
        if len(record.type) > _MAX_TYPE_CHARS or _MEDIA_TYPE.fullmatch(record.type) is None:
            raise MalformedEvidence("CMW: a record's type is not a media type")
    elif type(record.type) is not int or not 0 <= record.type <= _MAX_CONTENT_FORMAT:
        raise MalformedEvidence("CMW: a record's type is not a content format")
    if type(record.value) is not bytes or not record.value:
        raise MalformedEvidence("CMW: a record's value is empty or no byte string")
    if record.indicator is not None and (
        type(record.indicator) is not int or not 0 < record.indicator <= _ALL_INDICATORS
    ):
        raise MalformedEvidence("CMW: an indicator names no kind of message, or an unknown one")
    if record.tagged and (type(record.type) is not int or record.indicator is not None):
        raise MalformedEvidence("CMW: a tag stands for a content format and has no indicator")


def _check_collection(collection: Collection) -> None:
    if not 0 < len(collection.items) <= _MAX_ITEMS:
        raise MalformedEvidence(f"CMW: a collection holds 1 to {_MAX_ITEMS} items")
    if collection.type is not None and (
        type(collection.type) is not str
        or len(collection.type) > _MAX_TYPE_CHARS
        or _TYPE.fullmatch(collection.type) is None
    ):
        raise MalformedEvidence(
            "CMW: a collection's type is neither an absolute URI nor an object identifier"
        )
    for label in collection.items:
        is_text = type(label) is str and label != TYPE_KEY and _LABEL.fullmatch(label) is not None
        if not is_text and type(label) is not int:
            raise MalformedEvidence("CMW: a label is not of its form")
    if _depth(collection) > MAX_COLLECTION_DEPTH:
        raise MalformedEvidence("CMW: collections are nested too deeply")


def _depth(cmw: Cmw) -> int:
    if isinstance(cmw, Record):
        return 0
    return 1 + max(_depth(item) for item in cmw.items.values())


# --- JSON -------------------------------------------------------------------------------------------------------


def _json(cmw: Cmw) -> JsonValue:
    if isinstance(cmw, Record):
        if type(cmw.type) is not str:
            raise LocalProtocolError("CMW: JSON has no content formats")
        value = base64.urlsafe_b64encode(cmw.value).rstrip(b"=").decode("ascii")
        return [cmw.type, value] if cmw.indicator is None else [cmw.type, value, cmw.indicator]
    members: dict[str, JsonValue] = {} if cmw.type is None else {TYPE_KEY: cmw.type}
    for label, item in cmw.items.items():
        if type(label) is not str:
            raise LocalProtocolError("CMW: JSON has no integer labels")
        members[label] = _json(item)
    return members


def _from_json(value: JsonValue, depth: int) -> Cmw:
    if type(value) is list:
        if not 2 <= len(value) <= 3:  # noqa: PLR2004 - type, value and perhaps an indicator
            raise MalformedEvidence("CMW: a record has two or three members")
        # JSON knows no content formats, so the type is text here.
        if type(value[0]) is not str:
            raise MalformedEvidence("CMW: a record's type is not a media type")
        return _record(value[0], _octets(value[1]), value[2:])
    if type(value) is dict:
        labelled: dict[Label, JsonValue] = dict(value.items())
        return _collection(labelled, depth, _from_json)
    raise MalformedEvidence("CMW: neither a record nor a collection")


def _octets(text: JsonValue) -> bytes:
    if type(text) is not str or _BASE64URL.fullmatch(text) is None:
        raise MalformedEvidence("CMW: a record's value is not base64url without padding")
    try:
        octets = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as cause:
        raise MalformedEvidence("CMW: a record's value is not base64url without padding") from cause
    # SECURITY: the last character has bits that decode to nothing; only zeros there, or one value has many spellings.
    if base64.urlsafe_b64encode(octets).rstrip(b"=") != text.encode("ascii"):
        raise MalformedEvidence("CMW: a record's value is not in its one base64url spelling")
    return octets


# --- CBOR -------------------------------------------------------------------------------------------------------


def _cbor(cmw: Cmw) -> cbor.CborValue:
    if isinstance(cmw, Record):
        if cmw.tagged and type(cmw.type) is int:
            block, rest = divmod(cmw.type, 255)
            return cbor.Tagged(_FIRST_TAG + 256 * block + rest, cmw.value)
        return [cmw.type, cmw.value] if cmw.indicator is None else [cmw.type, cmw.value, cmw.indicator]
    members: dict[cbor.CborKey, cbor.CborValue] = {} if cmw.type is None else {TYPE_KEY: cmw.type}
    return members | {label: _cbor(item) for label, item in cmw.items.items()}


def _from_cbor(value: cbor.CborValue, depth: int) -> Cmw:
    if type(value) is list:
        if not 2 <= len(value) <= 3:  # noqa: PLR2004 - type, value and perhaps an indicator
            raise MalformedEvidence("CMW: a record has two or three members")
        return _record(value[0], value[1], value[2:])
    if type(value) is dict:
        return _collection(value, depth, _from_cbor)
    if type(value) is cbor.Tagged:
        return _tag(value)
    raise MalformedEvidence("CMW: neither a record nor a collection nor a tag")


def _tag(value: cbor.Tagged) -> Record:
    block, rest = divmod(value.tag - _FIRST_TAG, 256)
    if not _FIRST_TAG <= value.tag <= _LAST_TAG or rest == 255:  # noqa: PLR2004 - RFC 9277: no such number
        raise MalformedEvidence("CMW: a tag that stands for no content format")
    if type(value.value) is not bytes:
        raise MalformedEvidence("CMW: a tagged value is no byte string")
    if not value.value:
        raise MalformedEvidence("CMW: a tagged value is empty")
    return Record(type=255 * block + rest, value=value.value, tagged=True)


# --- Both -------------------------------------------------------------------------------------------------------


def _record(kind: object, value: object, rest: Sequence[object]) -> Record:
    # Null is a value in JSON, and no indicator is its absence.
    if rest and type(rest[0]) is not int:
        raise MalformedEvidence("CMW: an indicator is no integer")
    try:
        return Record(
            type=cast("str | int", kind),
            value=cast("bytes", value),
            indicator=cast("int", rest[0]) if rest else None,
        )
    except LocalProtocolError as cause:
        raise MalformedEvidence(str(cause)) from cause


def _collection(members: Mapping[Label, V], depth: int, read: Callable[[V, int], Cmw]) -> Collection:
    if depth >= MAX_COLLECTION_DEPTH:
        raise MalformedEvidence("CMW: collections are nested too deeply")
    kind = members.get(TYPE_KEY)
    if TYPE_KEY in members and type(kind) is not str:
        raise MalformedEvidence("CMW: a collection's type is no text")
    try:
        return Collection(
            type=cast("str | None", kind),
            items={label: read(item, depth + 1) for label, item in members.items() if label != TYPE_KEY},
        )
    except LocalProtocolError as cause:
        raise MalformedEvidence(str(cause)) from cause
