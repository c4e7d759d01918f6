# SPDX-License-Identifier: Apache-2.0
"""A simulated Intel: root, PCK CA, TCB signer and PCK certificates, made anew for every installation.

The shapes are Intel's (PCK Certificate and CRL Profile, revision 1.5), so that the same verification code runs
in both trust domains. What keeps the domains apart: another root key, subject names that begin with
``Simulated``, and an FMSPC that Intel does not use. No key of this PKI ever ships; whoever holds one can
simulate anything, which is why nothing but the simulated verifier accepts it.
"""

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

from adyton_attestation.simulation import der

ROOT_NAME: Final = "Simulated SGX Root CA"
PCK_CA_NAME: Final = "Simulated SGX PCK Platform CA"
PCK_NAME: Final = "Simulated SGX PCK Certificate"
TCB_SIGNING_NAME: Final = "Simulated SGX TCB Signing"

FMSPC: Final = bytes.fromhex("ad7705ffffff")
"""Family, model, stepping and platform of the simulated hardware; outside what Intel assigns."""

SGX_EXTENSION_OID: Final = "1.2.840.113741.1.13.1"

DAY_S: Final = 86_400
CERTIFICATE_LIFE_S: Final = 3650 * DAY_S
BACKDATING_S: Final = DAY_S
"""Certificates begin a day in the past, so that a skewed clock does not refuse them."""


def _digest(text: str) -> bytes:
    return hashlib.sha256(b"adyton simulation: " + text.encode()).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotingEnclave:
    """The simulated quoting enclave, as its report and the QE identity describe it.

    Attributes:
        mr_enclave: 32 bytes.
        mr_signer: 32 bytes; what the QE identity names.
        isv_prod_id: Product id.
        isv_svn: Security version.
        misc_select: MISCSELECT.
        attributes: 16 bytes: flags (INIT, 64 bit, provisioning key) and XFRM.
    """

    mr_enclave: bytes = _digest("quoting enclave")
    mr_signer: bytes = _digest("quoting enclave signer")
    isv_prod_id: int = 1
    isv_svn: int = 8
    misc_select: int = 0
    attributes: bytes = bytes.fromhex("1500000000000000e700000000000000")


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """The simulated hardware, as its PCK certificate describes it.

    Attributes:
        fmspc: 6 bytes.
        ppid: 16 bytes; the platform provisioning id.
        cpu_svn: 16 bytes; the sixteen TCB components.
        pce_svn: Security version of the provisioning certification enclave.
        pce_id: 2 bytes.
        qe: The quoting enclave.
    """

    fmspc: bytes = FMSPC
    ppid: bytes
    cpu_svn: bytes = bytes.fromhex("05050202ff0100050000000000000000")
    pce_svn: int = 13
    pce_id: bytes = b"\x00\x00"
    qe: QuotingEnclave = field(default_factory=QuotingEnclave)


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """A private key with its certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def der(self) -> bytes:
        """Return the certificate as DER."""
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def pem(self) -> str:
        """Return the certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")

    def key_pem(self) -> bytes:
        """Return the private key as unencrypted PKCS #8 PEM."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign(self, data: bytes) -> bytes:
        """Sign with ECDSA P-256 and SHA-256; returns r and s, 32 bytes each, as quotes and collateral carry them."""
        return raw_signature(self.key, data)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedPki:
    """One installation's PKI and platform."""

    root: Authority
    pck_ca: Authority
    tcb_signing: Authority
    pck: Authority
    platform: Platform

    def pck_chain_pem(self) -> str:
        """Return leaf, PCK CA and root as one PEM text, as a quote embeds it."""
        return self.pck.pem() + self.pck_ca.pem() + self.root.pem()


def raw_signature(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """Sign with ECDSA P-256 and SHA-256; returns r and s as 32 big-endian bytes each."""
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def utc(seconds: int) -> datetime:
    """Return a Unix time as an aware datetime."""
    return datetime.fromtimestamp(seconds, UTC)


def issue(
    common_name: str,
    *,
    issuer: Authority | None,
    now_s: int,
    ca: bool,
    path_length: int | None = None,
    sgx_extension: bytes | None = None,
    key: ec.EllipticCurvePrivateKey | None = None,
) -> Authority:
    """Issue a certificate for a fresh P-256 key.

    Args:
        common_name: Subject common name.
        issuer: Who signs; None makes a self-signed root.
        now_s: Unix time; validity begins a day earlier.
        ca: Whether the subject may issue certificates and CRLs.
        path_length: Path length constraint of a CA.
        sgx_extension: Content of the SGX extension, for PCK certificates.
        key: The subject's key when it exists already.
    """
    subject_key = ec.generate_private_key(ec.SECP256R1()) if key is None else key
    signing_key = subject_key if issuer is None else issuer.key
    subject = _name(common_name)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(subject_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(utc(now_s - BACKDATING_S))
        .not_valid_after(utc(now_s + CERTIFICATE_LIFE_S))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
        .add_extension(_key_usage(ca=ca), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(subject_key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()), critical=False
        )
    )
    if sgx_extension is not None:
        oid = x509.ObjectIdentifier(SGX_EXTENSION_OID)
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, sgx_extension), critical=False)
    return Authority(key=subject_key, certificate=builder.sign(signing_key, hashes.SHA256()))


def create_root(now_s: int) -> Authority:
    """Make the self-signed simulated root."""
    return issue(ROOT_NAME, issuer=None, now_s=now_s, ca=True, path_length=1)


def create_pki(now_s: int) -> SimulatedPki:
    """Make a whole PKI with one platform, every key fresh."""
    root = create_root(now_s)
    pck_ca = issue(PCK_CA_NAME, issuer=root, now_s=now_s, ca=True, path_length=0)
    pck_key = ec.generate_private_key(ec.SECP256R1())
    spki = pck_key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    platform = Platform(ppid=hashlib.sha256(b"adyton simulated ppid" + spki).digest()[:16])
    return SimulatedPki(
        root=root,
        pck_ca=pck_ca,
        tcb_signing=issue(TCB_SIGNING_NAME, issuer=root, now_s=now_s, ca=False),
        pck=issue(
            PCK_NAME,
            issuer=pck_ca,
            now_s=now_s,
            ca=False,
            sgx_extension=sgx_extension(platform),
            key=pck_key,
        ),
        platform=platform,
    )


def sgx_extension(platform: Platform) -> bytes:
    """Encode the SGX extension of a PCK certificate issued by the Platform CA (PCK profile section 1.3.5)."""

    def member(suffix: str, value: bytes) -> bytes:
        return der.sequence(der.oid(f"{SGX_EXTENSION_OID}.{suffix}"), value)

    components = [
        member(f"2.{index}", der.integer(svn)) for index, svn in enumerate(platform.cpu_svn, start=1)
    ]
    tcb = der.sequence(
        *components,
        member("2.17", der.integer(platform.pce_svn)),
        member("2.18", der.octets(platform.cpu_svn)),
    )
    configuration = der.sequence(
        member("7.1", der.boolean(value=True)),
        member("7.2", der.boolean(value=False)),
        member("7.3", der.boolean(value=True)),
    )
    return der.sequence(
        member("1", der.octets(platform.ppid)),
        member("2", tcb),
        member("3", der.octets(platform.pce_id)),
        member("4", der.octets(platform.fmspc)),
        member("5", der.enumerated(1)),
        member("6", der.octets(platform.ppid)),
        member("7", configuration),
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Adyton simulation, not Intel"),
        ]
    )


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=not ca,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )
