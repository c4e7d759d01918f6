# SPDX-License-Identifier: Apache-2.0
"""Variable-length integers of QUIC (RFC 9000 section 16), as Binary HTTP and chunked OHTTP use them.

The two top bits of the first byte give the length: 1, 2, 4 or 8 bytes. Readers accept encodings that are
longer than necessary, as both formats allow; writers produce the shortest.
"""

from typing import Final

from adyton_protocol.errors import LocalProtocolError

MAX_VARINT: Final = (1 << 62) - 1

_ONE_BYTE: Final = 1 << 6
_TWO_BYTES: Final = 1 << 14
_FOUR_BYTES: Final = 1 << 30


def encode_varint(value: int) -> bytes:
    """Return the shortest encoding of ``value``.

    Raises:
        LocalProtocolError: ``value`` is negative or exceeds 2**62 - 1.
    """
    if 0 <= value < _ONE_BYTE:
        return value.to_bytes(1, "big")
    if value < 0 or value > MAX_VARINT:
        raise LocalProtocolError("a variable-length integer holds 0 to 2**62 - 1")
    if value < _TWO_BYTES:
        return (value | 0x4000).to_bytes(2, "big")
    if value < _FOUR_BYTES:
        return (value | 0x8000_0000).to_bytes(4, "big")
    return (value | 0xC000_0000_0000_0000).to_bytes(8, "big")


def read_varint(data: bytes | bytearray | memoryview, offset: int) -> tuple[int, int] | None:
    """Read one integer of attacker-controlled ``data`` at ``offset``.

    Returns:
        The value and the offset after it, or None when ``data`` ends inside the integer.
    """
    if offset >= len(data):
        return None
    first = data[offset]
    if first < _ONE_BYTE:
        return first, offset + 1
    end = offset + (1 << (first >> 6))
    if end > len(data):
        return None
    value = int.from_bytes(data[offset:end], "big")
    return value & ((1 << (8 * (end - offset) - 2)) - 1), end
