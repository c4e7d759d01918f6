# SPDX-License-Identifier: Apache-2.0
"""Which appraiser a client uses: the caller decides, exactly once, in code.

There is no default and no fallback. A real appliance needs a policy, because only the caller knows which
releases he trusts; a simulated one needs a :class:`~adyton.simulation.Simulation`.
"""

from collections.abc import Callable
from pathlib import Path

from adyton.marks import MarkFile, default_path
from adyton.session import Appraiser, ReleaseSource, Session
from adyton.simulation import Simulation
from adyton_attestation.policy import AppraisalPolicy
from adyton_attestation.simulation import SimulatedVerifier
from adyton_attestation.verifier import Verifier
from adyton_protocol.errors import ConfigError

PolicySource = AppraisalPolicy | str | Path
"""A policy, or the path of its TOML file."""


ReleasesOrigin = bytes | str | Path
"""A release file of the user's own: what is in it, or its path."""


def appraiser_for(policy: PolicySource | None, simulation: Simulation | None) -> Verifier | SimulatedVerifier:
    """Return the verifier for what the caller chose.

    Raises:
        ConfigError: Neither or both were chosen, or the policy file is unusable.
    """
    if policy is not None and simulation is not None:
        raise ConfigError("choose policy (a real appliance) or simulation, not both")
    if simulation is not None:
        return simulation.verifier()
    if policy is None:
        raise ConfigError(
            "no appraisal policy: pass the policy file that came with the appliance's release "
            "(policy=..., or --policy FILE); for a simulated appliance choose simulation explicitly "
            "(simulation=Simulation.from_dir(), or --simulated)"
        )
    return Verifier(policy if isinstance(policy, AppraisalPolicy) else read_policy(Path(policy)))


def new_session(
    policy: PolicySource | None,
    simulation: Simulation | None,
    demand: Callable[[Appraiser], Appraiser] = lambda appraiser: appraiser,
    releases: ReleasesOrigin | None = None,
) -> Session:
    """Make the session for what the caller chose; for a real appliance with the marks of earlier ones.

    Args:
        policy: See :func:`appraiser_for`.
        simulation: See there.
        demand: Puts further demands around the appraiser; it may only refuse more.
        releases: A release file to use instead of the one that the appliance carries.

    Raises:
        ConfigError: As :func:`appraiser_for`, or the kept marks are damaged.
    """
    chosen = appraiser_for(policy, simulation)
    appraiser, source = demand(chosen), _releases_for(chosen.policy, releases)
    if simulation is not None:
        return Session(appraiser, releases=source)
    file = MarkFile(default_path())
    return Session(appraiser, marks=file.load(), keep_marks=file.keep, releases=source)


def _releases_for(policy: AppraisalPolicy, origin: ReleasesOrigin | None) -> ReleaseSource:
    if origin is None:
        return ReleaseSource(demanded=policy.releases is not None)
    if policy.releases is None:
        raise ConfigError(
            "a release file does nothing without [releases] in the policy, which names its signers"
        )
    return ReleaseSource(demanded=True, file=origin if isinstance(origin, bytes) else _read(Path(origin)))


def _read(path: Path) -> bytes:
    try:
        return path.expanduser().read_bytes()
    except OSError as error:
        raise ConfigError(f"the release file {path} cannot be read: {error.strerror}") from error


def read_policy(path: Path) -> AppraisalPolicy:
    """Read a policy file.

    Raises:
        ConfigError: The file cannot be read or is not a policy.
    """
    try:
        data = path.expanduser().read_bytes()
    except OSError as error:
        raise ConfigError(f"the policy file {path} cannot be read: {error.strerror}") from error
    try:
        return AppraisalPolicy.from_toml(data)
    except ConfigError as error:
        raise ConfigError(f"the policy file {path}: {error}") from error
