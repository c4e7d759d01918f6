# SPDX-License-Identifier: Apache-2.0
"""The policy that a deployment starts from: strict, complete, and accepting nothing until it is filled in.

Filling in may begin with what an appliance shows of itself. That is *trust on first use*: whoever answers first is
taken at his word for which enclave, configuration, models and machine are meant, although not for being genuine.
"""

import dataclasses
from typing import Final

from adyton_attestation.policy import (
    RELAXABLE,
    AllowedAdvisory,
    AppraisalPolicy,
    EnrolledPlatform,
    Identity,
    KeySeparation,
    Relaxation,
    TcbPolicy,
)
from adyton_attestation.policy_lint import PLACEHOLDER
from adyton_attestation.result import ResultFields
from adyton_protocol.digests import Digest

_KEY_LIFE_S: Final = 3600
"""Epochs last 15 minutes; keys that end further ahead than an hour are dated by a wrong clock."""

_PROVISO: Final = (
    "Gramine mitigates it in its PAL; without such a mitigation in the enclave, remove this entry"
)
_MITIGATED: Final = {
    "INTEL-SA-00615": f"processor MMIO stale data: {_PROVISO}",
    "INTEL-SA-00657": f"stale data read from xAPIC: {_PROVISO}",
}


STARTER_NAME: Final = "production: add the release's reference values and your platforms"
_FIRST_USE_S: Final = 60


def starter_policy(name: str = STARTER_NAME, *, advisories_until_s: int) -> AppraisalPolicy:
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


def first_use_policy(*, advisories_until_s: int, now_s: int) -> AppraisalPolicy:
    """Return a policy for one look at an appliance that nothing is known of.

    Everything is demanded but reference values: the evidence must be genuine, current, and answer the challenge. It
    must never lead to a request, because it accepts whoever answers; it ends a minute after it was made.
    """
    strict = starter_policy(
        "first look: genuine, but nobody in particular", advisories_until_s=advisories_until_s
    )
    return dataclasses.replace(
        strict,
        # x87 and SSE are always on; the rest is to be found out.
        identity=Identity(xfrm=0x03, xfrm_mask=0x03),
        relaxations=tuple(
            Relaxation(check=check, reason="a first look", expires_s=now_s + _FIRST_USE_S)
            for check in sorted(RELAXABLE)
        ),
    )


def policy_as_seen(
    seen: ResultFields,
    *,
    name: str,
    custodian: str | None,
    place: str | None,
    advisories_until_s: int,
) -> AppraisalPolicy:
    """Return a policy that accepts exactly what was seen: this build, configuration, models and machine.

    Args:
        seen: A result under :func:`first_use_policy`.
        name: A name for people.
        custodian: Who keeps the machine; None leaves a text that :mod:`adyton_attestation.policy_lint` finds.
        place: Where it stands; the same.
        advisories_until_s: As of :func:`starter_policy`.
    """
    report, claims, extension = seen.quote.report, seen.claims, seen.keyset.extension
    by_name: dict[str, set[Digest]] = {}
    for model in extension.models:
        by_name.setdefault(model.name, set()).add(model.identity)
    return dataclasses.replace(
        starter_policy(name, advisories_until_s=advisories_until_s),
        identity=Identity(
            mr_enclaves=frozenset({report.mr_enclave}),
            xfrm=report.xfrm,
            misc_select=report.misc_select,
            key_separation=KeySeparation(
                config_id=report.config_id,
                config_svn=report.config_svn,
                isv_ext_prod_id=report.isv_ext_prod_id,
                isv_family_id=report.isv_family_id,
            ),
        ),
        platforms=(
            EnrolledPlatform(
                ppid=claims.ppid,
                platform_instance_id=claims.platform_instance_id,
                custodian=custodian or f"{PLACEHOLDER}: who keeps this machine",
                place=place or f"{PLACEHOLDER}: where this machine stands",
            ),
        ),
        configurations=frozenset({extension.configuration_digest}),
        models=tuple(sorted((model, frozenset(identities)) for model, identities in by_name.items())),
    )
