# SPDX-License-Identifier: Apache-2.0
"""Is the clock right? The enclave trusts no clock, but its keys name the time at which they end, by this one."""

from datetime import UTC, datetime
from typing import Final

from adyton_host.doctor.finding import Finding, failed, passed, skipped, warned
from adyton_host.doctor.machine import Machine

_FIRST_POSSIBLE_S: Final = 1_750_204_800.0
"""18 June 2025, when Gramine 1.9 was released."""
_LAST_POSSIBLE_S: Final = 2_524_608_000.0
"""2050: Intel's root certificate ends at the end of 2049."""
_TOLERABLE_S: Final = 5.0
_SYNCHRONISE: Final = (
    "sudo apt install chrony && sudo systemctl enable --now chrony; chronyc tracking shows how far off it is"
)


def examine_clock(machine: Machine) -> Finding:
    """Compare it with what is possible, and ask the kernel whether anything disciplines it."""
    name, now_s = "clock", machine.now_s()
    if not _FIRST_POSSIBLE_S <= now_s < _LAST_POSSIBLE_S:
        shown = datetime.fromtimestamp(now_s, tz=UTC).date().isoformat()
        return failed(
            name,
            f"{shown} cannot be; clients would refuse every key as expired or not yet valid",
            _SYNCHRONISE,
        )
    shown = datetime.fromtimestamp(now_s, tz=UTC).isoformat(timespec="seconds")
    state = machine.clock_state()
    if state is None:
        return skipped(name, f"{shown}; the kernel does not say whether it is synchronised")
    if not state.synchronised:
        return warned(
            name,
            f"{shown}, not synchronised; minutes off, and clients refuse the enclave's keys",
            _SYNCHRONISE,
        )
    if state.max_error_s > _TOLERABLE_S:
        return warned(name, f"{shown}, synchronised to within {state.max_error_s:.0f} s only", _SYNCHRONISE)
    return passed(name, f"{shown}, synchronised")
