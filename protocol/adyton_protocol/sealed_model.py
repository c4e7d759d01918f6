# SPDX-License-Identifier: Apache-2.0
"""A model file at rest under a key: chunks that open in any order, and a header that says what they are.

::

    file   = header || tag || chunk*
    header = "ADYTONSM" version:u16 algorithm:u16 chunk_bytes:u32 plain_bytes:u64 model_version:u64
             key_id:32 content:32 file_id:32 n_members:u16 member_bytes:u64*        all integers big-endian
    tag    = HMAC-SHA256(header key, header)
    chunk  = AEAD(chunk key, nonce, SHA-256(header || tag), plain)                    16 bytes longer than plain

    key id = HKDF-Expand(HKDF-Extract("adyton sealed model v1", model key), "key id", 32)
    PRK    = HKDF-Extract(file_id, model key)
    header key, chunk key = HKDF-Expand(PRK, "adyton sealed model v1 header" | "... chunks", 32)
    nonce  = HKDF-Expand(PRK, "... nonce", 19 or 7) || index:u32 || last              last is 1 for the last chunk

The AEAD is AES-256-GCM with a prefix of 7 bytes, or XChaCha20-Poly1305 with one of 19. The nonce is that of STREAM
(Hoang, Reyhanitabar, Rogaway, Vizár 2015): a chunk opens only in its place, and only the last one as the last. Neither
AEAD commits to its key: there are files that open under two keys. The key id does, because it is a hash of the key; it
is compared before anything is opened. The plaintext is a GGUF as it is,
or the parts of a split one, one after the other (``member_bytes``).

Nothing here does I/O, and nothing here keeps a file from being replaced by an older one as a whole. The model version
is for that: whoever loads demands a smallest one from a place that the host cannot change.
"""

import hashlib
import hmac
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from adyton_protocol.digests import SHA256_BYTES, Digest, digest_bytes
from adyton_protocol.errors import (
    LocalProtocolError,
    SealedModelAltered,
    SealedModelMalformed,
    SealedModelTruncated,
    WrongModelKey,
)
from adyton_protocol.hpke import hkdf_expand, hkdf_extract

MAGIC: Final = b"ADYTONSM"
VERSION: Final = 1


class Algorithm(IntEnum):
    """How chunks are sealed; all in a STREAM, with HKDF-SHA256 and HMAC-SHA256."""

    XCHACHA20_POLY1305 = 1
    """For processors without AES instructions."""
    AES_256_GCM = 2
    """More than twice as fast where there are any, which is everywhere where there is SGX."""


DEFAULT_ALGORITHM: Final = Algorithm.AES_256_GCM

KEY_BYTES: Final = 32
FILE_ID_BYTES: Final = 32
TAG_BYTES: Final = 16
MIN_CHUNK_BYTES: Final = 4 * 1024
MAX_CHUNK_BYTES: Final = 16 * 1024 * 1024
DEFAULT_CHUNK_BYTES: Final = 256 * 1024
MAX_MEMBERS: Final = 1024
MAX_PLAIN_BYTES: Final = 1 << 44
MAX_MODEL_VERSION: Final = (1 << 63) - 1

_FIXED: Final = struct.Struct(">8sHHIQQ32s32s32sH")
_MEMBER: Final = struct.Struct(">Q")
_HEADER_TAG_BYTES: Final = 32
_LABEL: Final = b"adyton sealed model v1"
_PREFIX_BYTES: Final = {Algorithm.XCHACHA20_POLY1305: 19, Algorithm.AES_256_GCM: 7}
_MAX_CHUNKS: Final = 1 << 32
MAX_HEADER_BYTES: Final = _FIXED.size + MAX_MEMBERS * _MEMBER.size + _HEADER_TAG_BYTES
"""As much of a file as :func:`parse_sealed_header` may need."""


