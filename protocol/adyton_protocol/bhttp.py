# SPDX-License-Identifier: Apache-2.0
"""Binary HTTP messages (RFC 9292): what a sealed request or response contains.

Writers: known length for whole messages, indeterminate length for streamed responses. Readers: both, for
requests and responses. Everything read is attacker-controlled; nothing is executed before it is complete.

Choices where the RFC leaves room:

* Truncation (section 3.8) is honoured: a message may end where a field section or the content would begin,
  also before the header section, as RFC 9458's own example does. The end must come from outside, from an
  authenticated final chunk; :meth:`ResponseParser.finish` is therefore the only source of :class:`End`.
* Padding must be zero; a reader may skip this check, ours does not.
* Names are lower-cased instead of refused, and fields about a connection are dropped, in both directions.
  All else about fields stands in :mod:`adyton_protocol.fields`.
* Informational responses are checked and dropped; 101 is refused, since nothing can be upgraded.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

from adyton_protocol.bhttp_reader import Content, End, Event, MessageReader, RequestHead, ResponseHead
from adyton_protocol.errors import LocalProtocolError
from adyton_protocol.fields import Field, check_content_length, check_control, check_fields
from adyton_protocol.varint import MAX_VARINT, encode_varint

__all__ = [
    "Content",
    "End",
    "Event",
    "Field",
    "Request",
    "RequestHead",
    "Response",
    "ResponseHead",
    "ResponseParser",
    "ResponseWriter",
    "encode_request",
    "encode_response",
    "parse_request",
    "parse_response",
]

_KNOWN_REQUEST: Final = b"\x00"
_KNOWN_RESPONSE: Final = b"\x01"
_INDETERMINATE_RESPONSE: Final = b"\x03"
_TERMINATOR: Final = b"\x00"

EventT = TypeVar("EventT", RequestHead, ResponseHead, Content, End)

PadTo = int | Callable[[int], int]
"""A length in bytes to pad to, or a function from the bare length to it, like ``padding.bucket``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A whole request.

    Attributes:
        method: Such as ``POST``; never ``CONNECT``.
        scheme: ``https``.
        authority: Host and optional port; empty when a ``host`` header says it.
        path: Path and query, as sent; begins with a slash.
        headers: Lower-case names and values, in order.
        content: The body.
        trailers: As ``headers``.
    """

    method: str
    scheme: str
    authority: str
    path: str
    headers: tuple[Field, ...] = ()
    content: bytes = b""
    trailers: tuple[Field, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A whole response.

    Attributes:
        status: Final status, 200 to 599.
        headers: Lower-case names and values, in order.
        content: The body.
        trailers: As ``headers``.
    """

    status: int
    headers: tuple[Field, ...] = ()
    content: bytes = b""
    trailers: tuple[Field, ...] = ()


# --- Writing ----------------------------------------------------------------------------------------


def encode_request(request: Request, *, pad_to: PadTo = 0) -> bytes:
    """Return the known-length encoding of ``request``, padded with zero bytes to at least ``pad_to``.

    Raises:
        LocalProtocolError: Binary HTTP cannot carry this request.
    """
    headers = check_fields(request.headers, LocalProtocolError)
    check_control(
        request.method, request.scheme, request.authority, request.path, headers, LocalProtocolError
    )
    check_content_length(headers, len(request.content), LocalProtocolError, request=True)
    control = (request.method, request.scheme, request.authority, request.path)
    encoded = b"".join(
        [
            _KNOWN_REQUEST,
            *(_string(part.encode("ascii")) for part in control),
            *_known_rest(headers, request.content, request.trailers),
        ]
    )
    return _padded(encoded, pad_to)


def encode_response(response: Response, *, pad_to: PadTo = 0) -> bytes:
    """Return the known-length encoding of ``response``, padded with zero bytes to at least ``pad_to``.

    Raises:
        LocalProtocolError: Binary HTTP cannot carry this response.
    """
    _check_status(response.status)
    headers = check_fields(response.headers, LocalProtocolError)
    check_content_length(headers, len(response.content), LocalProtocolError, request=False)
    encoded = b"".join(
        [
            _KNOWN_RESPONSE,
            encode_varint(response.status),
            *_known_rest(headers, response.content, response.trailers),
        ]
    )
    return _padded(encoded, pad_to)


