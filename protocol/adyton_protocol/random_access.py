# SPDX-License-Identifier: Apache-2.0
"""Bytes that are read by offset: what a model file is to those who parse, hash and load it.

Where the bytes come from (a file, a sealed file, memory) is the business of the implementation; this package does
no I/O.
"""

from typing import Protocol

from adyton_protocol.errors import ModelFileError


class RandomAccess(Protocol):
    """A source of attacker-controlled bytes. ``read_into`` may be called from several threads at once."""

    @property
    def size_bytes(self) -> int:
        """How many bytes there are; it does not change."""
        ...

    def read_into(self, offset: int, target: memoryview) -> None:
        """Fill ``target`` (writable, one byte per item) with the bytes from ``offset`` on.

        Raises:
            ModelFileError: There are not that many (check ``truncated``), or they are not what they should be.
        """
        ...


class BytesAccess:
    """Bytes in memory as a source."""

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        """Read from ``data``, which is not copied."""
        self._data = memoryview(data).cast("B")

    @property
    def size_bytes(self) -> int:
        """How many bytes there are."""
        return len(self._data)

    def read_into(self, offset: int, target: memoryview) -> None:
        """Fill ``target``; see :class:`RandomAccess`."""
        if not 0 <= offset <= len(self._data) - len(target):
            raise ModelFileError("the model file ends before its contents do", check="truncated")
        target[:] = self._data[offset : offset + len(target)]


def read_bytes(source: RandomAccess, offset: int, count: int) -> bytes:
    """Some bytes of a source. The caller has bounded ``count``.

    Raises:
        ModelFileError: As ``read_into`` does.
    """
    data = bytearray(count)
    source.read_into(offset, memoryview(data))
    return bytes(data)
