# SPDX-License-Identifier: Apache-2.0
r"""A quote builder: what a simulated quoting enclave would sign. The reference for tests.

An SGX version 3 quote, as every verifier here expects it, integers little-endian (Intel, *SGX ECDSA Quote Library
Reference*, appendix A)::

    offset  bytes  field
         0      2  version = 3
         2      2  attestation key type = 2 (ECDSA P-256)
         4      4  TEE type = 0 (SGX)
         8      2  QE SVN
        10      2  PCE SVN
        12     16  QE vendor id = 939a7233f79c4ca9940a0db3957f0607 (Intel's; the field is not a key)
        28     20  user data
        48    384  ISV enclave report:
        48     16    CPUSVN
        64      4    MISCSELECT
        68     12    reserved, zero
        80     16    ISVEXTPRODID (KSS), zero
        96     16    attributes: 8 bytes of flags (INIT 0x01, DEBUG 0x02, MODE64BIT 0x04), 8 bytes of XFRM
       112     32    MRENCLAVE
       144     32    reserved, zero
       176     32    MRSIGNER
       208     32    reserved, zero
       240     64    CONFIGID (KSS), zero
       304      2    ISVPRODID
       306      2    ISVSVN
       308      2    CONFIGSVN (KSS), zero
       310     42    reserved, zero
       352     16    ISVFAMILYID (KSS), zero
       368     64    REPORTDATA
       432      4  length of everything below
       436     64  signature r || s over bytes 0 to 432, by the attestation key
       500     64  attestation key x || y
       564    384  QE report (same layout); REPORTDATA = SHA-256(attestation key || QE authentication data) || zeros
       948     64  signature r || s over the QE report, by the PCK key
      1012      2  length of the QE authentication data = 32
      1014     32  QE authentication data
      1046      2  certification data type = 5 (PCK certificate chain)
      1048      4  length of the chain
      1052      n  PEM: PCK certificate, PCK CA, root; nothing after it

All signatures are ECDSA P-256 over SHA-256, r and s as 32 big-endian bytes each; the attestation key is x and y
as 32 big-endian bytes each. The quote ends with the chain; zero bytes may follow, others may not.
"""

import hashlib
import struct
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from adyton_attestation.simulation.collateral import TDX_MODULE_SVN, TDX_MODULE_VERSION
from adyton_attestation.simulation.pki import SimulatedPki, raw_signature

QE_VENDOR_ID: Final = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
ECDSA_P256: Final = 2
SGX_TEE: Final = 0x00
TDX_TEE: Final = 0x81
CERT_CHAIN: Final = 5
QE_REPORT_CERTIFICATION: Final = 6
QE_AUTH_DATA: Final = bytes(range(32))


