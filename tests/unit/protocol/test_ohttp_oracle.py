# SPDX-License-Identifier: Apache-2.0
"""Our encapsulation against one written here on foreign HPKE, straight from the pseudocode of the standards."""

from dataclasses import dataclass

import pyhpke
import pytest
from cryptography.hazmat.primitives import hpke as pyca
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from adyton_protocol.hpke import Aead, Kdf, Kem, KemPrivateKey
from adyton_protocol.key_config import KeyConfig
from adyton_protocol.ohttp import RequestOpener, RequestSealer
from adyton_protocol.varint import encode_varint, read_varint

Cipher = AESGCM | ChaCha20Poly1305

FOREIGN: dict[Aead, tuple[pyhpke.AEADId, type[Cipher], int]] = {
    Aead.AES_128_GCM: (pyhpke.AEADId.AES128_GCM, AESGCM, 16),
    Aead.AES_256_GCM: (pyhpke.AEADId.AES256_GCM, AESGCM, 32),
    Aead.CHACHA20_POLY1305: (pyhpke.AEADId.CHACHA20_POLY1305, ChaCha20Poly1305, 32),
}
PRIVATE = X25519PrivateKey.generate()
KEY = KemPrivateKey(PRIVATE)
SUITES = [(aead, chunked) for aead in Aead for chunked in (True, False)]
PIECES = st.lists(st.binary(min_size=1, max_size=100), min_size=1, max_size=4)


def name(chunked: bool, end: str) -> bytes:
    """The label of a direction."""
    return b"message/bhttp " + (b"chunked " if chunked else b"") + end.encode()


def header(aead: Aead) -> bytes:
    """The seven bytes in front."""
    return bytes([5]) + b"\x00\x20" + b"\x00\x01" + int(aead).to_bytes(2, "big")


@dataclass
class Oracle:
    """One end of an exchange on ``pyhpke`` and the HKDF of ``cryptography``."""

    context: pyhpke.ContextInterface
    aead: Aead
    enc: bytes
    chunked: bool

    def response_cipher(self, nonce: bytes) -> tuple[Cipher, int]:
        """Key and base nonce of the response, as RFC 9458 section 4.4 writes it."""
        _, cipher, length = FOREIGN[self.aead]
        secret = self.context.export(name(self.chunked, "response"), max(length, 12))
        key, base = (
            HKDF(algorithm=SHA256(), length=size, salt=self.enc + nonce, info=info).derive(secret)
            for size, info in ((length, b"key"), (12, b"nonce"))
        )
        return cipher(key), int.from_bytes(base, "big")


def suite(aead: Aead) -> pyhpke.CipherSuite:
    """The suite in ``pyhpke``."""
    return pyhpke.CipherSuite.new(
        pyhpke.KEMId.DHKEM_X25519_HKDF_SHA256, pyhpke.KDFId.HKDF_SHA256, FOREIGN[aead][0]
    )


def split_chunks(data: bytes) -> tuple[list[bytes], bytes]:
    """Sealed chunks that are not final, and the final one."""
    chunks: list[bytes] = []
    offset = 0
    while True:
        read = read_varint(data, offset)
        assert read is not None
        length, offset = read
        if length == 0:
            return chunks, data[offset:]
        chunks.append(data[offset : offset + length])
        offset += length


