# SPDX-License-Identifier: Apache-2.0
"""Prepares the simulated platform, by running the verifier side's own installation step as a subprocess.

The host must not load that code: it holds keys and signs. A process of its own ends before the relay starts.
"""

import importlib.util
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adyton_host.errors import SetupError
from adyton_protocol.errors import ConfigError

BANNER: Final = """\
**************************  SIMULATED ENCLAVE  **************************
*  No hardware protects this enclave: whoever runs this machine can     *
*  read every prompt and every answer. For trials and development only. *
*************************************************************************"""

_INSTALL_MODULE: Final = "adyton_attestation.simulation.install"
_INSTALL_TIMEOUT_S: Final = 120.0
_MEASURED_PACKAGES: Final = ("adyton_enclave", "adyton_protocol")


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationDir:
    """The files of a simulated platform.

    Attributes:
        path: The directory.
    """

    path: Path

    @property
    def platform(self) -> Path:
        """What stands in for the hardware; for the enclave alone."""
        return self.path / "platform"

    @property
    def endorsements(self) -> Path:
        """What a PCCS would serve; public."""
        return self.path / "collateral.json"


def package_dir(name: str) -> Path:
    """Directory of an installed top-level package, found without importing it.

    Raises:
        ConfigError: The package is not installed.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"the package {name} is not installed; install with the extras `enclave` and `host`"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def prepare(directory: SimulationDir, enclave_config: str) -> None:
    """Create or refresh the simulated platform and the policy that accepts what runs here.

    Args:
        directory: Where.
        enclave_config: The text of the enclave's configuration file. The policy will demand its digest and the
            identities of the models in it, so another model, or other sampling defaults, are refused.

    Raises:
        ConfigError: A package is missing.
        SetupError: The installation step failed or did not end.
    """
    package_dir("adyton_attestation")
    path = directory.path
    command = [sys.executable, "-I", "-m", _INSTALL_MODULE, str(path)]
    command += ["--measure", *(str(package_dir(name)) for name in _MEASURED_PACKAGES)]
    try:
        with tempfile.NamedTemporaryFile("wb", suffix=".toml") as stated:
            stated.write(enclave_config.encode())
            stated.flush()
            done = subprocess.run(  # noqa: S603 -- our own interpreter and module; no shell
                [*command, "--enclave-config", stated.name],
                check=False,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_INSTALL_TIMEOUT_S,
            )
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"preparing {path} did not end within {_INSTALL_TIMEOUT_S:g} seconds") from error
    if done.returncode != 0:
        raise SetupError(f"preparing the simulated platform in {path} failed:\n{done.stderr.strip()}")
