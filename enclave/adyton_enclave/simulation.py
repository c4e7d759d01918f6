# SPDX-License-Identifier: Apache-2.0
"""The simulated attester: real quote format, real signatures, no protection whatsoever.

It stands in for the quoting enclave of a platform. The platform's keys come from the directory that the
installation step of the simulation writes; they chain to that installation's own root and to nothing else.
The measurement is computed over this package's own files, by the process that is measured, which is exactly
what real hardware exists to avoid.

This file is not in the measured file list: a production enclave does not contain it. Nothing imports it; the
attester factory loads it by name when the configuration says ``attester = "simulated"``.
"""

import hashlib
import json
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

import adyton_protocol
from adyton_enclave.attester import REPORT_DATA_BYTES, TeeType
from adyton_protocol.errors import AttestationError, ConfigError
from adyton_protocol.measurement import UNMEASURED, simulated_mrenclave

BANNER: Final = (
    "SIMULATED ENCLAVE - SIMULATED ENCLAVE - SIMULATED ENCLAVE\n"
    "Nothing protects prompts and answers from whoever runs this machine. Never use it for real data.\n"
)

# Intel SGX ECDSA Quote Library API, appendix A.4; all integers little-endian.
_QUOTE_VERSION: Final = 3
_ATTESTATION_KEY_ECDSA_P256: Final = 2
_QE_VENDOR_ID: Final = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
_CERTIFICATION_DATA_PCK_CHAIN: Final = 5
_HEADER: Final = struct.Struct("<HHIHH16s20s")
_REPORT_BODY: Final = struct.Struct("<16sI12x16s16s32s32x32s32x64sHHH42x16s64s")

