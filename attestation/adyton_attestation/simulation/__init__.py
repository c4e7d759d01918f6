# SPDX-License-Identifier: Apache-2.0
"""The simulated trust domain: its own root, evidence type, verifier and result type. It protects nothing.

The verifier is imported when it is asked for first: whoever only wants to hear of the warning need not load it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from adyton_attestation.simulation.warning import SimulatedAttestationWarning

if TYPE_CHECKING:
    from adyton_attestation.simulation.verifier import SimulatedResult, SimulatedVerifier

__all__ = ["SimulatedAttestationWarning", "SimulatedResult", "SimulatedVerifier"]


def __getattr__(name: str) -> object:
    """Import the verifier and its result when they are asked for (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module("adyton_attestation.simulation.verifier"), name)
    globals()[name] = found
    return found
