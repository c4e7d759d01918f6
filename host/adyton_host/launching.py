# SPDX-License-Identifier: Apache-2.0
"""The three ways in which an enclave is started, and what each of them needs.

| way | what runs | attests as |
|---|---|---|
| :func:`simulated` | the enclave's code as an ordinary process | ``simulated`` |
| :func:`gramine_direct` | an image under ``gramine-direct``, without SGX | ``simulated`` |
| :func:`gramine_sgx` | a signed image under ``gramine-sgx`` | ``sgx`` |

SECURITY: which one it is, is the operator's choice, made once. No way leads from one to another: an image that is not
for the hardware is refused here, before anything is started, and what attests as another kind is ended by the
supervisor.
"""

import shutil
import sys
from pathlib import Path
from typing import Final

from adyton_host.image import EnclaveImage, check_configuration
from adyton_host.supervisor import EnclaveLaunch
from adyton_protocol.errors import ConfigError

SIMULATED: Final = "simulated"
SGX: Final = "sgx"
_NATIVE: Final = (sys.executable, "-I", "-m", "adyton_enclave")
_GIBIBYTE: Final = 1 << 30
_START_S: Final = 180.0
_START_S_PER_GIB: Final = 60.0
"""Adding and clearing the pages of an enclave took one to ten seconds for each GiB on machines that others describe;
loading and checking the weights comes on top."""
_INSTALL_GRAMINE: Final = (
    "install Gramine 1.9 (docs/guides/operator.md); `adyton-host doctor` says what else is missing"
)


def simulated(config: str, port: int) -> EnclaveLaunch:
    """The enclave as an ordinary process that reads ``config``."""
    return EnclaveLaunch(command=_NATIVE, config=config, port=port, tee_type=SIMULATED)


def gramine_direct(image: EnclaveImage, *, program: Path | None = None) -> EnclaveLaunch:
    """An image under Gramine without SGX: its file policy, its system calls, no protection.

    Args:
        image: What to start; its configuration has to name the simulated attester.
        program: ``gramine-direct``; None finds it.

    Raises:
        ConfigError: There is no such program, or the image is for the hardware.
    """
    if image.attester != SIMULATED:
        raise ConfigError(
            f"the configuration of {image.directory} has attester = {image.attester!r}, and gramine-direct has no "
            'hardware to ask; render an image with attester = "simulated" for --simulate'
        )
    return _under_gramine(image, _program("gramine-direct", program), SIMULATED)


def gramine_sgx(image: EnclaveImage, *, program: Path | None = None) -> EnclaveLaunch:
    """A signed image in an SGX enclave.

    Args:
        image: What to start; its configuration has to name Gramine's attester.
        program: ``gramine-sgx``; None finds it.

    Raises:
        ConfigError: There is no such program, the image simulates, or its configuration is not the signed one.
    """
    # SECURITY: the simulator is not part of a production image either; this says so before anything is started.
    if image.attester != "gramine":
        raise ConfigError(
            f"the configuration of {image.directory} has attester = {image.attester!r}: this image does not ask the "
            'hardware, and is not started as a real enclave. Render one with attester = "gramine"'
        )
    check_configuration(image)
    return _under_gramine(image, _program("gramine-sgx", program), SGX)


def _under_gramine(image: EnclaveImage, program: str, tee_type: str) -> EnclaveLaunch:
    return EnclaveLaunch(
        # No argument but the image: loader.argv is fixed in the manifest, and whatever came after would be refused.
        command=(program, str(image.application)),
        config=image.config,
        port=image.port,
        tee_type=tee_type,
        image_dir=image.directory,
        start_timeout_s=_START_S + _START_S_PER_GIB * image.committed_bytes / _GIBIBYTE,
    )


def _program(name: str, given: Path | None) -> str:
    found = shutil.which(name if given is None else given)
    if found is None:
        raise ConfigError(f"{name} is not on the PATH; {_INSTALL_GRAMINE}")
    return str(found)
