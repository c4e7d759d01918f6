# SPDX-License-Identifier: Apache-2.0
"""Receipts: what the enclave signs about one exchange (``aci/1`` section 7).

A receipt is an event log. Its signature is Ed25519 over the JCS form of the document without the member
``signature``, under a key that the attested keyset lists, so that anybody who holds report and receipt can
check it later, offline. Our receipts differ from the plain ones in one point, which the sealed channel is
entitled to define: bodies enter as *commitments* (:mod:`adyton_protocol.digests`), never as bare hashes,
because a prompt or an answer is often easy to guess. Three circles of people can check three things:

* anybody with the attested keyset: who signed what (:func:`verify_receipt`);
* the client, who shares the receipt secret: that it is about this very exchange (:func:`check_exchange`);
* a third party to whom the client discloses one opening key: that one text (:func:`check_opening`).

``served_at`` is the enclave's own claim; its clock is the host's. Nothing here reads a clock.
"""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Protocol, cast

from nacl.exceptions import CryptoError
from nacl.signing import VerifyKey

from adyton_protocol.digests import (
    COMMITMENT_CHARS,
    COMMITMENT_PATTERN,
    DIGEST_CHARS,
    DIGEST_PATTERN,
    Commitment,
    Digest,
    as_digest,
    commit,
    commitment_matches,
    jcs,
    opening_key,
)
from adyton_protocol.errors import LocalProtocolError, ReceiptError
from adyton_protocol.keyset import ALGO_ED25519, Keyset
from adyton_protocol.receipt_document import (
    ANSWER_SCORED,
    API_VERSION,
    EVENT_TYPE_PATTERN,
    GENERATION_FINISHED,
    MAX_RECEIPT_BYTES,
    MAX_TEXT_CHARS,
    MODEL_IDENTITY,
    RECEIPT_HEADER,
    RECEIPT_ID_HEADER,
    REQUEST_RECEIVED,
    RESPONSE_RETURNED,
    SCALING_RUN,
    VALIDATION_CHECKED,
    Receipt,
    ReceiptEvent,
    parse_receipt,
    parse_receipt_header,
    receipt_from_json,
)
from adyton_protocol.strict_json import JsonObject, JsonValue, Members, json_value

__all__ = [
    "ANSWER_SCORED",
    "GENERATION_FINISHED",
    "MAX_RECEIPT_BYTES",
    "MODEL_IDENTITY",
    "RECEIPT_HEADER",
    "RECEIPT_ID_HEADER",
    "REQUEST_BODY_LABEL",
    "REQUEST_RECEIVED",
    "RESPONSE_BODY_LABEL",
    "RESPONSE_RETURNED",
    "SCALING_RUN",
    "SCORED_ANSWER_LABEL",
    "SCORES_LABEL",
    "VALIDATION_CHECKED",
    "Receipt",
    "ReceiptBuilder",
    "ReceiptEvent",
    "Signer",
    "VerifiedReceipt",
    "check_exchange",
    "check_opening",
    "openings",
    "parse_receipt",
    "parse_receipt_header",
    "receipt_from_json",
    "verify_receipt",
    "verify_receipt_signature",
]

REQUEST_BODY_LABEL: Final = "request.body"
RESPONSE_BODY_LABEL: Final = "response.body"
SCORED_ANSWER_LABEL: Final = "answer.scored.answer"
SCORES_LABEL: Final = "answer.scored.scores"
"""Of the two commitments of an ``answer.scored`` event; see :func:`commitment_matches` of ``digests``."""

_BUILDER_EVENTS: Final = frozenset({REQUEST_RECEIVED, RESPONSE_RETURNED})
_UPSTREAM_EVENTS: Final = frozenset({"request.forwarded", "upstream.verified"})


