# SPDX-License-Identifier: Apache-2.0
"""Before a real enclave is started: everything that the doctor looks at, and no start while something fails.

An enclave that lacks something dies later, deeper, and with a message about something else.
"""

from collections.abc import Callable
from typing import Final

from adyton_host.doctor.examination import Wishes, examine_hardware
from adyton_host.doctor.finding import Finding
from adyton_host.doctor.machine import Machine
from adyton_protocol.errors import ConfigError

_SIMULATE: Final = (
    "Nothing was started, and nothing falls back to simulation. `adyton-host doctor` shows all that was looked at; to "
    "try the appliance without protection, say so: adyton-host up --simulate"
)


def preflight(machine: Machine, wishes: Wishes, say: Callable[[str], None]) -> None:
    """Look, tell the operator what is not as it should be, and refuse if it cannot work.

    Args:
        machine: Where.
        wishes: What is to be started.
        say: Takes a line for the operator.

    Raises:
        ConfigError: Something fails; the message names each, with what mends it.
    """
    findings = examine_hardware(machine, wishes)
    for finding in findings:
        if finding.verdict == "warn":
            say(f"warning: {described(finding)}")
    if failures := [finding for finding in findings if finding.verdict == "fail"]:
        listed = "\n".join(f"  {described(finding)}" for finding in failures)
        raise ConfigError(f"a real enclave cannot start here:\n{listed}\n{_SIMULATE}")


def described(finding: Finding) -> str:
    """A finding in one or two lines."""
    fix = f"\n      fix: {finding.fix}" if finding.fix else ""
    return f"{finding.name}: {finding.detail}{fix}"
