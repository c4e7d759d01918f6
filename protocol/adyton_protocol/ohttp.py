# SPDX-License-Identifier: Apache-2.0
"""Oblivious HTTP encapsulation, whole and chunked (RFC 9458 section 4; draft-ietf-ohai-chunked-ohttp).

We use the encapsulation, not the trust model: relay and gateway have one operator, so this gives
confidentiality and integrity, not anonymity. Four single-use objects carry one exchange::

    client    RequestSealer  --sealed request-->   RequestOpener    gateway
              ResponseOpener <--sealed response--  ResponseSealer

All are sans-I/O: ``push()`` takes a piece, ``finish()`` declares the end. What holds for all of them:

* An opener never returns a byte that is not authenticated, in order and unrepeated; ``finish()`` raises
  unless the authenticated end was there. Whoever acts on a message acts after ``finish()``.
* One error for every reason why sealed bytes do not open; after any error the object is dead.
* Work is linear in the input, however small its pieces, and buffers are bounded.
* A chunked request has a chunked response and a whole request a whole one; there is no fallback.
* We send the final chunk empty and in one write, because a real peer fails on one that arrives in two.

Not here: replay protection. The gateway remembers every ``enc`` for the life of its key.
"""

from collections.abc import Callable, Collection
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from adyton_protocol.chunks import (
    BodyOpener,
    BodySealer,
    ChunkOpener,
    ChunkSealer,
    WholeOpener,
    WholeSealer,
)
from adyton_protocol.errors import (
    KeyConfigMismatch,
    LocalProtocolError,
    RemoteProtocolError,
    TruncatedMessage,
)
from adyton_protocol.hpke import (
    AeadKey,
    KemPrivateKey,
    RecipientContext,
    SenderContext,
    hkdf_expand,
    hkdf_extract,
    setup_recipient,
    setup_sender,
)
from adyton_protocol.key_config import KeyConfig
from adyton_protocol.media import ENCAPSULATED_HEADER_BYTES, MAX_REQUEST_BYTES
from adyton_protocol.suite import (
    AEAD_NONCE_BYTES,
    CHUNKED_REQUEST_LABEL,
    CHUNKED_RESPONSE_LABEL,
    DEFAULT_SUITES,
    RECEIPT_EXPORT_LABEL,
    RECEIPT_SECRET_BYTES,
    REQUEST_LABEL,
    RESPONSE_LABEL,
    Aead,
    Kdf,
    SymmetricSuite,
)

__all__ = ["RequestOpener", "RequestSealer", "ResponseOpener", "ResponseSealer"]

MAX_WHOLE_RESPONSE_BYTES: Final = 64 * 1024 * 1024
"""Largest unchunked response that a client buffers."""


def _info(header: bytes, *, chunked: bool) -> bytes:
    """HPKE info: label, zero byte, the seven bytes of the header (RFC 9458 section 4.3)."""
    return (CHUNKED_REQUEST_LABEL if chunked else REQUEST_LABEL) + b"\x00" + header


def _response_secret(context: SenderContext | RecipientContext, aead: Aead, *, chunked: bool) -> bytes:
    label = CHUNKED_RESPONSE_LABEL if chunked else RESPONSE_LABEL
    return context.export(label, aead.response_nonce_bytes)


def _response_key(secret: bytes, aead: Aead, enc: bytes, response_nonce: bytes) -> AeadKey:
    """Derive the key of the response (RFC 9458 section 4.4)."""
    prk = hkdf_extract(enc + response_nonce, secret)
    key = hkdf_expand(prk, b"key", aead.key_bytes)
    return AeadKey(aead, key, hkdf_expand(prk, b"nonce", AEAD_NONCE_BYTES))


# --- Client -----------------------------------------------------------------------------------------