class Signer(Protocol):
    """Holds a receipt signing key; the enclave's key store implements it."""

    @property
    def key_id(self) -> str:
        """The key's name in the keyset."""

    def sign(self, message: bytes, /) -> bytes:
        """Return the Ed25519 signature (64 bytes) over ``message``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedReceipt:
    """A receipt whose signature verified; only :func:`verify_receipt` makes one.

    It says that the holder of a key in ``keyset`` signed ``receipt``. It is worth what the keyset is worth:
    take the keyset from an attestation result, never from beside the receipt.
    """

    receipt: Receipt
    keyset: Keyset


class ReceiptBuilder:
    """Collects the events of one exchange inside the enclave, and has them signed once.

    Order of use: construct on the opened request; add events in the order in which they happen; feed
    :meth:`response_data` with every byte of the response body that the caller will see; :meth:`sign` last.
    """

    def __init__(  # noqa: PLR0913 - all of it is known at once, and a receipt names it all
        self,
        *,
        receipt_id: str,
        keyset_digest: Digest,
        receipt_secret: bytes,
        enc: bytes,
        request_body: bytes,
        endpoint: str,
        method: str = "POST",
        model: str | None = None,
    ) -> None:
        """Start with the event ``request.received``.

        Args:
            receipt_id: Fresh, unguessable name; 1 to 128 characters out of A-Z a-z 0-9 . : - _
            keyset_digest: The keyset in force.
            receipt_secret: Exported from the request's HPKE context, 32 bytes.
            enc: The request's encapsulated key; its SHA-256 lets the host's log be matched without content.
            request_body: Body of the inner request.
            endpoint: Path of the inner request.
            method: Method of the inner request.
            model: The model that the request names, if any.

        Raises:
            LocalProtocolError: The secret or the digest is not of its form.
        """
        self._document: JsonObject = {
            "api_version": API_VERSION,
            "receipt_id": receipt_id,
            "model": model,
            "workload_keyset_digest": as_digest(keyset_digest),
            "endpoint": endpoint,
            "method": method,
        }
        self._secret = receipt_secret
        self._response = Commitment(receipt_secret, RESPONSE_BODY_LABEL)
        self._events: list[JsonValue] = []
        self._closed = False
        self._append(
            REQUEST_RECEIVED,
            {
                "enc_sha256": sha256(enc).hexdigest(),
                "body_commitment": commit(receipt_secret, REQUEST_BODY_LABEL, request_body),
            },
        )

    def event(self, type_: str, fields: Mapping[str, JsonValue]) -> None:
        """Add an event, for example ``scaling.run``. Texts belong into it as :meth:`commitment` only.

        Raises:
            LocalProtocolError: The type is the builder's own or an aggregator's, or the log is closed.
        """
        if type_ in _BUILDER_EVENTS or type_ in _UPSTREAM_EVENTS:
            raise LocalProtocolError(f"the event type {type_} is not for callers")
        self._append(type_, fields)

    def model_identity(self, *, name: str, identity: Digest) -> None:
        """Add ``model.identity``: a model of the keyset that took part."""
        self._append(MODEL_IDENTITY, {"name": name, "identity": as_digest(identity)})

    def generation_finished(self, *, finish_reasons: Sequence[str], usage: Mapping[str, int]) -> None:
        """Add ``generation.finished``: one finish reason per choice, and the token counts of the answer."""
        self._append(GENERATION_FINISHED, {"finish_reasons": list(finish_reasons), "usage": dict(usage)})

    def commitment(self, label: str, data: bytes) -> str:
        """Commit to ``data`` for an event of the caller's; every label is used for one text only.

        Raises:
            LocalProtocolError: The label is malformed, or one of the two that stand for the bodies.
        """
        if label in {REQUEST_BODY_LABEL, RESPONSE_BODY_LABEL}:
            raise LocalProtocolError("the labels of the bodies are the builder's")
        return commit(self._secret, label, data)

    def response_data(self, data: bytes) -> None:
        """Take in the next bytes of the response body as the caller will see it.

        For a stream: every event group before the receipt that is no comment, the blank lines included. What
        follows the receipt (``data: [DONE]``) is fixed, and not covered.

        Raises:
            LocalProtocolError: The log is closed.
        """
        self._open()
        self._response.update(data)

    def sign(self, signer: Signer, *, served_at: int, streamed: bool, chat_id: str | None = None) -> Receipt:
        """Add ``response.returned``, close the log and sign it.

        Args:
            signer: Holder of a receipt signing key of the keyset.
            served_at: Unix time in seconds.
            streamed: Whether the response body is a stream of server-sent events.
            chat_id: The ``id`` of the response, if it has one.

        Raises:
            LocalProtocolError: The log is closed already, or holds something that no reader would accept.
        """
        returned: JsonObject = {"body_commitment": self._response.value(), "streamed": streamed}
        self._append(RESPONSE_RETURNED, returned)
        self._closed = True
        document: JsonObject = self._document | {
            "chat_id": chat_id,
            "served_at": served_at,
            "event_log": self._events,
            "key_id": signer.key_id,
        }
        signed = document | {"signature": signer.sign(jcs(document)).hex()}
        try:
            return parse_receipt(jcs(signed))
        except ReceiptError as cause:
            raise LocalProtocolError(f"not a valid receipt: {cause}") from cause

    def _append(self, type_: str, fields: Mapping[str, JsonValue]) -> None:
        self._open()
        if EVENT_TYPE_PATTERN.fullmatch(type_) is None or "type" in fields:
            raise LocalProtocolError("an event has a dotted lower-case type, and no field of that name")
        # Copied, so that what is signed is what was true when it was added.
        copied = json_value(dict(fields), what=f"event {type_}", error=LocalProtocolError)
        self._events.append({"type": type_, **cast("JsonObject", copied)})

    def _open(self) -> None:
        if self._closed:
            raise LocalProtocolError("the receipt is signed already")


def verify_receipt_signature(receipt: Receipt, public_key: bytes) -> None:
    """Check the signature alone, under a given Ed25519 key (32 bytes).

    Raises:
        ReceiptError: It is not this key's signature over this document.
    """
    try:
        # libsodium refuses small-order keys and points and signatures with S >= L, so each is unique.
        VerifyKey(public_key).verify(receipt.signing_bytes(), receipt.signature)
    except (CryptoError, ValueError, TypeError) as cause:
        raise ReceiptError("receipt: the signature does not verify") from cause


def verify_receipt(receipt: Receipt, keyset: Keyset) -> VerifiedReceipt:
    """Verify a receipt under an attested keyset (``aci/1`` section 9.3, checks 1 and 2).

    1. The receipt names this keyset.
    2. Its key is listed there, once, for Ed25519.
    3. The signature verifies.
    4. ``served_at`` does not lie after the keyset's ``not_after``. Both are the enclave's claims; this
       catches an honest enclave that signs with an old key, not a dishonest one.
    5. Every ``model.identity`` is a model that the keyset lists, by name and digest.

    Args:
        receipt: Attacker-controlled.
        keyset: From an attestation result, or the archived one that was.

    Raises:
        ReceiptError: Any of it does not hold.
    """
    # SECURITY: read again from the bytes that are signed, whatever was done to the object in between.
    receipt = receipt_from_json(receipt.to_json())
    if receipt.keyset_digest != keyset.digest():
        raise ReceiptError("receipt: signed under another keyset")
    keys = [key for key in keyset.receipt_signing_keys if key.key_id == receipt.key_id]
    if len(keys) != 1 or keys[0].algo != ALGO_ED25519:
        raise ReceiptError("receipt: its key is not an ed25519 key of the keyset")
    verify_receipt_signature(receipt, bytes.fromhex(keys[0].public_key))
    if receipt.served_at > keyset.not_after:
        raise ReceiptError("receipt: served after its keyset expired")
    listed = {(model.name, model.identity) for model in keyset.extension.models}
    for event in receipt.events_of(MODEL_IDENTITY):
        fields = Members(dict(event.fields), MODEL_IDENTITY, ReceiptError)
        name = fields.text("name", max_chars=MAX_TEXT_CHARS)
        if (name, _digest(fields, "identity")) not in listed:
            raise ReceiptError("receipt: names a model that the keyset does not list")
    return VerifiedReceipt(receipt=receipt, keyset=keyset)


def check_exchange(
    verified: VerifiedReceipt, *, enc: bytes, receipt_secret: bytes, request_body: bytes, response_body: bytes
) -> None:
    """Check that a receipt is about this very exchange.

    Args:
        verified: The receipt.
        enc: Encapsulated key of the request that we sent.
        receipt_secret: Exported from its HPKE context, 32 bytes.
        request_body: Body of the inner request that we sent.
        response_body: Body of the inner response that we received; of a stream, every event group before
            the receipt that is no comment. ``data: [DONE]``, which follows the receipt, is not part of it.

    Raises:
        ReceiptError: It is about another request or another response.
        LocalProtocolError: The secret has the wrong length.
    """
    received = _only(verified.receipt, REQUEST_RECEIVED)
    enc_sha256 = received.text("enc_sha256", max_chars=64)
    if not hmac.compare_digest(enc_sha256.encode("utf-8"), sha256(enc).hexdigest().encode("ascii")):
        raise ReceiptError("receipt: about another encapsulated request")
    request_key = opening_key(receipt_secret, REQUEST_BODY_LABEL)
    check_opening(verified, REQUEST_BODY_LABEL, request_key, request_body)
    response_key = opening_key(receipt_secret, RESPONSE_BODY_LABEL)
    check_opening(verified, RESPONSE_BODY_LABEL, response_key, response_body)


def check_opening(verified: VerifiedReceipt, label: str, key: bytes, data: bytes) -> None:
    """Check one body against its commitment with a disclosed opening key, without any other secret.

    The holder of the receipt secret makes the key with :func:`adyton_protocol.digests.opening_key`. For
    commitments inside other events use :func:`adyton_protocol.digests.commitment_matches`.

    Args:
        verified: The receipt.
        label: ``request.body`` or ``response.body``.
        key: The opening key, 32 bytes.
        data: The body in question.

    Raises:
        ReceiptError: The receipt does not commit to these bytes under this key.
        LocalProtocolError: Unknown label, or a key of another length.
    """
    types = {REQUEST_BODY_LABEL: REQUEST_RECEIVED, RESPONSE_BODY_LABEL: RESPONSE_RETURNED}
    if label not in types:
        raise LocalProtocolError("only the two bodies are found by their label")
    event = _only(verified.receipt, types[label])
    commitment = event.text("body_commitment", max_chars=COMMITMENT_CHARS, pattern=COMMITMENT_PATTERN)
    if not commitment_matches(commitment, key, data):
        raise ReceiptError(f"receipt: does not commit to this {label}")


def openings(receipt_secret: bytes, labels: Sequence[str]) -> dict[str, str]:
    """Return the opening keys of some labels, in hexadecimal, for disclosure to whoever shall check them.

    Raises:
        LocalProtocolError: The secret or a label is not of its form.
    """
    return {label: opening_key(receipt_secret, label).hex() for label in labels}


def _only(receipt: Receipt, type_: str) -> Members:
    """Return the fields of the event that must be there exactly once."""
    events = receipt.events_of(type_)
    if len(events) != 1:
        raise ReceiptError(f"receipt: not exactly one event {type_}")
    return Members(dict(events[0].fields), type_, ReceiptError)


def _digest(members: Members, name: str) -> Digest:
    return Digest(members.text(name, max_chars=DIGEST_CHARS, pattern=DIGEST_PATTERN))
