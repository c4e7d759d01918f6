# SPDX-License-Identifier: Apache-2.0
"""Where a client gets endorsements, when not from the appliance.

The appliance's host serves what it keeps, and that is the default: no other connection, nobody else who learns that
somebody appraises. A client that would rather ask Intel or a caching service itself, or that lives behind an air gap,
makes a supply here and passes it as ``endorsements=``. What comes from there is appraised like anything else: a source
can withhold, and nothing more. ::

    client = Client(url, policy="policy.toml", endorsements=endorsements_from("pccs=https://pccs.example:8081"))
"""

from pathlib import Path

from adyton.simulation import Simulation
from adyton_attestation.certificates import TrustAnchor, trust_anchor
from adyton_attestation.roots import INTEL_SGX_ROOT_DER
from adyton_attestation.sources.cache import EndorsementCache
from adyton_attestation.sources.choice import FileSource, SourceOptions, choose_source
from adyton_attestation.sources.supply import EndorsementSupply

__all__ = ["EndorsementSupply", "SourceOptions", "default_cache", "endorsements_from"]


def default_cache() -> Path:
    """Where endorsements of this user are kept: fetched, or imported from a bundle."""
    return Path.home() / ".local" / "share" / "adyton" / "endorsements"


def anchor_of(simulation: Simulation | None) -> TrustAnchor:
    """Return the root below which endorsements must stand for what the caller talks to."""
    return trust_anchor(INTEL_SGX_ROOT_DER if simulation is None else simulation.root_der)


def endorsements_from(
    choice: str,
    options: SourceOptions | None = None,
    *,
    simulation: Simulation | None = None,
    cache: Path | None = None,
) -> EndorsementSupply:
    """Make the supply that a choice names.

    Args:
        choice: ``pcs`` (Intel), ``pccs=URL``, ``cache`` (what is kept, and no network), or the path of a collateral
            file or a bundle.
        options: CA file, proxy, channel, and whose bundle is accepted.
        simulation: For a simulated appliance, whose root is another.
        cache: Directory to keep endorsements in; :func:`default_cache` for real ones. Simulated ones are not kept
            unless a directory is named.

    Raises:
        ConfigError: The choice names no source.
    """
    anchor = anchor_of(simulation)
    source = choose_source(choice, options or SourceOptions())
    directory = default_cache() if cache is None and simulation is None else cache
    # A file is at hand anyway; what it holds shall not be mixed with what was kept from elsewhere.
    if directory is None or isinstance(source, FileSource):
        return EndorsementSupply(source, anchor)
    return EndorsementSupply(source, anchor, EndorsementCache(directory, anchor))
