# SPDX-License-Identifier: Apache-2.0
"""The policy that a deployment starts from: strict, complete, and accepting nothing until it is filled in."""

from typing import Final

from adyton_attestation.policy import AllowedAdvisory, AppraisalPolicy, TcbPolicy

_KEY_LIFE_S: Final = 3600
"""Epochs last 15 minutes; keys that end further ahead than an hour are dated by a wrong clock."""

_PROVISO: Final = (
    "Gramine mitigates it in its PAL; without such a mitigation in the enclave, remove this entry"
)
_MITIGATED: Final = {
    "INTEL-SA-00615": f"processor MMIO stale data: {_PROVISO}",
    "INTEL-SA-00657": f"stale data read from xAPIC: {_PROVISO}",
}


def starter_policy(
    name: str = "production: add the release's reference values and your platforms",
    *,
    advisories_until_s: int,
) -> AppraisalPolicy:
    """Return a policy that names no enclave, platform, configuration or model, and therefore accepts none.

    Args:
        name: A name for people.
        advisories_until_s: Unix time at which the two advisories that Gramine mitigates are to be looked at again.
    """
    return AppraisalPolicy(
        name=name,
        tcb=TcbPolicy(
            advisories=tuple(
                AllowedAdvisory(advisory_id=advisory_id, reason=reason, expires_s=advisories_until_s)
                for advisory_id, reason in _MITIGATED.items()
            )
        ),
        max_key_life_s=_KEY_LIFE_S,
    )
