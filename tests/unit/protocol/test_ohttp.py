# SPDX-License-Identifier: Apache-2.0
"""Oblivious HTTP, whole and chunked: vectors, round trips, and everything a host might do to the bytes."""

import hashlib
import json
import time
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from adyton_protocol.errors import (
    KeyConfigMismatch,
    LocalProtocolError,
    OpenError,
    ProtocolError,
    RemoteProtocolError,
    TruncatedMessage,
)
from adyton_protocol.hpke import Aead, Kdf, Kem, KemPrivateKey, setup_sender
from adyton_protocol.key_config import KeyConfig, parse_key_config
from adyton_protocol.media import MAX_CHUNK_BYTES
from adyton_protocol.ohttp import RequestOpener, RequestSealer, ResponseOpener, ResponseSealer
from adyton_protocol.suite import CHUNKED_REQUEST_LABEL, DEFAULT_SUITES
from adyton_protocol.varint import encode_varint

VECTORS = Path(__file__).parents[2] / "vectors"
DOCUMENTS = [json.loads((VECTORS / name).read_text()) for name in ("ohttp.json", "chunked_ohttp.json")]
EXCHANGES = [vector for document in DOCUMENTS for vector in document["vectors"]]
KEYS = {kem: KemPrivateKey.generate(kem) for kem in Kem}
MODES = [(kem, aead, chunked) for kem in Kem for aead in Aead for chunked in (False, True)]
PIECES = st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=5)
NONCE = bytes(range(32))

Opener = RequestOpener | ResponseOpener


def unhex(text: str) -> bytes:
    """Bytes of a hexadecimal string."""
    return bytes.fromhex(text)


def sealed(sealer: RequestSealer | ResponseSealer, pieces: Iterable[bytes]) -> bytes:
    """Everything that the sealer sends for these pieces."""
    return b"".join([*(sealer.push(piece) for piece in pieces), sealer.finish()])


def opened(opener: Opener, pieces: Iterable[bytes]) -> bytes:
    """Everything that the opener returns for these pieces."""
    return b"".join([*(opener.push(piece) for piece in pieces), opener.finish()])


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    """``data`` in pieces, at ``cuts`` modulo its length."""
    edges = sorted({0, len(data), *(position % (len(data) + 1) for position in cuts)})
    return [data[start:end] for start, end in pairwise(edges)]


def bytewise(data: bytes) -> list[bytes]:
    """``data``, one byte at a time."""
    return [data[i : i + 1] for i in range(len(data))]


def seen_before_refusal(opener: Opener, pieces: Iterable[bytes]) -> bytes:
    """What the opener returned before it refused; fails when it did not refuse, or called itself complete."""
    seen = b""
    try:
        for piece in pieces:
            seen += opener.push(piece)
        opener.finish()
    except (OpenError, KeyConfigMismatch, RemoteProtocolError):
        assert not opener.complete
        return seen
    pytest.fail("a damaged message was accepted")


class Exchange:
    """Both ends of one exchange, through the real interfaces."""

    def __init__(self, kem: Kem = Kem.X25519, aead: Aead = Aead.AES_128_GCM, *, chunked: bool = True) -> None:
        """Set up a client; the gateway is set up by :meth:`gateway`."""
        self.key = KEYS[kem]
        self.chunked = chunked
        self.config = KeyConfig.of(7, self.key, ((Kdf.HKDF_SHA256, aead),))
        self.sealer = RequestSealer(self.config, chunked=chunked)

    def gateway(self, **settings: Any) -> RequestOpener:
        """A new opener that holds the key."""
        mode: dict[str, Any] = {"chunked": self.chunked, **settings}
        return RequestOpener({7: self.key}.get, **mode)

    def answered(self, request: Iterable[bytes], response: Iterable[bytes]) -> tuple[bytes, bytes]:
        """The sealed request, and the sealed response of a gateway that has opened it."""
        wire = sealed(self.sealer, request)
        gateway = self.gateway()
        opened(gateway, [wire])
        return wire, sealed(gateway.response_sealer(NONCE), response)


# --- Vectors ----------------------------------------------------------------------------------------


def recipient(vector: dict[str, Any]) -> KemPrivateKey:
    """The gateway's key of a vector."""
    if "recipient_private" in vector:
        return KemPrivateKey(X25519PrivateKey.from_private_bytes(unhex(vector["recipient_private"])))
    expanded = hashlib.shake_256(unhex(vector["recipient_seed"])).digest(96)
    return KemPrivateKey(
        X25519PrivateKey.from_private_bytes(expanded[64:]), MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
    )


