# SPDX-License-Identifier: Apache-2.0
"""Frozen settings of the host. Nothing here is measured: every value bounds availability, not trust."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from adyton_protocol import media

DEFAULT_PORT: Final = 8470
DEFAULT_HOST: Final = "127.0.0.1"


def default_state_dir() -> Path:
    """Where a running host keeps its lock, its logs and the enclave's run directories."""
    return Path.home() / ".local" / "share" / "adyton" / "host"


def default_simulation_dir() -> Path:
    """Where the simulated platform lives; the client's ``--simulation-dir`` has the same default."""
    return Path.home() / ".local" / "share" / "adyton" / "simulation"


def default_image_dir() -> Path:
    """Where ``adyton-host manifest`` puts an enclave image, and where ``up`` looks for it."""
    return Path.home() / ".local" / "share" / "adyton" / "enclave"


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayLimits:
    """What the relay accepts and how long it waits.

    Attributes:
        max_request_bytes: Largest sealed request body.
        max_in_flight: Sealed requests carried at the same time; one more is refused, never queued.
        max_attestations: Attestation and key fetches carried at the same time.
        retry_after_s: Advice sent with a refusal for want of room.
        upload_idle_s: Longest pause between two parts of a request body.
        download_idle_s: Longest time that a client may leave one part of an answer untaken.
        connect_s: Longest time to reach the enclave's loopback port.
        enclave_write_s: Longest time that the enclave may leave one part of a request untaken.
        enclave_idle_s: Longest silence of the enclave inside one exchange. An unstreamed answer is silent
            until it is complete, so this has to exceed the enclave's own request timeout.
    """

    max_request_bytes: int = media.MAX_REQUEST_BYTES
    max_in_flight: int = 128
    max_attestations: int = 32
    retry_after_s: int = 1
    upload_idle_s: float = 30.0
    download_idle_s: float = 60.0
    connect_s: float = 2.0
    enclave_write_s: float = 30.0
    enclave_idle_s: float = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PassthroughLimits:
    """What is lent to connections of the second channel.

    Attributes:
        max_connections: Open at the same time; one more is closed at once.
        connect_s: Longest time to reach the enclave's port.
        idle_s: Longest silence in both directions. An answer that is not streamed is silent until it is complete, so
            this has to exceed the enclave's own request timeout.
        write_s: Longest time that either side may leave one part untaken.
        max_age_s: Longest life of a connection; clients check an enclave once per connection.
    """

    max_connections: int = 256
    connect_s: float = 2.0
    idle_s: float = 900.0
    write_s: float = 60.0
    max_age_s: float = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorTiming:
    """Deadlines and pauses of the supervisor, in seconds.

    Attributes:
        start_timeout_s: From starting the process until it attests.
        poll_s: Pause between two readiness probes while it starts.
        stop_grace_s: From SIGTERM to SIGKILL.
        backoff_first_s: Pause before the first restart; doubles with each failure in a row.
        backoff_max_s: Longest pause before a restart.
        stable_s: An enclave that served this long has recovered; the next failure starts over.
    """

    start_timeout_s: float = 180.0
    poll_s: float = 0.05
    stop_grace_s: float = 10.0
    backoff_first_s: float = 0.25
    backoff_max_s: float = 30.0
    stable_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSettings:
    """One running host: where it listens, where it keeps its files, how long it waits.

    Attributes:
        host: Address of the relay; it is meant to face the network, behind TLS where that is wanted.
        port: TCP port of the relay; 0 lets the system choose.
        state_dir: See :func:`default_state_dir`.
        simulation_dir: The simulated platform, or None when the hardware is real.
        limits: What the relay accepts.
        timing: Deadlines of the supervisor.
        ra_tls_port: TCP port of the second channel, passed through to the enclave; None leaves it closed.
        passthrough: What its connections are lent.
        drain_s: How long running exchanges may go on after SIGTERM.
    """

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    state_dir: Path = field(default_factory=default_state_dir)
    simulation_dir: Path | None = None
    limits: RelayLimits = field(default_factory=RelayLimits)
    timing: SupervisorTiming = field(default_factory=SupervisorTiming)
    ra_tls_port: int | None = None
    passthrough: PassthroughLimits = field(default_factory=PassthroughLimits)
    drain_s: int = 10
