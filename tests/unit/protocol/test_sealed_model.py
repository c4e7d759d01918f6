# SPDX-License-Identifier: Apache-2.0
"""Sealed models: vectors, an independent construction by libsodium, and everything a host could do to a file."""

import hashlib
import hmac
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt

from adyton_protocol.digests import Digest
from adyton_protocol.errors import (
    LocalProtocolError,
    SealedModelAltered,
    SealedModelError,
    SealedModelMalformed,
    SealedModelTruncated,
    WrongModelKey,
)
from adyton_protocol.sealed_model import (
    KEY_BYTES,
    MAX_HEADER_BYTES,
    MIN_CHUNK_BYTES,
    TAG_BYTES,
    Algorithm,
    ModelKey,
    ModelOpener,
    ModelSealer,
    SealedHeader,
    hchacha20,
    is_sealed,
    parse_sealed_header,
)

VECTORS: Final = json.loads((Path(__file__).parents[2] / "vectors" / "sealed_model.json").read_text())
KEY: Final = ModelKey(bytes(range(KEY_BYTES)))
CONTENT: Final = Digest("sha256:" + "c0" * 32)
CHUNK: Final = MIN_CHUNK_BYTES


def pattern(count: int, salt: int = 0) -> bytes:
    """Bytes in which every chunk differs from every other."""
    blocks = (hashlib.sha256(bytes([salt]) + at.to_bytes(8, "big")).digest() for at in range(-(-count // 32)))
    return b"".join(blocks)[:count]


def header_for(
    plain_bytes: int, *, key: ModelKey = KEY, file_id: bytes = bytes(32), **changed: Any
) -> SealedHeader:
    """A header for one file of that size."""
    values: dict[str, Any] = {
        "chunk_bytes": CHUNK,
        "model_version": 1,
        "key_id": key.key_id,
        "content": CONTENT,
        "file_id": file_id,
        "member_bytes": (plain_bytes,),
    }
    return SealedHeader(**{**values, **changed})


def seal(plain: bytes, *, key: ModelKey = KEY, **changed: Any) -> bytes:
    """A sealed file."""
    sealer = ModelSealer(key, header_for(len(plain), key=key, **changed))
    size = sealer.header.chunk_bytes
    chunks = [sealer.seal(i, plain[i * size : (i + 1) * size]) for i in range(sealer.header.n_chunks)]
    return sealer.beginning + b"".join(chunks)


def open_all(data: bytes, key: ModelKey = KEY) -> bytes:
    """Open a sealed file as a loader does: header, length, then every chunk."""
    opener = ModelOpener(key, data[:MAX_HEADER_BYTES])
    header = opener.header
    header.check_file_bytes(len(data))
    plain = bytearray(header.plain_bytes)
    for index in range(header.n_chunks):
        begin, size = header.offset_of(index), header.plain_bytes_of(index)
        target = memoryview(plain)[index * header.chunk_bytes :][:size]
        opener.open_into(index, data[begin : begin + size + TAG_BYTES], target)
    return bytes(plain)


def rejection(data: bytes, key: ModelKey = KEY) -> str:
    """The code of the error that a file gives."""
    with pytest.raises(SealedModelError) as caught:
        open_all(data, key)
    return caught.value.code


def pieces(data: bytes) -> tuple[bytes, list[bytes]]:
    """Header with tag, and the sealed chunks."""
    header = parse_sealed_header(data)
    ends = [*(header.offset_of(i) for i in range(header.n_chunks)), len(data)]
    return data[: ends[0]], [data[a:b] for a, b in itertools.pairwise(ends)]


# --- Vectors and oracles ------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda vector: vector["name"])
def test_vectors(vector: dict[str, Any]) -> None:
    """Each file opens to the bytes written down, or is refused with the code written down."""
    key = ModelKey(bytes.fromhex(vector["key"]))
    data = bytes.fromhex(vector["sealed"])
    if "rejected" in vector:
        assert rejection(data, key) == vector["rejected"]
        return
    plain = open_all(data, key)
    header = parse_sealed_header(data)
    assert key.key_id.hex() == vector["key_id"]
    assert hashlib.sha256(plain).hexdigest() == vector["plain_sha256"]
    assert [header.model_version, list(header.member_bytes), header.content] == vector["says"]
    assert ModelSealer(key, header).beginning == pieces(data)[0]


def test_hchacha20_is_the_one_of_the_draft() -> None:
    """The vector of draft-irtf-cfrg-xchacha-03 section 2.2.1."""
    nonce = bytes.fromhex("000000090000004a0000000031415927")
    expected = "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc"
    assert hchacha20(bytes(range(32)), nonce).hex() == expected


def libsodium_chacha(plain: bytes, associated: bytes, nonce: bytes, key: bytes) -> bytes:
    """XChaCha20-Poly1305 by another library."""
    sealed: bytes = crypto_aead_xchacha20poly1305_ietf_encrypt(plain, associated, nonce, key)
    return sealed


def aes_and_ghash(plain: bytes, associated: bytes, nonce: bytes, key: bytes) -> bytes:
    """AES-256-GCM with a nonce of 12 bytes as NIST SP 800-38D section 7.1 writes it, from AES blocks alone."""
    ecb = Cipher(AES(key), ECB()).encryptor()  # noqa: S305 - the block cipher itself
    subkey = int.from_bytes(ecb.update(bytes(16)), "big")

    def times(x: int, y: int) -> int:
        product = 0
        for bit in range(127, -1, -1):
            product ^= y if x >> bit & 1 else 0
            y = y >> 1 ^ (0xE1 << 120 if y & 1 else 0)
        return product

    counters = b"".join(nonce + at.to_bytes(4, "big") for at in range(1, 2 + -(-len(plain) // 16)))
    stream = ecb.update(counters)
    sealed = bytes(a ^ b for a, b in zip(plain, stream[16:], strict=False))
    hashed = b"".join(part + bytes(-len(part) % 16) for part in (associated, sealed))
    hashed += (8 * len(associated)).to_bytes(8, "big") + (8 * len(sealed)).to_bytes(8, "big")
    state = 0
    for at in range(0, len(hashed), 16):
        state = times(state ^ int.from_bytes(hashed[at : at + 16], "big"), subkey)
    return sealed + (state ^ int.from_bytes(stream[:16], "big")).to_bytes(16, "big")


@pytest.mark.parametrize(
    ("algorithm", "prefix_bytes", "aead"),
    [(Algorithm.XCHACHA20_POLY1305, 19, libsodium_chacha), (Algorithm.AES_256_GCM, 7, aes_and_ghash)],
)
def test_other_code_makes_the_same_file(
    algorithm: Algorithm, prefix_bytes: int, aead: Callable[[bytes, bytes, bytes, bytes], bytes]
) -> None:
    """The format as the module's first lines write it, built anew without the module and its ciphers."""

    def expand(prk: bytes, info: bytes, length: int) -> bytes:
        return hmac.digest(prk, info + b"\x01", "sha256")[:length]

    label, file_id, plain = b"adyton sealed model v1", pattern(32, 9), pattern(2 * CHUNK + 5)
    secret = bytes(range(KEY_BYTES))
    key_id = expand(hmac.digest(label, secret, "sha256"), b"key id", 32)
    head = b"ADYTONSM" + (1).to_bytes(2, "big") + algorithm.to_bytes(2, "big") + CHUNK.to_bytes(4, "big")
    head += len(plain).to_bytes(8, "big") + (7).to_bytes(8, "big") + key_id + b"\xc0" * 32 + file_id
    head += (1).to_bytes(2, "big") + len(plain).to_bytes(8, "big")
    prk = hmac.digest(file_id, secret, "sha256")
    head += hmac.digest(expand(prk, label + b" header", 32), head, "sha256")
    prefix, chunk_key = expand(prk, label + b" nonce", prefix_bytes), expand(prk, label + b" chunks", 32)
    for index, last in ((0, 0), (1, 0), (2, 1)):
        nonce = prefix + index.to_bytes(4, "big") + bytes([last])
        chunk = plain[index * CHUNK : (index + 1) * CHUNK]
        head += aead(chunk, hashlib.sha256(head[:170]).digest(), nonce, chunk_key)
    assert head == seal(plain, file_id=file_id, model_version=7, algorithm=algorithm)


@settings(max_examples=40)
@given(
    plain_bytes=st.integers(1, 5 * CHUNK),
    file_id=st.binary(min_size=32, max_size=32),
    algorithm=st.sampled_from(Algorithm),
    cut=st.data(),
)
def test_what_is_sealed_opens(
    plain_bytes: int, file_id: bytes, algorithm: Algorithm, cut: st.DataObject
) -> None:
    """Any size, one file inside or several, either cipher: the same bytes come out."""
    first = cut.draw(st.integers(1, plain_bytes))
    members = (first, plain_bytes - first) if first < plain_bytes else (first,)
    plain = pattern(plain_bytes)
    sealed = seal(plain, file_id=file_id, member_bytes=members, algorithm=algorithm)
    assert is_sealed(sealed)
    assert len(sealed) == parse_sealed_header(sealed).file_bytes
    assert open_all(sealed) == plain
    assert plain[:32] not in sealed or plain_bytes < 32


# --- What a host could do -----------------------------------------------------------------------------

FILE: Final = seal(pattern(4 * CHUNK + 100))
HEAD, CHUNKS = pieces(FILE)
OTHER: Final = pieces(seal(pattern(4 * CHUNK + 100), file_id=b"\x01" * 32))


def test_another_key_is_refused_as_such() -> None:
    """The key id tells, before a single chunk is opened."""
    assert rejection(FILE, ModelKey(b"\x07" * KEY_BYTES)) == WrongModelKey.code


def test_a_file_cannot_claim_the_id_of_another_key() -> None:
    """Who writes the victim's key id into a file that he sealed himself gets no further."""
    forged = header_for(CHUNK)
    own = ModelKey(b"\x07" * KEY_BYTES)
    sealed = seal(pattern(CHUNK), key=own)
    assert rejection(forged.encode() + sealed[len(forged.encode()) :]) == SealedModelAltered.code


@pytest.mark.parametrize("length", sorted({
    *range(len(HEAD) + 1), *(len(HEAD) + sum(map(len, CHUNKS[:n])) for n in range(len(CHUNKS))), len(FILE) - 1,
}))  # fmt: skip
def test_truncation_at_every_boundary_is_noticed(length: int) -> None:
    """Within the header, between chunks, within the last one."""
    expected = SealedModelMalformed.code if length < 8 else SealedModelTruncated.code
    assert rejection(FILE[:length]) == expected


def test_a_longer_file_is_noticed() -> None:
    """Bytes after the last chunk are no part of the model."""
    assert rejection(FILE + b"\x00") == SealedModelTruncated.code


@pytest.mark.parametrize(
    "order",
    [[1, 0, 2, 3, 4], [0, 2, 1, 3, 4], [0, 1, 1, 3, 4], [0, 0, 0, 0, 4], [3, 1, 2, 0, 4]],
    ids=["swapped", "swapped-later", "duplicated", "all-the-first", "reordered"],
)
@pytest.mark.parametrize("algorithm", Algorithm)
def test_chunks_open_in_their_own_place_only(algorithm: Algorithm, order: list[int]) -> None:
    """Swapped, duplicated and reordered chunks are refused."""
    head, chunks = pieces(seal(pattern(4 * CHUNK + 100), algorithm=algorithm))
    assert rejection(head + b"".join(chunks[i] for i in order)) == SealedModelAltered.code


@pytest.mark.parametrize("algorithm", Algorithm)
def test_a_file_cannot_be_read_by_the_other_cipher(algorithm: Algorithm) -> None:
    """The header's tag covers the algorithm."""
    changed = bytearray(seal(pattern(CHUNK), algorithm=algorithm))
    changed[11] ^= 3
    assert parse_sealed_header(bytes(changed)).algorithm is not algorithm
    assert rejection(bytes(changed)) == SealedModelAltered.code


@pytest.mark.parametrize("algorithm", Algorithm)
def test_no_two_chunks_share_a_nonce_under_one_key(algorithm: Algorithm) -> None:
    """Equal plain chunks seal to different bytes, in one file and in two."""
    plain = bytes(5 * CHUNK)
    files = (seal(plain, algorithm=algorithm), seal(plain, algorithm=algorithm, file_id=b"\x01" * 32))
    chunks = [chunk for file in files for chunk in pieces(file)[1]]
    assert len(set(chunks)) == len(chunks)


@pytest.mark.parametrize("index", range(len(CHUNKS)))
def test_a_chunk_of_another_file_is_refused(index: int) -> None:
    """Under the same key, at the same place, of the same plaintext."""
    mixed = [*CHUNKS[:index], OTHER[1][index], *CHUNKS[index + 1 :]]
    assert rejection(HEAD + b"".join(mixed)) == SealedModelAltered.code


def test_chunks_under_the_header_of_another_sealing_are_refused() -> None:
    """The header is part of what every chunk authenticates."""
    assert rejection(OTHER[0] + b"".join(CHUNKS)) == SealedModelAltered.code


def test_an_inner_chunk_does_not_open_as_the_last() -> None:
    """A file that ends early and says so does not open, though the sealer of its header held the right key."""
    shorter = ModelSealer(KEY, header_for(2 * CHUNK)).beginning
    assert rejection(shorter + CHUNKS[0] + CHUNKS[1]) == SealedModelAltered.code


@settings(max_examples=150)
@given(bit=st.integers(0, 8 * len(FILE) - 1))
def test_a_flipped_bit_is_refused(bit: int) -> None:
    """Anywhere in the file; the code is one of ours."""
    changed = bytearray(FILE)
    changed[bit // 8] ^= 1 << bit % 8
    assert rejection(bytes(changed)).startswith("sealed-model-")


@pytest.mark.parametrize("at", range(len(HEAD)))
def test_every_byte_of_the_header_counts(at: int) -> None:
    """No edit of the header goes through, and which error it gives depends on the field alone."""
    changed = bytearray(FILE)
    changed[at] ^= 0x01
    codes = {
        range(12): SealedModelMalformed.code,  # magic, version, algorithm
        range(32, 64): WrongModelKey.code,
        range(24, 32): SealedModelAltered.code,  # model version
        range(64, 128): SealedModelAltered.code,  # content, file id
        range(len(HEAD) - 32, len(HEAD)): SealedModelAltered.code,
    }
    found = rejection(bytes(changed))
    assert found == next((code for fields, code in codes.items() if at in fields), found)


def test_a_raised_model_version_is_refused() -> None:
    """An old file does not become a new one by writing a larger number into its header."""
    old, new = header_for(len(pattern(CHUNK))), header_for(CHUNK, model_version=2)
    sealed = seal(pattern(CHUNK))
    assert rejection(new.encode() + sealed[len(old.encode()) :]) == SealedModelAltered.code


@settings(max_examples=300)
@given(data=st.binary(max_size=400) | st.binary(max_size=300).map(lambda rest: HEAD[:12] + rest))
def test_hostile_headers_give_typed_errors(data: bytes) -> None:
    """Whatever the bytes are: a header within its limits, or an error of ours."""
    try:
        header = parse_sealed_header(data)
    except (SealedModelMalformed, SealedModelTruncated):
        return
    assert header.encode() == data[: len(header.encode())]


# --- Misuse -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        {"chunk_bytes": CHUNK + 1},
        {"chunk_bytes": CHUNK // 2},
        {"chunk_bytes": 1 << 25},
        {"member_bytes": ()},
        {"member_bytes": (CHUNK, 0)},
        {"member_bytes": (1,) * 1025},
        {"member_bytes": (1 << 45,)},
        {"member_bytes": (1 << 44, 1)},
        {"model_version": -1},
        {"model_version": 1 << 63},
        {"file_id": bytes(31)},
    ],
)
def test_a_header_out_of_its_ranges_is_not_written(changed: dict[str, Any]) -> None:
    """Every limit that readers enforce holds for writers as well."""
    with pytest.raises(LocalProtocolError):
        header_for(CHUNK, **changed).encode()


def test_a_sealer_refuses_what_the_header_excludes() -> None:
    """Another key, a chunk that is not there, a chunk of another size."""
    with pytest.raises(LocalProtocolError):
        ModelSealer(ModelKey(b"\x07" * KEY_BYTES), header_for(CHUNK))
    sealer = ModelSealer(KEY, header_for(CHUNK + 1))
    for index, size in ((0, CHUNK - 1), (1, CHUNK), (2, 1), (-1, CHUNK)):
        with pytest.raises(LocalProtocolError):
            sealer.seal(index, bytes(size))
    opener = ModelOpener(KEY, sealer.beginning)
    with pytest.raises(LocalProtocolError):
        opener.open_into(0, bytes(CHUNK + TAG_BYTES), memoryview(bytearray(CHUNK - 1)))
    with pytest.raises(SealedModelAltered):
        opener.open_into(0, bytes(CHUNK), memoryview(bytearray(CHUNK)))


def test_a_wiped_key_derives_nothing() -> None:
    """Wiping leaves the public id only, and the key never shows in a representation."""
    key = ModelKey(b"\x5a" * KEY_BYTES)
    assert "5a5a" not in repr(key)
    assert key.reveal() == b"\x5a" * KEY_BYTES
    key.wipe()
    key.wipe()
    assert key.reveal() == b""
    with pytest.raises(LocalProtocolError):
        key.derive(bytes(32))
    with pytest.raises(LocalProtocolError):
        ModelKey(b"short")
