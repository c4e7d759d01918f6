# SPDX-License-Identifier: Apache-2.0
"""The receipt as a document: its shape, its canonical form, and its parsers (``aci/1`` section 7.3).

Nothing here verifies anything; :mod:`adyton_protocol.receipt` does.
"""

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, cast

from adyton_protocol.digests import DIGEST_CHARS, DIGEST_PATTERN, Digest, jcs
from adyton_protocol.errors import ReceiptError
from adyton_protocol.keyset import MAX_NOT_AFTER_S
from adyton_protocol.strict_json import JsonObject, JsonValue, Members, json_value, parse_json

API_VERSION: Final = "aci/1"
RECEIPT_HEADER: Final = "adyton-receipt"
"""Inner response header with the receipt of a unary answer: unpadded base64url of its canonical form."""
RECEIPT_ID_HEADER: Final = "x-receipt-id"
"""Inner response header with the receipt's id (``aci/1`` section 5.2)."""

REQUEST_RECEIVED: Final = "request.received"
MODEL_IDENTITY: Final = "model.identity"
GENERATION_FINISHED: Final = "generation.finished"
RESPONSE_RETURNED: Final = "response.returned"
SCALING_RUN: Final = "scaling.run"
ANSWER_SCORED: Final = "answer.scored"
VALIDATION_CHECKED: Final = "validation.checked"

MAX_RECEIPT_BYTES: Final = 40 * 1024
"""Largest canonical form: as base64url it still fits into the header section of an answer."""
MAX_EVENTS: Final = 256
SIGNATURE_BYTES: Final = 64

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_TEXT: Final = re.compile(r"[!-~](?:[ -~]{0,254}[!-~])?")
EVENT_TYPE_PATTERN: Final = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
_SIGNATURE: Final = re.compile(r"[0-9a-f]{128}")
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+")
MAX_TEXT_CHARS: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptEvent:
    """One entry of the event log.

    Attributes:
        type: For example ``request.received``; unknown types are kept, and covered by the signature.
        fields: All other members, read-only.
    """

    type: str
    fields: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A signed receipt, unverified.

    Attributes:
        receipt_id: Its name at the service.
        chat_id: The ``id`` of the response, or None.
        model: The model that the client asked for, or None.
        keyset_digest: The keyset whose key signed.
        endpoint: Path of the inner request.
        method: Method of the inner request.
        served_at: Unix time in seconds, as the enclave claims it.
        events: The event log, in order; the first is ``request.received``.
        key_id: Name of the signing key in that keyset.
        signature: 64 bytes.
    """

    receipt_id: str
    chat_id: str | None
    model: str | None
    keyset_digest: Digest
    endpoint: str
    method: str
    served_at: int
    events: tuple[ReceiptEvent, ...]
    key_id: str
    signature: bytes
    _canonical: bytes = field(repr=False)

    def to_bytes(self) -> bytes:
        """Return the canonical form of the whole document: what is delivered and kept."""
        return self._canonical

    def to_json(self) -> JsonObject:
        """Return the JSON object, members unknown to us included."""
        return cast("JsonObject", json.loads(self._canonical))

    def signing_bytes(self) -> bytes:
        """Return what the signature covers: the canonical form without ``signature``."""
        document = self.to_json()
        del document["signature"]
        return jcs(document)

    def header_value(self) -> str:
        """Return the value for the header ``adyton-receipt``."""
        return urlsafe_b64encode(self._canonical).rstrip(b"=").decode("ascii")

    def events_of(self, type_: str) -> tuple[ReceiptEvent, ...]:
        """Return the events of one type, in order."""
        return tuple(event for event in self.events if event.type == type_)


def parse_receipt(data: bytes) -> Receipt:
    """Parse attacker-controlled bytes as a receipt in canonical form, which is how ours are delivered.

    SECURITY: other encodings of the same document are refused, so that no byte of a receipt can be changed
    unnoticed. For receipts of other services, or out of a larger file, use :func:`receipt_from_json`.

    Raises:
        ReceiptError: Not a receipt, not canonical, or of another API version. Nothing is verified yet.
    """
    receipt = receipt_from_json(
        parse_json(data, max_bytes=MAX_RECEIPT_BYTES, what="receipt", error=ReceiptError)
    )
    if receipt.to_bytes() != data:
        raise ReceiptError("receipt: not in canonical form")
    return receipt


def parse_receipt_header(value: str) -> Receipt:
    """Parse the attacker-controlled value of the header ``adyton-receipt``.

    Raises:
        ReceiptError: As :func:`parse_receipt`, or the value is not unpadded base64url.
    """
    if _BASE64URL.fullmatch(value) is None or len(value) % 4 == 1:
        raise ReceiptError("receipt: not base64url")
    receipt = parse_receipt(urlsafe_b64decode(value + "=" * (-len(value) % 4)))
    if receipt.header_value() != value:
        raise ReceiptError("receipt: not base64url as it is written")
    return receipt


def receipt_from_json(value: object) -> Receipt:
    """Read a receipt from a parsed JSON value of any origin; attacker-controlled.

    Unknown members and event types are kept: the signature covers them.

    Raises:
        ReceiptError: A required member is missing, or of the wrong type, form or size.
    """
    document = json_value(value, what="receipt", error=ReceiptError)
    members = Members(document, "receipt", ReceiptError)
    if members.raw("api_version") != API_VERSION:
        members.refuse("api_version", f"not {API_VERSION}")
    events = tuple(_event(entry) for entry in members.objects("event_log", max_items=MAX_EVENTS))
    if not events or events[0].type != REQUEST_RECEIVED:
        members.refuse("event_log", f"does not begin with {REQUEST_RECEIVED}")
    canonical = jcs(document)
    if len(canonical) > MAX_RECEIPT_BYTES:
        raise ReceiptError(f"receipt: {len(canonical)} bytes exceed the limit of {MAX_RECEIPT_BYTES}")
    return Receipt(
        receipt_id=members.text("receipt_id", max_chars=128, pattern=_ID),
        chat_id=members.optional_text("chat_id", max_chars=MAX_TEXT_CHARS, pattern=_TEXT),
        model=members.optional_text("model", max_chars=MAX_TEXT_CHARS, pattern=_TEXT),
        keyset_digest=Digest(
            members.text("workload_keyset_digest", max_chars=DIGEST_CHARS, pattern=DIGEST_PATTERN)
        ),
        endpoint=members.text("endpoint", max_chars=MAX_TEXT_CHARS, pattern=_TEXT),
        method=members.text("method", max_chars=16, pattern=_TEXT),
        served_at=members.integer("served_at", minimum=1, maximum=MAX_NOT_AFTER_S),
        events=events,
        key_id=members.text("key_id", max_chars=MAX_TEXT_CHARS, pattern=_TEXT),
        signature=bytes.fromhex(members.text("signature", max_chars=2 * SIGNATURE_BYTES, pattern=_SIGNATURE)),
        _canonical=canonical,
    )


def _event(members: Members) -> ReceiptEvent:
    """Read one event; only its type is understood here."""
    type_ = members.text("type", max_chars=64, pattern=EVENT_TYPE_PATTERN)
    fields = {name: value for name, value in members.items() if name != "type"}
    return ReceiptEvent(type=type_, fields=MappingProxyType(fields))
