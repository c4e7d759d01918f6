# SPDX-License-Identifier: Apache-2.0
"""The attester (RFC 9334): asks the platform to vouch for 64 bytes of report data.

``Attester`` is the interface; :class:`GramineAttester` speaks to Gramine's ``/dev/attestation``. The simulated one
lives in ``simulation.py``, which a production enclave does not contain, so that it cannot be switched on there.

Callers never choose report data freely: it is always the digest of a domain-separated statement.
"""

import errno
import hmac
import importlib
import os
import struct
import threading
from pathlib import Path
from typing import Final, Literal, Protocol

from adyton_enclave.config import Configuration
from adyton_protocol.errors import (
    AttestationError,
    ConfigError,
    NoRemoteAttestation,
    NotInEnclave,
    QuoteError,
    QuoteMalformed,
    QuoteOfAnother,
    QuotingServiceAway,
)

GRAMINE_DIRECTORY: Final = Path("/dev/attestation")
REPORT_DATA_BYTES: Final = 64
MAX_QUOTE_BYTES: Final = 8192
"""Gramine's own buffer for a quote."""

# Intel SGX ECDSA Quote Library API, appendix A.4: header, report body, length of the signature data. The report body
# is that of the local report (Intel SDM volume 3D, REPORT structure), which the processor writes for EREPORT.
_HEADER: Final = struct.Struct("<HHIHH16s20s")
_BODY_BYTES: Final = 384
_REPORT_BYTES: Final = 432
_REPORT_DATA_AT: Final = 320
_LENGTH: Final = struct.Struct("<I")
_SIGNED_BYTES: Final = _HEADER.size + _BODY_BYTES
_QUOTE_VERSION: Final = 3
_SGX: Final = 0

TeeType = Literal["sgx", "simulated"]


class Attester(Protocol):
    """Makes evidence about this very enclave.

    Attributes:
        tee_type: What the attestation report calls it.
    """

    @property
    def tee_type(self) -> TeeType:
        """What the attestation report calls the platform."""
        ...

    def quote(self, report_data: bytes) -> bytes:
        """A quote that binds exactly these 64 bytes. May block for a second; safe to call from any thread.

        Raises:
            AttestationError: The platform gave no quote, or one about something else.
        """
        ...


def quoted_report_data(quote: bytes) -> bytes:
    """The 64 bytes of report data inside an SGX quote; nothing else of it is looked at."""
    start = _HEADER.size + _REPORT_DATA_AT
    return quote[start : start + REPORT_DATA_BYTES]


def check_quote(quote: bytes, report: bytes, report_data: bytes) -> None:
    """Check that a quote is one, and that it says what the processor said to this enclave.

    The quote comes from a service of the host, the report from the processor. Clients check the signature; a quote
    that none of them would accept is found here, where the operator can see why.

    Args:
        quote: Attacker-controlled bytes: SGX quote, version 3, with its signature data. Zeros may follow.
        report: The 432 bytes that EREPORT gave for the same report data.
        report_data: The 64 bytes that both have to be about.

    Raises:
        QuoteMalformed: One of them is cut short or of another format.
        QuoteOfAnother: They speak about different enclaves or different report data.
    """
    if len(report) != _REPORT_BYTES:
        raise QuoteMalformed(f"the platform's report has {len(report)} bytes instead of {_REPORT_BYTES}")
    body = report[:_BODY_BYTES]
    if not hmac.compare_digest(body[_REPORT_DATA_AT:], report_data):
        raise QuoteOfAnother(
            "the platform reported other data than it was given; does something else write it?"
        )
    if not _SIGNED_BYTES + _LENGTH.size < len(quote) <= MAX_QUOTE_BYTES:
        raise QuoteMalformed(f"the platform's quote has {len(quote)} bytes, which no quote has")
    version, _, tee, *_ = _HEADER.unpack_from(quote)
    if version != _QUOTE_VERSION or tee != _SGX:
        raise QuoteMalformed(
            f"the platform quotes in version {version}; only version {_QUOTE_VERSION} of SGX is known"
        )
    (signature_bytes,) = _LENGTH.unpack_from(quote, _SIGNED_BYTES)
    rest = quote[_SIGNED_BYTES + _LENGTH.size :]
    if not 0 < signature_bytes <= len(rest) or any(rest[signature_bytes:]):
        raise QuoteMalformed("the platform's quote is cut short, or more than a quote")
    # SECURITY: also for this enclave's own sake, two quotes that overtake each other must not swap their keysets.
    if not hmac.compare_digest(quote[_HEADER.size : _SIGNED_BYTES], body):
        raise QuoteOfAnother("the platform quoted another enclave or other report data than it was asked to")


