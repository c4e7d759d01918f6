# SPDX-License-Identifier: Apache-2.0
"""HPKE against the published vectors, two foreign implementations, and misuse."""

import contextlib
import hashlib
import json
import pickle  # noqa: TID251 - only to show that it fails
from pathlib import Path
from typing import Any

import pyhpke
import pytest
from cryptography.hazmat.primitives import hpke as pyca
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from adyton_protocol import hpke
from adyton_protocol.errors import LocalProtocolError, OpenError, RemoteProtocolError
from adyton_protocol.hpke import Aead, Kdf, Kem, KemPrivateKey, setup_recipient, setup_sender

VECTORS = Path(__file__).parents[2] / "vectors"
HPKE = json.loads((VECTORS / "hpke.json").read_text())
X_WING = json.loads((VECTORS / "x_wing.json").read_text())["vectors"]
SUITES = [(kem, aead) for kem in Kem for aead in Aead]


def unhex(text: str) -> bytes:
    """Bytes of a hexadecimal string."""
    return bytes.fromhex(text)


def x_wing_key(seed: bytes) -> KemPrivateKey:
    """The key that the X-Wing draft expands from a 32-byte seed; our own keys have no seed."""
    expanded = hashlib.shake_256(seed).digest(96)
    return KemPrivateKey(
        X25519PrivateKey.from_private_bytes(expanded[64:]), MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
    )


def x25519_key(private: str) -> KemPrivateKey:
    """An X25519 key from the bytes of a vector."""
    return KemPrivateKey(X25519PrivateKey.from_private_bytes(unhex(private)))


def key_of(vector: dict[str, Any]) -> KemPrivateKey:
    """The recipient's key of a vector."""
    if "recipient_seed" in vector:
        return x_wing_key(unhex(vector["recipient_seed"]))
    return x25519_key(vector["recipient_private"])


# --- Published vectors ------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", HPKE["vectors"], ids=lambda vector: vector["name"])
def test_published_vectors_open(vector: dict[str, Any]) -> None:
    """The recipient opens every published message in its place and exports the published secrets."""
    key = key_of(vector)
    assert key.public_bytes == unhex(vector["recipient_public"])
    assert key.decapsulate(unhex(vector["enc"])) == unhex(vector["shared_secret"])
    aead = Aead(vector["aead_id"])
    context = setup_recipient(key, Kdf(vector["kdf_id"]), aead, unhex(vector["enc"]), unhex(vector["info"]))
    for message in vector["encryptions"]:
        context._key._sequence = message["sequence"]
        opened = context.open(unhex(message["aad"]), unhex(message["ciphertext"]))
        assert opened == unhex(message["plaintext"])
    for export in vector["exports"]:
        assert context.export(unhex(export["context"]), export["length"]) == unhex(export["value"])


@pytest.mark.parametrize(
    "vector", [vector for vector in HPKE["vectors"] if "ephemeral_private" in vector], ids=lambda v: v["name"]
)
def test_published_vectors_seal(vector: dict[str, Any]) -> None:
    """With the published ephemeral key the sender produces every published byte."""
    enc, context = setup_sender(
        Kem(vector["kem_id"]),
        Kdf(vector["kdf_id"]),
        Aead(vector["aead_id"]),
        unhex(vector["recipient_public"]),
        unhex(vector["info"]),
        insecure_ephemeral=X25519PrivateKey.from_private_bytes(unhex(vector["ephemeral_private"])),
    )
    assert enc == unhex(vector["enc"])
    for message in vector["encryptions"]:
        context._key._sequence = message["sequence"]
        assert context.seal(unhex(message["aad"]), unhex(message["plaintext"])) == unhex(
            message["ciphertext"]
        )
    for export in vector["exports"]:
        assert context.export(unhex(export["context"]), export["length"]) == unhex(export["value"])


def drawn(source: bytes, count: int) -> list[bytes]:
    """``count`` inputs from ``source``: a length byte and that many bytes, each."""
    inputs: list[bytes] = []
    offset = 0
    for _ in range(count):
        end = offset + 1 + source[offset]
        inputs.append(source[offset + 1 : end])
        offset = end
    return inputs