class RequestSealer:
    """Seals one request to an attested key configuration."""

    def __init__(
        self,
        config: KeyConfig,
        *,
        chunked: bool,
        suite: SymmetricSuite | None = None,
        insecure_ephemeral: X25519PrivateKey | None = None,
    ) -> None:
        """Encapsulate to ``config``.

        Args:
            config: The gateway's key. SECURITY: take it from an attested keyset only.
            chunked: Seal in chunks, and expect a chunked response.
            suite: One of ``config.suites``; the gateway's first choice by default.
            insecure_ephemeral: The X25519 ephemeral key; only test vectors pass one.

        Raises:
            LocalProtocolError: ``suite`` is not in the configuration.
            RemoteProtocolError: The public key is unusable.
        """
        if suite is not None and suite not in config.suites:
            raise LocalProtocolError("the key configuration does not offer this suite")
        kdf, aead = config.suites[0] if suite is None else suite
        numbers = (config.kem, kdf, aead)
        header = bytes([config.key_id]) + b"".join(number.to_bytes(2, "big") for number in numbers)
        self._enc, self._context = setup_sender(
            config.kem,
            kdf,
            aead,
            config.public_key,
            _info(header, chunked=chunked),
            insecure_ephemeral=insecure_ephemeral,
        )
        self._key_id = config.key_id
        self._chunked = chunked
        self._aead = aead
        self._has_opener = False
        sealer = ChunkSealer if chunked else WholeSealer
        self._body: BodySealer = sealer(header + self._enc, self._context)

    @property
    def enc(self) -> bytes:
        """The encapsulated key: 32 bytes (X25519) or 1120 (X-Wing). Identifies the request; public."""
        return self._enc

    @property
    def key_id(self) -> int:
        """The key id of the configuration."""
        return self._key_id

    @property
    def chunked(self) -> bool:
        """Whether request and response are chunked."""
        return self._chunked

    def push(self, plaintext: bytes) -> bytes:
        """Seal the next piece and return what to send.

        Chunked: one non-final chunk, or several when ``plaintext`` exceeds 16384 bytes; before the first
        come header and encapsulated key. Whole: buffers and returns ``b""``.

        Raises:
            LocalProtocolError: After :meth:`finish`, or ``plaintext`` is empty in chunked mode.
        """
        return self._body.push(plaintext)

    def finish(self) -> bytes:
        """Return the rest: the empty final chunk, or the whole sealed message.

        Raises:
            LocalProtocolError: Called twice.
        """
        return self._body.finish()

    def response_opener(self, *, max_bytes: int = MAX_WHOLE_RESPONSE_BYTES) -> "ResponseOpener":
        """Return the opener of the one response. ``max_bytes`` bounds an unchunked response.

        Raises:
            LocalProtocolError: Called twice.
        """
        if self._has_opener:
            raise LocalProtocolError("a request has one response")
        self._has_opener = True
        secret = _response_secret(self._context, self._aead, chunked=self._chunked)
        return ResponseOpener(secret, self._aead, self._enc, chunked=self._chunked, max_bytes=max_bytes)

    def export_receipt_secret(self) -> bytes:
        """Return the 32 bytes that only this client and the enclave can compute."""
        return self._context.export(RECEIPT_EXPORT_LABEL, RECEIPT_SECRET_BYTES)


class ResponseOpener:
    """Opens one attacker-controlled response. Made by :meth:`RequestSealer.response_opener`."""

    def __init__(self, secret: bytes, aead: Aead, enc: bytes, *, chunked: bool, max_bytes: int) -> None:
        """Take the exported response secret, its cipher, and the request's encapsulated key."""
        self._secret = secret
        self._aead = aead
        self._enc = enc
        self._chunked = chunked
        self._max_bytes = max_bytes
        self._nonce = bytearray()
        self._body: BodyOpener | None = None
        self._complete = False
        self._finished = False

    @property
    def complete(self) -> bool:
        """True once :meth:`finish` has seen the authenticated end."""
        return self._complete

    def push(self, data: bytes) -> bytes:
        """Take the next piece and return the plaintext that it authenticates, perhaps none.

        Raises:
            OpenError: A chunk is not authentic or not the next one.
            RemoteProtocolError: A chunk, or a whole response, is too large.
            LocalProtocolError: The response is finished, or has already failed.
        """
        if self._body is None:
            if self._finished:
                raise LocalProtocolError("this response is finished or has failed")
            missing = self._aead.response_nonce_bytes - len(self._nonce)
            self._nonce += data[:missing]
            if len(data) < missing:
                return b""
            key = _response_key(self._secret, self._aead, self._enc, bytes(self._nonce))
            self._body = ChunkOpener(key) if self._chunked else WholeOpener(key, self._max_bytes)
            data = data[missing:]
        return self._body.push(data)

    def finish(self) -> bytes:
        """Declare the input complete, check its authenticated end and return the remaining plaintext.

        Whole responses are returned here; the final chunk of ours is empty, that of others may not be.

        Raises:
            TruncatedMessage: The input ended before its authenticated end.
            OpenError: The end is not authentic, or something follows it.
            LocalProtocolError: The response is finished, or has already failed.
        """
        if self._body is None:
            if self._finished:
                raise LocalProtocolError("this response is finished or has failed")
            self._finished = True
            raise TruncatedMessage("the sealed response ends inside its nonce")
        rest = self._body.finish()
        self._complete = True
        return rest


