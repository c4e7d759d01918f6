# SPDX-License-Identifier: Apache-2.0
"""Input for mypy, not for Python: each line marked ``error`` must be one, and no other line may be.

It proves that the type checker keeps the trust domains apart before anything runs.
"""

from adyton_attestation.bare_quote import QuoteAppraisal
from adyton_attestation.result import AttestationResult
from adyton_attestation.simulation import SimulatedResult, SimulatedVerifier
from adyton_attestation.verifier import Verifier


def deploy(result: AttestationResult) -> None:
    """Stands for code that acts on real evidence."""


def real(result: AttestationResult) -> None:
    """A real result is accepted."""
    deploy(result)


def simulated(result: SimulatedResult) -> None:
    """A simulated one is not."""
    deploy(result)  # error: arg-type


def assigned(result: SimulatedResult) -> AttestationResult:
    """Nor can it be returned as one."""
    return result  # error: return-value


def verifier(verifier: SimulatedVerifier) -> Verifier:
    """Nor is the simulated verifier a verifier."""
    return verifier  # error: return-value


def bare(appraisal: QuoteAppraisal) -> None:
    """A bare quote opens no channel."""
    appraisal.open_channel()  # error: attr-defined