@pytest.mark.parametrize("vector", HPKE["accumulated"], ids=lambda vector: vector["name"])
def test_accumulated_vectors(vector: dict[str, Any]) -> None:
    """A thousand messages and a thousand exports, for each cipher, digest to the published value."""
    kdf, aead = Kdf(vector["kdf_id"]), Aead(vector["aead_id"])
    info = unhex(vector["info"])
    enc, sender = setup_sender(
        Kem(vector["kem_id"]),
        kdf,
        aead,
        unhex(vector["recipient_public"]),
        info,
        insecure_ephemeral=X25519PrivateKey.from_private_bytes(unhex(vector["ephemeral_private"])),
    )
    assert enc == unhex(vector["enc"])
    recipient = setup_recipient(x25519_key(vector["recipient_private"]), kdf, aead, enc, info)
    source = hashlib.shake_128().digest(1 << 19)
    sealed = hashlib.shake_128()
    inputs = drawn(source, 2000)
    for aad, plaintext in zip(inputs[::2], inputs[1::2], strict=True):
        ciphertext = sender.seal(aad, plaintext)
        assert recipient.open(aad, ciphertext) == plaintext
        sealed.update(ciphertext)
    assert sealed.hexdigest(16) == vector["encryptions_accumulated"]
    exported = hashlib.shake_128()
    for length, context in enumerate(drawn(source, 1000)):
        value = sender.export(context, length)
        assert recipient.export(context, length) == value
        exported.update(value)
    assert exported.hexdigest(16) == vector["exports_accumulated"]


@pytest.mark.parametrize("vector", X_WING, ids=lambda vector: vector["seed"][:8])
def test_x_wing_vectors(vector: dict[str, str]) -> None:
    """Public keys and shared secrets are those of the X-Wing draft."""
    key = x_wing_key(unhex(vector["seed"]))
    assert key.public_bytes == unhex(vector["public_key"])
    assert key.decapsulate(unhex(vector["enc"])) == unhex(vector["shared_secret"])


@given(
    salt=st.binary(max_size=80),
    ikm=st.binary(max_size=80),
    info=st.binary(max_size=80),
    length=st.integers(1, 8160),
)
def test_hkdf_agrees_with_an_oracle(salt: bytes, ikm: bytes, info: bytes, length: int) -> None:
    """Extract and expand together are what ``cryptography`` derives."""
    oracle = HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(ikm)
    assert hpke.hkdf_expand(hpke.hkdf_extract(salt, ikm), info, length) == oracle


# --- Foreign implementations ------------------------------------------------------------------------

PYCA_AEADS = {
    Aead.AES_128_GCM: pyca.AEAD.AES_128_GCM,
    Aead.AES_256_GCM: pyca.AEAD.AES_256_GCM,
    Aead.CHACHA20_POLY1305: pyca.AEAD.CHACHA20_POLY1305,
}
PYHPKE_AEADS = {
    Aead.AES_128_GCM: pyhpke.AEADId.AES128_GCM,
    Aead.AES_256_GCM: pyhpke.AEADId.AES256_GCM,
    Aead.CHACHA20_POLY1305: pyhpke.AEADId.CHACHA20_POLY1305,
}


def pyca_suite(kem: Kem, aead: Aead) -> pyca.Suite:
    """The same suite in ``cryptography``."""
    foreign = pyca.KEM.X25519 if kem is Kem.X25519 else pyca.KEM.MLKEM768_X25519
    return pyca.Suite(foreign, pyca.KDF.HKDF_SHA256, PYCA_AEADS[aead])


@pytest.mark.parametrize(("kem", "aead"), SUITES)
def test_cryptography_opens_what_we_seal(kem: Kem, aead: Aead) -> None:
    """The single-shot HPKE of ``cryptography`` opens our first message."""
    x25519 = X25519PrivateKey.generate()
    mlkem = MLKEM768PrivateKey.generate()
    ours = KemPrivateKey(x25519, mlkem if kem is Kem.X_WING else None)
    theirs = x25519 if kem is Kem.X25519 else pyca.MLKEM768X25519PrivateKey(mlkem, x25519)
    enc, sender = setup_sender(kem, Kdf.HKDF_SHA256, aead, ours.public_bytes, b"info")
    assert pyca_suite(kem, aead).decrypt(enc + sender.seal(b"", b"message"), theirs, b"info") == b"message"


@pytest.mark.parametrize(("kem", "aead"), SUITES)
def test_we_open_what_cryptography_seals(kem: Kem, aead: Aead) -> None:
    """We open a message of the single-shot HPKE of ``cryptography``."""
    ours = KemPrivateKey.generate(kem)
    x25519 = X25519PublicKey.from_public_bytes(ours.public_bytes[-32:])
    if kem is Kem.X25519:
        message = pyca_suite(kem, aead).encrypt(b"message", x25519, b"info")
    else:
        mlkem = MLKEM768PublicKey.from_public_bytes(ours.public_bytes[:-32])
        public = pyca.MLKEM768X25519PublicKey(mlkem, x25519)
        message = pyca_suite(kem, aead).encrypt(b"message", public, b"info")
    enc, sealed = message[: kem.enc_bytes], message[kem.enc_bytes :]
    assert setup_recipient(ours, Kdf.HKDF_SHA256, aead, enc, b"info").open(b"", sealed) == b"message"


