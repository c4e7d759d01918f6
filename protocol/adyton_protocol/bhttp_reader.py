# SPDX-License-Identifier: Apache-2.0
"""The incremental reader under :mod:`adyton_protocol.bhttp`: one state machine for all four framings.

Rules of this file:

* Each state is a method that consumes one element and returns True, or consumes nothing and returns False
  because the element is not there yet. So the cost is linear, however small the pieces.
* An element's announced length is checked against a limit before anything waits for its bytes.
* The reader judges syntax. Completeness is judged once, by :meth:`MessageReader.finish`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from adyton_protocol.errors import LocalProtocolError, RemoteProtocolError, TruncatedMessage
from adyton_protocol.fields import (
    MAX_CONTROL_BYTES,
    MAX_SECTION_BYTES,
    Field,
    check_content_length,
    check_control,
    check_fields,
)
from adyton_protocol.varint import MAX_VARINT, read_varint

MAX_INFORMATIONAL: Final = 16
"""Most informational responses before the final one."""

_FIRST_INDETERMINATE: Final = 2
_LAST_FRAMING: Final = 3
_CONTROL_PARTS: Final = 4
_SWITCHING_PROTOCOLS: Final = 101


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHead:
    """Control data and headers of a request."""

    method: str
    scheme: str
    authority: str
    path: str
    headers: tuple[Field, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseHead:
    """Final status (200 to 599) and headers of a response."""

    status: int
    headers: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class Content:
    """The next piece of content; never empty. Boundaries mean nothing."""

    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The message is complete."""

    trailers: tuple[Field, ...] = ()


Event = RequestHead | ResponseHead | Content | End


