# SPDX-License-Identifier: Apache-2.0
"""Sealing and opening the body of an encapsulated message, in chunks or whole.

A chunk (draft-ietf-ohai-chunked-ohttp sections 4 to 6) is a variable-length integer and that many sealed
bytes; the length 0 announces the final chunk, which runs to the end of the input and carries the associated
data ``final``. Lengths are not authenticated; order and finality are.

Used by :mod:`adyton_protocol.ohttp` for both directions; not a public interface.
"""

from typing import Final, Protocol

from adyton_protocol.errors import LocalProtocolError, OpenError, RemoteProtocolError, TruncatedMessage
from adyton_protocol.media import MAX_CHUNK_BYTES
from adyton_protocol.suite import AEAD_TAG_BYTES, FINAL_CHUNK_AAD
from adyton_protocol.varint import encode_varint, read_varint

MAX_SENT_CHUNK_BYTES: Final = 16384
"""Largest plaintext that we put into one chunk: every receiver must accept this much."""


class SealingKey(Protocol):
    """A sender context, or the response key of a gateway."""

    def seal(self, aad: bytes, plaintext: bytes, /) -> bytes:
        """Seal the next message."""
        ...


class OpeningKey(Protocol):
    """A recipient context, or the response key of a client."""

    def open(self, aad: bytes, sealed: bytes, /) -> bytes:
        """Open the next message."""
        ...


class BodySealer(Protocol):
    """What seals a body."""

    def push(self, plaintext: bytes, /) -> bytes:
        """Take the next piece and return what to send."""
        ...

    def finish(self) -> bytes:
        """Return the rest of what to send."""
        ...


class BodyOpener(Protocol):
    """What opens a body."""

    def push(self, data: bytes, /) -> bytes:
        """Take the next piece and return the plaintext that it authenticates."""
        ...

    def finish(self) -> bytes:
        """Check the end and return the rest of the plaintext."""
        ...


class ChunkSealer:
    """Seals a body in chunks, after a prefix in the clear."""

    __slots__ = ("_ended", "_key", "_prefix")

    def __init__(self, prefix: bytes, key: SealingKey) -> None:
        """Take what precedes the first chunk, and the key."""
        self._prefix = prefix
        self._key = key
        self._ended = False

    def push(self, plaintext: bytes) -> bytes:
        """Return the next non-final chunk, or several when ``plaintext`` exceeds 16384 bytes.

        Raises:
            LocalProtocolError: ``plaintext`` is empty, or the end is already sealed.
        """
        if self._ended:
            raise LocalProtocolError("this message is already sealed to its end")
        if not plaintext:
            raise LocalProtocolError("a chunk that is not the final one cannot be empty")
        prefix, self._prefix = self._prefix, b""
        if len(plaintext) <= MAX_SENT_CHUNK_BYTES:
            sealed = self._key.seal(b"", plaintext)
            return prefix + encode_varint(len(sealed)) + sealed
        parts = [prefix]
        for start in range(0, len(plaintext), MAX_SENT_CHUNK_BYTES):
            sealed = self._key.seal(b"", plaintext[start : start + MAX_SENT_CHUNK_BYTES])
            parts += (encode_varint(len(sealed)), sealed)
        return b"".join(parts)

    def finish(self) -> bytes:
        """Return the final chunk, which is empty, in one piece.

        Raises:
            LocalProtocolError: The end is already sealed.
        """
        if self._ended:
            raise LocalProtocolError("this message is already sealed to its end")
        self._ended = True
        prefix, self._prefix = self._prefix, b""
        return prefix + b"\x00" + self._key.seal(FINAL_CHUNK_AAD, b"")


class WholeSealer:
    """Buffers a body and seals it as one message, after a prefix in the clear."""

    __slots__ = ("_ended", "_key", "_parts", "_prefix")

    def __init__(self, prefix: bytes, key: SealingKey) -> None:
        """Take what precedes the sealed message, and the key."""
        self._prefix = prefix
        self._key = key
        self._parts: list[bytes] = []
        self._ended = False

    def push(self, plaintext: bytes) -> bytes:
        """Buffer ``plaintext`` and return ``b""``.

        Raises:
            LocalProtocolError: The message is already sealed.
        """
        if self._ended:
            raise LocalProtocolError("this message is already sealed to its end")
        self._parts.append(plaintext)
        return b""

    def finish(self) -> bytes:
        """Return prefix and sealed message.

        Raises:
            LocalProtocolError: The message is already sealed.
        """
        if self._ended:
            raise LocalProtocolError("this message is already sealed to its end")
        self._ended = True
        plaintext = b"".join(self._parts)
        self._parts.clear()
        return self._prefix + self._key.seal(b"", plaintext)


