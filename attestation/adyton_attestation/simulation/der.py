# SPDX-License-Identifier: Apache-2.0
"""Just enough DER (X.690) to write the SGX extension of a PCK certificate; nothing here reads anything."""

from typing import Final

_SEQUENCE: Final = 0x30
_OCTET_STRING: Final = 0x04
_INTEGER: Final = 0x02
_ENUMERATED: Final = 0x0A
_BOOLEAN: Final = 0x01
_OBJECT_IDENTIFIER: Final = 0x06
_SHORT_LENGTH: Final = 0x80


def _tagged(tag: int, content: bytes) -> bytes:
    if len(content) < _SHORT_LENGTH:
        return bytes((tag, len(content))) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes((tag, _SHORT_LENGTH | len(length))) + length + content


def sequence(*items: bytes) -> bytes:
    """Encode a SEQUENCE of already encoded items."""
    return _tagged(_SEQUENCE, b"".join(items))


def octets(content: bytes) -> bytes:
    """Encode an OCTET STRING."""
    return _tagged(_OCTET_STRING, content)


def integer(value: int) -> bytes:
    """Encode a non-negative INTEGER."""
    return _tagged(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def enumerated(value: int) -> bytes:
    """Encode a small ENUMERATED value."""
    return _tagged(_ENUMERATED, bytes((value,)))


def boolean(*, value: bool) -> bytes:
    """Encode a BOOLEAN."""
    return _tagged(_BOOLEAN, b"\xff" if value else b"\x00")


def oid(dotted: str) -> bytes:
    """Encode an OBJECT IDENTIFIER given in dotted form."""
    first, second, *rest = (int(arc) for arc in dotted.split("."))
    content = bytearray()
    for arc in (40 * first + second, *rest):
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(arc & 0x7F | 0x80)
        content += bytes(reversed(groups))
    return _tagged(_OBJECT_IDENTIFIER, bytes(content))