class ModelKey:
    """A model key, 32 random bytes, that can be wiped.

    Attributes:
        key_id: What names and commits to the key in public, 32 bytes. It says nothing about the key, which is too long
            to be guessed.
    """

    __slots__ = ("_key", "key_id")

    def __init__(self, key: bytes | bytearray) -> None:
        """Copy the key.

        Raises:
            LocalProtocolError: It has not 32 bytes.
        """
        if len(key) != KEY_BYTES:
            raise LocalProtocolError(f"a model key has {KEY_BYTES} bytes")
        self._key = bytearray(key)
        self.key_id = hkdf_expand(hkdf_extract(_LABEL, self._key), b"key id", SHA256_BYTES)

    def derive(self, file_id: bytes) -> bytes:
        """The pseudorandom key of one file, 32 bytes.

        Raises:
            LocalProtocolError: The key was wiped.
        """
        if not self._key:
            raise LocalProtocolError("the model key was wiped")
        return hkdf_extract(file_id, self._key)

    def reveal(self) -> bytearray:
        """A copy of the key, for whoever sends it sealed or writes it down. The caller overwrites it."""
        return bytearray(self._key)

    def wipe(self) -> None:
        """Overwrite the key. What was derived from it lives on. Idempotent."""
        self._key[:] = bytes(len(self._key))
        self._key.clear()

    def __repr__(self) -> str:
        return f"ModelKey(key_id={self.key_id.hex()})"


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedHeader:
    """What a sealed file says about itself.

    Attributes:
        chunk_bytes: Plain bytes of every chunk but the last.
        model_version: The sealer's counter, which only rises; decides about roll-back.
        key_id: See :class:`ModelKey`.
        content: What the sealer says that is inside: the digest of the content of the GGUF.
        file_id: 32 random bytes, drawn for each sealing.
        member_bytes: Sizes of the files inside, in their order.
        algorithm: By which the chunks are sealed.
    """

    chunk_bytes: int
    model_version: int
    key_id: bytes
    content: Digest
    file_id: bytes
    member_bytes: tuple[int, ...]
    algorithm: Algorithm = DEFAULT_ALGORITHM

    @property
    def plain_bytes(self) -> int:
        """Bytes of the plaintext."""
        return sum(self.member_bytes)

    @property
    def n_chunks(self) -> int:
        """How many chunks there are."""
        return -(-self.plain_bytes // self.chunk_bytes)

    @property
    def header_bytes(self) -> int:
        """Where the first chunk begins."""
        return _FIXED.size + len(self.member_bytes) * _MEMBER.size + _HEADER_TAG_BYTES

    @property
    def file_bytes(self) -> int:
        """How long the sealed file has to be, to the byte."""
        return self.header_bytes + self.plain_bytes + self.n_chunks * TAG_BYTES

    def check_file_bytes(self, file_bytes: int) -> None:
        """Compare the length of a file with what the header says.

        Raises:
            SealedModelTruncated: They differ.
        """
        if file_bytes != self.file_bytes:
            raise SealedModelTruncated(
                f"the sealed model has {file_bytes} bytes instead of {self.file_bytes}; was it copied completely?"
            )

    def plain_bytes_of(self, index: int) -> int:
        """Plain bytes of one chunk."""
        return min(self.chunk_bytes, self.plain_bytes - index * self.chunk_bytes)

    def offset_of(self, index: int) -> int:
        """Where a sealed chunk begins in the file."""
        return self.header_bytes + index * (self.chunk_bytes + TAG_BYTES)

    def encode(self) -> bytes:
        """The header without its tag.

        Raises:
            LocalProtocolError: A value is out of its range.
        """
        problem = _problem(self)
        if problem is not None:
            raise LocalProtocolError(f"sealed model: {problem}")
        fixed = _FIXED.pack(
            MAGIC,
            VERSION,
            self.algorithm,
            self.chunk_bytes,
            self.plain_bytes,
            self.model_version,
            self.key_id,
            digest_bytes(self.content),
            self.file_id,
            len(self.member_bytes),
        )
        return fixed + b"".join(map(_MEMBER.pack, self.member_bytes))


def _problem(header: SealedHeader) -> str | None:
    """What is wrong with the values of a header, ours or not."""
    chunk_bytes = header.chunk_bytes
    if not MIN_CHUNK_BYTES <= chunk_bytes <= MAX_CHUNK_BYTES or chunk_bytes & (chunk_bytes - 1):
        return f"the chunk size is no power of two from {MIN_CHUNK_BYTES} to {MAX_CHUNK_BYTES} bytes"
    if not 0 < len(header.member_bytes) <= MAX_MEMBERS or min(header.member_bytes) < 1:
        return f"there are not 1 to {MAX_MEMBERS} files inside, none of them empty"
    if header.plain_bytes > MAX_PLAIN_BYTES or header.n_chunks > _MAX_CHUNKS:
        return f"the plaintext exceeds {MAX_PLAIN_BYTES} bytes or {_MAX_CHUNKS} chunks"
    if not 0 <= header.model_version <= MAX_MODEL_VERSION:
        return f"the model version is not from 0 to {MAX_MODEL_VERSION}"
    if len(header.key_id) != SHA256_BYTES or len(header.file_id) != FILE_ID_BYTES:
        return "the key id or the file id has another length"
    return None


def is_sealed(beginning: bytes) -> bool:
    """Whether a file that begins like this claims to be a sealed model."""
    return beginning.startswith(MAGIC)


def parse_sealed_header(beginning: bytes) -> SealedHeader:
    """Read the header of a sealed file. Nothing of it is authenticated before :class:`ModelOpener` has checked it.

    Args:
        beginning: The first ``MAX_HEADER_BYTES`` bytes of the file, or all of it; attacker-controlled.

    Raises:
        SealedModelMalformed: Not a sealed model, or of another version, or a value is out of its range.
        SealedModelTruncated: The file ends inside its header.
    """
    if not is_sealed(beginning):
        raise SealedModelMalformed("not a sealed model: the file begins with other bytes")
    if len(beginning) < _FIXED.size:
        raise SealedModelTruncated("the sealed model ends inside its header")
    _, version, algorithm, chunk_bytes, plain_bytes, model_version, key_id, content, file_id, n_members = (
        _FIXED.unpack_from(beginning)
    )
    if version != VERSION or algorithm not in list(Algorithm):
        raise SealedModelMalformed("the sealed model is of a version or an algorithm that is not known here")
    if not 0 < n_members <= MAX_MEMBERS:
        raise SealedModelMalformed(f"sealed model: there are not 1 to {MAX_MEMBERS} files inside")
    end = _FIXED.size + n_members * _MEMBER.size
    if len(beginning) < end + _HEADER_TAG_BYTES:
        raise SealedModelTruncated("the sealed model ends inside its header")
    header = SealedHeader(
        chunk_bytes=chunk_bytes,
        model_version=model_version,
        key_id=key_id,
        content=Digest("sha256:" + content.hex()),
        file_id=file_id,
        member_bytes=tuple(size for (size,) in _MEMBER.iter_unpack(beginning[_FIXED.size : end])),
        algorithm=Algorithm(algorithm),
    )
    problem = _problem(header)
    if problem is not None:
        raise SealedModelMalformed(f"sealed model: {problem}")
    if header.plain_bytes != plain_bytes:
        raise SealedModelMalformed("sealed model: the files inside are not as long as the plaintext")
    return header


class _Keys:
    """Everything that is derived from the model key for one file."""

    def __init__(self, key: ModelKey, header: SealedHeader) -> None:
        prk = key.derive(header.file_id)
        self.encoded = header.encode()
        self.tag = hmac.digest(hkdf_expand(prk, _LABEL + b" header", KEY_BYTES), self.encoded, "sha256")
        self.associated = hashlib.sha256(self.encoded + self.tag).digest()
        prefix = hkdf_expand(prk, _LABEL + b" nonce", _PREFIX_BYTES[header.algorithm])
        chunk_key = hkdf_expand(prk, _LABEL + b" chunks", KEY_BYTES)
        self.cipher: AESGCM | ChaCha20Poly1305
        self._last = header.n_chunks - 1
        if header.algorithm is Algorithm.AES_256_GCM:
            self.cipher, self._prefix = AESGCM(chunk_key), prefix
            return
        # XChaCha20-Poly1305 is ChaCha20-Poly1305 under HChaCha20 of the first 16 bytes of its nonce, which all chunks
        # of a file share (draft-irtf-cfrg-xchacha-03 section 2.3). Done this way it opens straight into the caller's
        # buffer, at five times the speed of libsodium's.
        self.cipher = ChaCha20Poly1305(hchacha20(chunk_key, prefix[:16]))
        self._prefix = bytes(4) + prefix[16:]

    def nonce(self, index: int) -> bytes:
        """The chunk's nonce for ``cipher``: 12 bytes. Of XChaCha20's, the last 8 behind 4 zeros."""
        return self._prefix + index.to_bytes(4, "big") + (b"\x01" if index == self._last else b"\x00")


def hchacha20(key: bytes, nonce: bytes) -> bytes:
    """HChaCha20 of a 32-byte key and a 16-byte nonce (draft-irtf-cfrg-xchacha-03 section 2.2).

    It is a ChaCha20 block without its last step, the addition of the block's input, which is undone here.
    """
    block = Cipher(ChaCha20(key, nonce), mode=None).encryptor().update(bytes(64))
    words = struct.unpack("<16I", block)
    constants, counter = struct.unpack("<4I", b"expand 32-byte k"), struct.unpack("<4I", nonce)
    pairs = (*zip(words[:4], constants, strict=True), *zip(words[12:], counter, strict=True))
    return struct.pack("<8I", *((after - before) & 0xFFFFFFFF for after, before in pairs))


class ModelSealer:
    """Seals the chunks of one file. SECURITY: one sealer for one ``file_id``, or nonces would repeat."""

    def __init__(self, key: ModelKey, header: SealedHeader) -> None:
        """Derive the keys; ``header`` must name this key and a fresh random ``file_id``.

        Raises:
            LocalProtocolError: The header is for another key, or out of its ranges.
        """
        if header.key_id != key.key_id:
            raise LocalProtocolError("the header of the sealed model names another key")
        self.header: Final = header
        self._keys = _Keys(key, header)

    @property
    def beginning(self) -> bytes:
        """Header and tag: what stands before the first chunk."""
        return self._keys.encoded + self._keys.tag

    def seal(self, index: int, plain: bytes | bytearray | memoryview) -> bytes:
        """Seal one chunk.

        Raises:
            LocalProtocolError: There is no such chunk, or it has another size.
        """
        if not 0 <= index < self.header.n_chunks or len(plain) != self.header.plain_bytes_of(index):
            raise LocalProtocolError(
                "a chunk of the sealed model has a size or a place that the header excludes"
            )
        keys = self._keys
        return keys.cipher.encrypt(keys.nonce(index), plain, keys.associated)


class ModelOpener:
    """Opens the chunks of one file, in any order and from several threads at once."""

    def __init__(self, key: ModelKey, beginning: bytes) -> None:
        """Check the key and the header.

        Args:
            key: The key that somebody says is the right one.
            beginning: As for :func:`parse_sealed_header`.

        Raises:
            SealedModelMalformed: See there.
            SealedModelTruncated: See there.
            WrongModelKey: The file is sealed under another key.
            SealedModelAltered: The header was changed.
        """
        self.header: Final = parse_sealed_header(beginning)
        # SECURITY: commits to the key. Without this a file could be made that opens under two keys, and is two models.
        if not hmac.compare_digest(self.header.key_id, key.key_id):
            raise WrongModelKey("the sealed model is sealed under another key")
        self._keys = _Keys(key, self.header)
        tag = beginning[self.header.header_bytes - _HEADER_TAG_BYTES : self.header.header_bytes]
        if not hmac.compare_digest(tag, self._keys.tag):
            raise SealedModelAltered("the header of the sealed model was altered")

    def open_into(self, index: int, sealed: bytes | bytearray | memoryview, plain: memoryview) -> None:
        """Open one chunk into the caller's memory.

        Args:
            index: Its place.
            sealed: Its bytes in the file; attacker-controlled.
            plain: As many bytes as the chunk has; what it holds after an error means nothing.

        Raises:
            SealedModelAltered: The chunk is not the one that was sealed in this place of this file.
            LocalProtocolError: There is no such chunk, or ``plain`` has another size.
        """
        if not 0 <= index < self.header.n_chunks or len(plain) != self.header.plain_bytes_of(index):
            raise LocalProtocolError(
                "a chunk of the sealed model has a size or a place that the header excludes"
            )
        if len(sealed) != len(plain) + TAG_BYTES:
            raise SealedModelAltered("a chunk of the sealed model was altered")
        keys = self._keys
        try:
            keys.cipher.decrypt_into(keys.nonce(index), sealed, keys.associated, plain)
        except InvalidTag as error:
            raise SealedModelAltered("a chunk of the sealed model was altered") from error
