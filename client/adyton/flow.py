# SPDX-License-Identifier: Apache-2.0
"""What a client does, as generators that perform no I/O.

A flow yields effects and is sent their outcomes, so that the synchronous and the asynchronous transport run
the same logic and differ only in how they read a socket. The order is the security property: a request is
sealed only after :class:`Attest` has been answered, and nothing of it leaves before it is sealed.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Final, TypeVar

from adyton.exchange import AnswerHead, Exchange, InnerRequest
from adyton.problems import MAX_PROBLEM_BYTES, GatewayCouldNotOpen, media_type, refusal
from adyton.receipts import ReceiptLedger
from adyton.session import APPLIANCE, Attested, Session
from adyton_attestation.sources.supply import Supplied
from adyton_protocol import media
from adyton_protocol.errors import (
    EndorsementsUnavailable,
    KeyConfigMismatch,
    LocalProtocolError,
    RelayRefused,
    RemoteProtocolError,
    TransportError,
)
from adyton_protocol.report import parse_report

OK: Final = 200
NOT_FOUND: Final = 404

# --- Effects: what a flow asks its driver to do -------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Attest:
    """Return the current appraisal, or attest first; concurrent askers share one attestation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Start one outer HTTP exchange and return its :class:`OuterHead`; the body is read by :class:`Read`."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    content: bytes


@dataclass(frozen=True, slots=True)
class Endorse:
    """Return endorsements for an attacker-controlled quote, as :class:`Supplied`, from the source of one's own."""

    quote: bytes


@dataclass(frozen=True, slots=True)
class Read:
    """Return the next raw bytes of the outer body, or None at its end."""


@dataclass(frozen=True, slots=True)
class Hangup:
    """Close the outer exchange; nothing more of its body is wanted."""


Effect = Attest | Endorse | Send | Read | Hangup


