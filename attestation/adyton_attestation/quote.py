# SPDX-License-Identifier: Apache-2.0
"""Parse a quote: bytes in, fields out, nothing trusted.

Covered are the three forms that DCAP produces with ECDSA P-256 keys: SGX quotes of version 3, TDX quotes of
version 4, and TDX quotes of version 5 with TDX 1.0, 1.5 or 1.5ex reports. All integers are little-endian. Sources:
Intel, *SGX ECDSA Quote Library Reference*, appendix A; *TDX DCAP Quoting Library API*, appendix A.

Invariants: every field has the length that its docstring says; ``signed`` is exactly what the attestation key
signed; every byte of the signature section belongs to a field; ``tail`` is whatever followed the quote. Nothing
here verifies a signature, judges a value or looks into a certificate.
"""

import struct
from dataclasses import dataclass
from typing import Final, TypeAlias

from adyton_attestation.bytes_reader import BytesReader
from adyton_protocol.errors import MalformedEvidence

MAX_QUOTE_BYTES: Final = 64 * 1024
TEE_SGX: Final = 0x00
TEE_TDX: Final = 0x81
KEY_TYPE_ECDSA_P256: Final = 2
INTEL_QE_VENDOR_ID: Final = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
CERTIFICATION_PCK_CHAIN: Final = 5
CERTIFICATION_QE_REPORT: Final = 6
QE_AUTH_DATA_BYTES: Final = 32

SGX_FLAG_INIT: Final = 0x01
SGX_FLAG_DEBUG: Final = 0x02
SGX_FLAG_MODE64BIT: Final = 0x04
TD_FLAGS_UNDER_DEBUG: Final = 0xFF
"""TUD, the lowest byte of the TD attributes: any bit set means that the TD is not to be trusted."""

_BODY_TD_10: Final = 2
_BODY_TD_15: Final = 3
_BODY_TD_15_EX: Final = 4
_EX_BYTES: Final = 885 - 648

_HEADER: Final = struct.Struct("<HHIHH16s20s")
_ENCLAVE_REPORT: Final = struct.Struct("<16sI12s16s8s8s32s32s32s32s64sHHH42s16s64s")
_TD_REPORT: Final = struct.Struct("<16s48s48s8s8s8s48s48s48s48s48s48s48s48s64s")
ENCLAVE_REPORT_BYTES: Final = _ENCLAVE_REPORT.size
TD_REPORT_BYTES: Final = _TD_REPORT.size


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteHeader:
    """The 48 bytes at the start of every quote; signed.

    Attributes:
        version: 3, 4 or 5.
        key_type: 2, ECDSA P-256.
        tee_type: 0x00 SGX, 0x81 TDX.
        qe_svn: Security version of the quoting enclave; reserved in TDX quotes.
        pce_svn: Security version of the PCE; reserved in TDX quotes.
        qe_vendor_id: 16 bytes.
        user_data: 20 bytes.
    """

    version: int
    key_type: int
    tee_type: int
    qe_svn: int
    pce_svn: int
    qe_vendor_id: bytes
    user_data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class EnclaveReport:
    """The 384-byte report of an SGX enclave.

    Attributes:
        cpu_svn: 16 bytes.
        misc_select: MISCSELECT, 32 bits.
        isv_ext_prod_id: 16 bytes; key separation and sharing (KSS).
        attribute_flags: ATTRIBUTES.FLAGS, 64 bits.
        xfrm: ATTRIBUTES.XFRM, 64 bits.
        mr_enclave: 32 bytes.
        mr_signer: 32 bytes.
        config_id: 64 bytes; KSS.
        isv_prod_id: 16 bits.
        isv_svn: 16 bits.
        config_svn: 16 bits; KSS.
        isv_family_id: 16 bytes; KSS.
        report_data: 64 bytes.
    """

    cpu_svn: bytes
    misc_select: int
    isv_ext_prod_id: bytes
    attribute_flags: int
    xfrm: int
    mr_enclave: bytes
    mr_signer: bytes
    config_id: bytes
    isv_prod_id: int
    isv_svn: int
    config_svn: int
    isv_family_id: bytes
    report_data: bytes

    @property
    def debug(self) -> bool:
        """Whether a debugger may read the enclave's memory."""
        return bool(self.attribute_flags & SGX_FLAG_DEBUG)