_ATTRIBUTES: Final = struct.pack("<QQ", 0x05, 0xE7)
"""INIT and MODE64BIT; debug is off. XFRM: x87, SSE, AVX and AVX-512 state."""
_QE_AUTHENTICATION_DATA: Final = bytes(range(32))
_MR_SIGNER: Final = hashlib.sha256(b"adyton simulated enclave signer").digest()
_ISV_PROD_ID: Final = 1
_ISV_SVN: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Report:
    """The fields of a 384-byte SGX report body that are not zero here."""

    cpu_svn: bytes
    misc_select: int
    attributes: bytes
    mr_enclave: bytes
    mr_signer: bytes
    isv_prod_id: int
    isv_svn: int

    def encode(self, report_data: bytes) -> bytes:
        return _REPORT_BODY.pack(
            self.cpu_svn,
            self.misc_select,
            bytes(16),  # extended product id
            self.attributes,
            self.mr_enclave,
            self.mr_signer,
            bytes(64),  # config id
            self.isv_prod_id,
            self.isv_svn,
            0,  # config SVN
            bytes(16),  # family id
            report_data,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Platform:
    """The simulated hardware, as the installation step wrote it."""

    pck_key: ec.EllipticCurvePrivateKey
    pck_chain: bytes
    cpu_svn: bytes
    pce_svn: int
    quoting_enclave: _Report


def _load_platform(directory: Path) -> _Platform:
    try:
        pck_key = serialization.load_pem_private_key((directory / "pck_key.pem").read_bytes(), password=None)
        pck_chain = (directory / "pck_chain.pem").read_bytes()
        facts = json.loads((directory / "platform.json").read_bytes())
        cpu_svn = bytes.fromhex(facts["cpusvn"])
        pce_svn = int(facts["pcesvn"])
        qe = facts["qe"]
        quoting_enclave = _Report(
            cpu_svn=cpu_svn,
            misc_select=int.from_bytes(bytes.fromhex(qe["miscselect"]), "little"),
            attributes=bytes.fromhex(qe["attributes"]),
            mr_enclave=bytes.fromhex(qe["mrenclave"]),
            mr_signer=bytes.fromhex(qe["mrsigner"]),
            isv_prod_id=int(qe["isvprodid"]),
            isv_svn=int(qe["isvsvn"]),
        )
    except (OSError, ValueError, KeyError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            f"the simulated platform in {directory} is missing or damaged ({type(error).__name__}); "
            "the installation step of the simulation writes it"
        ) from error
    if not isinstance(pck_key, ec.EllipticCurvePrivateKey):
        raise ConfigError("the simulated platform's key is not an elliptic-curve key")
    return _Platform(
        pck_key=pck_key,
        pck_chain=pck_chain,
        cpu_svn=cpu_svn,
        pce_svn=pce_svn,
        quoting_enclave=quoting_enclave,
    )


def measured_files() -> dict[str, bytes]:
    """Contents of the measured files, by package-relative path such as ``adyton_enclave/keys.py``."""
    files: dict[str, bytes] = {}
    for package in (Path(__file__).parent, Path(adyton_protocol.__file__ or "").parent):
        for path in sorted(package.rglob("*.py")):
            name = path.relative_to(package.parent).as_posix()
            if name not in UNMEASURED:
                files[name] = path.read_bytes()
    return files


def _sign(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """ECDSA over P-256 and SHA-256 as 64 bytes, r before s, big-endian, which is how quotes carry it."""
    r, s = utils.decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


class SimulatedAttester:
    """Builds SGX v3 quotes with a simulated quoting enclave.

    The attestation key is made at start and certified by the platform's PCK key, as a real quoting
    enclave does.
    """

    def __init__(self, platform: _Platform, *, mr_enclave: bytes) -> None:
        self._platform = platform
        self._report = _Report(
            cpu_svn=platform.cpu_svn,
            misc_select=0,
            attributes=_ATTRIBUTES,
            mr_enclave=mr_enclave,
            mr_signer=_MR_SIGNER,
            isv_prod_id=_ISV_PROD_ID,
            isv_svn=_ISV_SVN,
        )
        self._attestation_key = ec.generate_private_key(ec.SECP256R1())
        public = self._attestation_key.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )
        self._attestation_public = public[1:]  # without the 0x04 that marks an uncompressed point
        binding = hashlib.sha256(self._attestation_public + _QE_AUTHENTICATION_DATA).digest()
        self._qe_report = platform.quoting_enclave.encode(binding + bytes(32))
        self._qe_signature = _sign(platform.pck_key, self._qe_report)

    @property
    def tee_type(self) -> TeeType:
        """What the attestation report calls the platform."""
        return "simulated"

    def quote(self, report_data: bytes) -> bytes:
        """See :meth:`adyton_enclave.attester.Attester.quote`."""
        if len(report_data) != REPORT_DATA_BYTES:
            raise AttestationError(f"report data must be {REPORT_DATA_BYTES} bytes")
        header = _HEADER.pack(
            _QUOTE_VERSION,
            _ATTESTATION_KEY_ECDSA_P256,
            0,
            self._platform.quoting_enclave.isv_svn,
            self._platform.pce_svn,
            _QE_VENDOR_ID,
            bytes(20),
        )
        signed = header + self._report.encode(report_data)
        signature = _sign(self._attestation_key, signed)
        chain = self._platform.pck_chain
        signature_data = (
            signature
            + self._attestation_public
            + self._qe_report
            + self._qe_signature
            + struct.pack("<H", len(_QE_AUTHENTICATION_DATA))
            + _QE_AUTHENTICATION_DATA
            + struct.pack("<HI", _CERTIFICATION_DATA_PCK_CHAIN, len(chain))
            + chain
        )
        return signed + struct.pack("<I", len(signature_data)) + signature_data


def make_simulated_attester(directory: Path) -> SimulatedAttester:
    """Measure this process's own files and connect to the simulated platform; says so on stderr.

    Args:
        directory: The ``platform`` directory of the simulation.

    Raises:
        ConfigError: The directory does not hold a simulated platform.
    """
    platform = _load_platform(directory)
    sys.stderr.write(BANNER)
    sys.stderr.flush()
    return SimulatedAttester(platform, mr_enclave=simulated_mrenclave(measured_files()))
