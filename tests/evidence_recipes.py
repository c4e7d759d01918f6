# SPDX-License-Identifier: Apache-2.0
"""What the vectors of appraisals write, as arguments of the simulated quoter and of the simulated service."""

from typing import Any

DAY_S = 86_400


def report_fields(written: dict[str, Any]) -> dict[str, Any]:
    """Return fields of an enclave's or a trust domain's report; texts are hexadecimal."""
    return {
        name: bytes.fromhex(value) if isinstance(value, str) else value for name, value in written.items()
    }


def endorsement_fields(written: dict[str, Any], now_s: int) -> dict[str, Any]:
    """Return fields of ``EndorsementSpec``."""
    fields = dict(written)
    if "advisory_ids" in fields:
        fields["advisory_ids"] = tuple(fields["advisory_ids"])
    for name in ("pce_id", "fmspc"):
        if name in fields:
            fields[name] = bytes.fromhex(fields[name])
    if "issued_days_ago" in fields:
        fields["issued_s"] = now_s - int(fields.pop("issued_days_ago") * DAY_S)
    return fields