@dataclass(frozen=True, slots=True, kw_only=True)
class TdReport:
    """The report of a trust domain; 584 bytes, and more from TDX 1.5 on.

    Attributes:
        tee_tcb_svn: 16 bytes.
        mr_seam: 48 bytes; measurement of the TDX module.
        mr_signer_seam: 48 bytes.
        seam_attributes: 8 bytes.
        td_attributes: 64 bits.
        xfam: 64 bits.
        mr_td: 48 bytes.
        mr_config_id: 48 bytes.
        mr_owner: 48 bytes.
        mr_owner_config: 48 bytes.
        rt_mrs: Four run-time measurements of 48 bytes.
        report_data: 64 bytes.
        tee_tcb_svn2: 16 bytes from TDX 1.5 on, else None.
        mr_service_td: 48 bytes from TDX 1.5 on, else None.
        extension: The 237 bytes that TDX 1.5ex adds, else empty; signed, not appraised.
    """

    tee_tcb_svn: bytes
    mr_seam: bytes
    mr_signer_seam: bytes
    seam_attributes: bytes
    td_attributes: int
    xfam: int
    mr_td: bytes
    mr_config_id: bytes
    mr_owner: bytes
    mr_owner_config: bytes
    rt_mrs: tuple[bytes, bytes, bytes, bytes]
    report_data: bytes
    tee_tcb_svn2: bytes | None = None
    mr_service_td: bytes | None = None
    extension: bytes = b""

    @property
    def debug(self) -> bool:
        """Whether the TD runs under debug or profiling."""
        return bool(self.td_attributes & TD_FLAGS_UNDER_DEBUG)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteSignature:
    """The signature section, in the order of trust: PCK chain, QE report, attestation key, quote.

    Attributes:
        signature: 64 bytes r || s by the attestation key over ``Quote.signed``.
        attestation_key: 64 bytes x || y.
        qe_report_bytes: 384 bytes, as signed.
        qe_report: The same, parsed.
        qe_report_signature: 64 bytes r || s by the PCK key over ``qe_report_bytes``.
        qe_auth_data: What the QE report binds beside the attestation key.
        certification_type: 5 for an embedded PCK certificate chain.
        certification_data: PEM text for type 5.
    """

    signature: bytes
    attestation_key: bytes
    qe_report_bytes: bytes
    qe_report: EnclaveReport
    qe_report_signature: bytes
    qe_auth_data: bytes
    certification_type: int
    certification_data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _QuoteBase:
    """What every quote has.

    Attributes:
        header: The header.
        signed: Header and report as the attestation key signed them.
        signature: The signature section.
        size_bytes: Length of the quote proper.
        tail: What followed it in the input.
    """

    header: QuoteHeader
    signed: bytes
    signature: QuoteSignature
    size_bytes: int
    tail: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SgxQuoteV3(_QuoteBase):
    """An SGX quote."""

    report: EnclaveReport


@dataclass(frozen=True, slots=True, kw_only=True)
class TdxQuoteV4(_QuoteBase):
    """A TDX quote with a TDX 1.0 report."""

    report: TdReport


@dataclass(frozen=True, slots=True, kw_only=True)
class TdxQuoteV5(_QuoteBase):
    """A TDX quote that names the type of its report: 2 for TDX 1.0, 3 for 1.5, 4 for 1.5ex."""

    report: TdReport
    body_type: int


Quote: TypeAlias = SgxQuoteV3 | TdxQuoteV4 | TdxQuoteV5


def looks_like_quote(data: bytes) -> bool:
    """Whether bytes are meant to be a quote, sound or not: to tell a refused quote from another kind of file."""
    if len(data) < _HEADER.size:
        return False
    version, key_type, tee_type, _, _, vendor, _ = _HEADER.unpack(data[: _HEADER.size])
    typical: bool = (
        version in {3, 4, 5} and key_type == KEY_TYPE_ECDSA_P256 and tee_type in {TEE_SGX, TEE_TDX}
    )
    return typical or vendor == INTEL_QE_VENDOR_ID


def parse_quote(data: bytes) -> Quote:
    """Parse attacker-controlled bytes as a quote.

    Raises:
        MalformedEvidence: Not a quote of one of the covered forms.
    """
    if len(data) > MAX_QUOTE_BYTES:
        raise MalformedEvidence(f"quote: {len(data)} bytes exceed the limit of {MAX_QUOTE_BYTES}")
    reader = BytesReader(data, "quote")
    header = _header(reader)
    match header.version, header.tee_type:
        case (3, 0x00):
            return _sgx_v3(data, reader, header)
        case (4, 0x81):
            return _tdx_v4(data, reader, header)
        case (5, 0x81):
            return _tdx_v5(data, reader, header)
        case _:
            raise MalformedEvidence(
                f"quote: version {header.version} with TEE type {header.tee_type:#x} is not supported"
            )


def _sgx_v3(data: bytes, reader: BytesReader, header: QuoteHeader) -> SgxQuoteV3:
    report = parse_enclave_report(reader.take(ENCLAVE_REPORT_BYTES))
    signed = data[: reader.offset]
    section = BytesReader(reader.take(reader.u32()), "quote signature")
    signature, attestation_key = section.take(64), section.take(64)
    return SgxQuoteV3(
        header=header,
        report=report,
        signed=signed,
        signature=_qe_certification(section, signature, attestation_key),
        size_bytes=reader.offset,
        tail=data[reader.offset :],
    )


def _tdx_v4(data: bytes, reader: BytesReader, header: QuoteHeader) -> TdxQuoteV4:
    report = _td_report(reader)
    signed = data[: reader.offset]
    return TdxQuoteV4(
        header=header,
        report=report,
        signed=signed,
        signature=_td_signature(reader),
        size_bytes=reader.offset,
        tail=data[reader.offset :],
    )