def _write_at_once(path: Path, data: bytes) -> None:
    """Write in one piece and without touching what is there: each write to a pseudo-file replaces the one before."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        if os.write(descriptor, data) != len(data):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
    finally:
        os.close(descriptor)


class GramineAttester:
    """Quotes by Gramine's pseudo-files, which hold one state for the whole process and are not thread-safe."""

    def __init__(self, directory: Path = GRAMINE_DIRECTORY) -> None:
        """Check that there is a platform to speak to.

        Raises:
            NotInEnclave: This process does not run in an SGX enclave.
            NoRemoteAttestation: It does, and was signed without attestation by DCAP.
        """
        self._directory = directory
        self._lock = threading.Lock()
        try:
            kind = (directory / "attestation_type").read_bytes().strip()
        except OSError as error:
            # SECURITY: gramine-direct has the directory but not this file. A missing file means that nothing
            # protects this process, so there is no other way on from here.
            found = "is gramine-direct's" if (directory / "keys").is_dir() else "does not exist"
            raise NotInEnclave(
                f"{directory} {found}: this process does not run in an SGX enclave. "
                'Start it with gramine-sgx, or write attester = "simulated" for a trial without protection'
            ) from error
        if kind != b"dcap" or not (directory / "quote").exists():
            raise NoRemoteAttestation(
                "this enclave was signed without remote attestation: "
                'set sgx.remote_attestation = "dcap" in the manifest and sign it again'
            )

    @property
    def tee_type(self) -> TeeType:
        """What the attestation report calls the platform."""
        return "sgx"

    def quote(self, report_data: bytes) -> bytes:
        """See :meth:`adyton_enclave.attester.Attester.quote`.

        Raises:
            QuoteError: There is no local report to be quoted.
            QuotingServiceAway: No quote came.
            QuoteMalformed: What came is no quote.
            QuoteOfAnother: The quote is about something else.
        """
        if len(report_data) != REPORT_DATA_BYTES:
            # Gramine would pad or cut in silence.
            raise AttestationError(f"report data must be {REPORT_DATA_BYTES} bytes")
        # SECURITY: one thread at a time, or a quote could be about what another thread wrote.
        with self._lock:
            try:
                _write_at_once(self._directory / "user_report_data", report_data)
                report = (self._directory / "report").read_bytes()
            except OSError as error:
                raise QuoteError(
                    f"the processor gave no report ({error.strerror}); Adyton is made for Gramine 1.9"
                ) from error
            try:
                quote = (self._directory / "quote").read_bytes()
            except OSError as error:
                raise QuotingServiceAway(
                    f"the platform gave no quote ({error.strerror}). Does the quoting service run? "
                    "Try: systemctl status aesmd; adyton-host doctor"
                ) from error
        check_quote(quote, report, report_data)
        return quote


def make_attester(configuration: Configuration) -> Attester:
    """The attester that the configuration names.

    Raises:
        ConfigError: The platform is not there, or the simulator is asked for and not part of this image.
    """
    match configuration.attester:
        case "gramine":
            return GramineAttester()
        case "simulated":
            try:
                # By name, so that nothing of the enclave depends on a module that production leaves out.
                simulation = importlib.import_module("adyton_enclave.simulation")
            except ModuleNotFoundError as error:
                raise ConfigError("this enclave image does not contain the simulator") from error
            attester: Attester = simulation.make_simulated_attester(configuration.simulation_platform)
            return attester