class ChunkOpener:
    """Opens an attacker-controlled body of chunks."""

    __slots__ = ("_buffer", "_closed", "_final", "_key")

    def __init__(self, key: OpeningKey) -> None:
        """Take the key."""
        self._key = key
        self._buffer = bytearray()
        self._final = False
        self._closed = False

    def push(self, data: bytes) -> bytes:
        """Return the plaintext of the non-final chunks that ``data`` completes.

        Raises:
            OpenError: A chunk is not authentic, not the next one, or empty.
            RemoteProtocolError: A chunk exceeds ``MAX_CHUNK_BYTES``.
            LocalProtocolError: The message is finished, or has already failed.
        """
        if self._closed:
            raise LocalProtocolError("this message is finished or has failed")
        # SECURITY: closed until this call succeeds. After a failure nothing more may be opened.
        self._closed = True
        self._buffer += data
        opened = self._open_chunks()
        if len(self._buffer) > MAX_CHUNK_BYTES + 8:
            # Only a final chunk has no announced length; 8 bytes are the longest length prefix.
            raise RemoteProtocolError(f"a chunk exceeds {MAX_CHUNK_BYTES} bytes")
        self._closed = False
        return opened

    def _open_chunks(self) -> bytes:
        parts: list[bytes] = []
        offset = 0
        while not self._final and (read := read_varint(self._buffer, offset)) is not None:
            length, start = read
            if length == 0:
                self._final = True
                offset = start
                break
            if length > MAX_CHUNK_BYTES:
                raise RemoteProtocolError(f"a chunk exceeds {MAX_CHUNK_BYTES} bytes")
            if length <= AEAD_TAG_BYTES:
                # SECURITY: an empty chunk that is not final counts as a decryption failure (section 6).
                raise OpenError
            end = start + length
            if end > len(self._buffer):
                break
            parts.append(self._key.open(b"", bytes(self._buffer[start:end])))
            offset = end
        if offset:
            del self._buffer[:offset]
        return b"".join(parts)

    def finish(self) -> bytes:
        """Open the final chunk and return its plaintext, which a foreign peer may have filled.

        Raises:
            TruncatedMessage: The input ended before a final chunk could be complete.
            OpenError: The final chunk is not authentic, not the next one, or followed by anything.
            LocalProtocolError: The message is finished, or has already failed.
        """
        if self._closed:
            raise LocalProtocolError("this message is finished or has failed")
        self._closed = True
        if not self._final or len(self._buffer) < AEAD_TAG_BYTES:
            raise TruncatedMessage("the sealed message ends before its final chunk")
        sealed = bytes(self._buffer)
        self._buffer.clear()
        return self._key.open(FINAL_CHUNK_AAD, sealed)


class WholeOpener:
    """Buffers an attacker-controlled body and opens it as one message."""

    __slots__ = ("_buffer", "_closed", "_key", "_max_bytes")

    def __init__(self, key: OpeningKey, max_bytes: int) -> None:
        """Take the key, and the most sealed bytes to buffer."""
        self._key = key
        self._buffer = bytearray()
        self._max_bytes = max_bytes
        self._closed = False

    def push(self, data: bytes) -> bytes:
        """Buffer ``data`` and return ``b""``: nothing is authenticated yet.

        Raises:
            RemoteProtocolError: The message exceeds its limit.
            LocalProtocolError: The message is finished, or has already failed.
        """
        if self._closed:
            raise LocalProtocolError("this message is finished or has failed")
        if len(self._buffer) + len(data) > self._max_bytes:
            self._closed = True
            raise RemoteProtocolError(f"the sealed message exceeds {self._max_bytes} bytes")
        self._buffer += data
        return b""

    def finish(self) -> bytes:
        """Open the message and return its plaintext.

        Raises:
            TruncatedMessage: There is less than an authentication tag.
            OpenError: The message is not authentic.
            LocalProtocolError: The message is finished, or has already failed.
        """
        if self._closed:
            raise LocalProtocolError("this message is finished or has failed")
        self._closed = True
        if len(self._buffer) < AEAD_TAG_BYTES:
            raise TruncatedMessage("the sealed message ends early")
        sealed = bytes(self._buffer)
        self._buffer.clear()
        return self._key.open(b"", sealed)