def gateway_of(vector: dict[str, Any]) -> RequestOpener:
    """A gateway that holds exactly the key of a vector, and offers exactly its suites."""
    config = parse_key_config(unhex(vector["key_config"]))
    keys = {config.key_id: recipient(vector)}
    return RequestOpener(keys.get, chunked=vector["chunked"], suites=config.suites)


def client_of(vector: dict[str, Any]) -> RequestSealer:
    """The client of a vector that names its ephemeral key."""
    kdf, aead = vector["suite"]
    return RequestSealer(
        parse_key_config(unhex(vector["key_config"])),
        chunked=vector["chunked"],
        suite=(Kdf(kdf), Aead(aead)),
        insecure_ephemeral=X25519PrivateKey.from_private_bytes(unhex(vector["ephemeral_private"])),
    )


@pytest.mark.parametrize("vector", EXCHANGES, ids=lambda vector: vector["name"])
def test_gateway_side_of_published_exchanges(vector: dict[str, Any]) -> None:
    """The gateway opens the published request and answers with the published bytes, however they arrive."""
    wire = unhex(vector["encapsulated_request"])
    for pieces in ([wire], bytewise(wire)):
        gateway = gateway_of(vector)
        assert opened(gateway, pieces).hex() == "".join(vector["request_chunks"])
        sealer = gateway.response_sealer(unhex(vector["response_nonce"]))
        assert sealed(sealer, map(unhex, vector["response_chunks"])).hex() == vector["encapsulated_response"]
        if "receipt_secret" in vector:
            assert gateway.export_receipt_secret().hex() == vector["receipt_secret"]


@pytest.mark.parametrize(
    "vector",
    [vector for vector in EXCHANGES if "ephemeral_private" in vector],
    ids=lambda vector: vector["name"],
)
def test_client_side_of_published_exchanges(vector: dict[str, Any]) -> None:
    """The client seals to the published bytes and opens the published response, however it arrives."""
    wire = unhex(vector["encapsulated_response"])
    for pieces in ([wire], bytewise(wire)):
        client = client_of(vector)
        assert sealed(client, map(unhex, vector["request_chunks"])).hex() == vector["encapsulated_request"]
        opener = client.response_opener()
        assert opened(opener, pieces).hex() == "".join(vector["response_chunks"])
        assert opener.complete


REJECTED_REQUESTS = [(d["vectors"][0], r) for d in DOCUMENTS for r in d["rejected_requests"]]
REJECTED_RESPONSES = [(d["vectors"][0], r) for d in DOCUMENTS for r in d["rejected_responses"]]


def ids(rejected: list[tuple[dict[str, Any], dict[str, str]]]) -> list[str]:
    """Names for the reports of pytest."""
    return [f"{'chunked' if vector['chunked'] else 'whole'}: {case['name']}" for vector, case in rejected]


@pytest.mark.parametrize(("vector", "case"), REJECTED_REQUESTS, ids=ids(REJECTED_REQUESTS))
def test_rejected_requests(vector: dict[str, Any], case: dict[str, str]) -> None:
    """Each damaged request is refused with the written code, however it arrives."""
    for pieces in ([unhex(case["input"])], bytewise(unhex(case["input"]))):
        with pytest.raises(ProtocolError) as caught:
            opened(gateway_of(vector), pieces)
        assert caught.value.code == case["rejected"]


@pytest.mark.parametrize(("vector", "case"), REJECTED_RESPONSES, ids=ids(REJECTED_RESPONSES))
def test_rejected_responses(vector: dict[str, Any], case: dict[str, str]) -> None:
    """Each damaged response is refused with the written code, however it arrives."""
    for pieces in ([unhex(case["input"])], bytewise(unhex(case["input"]))):
        client = client_of(vector)
        sealed(client, map(unhex, vector["request_chunks"]))
        with pytest.raises(ProtocolError) as caught:
            opened(client.response_opener(), pieces)
        assert caught.value.code == case["rejected"]


