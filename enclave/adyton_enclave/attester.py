# SPDX-License-Identifier: Apache-2.0
"""The attester (RFC 9334): asks the platform to vouch for 64 bytes of report data.

``Attester`` is the interface; :class:`GramineAttester` speaks to Gramine's ``/dev/attestation``. The simulated one
lives in ``simulation.py``, which a production enclave does not contain, so that it cannot be switched on there.

Callers never choose report data freely: it is always the digest of a domain-separated statement.
"""

import importlib
import threading
from pathlib import Path
from typing import Final, Literal, Protocol

from adyton_enclave.config import Configuration
from adyton_protocol.errors import AttestationError, ConfigError

GRAMINE_DIRECTORY: Final = Path("/dev/attestation")
REPORT_DATA_BYTES: Final = 64
MAX_QUOTE_BYTES: Final = 8192
"""Gramine's own buffer for a quote."""

_SGX_REPORT_DATA_OFFSET: Final = 48 + 320
"""Where an SGX quote carries its report data: 48-byte header, then byte 320 of the 384-byte report body
(Intel SGX ECDSA Quote Library API, appendix A.4)."""

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
    return quote[_SGX_REPORT_DATA_OFFSET : _SGX_REPORT_DATA_OFFSET + REPORT_DATA_BYTES]


class GramineAttester:
    """Quotes by Gramine's pseudo-files, which hold one state for the whole process and are not thread-safe."""

    def __init__(self, directory: Path = GRAMINE_DIRECTORY) -> None:
        """Check that there is a platform to speak to.

        Raises:
            ConfigError: This process does not run in an SGX enclave with DCAP attestation.
        """
        self._directory = directory
        self._lock = threading.Lock()
        try:
            kind = (directory / "attestation_type").read_bytes().strip()
        except OSError as error:
            # SECURITY: gramine-direct has the directory but not this file. A missing file means that nothing
            # protects this process, so there is no other way on from here.
            raise ConfigError(
                f"{directory}/attestation_type does not exist: this process does not run in an SGX enclave. "
                'Start it with gramine-sgx, or write attester = "simulated" for a trial without protection'
            ) from error
        if kind != b"dcap":
            raise ConfigError(
                "this enclave was signed without remote attestation: "
                'set sgx.remote_attestation = "dcap" in the manifest and sign it again'
            )

    @property
    def tee_type(self) -> TeeType:
        """What the attestation report calls the platform."""
        return "sgx"

    def quote(self, report_data: bytes) -> bytes:
        """See :meth:`adyton_enclave.attester.Attester.quote`."""
        if len(report_data) != REPORT_DATA_BYTES:
            # Gramine would pad or cut in silence.
            raise AttestationError(f"report data must be {REPORT_DATA_BYTES} bytes")
        with self._lock:
            try:
                (self._directory / "user_report_data").write_bytes(report_data)
                quote = (self._directory / "quote").read_bytes()
            except OSError as error:
                raise AttestationError("the platform gave no quote; is the AESM service running?") from error
        if len(quote) > MAX_QUOTE_BYTES or quoted_report_data(quote) != report_data:
            raise AttestationError("the platform quoted something else than it was asked to")
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
