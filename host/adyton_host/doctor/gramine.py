# SPDX-License-Identifier: Apache-2.0
"""Is Gramine there, in the version that images are made for?"""

import re
from typing import Final

from adyton_host.doctor.finding import Finding, failed, passed, warned
from adyton_host.doctor.machine import Machine

WANTED: Final = (1, 9)
_VERSION: Final = re.compile(r"Gramine (\d+)\.(\d+)(\S*)")
_INSTALL: Final = (
    "sudo curl -fsSLo /etc/apt/keyrings/gramine.gpg "
    "https://packages.gramineproject.io/gramine-keyring-$(lsb_release -sc).gpg"
    ' && echo "deb [arch=amd64 signed-by=/etc/apt/keyrings/gramine.gpg] https://packages.gramineproject.io/ '
    '$(lsb_release -sc) main" | sudo tee /etc/apt/sources.list.d/gramine.list && '
    "sudo apt update && sudo apt install gramine"
)


def examine_gramine(machine: Machine, *, program: str = "gramine-sgx") -> Finding:
    """Look for it and ask it."""
    name, wanted = "gramine", ".".join(map(str, WANTED))
    path = machine.find_program(program)
    if path is None:
        return failed(name, f"no {program} on the PATH", _INSTALL)
    found = _VERSION.search(machine.output_of(path, "--version") or "")
    if found is None:
        return failed(name, f"{path} does not say its version; before 1.9 it could not", _INSTALL)
    version, text = (int(found[1]), int(found[2])), found[0].removeprefix("Gramine ")
    if version < WANTED:
        return failed(name, f"{text}; {wanted} is the first that checks what the image relies on", _INSTALL)
    if version > WANTED or found[3] not in {"", ".0"}:
        return warned(
            name,
            f"{text}; tried with {wanted}. Another build of Gramine measures as another MRENCLAVE",
            f"sudo apt install 'gramine={wanted}*', or render, measure and sign the image with this one",
        )
    return passed(name, f"{text} ({path})")
