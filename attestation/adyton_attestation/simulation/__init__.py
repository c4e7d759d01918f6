# SPDX-License-Identifier: Apache-2.0
"""The simulated trust domain: its own root, evidence type, verifier and result type. It protects nothing."""

from adyton_attestation.simulation.verifier import SimulatedResult, SimulatedVerifier
from adyton_attestation.simulation.warning import SimulatedAttestationWarning

__all__ = ["SimulatedAttestationWarning", "SimulatedResult", "SimulatedVerifier"]