@pytest.mark.parametrize("aead", list(Aead))
def test_pyhpke_contexts_agree(aead: Aead) -> None:
    """``pyhpke`` and we open each other's numbered messages and export the same secrets."""
    suite = pyhpke.CipherSuite.new(
        pyhpke.KEMId.DHKEM_X25519_HKDF_SHA256, pyhpke.KDFId.HKDF_SHA256, PYHPKE_AEADS[aead]
    )
    private = X25519PrivateKey.generate()
    ours = KemPrivateKey(private)
    their_public = pyhpke.KEMKey.from_pyca_cryptography_key(private.public_key())
    their_private = pyhpke.KEMKey.from_pyca_cryptography_key(private)
    enc, sender = setup_sender(Kem.X25519, Kdf.HKDF_SHA256, aead, ours.public_bytes, b"info")
    recipient = suite.create_recipient_context(enc, their_private, b"info")
    their_enc, their_sender = suite.create_sender_context(their_public, b"info")
    our_recipient = setup_recipient(ours, Kdf.HKDF_SHA256, aead, their_enc, b"info")
    for number in range(5):
        text, aad = b"m" * number, b"aad%d" % number
        assert recipient.open(sender.seal(aad, text), aad) == text
        assert our_recipient.open(aad, their_sender.seal(text, aad)) == text
    assert recipient.export(b"context", 50) == sender.export(b"context", 50)
    assert their_sender.export(b"context", 50) == our_recipient.export(b"context", 50)


# --- Contexts ---------------------------------------------------------------------------------------


def pair(
    kem: Kem = Kem.X25519, aead: Aead = Aead.AES_128_GCM
) -> tuple[hpke.SenderContext, hpke.RecipientContext]:
    """Two ends of one context."""
    key = KemPrivateKey.generate(kem)
    enc, sender = setup_sender(kem, Kdf.HKDF_SHA256, aead, key.public_bytes, b"info")
    return sender, setup_recipient(key, Kdf.HKDF_SHA256, aead, enc, b"info")


@pytest.mark.parametrize(("kem", "aead"), SUITES)
@given(messages=st.lists(st.tuples(st.binary(), st.binary()), max_size=5))
def test_round_trip(kem: Kem, aead: Aead, messages: list[tuple[bytes, bytes]]) -> None:
    """Whatever is sealed is opened, in order, 16 bytes longer on the way."""
    sender, recipient = pair(kem, aead)
    for aad, plaintext in messages:
        sealed = sender.seal(aad, plaintext)
        assert len(sealed) == len(plaintext) + 16
        assert recipient.open(aad, sealed) == plaintext


def test_a_failed_open_does_not_advance() -> None:
    """After a forgery the genuine message still opens; a message opens once only."""
    sender, recipient = pair()
    first, second = sender.seal(b"", b"one"), sender.seal(b"", b"two")
    for forged in (second, b"", first[:-1], first + b"\0", bytes(19)):
        with pytest.raises(OpenError):
            recipient.open(b"", forged)
    with pytest.raises(OpenError):
        recipient.open(b"other", first)
    assert recipient.open(b"", first) == b"one"
    with pytest.raises(OpenError):
        recipient.open(b"", first)
    assert recipient.open(b"", second) == b"two"


def test_message_limit() -> None:
    """The last number is refused by both ends, so that no nonce is ever used twice."""
    sender, recipient = pair()
    for context in (sender, recipient):
        context._key._sequence = (1 << 96) - 2
    assert recipient.open(b"", sender.seal(b"", b"last")) == b"last"
    with pytest.raises(LocalProtocolError):
        sender.seal(b"", b"too many")
    with pytest.raises(LocalProtocolError):
        recipient.open(b"", bytes(16))


def test_nonces_are_all_different() -> None:
    """Base nonce XOR number: every message of a context has its own nonce."""
    key = hpke.AeadKey(Aead.AES_128_GCM, bytes(16), bytes(range(12)))
    seen = set()
    for _ in range(1000):
        seen.add(key._aead_nonce())
        key.seal(b"", b"")
    assert len(seen) == 1000


