# SPDX-License-Identifier: Apache-2.0
"""A cursor over attacker-controlled bytes that never reads past their end."""

from adyton_protocol.errors import MalformedEvidence


class BytesReader:
    """Reads fields one after another; every miss is a :class:`MalformedEvidence`."""

    def __init__(self, data: bytes, what: str) -> None:
        """Start at the beginning of ``data``; ``what`` names it in messages."""
        self._data = data
        self._what = what
        self._offset = 0

    @property
    def offset(self) -> int:
        """Number of bytes read so far."""
        return self._offset

    @property
    def remaining(self) -> int:
        """Number of bytes not read yet."""
        return len(self._data) - self._offset

    def take(self, count: int) -> bytes:
        """Return the next ``count`` bytes.

        Raises:
            MalformedEvidence: Fewer are left.
        """
        if count > self.remaining:
            raise MalformedEvidence(f"{self._what}: ends after {len(self._data)} bytes, within a field")
        start = self._offset
        self._offset += count
        return self._data[start : self._offset]

    def u16(self) -> int:
        """Return the next two bytes as a little-endian integer."""
        return int.from_bytes(self.take(2), "little")

    def u32(self) -> int:
        """Return the next four bytes as a little-endian integer."""
        return int.from_bytes(self.take(4), "little")

    def finish(self) -> None:
        """Demand that everything was read.

        Raises:
            MalformedEvidence: Bytes are left over.
        """
        if self.remaining:
            raise MalformedEvidence(f"{self._what}: {self.remaining} bytes after the last field")