def _tdx_v5(data: bytes, reader: BytesReader, header: QuoteHeader) -> TdxQuoteV5:
    body_type = reader.u16()
    body = BytesReader(reader.take(reader.u32()), "TD report")
    if body_type not in {_BODY_TD_10, _BODY_TD_15, _BODY_TD_15_EX}:
        raise MalformedEvidence(f"quote: body type {body_type} is not a TD report")
    report = _td_report(body, body_type)
    body.finish()
    signed = data[: reader.offset]
    return TdxQuoteV5(
        header=header,
        body_type=body_type,
        report=report,
        signed=signed,
        signature=_td_signature(reader),
        size_bytes=reader.offset,
        tail=data[reader.offset :],
    )


def _header(reader: BytesReader) -> QuoteHeader:
    version, key_type, tee_type, qe_svn, pce_svn, vendor, user_data = _HEADER.unpack(
        reader.take(_HEADER.size)
    )
    if key_type != KEY_TYPE_ECDSA_P256:
        raise MalformedEvidence(f"quote: attestation key type {key_type} is not ECDSA P-256")
    if vendor != INTEL_QE_VENDOR_ID:
        raise MalformedEvidence("quote: unknown vendor of the quoting enclave")
    return QuoteHeader(
        version=version,
        key_type=key_type,
        tee_type=tee_type,
        qe_svn=qe_svn,
        pce_svn=pce_svn,
        qe_vendor_id=vendor,
        user_data=user_data,
    )


def parse_enclave_report(data: bytes) -> EnclaveReport:
    """Parse the 384 bytes of an SGX report.

    Raises:
        MalformedEvidence: Another length.
    """
    if len(data) != ENCLAVE_REPORT_BYTES:
        raise MalformedEvidence(f"an SGX report has {ENCLAVE_REPORT_BYTES} bytes")
    fields = _ENCLAVE_REPORT.unpack(data)
    return EnclaveReport(
        cpu_svn=fields[0],
        misc_select=fields[1],
        isv_ext_prod_id=fields[3],
        attribute_flags=int.from_bytes(fields[4], "little"),
        xfrm=int.from_bytes(fields[5], "little"),
        mr_enclave=fields[6],
        mr_signer=fields[8],
        config_id=fields[10],
        isv_prod_id=fields[11],
        isv_svn=fields[12],
        config_svn=fields[13],
        isv_family_id=fields[15],
        report_data=fields[16],
    )


def _td_report(reader: BytesReader, body_type: int = _BODY_TD_10) -> TdReport:
    fields = _TD_REPORT.unpack(reader.take(TD_REPORT_BYTES))
    has_15, has_15_ex = body_type != _BODY_TD_10, body_type == _BODY_TD_15_EX
    return TdReport(
        tee_tcb_svn=fields[0],
        mr_seam=fields[1],
        mr_signer_seam=fields[2],
        seam_attributes=fields[3],
        td_attributes=int.from_bytes(fields[4], "little"),
        xfam=int.from_bytes(fields[5], "little"),
        mr_td=fields[6],
        mr_config_id=fields[7],
        mr_owner=fields[8],
        mr_owner_config=fields[9],
        rt_mrs=(fields[10], fields[11], fields[12], fields[13]),
        report_data=fields[14],
        tee_tcb_svn2=reader.take(16) if has_15 else None,
        mr_service_td=reader.take(48) if has_15 else None,
        extension=reader.take(_EX_BYTES) if has_15_ex else b"",
    )


def _td_signature(reader: BytesReader) -> QuoteSignature:
    section = BytesReader(reader.take(reader.u32()), "quote signature")
    signature, attestation_key = section.take(64), section.take(64)
    certification_type = section.u16()
    if certification_type != CERTIFICATION_QE_REPORT:
        raise MalformedEvidence(f"quote: outer certification data of type {certification_type}, not 6")
    inner = BytesReader(section.take(section.u32()), "QE certification data")
    section.finish()
    return _qe_certification(inner, signature, attestation_key)


def _qe_certification(reader: BytesReader, signature: bytes, attestation_key: bytes) -> QuoteSignature:
    report = reader.take(ENCLAVE_REPORT_BYTES)
    report_signature = reader.take(64)
    auth_data = reader.take(reader.u16())
    certification_type = reader.u16()
    certification_data = reader.take(reader.u32())
    reader.finish()
    if len(auth_data) != QE_AUTH_DATA_BYTES:
        raise MalformedEvidence(f"quote: QE authentication data has {len(auth_data)} bytes, not 32")
    return QuoteSignature(
        signature=signature,
        attestation_key=attestation_key,
        qe_report_bytes=report,
        qe_report=parse_enclave_report(report),
        qe_report_signature=report_signature,
        qe_auth_data=auth_data,
        certification_type=certification_type,
        certification_data=certification_data,
    )