class ResponseWriter:
    """Writes one response of indeterminate length: :meth:`head`, any :meth:`content`, :meth:`finish`."""

    def __init__(self) -> None:
        self._began = False
        self._ended = False

    def head(self, status: int, headers: Iterable[Field] = ()) -> bytes:
        """Return the encoding of the final status and the headers.

        Raises:
            LocalProtocolError: Called twice, or Binary HTTP cannot carry these headers.
        """
        if self._began:
            raise LocalProtocolError("the head of this response is already written")
        _check_status(status)
        lines = _field_lines(check_fields(headers, LocalProtocolError))
        self._began = True
        return _INDETERMINATE_RESPONSE + encode_varint(status) + lines + _TERMINATOR

    def content(self, data: bytes) -> bytes:
        """Return the encoding of the next piece of content; empty for empty ``data``.

        Raises:
            LocalProtocolError: Before the head or after the end.
        """
        self._check_open()
        # SECURITY: a chunk of length zero would end the content.
        return encode_varint(len(data)) + data if data else b""

    def finish(self, trailers: Iterable[Field] = ()) -> bytes:
        """Return the end of the content and the trailers.

        Raises:
            LocalProtocolError: Before the head, called twice, or Binary HTTP cannot carry these trailers.
        """
        self._check_open()
        lines = _field_lines(check_fields(trailers, LocalProtocolError, trailers=True))
        self._ended = True
        return _TERMINATOR + lines + _TERMINATOR

    def _check_open(self) -> None:
        if not self._began or self._ended:
            raise LocalProtocolError("this response has not begun or has ended")


def _check_status(status: int) -> None:
    if not 200 <= status <= 599:  # noqa: PLR2004 - the range of final status codes
        raise LocalProtocolError("a final status is 200 to 599")


def _string(data: bytes) -> bytes:
    return encode_varint(len(data)) + data


def _field_lines(fields: tuple[Field, ...]) -> bytes:
    return b"".join(_string(name) + _string(value) for name, value in fields)


def _known_rest(headers: tuple[Field, ...], content: bytes, trailers: tuple[Field, ...]) -> list[bytes]:
    checked = check_fields(trailers, LocalProtocolError, trailers=True)
    return [
        _string(_field_lines(headers)),
        encode_varint(len(content)),
        content,
        _string(_field_lines(checked)),
    ]


def _padded(encoded: bytes, pad_to: PadTo) -> bytes:
    length = pad_to if isinstance(pad_to, int) else pad_to(len(encoded))
    return encoded.ljust(length, b"\x00")


# --- Reading ----------------------------------------------------------------------------------------


class ResponseParser:
    """Reads one attacker-controlled response, of either framing, piece by piece.

    Events, in order: one :class:`ResponseHead`, any number of :class:`Content`, and :class:`End` from
    :meth:`finish`. SECURITY: call :meth:`finish` only after the sealed layer has seen its authenticated end.
    """

    def __init__(self, *, max_content_bytes: int = MAX_VARINT) -> None:
        """Take the most content to accept, in bytes; streams are unlimited by default."""
        self._reader = MessageReader(request=False, max_content_bytes=max_content_bytes)

    def push(self, data: bytes) -> list[Event]:
        """Take the next piece and return what it completes.

        Raises:
            RemoteProtocolError: The response is malformed.
            LocalProtocolError: The response is finished, or has already failed.
        """
        return self._reader.push(data)

    def finish(self) -> list[Event]:
        """Declare the input complete and return the remaining events; the last is :class:`End`.

        Raises:
            TruncatedMessage: The input ended where a response may not end.
            RemoteProtocolError: Its ``content-length`` contradicts its content.
            LocalProtocolError: The response is finished, or has already failed.
        """
        return self._reader.finish()


def parse_request(data: bytes) -> Request:
    """Parse one whole, attacker-controlled request of either framing.

    Raises:
        TruncatedMessage: It ends where a message may not end.
        RemoteProtocolError: It is malformed.
    """
    event, content, trailers = _read_all(data, request=True)
    head = expect(RequestHead, event)
    return Request(
        method=head.method,
        scheme=head.scheme,
        authority=head.authority,
        path=head.path,
        headers=head.headers,
        content=content,
        trailers=trailers,
    )


def parse_response(data: bytes) -> Response:
    """Parse one whole, attacker-controlled response of either framing.

    Raises:
        TruncatedMessage: It ends where a message may not end.
        RemoteProtocolError: It is malformed.
    """
    event, content, trailers = _read_all(data, request=False)
    head = expect(ResponseHead, event)
    return Response(status=head.status, headers=head.headers, content=content, trailers=trailers)


def _read_all(data: bytes, *, request: bool) -> tuple[Event, bytes, tuple[Field, ...]]:
    """Return the head, all content and the trailers."""
    reader = MessageReader(request=request)
    head, *contents, end = [*reader.push(data), *reader.finish()]
    content = b"".join(expect(Content, event).data for event in contents)
    return head, content, expect(End, end).trailers


def expect(kind: type[EventT], event: Event) -> EventT:
    """Return ``event``, which the order of events says is of this ``kind``.

    Raises:
        LocalProtocolError: It is not; a reader broke its contract.
    """
    if not isinstance(event, kind):
        raise LocalProtocolError(f"expected {kind.__name__}, found {type(event).__name__}")
    return event