@dataclass(frozen=True, slots=True, kw_only=True)
class EnclaveReportSpec:
    """Fields of an SGX enclave report; the layout is in the module's docstring."""

    mr_enclave: bytes
    report_data: bytes
    mr_signer: bytes = bytes(32)
    cpu_svn: bytes = bytes(16)
    misc_select: int = 0
    isv_ext_prod_id: bytes = bytes(16)
    attributes: bytes = bytes.fromhex("0500000000000000e700000000000000")
    config_id: bytes = bytes(64)
    isv_prod_id: int = 0
    isv_svn: int = 0
    config_svn: int = 0
    isv_family_id: bytes = bytes(16)

    def encode(self) -> bytes:
        """Return the 384 bytes."""
        return b"".join(
            (
                self.cpu_svn,
                struct.pack("<I", self.misc_select),
                bytes(12),
                self.isv_ext_prod_id,
                self.attributes,
                self.mr_enclave,
                bytes(32),
                self.mr_signer,
                bytes(32),
                self.config_id,
                struct.pack("<HHH", self.isv_prod_id, self.isv_svn, self.config_svn),
                bytes(42),
                self.isv_family_id,
                self.report_data,
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TdReportSpec:
    """Fields of a TD report that tests set; the rest is zero."""

    report_data: bytes
    mr_td: bytes
    rt_mrs: tuple[bytes, bytes, bytes, bytes] = field(default=(bytes(48), bytes(48), bytes(48), bytes(48)))
    td_attributes: bytes = bytes.fromhex("0000001000000000")
    tee_tcb_svn: bytes = bytes((TDX_MODULE_SVN, TDX_MODULE_VERSION)) + bytes(14)
    mr_config_id: bytes = bytes(48)
    mr_owner: bytes = bytes(48)
    mr_owner_config: bytes = bytes(48)

    def encode(self) -> bytes:
        """Return the 584 bytes of a TDX 1.0 report."""
        return b"".join(
            (
                self.tee_tcb_svn,
                bytes(48),  # MRSEAM
                bytes(48),  # MRSIGNERSEAM
                bytes(8),  # SEAMATTRIBUTES
                self.td_attributes,
                bytes.fromhex("e702060000000000"),  # XFAM
                self.mr_td,
                self.mr_config_id,
                self.mr_owner,
                self.mr_owner_config,
                *self.rt_mrs,
                self.report_data,
            )
        )


def build_sgx_quote(
    pki: SimulatedPki, report: EnclaveReportSpec, *, chain_pem: str | None = None, version: int = 3
) -> bytes:
    """Quote an enclave report with a fresh attestation key.

    Args:
        pki: The platform that quotes.
        report: What it quotes.
        chain_pem: Another chain to embed, for tests of the guard.
        version: Version field of the header, for tests of the parser.
    """
    signed = _header(version, SGX_TEE, pki) + report.encode()
    key = ec.generate_private_key(ec.SECP256R1())
    body = raw_signature(key, signed) + _point(key) + _qe_certification(pki, key, chain_pem)
    return signed + struct.pack("<I", len(body)) + body


def build_tdx_quote(
    pki: SimulatedPki, report: TdReportSpec, *, version: int = 4, chain_pem: str | None = None
) -> bytes:
    """Quote a TD report as version 4, or as version 5 with a TDX 1.0 body."""
    encoded = report.encode()
    body_header = struct.pack("<HI", 2, len(encoded)) if version == 5 else b""  # noqa: PLR2004 - the quote version
    signed = _header(version, TDX_TEE, pki) + body_header + encoded
    key = ec.generate_private_key(ec.SECP256R1())
    certification = _qe_certification(pki, key, chain_pem)
    body = raw_signature(key, signed) + _point(key)
    body += struct.pack("<HI", QE_REPORT_CERTIFICATION, len(certification)) + certification
    return signed + struct.pack("<I", len(body)) + body


def _header(version: int, tee_type: int, pki: SimulatedPki) -> bytes:
    fixed = struct.pack(
        "<HHIHH", version, ECDSA_P256, tee_type, pki.platform.qe.isv_svn, pki.platform.pce_svn
    )
    return fixed + QE_VENDOR_ID + bytes(20)


def _point(key: ec.EllipticCurvePrivateKey) -> bytes:
    numbers = key.public_key().public_numbers()
    return numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")


def _qe_certification(pki: SimulatedPki, key: ec.EllipticCurvePrivateKey, chain_pem: str | None) -> bytes:
    qe = pki.platform.qe
    report = EnclaveReportSpec(
        mr_enclave=qe.mr_enclave,
        mr_signer=qe.mr_signer,
        cpu_svn=pki.platform.cpu_svn,
        misc_select=qe.misc_select,
        attributes=qe.attributes,
        isv_prod_id=qe.isv_prod_id,
        isv_svn=qe.isv_svn,
        report_data=hashlib.sha256(_point(key) + QE_AUTH_DATA).digest() + bytes(32),
    ).encode()
    chain = (pki.pck_chain_pem() if chain_pem is None else chain_pem).encode("ascii")
    return b"".join(
        (
            report,
            pki.pck.sign(report),
            struct.pack("<H", len(QE_AUTH_DATA)) + QE_AUTH_DATA,
            struct.pack("<HI", CERT_CHAIN, len(chain)) + chain,
        )
    )
