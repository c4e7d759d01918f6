# SPDX-License-Identifier: Apache-2.0
"""Room on the disk, and the age of the endorsements that clients are served from it."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from adyton_host.doctor.finding import Finding, failed, passed, skipped, warned
from adyton_host.doctor.machine import Machine
from adyton_protocol.media import MAX_ENDORSEMENTS_BYTES

_MIB: Final = 1 << 20
_LEAST_BYTES: Final = 64 * _MIB
_WANTED_BYTES: Final = 1024 * _MIB
_DAY_S: Final = 86_400.0
_FETCH: Final = (
    "`adyton-host up` fetches them and keeps them fresh; --endorsements-from names another source than Intel: "
    "pccs=URL, or with an air gap the FILE of a bundle (adyton endorsements export)"
)


def examine_disk(machine: Machine, state: Path) -> Finding:
    """Is there room for logs? An enclave that cannot write a log line would go on; the host would not start."""
    name = "disk"
    existing = next((path for path in (state, *state.parents) if path.exists()), None)
    if existing is None:
        return skipped(name, f"{state} cannot be looked at")
    free = machine.free_bytes(existing)
    if free < _LEAST_BYTES:
        return failed(
            name,
            f"{free // _MIB} MiB free where {state} lies",
            "make room, or name another --state directory",
        )
    if free < _WANTED_BYTES:
        return warned(
            name, f"{free // _MIB} MiB free where {state} lies; logs take up to 80 MiB", "make room"
        )
    return passed(name, f"{free // _MIB} MiB free where {state} lies")


def examine_endorsements(machine: Machine, path: Path) -> Finding:
    """Until when clients accept what they are served. Who has none fetches them elsewhere, so nothing here is fatal."""
    name = "endorsements"
    try:
        if path.stat().st_size > MAX_ENDORSEMENTS_BYTES:
            return warned(name, f"{path} is larger than clients read", _FETCH)
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return warned(name, f"none to serve yet ({path})", _FETCH)
    except (OSError, UnicodeDecodeError) as error:
        return warned(name, f"{path} cannot be read ({type(error).__name__})", _FETCH)
    end_s = _earliest_end_s(text)
    if end_s is None:
        return warned(name, f"{path} is no endorsement document", _FETCH)
    left_s, shown = end_s - machine.now_s(), datetime.fromtimestamp(end_s, tz=UTC).date().isoformat()
    if left_s <= 0:
        return warned(name, f"ended on {shown}; clients refuse them", _FETCH)
    if left_s < _DAY_S:
        return warned(name, f"end within a day ({shown})", _FETCH)
    return passed(name, f"valid until {shown} ({left_s / _DAY_S:.0f} days)")


def _earliest_end_s(text: str) -> float | None:
    """When the first of TCB Info and QE Identity has its next update; None for anything that is no such document.

    Whether anything in it is genuine, clients decide; the host reads two dates.
    """
    try:
        document = json.loads(text)
        inner = [_member(document[key]) for key in ("tcb_info", "qe_identity")]
        return min(datetime.fromisoformat(each["nextUpdate"]).timestamp() for each in inner)
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None


def _member(value: object) -> dict[str, str]:
    parsed = json.loads(value) if isinstance(value, str) else value
    if not isinstance(parsed, dict):
        raise TypeError
    return parsed