@pytest.mark.parametrize(("aead", "chunked"), SUITES)
@given(request=PIECES, response=PIECES)
def test_our_client_and_a_foreign_gateway(
    aead: Aead, chunked: bool, request: list[bytes], response: list[bytes]
) -> None:
    """A gateway that shares no code with us opens our request, and we open its response."""
    sealer = RequestSealer(KeyConfig.of(5, KEY, ((Kdf.HKDF_SHA256, aead),)), chunked=chunked)
    wire = b"".join([*(sealer.push(piece) for piece in request), sealer.finish()])
    assert wire[:7] == header(aead)
    enc, body = wire[7:39], wire[39:]
    info = name(chunked, "request") + b"\0" + wire[:7]
    private = pyhpke.KEMKey.from_pyca_cryptography_key(PRIVATE)
    context = suite(aead).create_recipient_context(enc, private, info)
    if chunked:
        chunks, final = split_chunks(body)
        opened = [*(context.open(chunk) for chunk in chunks), context.open(final, b"final")]
    else:
        opened = [context.open(body)]
    assert b"".join(opened) == b"".join(request)
    nonce = bytes(range(max(12, FOREIGN[aead][2])))
    cipher, base = Oracle(context, aead, enc, chunked).response_cipher(nonce)
    if chunked:
        answer = nonce
        for number, piece in enumerate(response[:-1]):
            sealed = cipher.encrypt((base ^ number).to_bytes(12, "big"), piece, b"")
            answer += encode_varint(len(sealed)) + sealed
        # This peer puts its last bytes into the final chunk, which ours never does.
        answer += b"\0" + cipher.encrypt(
            (base ^ len(response) - 1).to_bytes(12, "big"), response[-1], b"final"
        )
    else:
        answer = nonce + cipher.encrypt(base.to_bytes(12, "big"), b"".join(response), b"")
    opener = sealer.response_opener()
    assert opener.push(answer) + opener.finish() == b"".join(response)


@pytest.mark.parametrize(("aead", "chunked"), SUITES)
@given(request=PIECES, response=PIECES)
def test_a_foreign_client_and_our_gateway(
    aead: Aead, chunked: bool, request: list[bytes], response: list[bytes]
) -> None:
    """We open the request of a client that shares no code with us, and it opens our response."""
    public = pyhpke.KEMKey.from_pyca_cryptography_key(PRIVATE.public_key())
    info = name(chunked, "request") + b"\0" + header(aead)
    enc, context = suite(aead).create_sender_context(public, info)
    wire = header(aead) + enc
    if chunked:
        for piece in request[:-1]:
            sealed = context.seal(piece)
            wire += encode_varint(len(sealed)) + sealed
        wire += b"\0" + context.seal(request[-1], b"final")
    else:
        wire += context.seal(b"".join(request))
    gateway = RequestOpener({5: KEY}.get, chunked=chunked)
    assert gateway.push(wire) + gateway.finish() == b"".join(request)
    assert gateway.export_receipt_secret() == context.export(b"adyton receipt v1", 32)
    sealer = gateway.response_sealer(bytes(range(32)))
    answer = b"".join([*(sealer.push(piece) for piece in response), sealer.finish()])
    length = max(12, FOREIGN[aead][2])
    cipher, base = Oracle(context, aead, enc, chunked).response_cipher(answer[:length])
    if chunked:
        chunks, final = split_chunks(answer[length:])
        nonces = [(base ^ number).to_bytes(12, "big") for number in range(len(chunks) + 1)]
        opened = [cipher.decrypt(nonce, chunk, b"") for nonce, chunk in zip(nonces, chunks, strict=False)]
        assert cipher.decrypt(nonces[-1], final, b"final") == b""
    else:
        opened = [cipher.decrypt(base.to_bytes(12, "big"), answer[length:], b"")]
    assert b"".join(opened) == b"".join(response)


@pytest.mark.parametrize("aead", list(Aead))
@pytest.mark.parametrize("kem", list(Kem))
def test_cryptography_opens_whole_requests(kem: Kem, aead: Aead) -> None:
    """The single-shot HPKE of ``cryptography`` opens our unchunked requests, post-quantum ones too."""
    mlkem = MLKEM768PrivateKey.generate()
    ours = KemPrivateKey(PRIVATE, mlkem if kem is Kem.X_WING else None)
    sealer = RequestSealer(KeyConfig.of(5, ours, ((Kdf.HKDF_SHA256, aead),)), chunked=False)
    sealer.push(b"request")
    wire = sealer.finish()
    foreign_kem = pyca.KEM.X25519 if kem is Kem.X25519 else pyca.KEM.MLKEM768_X25519
    foreign = pyca.Suite(foreign_kem, pyca.KDF.HKDF_SHA256, getattr(pyca.AEAD, aead.name))
    private = PRIVATE if kem is Kem.X25519 else pyca.MLKEM768X25519PrivateKey(mlkem, PRIVATE)
    assert foreign.decrypt(wire[7:], private, b"message/bhttp request\0" + wire[:7]) == b"request"
