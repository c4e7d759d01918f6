# SPDX-License-Identifier: Apache-2.0
"""One exchange on the second channel: what came back in ordinary HTTP, and the proof that it answers what was asked.

The twin of :mod:`adyton.exchange` for a channel that TLS protects. There is nothing to open; the receipt's commitments
open by the secret that the enclave draws and sends along in a header, beside the exchange's id. Sans-I/O.
"""

from collections.abc import Callable

from adyton.answer import AnswerReader, StreamedAnswer, UnaryAnswer
from adyton.exchange import Header, needs_receipt
from adyton.problems import media_type
from adyton.receipts import ReceiptRecord
from adyton.session import Attested
from adyton_protocol.errors import LocalProtocolError, ReceiptError
from adyton_protocol.ra_tls import EXCHANGE_HEADER, parse_exchange_header
from adyton_protocol.receipt import RECEIPT_HEADER, check_exchange, verify_receipt

_KEYSET_HEADER = b"x-aci-keyset-digest"


def names_another_keyset(headers: list[Header], attested: Attested) -> bool:
    """Whether an answer says that it was signed under another keyset than the attested one.

    Keys rotate while a connection lasts. The header is a hint for which keyset to ask; the receipt decides.
    """
    named = dict(_lower(headers)).get(_KEYSET_HEADER)
    return named is not None and named != attested.verdict.keyset.digest().encode("ascii")


class PlainExchange:
    """The answer to one request. Single-use."""

    def __init__(
        self,
        attested: Attested,
        *,
        method: str,
        content: bytes,
        status: int,
        headers: list[Header],
        on_receipt: Callable[[ReceiptRecord], None],
    ) -> None:
        """Begin at the head of the answer.

        Args:
            attested: The appraisal whose keyset signs the receipt.
            method: Of the request.
            content: The whole body of the request, as it was sent.
            status: Of the answer.
            headers: Of the answer, from whoever holds the attested TLS key.
            on_receipt: Called once, with a checked receipt.

        Raises:
            ReceiptError: The receipt or the exchange header is malformed.
        """
        fields = dict(_lower(headers))
        streamed = media_type(fields.get(b"content-type", b"").decode("latin-1")) == "text/event-stream"
        receipt = fields.get(RECEIPT_HEADER.encode("ascii"))
        self._attested = attested
        self._content = content
        self._needed = needs_receipt(method, status)
        self._exchange = fields.get(EXCHANGE_HEADER.encode("ascii"))
        self._reader: AnswerReader = StreamedAnswer() if streamed else UnaryAnswer(receipt)
        self._on_receipt = on_receipt
        self._complete = False

    def push(self, data: bytes) -> bytes:
        """Take the next bytes of the body; return what the caller may see now.

        Raises:
            ReceiptError: A receipt stands where none may.
            RemoteProtocolError: An event that the receipt cannot cover.
        """
        if self._complete:
            raise LocalProtocolError("this exchange is over")
        return self._reader.push(data)

    def finish(self) -> bytes:
        """Check the receipt; return the end of the body, which was withheld until then.

        Raises:
            ReceiptError: The receipt is missing, forged or about another exchange.
            RemoteProtocolError: The body stopped inside an event.
        """
        if self._complete:
            raise LocalProtocolError("this exchange is over")
        self._check(self._reader)
        end = self._reader.finish()
        self._complete = True
        return end

    def _check(self, reader: AnswerReader) -> None:
        if reader.receipt is None:
            if self._needed and not reader.reports_error:
                raise ReceiptError("the enclave answered without a receipt")
            return
        if self._exchange is None:
            raise ReceiptError("the receipt came without the exchange that it is about")
        exchange_id, secret = parse_exchange_header(self._exchange)
        verified = verify_receipt(reader.receipt, self._attested.verdict.keyset)
        check_exchange(
            verified,
            enc=exchange_id,
            receipt_secret=secret,
            request_body=self._content,
            response_body=reader.committed,
        )
        self._on_receipt(ReceiptRecord(verified=verified, attested=self._attested, secret=secret))


def _lower(headers: list[Header]) -> list[Header]:
    return [(name.lower(), value) for name, value in headers]