class MessageReader:
    """Reads one message of attacker-controlled bytes, request or response, piece by piece."""

    def __init__(self, *, request: bool, max_content_bytes: int = MAX_VARINT) -> None:
        """Choose the kind of message, and the most content to accept, in bytes."""
        self._request = request
        self._max_content_bytes = max_content_bytes
        self._buffer = bytearray()
        self._position = 0
        self._events: list[Event] = []
        self._step: Callable[[], bool] = self._read_framing
        self._after_section: Callable[[], None] = self._end_headers
        self._indeterminate = False
        self._control: list[str] = []
        self._status = 0
        self._informational = 0
        self._has_head = False
        self._headers: tuple[Field, ...] = ()
        self._fields: list[Field] = []
        self._section_bytes = 0
        self._name = b""
        self._content_left = 0
        self._content_bytes = 0
        self._trailers: tuple[Field, ...] = ()
        self._may_end = False
        self._closed = False

    def push(self, data: bytes) -> list[Event]:
        """Take the next piece and return what it completes, without :class:`End`.

        Raises:
            RemoteProtocolError: The message is malformed.
            LocalProtocolError: The message is finished, or has already failed.
        """
        if self._closed:
            raise LocalProtocolError("this message is finished or has failed")
        self._buffer += data
        # A failure leaves the reader closed: what follows malformed bytes is not a message.
        self._closed = True
        while self._step():
            pass
        self._closed = False
        del self._buffer[: self._position]
        self._position = 0
        events, self._events = self._events, []
        return events

    def finish(self) -> list[Event]:
        """Declare the input complete and return the remaining events; the last is :class:`End`.

        Raises:
            TruncatedMessage: The input ended where a message may not end.
            RemoteProtocolError: The complete message contradicts itself.
            LocalProtocolError: The message is finished, or has already failed.
        """
        if self._closed:
            raise LocalProtocolError("this message is finished or has failed")
        self._closed = True
        if not self._may_end or self._buffer:
            raise TruncatedMessage("the binary HTTP message ends early")
        if not self._has_head:
            self._end_headers()
        check_content_length(self._headers, self._content_bytes, RemoteProtocolError, request=self._request)
        return [*self._events, End(trailers=self._trailers)]

    # --- Elements -----------------------------------------------------------------------------------

    def _varint(self) -> int | None:
        read = read_varint(self._buffer, self._position)
        if read is None:
            return None
        value, self._position = read
        return value

    def _take(self, length: int) -> bytes | None:
        end = self._position + length
        if end > len(self._buffer):
            return None
        data = bytes(self._buffer[self._position : end])
        self._position = end
        return data

    def _string(self, limit: int) -> bytes | None:
        """Read a length and that many bytes, or nothing at all."""
        start = self._position
        length = self._varint()
        if length is None:
            return None
        if length > limit:
            raise RemoteProtocolError(f"an element exceeds {limit} bytes")
        data = self._take(length)
        if data is None:
            self._position = start
        return data

    # --- States, in the order of the message --------------------------------------------------------

    def _read_framing(self) -> bool:
        framing = self._varint()
        if framing is None:
            return False
        if framing > _LAST_FRAMING or framing % 2 == int(self._request):
            raise RemoteProtocolError("the framing indicator is not that of the expected message")
        self._indeterminate = framing >= _FIRST_INDETERMINATE
        self._step = self._read_control if self._request else self._read_status
        return True

    def _read_control(self) -> bool:
        part = self._string(MAX_CONTROL_BYTES)
        if part is None:
            return False
        try:
            self._control.append(part.decode("ascii"))
        except UnicodeDecodeError as error:
            raise RemoteProtocolError("control data is not ASCII") from error
        if len(self._control) == _CONTROL_PARTS:
            self._begin_section(self._end_headers)
        return True

    def _read_status(self) -> bool:
        status = self._varint()
        if status is None:
            return False
        if not 100 <= status <= 599 or status == _SWITCHING_PROTOCOLS:  # noqa: PLR2004 - HTTP's status range
            raise RemoteProtocolError("the status code is out of range")
        self._status = status
        self._begin_section(self._end_headers)
        # A final status may stand alone; an informational one may not, another status must follow.
        self._may_end = status >= 200  # noqa: PLR2004 - first final status
        return True

    def _begin_section(self, after: Callable[[], None]) -> None:
        self._fields = []
        self._section_bytes = 0
        self._after_section = after
        self._step = self._read_field if self._indeterminate else self._read_section
        self._may_end = True

    def _read_section(self) -> bool:
        """A known-length field section, read when all of it is there."""
        section = self._string(MAX_SECTION_BYTES)
        if section is None:
            return False
        offset = 0
        while offset < len(section):
            name, offset = _string_inside(section, offset)
            value, offset = _string_inside(section, offset)
            self._add_field(name, value)
        self._after_section()
        return True

    def _read_field(self) -> bool:
        """The name of a line in an indeterminate-length field section, or the section's end."""
        name = self._string(MAX_SECTION_BYTES)
        if name is None:
            return False
        if name:
            self._may_end = False
            self._name = name
            self._step = self._read_value
        else:
            self._after_section()
        return True

    def _read_value(self) -> bool:
        value = self._string(MAX_SECTION_BYTES)
        if value is None:
            return False
        self._add_field(self._name, value)
        self._step = self._read_field
        return True

    def _add_field(self, name: bytes, value: bytes) -> None:
        self._section_bytes += len(name) + len(value)
        if self._section_bytes > MAX_SECTION_BYTES:
            raise RemoteProtocolError(f"a field section exceeds {MAX_SECTION_BYTES} bytes")
        self._fields.append((name, value))

    def _end_headers(self) -> None:
        headers = check_fields(self._fields, RemoteProtocolError)
        if self._request:
            method, scheme, authority, path = self._control
            check_control(method, scheme, authority, path, headers, RemoteProtocolError)
            head = RequestHead(method=method, scheme=scheme, authority=authority, path=path, headers=headers)
            self._events.append(head)
        elif self._status < 200:  # noqa: PLR2004 - informational
            self._informational += 1
            if self._informational > MAX_INFORMATIONAL:
                raise RemoteProtocolError("too many informational responses")
            self._step = self._read_status
            return
        else:
            self._events.append(ResponseHead(status=self._status, headers=headers))
        self._headers = headers
        self._has_head = True
        self._step = self._read_content_length
        self._may_end = True

    def _read_content_length(self) -> bool:
        """The length of the content, or of its next chunk."""
        length = self._varint()
        if length is None:
            return False
        if length > self._max_content_bytes - self._content_bytes:
            raise RemoteProtocolError(f"the content exceeds {self._max_content_bytes} bytes")
        self._content_left = length
        if length == 0:
            self._begin_section(self._end_trailers)
        else:
            self._step = self._read_content
            self._may_end = False
        return True

    def _read_content(self) -> bool:
        data = self._take(min(self._content_left, len(self._buffer) - self._position))
        if not data:
            return False
        self._events.append(Content(data))
        self._content_bytes += len(data)
        self._content_left -= len(data)
        if self._content_left == 0:
            if self._indeterminate:
                self._step = self._read_content_length
            else:
                self._begin_section(self._end_trailers)
        return True

    def _end_trailers(self) -> None:
        self._trailers = check_fields(self._fields, RemoteProtocolError, trailers=True)
        self._step = self._read_padding
        self._may_end = True

    def _read_padding(self) -> bool:
        if self._buffer.count(0, self._position) != len(self._buffer) - self._position:
            raise RemoteProtocolError("the padding is not zero")
        self._position = len(self._buffer)
        return False


def _string_inside(section: bytes, offset: int) -> tuple[bytes, int]:
    """Read a length and that many bytes, which must lie within ``section``."""
    read = read_varint(section, offset)
    if read is None:
        raise RemoteProtocolError("a field line crosses the end of its section")
    length, start = read
    if length > len(section) - start:
        raise RemoteProtocolError("a field line crosses the end of its section")
    return section[start : start + length], start + length