@pytest.mark.parametrize("kem", list(Kem))
def test_other_info_other_key_other_suite_do_not_open(kem: Kem) -> None:
    """A context is bound to its info, its key and its cipher."""
    key, other = KemPrivateKey.generate(kem), KemPrivateKey.generate(kem)
    kdf = Kdf.HKDF_SHA256
    enc, sender = setup_sender(kem, kdf, Aead.AES_256_GCM, key.public_bytes, b"info")
    sealed = sender.seal(b"", b"message")
    for recipient in (
        setup_recipient(key, kdf, Aead.AES_256_GCM, enc, b"infO"),
        setup_recipient(other, kdf, Aead.AES_256_GCM, enc, b"info"),
        setup_recipient(key, kdf, Aead.AES_128_GCM, enc, b"info"),
        setup_recipient(key, kdf, Aead.CHACHA20_POLY1305, enc, b"info"),
    ):
        with pytest.raises(OpenError):
            recipient.open(b"", sealed)


# --- Hostile keys -----------------------------------------------------------------------------------

LOW_ORDER = [
    bytes(32),
    (1).to_bytes(32, "little"),
    unhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    unhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 18).to_bytes(32, "little"),
]


@pytest.mark.parametrize("point", LOW_ORDER, ids=lambda point: point.hex()[:8])
def test_points_of_low_order_are_refused(point: bytes) -> None:
    """The all-zero X25519 secret is refused on both ends and in both KEMs (RFC 9180 section 7.1.4)."""
    genuine = KemPrivateKey.generate(Kem.X_WING)
    enc, _ = setup_sender(Kem.X_WING, Kdf.HKDF_SHA256, Aead.AES_128_GCM, genuine.public_bytes, b"")
    for kem, public in ((Kem.X25519, point), (Kem.X_WING, genuine.public_bytes[:-32] + point)):
        with pytest.raises(RemoteProtocolError):
            setup_sender(kem, Kdf.HKDF_SHA256, Aead.AES_128_GCM, public, b"")
    with pytest.raises(OpenError):
        KemPrivateKey.generate(Kem.X25519).decapsulate(point)
    with pytest.raises(OpenError):
        genuine.decapsulate(enc[:-32] + point)


@given(
    enc=st.one_of(
        st.binary(max_size=70), st.binary(min_size=32, max_size=32), st.binary(min_size=1120, max_size=1120)
    )
)
def test_arbitrary_encapsulated_keys(enc: bytes) -> None:
    """Any ``enc`` gives a 32-byte secret or the one OpenError."""
    for key in (RECIPIENT, X_WING_RECIPIENT):
        with contextlib.suppress(OpenError):
            assert len(key.decapsulate(enc)) == 32


RECIPIENT = KemPrivateKey.generate(Kem.X25519)
X_WING_RECIPIENT = KemPrivateKey.generate(Kem.X_WING)


@pytest.mark.parametrize("kem", list(Kem))
@given(
    public=st.one_of(
        st.binary(max_size=40), st.binary(min_size=32, max_size=32), st.binary(min_size=1216, max_size=1216)
    )
)
def test_arbitrary_public_keys(kem: Kem, public: bytes) -> None:
    """Any public key gives a context or a RemoteProtocolError."""
    try:
        enc, _ = setup_sender(kem, Kdf.HKDF_SHA256, Aead.AES_128_GCM, public, b"")
    except RemoteProtocolError:
        return
    assert len(public) == kem.public_key_bytes
    assert len(enc) == kem.enc_bytes


def test_ml_kem_coefficients_are_checked() -> None:
    """A public key with a coefficient out of range is refused (FIPS 203 section 7.2)."""
    genuine = X_WING_RECIPIENT.public_bytes
    with pytest.raises(RemoteProtocolError):
        hpke.check_public_key(Kem.X_WING, b"\xff\xff\xff" + genuine[3:])


@pytest.mark.parametrize("key", [RECIPIENT, X_WING_RECIPIENT], ids=["X25519", "X-Wing"])
def test_private_keys_do_not_leave(key: KemPrivateKey) -> None:
    """A private key shows its KEM and nothing else, cannot be pickled, and offers no bytes."""
    assert repr(key) == f"<KemPrivateKey {key.kem.name}>"
    with pytest.raises((TypeError, pickle.PicklingError, AttributeError)):
        pickle.dumps(key)
    assert [name for name in dir(key) if "private" in name or "seed" in name] == []
    assert not hasattr(key, "__dict__")


def test_generated_keys_are_distinct() -> None:
    """No two keys are alike."""
    assert len({KemPrivateKey.generate(kem).public_bytes for kem in Kem for _ in range(8)}) == 16


def test_too_much_expansion_is_our_mistake() -> None:
    """HKDF-SHA256 ends at 8160 bytes."""
    sender, _ = pair()
    assert len(sender.export(b"", 8160)) == 8160
    for length in (-1, 8161):
        with pytest.raises(LocalProtocolError):
            sender.export(b"", length)
        with pytest.raises(LocalProtocolError):
            hpke.hkdf_expand(bytes(32), b"", length)
