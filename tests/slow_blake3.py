# SPDX-License-Identifier: Apache-2.0
"""BLAKE3, slowly, as its paper describes it (sections 2.1 to 2.7): an oracle for the library."""

import struct
from typing import Final

_IV: Final = (
    0x6A09E667,
    0xBB67AE85,
    0x3C6EF372,
    0xA54FF53A,
    0x510E527F,
    0x9B05688C,
    0x1F83D9AB,
    0x5BE0CD19,
)
_ORDER: Final = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
_START, _END, _PARENT, _ROOT = 1, 2, 4, 8
_CONTEXT, _MATERIAL = 32, 64
_QUARTERS: Final = (
    (0, 4, 8, 12),
    (1, 5, 9, 13),
    (2, 6, 10, 14),
    (3, 7, 11, 15),
    (0, 5, 10, 15),
    (1, 6, 11, 12),
    (2, 7, 8, 13),
    (3, 4, 9, 14),
)

Words = tuple[int, ...]


def _turn(word: int, by: int) -> int:
    return (word >> by | word << (32 - by)) & 0xFFFFFFFF


def _compress(chain: Words, block: Words, counter: int, length: int, flags: int) -> Words:
    """The first 8 words of the compression function's output."""
    v = [*chain, *_IV[:4], counter & 0xFFFFFFFF, counter >> 32, length, flags]
    words = list(block)
    for _ in range(7):
        for number, (a, b, c, d) in enumerate(_QUARTERS):
            for word, turns in ((words[2 * number], (16, 12)), (words[2 * number + 1], (8, 7))):
                v[a] = (v[a] + v[b] + word) & 0xFFFFFFFF
                v[d] = _turn(v[d] ^ v[a], turns[0])
                v[c] = (v[c] + v[d]) & 0xFFFFFFFF
                v[b] = _turn(v[b] ^ v[c], turns[1])
        words = [words[at] for at in _ORDER]
    return tuple(v[at] ^ v[at + 8] for at in range(8))


def _words(block: bytes) -> Words:
    return struct.unpack("<16I", block.ljust(64, b"\0"))


def _node(key: Words, data: bytes, first: int, flags: int) -> Words:
    """Chaining value over `data`, whose first chunk of 1,024 bytes has the number `first`."""
    if len(data) <= 1024:
        chain = key
        blocks = [data[at : at + 64] for at in range(0, len(data), 64)] or [b""]
        for number, block in enumerate(blocks):
            begins = _START * (number == 0)
            ends = (_END | flags & _ROOT) * (number == len(blocks) - 1)
            mark = flags & ~_ROOT | begins | ends
            chain = _compress(chain, _words(block), first, len(block), mark)
        return chain
    left = 1024
    while 2 * left < len(data):
        left *= 2
    below = flags & ~_ROOT
    pair = _node(key, data[:left], first, below) + _node(key, data[left:], first + left // 1024, below)
    return _compress(key, pair, 0, 64, flags | _PARENT)


def derived(context: str, material: bytes) -> bytes:
    """``derive_key``: 32 bytes."""
    key = _node(_IV, context.encode(), 0, _CONTEXT | _ROOT)
    return struct.pack("<8I", *_node(key, material, 0, _MATERIAL | _ROOT))