# --- Gateway ----------------------------------------------------------------------------------------


class RequestOpener:
    """Opens one attacker-controlled request."""

    def __init__(
        self,
        lookup: Callable[[int], KemPrivateKey | None],
        *,
        chunked: bool,
        max_bytes: int = MAX_REQUEST_BYTES,
        suites: Collection[SymmetricSuite] = DEFAULT_SUITES,
    ) -> None:
        """Prepare to open.

        Args:
            lookup: Finds the private key of a key id, or None when there is none (any more).
            chunked: What the outer media type says.
            max_bytes: Most sealed bytes to accept, header included.
            suites: The pairs that the key configurations offer.
        """
        self._lookup = lookup
        self._chunked = chunked
        self._max_bytes = max_bytes
        self._suites = suites
        self._seen_bytes = 0
        self._prefix = bytearray()
        self._private_key: KemPrivateKey | None = None
        self._kdf = Kdf.HKDF_SHA256
        self._aead = Aead.AES_128_GCM
        self._enc = b""
        self._context: RecipientContext | None = None
        self._body: BodyOpener | None = None
        self._closed = False
        self._complete = False
        self._has_sealer = False

    @property
    def enc(self) -> bytes:
        """The encapsulated key, by which replays are recognised.

        Raises:
            LocalProtocolError: It has not arrived yet.
        """
        self._require_context()
        return self._enc

    @property
    def key_id(self) -> int:
        """The key id of the request.

        Raises:
            LocalProtocolError: It has not arrived yet.
        """
        self._require_context()
        return self._prefix[0]

    @property
    def chunked(self) -> bool:
        """Whether request and response are chunked."""
        return self._chunked

    @property
    def complete(self) -> bool:
        """True once :meth:`finish` has seen the authenticated end."""
        return self._complete

    @property
    def response_nonce_bytes(self) -> int:
        """Entropy, in bytes, that :meth:`response_sealer` needs: 16 or 32.

        Raises:
            LocalProtocolError: The header has not arrived yet.
        """
        self._require_context()
        return self._aead.response_nonce_bytes

    def push(self, data: bytes) -> bytes:
        """Take the next piece and return the plaintext that it authenticates, perhaps none.

        Raises:
            KeyConfigMismatch: Sealed to a key or with a suite that we do not have; nothing was opened.
            OpenError: The encapsulated key or a chunk is not authentic, or a chunk is not the next one.
            RemoteProtocolError: The request or a chunk is too large.
            LocalProtocolError: The request is finished, or has already failed.
        """
        if self._closed:
            raise LocalProtocolError("this request is finished or has failed")
        # SECURITY: closed until this call succeeds. After a failure nothing more may be opened.
        self._closed = True
        self._seen_bytes += len(data)
        if self._seen_bytes > self._max_bytes:
            raise RemoteProtocolError(f"the sealed request exceeds {self._max_bytes} bytes")
        if self._private_key is None:
            data = self._read_header(data)
        if self._private_key is not None and self._body is None:
            data = self._read_enc(self._private_key, data)
        opened = b"" if self._body is None else self._body.push(data)
        self._closed = False
        return opened

    def finish(self) -> bytes:
        """Declare the input complete, check its authenticated end and return the remaining plaintext.

        Raises:
            TruncatedMessage: The input ended before its authenticated end.
            OpenError: The end is not authentic, or something follows it.
            LocalProtocolError: The request is finished, or has already failed.
        """
        if self._closed:
            raise LocalProtocolError("this request is finished or has failed")
        self._closed = True
        if self._body is None:
            raise TruncatedMessage("the sealed request ends before its first sealed byte")
        rest = self._body.finish()
        self._complete = True
        return rest

    def response_sealer(self, response_nonce: bytes) -> "ResponseSealer":
        """Return the sealer of the one response.

        Args:
            response_nonce: Fresh random bytes, at least :attr:`response_nonce_bytes`, of which the first
                that many are used; 32 are always enough.

        Raises:
            LocalProtocolError: The request is not complete, this was called before, or there is too little
                entropy.
        """
        context = self._require_context()
        # SECURITY: one sealer for each request, or two responses could share key and nonce. And no response
        # before the request's authenticated end: a replayed prefix earns no answer.
        if not self._complete or self._has_sealer:
            raise LocalProtocolError("a complete request has one response")
        length = self._aead.response_nonce_bytes
        if len(response_nonce) < length:
            raise LocalProtocolError(f"a response nonce needs {length} random bytes")
        self._has_sealer = True
        secret = _response_secret(context, self._aead, chunked=self._chunked)
        nonce = response_nonce[:length]
        key = _response_key(secret, self._aead, self._enc, nonce)
        return ResponseSealer(ChunkSealer(nonce, key) if self._chunked else WholeSealer(nonce, key))

    def export_receipt_secret(self) -> bytes:
        """Return the 32 bytes that only the client and this enclave can compute.

        Raises:
            LocalProtocolError: The encapsulated key has not arrived yet.
        """
        return self._require_context().export(RECEIPT_EXPORT_LABEL, RECEIPT_SECRET_BYTES)

    def _require_context(self) -> RecipientContext:
        if self._context is None:
            raise LocalProtocolError("the header of the request has not arrived yet")
        return self._context

    def _fill_prefix(self, data: bytes, length: int) -> tuple[bool, bytes]:
        """Move bytes from ``data`` until the prefix has ``length``; tell whether it has, and what is left."""
        missing = length - len(self._prefix)
        self._prefix += data[:missing]
        return len(data) >= missing, data[missing:]

    def _read_header(self, data: bytes) -> bytes:
        filled, rest = self._fill_prefix(data, ENCAPSULATED_HEADER_BYTES)
        if not filled:
            return b""
        key_id, *numbers = (
            int.from_bytes(self._prefix[start:end], "big") for start, end in ((0, 1), (1, 3), (3, 5), (5, 7))
        )
        private_key = self._lookup(key_id)
        # Compared as numbers: an algorithm that we do not know is one that we do not offer.
        offered = [suite for suite in self._suites if list(suite) == numbers[1:]]
        if private_key is None or private_key.kem != numbers[0] or not offered:
            raise KeyConfigMismatch("the request is sealed to a key or with a suite that is not offered")
        self._private_key = private_key
        self._kdf, self._aead = offered[0]
        return rest

    def _read_enc(self, private_key: KemPrivateKey, data: bytes) -> bytes:
        filled, rest = self._fill_prefix(data, ENCAPSULATED_HEADER_BYTES + private_key.kem.enc_bytes)
        if not filled:
            return b""
        header = bytes(self._prefix[:ENCAPSULATED_HEADER_BYTES])
        self._enc = bytes(self._prefix[ENCAPSULATED_HEADER_BYTES:])
        info = _info(header, chunked=self._chunked)
        context = setup_recipient(private_key, self._kdf, self._aead, self._enc, info)
        self._context = context
        self._body = ChunkOpener(context) if self._chunked else WholeOpener(context, self._max_bytes)
        return rest


class ResponseSealer:
    """Seals one response. Made by :meth:`RequestOpener.response_sealer`."""

    def __init__(self, body: BodySealer) -> None:
        """Take what seals the body after the response nonce."""
        self._body = body

    def push(self, plaintext: bytes) -> bytes:
        """Seal the next piece and return what to send; as :meth:`RequestSealer.push`.

        Raises:
            LocalProtocolError: After :meth:`finish`, or ``plaintext`` is empty in chunked mode.
        """
        return self._body.push(plaintext)

    def finish(self) -> bytes:
        """Return the rest: the empty final chunk in one piece, or the whole sealed message.

        Raises:
            LocalProtocolError: Called twice.
        """
        return self._body.finish()
