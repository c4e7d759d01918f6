# SPDX-License-Identifier: Apache-2.0
"""What of an opened answer the caller sees, and when.

The opened bytes carry more than the answer: padding comments, the receipt, and for streams the ``[DONE]``
marker. An answer reader separates them. It withholds the end of a stream until the exchange has proven itself
complete, because the usual SDKs stop reading at ``[DONE]``: a caller who sees it must already be safe.

No I/O; the bytes come from an attested enclave through an authenticated channel, yet are parsed strictly,
because a receipt is only worth something if nothing follows it unsigned.
"""

from typing import Final, Protocol

from adyton_protocol.errors import ReceiptError, RemoteProtocolError
from adyton_protocol.receipt import Receipt, parse_receipt, parse_receipt_header
from adyton_protocol.sse import SseSplitter, find_receipt, is_comment

_DONE: Final = b"data: [DONE]"
_ERROR: Final = b'data: {"error"'
_LAST_EVENTS: Final = (b"event: response.completed\n", b"event: response.incomplete\n")
"""With these the Responses API says that an answer is whole; programs stop reading at them as at ``[DONE]``."""


class AnswerReader(Protocol):
    """Separates the bytes of an answer from what travels with them."""

    @property
    def committed(self) -> bytes:
        """Every byte that the receipt's response commitment covers, so far."""
        ...

    @property
    def receipt(self) -> Receipt | None:
        """The receipt, once it has arrived."""
        ...

    @property
    def reports_error(self) -> bool:
        """Whether the enclave ended the answer with an explicit error instead of a result."""
        ...

    def push(self, content: bytes) -> bytes:
        """Take opened content; return what the caller may see now (possibly nothing)."""
        ...

    def finish(self) -> bytes:
        """Return what was withheld; to be called once the exchange has been checked."""
        ...


class UnaryAnswer:
    """An answer in one piece; its receipt came in a header."""

    def __init__(self, receipt_header: bytes | None) -> None:
        """Take the value of the header ``adyton-receipt``, if there is one.

        Raises:
            ReceiptError: It is not a receipt.
        """
        self._parts: list[bytes] = []
        self._receipt = (
            None if receipt_header is None else parse_receipt_header(receipt_header.decode("latin-1"))
        )

    @property
    def committed(self) -> bytes:
        """The whole body."""
        return b"".join(self._parts)

    @property
    def receipt(self) -> Receipt | None:
        """The receipt from the header."""
        return self._receipt

    @property
    def reports_error(self) -> bool:
        """Never: a unary answer reports errors by its status."""
        return False

    def push(self, content: bytes) -> bytes:
        """Pass the content through; the caller's library only returns it when the body has ended."""
        self._parts.append(content)
        return content

    def finish(self) -> bytes:
        """Nothing is withheld."""
        return b""


class StreamedAnswer:
    """A server-sent event stream; its receipt is a comment before ``[DONE]``."""

    def __init__(self) -> None:
        self._splitter = SseSplitter()
        self._events: list[bytes] = []
        self._receipt: Receipt | None = None
        self._withheld = b""
        self._last_event = b""
        self._reports_error = False

    @property
    def committed(self) -> bytes:
        """All events but comments and ``[DONE]``."""
        return b"".join(self._events)

    @property
    def receipt(self) -> Receipt | None:
        """The receipt from its comment."""
        return self._receipt

    @property
    def reports_error(self) -> bool:
        """Whether the stream ended with an error object and not with ``[DONE]``."""
        return self._reports_error and not self._withheld

    def push(self, content: bytes) -> bytes:
        """Pass data events through, drop comments, keep the receipt, withhold the end.

        Raises:
            ReceiptError: A second receipt, or one after the end.
            RemoteProtocolError: An event that the receipt cannot cover.
        """
        return b"".join(self._take(event) for event in self._splitter.push(content))

    def finish(self) -> bytes:
        """Return the end: ``[DONE]``, and an event that says the same.

        Raises:
            RemoteProtocolError: The stream stopped inside an event.
        """
        if self._splitter.finish():
            raise RemoteProtocolError("the stream ends inside an event")
        return self._last_event + self._withheld

    def _take(self, event: bytes) -> bytes:
        receipt = find_receipt(event)
        if receipt is not None:
            if self._receipt is not None or self._withheld:
                raise ReceiptError("the stream carries a receipt where none may stand")
            self._receipt = parse_receipt(receipt)
            return b""
        if is_comment(event):
            return b""
        # SECURITY: whatever follows the receipt would be shown to the caller without being signed.
        if self._withheld:
            raise RemoteProtocolError("the stream goes on after its end")
        if event.strip() == _DONE:
            self._withheld = event
            return b""
        if self._receipt is not None:
            raise RemoteProtocolError("the stream goes on after its receipt")
        self._reports_error = event.startswith(_ERROR)
        self._events.append(event)
        if event.startswith(_LAST_EVENTS) and not self._last_event:
            self._last_event = event
            return b""
        # Nothing should follow that event but the end; if something does, it was not the last.
        last, self._last_event = self._last_event, b""
        return last + event
