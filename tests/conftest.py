# SPDX-License-Identifier: Apache-2.0
"""What every test shares: one running simulated appliance, and no way out to the network."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from appliance import Appliance, running
from tiny_appliance import running_tiny

# Timing is not a property under test: shared machines stall, and a deadline would only make tests flaky.
# The gate draws the same examples each time, so that it judges the change and not its luck; `make test-explore` draws
# new ones, and more of them, and what it finds becomes an explicit example.
settings.register_profile(
    "adyton", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "explore", parent=settings.get_profile("adyton"), derandomize=False, max_examples=500
)
settings.load_profile("adyton")

_LOOPBACK = ("127.", "::1", "localhost")


@pytest.fixture(autouse=True)
def _loopback_only(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection that leaves the machine, unless the test is marked ``network``."""
    if request.node.get_closest_marker("network"):
        return
    genuine = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and not str(address[0]).startswith(_LOOPBACK):
            raise ConnectionRefusedError(f"tests stay on loopback; {address!r} is not")
        genuine(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture(scope="session")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """The real appliance in simulation: host and enclave processes, the shipped model, real sealing."""
    with running(tmp_path_factory.mktemp("appliance")) as started:
        yield started


@pytest.fixture
def own_appliance(tmp_path: Path) -> Iterator[Appliance]:
    """An appliance of the test's own, to kill or to misconfigure."""
    with running(tmp_path) as started:
        yield started


@pytest.fixture(scope="session")
def tiny_appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """The real appliance in simulation with a tiny model of random weights, whose answers take milliseconds."""
    with running_tiny(tmp_path_factory.mktemp("tiny")) as started:
        yield started