# --- Round trips ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kem", "aead", "chunked"), MODES)
@given(request=PIECES, response=PIECES, cuts=st.lists(st.integers(0, 3000)))
def test_round_trip_however_it_is_cut(
    kem: Kem, aead: Aead, chunked: bool, request: list[bytes], response: list[bytes], cuts: list[int]
) -> None:
    """Request and response survive in every suite and mode, and no cut of the wire changes that."""
    exchange = Exchange(kem, aead, chunked=chunked)
    wire = sealed(exchange.sealer, request)
    gateway = exchange.gateway()
    assert opened(gateway, cut(wire, cuts)) == b"".join(request)
    assert (gateway.key_id, gateway.enc) == (exchange.sealer.key_id, exchange.sealer.enc) == (7, gateway.enc)
    assert gateway.chunked == exchange.sealer.chunked == chunked
    assert gateway.response_nonce_bytes == (16 if aead is Aead.AES_128_GCM else 32)
    answer = sealed(gateway.response_sealer(NONCE), response)
    opener = exchange.sealer.response_opener()
    complete = [opener.complete]
    assert opened(opener, cut(answer, cuts)) == b"".join(response)
    assert [*complete, opener.complete, gateway.complete] == [False, True, True]
    assert gateway.export_receipt_secret() == exchange.sealer.export_receipt_secret()


def test_chunks_are_opened_as_they_arrive() -> None:
    """A chunk's plaintext is there as soon as its last byte is, and not before."""
    exchange = Exchange()
    gateway = exchange.gateway()
    for piece in (b"first", b"second", b"third"):
        chunk = exchange.sealer.push(piece)
        assert gateway.push(chunk[:-1]) == b""
        assert gateway.push(chunk[-1:]) == piece
    assert gateway.push(exchange.sealer.finish()) == b""
    assert gateway.finish() == b""


def test_whole_messages_are_opened_at_the_end() -> None:
    """Without chunks nothing is authenticated, so nothing is returned, before the end."""
    exchange = Exchange(chunked=False)
    assert exchange.sealer.push(b"first") == exchange.sealer.push(b"second") == b""
    gateway = exchange.gateway()
    assert gateway.push(exchange.sealer.finish()) == b""
    assert gateway.finish() == b"firstsecond"


@pytest.mark.parametrize("chunked", [True, False])
def test_empty_messages(chunked: bool) -> None:
    """A message without any byte is still sealed, and its end authenticated."""
    exchange = Exchange(chunked=chunked)
    _, answer = exchange.answered([], [])
    assert opened(exchange.sealer.response_opener(), [answer]) == b""


def test_large_plaintext_is_split() -> None:
    """A sender uses chunks of at most 16384 bytes, which every receiver has to accept."""
    exchange = Exchange()
    text = bytes(range(256)) * 200
    wire = exchange.sealer.push(text)
    assert len(wire) == 7 + 32 + len(text) + 4 * 16 + 3 * 4 + 2
    gateway = exchange.gateway()
    assert gateway.push(wire) == text


def test_final_chunk_is_empty_and_in_one_piece() -> None:
    """The end is a zero length and a bare tag, returned at once: a real peer fails on one that is cut."""
    exchange = Exchange()
    exchange.sealer.push(b"text")
    end = exchange.sealer.finish()
    assert len(end) == 1 + 16
    assert end[0] == 0


def test_final_chunk_of_others_may_hold_plaintext() -> None:
    """Peers that put the last bytes, or all of them, into the final chunk are understood."""
    key = KEYS[Kem.X25519]
    header = bytes.fromhex("07002000010001")
    info = CHUNKED_REQUEST_LABEL + b"\0" + header
    enc, sender = setup_sender(Kem.X25519, Kdf.HKDF_SHA256, Aead.AES_128_GCM, key.public_bytes, info)
    wire = header + enc + b"\0" + sender.seal(b"final", b"all of it")
    gateway = RequestOpener({7: key}.get, chunked=True)
    assert gateway.push(wire) == b""
    assert gateway.finish() == b"all of it"


@pytest.mark.parametrize("size", [16384, MAX_CHUNK_BYTES - 16])
@pytest.mark.parametrize("final", [True, False])
def test_chunks_of_others_may_be_large(size: int, final: bool) -> None:
    """A receiver takes chunks of 16384 bytes, as it must, and up to MAX_CHUNK_BYTES sealed."""
    key = KEYS[Kem.X25519]
    header = bytes.fromhex("07002000010001")
    info = CHUNKED_REQUEST_LABEL + b"\0" + header
    enc, sender = setup_sender(Kem.X25519, Kdf.HKDF_SHA256, Aead.AES_128_GCM, key.public_bytes, info)
    chunk = sender.seal(b"final" if final else b"", bytes(size))
    rest = b"\0" + chunk if final else encode_varint(size + 16) + chunk + b"\0" + sender.seal(b"final", b"")
    gateway = RequestOpener({7: key}.get, chunked=True)
    assert opened(gateway, [header + enc + rest]) == bytes(size)


