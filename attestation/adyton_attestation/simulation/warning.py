# SPDX-License-Identifier: Apache-2.0
"""The warning that every use of simulated evidence gives."""

import warnings
from typing import Final

SIMULATED_WARNING: Final = (
    "SIMULATED ATTESTATION: no hardware protects this enclave; "
    "whoever runs it can read every prompt and every answer"
)


class SimulatedAttestationWarning(UserWarning):
    """Simulated evidence is being used."""


def warn_simulated(stacklevel: int = 3) -> None:
    """Warn, on behalf of the caller's caller."""
    warnings.warn(SIMULATED_WARNING, SimulatedAttestationWarning, stacklevel=stacklevel)