@dataclass(frozen=True, slots=True, kw_only=True)
class OuterHead:
    """Status and the few outer headers that matter; all attacker-controlled."""

    status: int
    content_type: str
    retry_after: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An exchange whose answer has begun.

    Attributes:
        exchange: To be fed with the rest of the outer body until it is complete.
        head: Status and headers of the answer.
        content: The first content that the caller may see.
    """

    exchange: Exchange
    head: AnswerHead
    content: bytes


Outcome = Attested | Supplied | OuterHead | bytes | None
T = TypeVar("T")
Flow = Generator[Effect, Outcome, T]

# --- Flows --------------------------------------------------------------------------------------------


def attest(session: Session, *, challenge: str, now_s: int, elsewhere: bool = False) -> Flow[Attested]:
    """Fetch a report for ``challenge``, endorsements and what else the policy wants, and appraise them.

    Args:
        session: Decides.
        challenge: Fresh.
        now_s: Unix time.
        elsewhere: Get endorsements from a source of one's own instead of the appliance.

    Raises:
        AttestationError: Not accepted. Nothing of any request has been sent.
        EndorsementsUnavailable: No endorsements could be had, so that nothing was appraised, or sent.
    """
    report = yield from fetch_report(challenge)
    if elsewhere:
        supplied = yield from _supplied(parse_report(report).quote)
        endorsements, origin, notice = supplied.data, supplied.origin, supplied.notice
    else:
        endorsements, origin, notice = (yield from _served()), APPLIANCE, None
    releases = (yield from _fetch_releases()) if session.releases.fetched else None
    return session.accept(
        report=report,
        endorsements=endorsements,
        challenge=challenge,
        now_s=now_s,
        origin=origin,
        notice=notice,
        releases=releases,
    )


def fetch_report(challenge: str) -> Flow[bytes]:
    """Fetch a report for ``challenge``; attacker-controlled, appraised by nobody yet."""
    path = f"{media.ATTESTATION_PATH}?nonce={challenge}"
    return (yield from _fetch(path, "attestation report", media.MAX_REPORT_BYTES))


def send(session: Session, request: InnerRequest, ledger: ReceiptLedger) -> Flow[Opened]:
    """Seal ``request`` under an appraisal and wait for the head of its answer.

    A request sealed to a key that is gone is sealed again, once, to the key that replaced it. The gateway
    says so itself, or, when the new key has the old one's id, only notices that the request does not open.

    Raises:
        AttestationError: The appliance was not accepted; nothing was sent.
        KeyConfigMismatch: The enclave does not hold the key, and has not rotated since.
        RelayRefused: The host declined.
        TransportError: The connection failed.
        ProtocolError: The answer is not a well-formed sealed answer.
    """
    attested = yield from _attested()
    try:
        return (yield from _attempt(Exchange(attested, request, on_receipt=ledger.add)))
    except (KeyConfigMismatch, GatewayCouldNotOpen):
        session.expire(attested)
        renewed = yield from _attested()
        # SECURITY: the refusal came from the untrusted host. Only a rotation, which the enclave proves by a
        # new quote, makes it credible that the first request can no longer be opened; otherwise a lying
        # host could have the same request run twice.
        if renewed.verdict.keyset.key_configs() == attested.verdict.keyset.key_configs():
            raise
    return (yield from _attempt(Exchange(renewed, request, on_receipt=ledger.add)))


def _attempt(exchange: Exchange) -> Flow[Opened]:
    head = yield from _send(
        Send(
            method="POST",
            path=media.GATEWAY_PATH,
            headers=(
                ("content-type", media.OHTTP_CHUNKED_REQUEST),
                ("accept", media.OHTTP_CHUNKED_RESPONSE),
                ("incremental", "?1"),
            ),
            content=exchange.sealed,
        )
    )
    if head.status != OK or media_type(head.content_type) != media.OHTTP_CHUNKED_RESPONSE:
        body = yield from _read(MAX_PROBLEM_BYTES)
        yield Hangup()
        raise refusal(head.status, head.content_type, head.retry_after, body)
    content = b""
    while (opened := exchange.head) is None:
        content += exchange.receive((yield from _read_some()))
    return Opened(exchange=exchange, head=opened, content=content)


def _fetch(path: str, what: str, limit_bytes: int) -> Flow[bytes]:
    accept = (("accept", "application/json"),)
    head = yield from _send(Send(method="GET", path=path, headers=accept, content=b""))
    body = yield from _read(limit_bytes + 1)
    yield Hangup()
    if head.status != OK:
        raise refusal(head.status, head.content_type, head.retry_after, body[:MAX_PROBLEM_BYTES])
    if len(body) > limit_bytes:
        raise RemoteProtocolError(f"the {what} is larger than {limit_bytes} bytes")
    return body


def _served() -> Flow[bytes]:
    """Fetch the endorsements that the appliance's host keeps."""
    try:
        return (
            yield from _fetch(media.ENDORSEMENTS_PATH, "endorsements document", media.MAX_ENDORSEMENTS_BYTES)
        )
    except (RelayRefused, TransportError) as error:
        raise EndorsementsUnavailable(
            f"{APPLIANCE} serves no endorsements ({error}); its operator can mend that, "
            "or choose another source (endorsements=..., or --endorsements pcs)",
            source=APPLIANCE,
            retry_after_s=error.retry_after_s if isinstance(error, RelayRefused) else None,
        ) from error


def _fetch_releases() -> Flow[bytes | None]:
    """Fetch the release file; None if the host has none, which the appraisal then refuses under its own name."""
    try:
        return (yield from _fetch(media.RELEASES_PATH, "release file", media.MAX_RELEASES_BYTES))
    except RelayRefused as refused:
        if refused.status == NOT_FOUND:
            return None
        raise


def _read(limit_bytes: int) -> Flow[bytes]:
    """Read the outer body, at most ``limit_bytes`` of it."""
    body = b""
    while len(body) < limit_bytes and (piece := (yield from _read_some())) is not None:
        body += piece
    return body[:limit_bytes]


# --- One effect each, with the type of its outcome ----------------------------------------------------


def _attested() -> Flow[Attested]:
    outcome = yield Attest()
    if not isinstance(outcome, Attested):
        raise LocalProtocolError("the driver answered Attest with something else")
    return outcome


def _supplied(quote: bytes) -> Flow[Supplied]:
    outcome = yield Endorse(quote)
    if not isinstance(outcome, Supplied):
        raise LocalProtocolError("the driver answered Endorse with something else")
    return outcome


def _send(effect: Send) -> Flow[OuterHead]:
    outcome = yield effect
    if not isinstance(outcome, OuterHead):
        raise LocalProtocolError("the driver answered Send with something else")
    return outcome


def _read_some() -> Flow[bytes | None]:
    outcome = yield Read()
    if outcome is not None and not isinstance(outcome, bytes):
        raise LocalProtocolError("the driver answered Read with something else")
    return outcome
