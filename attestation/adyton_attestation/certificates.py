# SPDX-License-Identifier: Apache-2.0
"""Certificates and signatures: strict PEM chains, raw ECDSA signatures, pinned trust anchors.

Reads and verifies; judges nothing. The PEM reader takes exactly what two different PEM readers understand in the
same way: certificate blocks, white space between them, and zero bytes at the end (quoting libraries count a C
string's terminator in).
"""

import base64
import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from adyton_protocol.errors import EndorsementError

Vendor: TypeAlias = Literal["Intel", "Simulated"]
"""The first word of every subject name of a PKI; it tells the trust domains apart for human eyes."""

MAX_CHAIN_BYTES: Final = 16 * 1024
MAX_CHAIN_CERTIFICATES: Final = 4
SGX_EXTENSION: Final = x509.ObjectIdentifier("1.2.840.113741.1.13.1")
"""Only PCK certificates carry it (Intel, PCK Certificate and CRL Profile, section 1.3.5)."""

_BLOCK: Final = re.compile(
    r"-----BEGIN CERTIFICATE-----\r?\n([A-Za-z0-9+/=\r\n]+)-----END CERTIFICATE-----[\r\n]*"
)
UNREADABLE: Final = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What ``cryptography`` raises for certificates and lists that it cannot read."""

_REMEMBERED: Final = 64
"""How many certificates are kept, of a few kilobytes each: strangers send them."""
_NO_LINES: Final = str.maketrans("", "", "\r\n")
_WORD_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustAnchor:
    """A pinned root certificate.

    Attributes:
        certificate: The certificate.
        der: Its exact bytes; chains must end in these.
        vendor: Whose names the PKI below it must use.
    """

    certificate: x509.Certificate
    der: bytes
    vendor: Vendor

    @property
    def sha256(self) -> str:
        """SHA-256 of the certificate, 64 hexadecimal digits."""
        return hashlib.sha256(self.der).hexdigest()


def trust_anchor(root_der: bytes) -> TrustAnchor:
    """Read a root certificate that the caller has chosen to trust.

    A root whose subject begins with ``Simulated`` anchors a PKI with simulated names; below any other root the
    names must be Intel's.

    Args:
        root_der: One DER certificate: self-issued, a CA, P-256.

    Raises:
        EndorsementError: Anything else.
    """
    try:
        certificate = _read(root_der)
    except UNREADABLE as cause:
        raise EndorsementError("the root is not a DER certificate") from cause
    if certificate.subject != certificate.issuer or not is_ca(certificate):
        raise EndorsementError("the root is not a self-issued CA certificate")
    vendor: Vendor = "Simulated" if common_name(certificate).startswith("Simulated ") else "Intel"
    return TrustAnchor(certificate=certificate, der=root_der, vendor=vendor)


def parse_chain(pem: bytes, what: str) -> tuple[x509.Certificate, ...]:
    """Read an attacker-controlled PEM chain, leaf first.

    Raises:
        EndorsementError: Not one to four certificate blocks and nothing else.
    """
    if len(pem) > MAX_CHAIN_BYTES:
        raise EndorsementError(f"{what}: longer than {MAX_CHAIN_BYTES} bytes")
    try:
        text = pem.decode("ascii")
    except UnicodeDecodeError as cause:
        raise EndorsementError(f"{what}: not PEM text") from cause
    chain: list[x509.Certificate] = []
    text = text.rstrip("\x00").lstrip("\r\n")
    while text:
        block = _BLOCK.match(text)
        if block is None:
            raise EndorsementError(f"{what}: not a chain of PEM certificates and nothing else")
        if len(chain) == MAX_CHAIN_CERTIFICATES:
            raise EndorsementError(f"{what}: more than {MAX_CHAIN_CERTIFICATES} certificates")
        chain.append(_certificate(block[1], what))
        text = text[block.end() :]
    if not chain:
        raise EndorsementError(f"{what}: empty")
    return tuple(chain)


def _certificate(encoded: str, what: str) -> x509.Certificate:
    lines = encoded.translate(_NO_LINES)
    try:
        der = base64.b64decode(lines, validate=True)
        # SECURITY: one encoding only. Unused bits of the last digit would make a second quote out of each quote.
        if base64.b64encode(der).decode("ascii") != lines:
            raise EndorsementError(f"{what}: a certificate in non-canonical base64")
        return _read(der)
    except UNREADABLE as cause:
        raise EndorsementError(f"{what}: an unreadable certificate") from cause


@lru_cache(maxsize=_REMEMBERED)
def _read(der: bytes) -> x509.Certificate:
    """Read a certificate; the same few come with every quote of a platform and with all endorsements.

    SECURITY: remembered is what follows from the bytes alone. Whether a signature holds, whether the certificate is
    in force, and what it may sign is found out anew each time.
    """
    certificate = x509.load_der_x509_certificate(der)
    _decode_all(certificate)
    return certificate


def _decode_all(certificate: x509.Certificate) -> None:
    """Decode what the library decodes lazily, so that a malformed part is an error here and nowhere later."""
    certificate.public_key()
    _ = (certificate.serial_number, certificate.signature_hash_algorithm, certificate.issuer)
    _ = (certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp())
    is_ca(certificate)
    has_sgx_extension(certificate)
    common_name(certificate)


def der_of(certificate: x509.Certificate) -> bytes:
    """Return the exact bytes of a certificate."""
    return certificate.public_bytes(Encoding.DER)


@lru_cache(maxsize=_REMEMBERED)
def common_name(certificate: x509.Certificate) -> str:
    """Return the one common name of the subject, or an empty string."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else ""


def is_ca(certificate: x509.Certificate) -> bool:
    """Whether basic constraints make this a CA certificate; without them it is none."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def has_sgx_extension(certificate: x509.Certificate) -> bool:
    """Whether the certificate describes a platform."""
    return any(extension.oid == SGX_EXTENSION for extension in certificate.extensions)


def issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether ``issuer`` is named in and has signed ``certificate``, with ECDSA P-256 and SHA-256."""
    if not isinstance(certificate.signature_hash_algorithm, hashes.SHA256):
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, *UNREADABLE):
        return False
    return isinstance(issuer.public_key(), ec.EllipticCurvePublicKey)


def signature_holds(key: object, signature: bytes, data: bytes) -> bool:
    """Whether a raw r || s signature (ECDSA P-256, SHA-256) over ``data`` verifies under ``key``.

    Args:
        key: A public key; anything but a P-256 key verifies nothing.
        signature: 64 bytes; attacker-controlled.
        data: What was signed.
    """
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        return False
    if len(signature) != 2 * _WORD_BYTES:
        return False
    r = int.from_bytes(signature[:_WORD_BYTES], "big")
    s = int.from_bytes(signature[_WORD_BYTES:], "big")
    try:
        key.verify(encode_dss_signature(r, s), data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def p256_key(point: bytes) -> ec.EllipticCurvePublicKey | None:
    """Return the key of x || y (64 bytes, attacker-controlled), or None when it is not a point of the curve."""
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + point)
    except ValueError:
        return None
