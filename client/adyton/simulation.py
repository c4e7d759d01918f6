# SPDX-License-Identifier: Apache-2.0
"""Choosing to talk to a simulated appliance.

A simulated enclave proves nothing: whoever runs it can read every prompt. It exists to develop and to test.
Therefore simulation is an object that the caller makes and passes in code (or ``--simulated`` on the command
line), never an environment variable, a configuration default or a fallback; and every use is announced: in
code by ``SimulatedAttestationWarning``, on the command line by a banner.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from adyton_attestation.policy import AppraisalPolicy
from adyton_attestation.simulation import SimulatedVerifier
from adyton_protocol.errors import ConfigError


def default_directory() -> Path:
    """Where ``adyton-host up --simulate`` keeps the local simulated installation."""
    return Path.home() / ".local" / "share" / "adyton" / "simulation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """The trust anchors of one local simulated installation.

    Attributes:
        root_der: The simulated root certificate, pinned.
        policy: The appraisal policy written for the measured source of this installation.
    """

    root_der: bytes
    policy: AppraisalPolicy

    @classmethod
    def from_dir(cls, path: str | Path | None = None) -> Self:
        """Read ``root.pem`` and ``policy.toml`` of a local simulated installation.

        Args:
            path: The installation's directory; by default the one that ``adyton-host up --simulate`` uses.

        Raises:
            ConfigError: The directory is not a simulated installation.
        """
        directory = default_directory() if path is None else Path(path).expanduser()
        try:
            root_pem = (directory / "root.pem").read_bytes()
            policy_toml = (directory / "policy.toml").read_bytes()
        except OSError as error:
            raise ConfigError(
                f"no simulated installation in {directory}; start one with: adyton-host up --simulate"
            ) from error
        try:
            (root,) = x509.load_pem_x509_certificates(root_pem)
        except ValueError as error:
            raise ConfigError(f"{directory / 'root.pem'} does not hold exactly one certificate") from error
        return cls(root_der=root.public_bytes(Encoding.DER), policy=AppraisalPolicy.from_toml(policy_toml))

    def verifier(self) -> SimulatedVerifier:
        """Make the verifier that accepts this simulated installation and nothing real; it warns at every use."""
        return SimulatedVerifier(self.policy, self.root_der)