def test_longer_length_prefixes_are_accepted() -> None:
    """Chunk lengths need not be in their shortest form, and are not authenticated."""
    exchange = Exchange()
    wire = exchange.sealer.push(b"text")
    assert wire[39] == 20
    changed = wire[:39] + b"\x80\x00\x00\x14" + wire[40:] + b"\x40\x00" + exchange.sealer.finish()[1:]
    assert opened(exchange.gateway(), [changed]) == b"text"


# --- What a host might do ---------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [True, False])
def test_every_flipped_bit_of_a_request_is_noticed(chunked: bool) -> None:
    """Whichever bit changes, opening fails; nothing of a damaged chunk is returned."""
    exchange = Exchange(chunked=chunked)
    wire = sealed(exchange.sealer, [b"one", b"two"])
    for bit in range(8 * len(wire)):
        damaged = bytearray(wire)
        damaged[bit // 8] ^= 1 << (bit % 8)
        gateway = exchange.gateway(suites=DEFAULT_SUITES)
        assert b"onetwo".startswith(seen_before_refusal(gateway, bytewise(bytes(damaged))))


@pytest.mark.parametrize("chunked", [True, False])
def test_every_flipped_bit_of_a_response_is_noticed(chunked: bool) -> None:
    """Whichever bit changes, opening fails; nothing of a damaged chunk is returned."""
    exchange = Exchange(chunked=chunked)
    _, wire = exchange.answered([b"question"], [b"one", b"two"])
    for bit in range(8 * len(wire)):
        damaged = bytearray(wire)
        damaged[bit // 8] ^= 1 << (bit % 8)
        exchange.sealer._has_opener = False
        opener = exchange.sealer.response_opener()
        assert b"onetwo".startswith(seen_before_refusal(opener, bytewise(bytes(damaged))))


def test_every_byte_of_an_x_wing_key_is_bound() -> None:
    """No other encapsulated key opens the request: one that did would slip past the memory of replays."""
    exchange = Exchange(Kem.X_WING)
    wire = sealed(exchange.sealer, [b"text"])
    for position in range(7, 7 + 1120):
        damaged = bytearray(wire)
        damaged[position] ^= 0x80
        with pytest.raises(OpenError):
            opened(exchange.gateway(), [bytes(damaged)])


@pytest.mark.parametrize(("kem", "aead", "chunked"), MODES)
def test_truncation_at_every_byte_is_noticed(kem: Kem, aead: Aead, chunked: bool) -> None:
    """A request or response that is cut anywhere does not finish."""
    exchange = Exchange(kem, aead, chunked=chunked)
    wire, answer = exchange.answered([b"one", b"two"], [b"three", b"four"])
    step = 1 if kem is Kem.X25519 else 7
    for end in range(0, len(wire), step):
        gateway = exchange.gateway()
        gateway.push(wire[:end])
        with pytest.raises((TruncatedMessage, OpenError)):
            gateway.finish()
        assert not gateway.complete
        with pytest.raises(LocalProtocolError):
            gateway.response_sealer(NONCE)
    for end in range(len(answer)):
        exchange.sealer._has_opener = False
        opener = exchange.sealer.response_opener()
        opener.push(answer[:end])
        with pytest.raises((TruncatedMessage, OpenError)):
            opener.finish()
        assert not opener.complete


def response_chunks(exchange: Exchange, pieces: list[bytes]) -> list[bytes]:
    """The response in its parts: nonce with the first chunk, further chunks, final chunk."""
    gateway = exchange.gateway()
    opened(gateway, [sealed(exchange.sealer, [b"question"])])
    sealer = gateway.response_sealer(NONCE)
    first = sealer.push(pieces[0])
    return [first[:16], first[16:], *(sealer.push(piece) for piece in pieces[1:]), sealer.finish()]


@given(
    order=st.lists(st.integers(0, 4), min_size=1, max_size=7).filter(lambda order: order != [0, 1, 2, 3, 4])
)
def test_no_other_sequence_of_chunks_opens(order: list[int]) -> None:
    """Of all ways to drop, repeat and reorder the chunks of a response, only the sent one finishes."""
    exchange = Exchange()
    nonce, *chunks = response_chunks(exchange, [b"a", b"b", b"c", b"d"])
    opener = exchange.sealer.response_opener()
    sent = [nonce, *(chunks[number] for number in order)]
    assert b"abcd".startswith(seen_before_refusal(opener, sent))


def test_chunks_of_another_exchange_do_not_open() -> None:
    """A chunk spliced in from another response under the same key is refused, as is a whole response."""
    first, second = Exchange(), Exchange()
    ours, theirs = response_chunks(first, [b"a", b"b"]), response_chunks(second, [b"a", b"b"])
    opener = first.sealer.response_opener()
    assert opener.push(ours[0] + ours[1]) == b"a"
    with pytest.raises(OpenError):
        opener.push(theirs[2])
    other = second.sealer.response_opener()
    with pytest.raises(OpenError):
        opened(other, ours)


def test_splicing_requests() -> None:
    """A chunk of one request does not open in another, nor under another's encapsulated key."""
    first, second = Exchange(), Exchange()
    first_start, second_start = first.sealer.push(b"a"), second.sealer.push(b"a")
    gateway = first.gateway()
    assert gateway.push(first_start) == b"a"
    with pytest.raises(OpenError):
        gateway.push(second.sealer.push(b"b"))
    swapped = first_start[:39] + second_start[39:]
    with pytest.raises(OpenError):
        first.gateway().push(swapped)


@pytest.mark.parametrize("chunked", [True, False])
def test_modes_do_not_mix(chunked: bool) -> None:
    """What was sealed in one mode does not open in the other, in either direction: there is no downgrade."""
    exchange = Exchange(chunked=chunked)
    wire = sealed(exchange.sealer, [b"text"])
    with pytest.raises((OpenError, TruncatedMessage, RemoteProtocolError)):
        opened(exchange.gateway(chunked=not chunked), [wire])
    gateway = exchange.gateway()
    opened(gateway, [wire])
    gateway._chunked = not chunked
    answer = sealed(gateway.response_sealer(NONCE), [b"answer"])
    with pytest.raises((OpenError, TruncatedMessage, RemoteProtocolError)):
        opened(exchange.sealer.response_opener(), [answer])


def test_a_request_does_not_open_as_its_own_response() -> None:
    """Bytes sent back where they came from are refused."""
    exchange = Exchange()
    wire = sealed(exchange.sealer, [b"text"])
    with pytest.raises((OpenError, TruncatedMessage, RemoteProtocolError)):
        opened(exchange.sealer.response_opener(), [wire])


@pytest.mark.parametrize("chunked", [True, False])
@given(data=st.binary(max_size=200))
def test_arbitrary_requests(chunked: bool, data: bytes) -> None:
    """Arbitrary bytes never open, and raise nothing outside the tree; how they are cut makes no difference."""
    genuine = bytes.fromhex("07002000010001")
    for wire in (data, genuine + data):
        results = []
        for pieces in ([wire], bytewise(wire)):
            with pytest.raises(ProtocolError) as caught:
                opened(RequestOpener({7: KEYS[Kem.X25519]}.get, chunked=chunked), pieces)
            results.append((type(caught.value), str(caught.value)))
        assert results[0] == results[1]


@pytest.mark.parametrize("chunked", [True, False])
@given(data=st.binary(max_size=200))
def test_arbitrary_responses(chunked: bool, data: bytes) -> None:
    """Arbitrary bytes never open, and raise nothing outside the tree; how they are cut makes no difference."""
    results = []
    for pieces in ([data], bytewise(data)):
        with pytest.raises(ProtocolError) as caught:
            opened(RequestSealer(CONFIG, chunked=chunked).response_opener(), pieces)
        results.append((type(caught.value), str(caught.value)))
    assert results[0] == results[1]


CONFIG = KeyConfig.of(7, KEYS[Kem.X25519])


def test_all_failures_to_open_look_alike() -> None:
    """Bad key, bad tag, empty chunk, wrong order, wrong end: one class, one message, no cause."""
    exchange = Exchange()
    wire = sealed(exchange.sealer, [b"text"])
    damages: list[Callable[[bytes], bytes]] = [
        lambda data: data[:7] + bytes(32) + data[39:],
        lambda data: data[:7] + b"\x09" + data[8:],
        lambda data: data[:45] + bytes([data[45] ^ 1]) + data[46:],
        lambda data: data[:39] + b"\x10" + bytes(16),
        lambda data: data + b"\0",
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    ]
    failures = set()
    for damage in damages:
        with pytest.raises(OpenError) as caught:
            opened(exchange.gateway(), [damage(wire)])
        error = caught.value
        failures.add(
            (str(error), error.code, error.__cause__, error.__suppress_context__ or error.__context__)
        )
    assert len({failure[:3] for failure in failures}) == 1


# --- Keys -------------------------------------------------------------------------------------------


def test_key_mismatches_are_safe_to_retry() -> None:
    """A key that is gone, another KEM or a suite that is not offered: nothing was opened, so retry is safe."""
    exchange = Exchange(Kem.X25519, Aead.AES_128_GCM)
    wire = sealed(exchange.sealer, [b"text"])
    gateways = [
        RequestOpener(lambda _: None, chunked=True),
        RequestOpener({7: KEYS[Kem.X_WING]}.get, chunked=True),
        exchange.gateway(suites=((Kdf.HKDF_SHA256, Aead.AES_256_GCM),)),
        exchange.gateway(suites=()),
    ]
    for gateway in gateways:
        with pytest.raises(KeyConfigMismatch) as caught:
            gateway.push(wire)
        assert caught.value.retry_safe
        with pytest.raises(LocalProtocolError):
            gateway.push(b"")


def test_a_rotated_key_does_not_open() -> None:
    """The same key id with a new key fails as any other failure to open does."""
    exchange = Exchange()
    wire = sealed(exchange.sealer, [b"text"])
    with pytest.raises(OpenError):
        opened(RequestOpener({7: KemPrivateKey.generate(Kem.X25519)}.get, chunked=True), [wire])


def test_choice_of_suite() -> None:
    """The gateway's first suite is used unless the caller names another that is offered."""
    suites = ((Kdf.HKDF_SHA256, Aead.CHACHA20_POLY1305), (Kdf.HKDF_SHA256, Aead.AES_128_GCM))
    config = KeyConfig.of(7, KEYS[Kem.X25519], suites)
    assert sealed(RequestSealer(config, chunked=True), [])[:7].hex() == "07002000010003"
    assert sealed(RequestSealer(config, chunked=True, suite=suites[1]), [])[:7].hex() == "07002000010001"
    with pytest.raises(LocalProtocolError):
        RequestSealer(config, chunked=True, suite=(Kdf.HKDF_SHA256, Aead.AES_256_GCM))


def test_every_request_has_its_own_key() -> None:
    """Two requests to one configuration share no encapsulated key, no ciphertext and no receipt secret."""
    sealers = [RequestSealer(CONFIG, chunked=True) for _ in range(50)]
    assert len({sealer.enc for sealer in sealers}) == 50
    assert len({sealer.export_receipt_secret() for sealer in sealers}) == 50
    assert len({sealer.push(b"text")[39:] for sealer in sealers}) == 50


# --- Misuse and limits ------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [True, False])
def test_objects_are_single_use(chunked: bool) -> None:
    """After the end every sealer and opener refuses to go on."""
    exchange = Exchange(chunked=chunked)
    wire = sealed(exchange.sealer, [b"text"])
    gateway = exchange.gateway()
    opened(gateway, [wire])
    response_sealer = gateway.response_sealer(NONCE)
    answer = sealed(response_sealer, [b"answer"])
    opener = exchange.sealer.response_opener()
    opened(opener, [answer])
    for used in (exchange.sealer, gateway, response_sealer, opener):
        with pytest.raises(LocalProtocolError):
            used.push(b"more")
        with pytest.raises(LocalProtocolError):
            used.finish()
    with pytest.raises(LocalProtocolError):
        exchange.sealer.response_opener()
    with pytest.raises(LocalProtocolError):
        gateway.response_sealer(NONCE)


@pytest.mark.parametrize("chunked", [True, False])
def test_openers_die_with_their_first_error(chunked: bool) -> None:
    """After a failure the genuine rest does not open either."""
    exchange = Exchange(chunked=chunked)
    wire, answer = exchange.answered([b"question"], [b"answer"])
    gateway, opener = exchange.gateway(), exchange.sealer.response_opener()
    for used, genuine in ((gateway, wire), (opener, answer)):
        with pytest.raises(TruncatedMessage):
            used.finish()
        with pytest.raises(LocalProtocolError):
            used.push(genuine)
        with pytest.raises(LocalProtocolError):
            used.finish()


def test_nothing_opens_after_a_forged_chunk() -> None:
    """After a forgery the genuine chunk in its place, which would open, is refused: the stream is dead."""
    exchange = Exchange()
    nonce, first, second, end = response_chunks(exchange, [b"a", b"b"])
    opener = exchange.sealer.response_opener()
    assert opener.push(nonce + first) == b"a"
    with pytest.raises(OpenError):
        opener.push(bytes([second[0]]) + bytes(second[0]))
    for rest in (second, end):
        with pytest.raises(LocalProtocolError):
            opener.push(rest)
    with pytest.raises(LocalProtocolError):
        opener.finish()
    assert not opener.complete


def test_no_response_before_the_end_of_the_request() -> None:
    """A prefix of a request, however genuine, earns no answer."""
    exchange = Exchange()
    gateway = exchange.gateway()
    for ask in (lambda: gateway.enc, lambda: gateway.key_id, gateway.export_receipt_secret):
        with pytest.raises(LocalProtocolError):
            ask()
    with pytest.raises(LocalProtocolError):
        gateway.response_sealer(NONCE)
    assert gateway.push(exchange.sealer.push(b"text")) == b"text"
    assert gateway.enc == exchange.sealer.enc
    with pytest.raises(LocalProtocolError):
        gateway.response_sealer(NONCE)


def test_response_nonces() -> None:
    """Too little entropy is refused and costs nothing; too much is cut."""
    exchange = Exchange(aead=Aead.AES_256_GCM)
    gateway = exchange.gateway()
    opened(gateway, [sealed(exchange.sealer, [])])
    with pytest.raises(LocalProtocolError):
        gateway.response_sealer(bytes(31))
    assert sealed(gateway.response_sealer(NONCE + b"more"), []).startswith(NONCE + b"\0")


def test_empty_chunks_are_our_mistake() -> None:
    """Peers treat an empty chunk that is not final as a failure to open, so we never send one."""
    exchange = Exchange()
    with pytest.raises(LocalProtocolError):
        exchange.sealer.push(b"")
    wire, _ = exchange.answered([b"text"], [])
    assert opened(exchange.gateway(), [wire]) == b"text"


@pytest.mark.parametrize("chunked", [True, False])
def test_request_size_limit(chunked: bool) -> None:
    """A request of the permitted size passes, one more byte does not, and is noticed when it arrives."""
    exchange = Exchange(chunked=chunked)
    wire = sealed(exchange.sealer, [b"text"])
    assert opened(exchange.gateway(max_bytes=len(wire)), [wire]) == b"text"
    gateway = exchange.gateway(max_bytes=len(wire) - 1)
    gateway.push(wire[:-1])
    with pytest.raises(RemoteProtocolError, match="exceeds"):
        gateway.push(wire[-1:])


def test_whole_response_size_limit() -> None:
    """A whole response is buffered up to the caller's limit only."""
    exchange = Exchange(chunked=False)
    _, answer = exchange.answered([b"question"], [b"answer"])
    opener = exchange.sealer.response_opener(max_bytes=len(answer) - 16 - 1)
    with pytest.raises(RemoteProtocolError, match="exceeds"):
        opener.push(answer)


def test_a_final_chunk_is_bounded_too() -> None:
    """The final chunk has no announced length, and is refused when it outgrows the limit."""
    exchange = Exchange()
    exchange.gateway()
    opener = exchange.sealer.response_opener()
    opener.push(bytes(16) + b"\0")
    opener.push(bytes(MAX_CHUNK_BYTES))
    with pytest.raises(RemoteProtocolError, match="exceeds"):
        opener.push(bytes(9))


@pytest.mark.parametrize("chunked", [True, False])
def test_many_small_pieces_cost_linear_time(chunked: bool) -> None:
    """A megabyte that arrives byte by byte costs time in proportion to its size."""
    exchange = Exchange(chunked=chunked)
    text = bytes(1 << 18)
    wire = sealed(exchange.sealer, [text])
    began = time.perf_counter()
    assert opened(exchange.gateway(), bytewise(wire)) == text
    assert time.perf_counter() - began < 20
