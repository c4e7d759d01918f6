# SPDX-License-Identifier: Apache-2.0
"""Errors of the host that nobody else can raise; the rest is :mod:`adyton_protocol.errors`."""

from typing import ClassVar

from adyton_protocol.errors import AdytonError, Fault


class EnclaveStartError(AdytonError):
    """The enclave process ended, or did not attest in time, before it ever served.

    Attributes:
        log_tail: The last lines that the enclave wrote; it never writes content.
    """

    code: ClassVar[str] = "enclave-start"
    fault: ClassVar[Fault] = "operator"

    def __init__(self, message: str, *, log_tail: str = "") -> None:
        """Keep the last log lines beside the message."""
        super().__init__(message)
        self.log_tail = log_tail


class SetupError(AdytonError):
    """The step that prepares the simulated platform failed; its output is in the message."""

    code: ClassVar[str] = "simulation-setup"
    fault: ClassVar[Fault] = "operator"
