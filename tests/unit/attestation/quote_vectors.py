# SPDX-License-Identifier: Apache-2.0
"""Makes ``tests/vectors/attestation_quotes.json``: ``python tests/unit/attestation/quote_vectors.py > FILE``.

Nothing is signed and no byte is random: fields count upwards, so that a field read from the wrong place shows.
"""

import json
import struct
import sys
from typing import Any

from adyton_attestation.simulation.quoting import QE_VENDOR_ID, EnclaveReportSpec, TdReportSpec

SGX, TDX = 0x00, 0x81
CHAIN = b"-----BEGIN CERTIFICATE-----\n"


def counting(size: int, first: int) -> bytes:
    """Return bytes that count upwards."""
    return bytes((first + index) % 256 for index in range(size))


REPORT = EnclaveReportSpec(
    mr_enclave=counting(32, 0x10),
    mr_signer=counting(32, 0x40),
    report_data=counting(64, 0x80),
    cpu_svn=counting(16, 1),
    misc_select=1,
    isv_ext_prod_id=counting(16, 0xA0),
    config_id=counting(64, 0xB0),
    isv_prod_id=0x0102,
    isv_svn=0x0304,
    config_svn=0x0506,
    isv_family_id=counting(16, 0xF0),
).encode()
TD_10 = TdReportSpec(mr_td=counting(48, 0x21), report_data=counting(64, 0x81)).encode()
TD_15 = TD_10 + counting(16, 1) + bytes(48)
TD_15_EX = TD_15 + bytes(237)

SGX_FIELDS = {
    "version": 3,
    "report_data": counting(64, 0x80).hex(),
    "mr_enclave": counting(32, 0x10).hex(),
    "mr_signer": counting(32, 0x40).hex(),
    "config_id": counting(64, 0xB0).hex(),
    "isv_prod_id": 0x0102,
    "isv_svn": 0x0304,
    "misc_select": 1,
    "attribute_flags": 5,
    "xfrm": 0xE7,
    "config_svn": 0x0506,
    "signed_bytes": 432,
}
TD_FIELDS = {"report_data": counting(64, 0x81).hex(), "mr_td": counting(48, 0x21).hex()}


def header(version: int, tee_type: int, *, key_type: int = 2, vendor: bytes = QE_VENDOR_ID) -> bytes:
    """Return a quote header."""
    return struct.pack("<HHIHH", version, key_type, tee_type, 10, 15) + vendor + bytes(20)


def certification(auth_bytes: int = 32) -> bytes:
    """Return a QE report with its signature, authentication data and certification data."""
    qe_report = EnclaveReportSpec(mr_enclave=bytes(32), report_data=bytes(64)).encode()
    auth = struct.pack("<H", auth_bytes) + counting(auth_bytes, 0)
    return qe_report + counting(64, 7) + auth + struct.pack("<HI", 5, len(CHAIN)) + CHAIN


def section_v3(auth_bytes: int = 32) -> bytes:
    """Return the signature section of a version 3 quote, after its length."""
    body = counting(64, 3) + counting(64, 5) + certification(auth_bytes)
    return struct.pack("<I", len(body)) + body


def section_v4() -> bytes:
    """Return the signature section of a version 4 or 5 quote, after its length."""
    inner = certification()
    body = counting(64, 3) + counting(64, 5) + struct.pack("<HI", 6, len(inner)) + inner
    return struct.pack("<I", len(body)) + body


def typed(body_type: int, body: bytes, *, size_bytes: int | None = None) -> bytes:
    """Return a version 5 body after its type and length."""
    return struct.pack("<HI", body_type, len(body) if size_bytes is None else size_bytes) + body


def accepted() -> list[tuple[str, bytes, dict[str, Any]]]:
    """Return name, quote and fields of what parses."""
    sgx = header(3, SGX) + REPORT + section_v3()
    tdx = header(4, TDX) + TD_10 + section_v4()
    cases = [
        ("sgx-v3", sgx, SGX_FIELDS | {"size_bytes": len(sgx)}),
        ("sgx-v3-padded", sgx + bytes(16), SGX_FIELDS | {"size_bytes": len(sgx)}),
        ("tdx-v4", tdx, TD_FIELDS | {"version": 4, "signed_bytes": 632, "size_bytes": len(tdx)}),
    ]
    for name, body_type, body in (("1.0", 2, TD_10), ("1.5", 3, TD_15), ("1.5ex", 4, TD_15_EX)):
        signed = header(5, TDX) + typed(body_type, body)
        quote = signed + section_v4()
        fields = TD_FIELDS | {"version": 5, "signed_bytes": len(signed), "size_bytes": len(quote)}
        cases.append((f"tdx-v5-report-{name}", quote, fields))
    return cases


def rejected() -> list[tuple[str, bytes]]:
    """Return name and bytes of what does not parse."""
    signed, body = header(3, SGX) + REPORT, section_v3()[4:]
    return [
        ("empty", b""),
        ("header-only", header(3, SGX)),
        ("version-2", header(2, SGX) + REPORT + section_v3()),
        ("sgx-in-version-4", header(4, SGX) + REPORT + section_v3()),
        ("tdx-in-version-3", header(3, TDX) + REPORT + section_v3()),
        ("key-type-p384", header(3, SGX, key_type=3) + REPORT + section_v3()),
        ("unknown-qe-vendor", header(3, SGX, vendor=bytes(16)) + REPORT + section_v3()),
        ("auth-data-31-bytes", signed + section_v3(31)),
        ("auth-data-33-bytes", signed + section_v3(33)),
        ("section-longer-than-its-fields", signed + struct.pack("<I", len(body) + 1) + body + b"\x00"),
        ("section-shorter-than-its-fields", signed + struct.pack("<I", len(body) - 1) + body[:-1]),
        ("section-length-beyond-the-input", signed + struct.pack("<I", 2**32 - 1) + body),
        ("v5-body-size-lies", header(5, TDX) + typed(2, TD_10 + b"\x00") + section_v4()),
        ("v5-sgx-body", header(5, TDX) + typed(1, REPORT) + section_v4()),
        ("v4-inner-certification-not-type-6", header(4, TDX) + TD_10 + section_v3()),
    ]


def document() -> dict[str, Any]:
    """Return the whole document."""
    vectors: list[dict[str, Any]] = [
        {"name": name, "input": quote.hex(), "accepted": fields} for name, quote, fields in accepted()
    ]
    vectors += [
        {"name": name, "input": quote.hex(), "rejected": "malformed-evidence"} for name, quote in rejected()
    ]
    return {
        "description": "Byte layout of quotes. Signatures are placeholders: parsing verifies nothing. Each vector "
        "has either the accepted fields or the code of the rejection. Made by tests/unit/attestation/quote_vectors.py.",
        "vectors": vectors,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(document(), indent=1) + "\n")
