# SPDX-License-Identifier: Apache-2.0
"""Rules for HTTP fields and control data in Binary HTTP, one set for writing and reading.

RFC 9292 section 3.6 takes its rules from HTTP/2 (RFC 9113 section 8.2). Each check raises the error class
it is given: ``LocalProtocolError`` when we write, ``RemoteProtocolError`` when we read.
"""

import re
from collections.abc import Iterable
from typing import Final

from adyton_protocol.errors import LocalProtocolError, RemoteProtocolError

Field = tuple[bytes, bytes]
"""Name (lower case) and value."""
ErrorClass = type[LocalProtocolError] | type[RemoteProtocolError]

MAX_FIELDS: Final = 256
"""Most field lines in one section."""
MAX_SECTION_BYTES: Final = 64 * 1024
"""Largest field section, counting names and values."""
MAX_CONTROL_BYTES: Final = 16 * 1024
"""Largest method, scheme, authority or path."""

CONNECTION_FIELDS: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade"}
)
"""Fields that describe one hop of an HTTP connection (RFC 9110 section 7.6.1)."""
_SINGLE_FIELDS: Final = frozenset({b"content-length", b"host"})
_FORBIDDEN_IN_TRAILERS: Final = frozenset({b"content-length", b"host", b"content-type", b"content-encoding"})

_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_METHOD: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_AUTHORITY: Final = re.compile(r"[!$%&'()*+,.:;=\[\]_~0-9A-Za-z-]*")  # No userinfo: RFC 9113 8.3.1.
_PATH: Final = re.compile(r"\*|/[\x21\x22\x24-\x7e]*")  # No blank, control, fragment or non-ASCII.
_FORBIDDEN_VALUE_BYTES: Final = re.compile(rb"[\x00\r\n]")
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")


def check_fields(fields: Iterable[Field], error: ErrorClass, *, trailers: bool = False) -> tuple[Field, ...]:
    """Check one field section and return it with lower-case names, without what describes a connection.

    Mixed-case names are accepted, although HTTP/2 forbids them, because real peers send them. Pseudo-header
    fields are refused: Binary HTTP carries their content as control data, and we define no extension.
    Connection fields do not make a message invalid, but should not be in one (RFC 9292 section 3.6): they
    are dropped in both directions, with those that ``connection`` names, so that nothing acts on them.

    Raises:
        LocalProtocolError, RemoteProtocolError: As ``error`` says, when a rule is broken.
    """
    given = tuple(fields)
    if len(given) > MAX_FIELDS:
        raise error(f"more than {MAX_FIELDS} fields in a section")
    checked = tuple(check_field(name, value, error) for name, value in given)
    if sum(len(name) + len(value) for name, value in checked) > MAX_SECTION_BYTES:
        raise error(f"a field section exceeds {MAX_SECTION_BYTES} bytes")
    checked = _end_to_end(checked)
    names = [name for name, _ in checked]
    if any(names.count(name) > 1 for name in _SINGLE_FIELDS):
        raise error("content-length and host may occur once")
    if trailers and not _FORBIDDEN_IN_TRAILERS.isdisjoint(names):
        raise error("a trailer section holds a field that only headers may have")
    return checked


def check_field(name: bytes, value: bytes, error: ErrorClass) -> Field:
    """Check one field line and return it with a lower-case name.

    Raises:
        LocalProtocolError, RemoteProtocolError: As ``error`` says, when a rule is broken.
    """
    lower = name.lower()
    if _TOKEN.fullmatch(lower) is None:
        # Also catches pseudo-header fields, whose names begin with a colon.
        raise error("a field name is not a token")
    # SECURITY: line ends in a value would become further fields in whatever reads them as HTTP/1.1.
    if _FORBIDDEN_VALUE_BYTES.search(value) is not None or value != value.strip(b" \t"):
        raise error("a field value holds forbidden bytes or outer blanks")
    return lower, value


def _end_to_end(fields: tuple[Field, ...]) -> tuple[Field, ...]:
    dropped = set(CONNECTION_FIELDS)
    for name, value in fields:
        if name == b"connection":
            dropped |= {option.strip(b" \t").lower() for option in value.split(b",")}
    return tuple(field for field in fields if field[0] not in dropped)


def check_content_length(headers: Iterable[Field], actual: int, error: ErrorClass, *, request: bool) -> None:
    """Check that a ``content-length`` agrees with ``actual`` bytes of content.

    A response may announce a length and have no content at all, as an answer to HEAD does.

    Raises:
        LocalProtocolError, RemoteProtocolError: As ``error`` says, when they disagree.
    """
    for name, value in headers:
        if name != b"content-length":
            continue
        if _DIGITS.fullmatch(value) is None:
            raise error("content-length is not a number")
        if int(value) != actual and (request or actual):
            # SECURITY: two different ideas of where content ends are how requests are smuggled.
            raise error("content-length contradicts the content")


def check_control(
    method: str, scheme: str, authority: str, path: str, headers: Iterable[Field], error: ErrorClass
) -> None:
    """Check a request's control data, and what it must agree on with the ``headers``.

    ``CONNECT`` is refused: it has no meaning in a stored message (RFC 9292 section 6). So is an expectation
    of 100-continue, which RFC 9458 section 5.1 forbids and which could never be met.

    Raises:
        LocalProtocolError, RemoteProtocolError: As ``error`` says, when a rule is broken.
    """
    if _METHOD.fullmatch(method) is None or method == "CONNECT":
        raise error("the method is not usable")
    if _SCHEME.fullmatch(scheme) is None:
        raise error("the scheme is malformed")
    if _AUTHORITY.fullmatch(authority) is None:
        raise error("the authority is malformed")
    if _PATH.fullmatch(path) is None or (path == "*" and method != "OPTIONS"):
        raise error("the path is malformed")
    for name, value in headers:
        if name == b"host" and authority and value.lower() != authority.lower().encode("ascii"):
            # SECURITY: RFC 9113 section 8.3.1. Two names for one target invite confusion.
            raise error("host contradicts the authority")
        if name == b"expect" and b"100-continue" in value.lower():
            raise error("100-continue cannot be used in a sealed request")
