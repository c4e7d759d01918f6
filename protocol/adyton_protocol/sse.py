# SPDX-License-Identifier: Apache-2.0
"""Server-sent events, as far as the sealed channel needs them (WHATWG HTML section 9.2).

Streams carry two kinds of comment, which every client ignores: padding, and the receipt. Both stand
between events, as groups of their own that end in a blank line, so that removing them leaves the other
groups byte for byte as they were.
"""

import binascii
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

from adyton_protocol.errors import LocalProtocolError, ReceiptError, RemoteProtocolError

MAX_EVENT_BYTES: Final = 16 << 20
"""Largest event group that a reader buffers; the last events of a response repeat all of its text."""
MIN_COMMENT_BYTES: Final = 3
"""A comment group is at least a colon and a blank line."""

_RECEIPT_PREFIX: Final = b": adyton-receipt "
# Two line ends in a row. A CR that may still get its LF (the end of the buffer) does not count yet.
_BLANK_LINE: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n|\Z))(?:\r\n|\n|\r(?!\n|\Z))")
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_BASE64URL: Final = re.compile(rb"[A-Za-z0-9_-]+")
_LONGEST_SEPARATOR: Final = 4


class SseSplitter:
    """Splits a stream into its event groups, whatever the boundaries of the pieces."""

    def __init__(self, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        """Take the size, in bytes, beyond which a group is refused."""
        self._buffer = bytearray()
        self._searched = 0
        self._max_event_bytes = max_event_bytes

    def push(self, data: bytes) -> list[bytes]:
        """Take the next piece and return the groups that it completes, each with its blank line.

        Concatenated, all groups and the rest are exactly the input. Linear in the input overall.

        Raises:
            RemoteProtocolError: A group is too large.
        """
        self._buffer += data
        events: list[bytes] = []
        start = 0
        position = self._searched
        while (match := _BLANK_LINE.search(self._buffer, position)) is not None:
            events.append(bytes(self._buffer[start : match.end()]))
            self._check_size(len(events[-1]))
            start = position = match.end()
        del self._buffer[:start]
        # A separator may straddle this piece and the next one.
        self._searched = max(0, len(self._buffer) - _LONGEST_SEPARATOR)
        self._check_size(len(self._buffer))
        return events

    def _check_size(self, size: int) -> None:
        if size > self._max_event_bytes:
            raise RemoteProtocolError(f"a server-sent event exceeds {self._max_event_bytes} bytes")

    def finish(self) -> bytes:
        """Return what is left: empty when the stream ended after a blank line."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._searched = 0
        return rest


def is_comment(event: bytes) -> bool:
    """Tell whether an event group holds nothing but comments, and so nothing that a caller sees."""
    return all(not line or line.startswith(b":") for line in _LINE_END.split(event))


def comment_of(length: int) -> bytes:
    """Return a comment group of exactly ``length`` bytes: 0, or 3 and more.

    Raises:
        LocalProtocolError: No group has that length.
    """
    if length == 0:
        return b""
    if length < MIN_COMMENT_BYTES:
        raise LocalProtocolError(f"a comment group has 0 bytes or at least {MIN_COMMENT_BYTES}")
    return b":" + b" " * (length - MIN_COMMENT_BYTES) + b"\n\n"


def receipt_comment(receipt_json: bytes) -> bytes:
    """Return the comment group that delivers a receipt: unpadded base64url of its JSON."""
    return _RECEIPT_PREFIX + urlsafe_b64encode(receipt_json).rstrip(b"=") + b"\n\n"


def find_receipt(event: bytes) -> bytes | None:
    """Return the receipt's JSON when the group ``event`` is a receipt comment, else None.

    Raises:
        ReceiptError: It is one, but its base64url is malformed.
    """
    if not event.startswith(_RECEIPT_PREFIX):
        return None
    encoded = event[len(_RECEIPT_PREFIX) :].rstrip(b"\r\n")
    if _BASE64URL.fullmatch(encoded) is None:
        raise ReceiptError("the receipt comment is not base64url")
    try:
        return urlsafe_b64decode(encoded + b"=" * (-len(encoded) % 4))
    except binascii.Error as error:
        raise ReceiptError("the receipt comment is not base64url") from error
