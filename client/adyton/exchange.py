# SPDX-License-Identifier: Apache-2.0
"""One sealed exchange: a request in, an answer out, and the proof that it was answered as sealed.

Sans-I/O: :attr:`Exchange.sealed` is what to post, :meth:`Exchange.push` takes what comes back. Steps:

1. Encode the request as Binary HTTP, padded to a size bucket, and seal it to the attested key.
2. Open response chunks in order and parse them as they come.
3. At the end of input demand the authenticated final chunk, or raise ``TruncatedMessage``.
4. Check the receipt: signed by an attested key, about this encapsulation, this request, this answer.

Until step 4 has passed the caller has not been shown the end of the answer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from adyton.address import INNER_AUTHORITY
from adyton.answer import AnswerReader, StreamedAnswer, UnaryAnswer
from adyton.problems import media_type
from adyton.receipts import ReceiptRecord
from adyton.session import Attested
from adyton_protocol import bhttp
from adyton_protocol.errors import LocalProtocolError, ReceiptError, RemoteProtocolError
from adyton_protocol.padding import bucket
from adyton_protocol.receipt import RECEIPT_HEADER, check_exchange, verify_receipt

_FORWARDED: Final = frozenset({b"accept", b"content-type"})
"""Headers of the caller that enter the sealed request. Credentials are for the host, and the rest only
tells the enclave about the caller's software."""

Header = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class InnerRequest:
    """A request before sealing.

    Attributes:
        method: HTTP method, upper case.
        path: Path and query, from ``/``.
        headers: As the caller's library made them; filtered when sealed.
        content: The whole body.
    """

    method: str
    path: str
    headers: tuple[Header, ...]
    content: bytes

    def encode(self) -> bytes:
        """Return the padded, known-length Binary HTTP message (RFC 9292 section 3)."""
        headers = tuple((name.lower(), value) for name, value in self.headers)
        request = bhttp.Request(
            method=self.method,
            scheme="https",
            authority=INNER_AUTHORITY,
            path=self.path,
            headers=tuple(header for header in headers if header[0] in _FORWARDED),
            content=self.content,
        )
        return bhttp.encode_request(request, pad_to=bucket)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerHead:
    """Status and headers of the opened answer, without what only concerns the channel."""

    status: int
    headers: tuple[Header, ...]


class Exchange:
    """One request sealed once under one appraisal. Single-use."""

    def __init__(
        self, attested: Attested, request: InnerRequest, *, on_receipt: Callable[[ReceiptRecord], None]
    ) -> None:
        """Seal ``request`` under ``attested``; ``on_receipt`` is called once, with a checked receipt."""
        self._attested = attested
        self._request = request
        self._on_receipt = on_receipt
        self._sealer = attested.verdict.open_channel().sealer(chunked=True)
        self.sealed: Final = self._sealer.push(request.encode()) + self._sealer.finish()
        self._opener = self._sealer.response_opener()
        self._parser = bhttp.ResponseParser()
        self._reader: AnswerReader | None = None
        self.head: AnswerHead | None = None
        self.complete = False

    def receive(self, data: bytes | None) -> bytes:
        """Take the next bytes of the sealed response, or None at the end of input.

        Args:
            data: Attacker-controlled bytes, cut anywhere.

        Returns:
            Content of the answer that the caller may see now; the last of it only once all checks passed.

        Raises:
            OpenError: A chunk was altered, reordered, duplicated or belongs to another exchange.
            TruncatedMessage: The input ended before the authenticated final chunk.
            RemoteProtocolError: The opened bytes are not a well-formed answer.
            ReceiptError: The receipt is missing, forged or about another exchange.
        """
        if self.complete:
            raise LocalProtocolError("this exchange is over")
        if data is not None:
            return self._read(self._parser.push(self._opener.push(data)))
        # SECURITY: the final chunk is the only proof that the enclave, not the host, ended the answer.
        seen = self._read(self._parser.push(self._opener.finish()))
        seen += self._read(self._parser.finish())
        if self._reader is None or self.head is None:
            raise RemoteProtocolError("the sealed answer has no head")
        self._check_receipt(self._reader, self.head.status)
        seen += self._reader.finish()
        self.complete = True
        return seen

    def _read(self, events: list[bhttp.Event]) -> bytes:
        seen: list[bytes] = []
        for event in events:
            match event:
                case bhttp.ResponseHead():
                    self._start(event)
                case bhttp.Content():
                    if self._reader is None:
                        raise RemoteProtocolError("the sealed answer has content before its head")
                    seen.append(self._reader.push(event.data))
                case bhttp.End():
                    pass
                case bhttp.RequestHead():
                    raise RemoteProtocolError("the sealed answer is a request")
        return b"".join(seen)

    def _start(self, head: bhttp.ResponseHead) -> None:
        fields = dict(head.headers)
        streamed = media_type(fields.get(b"content-type", b"").decode("latin-1")) == "text/event-stream"
        receipt = fields.get(RECEIPT_HEADER.encode("ascii"))
        self._reader = StreamedAnswer() if streamed else UnaryAnswer(receipt)
        self.head = AnswerHead(status=head.status, headers=_for_the_caller(head.headers))

    def _check_receipt(self, reader: AnswerReader, status: int) -> None:
        if reader.receipt is None:
            if needs_receipt(self._request.method, status) and not reader.reports_error:
                raise ReceiptError("the enclave answered without a receipt")
            return
        verified = verify_receipt(reader.receipt, self._attested.verdict.keyset)
        secret = self._sealer.export_receipt_secret()
        check_exchange(
            verified,
            enc=self._sealer.enc,
            receipt_secret=secret,
            request_body=self._request.content,
            response_body=reader.committed,
        )
        self._on_receipt(ReceiptRecord(verified=verified, attested=self._attested, secret=secret))


def needs_receipt(method: str, status: int) -> bool:
    """Whether an answer of this status is worth nothing without a receipt."""
    return method == "POST" and 200 <= status < 300  # noqa: PLR2004 - RFC 9110 15.3


def _for_the_caller(headers: tuple[Header, ...]) -> tuple[Header, ...]:
    """Drop what described the message inside the channel and no longer holds for the caller's response."""
    dropped = {b"content-length", b"transfer-encoding", b"content-encoding", b"connection", b"set-cookie"}
    return tuple(header for header in headers if header[0] not in dropped)
